//! The keys of a Slack channel, and the requests that it sends.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use slack_morphism::api::{SlackApiChatPostMessageRequest, SlackApiChatUpdateRequest};
use toml::Spanned;

use super::Ready;
use super::blocks::content;
use crate::alert::answer::SendError;
use crate::alert::http::{Keys, Post, Server};
use crate::alert::keys::{disabled, fault, secret};
use crate::alert::notice::Notice;
use crate::diag::{Diagnostic, Place, SourceFile, from_toml};
use crate::http::with_causes;
use crate::model::Span;
use crate::secret::{Secret, SecretSource};

/// Where Slack's methods are unless the file says otherwise.
const URL: &str = "https://slack.com/api";
/// The longest name of a Slack channel.
const MAX_NAME: usize = 80;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    integration: Spanned<String>,
    enabled: Option<Spanned<bool>>,
    channel: Spanned<String>,
    token_file: Option<PathBuf>,
    token_env: Option<String>,
    url: Option<Spanned<String>>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    insecure: bool,
    timeout: Option<Spanned<Span>>,
}

/// A checked Slack channel.
#[derive(Clone, Debug)]
pub struct Slack {
    pub(in crate::alert) server: Server,
    /// Its id, or `#` and its name.
    channel: String,
    token: SecretSource,
}

/// Reads and checks the file; with it, where the channel is disabled.
pub(in crate::alert) fn load(file: &SourceFile, base: &Path) -> Result<(Option<Place>, Slack), Vec<Diagnostic>> {
    let table: Table = from_toml(&file.name, &file.text).map_err(|fault| vec![fault])?;
    let disabled = disabled(file, table.enabled.as_ref());
    let at = table.integration.span();
    let url = table.url.as_ref().map_or((URL, at.clone()), |url| (url.get_ref(), url.span()));
    let server = Server::load(file, base, Keys { url, insecure: table.insecure, ca_file: table.ca_file, timeout: table.timeout.as_ref() });
    let token = secret(file, &at, base, ("token", "bot token"), (table.token_file, table.token_env));
    match (server, token, channel(file, &table.channel)) {
        (Ok(server), Ok(token), Ok(channel)) => Ok((disabled, Slack { server, channel, token })),
        (server, token, channel) => Err(server.err().into_iter().flatten().chain(token.err()).chain(channel.err()).collect()),
    }
}

fn channel(file: &SourceFile, written: &Spanned<String>) -> Result<String, Diagnostic> {
    let text = written.get_ref();
    let legal = |c: char| c.is_alphanumeric() || "_-".contains(c);
    let name = text.strip_prefix('#').unwrap_or(text);
    if (1..=MAX_NAME).contains(&name.chars().count()) && name.chars().all(legal) {
        return Ok(text.clone());
    }
    Err(fault(file, &written.span(), format!("`{text}` is no Slack channel"), "write its id such as `C0123456789`, or `#name`"))
}

impl Slack {
    /// Whether token and certificates can be read and used; else why not.
    pub(in crate::alert) fn check(&self) -> Result<(), String> {
        self.token()?;
        self.server.client().map(drop)
    }

    fn token(&self) -> Result<Secret, String> {
        let token = self.token.read().map_err(|error| error.to_string())?;
        // A rotated token has `xoxe.` before it.
        if token.expose().contains("xoxb-") && token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Ok(token);
        }
        Err("the token is no bot token: copy the one that starts with `xoxb-` from the app's page `OAuth & Permissions`".to_owned())
    }

    /// The new message, or the change of the earlier one with a new message for when that is gone.
    pub(in crate::alert) fn prepare(&self, notice: &Notice, delivery: &str) -> Result<Ready, SendError> {
        // The owner can mend a missing file while the delivery waits.
        let token = self.token().map_err(SendError::retryable)?;
        let content = content(notice, delivery);
        let earlier = notice.receipt.as_deref().and_then(|receipt| receipt.split_once('/'));
        let update = earlier.map(|(channel, ts)| {
            let update = SlackApiChatUpdateRequest::new(channel.into(), content.clone(), ts.into());
            self.call("chat.update", &token, &update.with_link_names(false).with_parse("none".to_owned()))
        });
        let post = SlackApiChatPostMessageRequest::new(self.channel.clone().into(), content);
        // No links are followed: what a log line names is not fetched.
        let post = post.with_link_names(false).with_parse("none".to_owned()).with_unfurl_links(false).with_unfurl_media(false);
        Ok(Ready { update: update.transpose()?, post: self.call("chat.postMessage", &token, &post)? })
    }

    fn call(&self, method: &str, token: &Secret, request: &impl Serialize) -> Result<Post, SendError> {
        let json = serde_json::to_vec(request).map_err(|error| SendError::permanent(with_causes(&error)))?;
        self.server.post(method, token.clone(), json, |request| request.bearer_auth(token.expose()))
    }
}
