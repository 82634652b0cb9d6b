//! `Retry-After` (RFC 9110 §10.2.3): seconds, or an HTTP date.

use super::answer::MAX_RETRY_AFTER;
use crate::model::{Span, Time};

/// How long the header asks to wait, at most [`MAX_RETRY_AFTER`]; `None` when it is not understood.
#[must_use]
pub fn retry_after(header: &str, now: Time) -> Option<Span> {
    let header = header.trim();
    let asked = if !header.is_empty() && header.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a very long time.
        Span::secs(header.parse().unwrap_or(i64::MAX))
    } else {
        date(header)?.since(now)
    };
    Some(asked.clamp(Span::ZERO, MAX_RETRY_AFTER))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`: the form that RFC 9110 asks senders for.
fn date(text: &str) -> Option<Time> {
    let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(Time)
}
