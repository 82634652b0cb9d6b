//! A field's values in an event: literal keys first, dots included, then paths; lists give each of their members.

use serde_json::{Map, Value};

/// Shows `see` each value of a field until it answers true, and says whether it did.
///
/// The key as it is written is tried first, then the path at each of its dots: `a.b` is `{"a.b": …}`, else `{"a": {"b": …}}`.
/// Lists on the way stand for their members. A list at the end is shown as itself; see [`any_member`].
pub(super) fn any_value<'e>(fields: &'e Map<String, Value>, field: &str, see: &mut dyn FnMut(&'e Value) -> bool) -> bool {
    if let Some(value) = fields.get(field) {
        return see(value);
    }
    // Each split is another literal key, so that no node of the event is visited twice.
    field.match_indices('.').any(|(dot, _)| match (field.get(..dot), field.get(dot + 1..)) {
        (Some(first), Some(rest)) => fields.get(first).is_some_and(|inner| below(inner, rest, see)),
        _ => false,
    })
}

fn below<'e>(value: &'e Value, rest: &str, see: &mut dyn FnMut(&'e Value) -> bool) -> bool {
    match value {
        Value::Object(fields) => any_value(fields, rest, see),
        Value::Array(members) => members.iter().any(|member| below(member, rest, see)),
        _ => false,
    }
}

/// Whether the value, or, when it is a list, any of its members, also of lists within, is as asked.
pub(super) fn any_member<'e>(value: &'e Value, is: &mut dyn FnMut(&'e Value) -> bool) -> bool {
    match value {
        Value::Array(members) => members.iter().any(|member| any_member(member, is)),
        scalar => is(scalar),
    }
}

/// Whether any string of an event is as asked: keywords look through all of them.
pub(super) fn any_string(fields: &Map<String, Value>, is: &mut dyn FnMut(&str) -> bool) -> bool {
    fields.values().any(|value| string_within(value, is))
}

fn string_within(value: &Value, is: &mut dyn FnMut(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is(text),
        Value::Array(members) => members.iter().any(|member| string_within(member, is)),
        Value::Object(fields) => any_string(fields, is),
        _ => false,
    }
}
