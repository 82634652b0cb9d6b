//! Structured events: their values (C9), and their event time (T1).

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::stamp::{self, Stamp, fraction};
use super::tape::{Kind, View};
use crate::model::Time;

/// T1's fields, in its order.
const TIME_FIELDS: [&str; 10] = ["@timestamp", "timestamp", "time", "ts", "_time", "EventTime", "UtcTime", "TimeCreated", "SystemTime", "eventTime"];
/// No whole number that is nearer to zero is beyond 64 bits, 2^63.
const HUGE: f64 = 9_223_372_036_854_775_808.0;
/// Nor is one of fewer digits.
const MIN_DIGITS: usize = 19;
/// Where Windows events keep theirs.
const NESTED: &str = "Event.System.TimeCreated";
/// Layouts beside RFC 3339 and the syslog forms: web server logs, slashes for dashes, `date`.
const OFFSET_LAYOUTS: [&str; 2] = ["%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%d %H:%M:%S%.f %z"];
const UTC_LAYOUTS: [&str; 4] = ["%Y-%m-%d %H:%M:%S%.f UTC", "%Y/%m/%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S,%f", "%Y-%m-%dT%H:%M:%S,%f"];

/// Reads JSON. A whole number beyond 64 bits is a text, its digits: as floating point it would be the same as others (C9). So is one that
/// is too large for floating point. Half a surrogate pair in a text is U+FFFD, as a bad byte is.
///
/// # Errors
/// It is none.
pub(super) fn read(json: &str) -> serde_json::Result<Value> {
    match serde_json::from_str(json) {
        Ok(value) if !is_rounded(&value) => Ok(value),
        // It may be a number that is too large, or half a surrogate pair.
        Err(error) if !error.is_syntax() => Err(error),
        _ => serde_json::from_str(&tamed(json)),
    }
}

/// The same of an object; `None` for anything else.
pub(super) fn object(json: &str) -> Option<Map<String, Value>> {
    match json.starts_with('{').then(|| read(json)) {
        Some(Ok(Value::Object(object))) => Some(object),
        _ => None,
    }
}

/// Whether a whole number in it may be beyond 64 bits.
fn is_rounded(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64() && number.as_f64().is_some_and(|number| number.abs() >= HUGE),
        Value::Array(members) => members.iter().any(is_rounded),
        Value::Object(fields) => fields.values().any(is_rounded),
        _ => false,
    }
}

/// JSON with quotes around the whole numbers that are beyond 64 bits, and those that are too large for floating point; with U+FFFD for half
/// surrogate pairs.
fn tamed(json: &str) -> String {
    let (mut out, mut rest, mut in_text) = (String::with_capacity(json.len() + 16), json, false);
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' => {
                in_text = !in_text;
                1
            }
            '\\' => escape_len(rest),
            '-' | '0'..='9' if !in_text => number_len(rest.as_bytes()),
            _ => first.len_utf8(),
        };
        let (piece, behind) = rest.split_at(len);
        if !in_text && (is_beyond(piece) || is_infinite(piece)) {
            out.extend(["\"", piece, "\""]);
        } else if surrogate(piece).is_some() && len < PAIR {
            out.push(char::REPLACEMENT_CHARACTER);
        } else {
            out.push_str(piece);
        }
        rest = behind;
    }
    out
}

/// Bytes of two escapes that are one character.
const PAIR: usize = 12;

/// Bytes of the escape that this begins with; of a whole surrogate pair those of both.
fn escape_len(json: &str) -> usize {
    match (surrogate(json), json.get(PAIR / 2..).and_then(surrogate)) {
        (Some(false), Some(true)) => PAIR,
        (Some(_), _) => PAIR / 2,
        (None, _) => 1 + json.chars().nth(1).map_or(0, char::len_utf8),
    }
}

/// Whether the escape that this begins with is the second half of a surrogate pair; `None` when it is neither.
fn surrogate(json: &str) -> Option<bool> {
    let digits = json.strip_prefix("\\u")?.get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let unit = u16::from_str_radix(digits, 16).ok()?;
    (0xd800..0xe000).contains(&unit).then_some(unit >= 0xdc00)
}

/// Bytes of the number that this begins with.
pub(super) fn number_len(json: &[u8]) -> usize {
    json.iter().position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).unwrap_or(json.len())
}

/// Whether a JSON number is a whole one that 64 bits have no room for.
pub(super) fn is_beyond(number: &str) -> bool {
    let digits = number.strip_prefix('-').unwrap_or(number);
    let whole = digits.len() >= MIN_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    whole && number.parse::<u64>().is_err() && number.parse::<i64>().is_err()
}

