//! The request and what the answer means.

use std::fmt;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Certificate, Client, Request, Response, StatusCode};

use super::Webhook;
use super::body::body;
use super::retry_after::retry_after;
use super::sign::{SigningKey, signature};
use crate::alert::answer::{Answer, Failure, SendError, with_causes};
use crate::alert::clean::bounded;
use crate::alert::notice::Notice;
use crate::alert::tls;
use crate::clock;
use crate::model::{Span, Time};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// So much of an answer is read; the rest is not asked for.
const MAX_ANSWER: usize = 1_024;

/// A rendered and signed request.
pub struct Ready {
    client: Client,
    request: Request,
    target: String,
}

impl fmt::Debug for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Webhook {
    /// Whether secret and certificates can be read and used; else why not.
    pub(in crate::alert) fn check(&self) -> Result<(), String> {
        self.key()?;
        self.client().map(drop)
    }

    fn key(&self) -> Result<SigningKey, String> {
        let secret = self.secret.read().map_err(|error| error.to_string())?;
        SigningKey::parse(&secret).map_err(|error| error.to_string())
    }

    /// No redirects (a signed alert goes where the owner said), no proxies from the environment, no retries of its own
    /// (each attempt is recorded), no connections kept.
    fn client(&self) -> Result<Client, String> {
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
            .connect_timeout(CONNECT)
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

    /// Renders and signs. The timestamp is that of the attempt, so that a late retry is not taken for a replay.
    pub(in crate::alert) fn prepare(&self, notice: &Notice, delivery: &str, now: Time) -> Result<Ready, SendError> {
        let payload = body(notice)?;
        // The owner can mend a missing file while the delivery waits.
        let key = self.key().map_err(SendError::retryable)?;
        let client = self.client().map_err(SendError::retryable)?;
        let timestamp = now.since(Time(0)).as_secs();
        let request = client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", delivery)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature(&key, delivery, timestamp, &payload))
            .body(payload)
            .build()
            .map_err(|error| SendError::permanent(with_causes(&error.without_url())))?;
        Ok(Ready { client, request, target: self.target() })
    }
}

impl Ready {
    /// Sends it. Never ambiguous: the delivery's id lets the other side know a repeated one, so a lost answer is retryable.
    pub(in crate::alert) async fn send(self) -> Result<Answer, SendError> {
        let Ready { client, request, target } = self;
        let response = client.execute(request).await.map_err(|error| SendError::retryable(format!("{target}: {}", with_causes(&error.without_url()))))?;
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(|value| retry_after(value, clock::now()));
        let said = read(response).await;
        let detail = format!("HTTP {status}{}{said}", if said.is_empty() { "" } else { ": " });
        match judge(status, asked) {
            None => Ok(Answer::new(detail)),
            Some(kind) => Err(SendError::new(kind, format!("{target}: {detail}{}", remedy(status)))),
        }
    }
}

/// What a status means; `None` is accepted.
fn judge(status: StatusCode, after: Option<Span>) -> Option<Failure> {
    match status.as_u16() {
        200..=299 => None,
        408 | 425 | 429 | 500..=599 => Some(Failure::Retryable { after }),
        _ => Some(Failure::Permanent),
    }
}

fn remedy(status: StatusCode) -> &'static str {
    if status.is_redirection() { "; redirects are not followed: write the final address into `url`" } else { "" }
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
