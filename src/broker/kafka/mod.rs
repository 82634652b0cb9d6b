//! Connecting to Kafka: what librdkafka is told, and what it says as one clear sentence.

mod commits;
mod listener;
mod native;
mod topics;

pub use commits::Commits;
pub use listener::{Kind, Listener, Trouble};
pub use topics::{Topic, describe};

use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::{KafkaConfig, Mechanism, Protocol};
use crate::secret::SecretError;

/// How long a connection with its handshakes may take, in milliseconds.
const SETUP_MS: u32 = 10_000;
/// How long an answer may take, in milliseconds.
const ANSWER_MS: u32 = 30_000;
/// The longest pause between two tries to connect, in milliseconds.
const BACKOFF_MS: u32 = 5_000;
/// The largest answer that is taken, in bytes: a single message larger than this cannot be read.
const MAX_ANSWER: u32 = 128 << 20;

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The password cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A file of the `[broker.NAME]` table cannot be read.
    #[error("cannot read {path}: {error}")]
    File {
        /// As configured.
        path: std::path::PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// librdkafka refuses a setting or a file. Never says a value.
    #[error("no client for Kafka can be made: {0}")]
    Refused(String),
}

impl From<KafkaError> for ClientError {
    fn from(error: KafkaError) -> ClientError {
        match error {
            // The value may be a password.
            KafkaError::ClientConfig(_, _, key, _) => ClientError::Refused(format!("it does not take the value of {key}")),
            other => ClientError::Refused(listener::clean(&other.to_string())),
        }
    }
}

/// The settings that every client of a cluster has. Reads the password; certificates and keys are read when the client is made.
///
/// # Errors
/// A secret or a file cannot be read.
pub fn client_config(config: &KafkaConfig) -> Result<ClientConfig, ClientError> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", config.servers.join(","));
    client.set("client.id", "opmas");
    client.set("security.protocol", protocol(config.protocol));
    client.set("socket.keepalive.enable", "true");
    client.set("socket.connection.setup.timeout.ms", SETUP_MS.to_string());
    client.set("socket.timeout.ms", ANSWER_MS.to_string());
    client.set("reconnect.backoff.max.ms", BACKOFF_MS.to_string());
    client.set("receive.message.max.bytes", MAX_ANSWER.to_string());
    // A connection that is closed before it was used is how a wrong protocol looks.
    client.set("log.connection.close", "true");
    client.set_log_level(RDKafkaLogLevel::Info);
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        client.set("sasl.mechanism", mechanism(config.mechanism));
        client.set("sasl.username", user);
        client.set("sasl.password", password.read()?.expose());
    }
    if matches!(config.protocol, Protocol::Ssl | Protocol::SaslSsl) {
        encrypt(&mut client, config)?;
    }
    Ok(client)
}

fn encrypt(client: &mut ClientConfig, config: &KafkaConfig) -> Result<(), ClientError> {
    // OpenSSL is our own copy and knows no folder of the system: `probe` looks in those of the usual distributions.
    let authority = config.tls.ca_file.as_deref().unwrap_or(Path::new("probe"));
    let files = [("ssl.certificate.location", config.tls.cert_file.as_deref()), ("ssl.key.location", config.tls.key_file.as_deref())];
    for (key, path) in files.into_iter().chain([("ssl.ca.location", Some(authority))]) {
        let Some(path) = path else { continue };
        if path != Path::new("probe") {
            std::fs::File::open(path).map_err(|error| ClientError::File { path: path.to_owned(), error })?;
        }
        client.set(key, path.to_string_lossy());
    }
    Ok(())
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Plaintext => "plaintext",
        Protocol::Ssl => "ssl",
        Protocol::SaslPlaintext => "sasl_plaintext",
        Protocol::SaslSsl => "sasl_ssl",
    }
}

fn mechanism(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::ScramSha256 => "SCRAM-SHA-256",
        Mechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

/// The name of a partition's log, as record ids have it (stable): `kafka:TOPIC@ID/PARTITION`, with the topic's id as Kafka's own tools print
/// it, because a topic that is deleted and made anew counts from 0 again. Brokers before 2.8 have no such ids: `kafka:TOPIC/PARTITION`.
#[must_use]
pub fn log_name(topic: &str, id: Option<&str>, partition: i32) -> String {
    match id {
        Some(id) => format!("kafka:{topic}@{id}/{partition}"),
        None => format!("kafka:{topic}/{partition}"),
    }
}