/// Whether a JSON number is too large for floating point.
fn is_infinite(number: &str) -> bool {
    // Most are not, and most tokens are none.
    number.parse().is_ok_and(f64::is_infinite) && serde_json::from_str::<IgnoredAny>(number).is_ok()
}

/// The event time that an object names: configured fields (dotted paths) first, then the nested one, then T1's list.
/// A date and time without a zone is UTC; a yearless syslog stamp is returned as it is.
pub(super) fn event_time(object: View<'_>, extra: &[String]) -> Option<Stamp> {
    let configured = extra.iter().find_map(|path| object.lookup(path).and_then(of_value));
    configured.or_else(|| {
        let (nested, found) = candidates(object);
        nested.then(|| object.lookup(NESTED)).flatten().and_then(of_value).or_else(|| found.into_iter().flatten().find_map(of_value))
    })
}

/// In one pass: whether the nested one may be there, and the values of T1's list in its order.
fn candidates(object: View<'_>) -> (bool, [Option<View<'_>>; TIME_FIELDS.len()]) {
    let (mut nested, mut found) = (false, [None; TIME_FIELDS.len()]);
    for (key, _, value) in object.entries() {
        nested |= key.starts_with("Event");
        // Most keys are none of them, which their length tells.
        if matches!(key.len(), 2 | 4 | 5 | 7 | 9 | 10 | 11)
            && let Some(place) = TIME_FIELDS.iter().position(|name| *name == key).and_then(|index| found.get_mut(index))
        {
            *place = Some(value);
        }
    }
    (nested, found)
}

/// The instant of a text or a number; a stamp without a year is none.
pub(super) fn instant(text: &str) -> Option<Time> {
    match of_text(text.trim())? {
        Stamp::Instant(time) => Some(time),
        Stamp::Local(_) | Stamp::Yearless(_) => None,
    }
}

fn of_value(value: View<'_>) -> Option<Stamp> {
    match value.kind() {
        Kind::Number(digits) => epoch(digits).map(Stamp::Instant),
        Kind::Text(text) => of_text(text.trim()),
        // The XML attribute of `<TimeCreated SystemTime="…"/>`, as converters to JSON write it.
        Kind::Object => {
            let attribute = ["SystemTime", "@SystemTime"].iter().find_map(|key| value.get(key)).or_else(|| value.get("#attributes")?.get("SystemTime"))?;
            attribute.text().and_then(|text| of_text(text.trim()))
        }
        _ => None,
    }
}

/// `2026-11-21T13:08:05.250Z`, also with a blank for the `T` and without the `Z`: what most events have, read without detours.
/// Anything unusual is for others, such as a leap second.
fn plain_utc(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    let part =
        |from: usize, len: usize| bytes.get(from..from + len)?.iter().try_fold(0i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')));
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let plain = marks.iter().all(|(at, mark)| bytes.get(*at) == Some(mark)) && matches!(bytes.get(10), Some(b'T' | b' '));
    let (year, month, day) = (part(0, 4)?, part(5, 2)?, part(8, 2)?);
    let (hour, minute, second) = (part(11, 2)?, part(14, 2)?, part(17, 2)?);
    let tail = text.get(19..)?;
    let tail = tail.strip_suffix('Z').unwrap_or(tail);
    let nanos = match tail.strip_prefix('.') {
        Some(digits) if (1..=9).contains(&digits.len()) => fraction(digits)?,
        None if tail.is_empty() => 0,
        _ => return None,
    };
    // Every month has 28 days.
    let usual = plain && (1971..2262).contains(&year) && (1..=12).contains(&month) && (1..=28).contains(&day) && hour < 24 && minute < 60 && second < 60;
    usual.then(|| Time(((days(year, month, day) * 24 + hour) * 60 + minute) * 60_000_000_000 + second * 1_000_000_000 + i64::from(nanos)))
}

/// Days from 1970-01-01, in the Gregorian calendar: years begin in March, so that the leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

fn of_text(text: &str) -> Option<Stamp> {
    if let Some(time) = plain_utc(text) {
        return Some(Stamp::Instant(time));
    }
    let utc = |local: jiff::civil::DateTime| super::place::instant(local, &jiff::tz::TimeZone::UTC).map(Stamp::Instant);
    match stamp::iso_word(text).or_else(|| stamp::whole(text)) {
        Some(Stamp::Local(local)) => return utc(local),
        Some(stamp) => return Some(stamp),
        None => {}
    }
    if let Some(time) = epoch(text) {
        return Some(Stamp::Instant(time));
    }
    let zoned = jiff::fmt::rfc2822::parse(text).ok().map(|zoned| zoned.timestamp());
    let with_offset = zoned.or_else(|| OFFSET_LAYOUTS.iter().find_map(|layout| jiff::Timestamp::strptime(layout, text).ok()));
    if let Some(timestamp) = with_offset {
        return i64::try_from(timestamp.as_nanosecond()).ok().map(|nanos| Stamp::Instant(Time(nanos)));
    }
    UTC_LAYOUTS.iter().find_map(|layout| jiff::civil::DateTime::strptime(layout, text).ok()).and_then(utc)
}

/// A decimal number: below 1e11 seconds, 1e14 milliseconds, 1e17 microseconds, else nanoseconds. Exact, without floating point.
fn epoch(text: &str) -> Option<Time> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(part) {
        return exponent(text);
    }
    let whole: i64 = whole.parse().ok()?;
    let limits = [(100_000_000_000, 1_000_000_000), (100_000_000_000_000, 1_000_000), (100_000_000_000_000_000, 1_000)];
    let unit = limits.iter().find(|(limit, _)| whole < *limit).map_or(1, |(_, unit)| *unit);
    let nanos = whole.checked_mul(unit)?.checked_add(i64::from(fraction(part)?) / (1_000_000_000 / unit))?;
    Some(Time(if negative { -nanos } else { nanos }))
}

