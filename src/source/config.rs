//! `[source.NAME]` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a syslog source listens when nothing else is said: this machine only, above the privileged ports.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1514);

/// One configured source.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Written", tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// `type = "syslog"`
    Syslog(SyslogConfig),
    /// `type = "file"`
    File(FileConfig),
    /// `type = "stdin"`: lines from standard input; believed as a local file is.
    Stdin,
}

/// Listens for syslog over UDP and TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyslogConfig {
    /// Address and port (127.0.0.1:1514).
    pub listen: SocketAddr,
    /// Whether it listens on UDP (true).
    pub udp: bool,
    /// Whether it listens on TCP (true): newline, octet-counted (RFC 6587) and NUL framing.
    pub tcp: bool,
    /// Whether everything that comes here is believed (false). Without it only TCP from an inventory address is.
    pub trusted: bool,
}

impl Default for SyslogConfig {
    fn default() -> SyslogConfig {
        SyslogConfig { listen: DEFAULT_LISTEN, udp: true, tcp: true, trusted: false }
    }
}

/// Follows a file that is written to, truncated, renamed away and made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileConfig {
    /// The file; it need not exist yet.
    pub path: PathBuf,
    /// Where to begin when no position is kept (start).
    pub from: From,
    /// Whether its lines are believed (true).
    pub trusted: bool,
}

/// Where a file that was never read begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// At its first line.
    #[default]
    Start,
    /// Behind its last line.
    End,
}

/// The table as it is written. One closed table for all types, so that a misspelt key is named with its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "type")]
    kind: Kind,
    listen: Option<SocketAddr>,
    udp: Option<bool>,
    tcp: Option<bool>,
    path: Option<PathBuf>,
    from: Option<From>,
    trusted: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Syslog,
    File,
    Stdin,
}

impl TryFrom<Written> for SourceConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<SourceConfig, String> {
        let foreign = match written.kind {
            Kind::Syslog => [("path", written.path.is_some()), ("from", written.from.is_some())].to_vec(),
            Kind::File => [("listen", written.listen.is_some()), ("udp", written.udp.is_some()), ("tcp", written.tcp.is_some())].to_vec(),
            Kind::Stdin => [
                ("listen", written.listen.is_some()),
                ("udp", written.udp.is_some()),
                ("tcp", written.tcp.is_some()),
                ("path", written.path.is_some()),
                ("from", written.from.is_some()),
                ("trusted", written.trusted.is_some()),
            ]
            .to_vec(),
        };
        if let Some((key, _)) = foreign.iter().find(|(_, written)| *written) {
            return Err(format!("`{key}` is no key of a source of this type"));
        }
        match written.kind {
            Kind::Syslog => syslog(&written),
            Kind::File => {
                let path = written.path.ok_or("a source of type `file` needs `path`")?;
                Ok(SourceConfig::File(FileConfig { path, from: written.from.unwrap_or_default(), trusted: written.trusted.unwrap_or(true) }))
            }
            Kind::Stdin => Ok(SourceConfig::Stdin),
        }
    }
}

fn syslog(written: &Written) -> Result<SourceConfig, String> {
    let default = SyslogConfig::default();
    let config = SyslogConfig {
        listen: written.listen.unwrap_or(default.listen),
        udp: written.udp.unwrap_or(default.udp),
        tcp: written.tcp.unwrap_or(default.tcp),
        trusted: written.trusted.unwrap_or(default.trusted),
    };
    if config.udp || config.tcp {
        Ok(SourceConfig::Syslog(config))
    } else {
        Err("with `udp = false` and `tcp = false` the source hears nothing; leave one out".to_owned())
    }
}
