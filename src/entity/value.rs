//! What group values are: C9.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde_json::{Map, Value};

/// Fields that a finding lays over those of its event (C8): group fields and aliases.
pub type Overlay = BTreeMap<Arc<str>, Value>;

/// Words in the last segment of a field's name that say that it holds a host name, whose case does not count.
const HOST_WORDS: &[&str] = &["host", "computer", "fqdn", "workstation", "machine", "domain", "servername", "device", "queryname"];

/// Digits of a MAC address.
const MAC_DIGITS: usize = 12;

/// A field's value: the key as it stands, else a path split at one of its dots. Lists on the way stand for their first member that has
/// the rest. `null` is absent.
#[must_use]
pub fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let literal = fields.get(name);
    literal.or_else(|| name.match_indices('.').find_map(|(dot, _)| below(fields.get(name.get(..dot)?)?, name.get(dot + 1..)?))).filter(|value| !value.is_null())
}

fn below<'a>(value: &'a Value, rest: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => field(fields, rest),
        Value::Array(members) => members.iter().find_map(|member| below(member, rest)),
        _ => None,
    }
}

/// Whether a field of this name holds host names.
#[must_use]
pub fn is_host_field(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let plain: String = last.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    HOST_WORDS.iter().any(|word| plain.contains(word))
}

/// The text by which a value is compared (C9): addresses in their one form, MACs as twelve lower-case digits, host names in
/// lower case, numbers as their text. Stable: finding ids are hashes over it.
#[must_use]
pub fn canonical(value: &Value, host: bool) -> Cow<'_, str> {
    match value {
        Value::String(text) => canonical_text(text, host),
        Value::Number(number) => whole(&number.to_string()).to_owned().into(),
        other => other.to_string().into(),
    }
}

/// [`canonical`] of a text.
#[must_use]
pub fn canonical_text(text: &str, host: bool) -> Cow<'_, str> {
    if let Some(digits) = mac_digits(text) {
        return digits.into();
    }
    // That is their one form already.
    if text.parse::<Ipv4Addr>().is_ok() {
        return text.into();
    }
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return ip.to_canonical().to_string().into();
    }
    match host {
        true if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) => text.into(),
        true => text.to_lowercase().into(),
        false => whole(text).into(),
    }
}

/// `22.0` is the number 22; every other text is left as it is.
fn whole(text: &str) -> &str {
    match text.split_once('.') {
        Some((number, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') && is_whole(number) => number,
        _ => text,
    }
}

fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The digits of a MAC in any of its spellings: `aa:bb:…`, `AA-BB-…`, `aabb.ccdd.eeff`, bare.
#[must_use]
pub fn mac_digits(text: &str) -> Option<String> {
    let every = match text.len() {
        17 => 2,
        14 => 4,
        12 => MAC_DIGITS,
        _ => return None,
    };
    let separator = text.bytes().find(|b| !b.is_ascii_hexdigit());
    let mut digits = String::with_capacity(MAC_DIGITS);
    for (at, byte) in text.bytes().enumerate() {
        let is_separator = at % (every + 1) == every;
        match (is_separator, byte.is_ascii_hexdigit()) {
            (false, true) => digits.push(char::from(byte.to_ascii_lowercase())),
            (true, false) if Some(byte) == separator && matches!(byte, b':' | b'-' | b'.') => {}
            _ => return None,
        }
    }
    (digits.len() == MAC_DIGITS).then_some(digits)
}

/// Twelve digits as a MAC is written.
#[must_use]
pub fn colons(digits: &str) -> String {
    let pairs: Vec<&str> = (0..digits.len()).step_by(2).filter_map(|at| digits.get(at..at + 2)).collect();
    pairs.join(":")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn c9_values_compare_as_what_they_are() {
        let same = |a: Value, b: Value, host: bool| assert_eq!(canonical(&a, host), canonical(&b, host), "{a} {b}");
        same(json!("::ffff:203.0.113.9"), json!("203.0.113.9"), false);
        same(json!("2001:DB8::0:1"), json!("2001:db8::1"), false);
        same(json!("AA-BB-CC-00-11-22"), json!("aa:bb:cc:00:11:22"), false);
        same(json!("aabb.cc00.1122"), json!("AABBCC001122"), false);
        same(json!(22), json!("22"), false);
        same(json!(22.0), json!("22"), false);
        same(json!(22.0), json!("22.0"), false);
        same(json!("AP1.lan"), json!("ap1.LAN"), true);
        same(json!(true), json!("true"), false);
    }

    #[test]
    fn c9_different_things_stay_different() {
        let differ = |a: Value, b: Value| assert_ne!(canonical(&a, false), canonical(&b, false), "{a} {b}");
        differ(json!("Root"), json!("root"));
        differ(json!("022"), json!(22));
        differ(json!("1.10"), json!("1.1"));
        differ(json!("aa:bb:cc-00:11:22"), json!("aa:bb:cc:00:11:22"));
        differ(json!("aa:bb:cc:00:11:2z"), json!("aa:bb:cc:00:11:22"));
    }

    #[test]
    fn fields_are_found_by_name_and_by_dotted_path() {
        let event = json!({"a.b": 1, "a": {"b": 2, "c": {"d": 3}, "l": [{"x": 1}, {"y": 2}], "e.f": 4}, "n": null});
        let fields = event.as_object().unwrap();
        assert_eq!(field(fields, "a.b"), Some(&json!(1)));
        assert_eq!(field(fields, "a.c.d"), Some(&json!(3)));
        assert_eq!(field(fields, "a.e.f"), Some(&json!(4)));
        assert_eq!(field(fields, "a.l.y"), Some(&json!(2)));
        assert_eq!(field(fields, "n"), None);
        assert_eq!(field(fields, "a.x.y"), None);
    }

    #[test]
    fn host_fields_are_known_by_their_names() {
        assert!(["host", "Computer", "dst_host", "Event.System.Computer", "WorkstationName"].iter().all(|n| is_host_field(n)));
        assert!(["user", "src_ip", "host.user", "mac"].iter().all(|n| !is_host_field(n)));
    }
}