/// `1.7e9`, as some writers of JSON print large numbers.
fn exponent(text: &str) -> Option<Time> {
    if !text.contains(['e', 'E']) || !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    // Written out in full it goes the exact way; 25 digits are more than a time has.
    let written = format!("{number:.9}");
    if written.contains(['e', 'E']) || written.len() > 25 { None } else { epoch(&written) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(json: serde_json::Value) -> Option<String> {
        let mut tape = crate::normalise::Tape::default();
        tape.fill(json.as_object().unwrap());
        match event_time(tape.root(), &["meta.seen".to_owned()])? {
            Stamp::Instant(time) => Some(time.to_string()),
            other => Some(format!("{other:?}")),
        }
    }

    #[test]
    fn c9_numbers_that_are_too_large_for_floating_point_are_their_text() {
        let read = |json| super::read(json).ok();
        assert_eq!(read(r#"{"a":[1e400,-2E+999,1e3,"1e400"]}"#), Some(serde_json::json!({"a": ["1e400", "-2E+999", 1000.0, "1e400"]})));
        for none in [r#"{"a":01e400}"#, r#"{"a":1e400"#, r#"{1e400:1,}"#, r#"{"a":1e+}"#] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_a_replacement_character() {
        let text = |json: &str| super::read(&format!("[\"{json}\"]")).ok().and_then(|read| read[0].as_str().map(str::to_owned));
        for (json, is) in [
            (r"a\ud800b", "a\u{fffd}b"),
            (r"\uDC00", "\u{fffd}"),
            (r"\ud800\ud800", "\u{fffd}\u{fffd}"),
            (r"\ud800\ud83d\ude00\ude00", "\u{fffd}\u{1f600}\u{fffd}"),
            (r"\\ud800\ud800", "\\ud800\u{fffd}"),
            (r"\ud800\\", "\u{fffd}\\"),
            (r#"\ud800\""#, "\u{fffd}\""),
            (r"\ud800é\u00e9", "\u{fffd}éé"),
        ] {
            assert_eq!(text(json).as_deref(), Some(is), "{json}");
        }
        for none in [r"\ud80", r"\u", r"\ud800\x", r"\u+800", r"\ud800\"] {
            assert_eq!(text(none), None, "{none}");
        }
    }

    #[test]
    fn t1_numbers_are_seconds_millis_micros_or_nanos() {
        for number in ["1700000000", "1700000000000", "1700000000000000", "1700000000000000000", "1.7e9", "1700000000.000"] {
            let value: serde_json::Value = serde_json::from_str(&format!("{{\"ts\":{number}}}")).unwrap();
            assert_eq!(time(value).as_deref(), Some("2023-11-14T22:13:20Z"), "{number}");
        }
        assert_eq!(time(serde_json::json!({"ts": 1_700_000_000.123})).as_deref(), Some("2023-11-14T22:13:20.123Z"));
        assert_eq!(time(serde_json::json!({"ts": "1700000000123.5"})).as_deref(), Some("2023-11-14T22:13:20.1235Z"));
        assert_eq!(time(serde_json::json!({"ts": 99_999_999_999i64})), None, "seconds beyond what nanoseconds can tell");
    }

    #[test]
    fn t1_the_short_way_is_the_long_one() {
        let long = |text: &str| crate::model::Time::parse_rfc3339(&format!("{}Z", text.replace(' ', "T").trim_end_matches('Z')));
        let mut read = 0;
        for year in [1970, 1971, 1999, 2000, 2024, 2026, 2100, 2261, 2262] {
            for month in 0..14 {
                for (day, tail) in [(1, ""), (2, "Z"), (27, ".5"), (28, ".123456789Z"), (0, ""), (29, "Z"), (31, "")] {
                    for clock in ["00:00:00", "23:59:59", "12:30:05"] {
                        let text = format!("{year}-{month:02}-{day:02}{}{clock}{tail}", if day % 2 == 0 { 'T' } else { ' ' });
                        let Some(time) = plain_utc(&text) else { continue };
                        assert_eq!(Some(time), long(&text), "{text}");
                        read += 1;
                    }
                }
            }
        }
        assert!(read > 900, "{read}");
        for text in [
            "2026-11-21T13:08:60Z",
            "2026-11-21T24:00:00Z",
            "2026-11-21T13:08:05.Z",
            "2026-11-21T13:08:05.1234567890",
            "2026-11-21T13:08:05+01:00",
            "2026-11-21",
            "2026-11-21T13:08:05z",
            "2026-11-21x13:08:05",
        ] {
            assert_eq!(plain_utc(text), None, "{text}");
        }
    }

    #[test]
    fn t1_the_first_that_parses_counts() {
        assert_eq!(
            time(serde_json::json!({"@timestamp": "soon", "timestamp": true, "time": "2026-11-21T13:08:05Z", "ts": 1})).as_deref(),
            Some("2026-11-21T13:08:05Z")
        );
        assert_eq!(time(serde_json::json!({"eventTime": "2026-11-21T13:08:05+01:00"})).as_deref(), Some("2026-11-21T12:08:05Z"));
        assert_eq!(time(serde_json::json!({"when": "2026-11-21T13:08:05Z"})), None);
    }

    #[test]
    fn t1_nested_and_configured_fields_come_first() {
        let nested = serde_json::json!({"@timestamp": "2020-01-01T00:00:00Z", "Event": {"System": {"TimeCreated": {"#attributes": {"SystemTime": "2019-03-01T12:00:00.5Z"}}}}});
        assert_eq!(time(nested).as_deref(), Some("2019-03-01T12:00:00.5Z"));
        let configured = serde_json::json!({"Event": {"System": {"TimeCreated": "2019-03-01T12:00:00Z"}}, "meta": {"seen": 1}});
        assert_eq!(time(configured).as_deref(), Some("1970-01-01T00:00:01Z"));
    }

    #[test]
    fn t1_the_common_relatives_of_rfc_3339() {
        for text in [
            "2026-11-21T13:08:05Z",
            "2026-11-21 13:08:05Z",
            "2026-11-21 13:08:05",
            "2026-11-21T14:08:05+0100",
            "2026-11-21 13:08:05 UTC",
            "2026-11-21 14:08:05 +0100",
            "2026/11/21 13:08:05",
            "21/Nov/2026:14:08:05 +0100",
            "Sat, 21 Nov 2026 13:08:05 +0000",
            "Sat Nov 21 13:08:05 2026",
            "Nov 21 2026 13:08:05",
        ] {
            assert_eq!(time(serde_json::json!({"time": text})).as_deref(), Some("2026-11-21T13:08:05Z"), "{text}");
        }
        assert_eq!(time(serde_json::json!({"time": "2026-11-21 13:08:05,250"})).as_deref(), Some("2026-11-21T13:08:05.25Z"));
        assert!(time(serde_json::json!({"time": "Nov 21 13:08:05"})).unwrap().contains("Yearless"));
    }

    #[test]
    fn t1_rfc_3339_may_have_any_number_of_digits_a_leap_second_and_small_letters() {
        for text in [
            "2026-11-21T13:08:59.1234567891Z",
            "2026-11-21T13:08:59.12345678999999999999999999Z",
            "2026-11-21T14:08:59.1234567891+01:00",
            "2026-11-21T13:08:59,1234567891Z",
            "2026-11-21t13:08:59.123456789z",
            "2026-11-21 13:08:59.1234567891",
            "2026-11-21T13:08:60.1234567891Z",
        ] {
            assert_eq!(time(serde_json::json!({"time": text})).as_deref(), Some("2026-11-21T13:08:59.123456789Z"), "{text}");
        }
        assert_eq!(time(serde_json::json!({"time": "2026-11-21T13:08:60Z"})).as_deref(), Some("2026-11-21T13:08:59Z"));
        assert_eq!(time(serde_json::json!({"time": "2026-11-21T13:08:59.123456789123x"})), None);
    }
}
