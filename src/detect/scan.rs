//! The plain way: every rule on its own, straight from the syntax tree. What the network is held to.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::check::Check;
use super::leaf::Fields as _;
use super::logsource::{conflicts, of_fields};
use super::{LogsourceMode, spaces};
use crate::model::{Event, LogSource};
use crate::sigma::{Body, Condition, Detection, Item, RuleSet, Search};

type Fields = Map<String, Value>;

/// All detection rules of a set, evaluated one after the other.
#[derive(Debug)]
pub struct Scan {
    rules: Vec<(usize, LogSource, Ready)>,
}

impl Scan {
    /// Makes the detections of a set ready.
    #[must_use]
    pub fn new(set: &RuleSet) -> Scan {
        let detections = set.rules.iter().enumerate().filter_map(|(index, rule)| match &rule.body {
            Body::Detection(detection) => Some((index, detection.logsource.clone(), Ready::new(detection))),
            Body::Correlation(_) => None,
        });
        Scan { rules: detections.collect() }
    }

    /// As [`super::Detector::matches`].
    #[must_use]
    pub fn matches(&self, event: &Event, mode: LogsourceMode) -> Vec<usize> {
        let unspaced = spaces::without(&event.fields);
        let fields = unspaced.as_ref().unwrap_or(&event.fields);
        let known = of_fields(&event.fields, &event.logsource, mode);
        let active = self.rules.iter().filter(|(_, source, _)| !conflicts(source, known));
        active.filter(|(_, _, rule)| rule.holds(fields)).map(|(index, ..)| *index).collect()
    }
}

/// A detection made ready, to be evaluated alone.
#[derive(Debug)]
pub struct Ready {
    searches: Vec<ReadySearch>,
    condition: Condition,
}

#[derive(Debug)]
enum ReadySearch {
    All(Vec<ReadyItem>),
    Any(Vec<ReadySearch>),
    Keywords(ReadyItem),
}

#[derive(Debug)]
struct ReadyItem {
    field: Arc<str>,
    checks: Vec<Check>,
    all: bool,
    negated: bool,
}

impl Ready {
    /// Compiles the tests of a detection.
    #[must_use]
    pub fn new(detection: &Detection) -> Ready {
        let searches = detection.searches.iter().map(|(_, search)| ReadySearch::new(search)).collect();
        Ready { searches, condition: detection.condition.clone() }
    }

    /// Whether it holds for an event with these fields.
    #[must_use]
    pub fn holds(&self, fields: &Fields) -> bool {
        self.condition(&self.condition, fields)
    }

    fn condition(&self, condition: &Condition, fields: &Fields) -> bool {
        match condition {
            Condition::Search(index) => self.searches.get(*index).is_some_and(|search| search.holds(fields)),
            Condition::And(parts) => parts.iter().all(|part| self.condition(part, fields)),
            Condition::Or(parts) => parts.iter().any(|part| self.condition(part, fields)),
            Condition::Not(inner) => !self.condition(inner, fields),
        }
    }
}

impl ReadySearch {
    fn new(search: &Search) -> ReadySearch {
        match search {
            Search::All(items) => ReadySearch::All(items.iter().map(ReadyItem::new).collect()),
            Search::Any(searches) => ReadySearch::Any(searches.iter().map(ReadySearch::new).collect()),
            Search::Keywords(item) => ReadySearch::Keywords(ReadyItem::new(item)),
        }
    }

    fn holds(&self, fields: &Fields) -> bool {
        match self {
            ReadySearch::All(items) => items.iter().all(|item| item.holds(|check| check.holds(fields, &item.field))),
            ReadySearch::Any(searches) => searches.iter().any(|search| search.holds(fields)),
            ReadySearch::Keywords(item) => item.holds(|check| fields.any_string(&mut |text| check.is_text(text))),
        }
    }
}

impl ReadyItem {
    fn new(item: &Item) -> ReadyItem {
        ReadyItem { field: Arc::clone(&item.field), checks: item.tests.iter().map(Check::new).collect(), all: item.all, negated: item.negated }
    }

    /// Any of the checks, or with `all` every one, which different members of a list may meet; `neq` negates the whole.
    fn holds(&self, is: impl Fn(&Check) -> bool) -> bool {
        let met = if self.all { self.checks.iter().all(is) } else { self.checks.iter().any(is) };
        met != self.negated
    }
}
