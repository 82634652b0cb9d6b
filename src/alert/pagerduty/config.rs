//! The keys of a PagerDuty channel, and the requests that it sends.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::event::{resolve, trigger};
use crate::alert::answer::SendError;
use crate::alert::http::{Keys, Post, Server};
use crate::alert::keys::{disabled, secret};
use crate::alert::notice::{Notice, Purpose};
use crate::diag::{Diagnostic, Place, SourceFile, from_toml};
use crate::model::{AlertState, Span};
use crate::secret::{Secret, SecretSource};

/// Where events go unless the file says otherwise.
const URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// The length of a routing key.
const ROUTING_KEY: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    integration: Spanned<String>,
    enabled: Option<Spanned<bool>>,
    routing_key_file: Option<PathBuf>,
    routing_key_env: Option<String>,
    url: Option<Spanned<String>>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    insecure: bool,
    timeout: Option<Spanned<Span>>,
}

/// A checked PagerDuty channel.
#[derive(Clone, Debug)]
pub struct PagerDuty {
    pub(in crate::alert) server: Server,
    routing_key: SecretSource,
}

/// Reads and checks the file; with it, where the channel is disabled.
pub(in crate::alert) fn load(file: &SourceFile, base: &Path) -> Result<(Option<Place>, PagerDuty), Vec<Diagnostic>> {
    let table: Table = from_toml(&file.name, &file.text).map_err(|fault| vec![fault])?;
    let disabled = disabled(file, table.enabled.as_ref());
    let at = table.integration.span();
    let url = table.url.as_ref().map_or((URL, at.clone()), |url| (url.get_ref(), url.span()));
    let server = Server::load(file, base, Keys { url, insecure: table.insecure, ca_file: table.ca_file, timeout: table.timeout.as_ref() });
    let key = secret(file, &at, base, ("routing_key", "routing key"), (table.routing_key_file, table.routing_key_env));
    match (server, key) {
        (Ok(server), Ok(routing_key)) => Ok((disabled, PagerDuty { server, routing_key })),
        (server, key) => Err(server.err().into_iter().flatten().chain(key.err()).collect()),
    }
}

impl PagerDuty {
    /// Whether routing key and certificates can be read and used; else why not.
    pub(in crate::alert) fn check(&self) -> Result<(), String> {
        self.key()?;
        self.server.client().map(drop)
    }

    fn key(&self) -> Result<Secret, String> {
        let key = self.routing_key.read().map_err(|error| error.to_string())?;
        if key.expose().len() == ROUTING_KEY && key.expose().bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(key);
        }
        Err(format!("the routing key is not {ROUTING_KEY} letters and digits: copy the integration key of an Events API v2 integration"))
    }

    /// The events of a notice, to be sent one after the other: a test triggers and resolves, so that nothing stays open.
    pub(in crate::alert) fn prepare(&self, notice: &Notice, delivery: &str) -> Result<Vec<Post>, SendError> {
        // The owner can mend a missing file while the delivery waits.
        let key = self.key().map_err(SendError::retryable)?;
        let events = match (notice.purpose, notice.alert.state) {
            (Purpose::Test, _) => vec![trigger(notice, delivery, delivery), resolve(delivery)],
            (Purpose::Alert, AlertState::Firing) => vec![trigger(notice, &notice.alert.key(), delivery)],
            (Purpose::Alert, AlertState::Resolved) => vec![resolve(&notice.alert.key())],
        };
        let posts = events.into_iter().map(|mut event| {
            event.insert("routing_key".to_owned(), key.expose().into());
            self.server.post("", key.clone(), serde_json::Value::Object(event).to_string().into_bytes(), |request| request)
        });
        posts.collect()
    }
}
