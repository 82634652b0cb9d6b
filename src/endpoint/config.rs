//! `[endpoint.NAME]` of the configuration, and the request that values make of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::http;
use crate::model::Span;
use crate::secret::{Secret, SecretSource};

/// The most of an answer that can be asked for: what evidence takes.
const MAX_ANSWER: usize = 512 << 10;
/// Longest URL with its values.
const MAX_URL: usize = 8 << 10;
/// Headers that the exchange itself sets.
const OWN_HEADERS: [&str; 6] = ["host", "content-length", "content-type", "transfer-encoding", "connection", super::IDEMPOTENCY];

/// Where playbooks may send requests to. The URL and the headers come from the owner's file alone; a script gives values.
///
/// ```toml
/// [endpoint.ipam]
/// url = "https://ipam.example.org/api/hosts/{ip}/notes"
/// secrets = { Authorization = { file = "secrets/ipam" } }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Behind the host, `{name}` stands for a value of that name, percent-encoded.
    pub url: String,
    /// `POST` unless it says otherwise.
    #[serde(default)]
    pub method: Method,
    /// Headers that are no secret.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Headers whose whole value is in a file or an environment variable.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// Values that are addresses, networks or stations which the other side acts on: the guard looks at them.
    #[serde(default)]
    pub guarded: BTreeSet<String>,
    /// Whether a request whose end is not known is sent again, with the same idempotency key. Without the key as HTTP has it of the method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<bool>,
    /// How long the whole exchange may take.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// So much of an answer is read.
    #[serde(default = "answer_bytes")]
    pub answer_bytes: usize,
    /// Certificates (PEM) that are believed instead of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether it may go unencrypted to another machine.
    #[serde(default)]
    pub insecure: bool,
}

/// What HTTP calls a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    Get,
    /// Adds.
    #[default]
    Post,
    /// Sets.
    Put,
    /// Changes.
    Patch,
    /// Takes away.
    Delete,
}

impl Method {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }

    /// Whether values that the URL does not name are the JSON body; else they are the query.
    fn has_body(self) -> bool {
        matches!(self, Method::Post | Method::Put | Method::Patch)
    }

    /// Whether the same once more is the same (RFC 9110 9.2.2).
    fn is_idempotent(self) -> bool {
        matches!(self, Method::Get | Method::Put | Method::Delete)
    }
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> reqwest::Method {
        match method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        }
    }
}

fn timeout() -> Span {
    http::TIMEOUT
}

fn answer_bytes() -> usize {
    64 << 10
}

/// A request without its secrets: what a plan shows is what is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What HTTP calls it.
    pub method: Method,
    /// With the values.
    pub url: String,
    /// The body.
    pub json: Option<String>,
}

/// Why a table is not taken: the key, what is wrong, the remedy.
pub type Wrong = (&'static str, String, &'static str);

