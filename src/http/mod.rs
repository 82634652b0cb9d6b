//! One HTTP exchange with another program: TLS verified, no redirects, no proxies from the environment, no retries of its own (each attempt
//! is recorded), no connections kept; bounded, and with the secrets struck out of what comes back.

mod clean;
/// Certificates, and the one provider.
pub mod tls;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Certificate, Client, Request, Response, StatusCode, Url};

use crate::model::Span;
use crate::secret::Secret;

pub use clean::{bounded, visible};

/// How long a connection may take to come about, at most half of the whole: that it did not is then known for sure.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the whole exchange may take when nothing is said.
pub const TIMEOUT: Span = Span::secs(20);
/// The longest that can be set: what waits in a queue stands still meanwhile.
pub const MAX_TIMEOUT: Span = Span::secs(300);
/// A part of a URL's path from so many characters on may be a secret; shorter ones are words.
const SECRET_PART: usize = 12;

/// How a server is spoken to.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Certificates (PEM) that are believed instead of the system's.
    ca_file: Option<PathBuf>,
    timeout: Span,
    /// Made at the first exchange, since it reads the system's certificates.
    client: OnceLock<Client>,
}

impl Dial {
    /// Nothing is read until the first exchange.
    #[must_use]
    pub fn new(ca_file: Option<PathBuf>, timeout: Span) -> Dial {
        Dial { ca_file, timeout, client: OnceLock::new() }
    }

    /// The client.
    ///
    /// # Errors
    /// The certificates cannot be read: one sentence.
    pub fn client(&self) -> Result<Client, String> {
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
}

/// A URL that may be spoken to: encrypted unless it is this machine, or `insecure` says so; no user name or password in it.
///
/// # Errors
/// What is wrong with it, and the remedy.
pub fn url(text: &str, insecure: bool) -> Result<Url, (String, &'static str)> {
    let url: Url = text.parse().map_err(|error| (format!("this is no URL: {error}"), "write `https://host/path`"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    if !url.username().is_empty() || url.password().is_some() {
        return Err(("the URL holds a user name or password".into(), "remove what stands before the `@`; a secret has a file of its own"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if insecure || is_loopback(host) => Ok(url),
        "http" => Err((format!("messages to {host} would go unencrypted"), "write `https://`, or `insecure = true`")),
        other => Err((format!("`{other}:` is not spoken here"), "write `https://host/path`")),
    }
}

/// Whether a host is this machine by its name or address alone.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// `scheme://host:port`.
#[must_use]
pub fn target(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// What the other side answered.
#[derive(Debug)]
pub struct Said {
    /// The status.
    pub status: StatusCode,
    /// The header `Retry-After`.
    pub after: Option<String>,
    /// The start of its body.
    pub text: String,
}

/// No answer.
#[derive(Debug)]
pub struct Lost {
    /// Not even a connection came about: nothing was sent.
    pub unsent: bool,
    /// Why, with the server.
    pub text: String,
}

/// Sends it and reads `most` bytes of the answer; the rest is not asked for. Secrets (see [`struck`]) are struck out of it.
///
/// # Errors
/// There is no answer.
pub async fn exchange(client: &Client, request: Request, secrets: &[Secret], most: usize) -> Result<Said, Lost> {
    let target = target(request.url());
    let response =
        client.execute(request).await.map_err(|error| Lost { unsent: error.is_connect(), text: format!("{target}: {}", with_causes(&error.without_url())) })?;
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = secrets.iter().fold(read(response, most).await, |text, secret| secret.redact(&text));
    Ok(Said { status, after, text })
}

/// Path and query of a URL with their parts, as far as they may be secrets.
#[must_use]
pub fn secrets_of(url: &Url) -> Vec<String> {
    let query = url.query().unwrap_or_default();
    let whole = [url.path().trim_end_matches('/'), query].map(str::to_owned);
    let segments = url.path_segments().into_iter().flatten().filter(|segment| segment.len() >= SECRET_PART).map(str::to_owned);
    let written = query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned()));
    whole.into_iter().chain(segments).chain(written).chain(url.query_pairs().map(|(_, value)| value.into_owned())).collect()
}

/// What must not come back in an answer, the longest first; also with `\/` for `/`, as some write JSON.
#[must_use]
pub fn struck(mut texts: Vec<String>) -> Vec<Secret> {
    texts.extend(texts.iter().filter(|text| text.contains('/')).map(|text| text.replace('/', "\\/")).collect::<Vec<_>>());
    texts.sort_by_key(|text| std::cmp::Reverse(text.len()));
    texts.iter().map(|text| Secret::new(text)).collect()
}

/// The start of the answer; an answer that breaks off was still given.
async fn read(mut response: Response, most: usize) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < most {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) | Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    bounded(text.trim(), most).to_owned()
}

/// An error with all its causes, outermost first, each said once.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    // Chains are short; the bound is against one that is not.
    const MAX_CAUSES: usize = 8;
    let mut text = error.to_string();
    let mut cause = error.source();
    for _ in 0..MAX_CAUSES {
        let Some(error) = cause else { break };
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_url_secret_and_signature_gives_none_of_them_away() {
        tls::install_provider();
        let url = "https://192.0.2.1/hook/3f9d2c7b81aa4e55?token=p%2Fq-secret&n=1";
        let request = Client::new().post(url).build().unwrap();
        let given = ["v1,c2lnbmF0dXJl/A==", "c2lnbmF0dXJl/A==", "whsec_key"].map(str::to_owned);
        let secrets = struck(secrets_of(request.url()).into_iter().chain(given).collect());
        let echo = r#"POST /hook/3f9d2c7b81aa4e55?token=p%2Fq-secret&n=1 "id":"3f9d2c7b81aa4e55" "token":"p/q-secret" \/hook\/3f9d2c7b81aa4e55 "p\/q-secret" v1,c2lnbmF0dXJl/A== c2lnbmF0dXJl\/A== whsec_key no such hook"#;
        let text = secrets.iter().fold(echo.to_owned(), |text, secret| secret.redact(&text));
        for part in ["3f9d", "q-secret", "c2ln", "whsec"] {
            assert!(!text.contains(part), "{text}");
        }
        assert!(text.ends_with("no such hook"), "{text}");
    }
}
