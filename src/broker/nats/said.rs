//! What a server that does not let us in means, in words.

use std::error::Error;
use std::io;

use async_nats::{ConnectError, ConnectErrorKind};

use super::super::NatsConfig;

/// One sentence with the remedy.
pub(super) fn refusal(error: &ConnectError, servers: &str, config: &NatsConfig) -> String {
    if let Some(tls) = find::<rustls::Error>(error) {
        return certificate(tls, servers);
    }
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => format!("NATS at {servers} refuses us: {}", credentials(config)),
        ConnectErrorKind::Authentication => "the seed in `nkey_file` or `creds_file` is none of a NATS user; it begins with SU".to_owned(),
        ConnectErrorKind::Dns => format!("NATS at {servers}: the name cannot be resolved; correct `servers`"),
        ConnectErrorKind::ServerParse => format!("`servers`: {servers} is no address of a NATS server; write \"nats://host:4222\""),
        ConnectErrorKind::Tls => format!("NATS at {servers}: {}; look at `ca_file`, `cert_file` and `key_file`", innermost(error)),
        ConnectErrorKind::TimedOut => silent(servers),
        ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => other(error, servers),
    }
}

/// Nothing came in time.
pub(super) fn silent(servers: &str) -> String {
    format!("NATS at {servers} does not answer as a NATS server in time; see that it runs and that `servers` names its client port")
}

/// What came is not NATS.
pub(super) fn no_nats(servers: &str) -> String {
    format!("what answers at {servers} is no NATS server; correct `servers`, or see what listens there")
}

fn credentials(config: &NatsConfig) -> &'static str {
    if config.password.is_some() {
        "wrong user or password; correct `user` and `password_file` (or `password_env`)"
    } else if config.token.is_some() {
        "wrong token; correct `token_file` (or `token_env`)"
    } else if config.nkey.is_some() {
        "it does not know the nkey; put its public key into the server's users, or correct `nkey_file`"
    } else if config.creds_file.is_some() {
        "the credentials are wrong or no longer valid; renew `creds_file`"
    } else {
        "it wants to know who we are; give `user` with `password_file`, `token_file`, `nkey_file` or `creds_file`"
    }
}

fn certificate(error: &rustls::Error, servers: &str) -> String {
    use rustls::{CertificateError, Error};
    let what = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is not of an authority that is believed; name the authority's in `ca_file`"
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => "its certificate has expired; renew it on the server",
        Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            "its certificate is for another name; write the name that it is for in `servers`"
        }
        Error::AlertReceived(_) => "it refuses our certificate, or wants one; give `cert_file` and `key_file` of an authority that it believes",
        Error::InvalidMessage(_) => "it does not encrypt; turn its TLS on, or take `ca_file`, `cert_file` and tls:// away",
        _ => return format!("NATS at {servers}: TLS failed: {error}; look at `ca_file`, `cert_file` and `key_file`"),
    };
    format!("NATS at {servers}: {what}")
}

fn other(error: &ConnectError, servers: &str) -> String {
    let Some(io) = find::<io::Error>(error) else {
        // What it says are its own words, or pieces of what came.
        let text = error.to_string();
        return match text.contains("expected INFO, got nothing") || text.contains("broken pipe") {
            true => hung_up(servers),
            false if text.contains("expected INFO") => no_nats(servers),
            false => format!("NATS at {servers}: {}", shortened(&text)),
        };
    };
    match io.kind() {
        io::ErrorKind::ConnectionRefused => format!("nothing listens at {servers}; start the NATS server, or correct `servers`"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => no_nats(servers),
        io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => hung_up(servers),
        _ => format!("NATS at {servers} cannot be reached: {}", shortened(&io.to_string())),
    }
}

fn hung_up(servers: &str) -> String {
    format!("NATS at {servers} hangs up; it is starting or ending, is no NATS server, or wants a certificate (`cert_file`, `key_file`)")
}

/// At most so much of what others said.
fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The first error of a type in the chain of causes; an `io::Error` hides what it carries from the chain.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    for _ in 0..16 {
        let here = next?;
        if let Some(found) = here.downcast_ref::<E>() {
            return Some(found);
        }
        next = match here.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => here.source(),
        };
    }
    None
}

fn innermost(error: &ConnectError) -> String {
    shortened(&error.source().map_or_else(|| error.to_string(), ToString::to_string))
}
