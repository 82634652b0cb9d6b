//! Connecting to NATS: with TLS, credentials, a bounded time, and one sentence for what is in the way.
//!
//! A connection that is lost is given up: who uses it opens another one, and so begins again from a known place.

mod said;
mod stream;
mod subject;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::{ConnectOptions, Event};
use tokio::sync::watch;

pub use stream::{LIMIT_AGE, LIMIT_BYTES, MAX_STREAMS, StreamError, make, of_subject};
pub use subject::{covers, is_filter, is_subject, meets};

use super::NatsConfig;
use crate::secret::{SecretError, SecretSource};

/// How long one server may take to let us in.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a request to JetStream may take.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// A server that leaves two of these unanswered is away.
const PING_EVERY: Duration = Duration::from_secs(10);
/// Messages of one subscription that wait to be taken; pulls never ask for so many.
const WAITING: usize = 16_384;
/// Bytes of a file with certificates, a key or credentials.
const MAX_FILE: u64 = 1 << 20;

/// Why a NATS server cannot be used. One sentence with the remedy, without secrets.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A secret of ours cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file of ours cannot be used.
    #[error("`{key}` {path}: {reason}")]
    File {
        /// Its key in the configuration.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server is away, refuses us, or is none.
    #[error("{0}")]
    Server(String),
}

/// A connection that is up, or was.
pub struct Connection {
    context: jetstream::Context,
    servers: String,
    /// The last error that the server told.
    said: Arc<Mutex<Option<String>>>,
    /// True once it is lost.
    lost: watch::Receiver<bool>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({})", self.servers)
    }
}

impl Connection {
    /// Connects to one of the servers. Secrets and files are read each time, so that changed ones need no restart.
    ///
    /// # Errors
    /// [`ConnectError`], within a few seconds for each server.
    pub async fn open(config: &NatsConfig) -> Result<Connection, ConnectError> {
        let servers = config.servers.join(", ");
        let (lost_in, lost) = watch::channel(false);
        let said = Arc::default();
        let options = listen(options(config)?, Arc::clone(&said), lost_in).max_reconnects(config.servers.len().max(1));
        // In a task of its own: what the server answers may make the library panic.
        let opening = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(options.connect(config.servers.clone())));
        let within = CONNECT_WITHIN.saturating_mul(u32::try_from(config.servers.len()).unwrap_or(u32::MAX)).saturating_add(CONNECT_WITHIN);
        let client = match tokio::time::timeout(within, opening).await {
            Ok(Ok(Ok(client))) => client,
            Ok(Ok(Err(error))) => return Err(ConnectError::Server(said::refusal(&error, &servers, config))),
            Ok(Err(_)) => return Err(ConnectError::Server(said::no_nats(&servers))),
            Err(_) => return Err(ConnectError::Server(said::silent(&servers))),
        };
        Ok(Connection { context: jetstream::new(client), servers, said, lost })
    }

    /// JetStream through this connection.
    #[must_use]
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.context
    }

    /// The connection itself.
    #[must_use]
    pub fn client(&self) -> async_nats::Client {
        self.context.client()
    }

    /// Whether it is lost; then it will not come back.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        // A sender that is gone is a connection that has ended.
        *self.lost.borrow() || self.lost.has_changed().is_err()
    }

    /// Returns once it is lost.
    pub async fn ended(&self) {
        // An error says the same: nobody looks after the connection any more.
        let _ = self.lost.clone().wait_for(|lost| *lost).await;
    }

    /// A sentence about something that failed, with where, and what the server has said about it.
    #[must_use]
    pub fn explain(&self, what: &str) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).take();
        match said {
            Some(said) => format!("NATS at {}: {what}; the server says: {said}", self.servers),
            None => format!("NATS at {}: {what}", self.servers),
        }
    }
}

/// Keeps what the server says, and notices the end.
fn listen(options: ConnectOptions, said: Arc<Mutex<Option<String>>>, lost: watch::Sender<bool>) -> ConnectOptions {
    let lost = Arc::new(lost);
    options.event_callback(move |event| {
        match event {
            Event::Disconnected | Event::Closed => drop(lost.send_replace(true)),
            Event::ServerError(error) => *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string()),
            Event::SlowConsumer(_) => tracing::warn!("messages of NATS came faster than they were taken, and are asked for again"),
            _ => {}
        }
        std::future::ready(())
    })
}

fn options(config: &NatsConfig) -> Result<ConnectOptions, ConnectError> {
    let read = |secret: &Option<SecretSource>| secret.as_ref().map(SecretSource::read).transpose();
    let mut options = ConnectOptions::new();
    if let (Some(user), Some(password)) = (&config.user, read(&config.password)?) {
        options = options.user_and_password(user.clone(), password.expose().to_owned());
    }
    if let Some(token) = read(&config.token)? {
        options = options.token(token.expose().to_owned());
    }
    if let Some(seed) = read(&config.nkey)? {
        options = options.nkey(seed.expose().trim().to_owned());
    }
    if let Some(path) = &config.creds_file {
        let wrong = |reason: &str| ConnectError::File { key: "creds_file", path: path.display().to_string(), reason: reason.to_owned() };
        let text = text("creds_file", path)?;
        // Its own error repeats what it read.
        options = options.credentials(&text).map_err(|_| wrong("it holds no user JWT and seed; `nsc generate creds` writes one"))?;
    }
    Ok(encrypted(options, config)?
        .name("opmas")
        .connection_timeout(CONNECT_WITHIN)
        .request_timeout(Some(REQUEST_WITHIN))
        .ping_interval(PING_EVERY)
        .subscription_capacity(WAITING))
}

/// With files of ours, nothing is said before the connection is encrypted.
fn encrypted(mut options: ConnectOptions, config: &NatsConfig) -> Result<ConnectOptions, ConnectError> {
    if let Some(path) = &config.tls.ca_file {
        holds("ca_file", path, "CERTIFICATE-----")?;
        options = options.add_root_certificates(path.clone()).require_tls(true);
    }
    if let (Some(certificate), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) {
        holds("cert_file", certificate, "CERTIFICATE-----")?;
        holds("key_file", key, "PRIVATE KEY-----")?;
        options = options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

fn holds(key: &'static str, path: &Path, mark: &str) -> Result<(), ConnectError> {
    if text(key, path)?.contains(mark) {
        return Ok(());
    }
    let reason = format!("it is no PEM file with `-----BEGIN {mark}`; name another");
    Err(ConnectError::File { key, path: path.display().to_string(), reason })
}

fn text(key: &'static str, path: &Path) -> Result<String, ConnectError> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| ConnectError::File { key, path: path.display().to_string(), reason: format!("it cannot be read: {error}") })
}
