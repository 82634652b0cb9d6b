//! One test of one value.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Number;

use super::glob::{self, Glob};
use super::leaf::{Fields, Leaf};
use crate::normalise;
use crate::sigma::{Comparison, Pattern, Piece, Test, TimePart};

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
    Part(TimePart, Comparison, f64),
    /// The other field, `cased`, and whether anything may stand before and behind its value.
    FieldRef(String, bool, (bool, bool)),
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
            Test::Part(part, comparison, number) => Check::Part(*part, *comparison, *number),
            Test::FieldRef { field, cased, open } => Check::FieldRef(field.to_string(), *cased, *open),
            Test::AnyOf(tests) => Check::AnyOf(tests.iter().map(Check::new).collect()),
        }
    }

    /// Whether the field of the event is as asked.
    pub fn holds(&self, fields: &impl Fields, field: &str) -> bool {
        match self {
            Check::Exists(wanted) => fields.exists(field) == *wanted,
            Check::Null => !fields.exists(field) || fields.any_leaf(field, &mut |leaf| matches!(leaf, Leaf::Null)),
            _ => fields.any_leaf(field, &mut |leaf| self.is(leaf, fields)),
        }
    }

    /// Whether a value that is no list is as asked.
    pub fn is(&self, leaf: Leaf<'_>, fields: &impl Fields) -> bool {
        match self {
            Check::Null => matches!(leaf, Leaf::Null),
            Check::Exists(wanted) => *wanted,
            Check::Text(glob) => with_text(leaf, |text| glob.matches(text)),
            Check::Regex(pattern) => with_text(leaf, |text| pattern.is_match(text)),
            Check::Number(number, written) => match read_number(leaf) {
                Some(other) => same_number(number, &other),
                None => with_text(leaf, |text| text == written),
            },
            Check::Bool(wanted) => with_text(leaf, |text| text.eq_ignore_ascii_case(if *wanted { "true" } else { "false" })),
            Check::Cidr(net) => matches!(leaf, Leaf::Text(text) if within(net, text)),
            Check::Compare(comparison, bound) => number(leaf).is_some_and(|number| compares(*comparison, number, *bound)),
            Check::Part(part, comparison, wanted) => time_part(leaf, *part).is_some_and(|own| compares(*comparison, own, *wanted)),
            Check::FieldRef(other, cased, (false, false)) => refers(leaf, fields, other, *cased),
            Check::FieldRef(other, cased, open) => refers_to_part(leaf, fields, other, *cased, *open),
            Check::AnyOf(checks) => checks.iter().any(|check| check.is(leaf, fields)),
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
            Check::Null | Check::Exists(_) | Check::Bool(_) | Check::Part(..) | Check::FieldRef(..) => false,
        }
    }
}

/// Gives the text of a scalar: a number equals its text. Null and maps have none.
pub(super) fn with_text(leaf: Leaf<'_>, is: impl FnOnce(&str) -> bool) -> bool {
    match leaf {
        Leaf::Text(text) | Leaf::Digits(text) => is(text),
        Leaf::Bool(true) => is("true"),
        Leaf::Bool(false) => is("false"),
        Leaf::Number(number) => {
            let mut short = Short::default();
            write!(short, "{number}").is_ok() && short.as_str().is_some_and(is)
        }
        Leaf::Null | Leaf::Map => false,
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
pub(super) fn same_number(a: &Number, b: &Number) -> bool {
    a == b || (a.is_f64() || b.is_f64()) && a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

/// The number that a value is; a text is none.
pub(super) fn read_number(leaf: Leaf<'_>) -> Option<Number> {
    match leaf {
        Leaf::Number(number) => Some(number.clone()),
        Leaf::Digits(digits) => digits.parse().ok(),
        _ => None,
    }
}

/// The number that a value is or says.
pub(super) fn number(leaf: Leaf<'_>) -> Option<f64> {
    match leaf {
        Leaf::Text(text) => numeric(text),
        _ => read_number(leaf)?.as_f64(),
    }
}

/// A finite number in decimal writing; no `inf`, no `nan`.
fn numeric(text: &str) -> Option<f64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|n: &f64| plain && n.is_finite())
}

pub(super) fn compares(comparison: Comparison, a: f64, b: f64) -> bool {
    match comparison {
        Comparison::Lt => a < b,
        Comparison::Lte => a <= b,
        Comparison::Gt => a > b,
        Comparison::Gte => a >= b,
        Comparison::Eq => a == b,
        Comparison::Neq => a != b,
    }
}

/// The part of the time that a value says (T1's forms), in UTC.
fn time_part(leaf: Leaf<'_>, part: TimePart) -> Option<f64> {
    let time = match leaf {
        Leaf::Text(text) | Leaf::Digits(text) => normalise::instant(text)?,
        Leaf::Number(number) => normalise::instant(&number.to_string())?,
        Leaf::Null | Leaf::Bool(_) | Leaf::Map => return None,
    };
    let at = jiff::Timestamp::from_nanosecond(time.0.into()).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    Some(match part {
        TimePart::Minute => at.minute().into(),
        TimePart::Hour => at.hour().into(),
        TimePart::Day => at.day().into(),
        TimePart::Week => at.date().iso_week_date().week().into(),
        TimePart::Month => at.month().into(),
        TimePart::Year => at.year().into(),
    })
}

/// The address that a text says. A zone (`%eth0`) is set aside.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.split('%').next().unwrap_or(text).trim().parse().ok()
}

/// Whether an address stands in a network; an IPv4 address mapped into IPv6 is that IPv4 address, too.
fn within(net: &IpNet, text: &str) -> bool {
    address(text).is_some_and(|ip| net.contains(&ip) || net.contains(&ip.to_canonical()))
}

/// As [`refers`], where the other value may be a part.
fn refers_to_part(leaf: Leaf<'_>, fields: &impl Fields, other: &str, cased: bool, (before, behind): (bool, bool)) -> bool {
    let around = |text: &str| [before.then_some(Piece::Any), Some(Piece::Literal(text.to_owned())), behind.then_some(Piece::Any)];
    fields.any_leaf(other, &mut |theirs| {
        with_text(leaf, |a| with_text(theirs, |b| Glob::new(&around(b).into_iter().flatten().collect::<Vec<_>>(), cased).matches(a)))
    })
}

/// Whether the value equals one of another field.
fn refers(leaf: Leaf<'_>, fields: &impl Fields, other: &str, cased: bool) -> bool {
    fields.any_leaf(other, &mut |theirs| match (read_number(leaf), read_number(theirs)) {
        (Some(a), Some(b)) => same_number(&a, &b),
        _ => with_text(leaf, |a| with_text(theirs, |b| glob::equal(a, b, cased))),
    })
}
