//! What loads and is still not as it should be: the specification's word on metadata, SigmaHQ's conventions, traps.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::ast::{Body, Comparison, Condition, Correlation, CorrelationType, Detection, Item, Rule, Search, Test};
use super::collection;
use super::read::Sink;
use super::ruleset::{CASES_SUFFIX, RuleSet};
use super::yaml::{self, Map, Node, Text};
use crate::diag::{self, Diagnostic, Place, SourceFile};

/// How much a remark weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Against the specification.
    Error,
    /// Against SigmaHQ's conventions: <https://github.com/SigmaHQ/sigma-specification/blob/main/sigmahq/sigmahq-rule-convention.md>
    Warning,
    /// It may do something else than was meant.
    Hint,
}

/// The keys of a rule (specification v2.1.0), and ours.
const KEYS: &[&str] = &[
    "title",
    "id",
    "related",
    "name",
    "taxonomy",
    "status",
    "description",
    "license",
    "author",
    "references",
    "date",
    "modified",
    "logsource",
    "detection",
    "correlation",
    "filter",
    "fields",
    "falsepositives",
    "level",
    "tags",
    "scope",
    "generate",
    "opmas",
];
const STATUSES: &[&str] = &["stable", "test", "experimental", "deprecated", "unsupported"];
const RELATIONS: &[&str] = &["derived", "obsolete", "merged", "renamed", "similar"];
const NAMESPACES: &[&str] = &["attack", "car", "cve", "d3fend", "detection", "stp", "tlp"];
/// What SigmaHQ wants every detection to have.
const WANTED: &[&str] = &["id", "status", "description", "author", "date", "level", "falsepositives", "references"];
/// Searches of a condition of which every way to hold is tried: that is two to the power of these.
const MAX_TRIED: usize = 10;
/// Lists of texts, without one twice.
const LISTS: &[&str] = &["references", "fields", "falsepositives", "tags", "scope"];

/// Remarks on files that load, in the order of their places, and on the rules of the set that they made.
#[must_use]
pub fn lint(files: &[SourceFile], set: &RuleSet) -> Vec<(Weight, Diagnostic)> {
    let mut found = Vec::new();
    let loaded: HashSet<&Arc<str>> = set.rules.iter().map(|rule| &rule.file).collect();
    for file in files.iter().filter(|file| !file.name.ends_with(CASES_SUFFIX) && loaded.contains(&file.name)) {
        let mut lint = Lint { file: &file.name, found: &mut found };
        lint.file_name();
        let documents = yaml::parse(file.text.strip_prefix('\u{feff}').unwrap_or(&file.text)).unwrap_or_default();
        for document in collection::written_out(documents, &mut Sink::new(&file.name)) {
            if let Node::Map(root) = &document.root {
                lint.document(root);
            }
        }
    }
    for rule in &set.rules {
        Lint { file: &rule.file, found: &mut found }.rule(rule);
    }
    found.sort_by(|(_, a), (_, b)| (&a.file, a.place).cmp(&(&b.file, b.place)));
    found
}

struct Lint<'a> {
    file: &'a Arc<str>,
    found: &'a mut Vec<(Weight, Diagnostic)>,
}

