//! Our attributes: the closed table `opmas:`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Opmas, Refire};
use super::read::{self, Sink};
use super::yaml::{Map, Node};
use crate::model::Span;

const KEYS: &[&str] = &["entities", "refire", "cooldown", "min_events", "lateness", "warmup", "params", "remediation"];
const REFIRES: &[(&str, Refire)] = &[("edge", Refire::Edge), ("every", Refire::Every), ("reset", Refire::Reset)];

/// Reads the `opmas:` table of a document, when it has one.
pub(super) fn parse(document: &Map, sink: &mut Sink) -> Opmas {
    let Some(table) = document.get("opmas").and_then(|node| read::map(node, "`opmas`", sink)) else { return Opmas::default() };
    sink.closed(table, KEYS);
    Opmas {
        entities: table.get("entities").map(|node| entities(node, sink)).unwrap_or_default(),
        refire: table.get("refire").and_then(|node| refire(node, sink)),
        cooldown: table.get("cooldown").and_then(|node| read::span(node, "`cooldown`", sink)),
        min_events: table.get("min_events").and_then(|node| min_events(node, sink)),
        lateness: table.get("lateness").and_then(|node| read::span_from(Span::ZERO, node, "`lateness`", sink)),
        warmup: table.get("warmup").and_then(|node| read::span(node, "`warmup`", sink)),
        remediation: read::optional_text(table, "remediation", sink),
    }
}

fn entities(node: &Node, sink: &mut Sink) -> BTreeMap<Arc<str>, Arc<str>> {
    let Some(table) = read::map(node, "`entities`", sink) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for (role, field) in &table.entries {
        if let Some(field) = read::text(field, &format!("the entity `{}`", role.text), sink) {
            found.insert(Arc::clone(&role.text), Arc::clone(&field.text));
        }
    }
    found
}

fn refire(node: &Node, sink: &mut Sink) -> Option<Refire> {
    let text = read::text(node, "`refire`", sink)?;
    let found = REFIRES.iter().find(|(name, _)| **name == *text.text).map(|(_, refire)| *refire);
    if found.is_none() {
        let known: Vec<&str> = REFIRES.iter().map(|(name, _)| *name).collect();
        sink.unknown_word(text.place, "refire", &text.text, &known);
    }
    found
}

fn min_events(node: &Node, sink: &mut Sink) -> Option<u64> {
    let text = read::text(node, "`min_events`", sink)?;
    let found = text.text.parse().ok().filter(|n| *n >= 1);
    if found.is_none() {
        sink.error(text.place, format!("`min_events`: `{}` is not a whole number above zero", text.text), "write a number such as `5`");
    }
    found
}
