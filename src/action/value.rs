//! The closed grammars of parameter values. A value is data: none of these types, free text set aside, can spell
//! anything of a shell, of nft or of JSON.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::model::Span;

/// Longest text of a parameter, in bytes: command lines and ledger records stay small.
pub const MAX_TEXT: usize = 256;
/// Longest interface name that Linux takes, in bytes (IFNAMSIZ − 1).
const MAX_INTERFACE: usize = 15;
/// How much of a refused value is repeated in an error.
const SHOWN: usize = 48;

/// What a parameter may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grammar {
    /// One IPv4 or IPv6 address: no prefix, no zone, no leading zeros; an IPv4-mapped IPv6 address is its IPv4.
    Ip,
    /// An IPv4 or IPv6 network, `203.0.113.0/24`: no host bits set, not IPv4-mapped. How large it may be is the guard's to say.
    Prefix,
    /// The hardware address of one station, lower case with colons; group addresses and zero are refused.
    Mac,
    /// A Linux interface name: letters, digits, `.`, `_`, `-`, at most 15.
    Interface,
    /// Whole seconds between bounds, written `90s`, `10m`, `1h`, `7d`, `1w`.
    Duration {
        /// The shortest.
        min: Span,
        /// The longest.
        max: Span,
    },
    /// A whole number between bounds, never negative (a leading `-` would read as an option).
    Int {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// One of these words.
    Enum(Vec<String>),
    /// One word of letters, digits, `_` and `-` that does not begin with `-`.
    Word {
        /// The most bytes.
        max: usize,
    },
    /// One line of text, as one argument of a command and nowhere else; no control characters, no leading `-`.
    Text {
        /// The most bytes.
        max: usize,
    },
}

/// A value that its grammar accepted, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParamValue {
    /// An address; never IPv4-mapped.
    Ip(IpAddr),
    /// A network; never IPv4-mapped, without host bits.
    Prefix(IpNet),
    /// Seconds.
    Duration(Span),
    /// A number.
    Int(i64),
    /// The canonical text of every other grammar.
    Word(String),
}

impl Grammar {
    /// The word for it in an action file.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Grammar::Ip => "ip",
            Grammar::Prefix => "prefix",
            Grammar::Mac => "mac",
            Grammar::Interface => "interface",
            Grammar::Duration { .. } => "duration",
            Grammar::Int { .. } => "int",
            Grammar::Enum(_) => "enum",
            Grammar::Word { .. } => "word",
            Grammar::Text { .. } => "text",
        }
    }

    /// Whether every value is free of syntax, so that it may stand in a script on standard input.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !matches!(self, Grammar::Text { .. })
    }

    /// Reads a value: a string, or for `int` a number.
    ///
    /// # Errors
    /// One sentence part that says what the value should have been.
    pub fn parse(&self, value: &Value) -> Result<ParamValue, String> {
        let accepted = match (self, value) {
            (Grammar::Int { min, max }, Value::Number(n)) => n.as_i64().filter(|n| (min..=max).contains(&n)).map(ParamValue::Int),
            (Grammar::Int { .. }, _) => None,
            (_, Value::String(text)) => self.parse_text(text),
            _ => None,
        };
        accepted.ok_or_else(|| format!("{} is not {self}", shown(value)))
    }

    fn parse_text(&self, text: &str) -> Option<ParamValue> {
        match self {
            Grammar::Ip => text.parse::<IpAddr>().ok().map(|ip| ParamValue::Ip(ip.to_canonical())),
            Grammar::Prefix => prefix(text).map(ParamValue::Prefix),
            Grammar::Mac => mac(text).map(ParamValue::Word),
            Grammar::Interface => is_interface(text).then(|| ParamValue::Word(text.to_owned())),
            Grammar::Duration { min, max } => duration(text).filter(|span| (min..=max).contains(&span)).map(ParamValue::Duration),
            Grammar::Int { .. } => None,
            Grammar::Enum(words) => words.iter().find(|word| *word == text).cloned().map(ParamValue::Word),
            Grammar::Word { max } => (text.len() <= *max && is_word(text) && !text.contains(['.', ':'])).then(|| ParamValue::Word(text.to_owned())),
            Grammar::Text { max } => is_line(text, *max).then(|| ParamValue::Word(text.to_owned())),
        }
    }
}

