//! One YAML document to a rule or a filter. The top level and `logsource` are open: keys that mean nothing here are let be.

use std::str::FromStr;
use std::sync::Arc;

use ring::digest;

use super::ast::{Body, Detection, Rule};
use super::correlation;
use super::detection::{self, Section};
use super::opmas;
use super::params;
use super::read::{self, Sink};
use super::yaml::{Document, Map, Node};
use crate::diag::{self, Place};
use crate::model::{LogSource, Severity, hex};

/// The sections that say what a document is.
pub(super) const SECTIONS: &[&str] = &["detection", "correlation", "filter"];
const LEVELS: &[&str] = &["informational", "low", "medium", "high", "critical"];

/// What a document is.
pub(super) enum Parsed {
    Rule(Box<Rule>),
    Filter(Filter),
}

/// A filter: a section that is joined by `and` to the rules that it names.
pub(super) struct Filter {
    pub id: Option<(Arc<str>, Place)>,
    /// Ids or names, each with its place.
    pub rules: Vec<(Arc<str>, Place)>,
    /// `rules: any`: for every detection of this log source.
    pub any: Option<LogSource>,
    pub section: Section,
}

/// Reads a document. `None` when the sink was told what is wrong.
pub(super) fn parse(document: Document, lines: &[&str], sink: &mut Sink) -> Option<Parsed> {
    let revision = revision(lines, document.shared.iter().chain([&document.lines]));
    let Node::Map(mut root) = document.root else {
        sink.error(document.root.place(), format!("a rule must be a map, but this document is {}", document.root.kind()), "begin with `title: …`");
        return None;
    };
    let before = sink.found.len();
    params::substitute(&mut root, sink);
    let parsed = match only_section(&root, sink)? {
        "filter" => filter(&root, sink).map(Parsed::Filter),
        name => rule(&root, name, revision, sink).map(|rule| Parsed::Rule(Box::new(rule))),
    };
    parsed.filter(|_| sink.found.len() == before)
}

fn revision<'a>(lines: &[&str], ranges: impl Iterator<Item = &'a std::ops::Range<usize>>) -> Arc<str> {
    let mut hash = digest::Context::new(&digest::SHA256);
    for range in ranges {
        let count = range.end.saturating_sub(range.start);
        for line in lines.iter().skip(range.start.saturating_sub(1)).take(count) {
            hash.update(line.as_bytes());
            hash.update(b"\n");
        }
    }
    hex(hash.finish().as_ref().get(..6).unwrap_or_default()).into()
}

fn only_section(root: &Map, sink: &mut Sink) -> Option<&'static str> {
    let mut found = SECTIONS.iter().copied().filter(|name| root.get(name).is_some());
    let Some(first) = found.next() else {
        if let Some(key) = root.key("transformations") {
            sink.error(
                key.place,
                "this is a pipeline and no rule",
                "put it below rules/pipelines/ and name it under [sigma] in opmas.toml, or with --pipeline",
            );
            return None;
        }
        let near = root.entries.iter().find_map(|(key, _)| Some((key, diag::nearest(&key.text, SECTIONS.iter().copied())?)));
        match near {
            Some((key, word)) => sink.error(key.place, format!("unknown section `{}`", key.text), format!("did you mean `{word}`?")),
            None => sink.error(root.place, "this document has no `detection`, `correlation` or `filter`", "add one of them"),
        }
        return None;
    };
    match found.next().and_then(|second| root.key(second)) {
        None => Some(first),
        Some(second) => {
            sink.error(second.place, format!("a document cannot have both `{first}` and `{}`", second.text), "split it with a line `---`");
            None
        }
    }
}

fn rule(root: &Map, section: &str, revision: Arc<str>, sink: &mut Sink) -> Option<Rule> {
    let title = title(root, sink);
    let outer = root.get("generate").and_then(|node| read::boolean(node, "`generate`", sink));
    let level = level(root, sink);
    let (body, inner) = match section {
        "correlation" => {
            let parsed = root.get(section).and_then(|node| correlation::parse(node, sink));
            parsed.map_or((None, None), |(correlation, generate)| (Some(Body::Correlation(correlation)), generate))
        }
        _ => (detection(root, sink).map(Body::Detection), None),
    };
    Some(Rule {
        file: Arc::clone(&sink.file),
        place: root.place,
        id: read::optional_text(root, "id", sink),
        name: read::optional_text(root, "name", sink),
        description: read::optional_text(root, "description", sink),
        tags: root.get("tags").map(|node| tags(node, sink)).unwrap_or_default(),
        opmas: opmas::parse(root, sink),
        // Asked for in either place, it is asked for.
        generate: outer.max(inner),
        title: title?,
        level,
        revision,
        body: body?,
    })
}

fn title(root: &Map, sink: &mut Sink) -> Option<Arc<str>> {
    match root.get("title") {
        Some(node) => read::text(node, "`title`", sink).map(|text| Arc::clone(&text.text)),
        None => {
            sink.error(root.place, "this document has no `title`", "add one");
            None
        }
    }
}

fn level(root: &Map, sink: &mut Sink) -> Option<Severity> {
    let Some(Node::Text(text)) = root.get("level") else {
        return root.get("level").and_then(|node| read::text(node, "`level`", sink)).and(None);
    };
    if text.is_null() {
        return None;
    }
    let level = Severity::from_str(&text.text).ok();
    if level.is_none() {
        sink.unknown_word(text.place, "level", &text.text, LEVELS);
    }
    level
}

fn tags(node: &Node, sink: &mut Sink) -> Vec<Arc<str>> {
    read::texts(node, "`tags`", sink).into_iter().map(|text| Arc::clone(&text.text)).collect()
}

fn detection(root: &Map, sink: &mut Sink) -> Option<Detection> {
    let logsource = logsource(root, sink);
    let table = read::map(root.get("detection")?, "`detection`", sink)?;
    let Section { searches, condition } = detection::parse(table, &[], sink)?;
    Some(Detection { logsource: logsource?, searches, condition })
}

fn logsource(root: &Map, sink: &mut Sink) -> Option<LogSource> {
    let Some(node) = root.get("logsource") else {
        sink.error(root.place, "this document has no `logsource`", "add one with `product`, `category` or `service`");
        return None;
    };
    let table = read::map(node, "`logsource`", sink)?;
    Some(LogSource {
        product: read::optional_text(table, "product", sink),
        category: read::optional_text(table, "category", sink),
        service: read::optional_text(table, "service", sink),
    })
}

fn filter(root: &Map, sink: &mut Sink) -> Option<Filter> {
    title(root, sink);
    let source = logsource(root, sink);
    let id = root.get("id").and_then(|node| read::text(node, "`id`", sink)).map(|text| (Arc::clone(&text.text), text.place));
    let table = read::map(root.get("filter")?, "`filter`", sink)?;
    let any = matches!(table.get("rules"), Some(Node::Text(text)) if text.text.eq_ignore_ascii_case("any"));
    let rules: Vec<_> = match table.get("rules") {
        Some(node) if !any => read::texts(node, "`rules`", sink).into_iter().map(|text| (Arc::clone(&text.text), text.place)).collect(),
        _ => Vec::new(),
    };
    if rules.is_empty() && !any {
        sink.error(table.place, "the filter has no `rules`", "list the ids or names of the rules that it is for, or write `any`");
    }
    let section = detection::parse(table, &["rules"], sink)?;
    Some(Filter { id, rules, any: source.filter(|_| any), section })
}
