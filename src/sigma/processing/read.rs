//! A pipeline file to its steps. Closed tables all the way: what opmas does not do is an error with the nearest thing that it does.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::fill::Fill;
use super::{Change, Conditions, Mapping, OfField, OfItem, OfRule, Step};
use crate::diag::{Place, SourceFile};
use crate::model::LogSource;
use crate::sigma::ast::{Pattern, Test};
use crate::sigma::modifier::Modifiers;
use crate::sigma::read::{self, Sink};
use crate::sigma::yaml::{self, Map, Node};
use crate::sigma::{detection, value};

/// One file.
pub(super) struct Pipeline {
    pub priority: f64,
    pub vars: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    pub steps: Vec<Step>,
    pub fills: Vec<Fill>,
}

const KEYS: &[&str] = &["name", "priority", "vars", "transformations", "allowed_backends"];
/// What pySigma does to the queries that it makes; opmas makes none.
const OF_QUERIES: &[&str] = &["postprocessing", "finalizers"];
/// Of every transformation.
const COMMON: &[&str] = &[
    "id",
    "type",
    "rule_conditions",
    "rule_cond_op",
    "rule_cond_not",
    "detection_item_conditions",
    "detection_item_cond_op",
    "detection_item_cond_not",
    "field_name_conditions",
    "field_name_cond_op",
    "field_name_cond_not",
];
/// Each with its own keys.
const TRANSFORMATIONS: &[(&str, &[&str])] = &[
    ("field_name_mapping", &["mapping"]),
    ("field_name_prefix_mapping", &["mapping"]),
    ("field_name_prefix", &["prefix"]),
    ("field_name_suffix", &["suffix"]),
    ("drop_detection_item", &[]),
    ("change_logsource", SOURCE),
    ("add_condition", &["conditions", "name", "negated"]),
    ("value_placeholders", &["include", "exclude"]),
    ("wildcard_placeholders", &["include", "exclude"]),
];
const SOURCE: &[&str] = &["category", "product", "service"];
const OF_RULE: &[(&str, &[&str])] = &[
    ("logsource", SOURCE),
    ("contains_field", &["field"]),
    ("contains_detection_item", &["field", "value"]),
    ("tag", &["tag"]),
    ("is_sigma_rule", &[]),
    ("is_sigma_correlation_rule", &[]),
    ("processing_item_applied", &["processing_item_id"]),
];
const OF_ITEM: &[(&str, &[&str])] =
    &[("match_string", &["pattern", "cond", "negate"]), ("is_null", &["cond"]), ("processing_item_applied", &["processing_item_id"])];
const OF_FIELD: &[(&str, &[&str])] =
    &[("include_fields", &["fields", "mode"]), ("exclude_fields", &["fields", "mode"]), ("processing_item_applied", &["processing_item_id"])];

/// Reads a pipeline. `None` when the sink was told what is wrong.
pub(super) fn parse(source: &SourceFile, sink: &mut Sink) -> Option<Pipeline> {
    let mut documents = match yaml::parse(source.text.strip_prefix('\u{feff}').unwrap_or(&source.text)) {
        Ok(documents) => documents,
        Err(error) => {
            sink.error(error.place(), error.to_string(), error.help());
            return None;
        }
    };
    let Some(document) = documents.pop().filter(|_| documents.is_empty()) else {
        sink.error(Place::default(), "a pipeline is one YAML document", "keep one in a file");
        return None;
    };
    let root = read::map(&document.root, "a pipeline", sink)?;
    for key in OF_QUERIES.iter().filter_map(|word| root.key(word)) {
        sink.error(key.place, format!("`{}` changes queries, and opmas makes none", key.text), "leave it away");
    }
    sink.closed(root, &[KEYS, OF_QUERIES].concat());
    let mut pipeline = Pipeline { priority: 0.0, vars: BTreeMap::new(), steps: Vec::new(), fills: Vec::new() };
    pipeline.priority = root.get("priority").and_then(|node| read::number(node, "`priority`", sink)).unwrap_or_default();
    if let Some(vars) = root.get("vars").and_then(|node| read::map(node, "`vars`", sink)) {
        pipeline.vars = vars.entries.iter().map(|(name, node)| (Arc::clone(&name.text), names(node, &format!("`{}`", name.text), sink))).collect();
    }
    match root.get("transformations") {
        Some(Node::List(_, members)) => members.iter().for_each(|member| transformation(member, &mut pipeline, sink)),
        Some(node) => sink.error(node.place(), format!("`transformations` must be a list, but is {}", node.kind()), "write `- type: …` lines below it"),
        None if pipeline.vars.is_empty() => sink.error(root.place, "the pipeline has neither `transformations` nor `vars`", "add one of them"),
        None => {}
    }
    Some(pipeline)
}

