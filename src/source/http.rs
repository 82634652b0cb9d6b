//! Lines and findings that come by HTTP: what a body holds, and the way in for it. The requests themselves are the API's.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::meter::Meter;
use super::{Batch, HttpConfig, MAX_BATCH};
use crate::clock;
use crate::model::{Payload, Record, Trust};
use crate::normalise::check_finding;

/// Most bytes of a request's body, as it comes and after it was inflated.
pub const MAX_BODY: usize = 1 << 20;
/// Most lines of a request: each becomes a record, which takes more memory than a short line.
pub const MAX_LINES: usize = 20_000;
/// Longest line, in bytes. A longer one is refused: its sender hears of it, and may cut it where it makes sense.
pub const MAX_LINE: usize = 256 << 10;
/// Lines that an answer names; further ones are counted.
const MAX_TOLD: usize = 100;
/// Senders with a stream of their own; those beyond share one.
const MAX_STREAMS: usize = 1_024;
/// How long a request waits for the spool to keep its lines.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a body is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `text/plain`: a log line a line.
    Text,
    /// `application/x-ndjson`: a JSON object a line.
    Ndjson,
    /// `application/json`: one object, or an array of them.
    Json,
}

impl Form {
    /// The form of a `Content-Type`, whose parameters say nothing more.
    #[must_use]
    pub fn of(content_type: &str) -> Option<Form> {
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let forms = [("text/plain", Form::Text), ("application/x-ndjson", Form::Ndjson), ("application/json", Form::Json)];
        forms.into_iter().find(|(name, _)| essence.eq_ignore_ascii_case(name)).map(|(_, form)| form)
    }
}

/// Why a body is refused whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More than [`MAX_BODY`].
    #[error("the body is larger than {MAX_BODY} bytes (inflated, if it is compressed); send it in parts")]
    TooLarge,
    /// More than [`MAX_LINES`].
    #[error("the body has more than {MAX_LINES} lines; send it in parts")]
    TooManyLines,
    /// No gzip, or cut off.
    #[error("the body is no whole gzip: {0}")]
    Gzip(String),
}

/// Inflates a gzip body (RFC 1952, also several members), never beyond [`MAX_BODY`].
///
/// # Errors
/// It is larger, or no whole gzip.
pub fn inflate(body: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut inflated = Vec::new();
    let read = MultiGzDecoder::new(body).take(MAX_BODY as u64 + 1).read_to_end(&mut inflated);
    read.map_err(|error: io::Error| Refused::Gzip(error.to_string()))?;
    if inflated.len() > MAX_BODY { Err(Refused::TooLarge) } else { Ok(inflated) }
}

/// A line that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Which line, or member of the array, from 1 on.
    pub line: usize,
    /// Why, with the remedy.
    pub reason: String,
}

/// What a body holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// What is to be kept, in order: all that is accepted, and what was to be a finding and is none, for the dead letters.
    pub keep: Vec<Vec<u8>>,
    /// How many lines are accepted.
    pub accepted: usize,
    /// The others, the first [`MAX_TOLD`] of them.
    pub rejected: Vec<Rejected>,
    /// How many more there are.
    pub more_rejected: usize,
}

impl Parsed {
    fn reject(&mut self, line: usize, reason: impl Into<String>) {
        if self.rejected.len() < MAX_TOLD {
            self.rejected.push(Rejected { line, reason: reason.into() });
        } else {
            self.more_rejected += 1;
        }
    }

    fn take(&mut self, line: usize, raw: &[u8], form: Form, payload: Payload) {
        if raw.len() > MAX_LINE {
            return self.reject(line, format!("longer than {MAX_LINE} bytes"));
        }
        match payload {
            Payload::Finding => match check_finding(raw) {
                Ok(()) => self.accepted += 1,
                Err(refusal) => self.reject(line, format!("{refusal} (kept as a dead letter)")),
            },
            Payload::Log => match fault(raw, form) {
                None => self.accepted += 1,
                Some(reason) => return self.reject(line, reason),
            },
        }
        self.keep.push(if form == Form::Json { one_line(raw) } else { raw.to_vec() });
    }
}

/// Why a log line is not taken. A line of text may hold anything: bytes that are no UTF-8 are replaced when it is read.
fn fault(raw: &[u8], form: Form) -> Option<String> {
    if form == Form::Text {
        return None;
    }
    if let Err(error) = std::str::from_utf8(raw) {
        return Some(format!("not UTF-8 from byte {} on", error.valid_up_to()));
    }
    if !raw.starts_with(b"{") {
        return Some("not a JSON object".to_owned());
    }
    serde_json::from_slice::<Map<String, Value>>(raw).err().map(|error| format!("not JSON: {error}"))
}

/// In JSON a line end is only ever between tokens.
fn one_line(raw: &[u8]) -> Vec<u8> {
    raw.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

/// Divides a body. Empty lines say nothing and are left out, as in files.
///
/// # Errors
/// It has too many lines.
pub fn parse(body: &[u8], form: Form, payload: Payload) -> Result<Parsed, Refused> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut parsed = Parsed::default();
    if form == Form::Json {
        for (line, raw) in (1..).zip(objects(body)) {
            if line > MAX_LINES {
                return Err(Refused::TooManyLines);
            }
            parsed.take(line, raw, form, payload);
        }
        return Ok(parsed);
    }
    for (line, raw) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let raw = trimmed(raw, form);
        if raw.is_empty() {
            continue;
        }
        if parsed.keep.len() >= MAX_LINES {
            return Err(Refused::TooManyLines);
        }
        parsed.take(line, raw, form, payload);
    }
    Ok(parsed)
}

