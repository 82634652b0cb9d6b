//! `[broker.NAME]` of the configuration.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::secret::SecretSource;

/// One configured broker.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Written", tag = "type", rename_all = "snake_case")]
pub enum BrokerConfig {
    /// `type = "kafka"`
    Kafka(KafkaConfig),
    /// `type = "nats"`
    Nats(NatsConfig),
}

/// Certificates and keys, PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TlsFiles {
    /// Whom to believe; without it the system's authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The client's certificate chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert_file: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
}

/// A file or an environment variable that holds a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Named {
    file: Option<PathBuf>,
    env: Option<String>,
}

impl Named {
    fn read(self, key: &str) -> Result<Option<SecretSource>, String> {
        SecretSource::choose(Path::new(""), self.file, self.env).map_err(|()| format!("write `{key}_file` or `{key}_env`, not both"))
    }
}

/// A NATS server, or a cluster of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NatsConfig {
    /// `nats://host:port`, `tls://host:port`
    pub servers: Vec<String>,
    /// User name; its password is in `password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `password_file`, `password_env`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
    /// `token_file`, `token_env`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSource>,
    /// `nkey_file`, `nkey_env`: a user's seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey: Option<SecretSource>,
    /// A credentials file with a user's JWT and seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creds_file: Option<PathBuf>,
    /// Certificates and keys.
    #[serde(flatten)]
    pub tls: TlsFiles,
}

impl NatsConfig {
    /// Whether the server knows who we are, and so who writes to it: its messages are then `verified`.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.password.is_some() || self.token.is_some() || self.nkey.is_some() || self.creds_file.is_some() || self.tls.cert_file.is_some()
    }
}

/// How Kafka is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Neither encrypted nor authenticated.
    #[default]
    Plaintext,
    /// TLS, with a client certificate where `cert_file` is given.
    Ssl,
    /// A password without TLS.
    SaslPlaintext,
    /// A password over TLS.
    SaslSsl,
}

/// How the password is shown to Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mechanism {
    /// As it is.
    Plain,
    /// RFC 5802 with SHA-256.
    ScramSha256,
    /// RFC 5802 with SHA-512.
    #[default]
    ScramSha512,
}

/// A Kafka cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KafkaConfig {
    /// `host:port`, of which some suffice.
    pub servers: Vec<String>,
    /// How it is spoken to (`plaintext`).
    pub protocol: Protocol,
    /// How the password is shown (`scram-sha512`).
    pub mechanism: Mechanism,
    /// User name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `password_file`, `password_env`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
    /// Certificates and keys.
    #[serde(flatten)]
    pub tls: TlsFiles,
}

impl KafkaConfig {
    /// Whether the cluster knows who we are, and so who writes to it: its messages are then `verified`.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        matches!(self.protocol, Protocol::SaslPlaintext | Protocol::SaslSsl) || self.tls.cert_file.is_some()
    }
}

/// The table as it is written. One closed table for both types, so that a misspelt key is named with its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "type")]
    kind: Kind,
    servers: Vec<String>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    password_env: Option<String>,
    token_file: Option<PathBuf>,
    token_env: Option<String>,
    nkey_file: Option<PathBuf>,
    nkey_env: Option<String>,
    creds_file: Option<PathBuf>,
    protocol: Option<Protocol>,
    mechanism: Option<Mechanism>,
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Kafka,
    Nats,
}

