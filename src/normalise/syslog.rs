//! One log line in parts: PRI, stamp, host, program, message, whichever of the syslog layouts it has.

use serde_json::{Map, Value};

use super::rfc5424;
use super::stamp::{self, Stamp};
use super::tag::{self, Tagged};

/// RFC 5424's facilities, by number, under the names that `logread` prints.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit", "alert", "clock", "local0", "local1",
    "local2", "local3", "local4", "local5", "local6", "local7",
];
/// RFC 5424's severities, by number, under the names that `logread` prints.
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];

/// Facility and severity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Priority {
    pub(super) facility: &'static str,
    pub(super) severity: &'static str,
}

/// A line in parts, all of them slices of it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Line<'a> {
    pub(super) priority: Option<Priority>,
    /// The stamp and its own text.
    pub(super) stamp: Option<(Stamp, &'a str)>,
    pub(super) host: Option<&'a str>,
    pub(super) tagged: Tagged<'a>,
    /// RFC 5424's PROCID when it is no number.
    pub(super) procid: Option<&'a str>,
    pub(super) msgid: Option<&'a str>,
    pub(super) sd: Map<String, Value>,
    /// Seconds since the kernel started, at the head of a kernel message.
    pub(super) uptime: Option<f64>,
}

/// Takes a line apart. `is_known` says which names are programs, for the prefix rule of X4. Never fails: what has no
/// header is all message.
pub(super) fn parse<'a>(text: &'a str, is_known: &dyn Fn(&str) -> bool) -> Line<'a> {
    let (priority, rest) = match pri(text) {
        Some((priority, rest)) => (Some(priority), rest),
        None => (None, text),
    };
    let mut line = rest.strip_prefix("1 ").filter(|_| priority.is_some()).and_then(rfc5424::parse).map(of_rfc5424).unwrap_or_else(|| layouts(rest, is_known));
    // A `logread` line names its own.
    line.priority = priority.or(line.priority);
    with_uptime(line)
}

fn of_rfc5424(parts: rfc5424::Rfc5424<'_>) -> Line<'_> {
    let number = parts.procid.and_then(|procid| procid.parse().ok());
    Line {
        stamp: parts.stamp,
        host: parts.host,
        tagged: Tagged { prefix: None, program: parts.app, pid: number, message: parts.message },
        procid: parts.procid.filter(|_| number.is_none()),
        msgid: parts.msgid,
        sd: parts.sd,
        ..Line::default()
    }
}

/// RFC 3164, rsyslog's RFC 3339 stamps in the same layout, `logread`, or no header at all.
fn layouts<'a>(text: &'a str, is_known: &dyn Fn(&str) -> bool) -> Line<'a> {
    let Some((stamp, own, rest)) = stamp::leading(text) else {
        if uptime(text).is_some() {
            return Line { tagged: Tagged { program: Some("kernel"), message: text, ..Tagged::default() }, ..Line::default() };
        }
        return Line { tagged: tag::tagged_if_sure(text, is_known), ..Line::default() };
    };
    let stamp = Some((stamp, own));
    if let Some((priority, rest)) = named_priority(rest) {
        return Line { priority: Some(priority), stamp, tagged: tag::tagged(rest, is_known), ..Line::default() };
    }
    let (host, rest) = tag::host(rest);
    Line { stamp, host, tagged: tag::tagged(rest, is_known), ..Line::default() }
}

/// `<0>` to `<191>`.
fn pri(text: &str) -> Option<(Priority, &str)> {
    let (digits, rest) = text.strip_prefix('<')?.split_once('>')?;
    if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: usize = digits.parse().ok()?;
    Some((Priority { facility: FACILITIES.get(number / 8)?, severity: SEVERITIES.get(number % 8)? }, rest))
}

/// `authpriv.notice ` as `logread` prints it.
fn named_priority(text: &str) -> Option<(Priority, &str)> {
    let (word, rest) = text.split_once(' ')?;
    let (facility, severity) = word.split_once('.')?;
    let facility = FACILITIES.iter().find(|name| **name == facility)?;
    let severity = SEVERITIES.iter().find(|name| **name == severity)?;
    Some((Priority { facility, severity }, rest))
}

fn with_uptime(mut line: Line<'_>) -> Line<'_> {
    if line.tagged.program == Some("kernel")
        && let Some((seconds, rest)) = uptime(line.tagged.message)
    {
        line.uptime = Some(seconds);
        line.tagged.message = rest;
    }
    line
}

/// `[  253.142138] ` at the head of a kernel message.
fn uptime(text: &str) -> Option<(f64, &str)> {
    let (inner, rest) = text.strip_prefix('[')?.split_once(']')?;
    let (seconds, micros) = inner.trim_start_matches(' ').split_once('.')?;
    let digits = |text: &str, most: usize| !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds, 10) || !digits(micros, 6) {
        return None;
    }
    Some((inner.trim_start_matches(' ').parse().ok()?, rest.strip_prefix(' ').unwrap_or(rest)))
}
