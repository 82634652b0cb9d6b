//! Command templates: literal text and `${param}` or `${param.property}`, checked when the file is loaded.

use std::fmt;

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
    /// Of an address or a network: `4` or `6`.
    Version,
    /// Of an address or a network: `ip` or `ip6`, as nft calls the protocol.
    Protocol,
    /// Of a network: its first address.
    Network,
    /// Of a network: its length as a mask.
    Mask,
    /// Of a network: its length.
    Length,
    /// Of a duration: whole seconds.
    Seconds,
    /// Of a duration: milliseconds, an hour's at most: what counts in microseconds of 32 bits goes wrong after 71 minutes.
    MillisOfAnHour,
    /// Of a duration: whole seconds, 24 days at most: an ipset keeps nothing for longer than 2^31 milliseconds.
    SecondsOf24Days,
}

/// An hour, in milliseconds.
const HOUR_MS: i64 = 3_600_000;
/// 24 days, in seconds.
pub(super) const DAYS_24_S: i64 = 24 * 86_400;

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

    /// The values that are put in: `ip.version`, the parameter, and a template of that value alone.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, &str, Template)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Variable { param, property } => Some((property.name(param), param.as_str(), Template { parts: vec![part.clone()] })),
        })
    }

    /// As another language writes it.
    pub(super) fn written(&self, literal: impl Fn(&str) -> String, value: impl Fn(&str) -> String) -> String {
        let parts = self.parts.iter().map(|part| match part {
            Part::Literal(text) => literal(text),
            Part::Variable { param, property } => value(&property.name(param)),
        });
        let text: String = parts.collect();
        if text.is_empty() { literal("") } else { text }
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

/// As the file has it.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(text),
            Part::Variable { param, property } => write!(f, "${{{}}}", property.name(param)),
        })
    }
}

fn variable<'a>(name: &str, spot: Spot, grammar: &impl Fn(&str) -> Option<&'a Grammar>) -> Result<Part, TemplateError> {
    let (param, property) = name.split_once('.').map_or((name, None), |(param, property)| (param, Some(property)));
    let kind = grammar(param).ok_or_else(|| TemplateError::UnknownParam(param.to_owned()))?;
    if spot == Spot::Script && !kind.is_closed() {
        return Err(TemplateError::FreeText(param.to_owned()));
    }
    let property = match property {
        None => Property::Whole,
        Some(word) => Property::of_kind(kind).iter().copied().find(|property| property.word() == word).ok_or_else(|| TemplateError::UnknownProperty {
            param: param.to_owned(),
            property: word.to_owned(),
            kind: kind.word(),
        })?,
    };
    Ok(Part::Variable { param: param.to_owned(), property })
}

impl Property {
    /// The properties of values of a type.
    fn of_kind(kind: &Grammar) -> &'static [Property] {
        match kind {
            Grammar::Ip => &[Property::Version, Property::Protocol],
            Grammar::Prefix => &[Property::Version, Property::Protocol, Property::Network, Property::Mask, Property::Length],
            Grammar::Duration { .. } => &[Property::Seconds, Property::MillisOfAnHour, Property::SecondsOf24Days],
            _ => &[],
        }
    }

    /// `ip`, `ip.version`
    fn name(self, param: &str) -> String {
        if self == Property::Whole { param.to_owned() } else { format!("{param}.{}", self.word()) }
    }

    fn word(self) -> &'static str {
        match self {
            Property::Whole => "",
            Property::Version => "version",
            Property::Protocol => "protocol",
            Property::Network => "network",
            Property::Mask => "mask",
            Property::Length => "length",
            Property::Seconds => "seconds",
            Property::MillisOfAnHour => "ms_of_an_hour",
            Property::SecondsOf24Days => "seconds_of_24_days",
        }
    }

    fn of(self, value: &ParamValue) -> String {
        match (self, value) {
            (Property::Version, value) => if is_v4(value) { "4" } else { "6" }.to_owned(),
            (Property::Protocol, value) => if is_v4(value) { "ip" } else { "ip6" }.to_owned(),
            (Property::Network, ParamValue::Prefix(net)) => net.network().to_string(),
            (Property::Mask, ParamValue::Prefix(net)) => net.netmask().to_string(),
            (Property::Length, ParamValue::Prefix(net)) => net.prefix_len().to_string(),
            (Property::MillisOfAnHour, ParamValue::Duration(span)) => span.as_secs().saturating_mul(1000).min(HOUR_MS).to_string(),
            (Property::SecondsOf24Days, ParamValue::Duration(span)) => span.as_secs().min(DAYS_24_S).to_string(),
            (Property::Seconds, ParamValue::Duration(span)) => span.as_secs().to_string(),
            (_, value) => value.to_string(),
        }
    }
}

fn is_v4(value: &ParamValue) -> bool {
    match value {
        ParamValue::Ip(ip) => ip.is_ipv4(),
        ParamValue::Prefix(net) => net.addr().is_ipv4(),
        _ => false,
    }
}
