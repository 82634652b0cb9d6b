//! Which rules an event's log source leaves over (X3).

use serde_json::{Map, Value};

use super::LogsourceMode;
use crate::model::LogSource;
use crate::normalise::{Normaliser, Said, View};

/// What is known of an event's log source.
pub type Known<'e> = Said<'e>;

/// What is known of an event by its fields and what was derived, as the mode asks.
pub(super) fn of_fields<'e>(fields: &'e Map<String, Value>, source: &'e LogSource, mode: LogsourceMode) -> Known<'e> {
    match mode {
        LogsourceMode::Any => Known::default(),
        LogsourceMode::Event => own_of(fields),
        LogsourceMode::Derived => or(known(source), own_of(fields)),
    }
}

/// What is known of an object, as the mode asks.
pub(super) fn of_object(object: View<'_>, mode: LogsourceMode) -> Known<'_> {
    match mode {
        LogsourceMode::Any => Known::default(),
        LogsourceMode::Event => Normaliser::said(object),
        LogsourceMode::Derived => Normaliser::logsource(object),
    }
}

fn or<'e>(first: Known<'e>, second: Known<'e>) -> Known<'e> {
    Known { product: first.product.or(second.product), category: first.category.or(second.category), service: first.service.or(second.service) }
}

fn known(source: &LogSource) -> Known<'_> {
    Known { product: source.product.as_deref(), category: source.category.as_deref(), service: source.service.as_deref() }
}

fn own_of(fields: &Map<String, Value>) -> Known<'_> {
    let own = |name| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    Known { product: own("product"), category: own("category"), service: own("service") }
}

/// Whether a known attribute of the event's log source differs from the rule's; unknown never conflicts.
pub(super) fn conflicts(rule: &LogSource, event: Known<'_>) -> bool {
    let rule = known(rule);
    [(rule.product, event.product), (rule.category, event.category), (rule.service, event.service)].into_iter().any(|(wanted, theirs)| differ(wanted, theirs))
}

fn differ(wanted: Option<&str>, theirs: Option<&str>) -> bool {
    match (wanted, theirs) {
        (Some(wanted), Some(theirs)) => !wanted.eq_ignore_ascii_case(theirs) && !is_registry(wanted, theirs) && !is_registry(theirs, wanted),
        _ => false,
    }
}

/// Sigma's category `registry_event` is all of `registry_add`, `registry_set`, `registry_delete` and `registry_rename`.
fn is_registry(all: &str, one: &str) -> bool {
    all.eq_ignore_ascii_case("registry_event") && one.get(..9).is_some_and(|head| head.eq_ignore_ascii_case("registry_"))
}