impl TryFrom<Written> for BrokerConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<BrokerConfig, String> {
        if written.servers.is_empty() {
            return Err("`servers` is empty; name at least one".to_owned());
        }
        if written.cert_file.is_some() != written.key_file.is_some() {
            return Err("`cert_file` and `key_file` go together".to_owned());
        }
        let foreign = match written.kind {
            Kind::Kafka => [
                ("token_file", written.token_file.is_some()),
                ("token_env", written.token_env.is_some()),
                ("nkey_file", written.nkey_file.is_some()),
                ("nkey_env", written.nkey_env.is_some()),
                ("creds_file", written.creds_file.is_some()),
            ]
            .to_vec(),
            Kind::Nats => [("protocol", written.protocol.is_some()), ("mechanism", written.mechanism.is_some())].to_vec(),
        };
        if let Some((key, _)) = foreign.iter().find(|(_, written)| *written) {
            return Err(format!("`{key}` is no key of a broker of this type"));
        }
        let password = Named { file: written.password_file, env: written.password_env }.read("password")?;
        if password.is_some() != written.user.is_some() {
            return Err("`user` and its password (`password_file` or `password_env`) go together".to_owned());
        }
        let tls = TlsFiles { ca_file: written.ca_file, cert_file: written.cert_file, key_file: written.key_file };
        match written.kind {
            Kind::Nats => {
                written.servers.iter().try_for_each(|server| nats_server(server))?;
                let token = Named { file: written.token_file, env: written.token_env }.read("token")?;
                let nkey = Named { file: written.nkey_file, env: written.nkey_env }.read("nkey")?;
                let ways = [password.is_some(), token.is_some(), nkey.is_some(), written.creds_file.is_some()];
                if ways.iter().filter(|way| **way).count() > 1 {
                    return Err("a password, a token, an nkey and a credentials file exclude each other; keep one".to_owned());
                }
                Ok(BrokerConfig::Nats(NatsConfig { servers: written.servers, user: written.user, password, token, nkey, creds_file: written.creds_file, tls }))
            }
            Kind::Kafka => {
                written.servers.iter().try_for_each(|server| kafka_server(server))?;
                let protocol = written.protocol.unwrap_or_default();
                let sasl = matches!(protocol, Protocol::SaslPlaintext | Protocol::SaslSsl);
                if sasl != password.is_some() {
                    return Err("`user` and a password go with `protocol = \"sasl_ssl\"` (or \"sasl_plaintext\"), and only with these".to_owned());
                }
                let mechanism = written.mechanism.unwrap_or_default();
                Ok(BrokerConfig::Kafka(KafkaConfig { servers: written.servers, protocol, mechanism, user: written.user, password, tls }))
            }
        }
    }
}

/// Whether it is an address of a NATS server, without a password in it.
fn nats_server(server: &str) -> Result<(), String> {
    let rest = server.strip_prefix("nats://").or_else(|| server.strip_prefix("tls://")).unwrap_or(server);
    if rest.contains('@') {
        // Not repeated: it holds a password.
        return Err("an address in `servers` holds a user; write `user` and `password_file` instead".to_owned());
    }
    if rest.is_empty() || rest.contains("://") || server.parse::<async_nats::ServerAddr>().is_err() {
        return Err(format!("`{server}` is no address of a NATS server; write \"nats://host:4222\""));
    }
    Ok(())
}

/// An address is shown in the log and in `/readyz`, so it must not hold a password.
fn kafka_server(server: &str) -> Result<(), String> {
    if server.contains('@') {
        return Err("an address in `servers` holds a user; write `user` and `password_file` instead".to_owned());
    }
    let port = server.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().filter(|port| *port > 0 && !host.is_empty() && !host.contains('/')));
    port.map(drop).ok_or_else(|| format!("`{server}` is no address of a Kafka broker; write it as \"host:9092\""))
}

impl BrokerConfig {
    /// One sentence for each secret that cannot be read.
    #[must_use]
    pub fn unreadable(&self) -> Vec<String> {
        let secrets = match self {
            BrokerConfig::Nats(nats) => vec![&nats.password, &nats.token, &nats.nkey],
            BrokerConfig::Kafka(kafka) => vec![&kafka.password],
        };
        secrets.into_iter().flatten().filter_map(|secret| secret.read().err().map(|error| error.to_string())).collect()
    }

    /// Makes the paths of files relative to `base`.
    pub fn resolve(&mut self, base: &Path) {
        let (tls, secrets, creds) = match self {
            BrokerConfig::Nats(nats) => (&mut nats.tls, vec![&mut nats.password, &mut nats.token, &mut nats.nkey], nats.creds_file.as_mut()),
            BrokerConfig::Kafka(kafka) => (&mut kafka.tls, vec![&mut kafka.password], None),
        };
        let secrets = secrets.into_iter().flatten().filter_map(SecretSource::path);
        let files = [&mut tls.ca_file, &mut tls.cert_file, &mut tls.key_file].into_iter().flatten();
        for path in files.chain(creds).chain(secrets) {
            *path = base.join(&*path);
        }
    }
}
