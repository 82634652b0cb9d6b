//! The closed table `correlation:` (Sigma correlation rules v2.1.0).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Comparison, Correlation, CorrelationType};
use super::read::{self, Sink};
use super::yaml::{Map, Node};
use crate::diag::Place;
use crate::model::Span;

const KEYS: &[&str] = &["type", "rules", "group-by", "timespan", "condition", "aliases", "generate"];
const EVALUATED: &[(&str, CorrelationType)] = &[("event_count", CorrelationType::EventCount), ("temporal_ordered", CorrelationType::TemporalOrdered)];
const TYPES: &[&str] = &["event_count", "temporal_ordered", "temporal", "value_count", "value_sum", "value_avg", "value_percentile", "value_median", "missing"];
const COMPARISONS: &[(&str, Comparison)] =
    &[("gt", Comparison::Gt), ("gte", Comparison::Gte), ("lt", Comparison::Lt), ("lte", Comparison::Lte), ("eq", Comparison::Eq), ("neq", Comparison::Neq)];

/// A correlation and its own `generate`.
pub(super) fn parse(node: &Node, sink: &mut Sink) -> Option<(Correlation, Option<bool>)> {
    let table = read::map(node, "`correlation`", sink)?;
    sink.closed(table, KEYS);
    let generate = table.get("generate").and_then(|node| read::boolean(node, "`generate`", sink));
    let kind = kind(table, sink);
    let rules = rules(table, sink);
    let timespan = timespan(table, sink);
    let condition = condition(table, kind, sink);
    let correlation = Correlation {
        group_by: table.get("group-by").map(|node| fields(node, sink)).unwrap_or_default(),
        aliases: table.get("aliases").map(|node| aliases(node, &rules, sink)).unwrap_or_default(),
        kind: kind?,
        timespan: timespan?,
        condition: condition?,
        field: Vec::new(),
        rules,
    };
    Some((correlation, generate))
}

fn missing(table: &Map, key: &str, help: &str, sink: &mut Sink) {
    sink.error(table.place, format!("the correlation has no `{key}`"), help);
}

fn kind(table: &Map, sink: &mut Sink) -> Option<CorrelationType> {
    let Some(node) = table.get("type") else {
        missing(table, "type", "add one, such as `type: event_count`", sink);
        return None;
    };
    let text = read::text(node, "`type`", sink)?;
    let found = EVALUATED.iter().find(|(name, _)| **name == *text.text).map(|(_, kind)| *kind);
    if found.is_none() && TYPES.contains(&&*text.text) {
        let known = EVALUATED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" and ");
        sink.error(text.place, format!("type `{}` is not evaluated by this version", text.text), format!("it evaluates {known}"));
    } else if found.is_none() {
        sink.unknown_word(text.place, "correlation type", &text.text, TYPES);
    }
    found
}

fn rules(table: &Map, sink: &mut Sink) -> Vec<(Arc<str>, Place)> {
    let named: Vec<_> = match table.get("rules") {
        Some(node) => read::texts(node, "`rules`", sink).into_iter().map(|t| (Arc::clone(&t.text), t.place)).collect(),
        None => Vec::new(),
    };
    if named.is_empty() {
        missing(table, "rules", "list the ids or names of the rules that it correlates", sink);
    }
    named
}

fn timespan(table: &Map, sink: &mut Sink) -> Option<Span> {
    match table.get("timespan") {
        Some(node) => read::span(node, "`timespan`", sink),
        None => {
            missing(table, "timespan", "add one, such as `timespan: 10m`", sink);
            None
        }
    }
}

fn fields(node: &Node, sink: &mut Sink) -> Vec<Arc<str>> {
    read::texts(node, "`group-by`", sink).into_iter().map(|t| Arc::clone(&t.text)).collect()
}

fn condition(table: &Map, kind: Option<CorrelationType>, sink: &mut Sink) -> Option<Vec<(Comparison, f64)>> {
    match table.get("condition") {
        Some(node) => comparisons(node, sink),
        None if kind == Some(CorrelationType::EventCount) => {
            missing(table, "condition", "add one, such as `condition: {gte: 5}`", sink);
            None
        }
        None => Some(Vec::new()),
    }
}

fn comparisons(node: &Node, sink: &mut Sink) -> Option<Vec<(Comparison, f64)>> {
    let table = read::map(node, "the correlation's `condition`", sink)?;
    let before = sink.found.len();
    let mut known: Vec<&str> = COMPARISONS.iter().map(|(name, _)| *name).collect();
    known.push("field");
    sink.closed(table, &known);
    if let Some(key) = table.key("field") {
        sink.error(key.place, "`field` belongs to the value_* types, which this version does not evaluate", "leave it away");
    }
    let mut found = Vec::new();
    for (key, value) in &table.entries {
        if let Some((name, comparison)) = COMPARISONS.iter().find(|(name, _)| **name == *key.text) {
            found.push((*comparison, read::number(value, &format!("`{name}`"), sink)?));
        }
    }
    if found.is_empty() && sink.found.len() == before {
        sink.error(table.place, "the correlation's `condition` compares nothing", "add a comparison, such as `gte: 5`");
    }
    (!found.is_empty()).then_some(found)
}

fn aliases(node: &Node, rules: &[(Arc<str>, Place)], sink: &mut Sink) -> BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<str>>> {
    let Some(table) = read::map(node, "`aliases`", sink) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for (alias, node) in &table.entries {
        let Some(by_rule) = read::map(node, &format!("the alias `{}`", alias.text), sink) else { continue };
        let mut fields = BTreeMap::new();
        for (rule, field) in &by_rule.entries {
            if !rules.iter().any(|(named, _)| *named == rule.text) {
                let message = format!("the alias `{}` is for `{}`, which is not one of this correlation's `rules`", alias.text, rule.text);
                sink.error(rule.place, message, "write the rule as it stands in `rules`");
            } else if let Some(field) = read::text(field, &format!("the alias `{}`", alias.text), sink) {
                fields.insert(Arc::clone(&rule.text), Arc::clone(&field.text));
            }
        }
        found.insert(Arc::clone(&alias.text), fields);
    }
    found
}
