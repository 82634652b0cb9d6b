//! The checked syntax tree of Sigma documents: specification v2.1.0 and, under `opmas:`, our attributes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diag::Place;
use crate::model::{LogSource, Severity, Span};

/// One rule: a detection or a correlation document.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The file it stands in, as the user named it.
    pub file: Arc<str>,
    /// Where its document begins.
    pub place: Place,
    /// `title` (required).
    pub title: Arc<str>,
    /// `id`
    pub id: Option<Arc<str>>,
    /// `name`
    pub name: Option<Arc<str>>,
    /// `description`
    pub description: Option<Arc<str>>,
    /// `level`
    pub level: Option<Severity>,
    /// `tags`
    pub tags: Vec<Arc<str>>,
    /// The first 12 hexadecimal digits of the SHA-256 of the document's text.
    pub revision: Arc<str>,
    /// Our attributes.
    pub opmas: Opmas,
    /// `generate`, at top level or inside `correlation` (C11).
    pub generate: Option<bool>,
    /// What it looks for.
    pub body: Body,
}

impl Rule {
    /// What X3 prints and O6 hashes: `id`, else `name`, else `title`.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        self.id.as_ref().or(self.name.as_ref()).unwrap_or(&self.title)
    }
}

/// What a rule looks for.
#[derive(Clone, Debug)]
pub enum Body {
    /// Selections over one event.
    Detection(Detection),
    /// A condition over a window of matches.
    Correlation(Correlation),
}

/// A detection: named searches and a condition over them.
#[derive(Clone, Debug, PartialEq)]
pub struct Detection {
    /// Which events it is for.
    pub logsource: LogSource,
    /// The searches, in the order of the file.
    pub searches: Vec<(Arc<str>, Search)>,
    /// Over the searches; several conditions of a list are joined by `or`.
    pub condition: Condition,
}

/// A condition over searches.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The search with this index in [`Detection::searches`].
    Search(usize),
    /// All of them.
    And(Vec<Condition>),
    /// Any of them.
    Or(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
}

/// One search identifier's content.
#[derive(Clone, Debug, PartialEq)]
pub enum Search {
    /// A map: every item must hold.
    All(Vec<Item>),
    /// A list of maps: any of them must hold.
    Any(Vec<Search>),
    /// Keywords: any of them anywhere in the event (`all` modifier: every one).
    Keywords(Item),
}

/// A field with its modifiers and values.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The field's name; empty for keywords.
    pub field: Arc<str>,
    /// What is asked of it; any of them, or every one with `all`.
    pub tests: Vec<Test>,
    /// `|all`: every test must hold.
    pub all: bool,
    /// `|neq`: the item holds when it does not.
    pub negated: bool,
    /// Where it stands.
    pub place: Place,
}

/// One test of a field's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// `null`: absent or null.
    Null,
    /// `|exists`
    Exists(bool),
    /// Text, with wildcards as parts.
    Text {
        /// Literal pieces and wildcards.
        pattern: Vec<Piece>,
        /// `|cased`
        cased: bool,
    },
    /// A number or a boolean, compared as what it is and as its text.
    Number(serde_json::Number),
    /// A boolean.
    Bool(bool),
    /// `|re` with its flags, found anywhere in the text.
    Regex(Pattern),
    /// `|cidr`
    Cidr(ipnet::IpNet),
    /// `|lt |lte |gt |gte`
    Compare(Comparison, f64),
    /// `|minute` … `|year`, alone or with `|lt` …
    Part(TimePart, Comparison, f64),
    /// `|fieldref`
    FieldRef {
        /// The other field.
        field: Arc<str>,
        /// `|cased`
        cased: bool,
        /// Whether anything may stand before and behind its value (`endswith`, `startswith`, `contains`).
        open: (bool, bool),
    },
    /// The writings of one value, such as the three of `base64offset`: any of them.
    AnyOf(Vec<Test>),
}

/// A compiled regular expression; equal when its source is.
#[derive(Clone, Debug)]
pub struct Pattern(regex::Regex);

impl Pattern {
    /// The most memory that one compiled expression may take.
    pub const MAX_BYTES: usize = 4 << 20;

