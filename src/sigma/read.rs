//! Reading values out of a tree, with a diagnostic for what is not as it should be.

use std::str::FromStr;
use std::sync::Arc;

use super::processing::Fills;
use super::yaml::{Map, Node, Style, Text};
use crate::diag::{self, Diagnostic, Place};
use crate::model::Span;

/// Most diagnostics of one file; what a person reads at once is far less.
const MAX_DIAGNOSTICS: usize = 100;

/// Collects what is wrong with one file.
pub(super) struct Sink {
    pub file: Arc<str>,
    pub found: Vec<Diagnostic>,
    /// What stands in the place of placeholders.
    pub fills: Arc<Fills>,
}

impl Sink {
    pub fn new(file: &Arc<str>) -> Sink {
        Sink { file: Arc::clone(file), found: Vec::new(), fills: Arc::default() }
    }

    /// Adds a diagnostic with its remedy.
    pub fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.add(Diagnostic::new(Arc::clone(&self.file), place, message).help(help));
    }

    /// Adds the diagnostic for a word that a closed set does not know: `what` is `modifier`, `refire`…
    pub fn unknown_word(&mut self, place: Place, what: &str, written: &str, known: &[&str]) {
        let help = match diag::nearest(written, known.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("known: {}", known.join(", ")),
        };
        self.error(place, format!("unknown {what} `{written}`"), help);
    }

    /// Holds the keys of a closed table to the known ones.
    pub fn closed(&mut self, map: &Map, known: &[&str]) {
        for (key, _) in map.entries.iter().filter(|(key, _)| !known.contains(&&*key.text)) {
            self.add(diag::unknown_key(Arc::clone(&self.file), key.place, &key.text, known.iter().copied()));
        }
    }

    pub fn add(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < MAX_DIAGNOSTICS {
            self.found.push(diagnostic);
        }
    }
}

/// The node as a map; `what` names it in the message.
pub(super) fn map<'a>(node: &'a Node, what: &str, sink: &mut Sink) -> Option<&'a Map> {
    match node {
        Node::Map(map) => Some(map),
        other => {
            sink.error(other.place(), format!("{what} must be a map, but is {}", other.kind()), "write `key: value` lines below it");
            None
        }
    }
}

/// The node as a scalar that is not null.
pub(super) fn text<'a>(node: &'a Node, what: &str, sink: &mut Sink) -> Option<&'a Text> {
    match node {
        Node::Text(text) if !text.is_null() => Some(text),
        other => {
            sink.error(other.place(), format!("{what} must be text, but is {}", other.kind()), "write one value");
            None
        }
    }
}

/// The scalar of a key, when the key is there.
pub(super) fn optional_text(table: &Map, key: &str, sink: &mut Sink) -> Option<Arc<str>> {
    match table.get(key) {
        None => None,
        Some(Node::Text(null)) if null.is_null() => None,
        Some(node) => text(node, &format!("`{key}`"), sink).map(|t| Arc::clone(&t.text)),
    }
}

/// The scalars of a list, or the one scalar that stands in its place.
pub(super) fn texts<'a>(node: &'a Node, what: &str, sink: &mut Sink) -> Vec<&'a Text> {
    match node {
        Node::Text(text) if text.is_null() => Vec::new(),
        Node::List(_, items) => items.iter().filter_map(|item| text_of_list(item, what, sink)).collect(),
        other => text(other, what, sink).into_iter().collect(),
    }
}

fn text_of_list<'a>(item: &'a Node, what: &str, sink: &mut Sink) -> Option<&'a Text> {
    text(item, &format!("each member of {what}"), sink)
}

/// The node as `true` or `false`.
pub(super) fn boolean(node: &Node, what: &str, sink: &mut Sink) -> Option<bool> {
    let found = match node {
        Node::Text(text) => text.boolean(),
        _ => None,
    };
    if found.is_none() {
        sink.error(node.place(), format!("{what} must be true or false"), "write `true` or `false` without quotes");
    }
    found
}

/// The node as a span of time above zero.
pub(super) fn span(node: &Node, what: &str, sink: &mut Sink) -> Option<Span> {
    span_from(Span(1), node, what, sink)
}

/// The node as a span of time of at least this: one, or zero.
pub(super) fn span_from(least: Span, node: &Node, what: &str, sink: &mut Sink) -> Option<Span> {
    let text = text(node, what, sink)?;
    let found = Span::from_str(&text.text).ok().filter(|span| *span >= least);
    if found.is_none() {
        let message = format!("{what}: `{}` is not a span of time{}", text.text, if least > Span::ZERO { " above zero" } else { "" });
        sink.error(text.place, message, "write a whole number and one of s, m, h, d, w, M, y, such as `10m`");
    }
    found
}

/// The node as a finite number, also a quoted one.
pub(super) fn number(node: &Node, what: &str, sink: &mut Sink) -> Option<f64> {
    let text = text(node, what, sink)?;
    let found = parse_number(&text.text);
    if found.is_none() {
        sink.error(text.place, format!("{what}: `{}` is not a number", text.text), "write a whole number or a decimal such as `0.5`");
    }
    found
}

/// A finite decimal number: no words (`inf`, `nan`), no blanks.
pub(super) fn parse_number(text: &str) -> Option<f64> {
    let digits = text.bytes().any(|b| b.is_ascii_digit()) && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    text.parse().ok().filter(|n: &f64| digits && n.is_finite())
}

/// The number that a plain scalar is, when writing it again gives the same text, or when it is a hexadecimal or octal one.
/// Others (`007`, `1.10`, `+5`) stay text: they are version numbers and the like more often than numbers.
pub(super) fn canonical_number(text: &Text) -> Option<serde_json::Number> {
    if text.style != Style::Plain {
        return None;
    }
    let radix = |prefix, radix| text.text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok());
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(number.into());
    }
    let number = serde_json::Number::from_str(&text.text).ok()?;
    (number.to_string() == *text.text).then_some(number)
}