/// What a value should have been, for error sentences.
impl fmt::Display for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grammar::Ip => f.write_str("one IPv4 or IPv6 address (no prefix length, zone or leading zeros)"),
            Grammar::Prefix => f.write_str("one IPv4 or IPv6 network, such as 203.0.113.0/24, without host bits"),
            Grammar::Mac => f.write_str("the hardware address of one station, such as 00:11:22:aa:bb:cc"),
            Grammar::Interface => f.write_str("an interface name: at most 15 letters, digits, `.`, `_` or `-`"),
            Grammar::Duration { min, max } => write!(f, "a time between {min} and {max}, in whole seconds (`90s`, `10m`, `1h`)"),
            Grammar::Int { min, max } => write!(f, "a whole number between {min} and {max}"),
            Grammar::Enum(words) => write!(f, "one of {}", words.join(", ")),
            Grammar::Word { max } => write!(f, "one word of at most {max} letters, digits, `_` or `-` that does not begin with `-`"),
            Grammar::Text { max } => write!(f, "one line of at most {max} bytes without control characters that does not begin with `-`"),
        }
    }
}

/// The canonical text, as commands contain it.
impl fmt::Display for ParamValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParamValue::Ip(ip) => write!(f, "{ip}"),
            ParamValue::Prefix(net) => write!(f, "{net}"),
            ParamValue::Duration(span) => write!(f, "{span}"),
            ParamValue::Int(n) => write!(f, "{n}"),
            ParamValue::Word(text) => f.write_str(text),
        }
    }
}

impl ParamValue {
    /// The canonical JSON form, which [`Grammar::parse`] reads back to the same value.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            ParamValue::Int(n) => Value::from(*n),
            other => Value::String(other.to_string()),
        }
    }
}

/// A word that is safe anywhere in a command: what enum values are made of.
#[must_use]
pub(super) fn is_word(text: &str) -> bool {
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b':');
    !text.is_empty() && text.len() <= MAX_TEXT && !text.starts_with('-') && text.bytes().all(safe)
}

fn is_interface(text: &str) -> bool {
    text.len() <= MAX_INTERFACE && is_word(text) && !text.contains(':') && text != "." && text != ".."
}

fn is_line(text: &str, max: usize) -> bool {
    // Line and paragraph separators and bidirectional controls mislead a person who reads the plan.
    let misleading = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    !text.is_empty() && text.len() <= max && !text.starts_with('-') && !text.chars().any(misleading)
}

/// With leading zeros, host bits or an IPv4-mapped address it could be meant otherwise than it is read.
fn prefix(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok()?;
    let mapped = matches!(net, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some());
    (net == net.trunc() && !mapped && text.split_once("/0").is_none_or(|(_, more)| more.is_empty())).then_some(net)
}

fn mac(text: &str) -> Option<String> {
    let separator = text.chars().find(|c| matches!(c, ':' | '-'))?;
    let parts: Vec<&str> = text.split(separator).collect();
    let hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let first = u8::from_str_radix(parts.first()?, 16).ok()?;
    let one_station = first & 1 == 0 && parts.iter().any(|part| *part != "00");
    (parts.len() == 6 && parts.iter().all(hex) && one_station).then(|| parts.join(":").to_ascii_lowercase())
}

/// `<whole number without leading zeros><s|m|h|d|w>`: fewer units than [`Span`] reads, because `M` beside `m` is a trap here.
fn duration(text: &str) -> Option<Span> {
    let unit = text.bytes().last()?;
    let plain = matches!(unit, b's' | b'm' | b'h' | b'd' | b'w') && !text.ends_with("ms") && !text.starts_with('0');
    plain.then(|| text.parse::<Span>().ok()).flatten()
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    let mut cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    // JSON's escapes leave DEL and the C1 controls as they are; a terminal would act on them.
    cut.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
