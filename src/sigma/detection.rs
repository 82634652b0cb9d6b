//! The section `detection:` (and what is like it in `filter:`): searches and their condition.

use std::sync::Arc;

use super::ast::{Condition, Item, Search};
use super::condition;
use super::read::{self, Sink};
use super::value;
use super::yaml::{Map, Node, Text};
use super::{modifier, modifier::Modifiers};
use crate::diag;

/// Searches in the order of the file, and the condition over them.
pub(super) struct Section {
    pub searches: Vec<(Arc<str>, Search)>,
    pub condition: Condition,
}

/// Reads a section; `not_searches` are its keys that are no searches besides `condition`.
pub(super) fn parse(table: &Map, not_searches: &[&str], sink: &mut Sink) -> Option<Section> {
    let before = sink.found.len();
    let mut searches = Vec::new();
    for (key, node) in table.entries.iter().filter(|(key, _)| *key.text != *"condition" && !not_searches.contains(&&*key.text)) {
        if is_reserved(key, sink) {
            continue;
        }
        if let Some(search) = search(node, sink) {
            searches.push((Arc::clone(&key.text), search));
        }
    }
    if sink.found.len() > before {
        // A condition over searches that are wrong would only add what follows from that.
        return None;
    }
    let condition = conditions(table, &searches, sink)?;
    Some(Section { searches, condition })
}

fn is_reserved(key: &Text, sink: &mut Sink) -> bool {
    let word = condition::RESERVED.iter().find(|word| key.text.eq_ignore_ascii_case(word));
    if word.is_some() {
        sink.error(key.place, format!("a search cannot be called `{}`, a word of the condition", key.text), "rename it");
    } else if *key.text == *"timeframe" {
        sink.error(key.place, "`timeframe` belonged to aggregations, which Sigma has given up", "write a correlation document with `timespan`");
    } else {
        return false;
    }
    true
}

fn conditions(table: &Map, searches: &[(Arc<str>, Search)], sink: &mut Sink) -> Option<Condition> {
    let Some(node) = table.get("condition") else {
        let near = diag::nearest("condition", searches.iter().map(|(name, _)| &**name));
        let help = near.map_or("add one, such as `condition: selection`".to_owned(), |name| format!("did you mean `condition` by `{name}`?"));
        sink.error(table.place, "there is no `condition`", help);
        return None;
    };
    let names: Vec<Arc<str>> = searches.iter().map(|(name, _)| Arc::clone(name)).collect();
    let texts = read::texts(node, "`condition`", sink);
    if texts.is_empty() {
        sink.error(node.place(), "the condition is empty", "write one, such as `condition: selection`");
    }
    let parsed: Vec<Condition> = texts.into_iter().filter_map(|text| condition::parse(text, "search", &names, sink)).collect();
    match <[Condition; 1]>::try_from(parsed) {
        Ok([only]) => Some(only),
        Err(many) if many.is_empty() => None,
        Err(many) => Some(Condition::Or(many)),
    }
}

/// One search.
pub(super) fn search(node: &Node, sink: &mut Sink) -> Option<Search> {
    match node {
        Node::Map(map) => of_map(map, sink),
        Node::List(place, members) => {
            let found = of_list(members, sink);
            if members.is_empty() {
                sink.error(*place, "this search is an empty list", "list keywords or maps in it");
            }
            match <[Search; 1]>::try_from(found) {
                Ok([only]) => Some(only),
                Err(many) => (!many.is_empty()).then_some(Search::Any(many)),
            }
        }
        Node::Text(text) if text.is_null() => {
            sink.error(text.place, "this search is empty", "write fields with values, or a list of keywords");
            None
        }
        Node::Text(_) => keywords(&[node], sink),
    }
}

/// Any of the maps and of the keywords.
fn of_list(members: &[Node], sink: &mut Sink) -> Vec<Search> {
    let mut found = Vec::new();
    let words: Vec<&Node> = members.iter().filter(|m| matches!(m, Node::Text(_))).collect();
    if !words.is_empty() {
        found.extend(keywords(&words, sink));
    }
    for member in members {
        match member {
            Node::Map(map) => found.extend(of_map(map, sink)),
            Node::List(place, _) => sink.error(*place, "a list inside a list of a search", "write its members into the outer list"),
            Node::Text(_) => {}
        }
    }
    found
}

fn keywords(words: &[&Node], sink: &mut Sink) -> Option<Search> {
    let place = words.first()?.place();
    let tests = value::tests(words, &Modifiers::default(), true, sink)?;
    Some(Search::Keywords(Item { field: Arc::from(""), tests, all: false, negated: false, place }))
}

fn of_map(map: &Map, sink: &mut Sink) -> Option<Search> {
    if map.entries.is_empty() {
        sink.error(map.place, "this search is an empty map", "write fields with values in it");
        return None;
    }
    let mut parts = Vec::with_capacity(map.entries.len());
    let mut words = Vec::new();
    for (key, node) in &map.entries {
        let Some(item) = item(key, node, sink) else { continue };
        if item.field.is_empty() { words.push(Search::Keywords(item)) } else { parts.push(item) }
    }
    match (parts.is_empty(), words.len()) {
        (_, 0) => Some(Search::All(parts)),
        (true, 1) => words.pop(),
        _ => {
            sink.error(map.place, "keywords and fields stand in one map", "give the keywords a search of their own");
            None
        }
    }
}

fn item(key: &Text, node: &Node, sink: &mut Sink) -> Option<Item> {
    let (field, modifiers) = modifier::parse(key, sink)?;
    let nodes: Vec<&Node> = match node {
        Node::List(_, members) => members.iter().collect(),
        one => vec![one],
    };
    if nodes.is_empty() {
        sink.error(node.place(), format!("`{}` has no values", key.text), "list at least one");
        return None;
    }
    let tests = value::tests(&nodes, &modifiers, field.is_empty(), sink)?;
    Some(Item { field: Arc::from(field), tests, all: modifiers.all, negated: modifiers.negated, place: key.place })
}
