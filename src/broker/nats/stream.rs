//! The streams that hold subjects: found, or made.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamErrorKind, RequestErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use serde::Deserialize;

use super::Connection;

/// How long messages stay in a stream that opmas makes.
pub const LIMIT_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// How many bytes stay in a stream that opmas makes; the oldest messages give way.
pub const LIMIT_BYTES: i64 = 1 << 30;
/// Streams of one subject filter that are looked at.
pub const MAX_STREAMS: usize = 256;
/// A message that is published twice within this time is kept once.
const DUPLICATES: Duration = Duration::from_secs(120);

/// Why there is no stream. One sentence with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The server does not keep streams.
    #[error("{0}")]
    NoJetStream(String),
    /// It is not to be made like this.
    #[error("{0}")]
    Refused(String),
    /// The server did not answer.
    #[error("{0}")]
    Unanswered(String),
}

/// A page of the server's list.
#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    total: usize,
    streams: Option<Vec<String>>,
}

/// The streams that hold subjects of a filter, in the order of their names.
///
/// # Errors
/// The server does not keep streams, or does not answer.
pub async fn of_subject(connection: &Connection, filter: &str) -> Result<Vec<String>, StreamError> {
    let mut found = Vec::new();
    while found.len() < MAX_STREAMS {
        let page = serde_json::json!({"subject": filter, "offset": found.len()});
        let answer: Response<Names> = connection.jetstream().request("STREAM.NAMES", &page).await.map_err(|error| unanswered(connection, &error.kind()))?;
        let page = match answer {
            Response::Ok(page) => page,
            Response::Err { error } => return Err(refused(connection, error.error_code(), &format!("the streams of `{filter}` cannot be listed: {error}"))),
        };
        let names = page.streams.unwrap_or_default();
        let empty = names.is_empty();
        found.extend(names);
        if empty || found.len() >= page.total {
            break;
        }
    }
    found.truncate(MAX_STREAMS);
    found.sort();
    Ok(found)
}

/// Makes a stream for a subject or filter that none holds, and says its name: `LOGS` with `logs.>` for everything below `logs`, in files,
/// for [`LIMIT_AGE`] and [`LIMIT_BYTES`].
///
/// # Errors
/// The server refuses it or does not answer.
pub async fn make(connection: &Connection, subject: &str) -> Result<String, StreamError> {
    let first = subject.split('.').next().unwrap_or_default();
    if matches!(first, "*" | ">" | "") || first.starts_with('$') {
        return Err(StreamError::Refused(connection.explain(&format!("no stream holds `{subject}`, and none can be made for it; make one"))));
    }
    let (name, holds) = if first == subject { (named(first), subject.to_owned()) } else { (named(first), format!("{first}.>")) };
    match create(connection, name, holds).await {
        // Another stream has a part of it.
        Err(Failed::Code(ErrorCode::STREAM_SUBJECT_OVERLAP | ErrorCode::STREAM_NAME_EXIST, _)) => {
            create(connection, named(subject), subject.to_owned()).await.map_err(|failed| failed.sentence(connection, subject))
        }
        made => made.map_err(|failed| failed.sentence(connection, subject)),
    }
}

/// Why a stream was not made.
enum Failed {
    Code(ErrorCode, String),
    Other(String),
}

impl Failed {
    fn sentence(self, connection: &Connection, subject: &str) -> StreamError {
        let what = |text: &str| format!("no stream holds `{subject}`, and it cannot be made: {text}; make one");
        match self {
            Failed::Code(code, text) => refused(connection, code, &what(&text)),
            Failed::Other(text) => StreamError::Unanswered(connection.explain(&what(&text))),
        }
    }
}

/// `logs` becomes `LOGS`, `logs.*.dhcp` becomes `LOGS_DHCP`.
fn named(subject: &str) -> String {
    let tokens = subject.split('.').filter(|token| !matches!(*token, "*" | ">"));
    let plain = |token: &str| token.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c.to_ascii_uppercase() } else { '_' }).collect::<String>();
    tokens.map(plain).collect::<Vec<_>>().join("_")
}

async fn create(connection: &Connection, name: String, subject: String) -> Result<String, Failed> {
    let config = Config {
        name: name.clone(),
        subjects: vec![subject.clone()],
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_age: LIMIT_AGE,
        max_bytes: LIMIT_BYTES,
        duplicate_window: DUPLICATES,
        description: Some("made by opmas".to_owned()),
        ..Config::default()
    };
    match connection.jetstream().create_stream(config).await {
        Ok(_) => {
            tracing::info!(stream = name, subject, "made a stream in NATS: in files, for 7 days, 1 GiB at most");
            Ok(name)
        }
        Err(error) => Err(match error.kind() {
            CreateStreamErrorKind::JetStream(error) => Failed::Code(error.error_code(), error.to_string()),
            _ => Failed::Other(error.to_string()),
        }),
    }
}

fn refused(connection: &Connection, code: ErrorCode, what: &str) -> StreamError {
    match code {
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => no_jetstream(connection),
        _ => StreamError::Refused(connection.explain(what)),
    }
}

fn unanswered(connection: &Connection, kind: &RequestErrorKind) -> StreamError {
    match kind {
        RequestErrorKind::NoResponders => no_jetstream(connection),
        RequestErrorKind::TimedOut => {
            StreamError::Unanswered(connection.explain("JetStream does not answer; look at the server, and at what this user may do"))
        }
        kind => StreamError::Unanswered(connection.explain(&kind.to_string())),
    }
}

fn no_jetstream(connection: &Connection) -> StreamError {
    StreamError::NoJetStream(connection.explain("JetStream is off for us; write `jetstream {}` in the server's configuration (and in the account)"))
}

#[cfg(test)]
mod tests {
    use super::named;

    #[test]
    fn streams_are_named_after_their_subjects() {
        assert_eq!((named("logs"), named("findings.>"), named("logs.*.dhcp v4")), ("LOGS".to_owned(), "FINDINGS".to_owned(), "LOGS_DHCP_V4".to_owned()));
    }
}
