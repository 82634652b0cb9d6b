//! The header of a playbook: `/*---`, TOML, `---*/`, before anything else in the file.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::hours::Hours;
use super::start::MAX_DEBOUNCE;
use crate::action::{Budget, MAX_PER_HOUR, Mode};
use crate::diag::{Diagnostic, Place, SourceFile, from_toml};
use crate::model::{Finding, Posture, Severity, Span};

const OPEN: &str = "/*---";
const CLOSE: &str = "---*/";
/// The longest that a run may take in all.
const MAX_TIMEOUT: Span = Span::secs(24 * 3600);
/// The longest that a run may wait for an approval.
const MAX_APPROVE_WITHIN: Span = Span::secs(30 * 24 * 3600);
/// What `approve_within` is when it is not given.
const APPROVE_WITHIN: Span = Span::secs(3600);
/// What `timeout` is when it is not given.
const TIMEOUT: Span = Span::secs(600);
/// Runs of one playbook under way at once when `concurrency` does not say.
const RUNS: u32 = 64;

/// The header as it is written: a closed table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) title: String,
    pub(super) on: Spanned<Trigger>,
    pub(super) mode: Mode,
    pub(super) actions: Vec<Spanned<String>>,
    #[serde(default, deserialize_with = "budget")]
    pub(super) budget: Budget,
    #[serde(default = "default_timeout", deserialize_with = "timeout")]
    pub(super) timeout: Span,
    #[serde(default = "default_approve_within", deserialize_with = "approve_within")]
    pub(super) approve_within: Span,
    pub(super) per: Option<Arc<str>>,
    #[serde(default)]
    pub(super) concurrency: Concurrency,
    #[serde(default, deserialize_with = "debounce")]
    pub(super) debounce: Option<Span>,
    #[serde(default)]
    pub(super) on_failure: OnFailure,
}

/// How many runs of a playbook are under way at once; further ones wait in their order. Those that wait for a person do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Concurrency {
    /// In all.
    #[serde(deserialize_with = "one_or_more")]
    pub runs: u32,
    /// For one entity, with `per`.
    #[serde(deserialize_with = "one_or_more")]
    pub per_entity: u32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Concurrency { runs: RUNS, per_entity: 1 }
    }
}

/// What becomes of a run in which a step failed or was refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The script decides: it sees the outcome.
    #[default]
    Continue,
    /// The run fails.
    Stop,
    /// The run fails, and what it has done is undone, the last first; also when it fails for another reason.
    Undo,
}

/// Which findings a playbook runs for: all that is given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Trigger {
    /// Any of these is the rule's id or name.
    rule: Words,
    severity: Option<Severities>,
    /// Any of these is one of the finding's tags.
    tag: Words,
    /// The finding has an entity of one of these roles.
    entity: Words,
    /// Any of these is the system's posture.
    posture: Option<Postures>,
    /// The finding's time is within one of these, in UTC.
    time: Option<Hours>,
}

impl Trigger {
    /// Whether a finding starts the playbook.
    #[must_use]
    pub fn holds(&self, finding: &Finding) -> bool {
        let rule = |word: &Arc<str>| *word == finding.rule.id || Some(word) == finding.rule.name.as_ref();
        let tag = |word: &Arc<str>| finding.tags.contains(word);
        (self.rule.0.is_empty() || self.rule.0.iter().any(rule))
            && self.severity.is_none_or(|severities| severities.holds(finding.severity))
            && (self.tag.0.is_empty() || self.tag.0.iter().any(tag))
            && (self.entity.0.is_empty() || self.entity.0.iter().any(|role| finding.entities.contains_key(&**role)))
            && self.time.as_ref().is_none_or(|hours| hours.hold(finding.time))
    }

    /// Whether it starts the playbook under this posture.
    #[must_use]
    pub fn holds_in(&self, posture: Posture) -> bool {
        self.posture.as_ref().is_none_or(|Postures(any)| any.contains(&posture))
    }

    /// The rules that it names.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rule.0.iter()
    }

    fn is_empty(&self) -> bool {
        self.rule.0.is_empty() && self.severity.is_none() && self.tag.0.is_empty() && self.entity.0.is_empty()
    }
}

/// One posture or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Postures(Vec<Posture>);

impl<'de> Deserialize<'de> for Postures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Words(words) = Words::deserialize(deserializer)?;
        let posture = |word: &Arc<str>| {
            let all = [Posture::Observe, Posture::Guarded, Posture::Armed];
            let found = all.into_iter().find(|posture| posture.word() == &**word);
            found.ok_or_else(|| de::Error::custom(format!("`{word}` is no posture: write observe, guarded or armed")))
        };
        words.iter().map(posture).collect::<Result<_, _>>().map(Postures)
    }
}

