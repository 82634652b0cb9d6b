//! Command templates: literal text and `${param}` or `${param.property}`, checked when the file is loaded.

use super::params::Params;
use super::value::{Grammar, ParamValue};

/// One argument or one standard input of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable { param: String, property: Property },
}

/// What of a value is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Property {
    /// The canonical text.
    Whole,
    /// `ip.version`: `4` or `6`.
    Version,
    /// `duration.seconds`: a whole number.
    Seconds,
}

/// What is wrong with a template, and the text that it is about.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum TemplateError {
    #[error("`{0}` has no closing `}}`")]
    Unclosed(String),
    #[error("unknown parameter `{0}`")]
    UnknownParam(String),
    #[error("`{property}` is not a property of `{param}`, which is of type {kind}")]
    UnknownProperty { param: String, property: String, kind: &'static str },
    #[error("`{0}` is free text, which cannot stand here: it could be read as code")]
    FreeText(String),
}

/// Where a template stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// One argument of a program that takes it as data.
    Argument,
    /// Standard input, or an argument of an interpreter: closed grammars only.
    Script,
}

impl Template {
    /// Takes a template apart; `grammar` knows the action's parameters.
    pub(super) fn parse<'a>(text: &str, spot: Spot, grammar: impl Fn(&str) -> Option<&'a Grammar>) -> Result<Template, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (name, tail) = after.split_once('}').ok_or_else(|| TemplateError::Unclosed(format!("${{{}", after.lines().next().unwrap_or_default())))?;
            parts.push(Part::Literal(before.to_owned()));
            parts.push(variable(name, spot, &grammar)?);
            rest = tail;
        }
        parts.push(Part::Literal(rest.to_owned()));
        parts.retain(|part| *part != Part::Literal(String::new()));
        Ok(Template { parts })
    }

    /// Whether any value is put in.
    pub(super) fn has_variables(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Variable { .. }))
    }

    /// Puts the values in. Each goes in as it is, into this one argument or script: nothing is read again.
    pub(super) fn render(&self, params: &Params) -> String {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Literal(text) => text.clone(),
                // Every parameter of the grammar has a value in `Params`: both are made from the same action.
                Part::Variable { param, property } => params.get(param).map(|value| property.of(value)).unwrap_or_default(),
            })
            .collect()
    }
}

fn variable<'a>(name: &str, spot: Spot, grammar: &impl Fn(&str) -> Option<&'a Grammar>) -> Result<Part, TemplateError> {
    let (param, property) = name.split_once('.').map_or((name, None), |(param, property)| (param, Some(property)));
    let kind = grammar(param).ok_or_else(|| TemplateError::UnknownParam(param.to_owned()))?;
    if spot == Spot::Script && !kind.is_closed() {
        return Err(TemplateError::FreeText(param.to_owned()));
    }
    let property = match (kind, property) {
        (_, None) => Property::Whole,
        (Grammar::Ip, Some("version")) => Property::Version,
        (Grammar::Duration { .. }, Some("seconds")) => Property::Seconds,
        (kind, Some(other)) => {
            return Err(TemplateError::UnknownProperty { param: param.to_owned(), property: other.to_owned(), kind: kind.word() });
        }
    };
    Ok(Part::Variable { param: param.to_owned(), property })
}

impl Property {
    fn of(self, value: &ParamValue) -> String {
        match (self, value) {
            (Property::Version, ParamValue::Ip(ip)) => if ip.is_ipv4() { "4" } else { "6" }.to_owned(),
            (Property::Seconds, ParamValue::Duration(span)) => span.as_secs().to_string(),
            (_, value) => value.to_string(),
        }
    }
}
