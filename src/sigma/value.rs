//! Values with their modifiers to tests.

use std::borrow::Cow;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::ast::{Comparison, Pattern, Piece, Test, TimePart};
use super::modifier::{Kind, Modifiers};
use super::processing::Unfilled;
use super::read::{self, Sink};
use super::text;
use super::yaml::{Node, Style, Text};

/// Most values of one field with their placeholders written out.
const MAX_EXPANDED: usize = 10_000;

/// The tests of a field's values; with `keyword`, of values that are looked for anywhere in an event.
/// `None` when the sink was told what is wrong.
pub(super) fn tests(values: &[&Node], modifiers: &Modifiers, keyword: bool, sink: &mut Sink) -> Option<Vec<Test>> {
    let mut found = Vec::with_capacity(values.len());
    for node in values {
        for node in &filled(node, modifiers, sink)?[..] {
            found.push(test(node, modifiers, keyword, sink));
        }
        if modifiers.expand && found.len() > MAX_EXPANDED {
            sink.error(node.place(), format!("with its placeholders this field has more than {MAX_EXPANDED} values"), "give fewer");
            return None;
        }
    }
    found.into_iter().collect()
}

/// The value, or with `expand` those that it stands for.
fn filled<'a>(node: &'a Node, modifiers: &Modifiers, sink: &mut Sink) -> Option<Cow<'a, [Node]>> {
    let Node::Text(value) = node else { return Some(Cow::Borrowed(std::slice::from_ref(node))) };
    if !modifiers.expand {
        return Some(Cow::Borrowed(std::slice::from_ref(node)));
    }
    match sink.fills.texts(&value.text) {
        Ok(texts) if texts.first().is_some_and(|text| **text == *value.text) => Some(Cow::Borrowed(std::slice::from_ref(node))),
        Ok(texts) => {
            Some(texts.into_iter().map(|text| Node::Text(Text { text: text.into(), style: Style::Quoted, one_line: false, ..value.clone() })).collect())
        }
        Err(Unfilled(offset, message, help)) => {
            sink.error(value.place_of(offset), message, help);
            None
        }
    }
}

fn test(node: &Node, modifiers: &Modifiers, keyword: bool, sink: &mut Sink) -> Option<Test> {
    let Node::Text(value) = node else {
        sink.error(node.place(), format!("a value cannot be {}", node.kind()), "write text, a number, true, false or null");
        return None;
    };
    if value.is_null() {
        return null(value, modifiers, keyword, sink);
    }
    if let Some(part) = modifiers.part {
        return time_part(node, part, modifiers, keyword, sink);
    }
    match modifiers.kind {
        Kind::Exists => exists(node, keyword, sink),
        Kind::Regex => regex(value, modifiers, sink),
        Kind::Cidr => cidr(value, sink),
        Kind::FieldRef => field_ref(value, modifiers, keyword, sink),
        Kind::Compare(comparison) => read::number(node, "the value to compare with", sink).map(|number| Test::Compare(comparison, number)),
        Kind::Whole if !keyword && as_it_is(modifiers) => Some(whole(value, modifiers.cased)),
        Kind::Whole => written(value, modifiers, keyword, sink),
    }
}

/// Whether the value is not rewritten.
fn as_it_is(modifiers: &Modifiers) -> bool {
    modifiers.open == (false, false) && !modifiers.windash && modifiers.encodings.is_empty()
}

fn null(value: &Text, modifiers: &Modifiers, keyword: bool, sink: &mut Sink) -> Option<Test> {
    if keyword || modifiers.kind != Kind::Whole || modifiers.part.is_some() || !as_it_is(modifiers) {
        let what = if keyword { "a keyword cannot be null" } else { "null cannot be modified" };
        sink.error(value.place, what, "write a value, or `''` for empty text");
        return None;
    }
    Some(Test::Null)
}

fn exists(node: &Node, keyword: bool, sink: &mut Sink) -> Option<Test> {
    if keyword {
        sink.error(node.place(), "`exists` needs a field", "write the field in front of it");
        return None;
    }
    read::boolean(node, "the value of `exists`", sink).map(Test::Exists)
}

