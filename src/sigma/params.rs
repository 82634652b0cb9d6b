//! `opmas: {params: {threshold: 5}}`, used as `${threshold}` in the scalars of the same document.
//!
//! Only a document that has `params` is looked through: elsewhere `${…}` is text like any other, since rules look for it in logs.
//! `$${name}` stands for the text `${name}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::read::{self, Sink};
use super::yaml::{MAX_TEXT, Map, Node, Style, Text};

type Params = BTreeMap<Arc<str>, Text>;

/// Puts the parameters' values in their places. What is wrong goes to the sink.
pub(super) fn substitute(root: &mut Map, sink: &mut Sink) {
    let Some(params) = declared(root, sink) else { return };
    let mut room = MAX_TEXT;
    for (key, node) in &mut root.entries {
        match node {
            Node::Map(opmas) if &*key.text == "opmas" => {
                let others = opmas.entries.iter_mut().filter(|(key, _)| &*key.text != "params");
                others.for_each(|(_, node)| within(node, &params, &mut room, sink));
            }
            node => within(node, &params, &mut room, sink),
        }
    }
}

fn declared(root: &Map, sink: &mut Sink) -> Option<Params> {
    let Some(Node::Map(opmas)) = root.get("opmas") else { return None };
    let table = read::map(opmas.get("params")?, "`params`", sink)?;
    let mut params = Params::new();
    for (key, node) in &table.entries {
        if !is_name(&key.text) {
            sink.error(key.place, format!("`{}` cannot be the name of a parameter", key.text), "use letters, digits and `_`");
        } else if let Some(text) = read::text(node, &format!("the parameter `{}`", key.text), sink) {
            params.insert(Arc::clone(&key.text), text.clone());
        }
    }
    Some(params)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn within(node: &mut Node, params: &Params, room: &mut usize, sink: &mut Sink) {
    match node {
        Node::Text(text) => in_text(text, params, room, sink),
        Node::List(_, items) => items.iter_mut().for_each(|item| within(item, params, room, sink)),
        Node::Map(map) => map.entries.iter_mut().for_each(|(_, value)| within(value, params, room, sink)),
    }
}

fn in_text(text: &mut Text, params: &Params, room: &mut usize, sink: &mut Sink) {
    if !text.text.contains("${") {
        return;
    }
    if let Some(whole) = text.text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).and_then(|name| params.get(name)) {
        // The whole scalar: a plain parameter stays a number or a boolean.
        text.text = Arc::clone(&whole.text);
        text.style = if text.style == Style::Plain { whole.style } else { text.style };
    } else {
        text.text = fill(text, params, *room, sink).into();
    }
    text.one_line = false;
    if text.text.len() > *room {
        sink.error(text.place, "the parameters make this document too large", "use shorter parameters");
        text.text = Arc::from("");
    }
    *room = room.saturating_sub(text.text.len());
}

fn fill(text: &Text, params: &Params, room: usize, sink: &mut Sink) -> String {
    let mut out = String::new();
    let mut rest: &str = &text.text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}').filter(|(name, _)| is_name(name)) else {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        };
        if let Some(escaped) = before.strip_suffix('$') {
            out.extend([escaped, "${", name, "}"]);
        } else {
            out.push_str(before);
            match params.get(name) {
                Some(value) => out.push_str(&value.text),
                None => {
                    let known: Vec<&str> = params.keys().map(|k| &**k).collect();
                    sink.unknown_word(text.place, "parameter", name, &known);
                }
            }
        }
        rest = behind;
        if out.len() > room {
            return out;
        }
    }
    out.push_str(rest);
    out
}