impl Lint<'_> {
    fn say(&mut self, weight: Weight, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.found.push((weight, Diagnostic::new(Arc::clone(self.file), place, message).help(help)));
    }

    fn file_name(&mut self) {
        let name = self.file.rsplit('/').next().unwrap_or_default();
        let stem = name.strip_suffix(".yml").unwrap_or_default();
        if !(10..=90).contains(&name.len()) || stem.is_empty() || !stem.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            self.say(Weight::Warning, Place::default(), "the file's name is not as SigmaHQ has it", "use 10 to 90 of a-z 0-9 _ and the ending .yml");
        }
    }

    fn document(&mut self, root: &Map) {
        for (key, _) in root.entries.iter().filter(|(key, _)| !KEYS.contains(&&*key.text)) {
            if let Some(near) = diag::nearest(&key.text, KEYS.iter().copied()) {
                self.say(Weight::Hint, key.place, format!("`{}` means nothing here", key.text), format!("did you mean `{near}`?"));
            }
        }
        self.texts(root);
        self.lists(root);
        self.related(root);
        self.dates(root);
        for wanted in WANTED.iter().filter(|wanted| root.get("detection").is_some() && root.get(wanted).is_none()) {
            self.say(Weight::Warning, root.place, format!("there is no `{wanted}`"), "SigmaHQ asks for one");
        }
        if let Some(detection) = root.get("detection") {
            self.values(detection);
        }
    }

    fn texts(&mut self, root: &Map) {
        let text = |key: &str| if let Some(Node::Text(text)) = root.get(key) { Some(text) } else { None };
        for (key, most) in [("title", 256), ("name", 256), ("description", 65_535)] {
            if let Some(text) = text(key).filter(|text| text.text.chars().count() > most) {
                self.say(Weight::Error, text.place, format!("`{key}` is longer than {most} characters"), "shorten it");
            }
        }
        if let Some(id) = text("id") {
            self.uuid(id);
        }
        if let Some(status) = text("status") {
            self.word(status, "status", STATUSES);
        }
        if let Some(title) = text("title") {
            let long = title.text.chars().count() > 120;
            if long || title.text.ends_with('.') || title.text.starts_with("Detects ") {
                self.say(Weight::Warning, title.place, "the title is not as SigmaHQ has it", "at most 120 characters, no full stop, not `Detects …`");
            }
        }
        if let Some(short) = text("description").filter(|text| text.text.chars().count() < 16) {
            self.say(Weight::Warning, short.place, "the description says little", "SigmaHQ asks for 16 characters or more");
        }
    }

    fn word(&mut self, text: &Text, what: &str, known: &[&str]) {
        if !known.contains(&&*text.text) {
            let near = diag::nearest(&text.text, known.iter().copied());
            let help = near.map_or_else(|| format!("known: {}", known.join(", ")), |near| format!("did you mean `{near}`?"));
            self.say(Weight::Error, text.place, format!("unknown {what} `{}`", text.text), help);
        }
    }

    fn uuid(&mut self, text: &Text) {
        let groups: Vec<usize> = text.text.split('-').map(|group| if group.bytes().all(|b| b.is_ascii_hexdigit()) { group.len() } else { 0 }).collect();
        if groups != [8, 4, 4, 4, 12] {
            self.say(
                Weight::Error,
                text.place,
                format!("`{}` is no UUID, which an id has to be", text.text),
                "write one, such as `uuidgen -r` prints, and use `name` for names",
            );
        }
    }

    fn lists(&mut self, root: &Map) {
        for key in LISTS {
            let Some(node) = root.get(key) else { continue };
            let Node::List(_, members) = node else {
                self.say(Weight::Error, node.place(), format!("`{key}` must be a list, but is {}", node.kind()), "write `- …` lines below it");
                continue;
            };
            let mut seen: Vec<&str> = Vec::new();
            for member in members {
                let Node::Text(text) = member else {
                    self.say(Weight::Error, member.place(), format!("each member of `{key}` must be text"), "write one value");
                    continue;
                };
                if seen.contains(&&*text.text) {
                    self.say(Weight::Error, text.place, format!("`{}` stands twice in `{key}`", text.text), "keep one of them");
                }
                seen.push(&text.text);
                match *key {
                    "tags" => self.tag(text),
                    "falsepositives" if ["none", "pentest", "penetration test"].contains(&&*text.text.to_lowercase()) => {
                        self.say(
                            Weight::Warning,
                            text.place,
                            format!("`{}` is no cause of false positives", text.text),
                            "say what else may look like this, or `Unknown`",
                        );
                    }
                    _ => {}
                }
            }
        }
    }

    fn tag(&mut self, text: &Text) {
        let of = |part: &str, more: &[u8]| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || more.contains(&b));
        match text.text.split_once('.') {
            Some((namespace, rest)) if of(namespace, b"_-") && of(rest, b"._-") => {
                if !NAMESPACES.contains(&namespace) {
                    self.say(Weight::Warning, text.place, format!("SigmaHQ knows no namespace `{namespace}`"), format!("known: {}", NAMESPACES.join(", ")));
                }
            }
            _ => {
                self.say(Weight::Error, text.place, format!("`{}` is no tag", text.text), "write it in lower case as `namespace.name`, such as `attack.t1110`")
            }
        }
    }

    fn related(&mut self, root: &Map) {
        let Some(node) = root.get("related") else { return };
        let Node::List(_, members) = node else {
            return self.say(Weight::Error, node.place(), "`related` must be a list", "write `- id: …` and `type: …` below it");
        };
        for member in members {
            let part = |key| {
                if let Node::Map(map) = member
                    && let Some(Node::Text(text)) = map.get(key)
                {
                    Some(text)
                } else {
                    None
                }
            };
            match (part("id"), part("type")) {
                (Some(id), Some(kind)) => {
                    self.uuid(id);
                    self.word(kind, "relation", RELATIONS);
                }
                _ => self.say(Weight::Error, member.place(), "a related rule has an `id` and a `type`", format!("the type is one of {}", RELATIONS.join(", "))),
            }
        }
    }

    fn dates(&mut self, root: &Map) {
        let mut said: Vec<&Text> = Vec::new();
        for key in ["date", "modified"] {
            let Some(Node::Text(text)) = root.get(key) else { continue };
            if text.text.parse::<jiff::civil::Date>().is_ok() && text.text.len() == 10 {
                said.push(text);
            } else {
                self.say(Weight::Error, text.place, format!("`{key}`: `{}` is no date", text.text), "write it as `2026-11-21`");
            }
        }
        if let [date, modified] = said[..]
            && modified.text < date.text
        {
            self.say(Weight::Warning, modified.place, "it was modified before it was made", "correct one of the dates");
        }
    }

    /// Values as they are written: `\*` at the end is no wildcard.
    fn values(&mut self, node: &Node) {
        match node {
            Node::Text(text) if text.text.ends_with("\\*") && !text.text.ends_with("\\\\*") => {
                self.say(Weight::Hint, text.place, "`\\*` is a plain asterisk", "for a backslash and then anything write `\\\\*`");
            }
            Node::Text(_) => {}
            Node::List(_, members) => members.iter().for_each(|member| self.values(member)),
            // In a regular expression it is the same.
            Node::Map(map) => map.entries.iter().filter(|(key, _)| !key.text.contains("|re")).for_each(|(_, node)| self.values(node)),
        }
    }

    fn rule(&mut self, rule: &Rule) {
        match &rule.body {
            Body::Detection(detection) => self.detection(detection, rule.place),
            Body::Correlation(correlation) => self.correlation(correlation, rule.place),
        }
    }

    fn detection(&mut self, detection: &Detection, place: Place) {
        let mut used = vec![false; detection.searches.len()];
        mark(&detection.condition, &mut used);
        for ((name, search), _) in detection.searches.iter().zip(&used).filter(|((name, _), used)| !**used && !name.starts_with('_')) {
            let at = first(search).map_or(place, |item| item.place);
            self.say(Weight::Hint, at, format!("the condition does not use the search `{name}`"), "use it or remove it");
        }
        self.never(&detection.condition, detection.searches.len(), place);
        if holds(&detection.condition, 0) {
            let help = "ask for something that must be there, too: otherwise it is looked at for every event of its log source";
            self.say(Weight::Hint, place, "this rule also holds for events in which nothing of it is found", help);
        }
        detection.searches.iter().for_each(|(_, search)| each(search, &mut |item| self.item(item)));
    }

    /// A condition that asks for something and for its absence.
    fn never(&mut self, condition: &Condition, len: usize, place: Place) {
        if len <= MAX_TRIED && !(0..1 << len).any(|these| holds(condition, these)) {
            self.say(Weight::Hint, place, "the condition never holds", "it asks for something and for its absence");
        }
    }

    fn item(&mut self, item: &Item) {
        if item.all && item.tests.len() == 1 {
            self.say(Weight::Hint, item.place, "`all` over one value changes nothing", "list several values, or leave it away");
        }
        if item.negated {
            let help = format!("add `{}|exists: true` if it must be there", item.field);
            self.say(Weight::Hint, item.place, format!("`neq` also holds for events without `{}`", item.field), help);
        }
        let idle = |test: &Test| matches!(test, Test::Regex(pattern) if pattern.source().starts_with(".*") || pattern.source().ends_with(".*"));
        if item.tests.iter().any(idle) {
            self.say(
                Weight::Hint,
                item.place,
                "`.*` at an end of a regular expression changes nothing",
                "leave it away: what is looked for may stand anywhere",
            );
        }
    }

    fn correlation(&mut self, correlation: &Correlation, place: Place) {
        let counts = matches!(correlation.kind, CorrelationType::EventCount | CorrelationType::ValueCount);
        let few = |(comparison, bound): &(Comparison, f64)| match comparison {
            Comparison::Lt | Comparison::Lte => true,
            Comparison::Eq => *bound == 0.0,
            _ => false,
        };
        if counts && correlation.condition.iter().any(few) && !correlation.condition.iter().any(|(by, _)| matches!(by, Comparison::Gt | Comparison::Gte)) {
            let help = "for something that falls silent take `type: missing`";
            self.say(Weight::Hint, place, "this count never sees silence: a window begins with a match", help);
        }
        if let Some(expression) = &correlation.expression {
            self.never(expression, correlation.rules.len(), place);
        }
        if correlation.rules.len() < 2
            && correlation.expression.is_none()
            && matches!(correlation.kind, CorrelationType::Temporal | CorrelationType::TemporalOrdered)
        {
            self.say(Weight::Hint, place, "a temporal correlation of one rule holds whenever that holds", "name another rule");
        }
    }
}

