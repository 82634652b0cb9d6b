//! The keys of a webhook channel.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use reqwest::{Client, Url};
use serde::Deserialize;
use toml::Spanned;

use crate::alert::keys::{disabled, fault, is_loopback, timeout};
use crate::alert::secret::SecretSource;
use crate::diag::{Diagnostic, Place, SourceFile, from_toml};
use crate::model::Span;

/// How long the whole exchange may take.
const TIMEOUT: Span = Span::secs(20);
/// The longest `timeout` that can be set: a channel's queue stands still meanwhile.
const MAX_TIMEOUT: Span = Span::secs(300);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "integration")]
    _integration: String,
    enabled: Option<Spanned<bool>>,
    url: Spanned<String>,
    secret_file: Option<PathBuf>,
    secret_env: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    insecure: bool,
    timeout: Option<Spanned<Span>>,
}

/// A checked webhook channel. Its URL comes from the owner's file alone, never from a log line.
#[derive(Clone)]
pub struct Webhook {
    pub(super) url: Url,
    pub(super) secret: SecretSource,
    /// Certificates (PEM) that are believed instead of the system's.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) timeout: Span,
    /// Made at the first message, since it reads the system's certificates.
    pub(super) client: OnceLock<Client>,
}

/// Without the URL's path and query, which often are the secret.
impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("target", &self.target()).field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl Webhook {
    /// `scheme://host:port`.
    #[must_use]
    pub fn target(&self) -> String {
        self.url.origin().ascii_serialization()
    }
}

/// Reads and checks the file; with it, where the channel is disabled.
pub(in crate::alert) fn load(file: &SourceFile, base: &Path) -> Result<(Option<Place>, Webhook), Vec<Diagnostic>> {
    let table: Table = from_toml(&file.name, &file.text).map_err(|fault| vec![fault])?;
    let disabled = disabled(file, table.enabled.as_ref());
    let mut faults = Vec::new();
    let url = url(file, &table).map_err(|fault| faults.push(fault)).ok();
    let secret = secret(file, &table, base).map_err(|fault| faults.push(fault)).ok();
    let timeout = timeout(file, table.timeout.as_ref(), TIMEOUT, MAX_TIMEOUT).map_err(|fault| faults.push(fault)).ok();
    let (Some(url), Some(secret), Some(timeout)) = (url, secret, timeout) else { return Err(faults) };
    let ca_file = table.ca_file.map(|path| base.join(path));
    Ok((disabled, Webhook { url, secret, ca_file, timeout, client: OnceLock::new() }))
}

fn url(file: &SourceFile, table: &Table) -> Result<Url, Diagnostic> {
    let wrong = |message: String, help: &str| fault(file, &table.url.span(), message, help);
    let url: Url = table.url.get_ref().parse().map_err(|error| wrong(format!("this is no URL: {error}"), "write `https://host/path`"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("the URL holds a user name or password".into(), "messages are signed with `secret_file`; remove what stands before the `@`"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if table.insecure || is_loopback(host) => Ok(url),
        "http" => Err(wrong(format!("messages to {host} would go unencrypted"), "write `https://`, or `insecure = true`")),
        other => Err(wrong(format!("`{other}:` is not spoken here"), "write `https://host/path`")),
    }
}

fn secret(file: &SourceFile, table: &Table, base: &Path) -> Result<SecretSource, Diagnostic> {
    let at = |message: &str, help: &str| fault(file, &table.url.span(), message, help);
    match SecretSource::choose(base, table.secret_file.clone(), table.secret_env.clone()) {
        Ok(Some(source)) => Ok(source),
        Ok(None) => Err(at("the signing secret is missing", "write `secret_file = \"…\"` or `secret_env = \"…\"`")),
        Err(()) => Err(at("both `secret_file` and `secret_env` are given", "keep one of them")),
    }
}
