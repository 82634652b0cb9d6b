//! One detection made ready: its tests compiled, its condition evaluated plainly.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::check::Check;
use super::lookup;
use crate::sigma::{Condition, Detection, Item, Search};

type Fields = Map<String, Value>;

/// A detection made ready.
#[derive(Debug)]
pub(super) struct Ready {
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
    pub fn new(detection: &Detection) -> Ready {
        let searches = detection.searches.iter().map(|(_, search)| ReadySearch::new(search)).collect();
        Ready { searches, condition: detection.condition.clone() }
    }

    /// Whether it holds for an event.
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
            ReadySearch::Keywords(item) => item.holds(|check| lookup::any_string(fields, &mut |text| check.is_text(text))),
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