impl EndpointConfig {
    /// Checks it.
    ///
    /// # Errors
    /// See [`Wrong`].
    pub fn check(&self) -> Result<(), Wrong> {
        let url = |(what, help)| ("url", what, help);
        let names = self.placeholders().map_err(|what| url((what, "write `{name}`, of a-z 0-9 _")))?;
        // Two fillings that differ everywhere: whatever a value is, it changes nothing of the host.
        for filling in ["a", "%2F"] {
            let filled = self.filled(|_| Ok(filling.to_owned())).map_err(|what| url((what, "correct it")))?;
            let plain = http::url(&filled, self.insecure).map_err(url)?;
            let fixed = self.url.split('{').next().unwrap_or_default();
            let ends = !names.is_empty() && fixed.split_once("://").is_none_or(|(_, rest)| !rest.contains('/'));
            if ends || plain.fragment().is_some() {
                return Err(url(("values stand behind the host, and nothing behind a `#`".to_owned(), "write `https://host/path/{name}`")));
            }
        }
        for name in self.headers.keys().chain(self.secrets.keys()) {
            if HeaderName::try_from(name).is_err() || OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                return Err(("headers", format!("`{name}` is no header that can be set here"), "leave it out"));
            }
        }
        if let Some((name, _)) = self.headers.iter().find(|(_, value)| HeaderValue::from_str(value).is_err()) {
            return Err(("headers", format!("the value of `{name}` is no header's value"), "write printable characters on one line"));
        }
        if self.timeout <= Span::ZERO || self.timeout > http::MAX_TIMEOUT {
            return Err(("timeout", format!("a timeout of {}", self.timeout), "write one up to \"5m\""));
        }
        if !(1..=MAX_ANSWER).contains(&self.answer_bytes) {
            return Err(("answer_bytes", format!("{} bytes of an answer", self.answer_bytes), "write 1 to 524288"));
        }
        Ok(())
    }

    /// Makes its paths relative to `base`.
    pub fn resolve(&mut self, base: &Path) {
        let files = self.secrets.values_mut().filter_map(SecretSource::path).chain(&mut self.ca_file);
        files.for_each(|path| *path = base.join(&*path));
    }

    /// A sentence for each secret or certificate that cannot be read.
    pub fn unreadable(&self) -> impl Iterator<Item = String> {
        let secrets = self.secrets.iter().filter_map(|(name, source)| Some(format!("secrets.{name}: {}", source.read().err()?)));
        secrets.chain(self.ca_file.iter().filter_map(|path| http::tls::read_certificates(path).err()))
    }

    /// The secret headers.
    pub(super) fn secrets(&self) -> Result<Vec<(&str, Secret)>, String> {
        let read = |name: &str, source: &SecretSource| source.read().map_err(|error| format!("the header {name}: {error}"));
        self.secrets.iter().map(|(name, source)| Ok((name.as_str(), read(name, source)?))).collect()
    }

    /// Whether a request whose end is not known may be sent again.
    #[must_use]
    pub fn may_repeat(&self) -> bool {
        self.repeat.unwrap_or(self.method.is_idempotent())
    }

    /// As a step shows it: what is secret by its name alone.
    #[must_use]
    pub fn shown(&self, planned: &Planned) -> Vec<String> {
        let plain = self.headers.iter().map(|(name, value)| format!("{name}: {value}"));
        let secret = self.secrets.keys().map(|name| format!("{name}: [secret]"));
        [planned.method.word().to_owned(), planned.url.clone()].into_iter().chain(plain).chain(secret).collect()
    }

    /// The request that these values make: those that the URL names stand there, the others are the JSON body, or the query where the method
    /// has no body, in which a list is its name as often as it has values. No value changes anything but its own place.
    ///
    /// # Errors
    /// One is missing, or cannot stand where it would: one sentence.
    pub fn plan(&self, values: &Map<String, Value>) -> Result<Planned, String> {
        let named = self.placeholders()?;
        let text = |name: &str, value: &Value| match value {
            Value::String(text) => Ok(text.clone()),
            Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
            _ => Err(format!("`{name}` is no text, number or bool")),
        };
        let filled = self.filled(|name| {
            let text = text(name, values.get(name).ok_or_else(|| format!("the URL needs `{name}`"))?)?;
            // A path of dots would be another path.
            if text.bytes().all(|b| b == b'.') { Err(format!("`{name}` is `{text}`, which cannot stand in a URL")) } else { Ok(encoded(&text)) }
        })?;
        let mut url = http::url(&filled, self.insecure).map_err(|(what, _)| what)?;
        let rest = values.iter().filter(|(name, _)| !named.contains(name.as_str()));
        let json = if self.method.has_body() {
            Some(Value::Object(rest.map(|(name, value)| (name.clone(), value.clone())).collect()).to_string())
        } else {
            for (name, value) in rest {
                for one in value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice) {
                    url.query_pairs_mut().append_pair(name, &text(name, one)?);
                }
            }
            None
        };
        if url.as_str().len() > MAX_URL {
            return Err(format!("the URL is longer than {MAX_URL} bytes"));
        }
        Ok(Planned { method: self.method, url: url.into(), json })
    }

    /// The values that the URL names.
    fn placeholders(&self) -> Result<BTreeSet<&str>, String> {
        let parts = self.url.split('{').skip(1).map(|part| match part.split_once('}') {
            Some((name, _)) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') => Ok(name),
            _ => Err("`{` begins no value".to_owned()),
        });
        parts.collect()
    }

    fn filled(&self, value: impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
        let (mut filled, mut rest) = (String::new(), self.url.as_str());
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or("`{` begins no value")?;
            filled.push_str(before);
            filled.push_str(&value(name)?);
            rest = after;
        }
        Ok(filled + rest)
    }

    /// Where it goes to, for people.
    #[must_use]
    pub fn target(&self) -> String {
        let filled = self.filled(|_| Ok("a".to_owned())).unwrap_or_default();
        filled.parse::<Url>().map_or_else(|_| self.url.clone(), |url| http::target(&url))
    }
}

/// Percent-encoded but for what RFC 3986 calls unreserved.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}