/// One word or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words(pub(super) Vec<Arc<str>>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a string or a list of strings")]
        enum Written {
            One(Arc<str>),
            Many(Vec<Arc<str>>),
        }
        match Written::deserialize(deserializer)? {
            Written::One(word) => Ok(Words(vec![word])),
            Written::Many(words) if words.is_empty() => Err(de::Error::custom("an empty list would match nothing")),
            Written::Many(words) => Ok(Words(words)),
        }
    }
}

/// A range of severities, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Severities {
    least: u8,
    most: u8,
}

impl Severities {
    fn holds(self, severity: Severity) -> bool {
        (self.least..=self.most).contains(&u8::from(severity))
    }

    /// `>=4`, `>3`, `<=2`, `<3`, `4`; a level's name stands for its number.
    fn parse(text: &str) -> Option<Severities> {
        let text = text.trim();
        let (sign, rest) = text.split_at(text.find(|c| !"<>=".contains(c))?);
        let rest = rest.trim();
        let n = rest.parse::<u8>().ok().and_then(|n| Severity::try_from(n).ok()).or_else(|| rest.parse().ok()).map(u8::from)?;
        let (least, most) = match sign {
            ">=" => (n, 5),
            ">" => (n + 1, 5),
            "<=" => (1, n),
            "<" => (1, n - 1),
            "" | "=" | "==" => (n, n),
            _ => return None,
        };
        (least <= most).then_some(Severities { least, most })
    }
}

impl<'de> Deserialize<'de> for Severities {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a severity such as \">=4\", 1 (info) to 5 (critical)")]
        enum Written {
            Number(u8),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Number(n) => n.to_string(),
            Written::Text(text) => text,
        };
        Severities::parse(&text).ok_or_else(|| de::Error::custom(format!("`{text}` names no severity: write such as \">=4\", 1 (info) to 5 (critical)")))
    }
}

fn default_timeout() -> Span {
    TIMEOUT
}

fn default_approve_within() -> Span {
    APPROVE_WITHIN
}

fn timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    bounded(deserializer, "a timeout", MAX_TIMEOUT)
}

fn approve_within<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    bounded(deserializer, "the time for an approval", MAX_APPROVE_WITHIN)
}

fn bounded<'de, D: Deserializer<'de>>(deserializer: D, what: &str, most: Span) -> Result<Span, D::Error> {
    let span = Span::deserialize(deserializer)?;
    if span > Span::ZERO && span <= most { Ok(span) } else { Err(de::Error::custom(format!("{what} is between 1ms and {most}"))) }
}

fn debounce<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Span>, D::Error> {
    bounded(deserializer, "a debounce", MAX_DEBOUNCE).map(Some)
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        0 => Err(de::Error::custom("with 0 no run would ever begin")),
        n => Ok(n),
    }
}

fn budget<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Budget, D::Error> {
    let budget = Budget::deserialize(deserializer)?;
    if budget.per_hour <= MAX_PER_HOUR { Ok(budget) } else { Err(de::Error::custom(format!("`per_hour` is at most {MAX_PER_HOUR}"))) }
}

/// Reads the header of a playbook file.
///
/// # Errors
/// There is none, or it is not of its form; the place is the file's.
pub(super) fn header(file: &SourceFile) -> Result<Header, Diagnostic> {
    let toml = toml_in_place(file)?;
    let header: Header = from_toml(&file.name, &toml)?;
    if header.on.get_ref().is_empty() {
        let place = Place::of_offset(&toml, header.on.span().start);
        return Err(Diagnostic::new(&*file.name, place, "`on` names nothing, so that the playbook would run for every finding")
            .help("name a `rule`, a `severity`, a `tag` or an `entity`"));
    }
    Ok(header)
}

/// The header's TOML with everything before it blanked, so that places in it are places in the file.
fn toml_in_place(file: &SourceFile) -> Result<String, Diagnostic> {
    let text = &*file.text;
    let start = text.len() - text.trim_start_matches([' ', '\t', '\r', '\n']).len();
    let at_start = Place::of_offset(text, start);
    let Some(rest) = text.get(start..).and_then(|rest| rest.strip_prefix(OPEN)) else {
        return Err(Diagnostic::new(&*file.name, at_start, "the playbook has no header").help(format!("begin the file with `{OPEN}`, TOML and `{CLOSE}`")));
    };
    let Some((toml, _)) = rest.split_once(CLOSE) else {
        return Err(Diagnostic::new(&*file.name, at_start, "the header does not end").help(format!("end it with `{CLOSE}`")));
    };
    let before = text.get(..start + OPEN.len()).unwrap_or_default();
    let blank = before.chars().map(|c| if c == '\n' { '\n' } else { ' ' });
    Ok(blank.chain(toml.chars()).collect())
}
