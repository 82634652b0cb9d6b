//! Judges what commands print as JSON: one value, or several one after the other, each of which must be as expected.

use serde_json::Value;

use super::check::{CommandResult, Readback, ReadbackState, printed_else};
use super::params::Params;
use super::template::Template;

/// Something expected of the values that one command prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// Which command, counted from 0.
    pub(super) of: usize,
    /// Keys with dots between them; `*` is every member.
    pub(super) path: Template,
    pub(super) wanted: Wanted,
}

/// What must be found at the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// This text, number or boolean, in every place.
    Is(Template),
    /// A list with this text, or an object with this key.
    Has(Template),
    /// A list without this text, or an object without this key.
    Lacks(Template),
}

/// All of it is there, some, or nothing.
pub(super) fn judge(expected: &[Expected], params: &Params, results: &[CommandResult]) -> Readback {
    let (mut held, mut wrong) = (0_usize, Vec::new());
    for one in expected {
        let values = match results.get(one.of).map(values) {
            Some(Ok(values)) => values,
            Some(Err(why)) => return Readback::new(ReadbackState::Unknown, why),
            None => return Readback::new(ReadbackState::Unknown, "not everything could be read back"),
        };
        if values.is_empty() {
            wrong.push("nothing there answers".to_owned());
        }
        for value in &values {
            match one.fault(value, params) {
                None => held += 1,
                Some(fault) => wrong.push(fault),
            }
        }
    }
    match (held, wrong.first()) {
        (_, None) => Readback::new(ReadbackState::Enforced, "everything was read back"),
        (0, Some(why)) => Readback::new(ReadbackState::Absent, why.clone()),
        (_, Some(why)) => Readback::new(ReadbackState::Partial, format!("{why}; the rest is as it should be")),
    }
}

fn values(result: &CommandResult) -> Result<Vec<Value>, String> {
    let values = result.whole().and_then(|printed| {
        let stream = serde_json::Deserializer::from_slice(printed).into_iter();
        stream.collect::<Result<_, _>>().map_err(|_| printed_else(printed, "JSON"))
    });
    values.map_err(|why| format!("a command that reads {why}"))
}

impl Expected {
    fn fault(&self, value: &Value, params: &Params) -> Option<String> {
        let path = self.path.render(params);
        let mut found = vec![value];
        for key in path.split('.') {
            found = found.into_iter().flat_map(|value| step(value, key)).collect();
        }
        let (holds, wanted): (fn(&Value, &str) -> bool, _) = match &self.wanted {
            Wanted::Is(text) => (|value, text| plain(value).as_deref() == Some(text), text.render(params)),
            Wanted::Has(text) => (|value, text| contains(value, text) == Some(true), text.render(params)),
            Wanted::Lacks(text) => (|value, text| contains(value, text) == Some(false), text.render(params)),
        };
        let all = !found.is_empty() && found.iter().all(|value| holds(value, &wanted));
        (!all).then(|| match &self.wanted {
            Wanted::Is(_) => format!("`{path}` is not {wanted}"),
            Wanted::Has(_) => format!("`{path}` has no {wanted}"),
            Wanted::Lacks(_) => format!("`{path}` has {wanted}"),
        })
    }
}

fn step<'a>(value: &'a Value, key: &str) -> Vec<&'a Value> {
    match (value, key) {
        (Value::Object(map), "*") => map.values().collect(),
        (Value::Array(list), "*") => list.iter().collect(),
        (Value::Object(map), key) => map.get(key).into_iter().collect(),
        _ => Vec::new(),
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// `None` where nothing can be contained.
fn contains(value: &Value, text: &str) -> Option<bool> {
    match value {
        Value::Array(list) => Some(list.iter().any(|item| item.as_str().is_some_and(|item| item.eq_ignore_ascii_case(text)))),
        Value::Object(map) => Some(map.keys().any(|key| key.eq_ignore_ascii_case(text))),
        _ => None,
    }
}