fn mark(condition: &Condition, used: &mut [bool]) {
    match condition {
        Condition::Search(index) => used.get_mut(*index).into_iter().for_each(|used| *used = true),
        Condition::And(parts) | Condition::Or(parts) => parts.iter().for_each(|part| mark(part, used)),
        Condition::Not(inner) => mark(inner, used),
    }
}

/// Whether the condition holds when the searches of these bits do, and no other.
fn holds(condition: &Condition, these: u64) -> bool {
    match condition {
        Condition::Search(index) => u32::try_from(*index).is_ok_and(|index| these.checked_shr(index).unwrap_or(0) & 1 == 1),
        Condition::And(parts) => parts.iter().all(|part| holds(part, these)),
        Condition::Or(parts) => parts.iter().any(|part| holds(part, these)),
        Condition::Not(inner) => !holds(inner, these),
    }
}

fn first(search: &Search) -> Option<&Item> {
    match search {
        Search::All(items) => items.first(),
        Search::Any(searches) => searches.first().and_then(first),
        Search::Keywords(item) => Some(item),
    }
}

fn each(search: &Search, see: &mut dyn FnMut(&Item)) {
    match search {
        Search::All(items) => items.iter().for_each(see),
        Search::Any(searches) => searches.iter().for_each(|search| each(search, see)),
        Search::Keywords(item) => see(item),
    }
}

/// The fields of events that a rule asks for: of its searches, its groups and values, its entities.
#[must_use]
pub fn fields(rule: &Rule) -> BTreeSet<Arc<str>> {
    let mut found: BTreeSet<Arc<str>> = rule.opmas.entities.values().cloned().collect();
    match &rule.body {
        Body::Detection(detection) => {
            let mut see = |item: &Item| {
                found.insert(Arc::clone(&item.field));
                found.extend(item.tests.iter().filter_map(|test| if let Test::FieldRef { field, .. } = test { Some(Arc::clone(field)) } else { None }));
            };
            detection.searches.iter().for_each(|(_, search)| each(search, &mut see));
        }
        Body::Correlation(correlation) => {
            found.extend(correlation.group_by.iter().chain(&correlation.field).cloned());
            found.retain(|field| !correlation.aliases.contains_key(field));
            found.extend(correlation.aliases.values().flat_map(|by_rule| by_rule.values()).cloned());
        }
    }
    found.remove("");
    found
}
