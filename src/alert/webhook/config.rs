//! The keys of a webhook channel, and the request that it sends.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::body::body;
use super::sign::{SigningKey, signature};
use crate::alert::answer::SendError;
use crate::alert::http::{Keys, Post, SIGNATURE, Server};
use crate::alert::keys::{disabled, secret};
use crate::alert::notice::Notice;
use crate::diag::{Diagnostic, Place, SourceFile, from_toml};
use crate::model::{Span, Time};
use crate::secret::{Secret, SecretSource};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    integration: Spanned<String>,
    enabled: Option<Spanned<bool>>,
    url: Spanned<String>,
    secret_file: Option<PathBuf>,
    secret_env: Option<String>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    insecure: bool,
    timeout: Option<Spanned<Span>>,
}

/// A checked webhook channel.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub(in crate::alert) server: Server,
    secret: SecretSource,
}

/// Reads and checks the file; with it, where the channel is disabled.
pub(in crate::alert) fn load(file: &SourceFile, base: &Path) -> Result<(Option<Place>, Webhook), Vec<Diagnostic>> {
    let table: Table = from_toml(&file.name, &file.text).map_err(|fault| vec![fault])?;
    let disabled = disabled(file, table.enabled.as_ref());
    let url = (table.url.get_ref().as_str(), table.url.span());
    let server = Server::load(file, base, Keys { url, insecure: table.insecure, ca_file: table.ca_file, timeout: table.timeout.as_ref() });
    let secret = secret(file, &table.integration.span(), base, ("secret", "signing secret"), (table.secret_file, table.secret_env));
    match (server, secret) {
        (Ok(server), Ok(secret)) => Ok((disabled, Webhook { server, secret })),
        (server, secret) => Err(server.err().into_iter().flatten().chain(secret.err()).collect()),
    }
}

impl Webhook {
    /// Whether secret and certificates can be read and used; else why not.
    pub(in crate::alert) fn check(&self) -> Result<(), String> {
        self.key()?;
        self.server.client().map(drop)
    }

    fn key(&self) -> Result<(Secret, SigningKey), String> {
        let secret = self.secret.read().map_err(|error| error.to_string())?;
        let key = SigningKey::parse(&secret).map_err(|error| error.to_string())?;
        Ok((secret, key))
    }

    /// Renders and signs. The timestamp is that of the attempt, so that a late retry is not taken for a replay.
    pub(in crate::alert) fn prepare(&self, notice: &Notice, delivery: &str, now: Time) -> Result<Post, SendError> {
        let payload = body(notice)?;
        // The owner can mend a missing file while the delivery waits.
        let (secret, key) = self.key().map_err(SendError::retryable)?;
        let timestamp = now.since(Time(0)).as_secs();
        let signature = signature(&key, delivery, timestamp, &payload);
        self.server
            .post("", secret, payload, |request| request.header("webhook-id", delivery).header("webhook-timestamp", timestamp).header(SIGNATURE, signature))
    }
}
