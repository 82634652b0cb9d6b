//! The keys of an email channel.

use std::path::{Path, PathBuf};

use lettre::message::Mailbox;
use serde::Deserialize;
use toml::Spanned;

use crate::alert::keys::{disabled, fault, timeout};
use crate::diag::{Diagnostic, Place, SourceFile, from_toml};
use crate::http::is_loopback;
use crate::model::Span;
use crate::secret::SecretSource;

/// Recipients of one channel.
const MAX_RECIPIENTS: usize = 50;
/// How long the server may take for all that comes before the message, and again for accepting it.
const TIMEOUT: Span = Span::secs(60);
/// The longest `timeout` that can be set: a channel's queue stands still meanwhile.
const MAX_TIMEOUT: Span = Span::secs(600);

/// How the connection is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// Not at all.
    None,
    /// By STARTTLS, which the server must offer (RFC 3207).
    #[default]
    Starttls,
    /// From the first byte (RFC 8314).
    Implicit,
}

impl Tls {
    fn port(self) -> u16 {
        match self {
            Tls::None => 25,
            Tls::Starttls => 587,
            Tls::Implicit => 465,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(rename = "integration")]
    _integration: String,
    enabled: Option<Spanned<bool>>,
    host: Spanned<String>,
    port: Option<u16>,
    #[serde(default)]
    tls: Option<Spanned<Tls>>,
    username: Option<Spanned<String>>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    from: Spanned<String>,
    to: Spanned<Vec<Spanned<String>>>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    insecure: bool,
    timeout: Option<Spanned<Span>>,
    #[serde(default)]
    resolved: bool,
}

/// A checked email channel.
#[derive(Clone, Debug)]
pub struct Email {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    /// User name, and where the password is.
    pub(super) login: Option<(String, SecretSource)>,
    pub(super) from: Mailbox,
    pub(super) to: Vec<Mailbox>,
    /// Certificates (PEM) that are believed instead of the system's.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) timeout: Span,
    /// Whether a mail says that an alert is over.
    pub(in crate::alert) resolved: bool,
}

impl Email {
    /// `host:port`.
    #[must_use]
    pub fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Reads and checks the file; with it, where the channel is disabled.
pub(in crate::alert) fn load(file: &SourceFile, base: &Path) -> Result<(Option<Place>, Email), Vec<Diagnostic>> {
    let table: Table = from_toml(&file.name, &file.text).map_err(|fault| vec![fault])?;
    let disabled = disabled(file, table.enabled.as_ref());
    let mut faults = Vec::new();
    let mut keep = |fault: Diagnostic| faults.push(fault);
    let tls = table.tls.as_ref().map_or(Tls::default(), |tls| *tls.get_ref());
    host(file, &table, tls).map_err(&mut keep).ok();
    let login = login(file, &table, base).map_err(&mut keep).ok().flatten();
    let from = mailbox(file, &table.from).map_err(&mut keep).ok();
    let to = recipients(file, &table.to, &mut keep);
    let timeout = timeout(file, table.timeout.as_ref(), TIMEOUT, MAX_TIMEOUT).map_err(&mut keep).unwrap_or(TIMEOUT);
    let (Some(from), true) = (from, faults.is_empty()) else { return Err(faults) };
    let ca_file = table.ca_file.map(|path| base.join(path));
    let port = table.port.unwrap_or_else(|| tls.port());
    Ok((disabled, Email { host: table.host.into_inner(), port, tls, login, from, to, ca_file, timeout, resolved: table.resolved }))
}

fn host(file: &SourceFile, table: &Table, tls: Tls) -> Result<(), Diagnostic> {
    let host = table.host.get_ref();
    let legal = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if host.is_empty() || host.len() > 253 || !host.chars().all(legal) {
        return Err(fault(file, &table.host.span(), format!("`{host}` is no host"), "write a host name or an address, without brackets and port"));
    }
    if tls == Tls::None && !table.insecure && !is_loopback(host) {
        let span = table.tls.as_ref().map_or(table.host.span(), Spanned::span);
        return Err(fault(file, &span, format!("mail to {host} would go unencrypted"), "write `tls = \"starttls\"` or `\"implicit\"`, or `insecure = true`"));
    }
    Ok(())
}

fn login(file: &SourceFile, table: &Table, base: &Path) -> Result<Option<(String, SecretSource)>, Diagnostic> {
    let span = table.username.as_ref().map_or(table.host.span(), Spanned::span);
    let source = SecretSource::choose(base, table.password_file.clone(), table.password_env.clone());
    match (&table.username, source) {
        (_, Err(())) => Err(fault(file, &span, "both `password_file` and `password_env` are given", "keep one of them")),
        (None, Ok(None)) => Ok(None),
        (Some(username), Ok(Some(source))) => Ok(Some((username.get_ref().clone(), source))),
        (Some(_), Ok(None)) => Err(fault(file, &span, "a user name without a password", "write `password_file = \"…\"` or `password_env = \"…\"`")),
        (None, Ok(Some(_))) => Err(fault(file, &span, "a password without a user name", "write `username = \"…\"`")),
    }
}

fn recipients(file: &SourceFile, to: &Spanned<Vec<Spanned<String>>>, keep: &mut impl FnMut(Diagnostic)) -> Vec<Mailbox> {
    let list = to.get_ref();
    if list.is_empty() || list.len() > MAX_RECIPIENTS {
        keep(fault(file, &to.span(), format!("{} recipients", list.len()), format!("name 1 to {MAX_RECIPIENTS} addresses")));
    }
    list.iter().filter_map(|address| mailbox(file, address).map_err(&mut *keep).ok()).collect()
}

/// `name@host` or `Name <name@host>`. The address is ASCII, so that every server takes it.
fn mailbox(file: &SourceFile, written: &Spanned<String>) -> Result<Mailbox, Diagnostic> {
    let text = written.get_ref();
    let bad = || fault(file, &written.span(), format!("`{text}` is no mail address"), "write `name@example.org` or `Name <name@example.org>`");
    if text.chars().any(char::is_control) {
        return Err(bad());
    }
    let mailbox: Mailbox = text.parse().map_err(|_| bad())?;
    if mailbox.email.to_string().is_ascii() { Ok(mailbox) } else { Err(bad()) }
}
