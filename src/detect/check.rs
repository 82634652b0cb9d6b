//! One test of one value.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Number, Value};

use super::glob::{self, Glob};
use super::lookup;
use crate::sigma::{Comparison, Pattern, Test};

/// A test made ready.
#[derive(Clone, Debug)]
pub(super) enum Check {
    Null,
    Exists(bool),
    Text(Glob),
    /// The number, and its text for strings that say it.
    Number(Number, String),
    Bool(bool),
    Regex(Pattern),
    Cidr(IpNet),
    Compare(Comparison, f64),
    FieldRef(String, bool),
    AnyOf(Vec<Check>),
}

impl Check {
    pub fn new(test: &Test) -> Check {
        match test {
            Test::Null => Check::Null,
            Test::Exists(wanted) => Check::Exists(*wanted),
            Test::Text { pattern, cased } => Check::Text(Glob::new(pattern, *cased)),
            Test::Number(number) => Check::Number(number.clone(), number.to_string()),
            Test::Bool(wanted) => Check::Bool(*wanted),
            Test::Regex(pattern) => Check::Regex(pattern.clone()),
            Test::Cidr(net) => Check::Cidr(*net),
            Test::Compare(comparison, number) => Check::Compare(*comparison, *number),
            Test::FieldRef { field, cased } => Check::FieldRef(field.to_string(), *cased),
            Test::AnyOf(tests) => Check::AnyOf(tests.iter().map(Check::new).collect()),
        }
    }

    /// Whether the field of the event is as asked.
    pub fn holds(&self, fields: &Map<String, Value>, field: &str) -> bool {
        let any = |see: &mut dyn FnMut(&Value) -> bool| lookup::any_value(fields, field, see);
        match self {
            Check::Exists(wanted) => any(&mut |_| true) == *wanted,
            Check::Null => !any(&mut |_| true) || any(&mut |value| lookup::any_member(value, &mut |member| member.is_null())),
            _ => any(&mut |value| lookup::any_member(value, &mut |member| self.is(member, fields))),
        }
    }

    /// Whether a value that is no list is as asked.
    fn is(&self, value: &Value, fields: &Map<String, Value>) -> bool {
        match self {
            Check::Null => value.is_null(),
            Check::Exists(wanted) => *wanted,
            Check::Text(glob) => with_text(value, |text| glob.matches(text)),
            Check::Regex(pattern) => with_text(value, |text| pattern.is_match(text)),
            Check::Number(number, written) => match value {
                Value::Number(other) => same_number(number, other),
                _ => with_text(value, |text| text == written),
            },
            Check::Bool(wanted) => with_text(value, |text| text.eq_ignore_ascii_case(if *wanted { "true" } else { "false" })),
            Check::Cidr(net) => value.as_str().is_some_and(|text| within(net, text)),
            Check::Compare(comparison, bound) => number(value).is_some_and(|number| compares(*comparison, number, *bound)),
            Check::FieldRef(other, cased) => refers(value, fields, other, *cased),
            Check::AnyOf(checks) => checks.iter().any(|check| check.is(value, fields)),
        }
    }

    /// Whether a string anywhere in the event is as asked.
    pub fn is_text(&self, text: &str) -> bool {
        match self {
            Check::Text(glob) => glob.matches(text),
            Check::Regex(pattern) => pattern.is_match(text),
            Check::Cidr(net) => within(net, text),
            Check::Compare(comparison, bound) => numeric(text).is_some_and(|number| compares(*comparison, number, *bound)),
            Check::Number(_, written) => text == written,
            Check::AnyOf(checks) => checks.iter().any(|check| check.is_text(text)),
            // The parser lets none of these stand without a field.
            Check::Null | Check::Exists(_) | Check::Bool(_) | Check::FieldRef(..) => false,
        }
    }
}

/// Gives the text of a scalar: a number equals its text. Null, lists and maps have none.
fn with_text(value: &Value, is: impl FnOnce(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is(text),
        Value::Bool(true) => is("true"),
        Value::Bool(false) => is("false"),
        Value::Number(number) => {
            let mut short = Short::default();
            write!(short, "{number}").is_ok() && short.as_str().is_some_and(is)
        }
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Room for the text of a number, without a heap.
struct Short {
    bytes: [u8; 40],
    len: usize,
}

impl Default for Short {
    fn default() -> Short {
        Short { bytes: [0; 40], len: 0 }
    }
}

impl Short {
    fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes.get(..self.len)?).ok()
    }
}

impl std::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Integers are compared exactly, others as floating-point numbers.
fn same_number(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() || b.is_f64()) && a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => numeric(text),
        _ => None,
    }
}

/// A finite number in decimal writing; no `inf`, no `nan`.
fn numeric(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|n: &f64| plain && n.is_finite())
}

fn compares(comparison: Comparison, a: f64, b: f64) -> bool {
    match comparison {
        Comparison::Lt => a < b,
        Comparison::Lte => a <= b,
        Comparison::Gt => a > b,
        Comparison::Gte => a >= b,
        Comparison::Eq => a == b,
        Comparison::Neq => a != b,
    }
}

/// Whether an address stands in a network. A zone (`%eth0`) is set aside; an IPv4 address mapped into IPv6 is that IPv4 address.
fn within(net: &IpNet, text: &str) -> bool {
    let address = text.split('%').next().unwrap_or(text).trim();
    address.parse::<IpAddr>().is_ok_and(|ip| net.contains(&ip) || net.contains(&ip.to_canonical()))
}

/// Whether the value equals one of another field.
fn refers(value: &Value, fields: &Map<String, Value>, other: &str, cased: bool) -> bool {
    let mut equal = |theirs: &Value| match (value, theirs) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        _ => with_text(value, |a| with_text(theirs, |b| glob::equal(a, b, cased))),
    };
    lookup::any_value(fields, other, &mut |found| lookup::any_member(found, &mut equal))
}
