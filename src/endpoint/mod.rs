//! Requests of playbooks to other programs over HTTP: `http_request("ipam", #{ … })`.
//!
//! ```text
//!  values ─► config (placeholders of the URL, percent-encoded; query or JSON) ─► Planned ─► exchange ─► Ended
//! ```

mod config;

use reqwest::header::{HeaderName, HeaderValue};
use tokio::sync::Semaphore;

use crate::http::{self, Dial, visible};
use crate::model::OutcomeState;

pub use config::{EndpointConfig, Method, Planned};

/// Requests to one endpoint at once; further ones wait in their order.
const AT_ONCE: usize = 8;
/// Characters of an answer that a script is told, and the ledger keeps.
const MAX_DETAIL: usize = 2_000;
/// The header by which the other side knows a request again: the run's id and the step's key.
pub const IDEMPOTENCY: &str = "idempotency-key";

/// One configured endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// As it is configured.
    pub config: EndpointConfig,
    dial: Dial,
    places: Semaphore,
}

/// What came of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Ended {
    /// `done`, `failed`, or `unknown` when its answer was lost.
    pub state: OutcomeState,
    /// The status and what was answered, bounded, visible and without secrets.
    pub detail: String,
    /// It may be sent again: nothing was done, or the same once more is the same.
    pub again: bool,
    /// The status, when there was an answer.
    pub status: Option<u16>,
    /// What was answered, without secrets.
    pub body: Option<String>,
}

impl Endpoint {
    /// Nothing is read until the first request.
    #[must_use]
    pub fn new(config: &EndpointConfig) -> Endpoint {
        let dial = Dial::new(config.ca_file.clone(), config.timeout);
        Endpoint { config: config.clone(), dial, places: Semaphore::new(AT_ONCE) }
    }

    /// Sends it once, known to the other side as `id`.
    pub async fn send(&self, planned: &Planned, id: &str) -> Ended {
        let ended = |state, detail: &str, again| Ended { state, detail: visible(detail, MAX_DETAIL), again, status: None, body: None };
        // It is never closed.
        let _place = self.places.acquire().await;
        // What is missing the owner can mend while the step waits.
        let (client, secrets) = match self.dial.client().and_then(|client| Ok((client, self.config.secrets()?))) {
            Ok(ready) => ready,
            Err(why) => return ended(OutcomeState::Failed, &why, true),
        };
        let mut request = client.request(planned.method.into(), &planned.url).header(IDEMPOTENCY, id);
        for (name, value) in &self.config.headers {
            request = request.header(name, value);
        }
        for (name, value) in &secrets {
            let (Ok(name), Ok(mut value)) = (HeaderName::try_from(*name), HeaderValue::from_str(value.expose())) else {
                return ended(OutcomeState::Failed, &format!("the secret of the header {name} is no header's value"), true);
            };
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        if let Some(json) = &planned.json {
            request = request.header("content-type", "application/json").body(json.clone());
        }
        let request = match request.build() {
            Ok(request) => request,
            Err(error) => return ended(OutcomeState::Failed, &http::with_causes(&error.without_url()), false),
        };
        // `Bearer TOKEN`: the token alone is secret too.
        let parts = secrets.iter().flat_map(|(_, secret)| [Some(secret.expose()), secret.expose().split_once(' ').map(|(_, token)| token.trim())]);
        let struck = http::struck(parts.flatten().map(str::to_owned).collect());
        match http::exchange(&client, request, &struck, self.config.answer_bytes).await {
            Ok(said) => self.judged(&said),
            Err(lost) if lost.unsent => ended(OutcomeState::Failed, &lost.text, true),
            Err(lost) if self.config.may_repeat() => ended(OutcomeState::Failed, &lost.text, true),
            Err(lost) => ended(OutcomeState::Unknown, &format!("its answer was lost: {}", lost.text), false),
        }
    }

    /// 2xx is done. 429 says that nothing was; after any other error of the server only what may be repeated is.
    fn judged(&self, said: &http::Said) -> Ended {
        let status = said.status.as_u16();
        let state = if (200..=299).contains(&status) { OutcomeState::Done } else { OutcomeState::Failed };
        let again = status == 429 || (self.config.may_repeat() && matches!(status, 408 | 425 | 500..=599));
        let remedy = if said.status.is_redirection() { " (redirects are not followed: write the final address into `url`)" } else { "" };
        let text = if said.text.is_empty() { String::new() } else { format!(": {}", said.text) };
        let detail = visible(&format!("HTTP {}{remedy}{text}", said.status), MAX_DETAIL);
        Ended { state, detail, again, status: Some(status), body: Some(said.text.clone()).filter(|body| !body.is_empty()) }
    }
}
