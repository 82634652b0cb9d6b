//! A firing as the finding that people and playbooks see (M1).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::fired::Fired;
use crate::entity::{colons, is_host_field, mac_digits};
use crate::model::{Entity, EntityKind, Evidence, Finding, FindingKind, RuleRef, Severity, Window};
use crate::sigma::{Body, Correlation, CorrelationType, Rule, RuleSet};

/// The severity of a rule that names no level.
pub const DEFAULT_SEVERITY: Severity = Severity::Low;
/// Bytes of a line that a detection's text quotes.
const QUOTED: usize = 200;
/// Bytes of a value in a text.
const SHOWN: usize = 80;
/// Bytes of a line in the evidence: the spool has it whole, and a finding has to fit into a ledger record and a message.
const MAX_RAW: usize = 4_096;
/// Bytes of a group's or an entity's value in a finding; its identity was made from the whole.
const MAX_VALUE: usize = 1_024;

/// The finding that a firing is; `None` when the firing is not of this set of rules.
#[must_use]
pub fn finding(fired: &Fired, set: &RuleSet) -> Option<Finding> {
    let rule = set.rules.get(fired.rule)?;
    let severity = rule.level.unwrap_or(DEFAULT_SEVERITY);
    let text_field = |name: &str| fired.field(name).and_then(Value::as_str).map(Arc::from);
    Some(Finding {
        id: fired.id(),
        time: fired.place.time,
        kind: if fired.group.is_some() { FindingKind::Correlation } else { FindingKind::Detection },
        rule: RuleRef { id: Arc::clone(rule.key()), name: rule.name.clone(), title: Arc::clone(&rule.title), revision: Arc::clone(&rule.revision) },
        agent: Arc::from("opmas"),
        severity,
        level: Arc::from(severity.level()),
        title: Arc::clone(&rule.title),
        text: text(fired, rule, set),
        group: fired.group.iter().flatten().map(|(name, value)| (name.to_string(), bounded(value))).collect(),
        entities: entities(fired, rule),
        device: text_field("device"),
        site: text_field("site"),
        window: Window { from: fired.from, to: fired.place.time },
        value: fired.value.clone().map(Value::Number),
        count: fired.count,
        evidence: evidence(fired),
        tags: rule.tags.clone(),
        trust: fired.trust,
        remediation: rule.opmas.remediation.clone(),
    })
}

fn evidence(fired: &Fired) -> Vec<Evidence> {
    let shown = fired.evidence.iter();
    shown.map(|e| Evidence { seq: e.seq, source: Arc::clone(&e.source), time: e.time, raw: short(&e.raw) }).collect()
}

fn short(raw: &Arc<str>) -> Arc<str> {
    if raw.len() <= MAX_RAW { Arc::clone(raw) } else { cut(raw, MAX_RAW).into() }
}

fn bounded(value: &Value) -> Value {
    match value {
        Value::String(text) if text.len() > MAX_VALUE => Value::String(cut(text, MAX_VALUE)),
        other => other.clone(),
    }
}

fn entities(fired: &Fired, rule: &Rule) -> BTreeMap<String, Entity> {
    let mut entities = BTreeMap::new();
    for (role, field) in &rule.opmas.entities {
        if let Some(entity) = fired.field(field).and_then(|value| entity(role, field, value)) {
            entities.insert(role.to_string(), entity);
        }
    }
    entities
}

/// The kind follows from the value where that is an address, else from the names of the field and the role.
fn entity(role: &str, field: &str, value: &Value) -> Option<Entity> {
    let text = match value {
        Value::String(text) if !text.is_empty() && text.len() <= MAX_VALUE => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(Entity { kind: EntityKind::Ip, value: ip.to_canonical().to_string().into() });
    }
    let bare = text.len() == 12;
    if let Some(digits) = mac_digits(&text).filter(|_| !bare || names(role, field, &["mac", "station", "bssid"])) {
        return Some(Entity { kind: EntityKind::Mac, value: colons(&digits).into() });
    }
    let kind = match () {
        () if field == "device" => EntityKind::Device,
        () if names(role, field, &["interface", "ifname"]) => EntityKind::Interface,
        () if is_host_field(field) || is_host_field(role) => EntityKind::Host,
        // What a name does not tell is a user's: nothing is addressed by it.
        () => EntityKind::User,
    };
    Some(Entity { kind, value: text.into() })
}

