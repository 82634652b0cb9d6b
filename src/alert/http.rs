//! What the channels over HTTP share: the server as their files describe it, one POST, and what its answer means.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Client, Request, RequestBuilder, Response, StatusCode, Url};
use toml::Spanned;

use super::answer::{Answer, Failure, SendError, with_causes};
use super::clean::bounded;
use super::keys::{fault, is_loopback, timeout};
use super::retry_after::retry_after;
use super::tls;
use crate::clock;
use crate::diag::{Diagnostic, SourceFile};
use crate::model::Span;
use crate::secret::Secret;

/// How long the whole exchange may take.
const TIMEOUT: Span = Span::secs(20);
/// The longest `timeout` that can be set: a channel's queue stands still meanwhile.
const MAX_TIMEOUT: Span = Span::secs(300);
/// How long a connection may take to come about, at most half of the whole: that it did not is then known for sure.
const CONNECT: Duration = Duration::from_secs(10);
/// So much of an answer is read; the rest is not asked for. Slack repeats the message that it was given.
const MAX_ANSWER: usize = 1 << 20;

/// The header with a message's signature (Standard Webhooks).
pub(super) const SIGNATURE: &str = "webhook-signature";
/// A part of a URL's path from so many characters on may be a secret; shorter ones are words.
const SECRET_PART: usize = 12;

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
    /// Certificates (PEM) that are believed instead of the system's.
    ca_file: Option<PathBuf>,
    timeout: Span,
    /// Made at the first message, since it reads the system's certificates.
    client: OnceLock<Client>,
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
        let url = url(file, &keys);
        let timeout = timeout(file, keys.timeout, TIMEOUT, MAX_TIMEOUT);
        match (url, timeout) {
            (Ok(url), Ok(timeout)) => Ok(Server { url, ca_file: keys.ca_file.map(|path| base.join(path)), timeout, client: OnceLock::new() }),
            (url, timeout) => Err(url.err().into_iter().chain(timeout.err()).collect()),
        }
    }

    /// `scheme://host:port`.
    pub(super) fn target(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// No redirects (a message goes where the owner said), no proxies from the environment, no retries of its own
    /// (each attempt is recorded), no connections kept.
    pub(super) fn client(&self) -> Result<Client, String> {
        if let Some(client) = self.client.get() {
            return Ok(client.clone());
        }
        tls::install_provider();
        let mut builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT.min(self.timeout.to_std() / 2))
            .timeout(self.timeout.to_std())
            .user_agent(concat!("opmas/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &self.ca_file {
            let pem = tls::read_certificates(path)?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|error| format!("the certificates in {}: {}", path.display(), with_causes(&error)))?;
            builder = builder.tls_certs_only(certificates);
        }
        let client = builder.build().map_err(|error| format!("HTTP cannot be set up: {}", with_causes(&error)))?;
        Ok(self.client.get_or_init(|| client).clone())
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
        let secrets = secrets(&request, secret);
        Ok(Post { client, request, target: self.target(), secrets })
    }
}

fn url(file: &SourceFile, keys: &Keys<'_>) -> Result<Url, Diagnostic> {
    let wrong = |message: String, help: &str| fault(file, &keys.url.1, message, help);
    let url: Url = keys.url.0.parse().map_err(|error| wrong(format!("this is no URL: {error}"), "write `https://host/path`"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("the URL holds a user name or password".into(), "remove what stands before the `@`; the channel's secret has a file of its own"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if keys.insecure || is_loopback(host) => Ok(url),
        "http" => Err(wrong(format!("messages to {host} would go unencrypted"), "write `https://`, or `insecure = true`")),
        other => Err(wrong(format!("`{other}:` is not spoken here"), "write `https://host/path`")),
    }
}

/// What must not come back in an answer: the secret, the signature, and path and query of the URL with their parts, the longest first. Also
/// with `\/` for `/`, as some write JSON.
fn secrets(request: &Request, secret: Secret) -> Vec<Secret> {
    let url = request.url();
    let signature = request.headers().get(SIGNATURE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signature = [Some(signature), signature.split_once(',').map(|(_, bare)| bare)].into_iter().flatten().map(str::to_owned);
    let query = url.query().unwrap_or_default();
    let whole = [url.path().trim_end_matches('/'), query].map(str::to_owned);
    let segments = url.path_segments().into_iter().flatten().filter(|segment| segment.len() >= SECRET_PART).map(str::to_owned);
    let written = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
    let values = url.query_pairs().map(|(_, value)| value.into_owned());
    let mut texts: Vec<String> = signature.chain(whole).chain(segments).chain(written).chain(values).chain([secret.expose().to_owned()]).collect();
    texts.extend(texts.iter().filter(|text| text.contains('/')).map(|text| text.replace('/', "\\/")).collect::<Vec<_>>());
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts.iter().map(|text| Secret::new(text)).collect()
}

/// A request that is ready to go.
pub struct Post {
    client: Client,
    request: Request,
    target: String,
    secrets: Vec<Secret>,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Post {
    /// Sends it. Retryable when no connection came about, ambiguous when the answer was lost.
    pub(super) async fn send(self) -> Result<Reply, SendError> {
        let Post { client, request, target, secrets } = self;
        let response = client.execute(request).await.map_err(|error| {
            let kind = if error.is_connect() { Failure::Retryable { after: None } } else { Failure::Ambiguous };
            SendError::new(kind, format!("{target}: {}", with_causes(&error.without_url())))
        })?;
        let status = response.status();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|value| retry_after(value, clock::now()));
        let text = secrets.iter().fold(read(response).await, |text, secret| secret.redact(&text));
        Ok(Reply { target, status, after, text })
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

/// The start of the answer; an answer that breaks off was still given.
async fn read(mut response: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_ANSWER {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    bounded(text.trim(), MAX_ANSWER).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_url_secret_and_signature_gives_none_of_them_away() {
        tls::install_provider();
        let url = "https://192.0.2.1/hook/3f9d2c7b81aa4e55?token=p%2Fq-secret&n=1";
        let request = Client::new().post(url).header(SIGNATURE, "v1,c2lnbmF0dXJl/A==").build().unwrap();
        let secrets = secrets(&request, Secret::new("whsec_key"));
        let echo = r#"POST /hook/3f9d2c7b81aa4e55?token=p%2Fq-secret&n=1 "id":"3f9d2c7b81aa4e55" "token":"p/q-secret" \/hook\/3f9d2c7b81aa4e55 "p\/q-secret" v1,c2lnbmF0dXJl/A== c2lnbmF0dXJl\/A== whsec_key no such hook"#;
        let text = secrets.iter().fold(echo.to_owned(), |text, secret| secret.redact(&text));
        for part in ["3f9d", "q-secret", "c2ln", "whsec"] {
            assert!(!text.contains(part), "{text}");
        }
        assert!(text.ends_with("no such hook"), "{text}");
    }
}
