//! The text of `routes.toml`: read, checked, and every fault named with its place.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::matcher::Matcher;
use super::route::{Node, Terms};
use crate::diag::{Diagnostic, Place, SourceFile, from_toml, nearest};
use crate::model::Span;

/// Routes may be nested this deep: deeper is a mistake, and reading it costs stack.
pub const MAX_DEPTH: usize = 8;
/// More routes than this in one file are refused: each finding walks the tree.
const MAX_ROUTES: usize = 1_000;
/// The longest name of a route, which goes into delivery ids and logs.
const MAX_NAME: usize = 64;
/// What `resolve_after` and `repeat_interval` may be: alerts are looked after once a second, and none is open for years.
const WAITS: RangeInclusive<Span> = Span::secs(1)..=Span::secs(30 * 86_400);
/// For no wait at all, or one without an end.
const NEVER: &str = "never";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RoutesFile {
    #[serde(default)]
    route: Vec<RouteTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteTable {
    name: Spanned<String>,
    #[serde(default, rename = "match")]
    matcher: MatchTable,
    channels: Option<Vec<Spanned<String>>>,
    #[serde(default, rename = "continue")]
    goes_on: bool,
    resolve_after: Option<Spanned<String>>,
    repeat_interval: Option<Spanned<String>>,
    #[serde(default)]
    route: Vec<RouteTable>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchTable {
    severity: Option<Spanned<NumberOrText>>,
    #[serde(default)]
    rule: OneOrMore,
    #[serde(default)]
    tag: OneOrMore,
    #[serde(default)]
    device: OneOrMore,
    #[serde(default)]
    site: OneOrMore,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u8),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        OneOrMore::More(Vec::new())
    }
}

impl From<OneOrMore> for Vec<String> {
    fn from(words: OneOrMore) -> Self {
        match words {
            OneOrMore::One(word) => vec![word],
            OneOrMore::More(words) => words,
        }
    }
}

/// Reads and checks the file. With the faults of what is left out: channels that are not there.
pub(super) fn load(file: &SourceFile, channels: &[Arc<str>]) -> Result<(Vec<Node>, Vec<Diagnostic>), Vec<Diagnostic>> {
    let text: RoutesFile = from_toml(&file.name, &file.text).map_err(|diagnostic| vec![diagnostic])?;
    let mut check = Check { file, channels, names: BTreeSet::new(), faults: Vec::new(), unknown: Vec::new() };
    let nodes = check.routes(text.route, &Inherited { channels: &[], terms: Terms::default() }, 1);
    if check.faults.is_empty() {
        return Ok((nodes, check.unknown));
    }
    check.faults.append(&mut check.unknown);
    Err(check.faults)
}

/// What nested routes have unless they say otherwise.
struct Inherited<'a> {
    channels: &'a [Arc<str>],
    terms: Terms,
}

struct Check<'a> {
    file: &'a SourceFile,
    channels: &'a [Arc<str>],
    names: BTreeSet<String>,
    faults: Vec<Diagnostic>,
    /// Channels that are not there.
    unknown: Vec<Diagnostic>,
}

