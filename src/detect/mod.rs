//! Event to matches: which detection rules hold for an event.
//!
//! Rules are sorted by log source ahead of time; what is left is evaluated one by one, straight from the syntax tree.

mod check;
mod glob;
mod lookup;
mod rule;
mod spaces;

use std::sync::Arc;

use serde_json::{Map, Value};

use self::rule::Ready;
use crate::model::{Event, LogSource};
use crate::sigma::{Body, RuleSet};

/// Where an event's log source is read from (X3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogsourceMode {
    /// What the normaliser knows of it, and where it knows nothing, the event's own fields.
    #[default]
    Derived,
    /// The event's own `product`, `category` and `service` fields alone.
    Event,
    /// Nothing is skipped.
    Any,
}

/// All detection rules of a set.
#[derive(Debug, Default)]
pub struct Detector {
    /// Rules by their log source, each with its index in the set.
    partitions: Vec<(LogSource, Vec<(usize, Ready)>)>,
}

impl Detector {
    /// Makes the detections of a set ready.
    #[must_use]
    pub fn new(set: &RuleSet) -> Detector {
        let mut partitions: Vec<(LogSource, Vec<(usize, Ready)>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        for (index, rule) in set.rules.iter().enumerate() {
            let Body::Detection(detection) = &rule.body else { continue };
            let place = *places.entry(&detection.logsource).or_insert_with(|| {
                partitions.push((detection.logsource.clone(), Vec::new()));
                partitions.len() - 1
            });
            if let Some((_, rules)) = partitions.get_mut(place) {
                rules.push((index, Ready::new(detection)));
            }
        }
        Detector { partitions }
    }

    /// The indices in the set of the detection rules that hold for the event, ascending.
    #[must_use]
    pub fn matches(&self, event: &Event, mode: LogsourceMode) -> Vec<usize> {
        let unspaced = spaces::without(&event.fields);
        let fields = unspaced.as_ref().unwrap_or(&event.fields);
        let mut found = Vec::new();
        for (logsource, rules) in &self.partitions {
            if conflicts(logsource, event, mode) {
                continue;
            }
            found.extend(rules.iter().filter(|(_, rule)| rule.holds(fields)).map(|(index, _)| *index));
        }
        found.sort_unstable();
        found
    }
}

/// Whether a known attribute of the event's log source differs from the rule's; unknown never conflicts (X3).
fn conflicts(rule: &LogSource, event: &Event, mode: LogsourceMode) -> bool {
    let known = &event.logsource;
    let attributes = [("product", &rule.product, &known.product), ("category", &rule.category, &known.category), ("service", &rule.service, &known.service)];
    attributes.into_iter().any(|(name, wanted, derived)| {
        let theirs = match mode {
            LogsourceMode::Any => None,
            LogsourceMode::Event => own(&event.fields, name),
            LogsourceMode::Derived => derived.as_deref().or_else(|| own(&event.fields, name)),
        };
        differ(wanted.as_ref(), theirs)
    })
}

fn differ(wanted: Option<&Arc<str>>, theirs: Option<&str>) -> bool {
    match (wanted, theirs) {
        (Some(wanted), Some(theirs)) => !wanted.eq_ignore_ascii_case(theirs) && !is_registry(wanted, theirs) && !is_registry(theirs, wanted),
        _ => false,
    }
}

/// Sigma's category `registry_event` is all of `registry_add`, `registry_set`, `registry_delete` and `registry_rename`.
fn is_registry(all: &str, one: &str) -> bool {
    all.eq_ignore_ascii_case("registry_event") && one.get(..9).is_some_and(|head| head.eq_ignore_ascii_case("registry_"))
}

fn own<'e>(fields: &'e Map<String, Value>, name: &str) -> Option<&'e str> {
    fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}
