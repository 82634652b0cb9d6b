//! What the channels over HTTP share: the server as their files describe it, one POST, and what its answer means.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Request, RequestBuilder, StatusCode, Url};
use toml::Spanned;

use super::answer::{Answer, Failure, SendError};
use super::keys::{fault, timeout};
use super::retry_after::retry_after;
use crate::clock;
use crate::diag::{Diagnostic, SourceFile};
use crate::http::{self, Dial, with_causes};
use crate::model::Span;
use crate::secret::Secret;

/// So much of an answer is read. Slack repeats the message that it was given.
const MAX_ANSWER: usize = 1 << 20;

/// The header with a message's signature (Standard Webhooks).
pub(super) const SIGNATURE: &str = "webhook-signature";

/// The keys that every channel over HTTP has.
pub(super) struct Keys<'a> {
    /// The URL, and where it stands.
    pub(super) url: (&'a str, Range<usize>),
    /// Whether it may be unencrypted to another machine.
    pub(super) insecure: bool,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) timeout: Option<&'a Spanned<Span>>,
}

/// Where a channel posts to. The URL comes from the owner's file alone, never from a log line.
#[derive(Clone)]
pub(super) struct Server {
    url: Url,
    dial: Dial,
}

/// Without the path and query, which may be secret.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("target", &self.target()).finish_non_exhaustive()
    }
}

impl Server {
    /// Checks the keys.
    pub(super) fn load(file: &SourceFile, base: &Path, keys: Keys<'_>) -> Result<Server, Vec<Diagnostic>> {
        let url = http::url(keys.url.0, keys.insecure).map_err(|(message, help)| fault(file, &keys.url.1, message, help));
        let timeout = timeout(file, keys.timeout, http::TIMEOUT, http::MAX_TIMEOUT);
        match (url, timeout) {
            (Ok(url), Ok(timeout)) => Ok(Server { url, dial: Dial::new(keys.ca_file.map(|path| base.join(path)), timeout) }),
            (url, timeout) => Err(url.err().into_iter().chain(timeout.err()).collect()),
        }
    }

    /// `scheme://host:port`.
    pub(super) fn target(&self) -> String {
        http::target(&self.url)
    }

    /// See [`Dial::client`].
    pub(super) fn client(&self) -> Result<Client, String> {
        self.dial.client()
    }

    /// A POST of JSON to `method` below the URL (or to the URL itself when that is empty). `secret` is struck out of what
    /// the other side answers.
    pub(super) fn post(&self, method: &str, secret: Secret, json: Vec<u8>, more: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Result<Post, SendError> {
        // The owner can mend a missing file while the delivery waits.
        let client = self.client().map_err(SendError::retryable)?;
        let mut url = self.url.clone();
        if let (false, Ok(mut path)) = (method.is_empty(), url.path_segments_mut()) {
            path.pop_if_empty().push(method);
        }
        let request = client.post(url).header(CONTENT_TYPE, "application/json").body(json);
        let request = more(request).build().map_err(|error| SendError::permanent(with_causes(&error.without_url())))?;
        Ok(Post { client, request, target: self.target(), secret })
    }
}

/// A request that is ready to go.
pub struct Post {
    client: Client,
    request: Request,
    target: String,
    secret: Secret,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Post {
    /// Sends it. Retryable when no connection came about, ambiguous when the answer was lost.
    pub(super) async fn send(self) -> Result<Reply, SendError> {
        let Post { client, request, target, secret } = self;
        let signature = request.headers().get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let signature = [Some(signature), signature.split_once(',').map(|(_, bare)| bare), Some(secret.expose())];
        let secrets = http::secrets_of(request.url()).into_iter().chain(signature.into_iter().flatten().map(str::to_owned)).collect();
        let said = http::exchange(&client, request, &http::struck(secrets), MAX_ANSWER).await.map_err(|lost| {
            let kind = if lost.unsent { Failure::Retryable { after: None } } else { Failure::Ambiguous };
            SendError::new(kind, lost.text)
        })?;
        let after = said.after.and_then(|header| retry_after(&header, clock::now()));
        Ok(Reply { target, status: said.status, after, text: said.text })
    }
}

/// What the other side answered.
pub(super) struct Reply {
    target: String,
    pub(super) status: StatusCode,
    after: Option<Span>,
    /// The start of its body.
    pub(super) text: String,
}

impl Reply {
    /// What the status says, for servers that mean by it what HTTP means.
    pub(super) fn judged(self) -> Result<Answer, SendError> {
        match self.failure() {
            None => Ok(Answer::new(self.detail())),
            Some(kind) => Err(self.error(kind, &self.detail())),
        }
    }

    /// `None` is accepted.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self.status.as_u16() {
            200..=299 => None,
            408 | 425 | 429 | 500..=599 => Some(self.later()),
            _ => Some(Failure::Permanent),
        }
    }

    /// To be tried again, not before the other side said.
    pub(super) fn later(&self) -> Failure {
        Failure::Retryable { after: self.after }
    }

    /// The status and the body.
    pub(super) fn detail(&self) -> String {
        format!("HTTP {}{}{}", self.status, if self.text.is_empty() { "" } else { ": " }, self.text)
    }

    /// An error that names the server.
    pub(super) fn error(&self, kind: Failure, detail: &str) -> SendError {
        let remedy = if self.status.is_redirection() { "; redirects are not followed: write the final address into `url`" } else { "" };
        SendError::new(kind, format!("{}: {detail}{remedy}", self.target))
    }
}