impl Check<'_> {
    fn fault(&mut self, span: &Range<usize>, message: String, help: String) {
        let fault = self.diagnostic(span, message, help);
        self.faults.push(fault);
    }

    fn diagnostic(&self, span: &Range<usize>, message: String, help: String) -> Diagnostic {
        Diagnostic::new(self.file.name.clone(), Place::of_offset(&self.file.text, span.start), message).help(help)
    }

    fn routes(&mut self, tables: Vec<RouteTable>, inherited: &Inherited<'_>, depth: usize) -> Vec<Node> {
        tables.into_iter().map(|table| self.route(table, inherited, depth)).collect()
    }

    fn route(&mut self, table: RouteTable, inherited: &Inherited<'_>, depth: usize) -> Node {
        self.name(&table.name);
        if depth > MAX_DEPTH {
            self.fault(&table.name.span(), format!("route `{}` is nested deeper than {MAX_DEPTH}", table.name.get_ref()), "flatten the tree".into());
            return Node::default();
        }
        let matcher = self.matcher(table.matcher);
        let channels = match &table.channels {
            Some(written) => written.iter().filter_map(|name| self.channel(name)).collect(),
            None => inherited.channels.to_vec(),
        };
        if table.channels.is_none() && inherited.channels.is_empty() && table.route.is_empty() && self.unknown.is_empty() {
            let name = table.name.get_ref();
            self.fault(&table.name.span(), format!("route `{name}` names no channels"), "write `channels = [\"…\"]`, or `[]` for nobody".into());
        }
        let terms = self.terms(table.resolve_after.as_ref(), table.repeat_interval.as_ref(), inherited.terms);
        let nested = self.routes(table.route, &Inherited { channels: &channels, terms }, depth + 1);
        Node { name: table.name.into_inner().into(), matcher, channels, goes_on: table.goes_on, terms, nested }
    }

    fn terms(&mut self, resolve_after: Option<&Spanned<String>>, repeat_interval: Option<&Spanned<String>>, inherited: Terms) -> Terms {
        Terms {
            resolve_after: resolve_after.map_or(inherited.resolve_after, |written| self.wait(written)),
            repeat_interval: repeat_interval.map_or(inherited.repeat_interval, |written| self.wait(written)),
        }
    }

    /// A span of time, or `never`.
    fn wait(&mut self, written: &Spanned<String>) -> Option<Span> {
        let text = written.get_ref();
        if text == NEVER {
            return None;
        }
        let span = text.parse::<Span>().ok().filter(|span| WAITS.contains(span));
        if span.is_none() {
            let help = format!("write a time from {} to {} such as \"1h\", or \"{NEVER}\"", WAITS.start(), WAITS.end());
            self.fault(&written.span(), format!("`{text}` is no time to wait"), help);
        }
        span
    }

    /// Names go into delivery ids, so they are unique in the whole tree.
    fn name(&mut self, name: &Spanned<String>) {
        let word = name.get_ref();
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if word.is_empty() || word.len() > MAX_NAME || !word.chars().all(legal) {
            self.fault(&name.span(), format!("`{word}` is no name for a route"), format!("use 1 to {MAX_NAME} of a-z 0-9 . _ -"));
        } else if !self.names.insert(word.clone()) {
            self.fault(&name.span(), format!("a second route is named `{word}`"), "give each route a name of its own".into());
        } else if self.names.len() == MAX_ROUTES + 1 {
            self.fault(&name.span(), format!("more than {MAX_ROUTES} routes"), "use lists inside `match`".into());
        }
    }

    fn channel(&mut self, name: &Spanned<String>) -> Option<Arc<str>> {
        let word = name.get_ref().as_str();
        if let Some(known) = self.channels.iter().find(|known| ***known == *word) {
            return Some(known.clone());
        }
        let known = self.channels.iter().map(|name| &**name);
        let help = match nearest(word, known.clone()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.channels.is_empty() => "there is no channel file in notifiers/".to_owned(),
            None => format!("known: {}", known.collect::<Vec<_>>().join(", ")),
        };
        let unknown = self.diagnostic(&name.span(), format!("no channel is named `{word}`"), help);
        self.unknown.push(unknown);
        None
    }

    fn matcher(&mut self, table: MatchTable) -> Matcher {
        let severity = table.severity.and_then(|written| {
            let span = written.span();
            let text = match written.into_inner() {
                NumberOrText::Number(number) => number.to_string(),
                NumberOrText::Text(text) => text,
            };
            text.parse().map_err(|error: String| self.fault(&span, error, "write it as `\">=4\"` or `\">=high\"`".into())).ok()
        });
        Matcher { severity, rule: table.rule.into(), tag: table.tag.into(), device: table.device.into(), site: table.site.into() }
    }
}
