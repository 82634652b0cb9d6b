//! `[http]`: where `/healthz`, `/readyz` and `/metrics` are served.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The table `[http]`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address and port; default 127.0.0.1:9320.
    pub listen: SocketAddr,
    /// File with the bearer token; required when `listen` is not a loopback address.
    pub token_file: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9320)), token_file: None }
    }
}
