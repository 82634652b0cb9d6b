//! What the other side said.

use std::fmt;
use std::sync::Arc;

use crate::http::visible;
use crate::model::Span;

/// An answer is kept to this many characters.
const MAX_DETAIL: usize = 500;

/// A `Retry-After` longer than this is cut to it: a message about an attack is not put off for a day by a header.
pub const MAX_RETRY_AFTER: Span = Span::secs(3_600);

/// The other side accepted the message. It prints as the other side's words, bounded and visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    text: String,
    /// What the other side calls the message, when it can be changed under that name later.
    pub receipt: Option<Arc<str>>,
}

impl Answer {
    /// From the other side's words.
    #[must_use]
    pub fn new(text: impl fmt::Display) -> Answer {
        Answer { text: visible(text.to_string().trim(), MAX_DETAIL), receipt: None }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was accepted; trying again may work, not before `after` where the other side named a time.
    Retryable {
        /// At most [`MAX_RETRY_AFTER`].
        after: Option<Span>,
    },
    /// The other side, or the configuration, says no.
    Permanent,
    /// The message was given away and the answer was lost: it may have been accepted. The outbox sends it again where
    /// the channel has an idempotency key.
    Ambiguous,
}

/// Why a message was not accepted, as far as is known. The detail is bounded, visible and without secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct SendError {
    /// Whether trying again can help.
    pub kind: Failure,
    /// What happened: the other side's words, or where it broke.
    pub detail: String,
}

impl SendError {
    pub(super) fn new(kind: Failure, detail: impl fmt::Display) -> SendError {
        SendError { kind, detail: visible(detail.to_string().trim(), MAX_DETAIL) }
    }

    pub(super) fn retryable(detail: impl fmt::Display) -> SendError {
        SendError::new(Failure::Retryable { after: None }, detail)
    }

    /// Will not be tried again.
    pub fn permanent(detail: impl fmt::Display) -> SendError {
        SendError::new(Failure::Permanent, detail)
    }
}
