//! Time stamps as log lines write them. Parsing only: which instant a local stamp names is `place.rs`' business.

use jiff::civil::DateTime;

use crate::model::{Time, parse_iso};

/// What a stamp says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stamp {
    /// A time with a zone: an instant.
    Instant(Time),
    /// A date and time of day without a zone.
    Local(DateTime),
    /// RFC 3164: not even a year.
    Yearless(Yearless),
}

/// A day of some year and the time of day.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Yearless {
    month: i8,
    day: i8,
    clock: Clock,
}

impl Yearless {
    /// The date and time in `year`; `None` for the 29th of February of a common year.
    pub(super) fn in_year(self, year: i16) -> Option<DateTime> {
        self.clock.on(year, self.month, self.day)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Clock {
    hour: i8,
    minute: i8,
    second: i8,
    nanos: i32,
}

impl Clock {
    fn on(self, year: i16, month: i8, day: i8) -> Option<DateTime> {
        DateTime::new(year, month, day, self.hour, self.minute, self.second, self.nanos).ok()
    }
}

/// A stamp at the start of `text`, its own text, and what follows it: a `logread` stamp (`Sun Jan  9 20:24:56 2022`, with
/// `[seconds.millis]` behind it from `logread -t`), RFC 3164 (`Nov 21 13:08:05`, also with a year before the time of day),
/// or RFC 3339 (also without a zone).
pub(super) fn leading(text: &str) -> Option<(Stamp, &str, &str)> {
    let (stamp, rest) = match text.as_bytes().first()? {
        b'0'..=b'9' => iso(text)?,
        b'A'..=b'Z' => logread(text).or_else(|| bsd(text))?,
        _ => return None,
    };
    let rest = match rest.strip_prefix(' ') {
        Some(rest) => rest,
        None if rest.is_empty() => rest,
        None => return None,
    };
    let own = text.get(..text.len() - rest.len()).unwrap_or(text).trim_end();
    Some((stamp, own, rest))
}

/// RFC 3339 up to the first blank.
fn iso(text: &str) -> Option<(Stamp, &str)> {
    let end = text.find(' ').unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end)?;
    let bytes = word.as_bytes();
    if bytes.get(4) != Some(&b'-') || !matches!(bytes.get(10), Some(b'T' | b't')) {
        return None;
    }
    Some((iso_word(word)?, rest))
}

/// An ISO 8601 date and time, with or without a zone.
pub(super) fn iso_word(word: &str) -> Option<Stamp> {
    match Time::parse_rfc3339(word) {
        Some(time) => Some(Stamp::Instant(time)),
        None => parse_iso::<DateTime>(word).map(Stamp::Local),
    }
}

/// `Sun Jan  9 20:24:56 2022`, and the exact time that `logread -t` adds.
fn logread(text: &str) -> Option<(Stamp, &str)> {
    let (weekday, rest) = text.split_once(' ')?;
    if !matches!(weekday, "Mon" | "Tue" | "Wed" | "Thu" | "Fri" | "Sat" | "Sun") {
        return None;
    }
    let (month, day, rest) = month_and_day(rest)?;
    let (clock, rest) = clock(rest)?;
    let (year, rest) = number(rest.strip_prefix(' ')?, 4)?;
    let local = Stamp::Local(clock.on(i16::try_from(year).ok()?, month, day)?);
    Some(epoch(rest).unwrap_or((local, rest)))
}

/// ` [1641759896.123]`
fn epoch(text: &str) -> Option<(Stamp, &str)> {
    let (word, rest) = text.strip_prefix(" [")?.split_once(']')?;
    let (seconds, millis) = word.split_once('.')?;
    let nanos = seconds.parse::<i64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction(millis)?.into())?;
    Some((Stamp::Instant(Time(nanos)), rest))
}

/// `Nov 21 13:08:05` or `Nov 21 2026 13:08:05`.
fn bsd(text: &str) -> Option<(Stamp, &str)> {
    let (month, day, rest) = month_and_day(text)?;
    if let Some((clock, rest)) = clock(rest) {
        // Every yearless day must exist in a leap year.
        clock.on(2000, month, day)?;
        return Some((Stamp::Yearless(Yearless { month, day, clock }), rest));
    }
    let (year, rest) = number(rest, 4)?;
    let (clock, rest) = clock(rest.strip_prefix(' ')?)?;
    Some((Stamp::Local(clock.on(i16::try_from(year).ok()?, month, day)?), rest))
}

/// `Nov 21 `, `Jan  9 `, `Jan 9 `
fn month_and_day(text: &str) -> Option<(i8, i8, &str)> {
    let (month, rest) = text.split_at_checked(3)?;
    let month = match month {
        "Jan" => 1,
        "Feb" => 2,
        "Mar" => 3,
        "Apr" => 4,
        "May" => 5,
        "Jun" => 6,
        "Jul" => 7,
        "Aug" => 8,
        "Sep" => 9,
        "Oct" => 10,
        "Nov" => 11,
        "Dec" => 12,
        _ => return None,
    };
    let rest = rest.strip_prefix(' ')?;
    let (day, rest) = number(rest.strip_prefix(' ').unwrap_or(rest), 2)?;
    Some((month, i8::try_from(day).ok()?, rest.strip_prefix(' ')?))
}

/// `13:08:05`, with a fraction if there is one.
fn clock(text: &str) -> Option<(Clock, &str)> {
    let (hour, rest) = two_digits(text)?;
    let (minute, rest) = two_digits(rest.strip_prefix(':')?)?;
    let (second, rest) = two_digits(rest.strip_prefix(':')?)?;
    // A leap second is the second before it: no clock of ours knows it.
    let clock = Clock { hour, minute, second: second.min(59), nanos: 0 };
    let Some(after) = rest.strip_prefix('.').filter(|after| after.starts_with(|c: char| c.is_ascii_digit())) else {
        return Some((clock, rest));
    };
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = after.split_at_checked(digits)?;
    Some((Clock { nanos: fraction(digits)?, ..clock }, rest))
}

fn two_digits(text: &str) -> Option<(i8, &str)> {
    let (digits, rest) = text.split_at_checked(2)?;
    if digits.bytes().all(|b| b.is_ascii_digit()) { Some((digits.parse().ok()?, rest)) } else { None }
}

/// One to `most` digits, and what follows them, which is no digit.
fn number(text: &str, most: usize) -> Option<(i32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > most {
        return None;
    }
    let (digits, rest) = text.split_at_checked(digits)?;
    Some((digits.parse().ok()?, rest))
}

/// The digits behind a decimal point as nanoseconds; digits beyond the ninth are dropped.
pub(super) fn fraction(digits: &str) -> Option<i32> {
    let mut nanos = 0;
    for place in 0..9 {
        let digit = match digits.as_bytes().get(place) {
            Some(digit @ b'0'..=b'9') => i32::from(digit - b'0'),
            Some(_) => return None,
            None => 0,
        };
        nanos = nanos * 10 + digit;
    }
    Some(nanos)
}

/// The same stamps where they are the whole text, as in a field of a JSON event.
pub(super) fn whole(text: &str) -> Option<Stamp> {
    match leading(text) {
        Some((stamp, _, "")) => Some(stamp),
        _ => None,
    }
}
