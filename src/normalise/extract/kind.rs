//! What a field of a pattern may hold.

use std::sync::Arc;

use serde_json::Value;

use crate::normalise::canon;

/// One more than the largest whole number that is read: 18 digits.
const MAX_INT: u64 = 1_000_000_000_000_000_000;

/// The type of a field. Each has its characters, which the pattern matches, and its value, which must parse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text at all, also none: what an attacker may choose.
    Text,
    /// As `text`, without the blanks at its end.
    Trimmed,
    /// Text without blanks; an empty one leaves the field out.
    Word,
    /// As `word`, in lower case.
    Lower,
    /// A whole number, also below zero.
    Int,
    /// An IP address.
    Ip,
    /// 0 to 65535.
    Port,
    /// Address and port: the fields `NAME_ip` and `NAME_port`.
    Endpoint,
    /// A MAC address.
    Mac,
    /// The bytes of an Ethernet header; the value is the source address in it.
    Ether,
    /// A key's fingerprint as OpenSSH writes it: `SHA256:` with base64, or 16 bytes in hexadecimal, also behind `MD5:`.
    Fingerprint,
    /// `Jul 10 23:57:29`
    Stamp,
    /// The rest of the line as `KEY=value` words, named by the pattern's `pairs`.
    Pairs,
}

/// The names, as patterns write them.
pub(super) const KINDS: &[(&str, Kind)] = &[
    ("text", Kind::Text),
    ("trimmed", Kind::Trimmed),
    ("word", Kind::Word),
    ("lower", Kind::Lower),
    ("int", Kind::Int),
    ("ip", Kind::Ip),
    ("port", Kind::Port),
    ("endpoint", Kind::Endpoint),
    ("mac", Kind::Mac),
    ("ether", Kind::Ether),
    ("fingerprint", Kind::Fingerprint),
    ("stamp", Kind::Stamp),
    ("pairs", Kind::Pairs),
];

/// The text did not hold what the type asks for: the pattern does not match.
#[derive(Debug)]
pub(super) struct Wrong;

impl Kind {
    /// The characters it matches, as a regular expression over bytes.
    pub(super) fn regex(self) -> &'static str {
        match self {
            Kind::Text | Kind::Trimmed => "(?s:.*)",
            Kind::Word | Kind::Lower | Kind::Ether => r"[^\x00-\x20]*",
            Kind::Int => "-?[0-9]{1,18}",
            Kind::Ip => r"[0-9A-Fa-f:.]+(?:%[0-9A-Za-z_.@-]+)?",
            Kind::Port => "[0-9]{1,5}",
            Kind::Endpoint => r"\[?[0-9A-Fa-f:.]+(?:%[0-9A-Za-z_.@-]+)?\]?:[0-9]{1,5}",
            Kind::Mac => "[0-9A-Fa-f:.-]+",
            Kind::Fingerprint => "(?:SHA256:[0-9A-Za-z+/]+=*|(?:MD5:)?[0-9a-f]{2}(?::[0-9a-f]{2}){15})",
            Kind::Stamp => "[A-Z][a-z]{2} [ 0-9][0-9] [0-9]{2}:[0-9]{2}:[0-9]{2}",
            Kind::Pairs => "(?s:(?: .*)?)",
        }
    }

    /// How far a text of it can reach from the start of `text`, in bytes: no less than its expression does. `None` when only that can say.
    pub(super) fn reach(self, text: &str) -> Option<usize> {
        let run = |within: fn(u8) -> bool| text.bytes().position(|b| !within(b)).unwrap_or(text.len());
        match self {
            Kind::Text | Kind::Trimmed | Kind::Pairs => Some(text.len()),
            Kind::Word | Kind::Lower | Kind::Ether => Some(run(|b| b > b' ')),
            Kind::Int => Some(run(|b| b.is_ascii_digit() || b == b'-')),
            Kind::Port => Some(run(|b| b.is_ascii_digit())),
            Kind::Ip | Kind::Endpoint | Kind::Mac => Some(run(|b| b.is_ascii_alphanumeric() || b":.%_@-[]".contains(&b))),
            Kind::Fingerprint | Kind::Stamp => None,
        }
    }

    /// Whether whoever writes the text chooses where it ends.
    pub(super) fn is_free(self) -> bool {
        matches!(self, Kind::Text | Kind::Trimmed | Kind::Pairs)
    }

    /// Whether a playbook may act on it, so that nobody but the program may choose it.
    pub(super) fn is_trusted(self) -> bool {
        matches!(self, Kind::Ip | Kind::Port | Kind::Endpoint | Kind::Mac | Kind::Ether)
    }

    /// The names of the fields that it sets.
    pub(super) fn sets(self, name: &str) -> Vec<String> {
        match self {
            Kind::Endpoint => vec![format!("{name}_ip"), format!("{name}_port")],
            _ => vec![name.to_owned()],
        }
    }

    /// Adds the field with the value of `text`; without a name the text only must hold what the type asks for.
    pub(super) fn set(self, name: Option<&Arc<str>>, text: &str, fields: &mut Vec<(Arc<str>, Value)>) -> Result<(), Wrong> {
        let value = match self {
            Kind::Text | Kind::Fingerprint | Kind::Stamp | Kind::Trimmed | Kind::Word | Kind::Lower if name.is_none() => return Ok(()),
            Kind::Text | Kind::Fingerprint | Kind::Stamp | Kind::Pairs => Value::from(text),
            Kind::Trimmed => Value::from(text.trim_end_matches(' ')),
            Kind::Word if text.is_empty() => return Ok(()),
            Kind::Word => Value::from(text),
            Kind::Lower => Value::from(text.to_lowercase()),
            Kind::Int => Value::from(text.parse::<i64>().ok().filter(|n| n.unsigned_abs() < MAX_INT).ok_or(Wrong)?),
            Kind::Ip => Value::from(canon::ip_text(text).ok_or(Wrong)?),
            Kind::Port => Value::from(canon::port(text).ok_or(Wrong)?),
            Kind::Mac => Value::from(canon::mac(text).ok_or(Wrong)?),
            // Tunnels have link headers of other lengths, and no MAC in them.
            Kind::Ether => match canon::ether_source(text) {
                Some(mac) => Value::from(mac),
                None => return Ok(()),
            },
            Kind::Endpoint => {
                let (ip, port) = canon::endpoint(text).ok_or(Wrong)?;
                if let Some(name) = name {
                    fields.push((format!("{name}_ip").into(), Value::from(ip)));
                    fields.push((format!("{name}_port").into(), Value::from(port)));
                }
                return Ok(());
            }
        };
        fields.extend(name.map(|name| (Arc::clone(name), value)));
        Ok(())
    }
}