/// Text keeps its blanks.
fn trimmed(raw: &[u8], form: Form) -> &[u8] {
    match form {
        Form::Text if raw.trim_ascii().is_empty() => &[],
        Form::Text => raw.strip_suffix(b"\r").unwrap_or(raw),
        Form::Ndjson | Form::Json => raw.trim_ascii(),
    }
}

/// The object, or the members of the array, as they stand. What is no JSON is one piece.
fn objects(body: &[u8]) -> Vec<&[u8]> {
    let body = body.trim_ascii();
    let inner = body.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"));
    match inner {
        Some(inner) if serde_json::from_slice::<IgnoredAny>(body).is_ok() => members(inner),
        _ if body.is_empty() => Vec::new(),
        _ => vec![body],
    }
}

/// Splits the inside of an array that is valid JSON.
fn members(inner: &[u8]) -> Vec<&[u8]> {
    let (mut members, mut begin, mut depth) = (Vec::new(), 0, 0usize);
    let (mut in_text, mut escaped) = (false, false);
    for (at, byte) in inner.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                members.extend(inner.get(begin..at));
                begin = at + 1;
            }
            _ => {}
        }
    }
    members.extend(inner.get(begin..));
    members.into_iter().map(<[u8]>::trim_ascii).filter(|member| !member.is_empty()).collect()
}

/// Why lines are not known to be kept. They may be all the same: whoever sends them again may have them twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// The disk does not take them, or not soon enough.
    #[error("the lines could not be written in time; send them again")]
    Busy,
    /// opmas ends, or has not begun.
    #[error("opmas is starting or ending; send them again")]
    Closed,
}

/// The way in for one source's lines. It holds nothing up when opmas ends.
#[derive(Clone)]
pub struct Door {
    source: Arc<str>,
    trust: Trust,
    batches: mpsc::WeakSender<Batch>,
    shutdown: watch::Receiver<bool>,
    meter: Meter,
    streams: Arc<Mutex<HashMap<IpAddr, Arc<str>>>>,
}

impl Door {
    pub(super) fn new(source: &Arc<str>, config: &HttpConfig, batches: &mpsc::Sender<Batch>, shutdown: &watch::Receiver<bool>) -> Door {
        let trust = if config.trusted { Trust::Verified } else { Trust::Open };
        let (batches, shutdown) = (batches.downgrade(), shutdown.clone());
        Door { source: Arc::clone(source), trust, batches, shutdown, meter: Meter::new(source), streams: Arc::default() }
    }

    /// `[source.NAME]`
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Hands lines over, and returns once all of them are on disk (O3).
    ///
    /// # Errors
    /// They are not known to be.
    pub async fn keep(&self, peer: IpAddr, lines: Vec<Vec<u8>>, payload: Payload) -> Result<(), NotKept> {
        let until = Instant::now() + PATIENCE;
        let late = |_| NotKept::Busy;
        let stream = self.stream(peer.to_canonical());
        let mut records = lines.into_iter().map(|raw| self.record(&stream, peer.to_canonical(), raw, payload));
        let mut waiting = Vec::new();
        loop {
            let batch: Vec<Record> = records.by_ref().take(MAX_BATCH).collect();
            if batch.is_empty() {
                break;
            }
            let (done, kept) = oneshot::channel();
            tokio::time::timeout_at(until, self.send(Batch { records: batch, done: Some(done) })).await.map_err(late)??;
            waiting.push(kept);
        }
        for kept in waiting {
            // A sender that is gone has not kept them.
            tokio::time::timeout_at(until, kept).await.map_err(late)?.map_err(|_| NotKept::Closed)?;
        }
        Ok(())
    }

    async fn send(&self, batch: Batch) -> Result<(), NotKept> {
        let batches = self.batches.upgrade().filter(|_| !*self.shutdown.borrow()).ok_or(NotKept::Closed)?;
        let place = batches.reserve().await.map_err(|_| NotKept::Closed)?;
        self.meter.count(&batch);
        place.send(batch);
        Ok(())
    }

    /// A stream a sender, so that one whose clock is behind is not late because of another's (T3).
    fn stream(&self, peer: IpAddr) -> Arc<str> {
        let mut known = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = known.get(&peer) {
            return Arc::clone(stream);
        }
        if known.len() >= MAX_STREAMS {
            return format!("{}/http", self.source).into();
        }
        let stream: Arc<str> = format!("{}/http/{peer}", self.source).into();
        known.insert(peer, Arc::clone(&stream));
        stream
    }

    fn record(&self, stream: &Arc<str>, peer: IpAddr, raw: Vec<u8>, payload: Payload) -> Record {
        Record {
            id: None,
            source: Arc::clone(&self.source),
            stream: Arc::clone(stream),
            arrival: Some(clock::now()),
            peer: Some(peer),
            trust: self.trust,
            raw,
            payload,
            subject: None,
        }
    }
}