fn time_part(node: &Node, part: TimePart, modifiers: &Modifiers, keyword: bool, sink: &mut Sink) -> Option<Test> {
    if keyword {
        sink.error(node.place(), "a part of a time needs a field", "write the field in front of it, such as `timestamp`");
        return None;
    }
    let comparison = match modifiers.kind {
        Kind::Compare(comparison) => comparison,
        _ => Comparison::Eq,
    };
    read::number(node, "the value to compare with", sink).map(|number| Test::Part(part, comparison, number))
}

fn regex(value: &Text, modifiers: &Modifiers, sink: &mut Sink) -> Option<Test> {
    let bound = match modifiers.open {
        // Without any it is found anywhere as well.
        (false, false) | (true, true) => value.text.to_string(),
        (false, true) => format!("\\A(?:{})", value.text),
        (true, false) => format!("(?:{})\\z", value.text),
    };
    let source = if modifiers.flags.is_empty() { bound } else { format!("(?{}){bound}", modifiers.flags) };
    match Pattern::new(&source) {
        Ok(pattern) => Some(Test::Regex(pattern)),
        Err(regex::Error::CompiledTooBig(_)) => {
            let message = format!("this regular expression needs more than {} KiB", Pattern::MAX_BYTES >> 10);
            sink.error(value.place, message, "use smaller repetitions");
            None
        }
        Err(error) => {
            // The crate draws the place in lines of its own; its last line says what is wrong.
            let said = error.to_string();
            let reason = said.lines().last().unwrap_or("").trim_start_matches("error: ").to_owned();
            sink.error(value.place, format!("not a regular expression: {reason}"), "escape the character, or write it without look-around and back-references");
            None
        }
    }
}

fn cidr(value: &Text, sink: &mut Sink) -> Option<Test> {
    let net = IpNet::from_str(&value.text).ok().or_else(|| IpAddr::from_str(&value.text).ok().map(IpNet::from));
    if net.is_none() {
        sink.error(value.place, format!("`{}` is not a network", value.text), "write one such as `192.168.0.0/16` or `fd00::/8`");
    }
    net.map(Test::Cidr)
}

fn field_ref(value: &Text, modifiers: &Modifiers, keyword: bool, sink: &mut Sink) -> Option<Test> {
    if keyword {
        sink.error(value.place, "`fieldref` needs a field", "write the field in front of it");
        return None;
    }
    Some(Test::FieldRef { field: Arc::clone(&value.text), cased: modifiers.cased, open: modifiers.open })
}

fn whole(value: &Text, cased: bool) -> Test {
    if let Some(number) = read::canonical_number(value) {
        return Test::Number(number);
    }
    match value.boolean() {
        Some(boolean) => Test::Bool(boolean),
        None => Test::Text { pattern: text::pieces(&value.text), cased },
    }
}

/// A text in all its writings.
fn written(value: &Text, modifiers: &Modifiers, keyword: bool, sink: &mut Sink) -> Option<Test> {
    let mut pieces = text::pieces(&value.text);
    if modifiers.windash {
        pieces = text::windash(pieces);
    }
    let mut writings = match text::encode(pieces, &modifiers.encodings) {
        Ok(writings) => writings,
        Err(error) => {
            sink.error(value.place, error.to_string(), error.help());
            return None;
        }
    };
    let ends = if keyword && modifiers.open == (false, false) { (true, true) } else { modifiers.open };
    writings.iter_mut().for_each(|pattern| open(pattern, ends));
    let mut tests: Vec<Test> = writings.into_iter().map(|pattern| Test::Text { pattern, cased: modifiers.cased }).collect();
    if tests.len() == 1 { tests.pop() } else { Some(Test::AnyOf(tests)) }
}

/// Puts `*` before and behind a pattern.
fn open(pattern: &mut Vec<Piece>, (before, behind): (bool, bool)) {
    if before && pattern.first() != Some(&Piece::Any) {
        pattern.insert(0, Piece::Any);
    }
    if behind && pattern.last() != Some(&Piece::Any) {
        pattern.push(Piece::Any);
    }
}
