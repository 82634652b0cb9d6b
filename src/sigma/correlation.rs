//! The closed table `correlation:` (Sigma correlation rules v2.1.0).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Comparison, Condition, Correlation, CorrelationType};
use super::condition;
use super::read::{self, Sink};
use super::yaml::{Map, Node};
use crate::diag::Place;
use crate::model::Span;

const KEYS: &[&str] = &["type", "rules", "group-by", "timespan", "condition", "aliases", "generate"];
const TYPES: &[(&str, CorrelationType)] = &[
    ("event_count", CorrelationType::EventCount),
    ("value_count", CorrelationType::ValueCount),
    ("value_sum", CorrelationType::ValueSum),
    ("value_avg", CorrelationType::ValueAvg),
    ("value_percentile", CorrelationType::ValuePercentile),
    ("value_median", CorrelationType::ValuePercentile),
    ("temporal", CorrelationType::Temporal),
    ("temporal_ordered", CorrelationType::TemporalOrdered),
    ("missing", CorrelationType::Missing),
    ("new_value", CorrelationType::NewValue),
];
const MEDIAN: &str = "value_median";
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
    let condition = kind.and_then(|(name, kind)| condition(table, name, kind, &rules, sink));
    let group_by = table.get("group-by").map(|node| fields(node, "`group-by`", sink)).unwrap_or_default();
    let aliases = table.get("aliases").map(|node| aliases(node, &rules, sink)).unwrap_or_default();
    let Conditions { comparisons, expression, field, percentile } = condition?;
    let correlation = Correlation { kind: kind?.1, rules, group_by, timespan: timespan?, condition: comparisons, expression, field, percentile, aliases };
    Some((correlation, generate))
}

fn missing(table: &Map, key: &str, help: &str, sink: &mut Sink) {
    sink.error(table.place, format!("the correlation has no `{key}`"), help);
}

fn kind(table: &Map, sink: &mut Sink) -> Option<(&'static str, CorrelationType)> {
    let Some(node) = table.get("type") else {
        missing(table, "type", "add one, such as `type: event_count`", sink);
        return None;
    };
    let text = read::text(node, "`type`", sink)?;
    let found = TYPES.iter().find(|(name, _)| **name == *text.text).copied();
    if found.is_none() {
        let known: Vec<&str> = TYPES.iter().map(|(name, _)| *name).collect();
        sink.unknown_word(text.place, "correlation type", &text.text, &known);
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

fn fields(node: &Node, what: &str, sink: &mut Sink) -> Vec<Arc<str>> {
    read::texts(node, what, sink).into_iter().map(|t| Arc::clone(&t.text)).collect()
}

/// What `condition` says.
#[derive(Default)]
struct Conditions {
    comparisons: Vec<(Comparison, f64)>,
    expression: Option<Condition>,
    field: Vec<Arc<str>>,
    percentile: Option<f64>,
}

fn condition(table: &Map, name: &str, kind: CorrelationType, rules: &[(Arc<str>, Place)], sink: &mut Sink) -> Option<Conditions> {
    match (table.get("condition"), kind) {
        (Some(node), CorrelationType::Missing) => {
            sink.error(node.place(), "`missing` takes no condition", "leave it away: it fires when nothing has matched for the timespan");
            None
        }
        (Some(node), CorrelationType::NewValue) => {
            let table = read::map(node, "the correlation's `condition`", sink)?;
            sink.closed(table, &["field"]);
            let field = field(table, name, kind, sink);
            (!field.is_empty()).then(|| Conditions { field, ..Conditions::default() })
        }
        (Some(Node::Text(text)), CorrelationType::Temporal) => {
            let names: Vec<Arc<str>> = rules.iter().map(|(name, _)| Arc::clone(name)).collect();
            let expression = condition::parse(text, "rule", &names, sink)?;
            if opened(&expression, false) {
                return Some(Conditions { expression: Some(expression), ..Conditions::default() });
            }
            sink.error(text.place, "nothing opens the window of this condition: every rule in it stands under `not`", "name a rule without `not`");
            None
        }
        (Some(node), _) => comparisons(node, name, kind, sink),
        (None, CorrelationType::Temporal | CorrelationType::TemporalOrdered | CorrelationType::Missing) => Some(Conditions::default()),
        (None, _) => {
            let example = match kind {
                CorrelationType::NewValue => "add one, such as `condition: {field: mac}`",
                _ if kind.has_field() => "add one, such as `condition: {field: user, gte: 5}`",
                _ => "add one, such as `condition: {gte: 5}`",
            };
            missing(table, "condition", example, sink);
            None
        }
    }
}

/// Whether a rule of the condition stands un-negated (C5).
fn opened(condition: &Condition, negated: bool) -> bool {
    match condition {
        Condition::Search(_) => !negated,
        Condition::And(parts) | Condition::Or(parts) => parts.iter().any(|part| opened(part, negated)),
        Condition::Not(inner) => opened(inner, !negated),
    }
}

fn comparisons(node: &Node, name: &str, kind: CorrelationType, sink: &mut Sink) -> Option<Conditions> {
    let table = read::map(node, "the correlation's `condition`", sink)?;
    let before = sink.found.len();
    let mut known: Vec<&str> = COMPARISONS.iter().map(|(name, _)| *name).collect();
    known.extend(["field", "percentile"]);
    sink.closed(table, &known);
    let field = field(table, name, kind, sink);
    let percentile = percentile(table, name, sink);
    let mut found = Vec::new();
    for (key, value) in &table.entries {
        if let Some((name, comparison)) = COMPARISONS.iter().find(|(name, _)| **name == *key.text) {
            found.push((*comparison, read::number(value, &format!("`{name}`"), sink)?));
        }
    }
    if found.is_empty() && sink.found.len() == before {
        sink.error(table.place, "the correlation's `condition` compares nothing", "add a comparison, such as `gte: 5`");
    }
    (!found.is_empty()).then_some(Conditions { comparisons: found, expression: None, field, percentile })
}

fn field(table: &Map, name: &str, kind: CorrelationType, sink: &mut Sink) -> Vec<Arc<str>> {
    let found = table.get("field").map(|node| fields(node, "`field`", sink)).unwrap_or_default();
    match (table.key("field"), kind.has_field()) {
        (Some(key), false) => sink.error(key.place, format!("`{name}` compares no field's values"), "leave `field` away, or take a value_* type"),
        (_, true) if found.is_empty() => sink.error(table.place, format!("the condition of `{name}` has no `field`"), "name the field whose values it takes"),
        (Some(key), true) if found.len() > 1 && !matches!(kind, CorrelationType::ValueCount | CorrelationType::NewValue) => {
            sink.error(key.place, format!("`{name}` takes the values of one field"), "name one field");
        }
        _ => {}
    }
    found
}

fn percentile(table: &Map, name: &str, sink: &mut Sink) -> Option<f64> {
    let Some(node) = table.get("percentile") else { return (name == MEDIAN).then_some(50.0) };
    if name != "value_percentile" {
        let help = "leave it away, or take `value_percentile`";
        sink.error(table.key("percentile").map_or(table.place, |key| key.place), format!("`{name}` has no percentile to choose"), help);
        return None;
    }
    let found = read::number(node, "`percentile`", sink)?;
    if !(0.0..=100.0).contains(&found) {
        sink.error(node.place(), format!("`percentile`: {found} is not from 0 to 100"), "write a number such as `95`");
    }
    Some(found)
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