fn names(role: &str, field: &str, words: &[&str]) -> bool {
    let (role, field) = (role.to_lowercase(), field.to_lowercase());
    words.iter().any(|word| role.contains(word) || field.contains(word))
}

/// What happened, in a sentence: how often, of what, for whom, where, when.
fn text(fired: &Fired, rule: &Rule, set: &RuleSet) -> String {
    let on = match fired.field("device").or_else(|| fired.field("host")).map(plain) {
        Some(device) if !in_group(fired, &["device", "host"]) => format!(" on {device}"),
        _ => String::new(),
    };
    let Body::Correlation(correlation) = &rule.body else {
        return format!("{}{on}: {}", rule.title, cut(&fired.event.raw, QUOTED));
    };
    let what = what(fired, correlation, set);
    let group: String = fired.group.iter().flatten().map(|(name, value)| format!(" {} {}", preposition(name), plain(value))).collect();
    format!("{what}{group}{on} within {} (first {}, last {})", correlation.timespan, fired.from.brief(), fired.place.time.brief())
}

/// What a correlation found, of which rules.
fn what(fired: &Fired, correlation: &Correlation, set: &RuleSet) -> String {
    let titles: Vec<&str> = set.inputs(fired.rule).iter().filter_map(|input| set.rules.get(*input)).map(|rule| &*rule.title).collect();
    let (any, field) = (titles.join(" or "), correlation.field.join(", "));
    let value = fired.value.as_ref().map(ToString::to_string).unwrap_or_default();
    match correlation.kind {
        CorrelationType::EventCount => format!("{value} × {any}"),
        CorrelationType::ValueCount => format!("{value} different {field} of {any}"),
        CorrelationType::ValueSum => format!("{field} adds up to {value} in {any}"),
        CorrelationType::ValueAvg => format!("{field} is {value} on average in {any}"),
        CorrelationType::ValuePercentile => match correlation.percentile {
            Some(p) => format!("the {p}th percentile of {field} is {value} in {any}"),
            None => format!("this {field} makes up {value} % of {any}"),
        },
        CorrelationType::Temporal if fired.value.is_some() => format!("{value} of {}", titles.join(", ")),
        CorrelationType::Temporal if correlation.expression.is_some() => {
            format!("{} ({})", set.rules.get(fired.rule).map_or("", |rule| &*rule.title), titles.join(", "))
        }
        CorrelationType::Temporal => titles.join(" and "),
        CorrelationType::TemporalOrdered => titles.join(", then "),
        CorrelationType::Missing => format!("no more {any}"),
        CorrelationType::NewValue => {
            let values: Vec<String> = correlation.field.iter().filter_map(|name| Some(format!("{name} {}", plain(fired.field(name)?)))).collect();
            format!("{} was not seen before in {any}", values.join(", "))
        }
    }
}

fn in_group(fired: &Fired, names: &[&str]) -> bool {
    fired.group.iter().flatten().any(|(name, _)| names.contains(&&**name))
}

fn preposition(name: &str) -> String {
    let lower = name.trim_start_matches("entity.").to_lowercase();
    let starts = |words: &[&str]| words.iter().any(|word| lower.starts_with(word));
    match () {
        () if starts(&["src", "source"]) => "from".to_owned(),
        () if starts(&["dst", "dest"]) => "to".to_owned(),
        () if starts(&["host", "device", "interface"]) => "on".to_owned(),
        () if starts(&["user"]) => "by".to_owned(),
        () => format!("for {name}"),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => cut(text, SHOWN),
        other => cut(&other.to_string(), SHOWN),
    }
}

/// At most `limit` bytes, with an ellipsis where something was cut.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or(""))
}
