//! The event time of structured events (semantics T1).

use serde_json::{Map, Value};

use super::stamp::{self, Stamp, fraction};
use crate::model::Time;

/// T1's fields, in its order.
const TIME_FIELDS: [&str; 10] = ["@timestamp", "timestamp", "time", "ts", "_time", "EventTime", "UtcTime", "TimeCreated", "SystemTime", "eventTime"];
/// Where Windows events keep theirs.
const NESTED: &str = "Event.System.TimeCreated";
/// Layouts beside RFC 3339 and the syslog forms: web server logs, slashes for dashes, `date`.
const OFFSET_LAYOUTS: [&str; 2] = ["%d/%b/%Y:%H:%M:%S %z", "%Y-%m-%d %H:%M:%S%.f %z"];
const UTC_LAYOUTS: [&str; 4] = ["%Y-%m-%d %H:%M:%S%.f UTC", "%Y/%m/%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S,%f", "%Y-%m-%dT%H:%M:%S,%f"];

/// The event time that an object names: configured fields (dotted paths) first, then the nested one, then T1's list.
/// A date and time without a zone is UTC; a yearless syslog stamp is returned as it is.
pub(super) fn event_time(object: &Map<String, Value>, extra: &[String]) -> Option<Stamp> {
    let first = extra.iter().map(String::as_str).chain([NESTED]);
    first.chain(TIME_FIELDS).find_map(|path| lookup(object, path).and_then(of_value))
}

/// The value at a dotted path; a key that contains the dots itself counts first.
pub(super) fn lookup<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    let (head, rest) = path.split_once('.')?;
    lookup(object.get(head)?.as_object()?, rest)
}

fn of_value(value: &Value) -> Option<Stamp> {
    match value {
        Value::Number(number) => epoch(&number.to_string()).map(Stamp::Instant),
        Value::String(text) => of_text(text.trim()),
        // The XML attribute of `<TimeCreated SystemTime="…"/>`, as converters to JSON write it.
        Value::Object(object) => {
            let attribute = ["SystemTime", "@SystemTime"].iter().find_map(|key| object.get(*key)).or_else(|| object.get("#attributes")?.get("SystemTime"))?;
            attribute.as_str().and_then(|text| of_text(text.trim()))
        }
        _ => None,
    }
}

fn of_text(text: &str) -> Option<Stamp> {
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
        match event_time(json.as_object().unwrap(), &["meta.seen".to_owned()])? {
            Stamp::Instant(time) => Some(time.to_string()),
            other => Some(format!("{other:?}")),
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
}
