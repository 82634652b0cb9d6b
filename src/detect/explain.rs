//! Which part of a rule holds for an event and which does not, with the values.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};

use super::check::Check;
use super::leaf::Fields as _;
use super::logsource::{conflicts, of_fields};
use super::scan::Ready;
use super::{LogsourceMode, lookup, spaces};
use crate::model::{Event, LogSource};
use crate::sigma::{Comparison, DASHES, Detection, Item, Piece, Search, Test};

/// Longest value that is shown whole, in characters.
const MAX_SHOWN: usize = 200;
/// Most values of one field that are shown.
const MAX_VALUES: usize = 8;

/// A rule held against an event, part by part, as lines for a person.
///
/// The first line says whether the rule holds; then the log source, and each search with its items: `+` holds, `-` does not.
#[must_use]
pub fn explain(detection: &Detection, event: &Event, mode: LogsourceMode) -> String {
    let unspaced = spaces::without(&event.fields);
    let fields = unspaced.as_ref().unwrap_or(&event.fields);
    let skipped = conflicts(&detection.logsource, of_fields(fields, &event.logsource, mode));
    let holds = !skipped && Ready::new(detection).holds(fields);
    let mut out = Lines(String::new());
    out.line(0, holds, format_args!("{}", if holds { "the rule holds" } else { "the rule does not hold" }));
    let source = Source(&detection.logsource);
    out.line(1, !skipped, format_args!("logsource {source}{}", if skipped { ": the event is of another" } else { "" }));
    for (name, search) in &detection.searches {
        out.search(1, name, search, fields);
    }
    out.0
}

struct Lines(String);

impl Lines {
    fn line(&mut self, depth: usize, holds: bool, text: fmt::Arguments<'_>) {
        // Writing to a text does not fail.
        let _ = writeln!(self.0, "{:indent$}{} {text}", "", if holds { '+' } else { '-' }, indent = depth * 2);
    }

    /// Its own line and those of its parts; whether it holds.
    fn search(&mut self, depth: usize, name: &str, search: &Search, fields: &Map<String, Value>) {
        let mut inner = Lines(String::new());
        let holds = inner.parts(depth + 1, search, fields);
        self.line(depth, holds, format_args!("{name}"));
        self.0.push_str(&inner.0);
    }

    fn parts(&mut self, depth: usize, search: &Search, fields: &Map<String, Value>) -> bool {
        match search {
            // Each is shown, also behind one that does not hold.
            Search::All(items) => items.iter().filter(|item| !self.item(depth, item, fields)).count() == 0,
            Search::Keywords(item) => self.item(depth, item, fields),
            Search::Any(searches) => searches.iter().fold(false, |any, search| {
                let mut inner = Lines(String::new());
                let holds = inner.parts(depth + 1, search, fields);
                self.line(depth, holds, format_args!("any of"));
                self.0.push_str(&inner.0);
                holds || any
            }),
        }
    }

    fn item(&mut self, depth: usize, item: &Item, fields: &Map<String, Value>) -> bool {
        let keyword = item.field.is_empty();
        let met: Vec<bool> = item.tests.iter().map(|test| is(test, &item.field, fields)).collect();
        let holds = (if item.all { met.iter().all(|met| *met) } else { met.contains(&true) }) != item.negated;
        let how = match (item.all, item.negated) {
            (true, true) => " not all of",
            (true, false) => " all of",
            (false, true) => " none of",
            (false, false) => "",
        };
        let name = if keyword { "any text" } else { &item.field };
        let values = if keyword { String::new() } else { format!(" is {}", values(fields, &item.field)) };
        self.line(depth, holds, format_args!("{name}{values}; asked{how}:"));
        for (test, met) in item.tests.iter().zip(met) {
            self.line(depth + 1, met, format_args!("{}", Shown(test)));
        }
        holds
    }
}

fn is(test: &Test, field: &str, fields: &Map<String, Value>) -> bool {
    let check = Check::new(test);
    if field.is_empty() { fields.any_string(&mut |text| check.is_text(text)) } else { check.holds(fields, field) }
}

fn values(fields: &Map<String, Value>, field: &str) -> String {
    let mut found = Vec::new();
    lookup::any_value(fields, field, &mut |value| {
        found.push(cut(&value.to_string()));
        found.len() >= MAX_VALUES
    });
    if found.is_empty() { "absent".to_owned() } else { found.join(", ") }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

struct Source<'s>(&'s LogSource);

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("product", &self.0.product), ("category", &self.0.category), ("service", &self.0.service)];
        let written: Vec<String> = parts.into_iter().filter_map(|(name, part)| Some(format!("{name} {}", part.as_ref()?))).collect();
        f.write_str(&if written.is_empty() { "any".to_owned() } else { written.join(", ") })
    }
}

/// A test as a person reads it.
struct Shown<'s>(&'s Test);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Test::Null => f.write_str("null or absent"),
            Test::Exists(true) => f.write_str("exists"),
            Test::Exists(false) => f.write_str("does not exist"),
            Test::Text { pattern, cased } => write!(f, "{:?}{}", pattern_text(pattern), if *cased { ", case counts" } else { "" }),
            Test::Number(number) => write!(f, "{number}"),
            Test::Bool(value) => write!(f, "{value}"),
            Test::Regex(pattern) => write!(f, "regular expression {}", pattern.source()),
            Test::Cidr(net) => write!(f, "in {net}"),
            Test::Compare(comparison, bound) => write!(f, "{} {bound}", sign(*comparison)),
            Test::Part(part, comparison, bound) => write!(f, "{} {} {bound}", format!("{part:?}").to_lowercase(), sign(*comparison)),
            Test::FieldRef { field, open, .. } => {
                let how = match open {
                    (false, false) => "equal to",
                    (true, true) => "contains",
                    (false, true) => "starts with",
                    (true, false) => "ends with",
                };
                write!(f, "{how} the field {field}")
            }
            Test::AnyOf(tests) => tests.iter().enumerate().try_for_each(|(i, test)| write!(f, "{}{}", if i > 0 { " or " } else { "" }, Shown(test))),
        }
    }
}

/// With its wildcards; a dash that `windash` made stands as the first of them.
fn pattern_text(pattern: &[Piece]) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Any => "*".to_owned(),
        Piece::One => "?".to_owned(),
        Piece::Dash => DASHES.first().map(ToString::to_string).unwrap_or_default(),
    };
    pattern.iter().map(piece).collect()
}

fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Lt => "below",
        Comparison::Lte => "at most",
        Comparison::Gt => "above",
        Comparison::Gte => "at least",
        Comparison::Eq => "equal to",
        Comparison::Neq => "other than",
    }
}
