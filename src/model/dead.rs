//! Records that could not be used.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RecordId, Time};

/// Why a record could not be used: a closed set, also a label of metrics. Persisted with postcard: variants are only ever appended (stable).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeadReason {
    /// A finding that is no JSON.
    NotJson,
    /// A finding that is JSON, and no object.
    NotAnObject,
    /// A finding without a `title`.
    NoTitle,
    /// A finding without an `agent`.
    NoAgent,
    /// A finding with neither `severity` nor `level`.
    NoSeverity,
    /// A finding whose `severity` is none.
    BadSeverity,
    /// A finding whose `level` is none.
    BadLevel,
    /// A finding whose `severity` and `level` are not the same.
    Contradiction,
    /// A record on which opmas has died, again and again.
    Deadly,
}

impl DeadReason {
    /// Its word in metrics and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            DeadReason::NotJson => "not_json",
            DeadReason::NotAnObject => "not_an_object",
            DeadReason::NoTitle => "no_title",
            DeadReason::NoAgent => "no_agent",
            DeadReason::NoSeverity => "no_severity",
            DeadReason::BadSeverity => "bad_severity",
            DeadReason::BadLevel => "bad_level",
            DeadReason::Contradiction => "contradiction",
            DeadReason::Deadly => "deadly",
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A record that could not be used, with the reason. Persisted with postcard: fields are never changed (stable).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The record's place in the spool.
    pub seq: u64,
    /// Its identity (O4).
    pub id: RecordId,
    /// The configured source, `[source.NAME]`.
    pub source: Arc<str>,
    /// What it came through.
    pub stream: Arc<str>,
    /// The NATS subject or the Kafka topic that it was published to.
    pub subject: Option<Arc<str>>,
    /// When it arrived.
    pub time: Time,
    /// Why it could not be used.
    pub reason: DeadReason,
    /// The same in a sentence.
    pub detail: String,
    /// How long it was, in bytes.
    pub bytes: u64,
    /// The bytes as they came, up to [`DeadLetter::MAX_RAW`]. The spool has all of them while it keeps the record.
    pub raw: Vec<u8>,
}

impl DeadLetter {
    /// Bytes that are kept of a record.
    pub const MAX_RAW: usize = 64 << 10;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_one_word_and_one_number() {
        let all = ["not_json", "not_an_object", "no_title", "no_agent", "no_severity", "bad_severity", "bad_level", "contradiction", "deadly"];
        for (number, word) in (0u8..).zip(all) {
            let reason: DeadReason = postcard::from_bytes(&[number]).unwrap();
            assert_eq!((reason.word(), serde_json::to_value(reason).unwrap()), (word, word.into()));
        }
        assert!(postcard::from_bytes::<DeadReason>(&[all.len() as u8]).is_err());
    }
}
