//! What tests look at: single values, of a map or of a tape.

use serde_json::{Map, Number, Value};

use super::lookup;
use crate::normalise::{Kind, View};

/// A value that is no list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaf<'e> {
    Null,
    Bool(bool),
    Number(&'e Number),
    /// A number as it is written.
    Digits(&'e str),
    Text(&'e str),
    /// A map: it is there, and nothing else.
    Map,
}

impl<'e> Leaf<'e> {
    /// Of a tape's value that is no list.
    pub fn of_view(view: View<'e>) -> Leaf<'e> {
        match view.kind() {
            Kind::Null => Leaf::Null,
            Kind::Bool(value) => Leaf::Bool(value),
            Kind::Number(digits) => Leaf::Digits(digits),
            Kind::Text(text) => Leaf::Text(text),
            Kind::List | Kind::Object => Leaf::Map,
        }
    }

    fn of_value(value: &'e Value) -> Leaf<'e> {
        match value {
            Value::Null => Leaf::Null,
            Value::Bool(value) => Leaf::Bool(*value),
            Value::Number(number) => Leaf::Number(number),
            Value::String(text) => Leaf::Text(text),
            Value::Array(_) | Value::Object(_) => Leaf::Map,
        }
    }
}

/// Something with fields.
pub(super) trait Fields {
    /// Whether the field is there, whatever it is.
    fn exists(&self, field: &str) -> bool;
    /// Whether any of the field's values is as asked; lists give each of their members.
    fn any_leaf(&self, field: &str, is: &mut dyn FnMut(Leaf<'_>) -> bool) -> bool;
    /// Whether any string is as asked.
    fn any_string(&self, is: &mut dyn FnMut(&str) -> bool) -> bool;
}

impl Fields for Map<String, Value> {
    fn exists(&self, field: &str) -> bool {
        lookup::any_value(self, field, &mut |_| true)
    }

    fn any_leaf(&self, field: &str, is: &mut dyn FnMut(Leaf<'_>) -> bool) -> bool {
        lookup::any_value(self, field, &mut |value| lookup::any_member(value, &mut |member| is(Leaf::of_value(member))))
    }

    fn any_string(&self, is: &mut dyn FnMut(&str) -> bool) -> bool {
        lookup::any_string(self, is)
    }
}

impl Fields for View<'_> {
    fn exists(&self, field: &str) -> bool {
        any_view(*self, field, &mut |_| true)
    }

    fn any_leaf(&self, field: &str, is: &mut dyn FnMut(Leaf<'_>) -> bool) -> bool {
        any_view(*self, field, &mut |value| any_leaf_of(value, is))
    }

    fn any_string(&self, is: &mut dyn FnMut(&str) -> bool) -> bool {
        match self.kind() {
            Kind::Text(text) => is(text),
            Kind::List => self.members().any(|member| member.any_string(is)),
            Kind::Object => self.entries().any(|(_, _, value)| value.any_string(is)),
            Kind::Null | Kind::Bool(_) | Kind::Number(_) => false,
        }
    }
}

/// As [`lookup::any_value`], over a tape.
fn any_view<'t>(object: View<'t>, field: &str, see: &mut dyn FnMut(View<'t>) -> bool) -> bool {
    if let Some(value) = object.get(field) {
        return see(value);
    }
    field.match_indices('.').any(|(dot, _)| match (field.get(..dot), field.get(dot + 1..)) {
        (Some(first), Some(rest)) => object.get(first).is_some_and(|inner| any_below(inner, rest, see)),
        _ => false,
    })
}

/// The values at what is left of a path, inside the value of its beginning.
pub(super) fn any_below<'t>(value: View<'t>, rest: &str, see: &mut dyn FnMut(View<'t>) -> bool) -> bool {
    match value.kind() {
        Kind::Object => any_view(value, rest, see),
        Kind::List => value.members().any(|member| any_below(member, rest, see)),
        _ => false,
    }
}

/// Whether the value, or, when it is a list, any of its members, also of lists within, is as asked.
pub(super) fn any_leaf_of<'t>(value: View<'t>, is: &mut dyn FnMut(Leaf<'t>) -> bool) -> bool {
    match value.kind() {
        Kind::List => value.members().any(|member| any_leaf_of(member, is)),
        _ => is(Leaf::of_view(value)),
    }
}