fn transformation(node: &Node, pipeline: &mut Pipeline, sink: &mut Sink) {
    let Some((table, kind)) = typed(node, "transformation", TRANSFORMATIONS, COMMON, sink) else { return };
    if kind.ends_with("_placeholders") {
        for key in table.entries.iter().map(|(key, _)| key).filter(|key| key.text.contains("_cond")) {
            sink.error(key.place, format!("`{kind}` fills the placeholders of every rule"), "leave its conditions away");
        }
        let mut list = |key| table.get(key).map(|node| names(node, &format!("`{key}`"), sink));
        let (include, exclude) = (list("include"), list("exclude"));
        pipeline.fills.push(Fill { wildcard: kind == "wildcard_placeholders", include, exclude });
        return;
    }
    let rules = conditions(table, "rule", OF_RULE, of_rule, sink);
    let items = conditions(table, "detection_item", OF_ITEM, of_item, sink);
    let fields = conditions(table, "field_name", OF_FIELD, of_field, sink);
    let id = read::optional_text(table, "id", sink);
    if let Some(change) = change(table, kind, sink) {
        pipeline.steps.push(Step { id, rules, items, fields, change });
    }
}

/// A map whose `type` says which keys it may have.
fn typed<'a>(node: &'a Node, what: &str, types: &[(&'static str, &[&str])], common: &[&str], sink: &mut Sink) -> Option<(&'a Map, &'static str)> {
    let table = read::map(node, &format!("a {what}"), sink)?;
    let Some(kind) = table.get("type") else {
        sink.error(table.place, format!("this {what} has no `type`"), "add one");
        return None;
    };
    let kind = read::text(kind, "`type`", sink)?;
    let Some((name, keys)) = types.iter().find(|(name, _)| **name == *kind.text) else {
        sink.unknown_word(kind.place, what, &kind.text, &types.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        return None;
    };
    sink.closed(table, &[common, keys, &["type"]].concat());
    Some((table, name))
}

fn conditions<C>(table: &Map, of: &str, types: &[(&'static str, &[&str])], read: fn(&Map, &str, &mut Sink) -> Option<C>, sink: &mut Sink) -> Conditions<C> {
    let listed: Vec<&Node> = match table.get(&format!("{of}_conditions")) {
        Some(Node::List(_, members)) => members.iter().collect(),
        Some(Node::Map(map)) => map.entries.iter().map(|(_, node)| node).collect(),
        Some(other) => {
            sink.error(other.place(), format!("`{of}_conditions` must be a list, but is {}", other.kind()), "write `- type: …` lines below it");
            Vec::new()
        }
        None => Vec::new(),
    };
    let mut found = Vec::new();
    for node in listed {
        found.extend(typed(node, "condition", types, &[], sink).and_then(|(table, kind)| read(table, kind, sink)));
    }
    let any = word(table, &format!("{of}_cond_op"), &["and", "or"], sink) == Some(1);
    let not = table.get(&format!("{of}_cond_not")).and_then(|node| read::boolean(node, "a condition's `not`", sink)).unwrap_or_default();
    Conditions { of: found, any, not }
}

/// Which of the words stands there; the first when the key is not there.
fn word(table: &Map, key: &str, words: &[&str], sink: &mut Sink) -> Option<usize> {
    let Some(node) = table.get(key) else { return Some(0) };
    let text = read::text(node, &format!("`{key}`"), sink)?;
    let found = words.iter().position(|word| **word == *text.text);
    if found.is_none() {
        sink.unknown_word(text.place, key, &text.text, words);
    }
    found
}

fn of_rule(table: &Map, kind: &str, sink: &mut Sink) -> Option<OfRule> {
    Some(match kind {
        "logsource" => OfRule::LogSource(source(table, sink)),
        "contains_field" => OfRule::HasField(needed(table, "field", sink)?),
        "contains_detection_item" => OfRule::HasItem(needed(table, "field", sink)?, test(table, sink)?),
        "tag" => OfRule::Tag(needed(table, "tag", sink)?),
        "processing_item_applied" => OfRule::Applied(needed(table, "processing_item_id", sink)?),
        other => OfRule::IsCorrelation(other == "is_sigma_correlation_rule"),
    })
}

fn test(table: &Map, sink: &mut Sink) -> Option<Test> {
    let Some(node) = table.get("value") else {
        sink.error(table.place, "this condition has no `value`", "add one");
        return None;
    };
    value::tests(&[node], &Modifiers::default(), false, sink)?.pop()
}

fn of_item(table: &Map, kind: &str, sink: &mut Sink) -> Option<OfItem> {
    if kind == "processing_item_applied" {
        return needed(table, "processing_item_id", sink).map(OfItem::Applied);
    }
    needed(table, "cond", sink)?;
    let all = word(table, "cond", &["any", "all"], sink)? == 1;
    if kind == "is_null" {
        return Some(OfItem::Null { all });
    }
    let negated = table.get("negate").and_then(|node| read::boolean(node, "`negate`", sink)).unwrap_or_default();
    let pattern = pattern(&needed(table, "pattern", sink)?, table.get("pattern")?.place(), sink)?;
    Some(OfItem::Text { pattern, negated, all })
}

fn of_field(table: &Map, kind: &str, sink: &mut Sink) -> Option<OfField> {
    if kind == "processing_item_applied" {
        return needed(table, "processing_item_id", sink).map(OfField::Applied);
    }
    let excluded = kind == "exclude_fields";
    let Some(node) = table.get("fields") else {
        sink.error(table.place, "this condition has no `fields`", "list them");
        return None;
    };
    let named = names(node, "`fields`", sink);
    if word(table, "mode", &["plain", "re"], sink)? == 0 {
        return Some(OfField::Named(named, excluded));
    }
    let patterns: Option<Vec<Pattern>> = named.iter().map(|name| pattern(name, node.place(), sink)).collect();
    Some(OfField::Like(patterns?, excluded))
}

/// As pySigma's, from the beginning on.
fn pattern(text: &str, place: Place, sink: &mut Sink) -> Option<Pattern> {
    let found = Pattern::new(&format!("^(?:{text})"));
    if let Err(error) = &found {
        sink.error(
            place,
            format!("`{text}` is not a regular expression: {}", error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ")),
            "correct it",
        );
    }
    found.ok()
}

fn change(table: &Map, kind: &str, sink: &mut Sink) -> Option<Change> {
    Some(match kind {
        "field_name_mapping" => Change::Names(mapping(table, sink)?.into_iter().collect()),
        "field_name_prefix_mapping" => Change::Prefixes(mapping(table, sink)?),
        "field_name_prefix" => Change::Around { prefix: needed(table, "prefix", sink)?, suffix: "".into() },
        "field_name_suffix" => Change::Around { prefix: "".into(), suffix: needed(table, "suffix", sink)? },
        "change_logsource" => Change::LogSource(source(table, sink)),
        "add_condition" => {
            let negated = table.get("negated").and_then(|node| read::boolean(node, "`negated`", sink)).unwrap_or_default();
            let Some(node) = table.get("conditions") else {
                sink.error(table.place, "`add_condition` has no `conditions`", "write fields with values below it");
                return None;
            };
            read::map(node, "`conditions`", sink)?;
            Change::Add { search: detection::search(node, sink)?, negated }
        }
        _ => Change::Drop,
    })
}

fn mapping(table: &Map, sink: &mut Sink) -> Option<Mapping> {
    let Some(node) = table.get("mapping") else {
        sink.error(table.place, "this transformation has no `mapping`", "write `field: other` lines below it");
        return None;
    };
    let mut found = Vec::new();
    for (key, node) in &read::map(node, "`mapping`", sink)?.entries {
        if key.is_null() {
            sink.error(key.place, "keywords have no field that could be mapped", "leave this line away");
        }
        found.push((Arc::clone(&key.text), names(node, &format!("`{}`", key.text), sink)));
    }
    Some(found)
}

fn source(table: &Map, sink: &mut Sink) -> LogSource {
    let mut part = |name| read::optional_text(table, name, sink);
    LogSource { product: part("product"), category: part("category"), service: part("service") }
}

fn needed(table: &Map, key: &str, sink: &mut Sink) -> Option<Arc<str>> {
    let Some(node) = table.get(key) else {
        sink.error(table.place, format!("`{key}` is missing here"), "add it");
        return None;
    };
    read::text(node, &format!("`{key}`"), sink).map(|text| Arc::clone(&text.text))
}

/// One or several; at least one.
fn names(node: &Node, what: &str, sink: &mut Sink) -> Vec<Arc<str>> {
    let found: Vec<Arc<str>> = read::texts(node, what, sink).into_iter().map(|text| Arc::clone(&text.text)).collect();
    if found.is_empty() {
        sink.error(node.place(), format!("{what} is empty"), "write at least one value");
    }
    found
}
