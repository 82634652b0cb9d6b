//! The parameters of one call, each accepted by its grammar.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::catalogue::Action;
use super::value::ParamValue;
use crate::diag;
use crate::model::Span;

/// Canonical parameters of an action: every declared one, with its value or its default.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Params {
    values: BTreeMap<String, ParamValue>,
}

/// Why parameters were not accepted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParamError {
    /// A parameter without default was not given.
    #[error("{action} needs `{param}`: {wanted}")]
    Missing {
        /// The action.
        action: String,
        /// The parameter.
        param: String,
        /// What it should be.
        wanted: String,
    },
    /// The action has no such parameter.
    #[error("{action} has no parameter `{param}`; {help}")]
    Unknown {
        /// The action.
        action: String,
        /// What was written, bounded.
        param: String,
        /// The nearest known one, or all.
        help: String,
    },
    /// A value is not of its grammar.
    #[error("{action}: `{param}`: {reason}")]
    Value {
        /// The action.
        action: String,
        /// The parameter.
        param: String,
        /// What was written, bounded, and what it should have been.
        reason: String,
    },
}

impl Params {
    /// A parameter's value.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ParamValue> {
        self.values.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ParamValue)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The canonical JSON form; [`Action::params`] reads it back to the same parameters.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        self.values.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
    }
}

impl Action {
    /// Reads the parameters of a call: each by its grammar, defaults filled in, nothing unknown.
    ///
    /// # Errors
    /// A parameter is missing, unknown, or not of its grammar.
    pub fn params(&self, given: &Map<String, Value>) -> Result<Params, ParamError> {
        if let Some(unknown) = given.keys().find(|name| self.param(name).is_none()) {
            return Err(self.unknown_param(unknown));
        }
        let values = self.params.iter().map(|param| Ok((param.name.clone(), self.value(param, given.get(&param.name))?)));
        Ok(Params { values: values.collect::<Result<_, ParamError>>()? })
    }

    fn value(&self, param: &super::Param, given: Option<&Value>) -> Result<ParamValue, ParamError> {
        let value = match (given, &param.default) {
            (Some(value), _) => value,
            (None, Some(default)) => return Ok(default.clone()),
            (None, None) => {
                return Err(ParamError::Missing { action: self.name.to_string(), param: param.name.clone(), wanted: param.grammar.to_string() });
            }
        };
        param.grammar.parse(value).map_err(|reason| ParamError::Value { action: self.name.to_string(), param: param.name.clone(), reason })
    }

    fn unknown_param(&self, written: &str) -> ParamError {
        let known = || self.params.iter().map(|param| param.name.as_str());
        let help = match diag::nearest(written, known()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("known: {}", known().collect::<Vec<_>>().join(", ")),
        };
        let param = written.chars().filter(|c| !c.is_control()).take(48).collect();
        ParamError::Unknown { action: self.name.to_string(), param, help }
    }

    /// The values that identify the effect on a device: two calls with the same text are one effect.
    #[must_use]
    pub fn effect(&self, params: &Params) -> String {
        let identifying = self.idempotence.iter().filter_map(|name| Some(format!("{name}={}", params.get(name)?)));
        identifying.collect::<Vec<_>>().join(" ")
    }

    /// Whether a call does all that the other asks for: the values are the same, and the effect lasts as long at least.
    #[must_use]
    pub fn covers(&self, one: &Params, other: &Params) -> bool {
        let lifetime = |name: &String| self.lease.as_ref() == Some(name);
        let same = one.values.iter().filter(|(name, _)| !lifetime(name)).eq(other.values.iter().filter(|(name, _)| !lifetime(name)));
        same && self.lifetime(one) >= self.lifetime(other)
    }

    /// How long the effect is to last; `None` for an action without a lifetime.
    #[must_use]
    pub fn lifetime(&self, params: &Params) -> Option<Span> {
        match params.get(self.lease.as_deref()?)? {
            ParamValue::Duration(span) => Some(*span),
            _ => None,
        }
    }
}
