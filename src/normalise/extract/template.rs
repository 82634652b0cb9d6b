//! A pattern's text: fixed characters, `{name:type}` fields and `{?text}` that may be missing, from the first character of the message to
//! the last.

use super::kind::{KINDS, Kind};
use crate::diag::nearest;

/// One piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Part {
    /// These characters.
    Fixed(String),
    /// These characters, or none.
    Optional(String),
    /// A field; without a name it is matched and left out.
    Field {
        /// Its name in the event.
        name: Option<String>,
        /// What it holds.
        kind: Kind,
    },
}

/// A checked template.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub(super) parts: Vec<Part>,
}

/// Why a text is no template: the byte offset in it, what is wrong, and the remedy.
#[derive(Debug, PartialEq)]
pub(super) struct TemplateError {
    pub(super) offset: usize,
    pub(super) message: String,
    pub(super) help: String,
}

fn wrong<T>(offset: usize, message: impl Into<String>, help: impl Into<String>) -> Result<T, TemplateError> {
    Err(TemplateError { offset, message: message.into(), help: help.into() })
}

impl Template {
    /// Parses and checks a template. The fields that `hostile` names are free texts whatever their types: a client chooses them, and a word
    /// of a client's ends where the client says.
    ///
    /// # Errors
    /// An unknown type, two fields side by side, no fixed text, or an address that stands between two free texts: whoever
    /// chooses those could choose it too.
    pub(super) fn parse(text: &str, hostile: &[String]) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut fixed = String::new();
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let doubled = chars.peek().is_some_and(|(_, next)| *next == c);
            match c {
                '{' | '}' if doubled => {
                    chars.next();
                    fixed.push(c);
                }
                '{' => {
                    let field = text.get(at + 1..).and_then(|rest| rest.split_once('}')).map(|(field, _)| field);
                    let Some(field) = field else { return wrong(at, "this `{` is never closed", "write `{{` for a brace of the message") };
                    if !fixed.is_empty() {
                        parts.push(Part::Fixed(std::mem::take(&mut fixed)));
                    }
                    let part = self::field(field, at)?;
                    let before = parts.iter().rev().find(|part| !matches!(part, Part::Optional(_)));
                    if matches!((before, &part), (Some(Part::Field { .. }), Part::Field { kind, .. }) if *kind != Kind::Pairs) {
                        return wrong(at, "two fields stand side by side", "put the message's text between them");
                    }
                    parts.push(part);
                    // The field's characters and its closing brace.
                    let _closing = chars.nth(field.chars().count());
                }
                '}' => return wrong(at, "this `}` closes nothing", "write `}}` for a brace of the message"),
                other => fixed.push(other),
            }
        }
        if !fixed.is_empty() {
            parts.push(Part::Fixed(fixed));
        }
        let template = Template { parts };
        template.check(hostile)?;
        Ok(template)
    }

    fn check(&self, hostile: &[String]) -> Result<(), TemplateError> {
        if !self.parts.iter().any(|part| matches!(part, Part::Fixed(_))) {
            return wrong(0, "the pattern has no text of its own, so that it matches everything", "write the words that the program logs");
        }
        let chosen = |name: &Option<String>| name.as_ref().is_some_and(|name| hostile.contains(name));
        let free = |part: &Part| matches!(part, Part::Field { name, kind } if kind.is_free() || chosen(name));
        for (at, part) in self.parts.iter().enumerate() {
            let Part::Field { name, kind } = part else { continue };
            let before = self.parts.iter().take(at).any(free);
            let after = self.parts.iter().skip(at + 1).any(free);
            if kind.is_trusted() && before && after {
                let message = format!("`{}` stands between two free texts: whoever chooses them chooses it too", name.as_deref().unwrap_or_default());
                return wrong(0, message, "leave it out (`{:text}`), or write out the text on one side of it; no type keeps a client's words short");
            }
            if *kind == Kind::Pairs && at + 1 != self.parts.len() {
                return wrong(0, "`pairs` is the rest of the message", "put it last");
            }
        }
        Ok(())
    }

    /// The regular expression for the whole template, one group a field, without anchors.
    pub(super) fn regex(&self) -> String {
        let piece = |part: &Part| match part {
            Part::Fixed(text) => regex::escape(text),
            Part::Optional(text) => format!("(?:{})?", regex::escape(text)),
            Part::Field { kind, .. } => format!("({})", kind.regex()),
        };
        self.parts.iter().map(piece).collect()
    }

    /// The fields, in the order of the groups.
    pub(super) fn fields(&self) -> impl Iterator<Item = (Option<&str>, Kind)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Fixed(_) | Part::Optional(_) => None,
            Part::Field { name, kind } => Some((name.as_deref(), *kind)),
        })
    }
}

fn field(text: &str, at: usize) -> Result<Part, TemplateError> {
    if let Some(text) = text.strip_prefix('?') {
        return Ok(Part::Optional(text.to_owned()));
    }
    let (name, kind) = text.split_once(':').unwrap_or((text, "text"));
    let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        let known = KINDS.iter().map(|(name, _)| *name);
        let help = match nearest(kind, known.clone()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
        };
        return wrong(at, format!("unknown type `{kind}`"), help);
    };
    if !name.is_empty() && !is_name(name) {
        return wrong(at, format!("`{name}` is no field name"), "use lower-case letters, digits and `_`, a letter first");
    }
    Ok(Part::Field { name: Some(name.to_owned()).filter(|name| !name.is_empty()), kind: *kind })
}

/// Whether a text can be a field of the published table.
pub(super) fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') && text.len() <= 64
}
