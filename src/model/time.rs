//! Instants and spans on the event-time axis.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The bytes of an instant's text, at most.
const TEXT: usize = 30;

/// An instant: nanoseconds since the Unix epoch, UTC. Persisted in the spool as that integer (stable).
///
/// Printed and parsed as RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub i64);

impl Time {
    /// The earliest instant that can be told.
    pub const MIN: Time = Time(i64::MIN);
    /// The end of time: later than every instant that input can name.
    pub const MAX: Time = Time(i64::MAX);

    /// `self + span`, saturating at the ends of time.
    #[must_use]
    pub fn plus(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }

    /// `self - span`, saturating at the ends of time.
    #[must_use]
    pub fn minus(self, span: Span) -> Time {
        Time(self.0.saturating_sub(span.0))
    }

    /// How long `self` is after `earlier` (negative when it is before), saturating.
    #[must_use]
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// Parses RFC 3339 (offset or `Z` required); digits beyond nanoseconds are dropped.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Time> {
        let ts: jiff::Timestamp = parse_iso(text)?;
        i64::try_from(ts.as_nanosecond()).ok().map(Time)
    }

    /// To the second, for sentences: `2026-11-21 13:08:12 UTC`.
    #[must_use]
    pub fn brief(self) -> String {
        self.timestamp().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
    }

    /// Only the time of day, for sentences that have said the date.
    #[must_use]
    pub fn time_of_day(self) -> String {
        self.timestamp().strftime("%H:%M:%S").to_string()
    }

    fn timestamp(self) -> jiff::Timestamp {
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).unwrap_or(jiff::Timestamp::MAX)
    }
}

/// What `T` is written as, also with more digits of a fraction than nanoseconds have.
pub(crate) fn parse_iso<T: FromStr>(text: &str) -> Option<T> {
    const NANOS: usize = 9;
    let shortened = || {
        let (before, after) = text.split_once(['.', ','])?;
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let (kept, rest) = (after.get(..NANOS.min(digits))?, after.get(digits..)?);
        (digits > NANOS).then(|| format!("{before}.{kept}{rest}"))
    };
    text.parse().ok().or_else(|| shortened()?.parse().ok())
}

/// RFC 3339 in UTC, with as many fractional digits as are needed: `2026-11-21T13:08:12Z`.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It comes in pieces, and most ask for it as a string.
        let mut text = String::with_capacity(TEXT);
        write!(text, "{}", self.timestamp())?;
        f.write_str(&text)
    }
}

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() {
            let text = String::deserialize(d)?;
            Time::parse_rfc3339(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not an RFC 3339 time")))
        } else {
            i64::deserialize(d).map(Time)
        }
    }
}

/// A length of time in nanoseconds, written as Sigma's timespans are: `30s`, `10m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub i64);

impl Span {
    /// `self + more`, saturating.
    #[must_use]
    pub fn plus(self, more: Span) -> Span {
        Span(self.0.saturating_add(more.0))
    }

    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// A span of whole seconds.
    #[must_use]
    pub const fn secs(n: i64) -> Span {
        Span(n.saturating_mul(1_000_000_000))
    }

    /// A span of whole milliseconds.
    #[must_use]
    pub const fn millis(n: i64) -> Span {
        Span(n.saturating_mul(1_000_000))
    }

    /// In whole seconds, rounded down.
    #[must_use]
    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// As a [`std::time::Duration`]; a negative span is zero.
    #[must_use]
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

/// What is wrong with the text of a span.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a span of time: a whole number and one of ms, s, m, h, d, w (`90s`, `10m`, `1h`)")]
pub struct ParseSpanError(pub String);

impl FromStr for Span {
    type Err = ParseSpanError;

    /// `<whole number><unit>`; units `ms s m h d w`, and Sigma's `M` (30 days) and `y` (365 days).
    fn from_str(text: &str) -> Result<Span, ParseSpanError> {
        let bad = || ParseSpanError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or_else(bad)?;
        let number: i64 = number.parse().map_err(|_| bad())?;
        let unit = match unit {
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 7 * 86_400_000_000_000,
            "M" => 30 * 86_400_000_000_000,
            "y" => 365 * 86_400_000_000_000,
            _ => return Err(bad()),
        };
        number.checked_mul(unit).map(Span).ok_or_else(bad)
    }
}

/// In the largest unit that divides it: `10m`, `90s`, `1h`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(i64, &str); 4] = [(86_400_000_000_000, "d"), (3_600_000_000_000, "h"), (60_000_000_000, "m"), (1_000_000_000, "s")];
        for (size, unit) in UNITS {
            if self.0 != 0 && self.0 % size == 0 {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}ms", self.0 / 1_000_000)
    }
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() { s.collect_str(self) } else { s.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        if d.is_human_readable() { String::deserialize(d)?.parse().map_err(serde::de::Error::custom) } else { i64::deserialize(d).map(Span) }
    }
}
