//! `action: global`, `reset` and `repeat`: documents that share parts (Sigma collections), written out.

use std::collections::HashMap;
use std::sync::Arc;

use super::document::SECTIONS;
use super::read::Sink;
use super::yaml::{Document, MAX_NODES, Map, Node, YamlError};

/// What such a document may ask for.
const ACTIONS: &[&str] = &["global", "reset", "repeat"];

/// The documents as they stand for themselves. A document that a `global` one stands before is laid over it, map by map; `repeat` is laid over
/// the document before. What is wrong goes to the sink.
pub(super) fn written_out(documents: Vec<Document>, sink: &mut Sink) -> Vec<Document> {
    let mut nodes = 0;
    let mut shared: Option<Document> = None;
    let mut found: Vec<Document> = Vec::new();
    for mut document in documents {
        let made = match take_action(&mut document, sink) {
            Some("global") => {
                shared = Some(document);
                continue;
            }
            Some("reset") => {
                if matches!(&document.root, Node::Map(root) if is_rule(root)) {
                    sink.error(
                        document.root.place(),
                        "a document with `action: reset` is no rule, and this one holds one",
                        "put the rule in a document behind it",
                    );
                }
                shared = None;
                continue;
            }
            Some(_) => match found.last() {
                Some(before) => laid_over(before, document),
                None => {
                    sink.error(document.root.place(), "`action: repeat` stands before any document that it could repeat", "put it behind one");
                    continue;
                }
            },
            None => match &shared {
                Some(shared) => laid_over(shared, document),
                None => document,
            },
        };
        nodes += made.root.nodes();
        if nodes > MAX_NODES {
            let error = YamlError::TooLarge(made.root.place());
            sink.error(error.place(), error.to_string(), error.help());
            return Vec::new();
        }
        found.push(made);
    }
    found
}

/// Takes the action out of a document that has one. Elsewhere `action` is a key like any other: the top level is open.
fn take_action(document: &mut Document, sink: &mut Sink) -> Option<&'static str> {
    let Node::Map(root) = &mut document.root else { return None };
    let Some(Node::Text(text)) = root.get("action") else { return None };
    let Some(action) = ACTIONS.iter().find(|action| ***action == *text.text) else {
        if !is_rule(root) {
            sink.unknown_word(text.place, "action", &text.text.clone(), ACTIONS);
        }
        return None;
    };
    root.entries.retain(|(key, _)| &*key.text != "action");
    Some(action)
}

fn is_rule(root: &Map) -> bool {
    SECTIONS.iter().any(|key| root.get(key).is_some())
}

fn laid_over(below: &Document, above: Document) -> Document {
    let mut lines = below.shared.clone();
    lines.push(below.lines.clone());
    let root = match (&below.root, above.root) {
        (Node::Map(below), Node::Map(above)) => Node::Map(merged(below, above)),
        (_, above) => above,
    };
    Document { root, lines: above.lines, shared: lines }
}

/// The keys of both; maps of one key are merged, of anything else that above counts. Depth is bounded by the reader's.
fn merged(below: &Map, above: Map) -> Map {
    let mut map = Map { place: above.place, entries: below.entries.clone() };
    let places: HashMap<Arc<str>, usize> = below.entries.iter().enumerate().map(|(at, (key, _))| (Arc::clone(&key.text), at)).collect();
    for (key, node) in above.entries {
        match places.get(&key.text).and_then(|at| map.entries.get_mut(*at)) {
            Some((_, own)) => {
                *own = match (&*own, node) {
                    (Node::Map(below), Node::Map(above)) => Node::Map(merged(below, above)),
                    (_, above) => above,
                };
            }
            None => map.entries.push((key, node)),
        }
    }
    map
}