    /// Compiles the text of a `re` value, whose flags stand in front of it as `(?ims)`.
    ///
    /// # Errors
    /// It is no regular expression of the `regex` crate (which has neither look-around nor back-references), or a larger one than [`Self::MAX_BYTES`].
    pub fn new(source: &str) -> Result<Pattern, regex::Error> {
        regex::RegexBuilder::new(source).size_limit(Self::MAX_BYTES).build().map(Pattern)
    }

    /// The text that it was compiled from.
    #[must_use]
    pub fn source(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it matches somewhere in the text.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.source() == other.source()
    }
}

/// A piece of a text pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it stands.
    Literal(String),
    /// `*`: any text, also none, also across line breaks.
    Any,
    /// `?`: one character.
    One,
    /// `|windash`: one of the characters of [`DASHES`].
    Dash,
}

/// What `windash` takes for one another: hyphen, slash, en dash, em dash, horizontal bar.
pub const DASHES: [char; 5] = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];

/// What of a time is compared, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimePart {
    /// 0 to 59
    Minute,
    /// 0 to 23
    Hour,
    /// Of the month, 1 to 31.
    Day,
    /// Of the year by ISO 8601, 1 to 53.
    Week,
    /// 1 to 12
    Month,
    /// As it is written: 2026.
    Year,
}

/// How two numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `lt`
    Lt,
    /// `lte`
    Lte,
    /// `gt`
    Gt,
    /// `gte`
    Gte,
    /// `eq`
    Eq,
    /// `neq`
    Neq,
}

/// A correlation (Sigma correlation rules v2.1.0).
#[derive(Clone, Debug)]
pub struct Correlation {
    /// `type`
    pub kind: CorrelationType,
    /// `rules`: ids or names, each with its place.
    pub rules: Vec<(Arc<str>, Place)>,
    /// `group-by`; empty is one group (C9).
    pub group_by: Vec<Arc<str>>,
    /// `timespan`
    pub timespan: Span,
    /// `condition`: every comparison must hold (a range is two); empty for temporal types without one, and for `missing`.
    pub condition: Vec<(Comparison, f64)>,
    /// `condition` of a temporal correlation as a text over its rules (C5): a search is an index in `rules`.
    pub expression: Option<Condition>,
    /// `condition.field` of the value types: one name, or several for `value_count` and `new_value`.
    pub field: Vec<Arc<str>>,
    /// `condition.percentile`, 0 to 100 (C10); 50 for `value_median`.
    pub percentile: Option<f64>,
    /// `aliases`: alias → rule reference → field.
    pub aliases: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Arc<str>>>,
}

/// What a correlation computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CorrelationType {
    /// Counts entries.
    EventCount,
    /// Counts distinct values (C10).
    ValueCount,
    /// Adds up numbers.
    ValueSum,
    /// The mean of numbers.
    ValueAvg,
    /// A percentile of numbers; without `percentile` the share of equal values. `value_median`, too.
    ValuePercentile,
    /// Which rules matched, in any order (C5).
    Temporal,
    /// All rules, in the order of the list (C7).
    TemporalOrdered,
    /// No match any more (C6).
    Missing,
    /// A value that was not there before (C14).
    NewValue,
}

impl CorrelationType {
    /// Whether its condition names a field.
    #[must_use]
    pub fn has_field(self) -> bool {
        matches!(self, Self::ValueCount | Self::ValueSum | Self::ValueAvg | Self::ValuePercentile | Self::NewValue)
    }
}

/// When a condition that stays true is said again (C3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Refire {
    /// Firing disarms, a false evaluation arms again.
    #[default]
    Edge,
    /// At each true evaluation.
    Every,
    /// Firing empties the group.
    Reset,
}

/// Our attributes: the closed table `opmas:`.
#[derive(Clone, Debug, Default)]
pub struct Opmas {
    /// `entities`: role → field, for joins, risk and playbooks.
    pub entities: BTreeMap<Arc<str>, Arc<str>>,
    /// `refire`; `None` is `edge`, or `every` with a cooldown (C3).
    pub refire: Option<Refire>,
    /// `cooldown`
    pub cooldown: Option<Span>,
    /// `min_events`; `None` is 1.
    pub min_events: Option<u64>,
    /// `lateness`; `None` is 5 s.
    pub lateness: Option<Span>,
    /// `warmup` of `new_value` (C14); `None` is a day, or a shorter timespan.
    pub warmup: Option<Span>,
    /// `remediation`
    pub remediation: Option<Arc<str>>,
}
