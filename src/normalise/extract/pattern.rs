//! Compiled patterns: one pass over a message, linear in its length.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::kind::{Kind, Wrong};
use super::template::Template;
use crate::model::LogSource;

/// Most memory that one pattern's automaton may take.
const MAX_COMPILED: usize = 1 << 20;
/// `KEY=value` words that are looked at in one message.
const MAX_PAIRS: usize = 128;

/// One way that a program words a message.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) name: Arc<str>,
    pub(super) action: Arc<str>,
    pub(super) logsource: Option<LogSource>,
    /// Fields that later lines of the same process may need.
    pub(super) remember: Vec<Arc<str>>,
    /// Fields that this line takes from what its process said before.
    pub(super) recall: Vec<Arc<str>>,
    head: String,
    regex: Regex,
    fields: Vec<(Option<Arc<str>>, Kind)>,
    pairs: BTreeMap<Arc<str>, (Arc<str>, Kind)>,
    set: Map<String, Value>,
}

impl Pattern {
    /// Compiles a template, anchored at both ends whatever it says.
    pub(super) fn new(
        name: &str,
        action: &str,
        template: &Template,
        pairs: BTreeMap<Arc<str>, (Arc<str>, Kind)>,
        set: Map<String, Value>,
        logsource: Option<LogSource>,
    ) -> Result<Pattern, regex::Error> {
        let regex = compile(&format!(r"\A(?:{})\z", template.regex()))?;
        let fields = template.fields().map(|(name, kind)| (name.map(Arc::from), kind)).collect();
        let (remember, recall) = (Vec::new(), Vec::new());
        Ok(Pattern { name: name.into(), action: action.into(), logsource, remember, recall, head: template.head().to_owned(), regex, fields, pairs, set })
    }

    /// The fields of a message; `None` when it is not of this wording, or a value is not of its type.
    fn read(&self, message: &str) -> Option<Map<String, Value>> {
        if !message.starts_with(&self.head) {
            return None;
        }
        let captures = self.regex.captures(message)?;
        let mut fields = self.set.clone();
        for ((name, kind), capture) in self.fields.iter().zip(captures.iter().skip(1)) {
            let text = capture.map_or("", |capture| capture.as_str());
            match (kind, name) {
                (Kind::Pairs, _) => self.read_pairs(text, &mut fields).ok()?,
                (_, Some(name)) => kind.set(name, text, &mut fields).ok()?,
                (_, None) => {}
            }
        }
        Some(fields)
    }

    /// The first value of each key counts. A bracket opens the packet that an ICMP error quotes: not this one's values.
    fn read_pairs(&self, text: &str, fields: &mut Map<String, Value>) -> Result<(), Wrong> {
        for word in text.split_ascii_whitespace().take(MAX_PAIRS).take_while(|word| !word.starts_with('[')) {
            let Some((key, value)) = word.split_once('=') else { continue };
            let Some((name, kind)) = self.pairs.get(key) else { continue };
            if !value.is_empty() && !fields.contains_key(&**name) {
                kind.set(name, value, fields)?;
            }
        }
        Ok(())
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(MAX_COMPILED).build()
}

/// The patterns for some programs, in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) programs: Vec<Arc<str>>,
    pub(super) logsource: LogSource,
    pub(super) domain: Option<Arc<str>>,
    /// What may stand before the wording: its first byte, and the whole.
    skip: Option<(u8, Regex)>,
    patterns: Vec<Pattern>,
}

impl Program {
    /// Puts a file's patterns together.
    pub(super) fn new(programs: Vec<Arc<str>>, logsource: LogSource, domain: Option<Arc<str>>, patterns: Vec<Pattern>) -> Program {
        Program { programs, logsource, domain, skip: None, patterns }
    }

    /// Leaves out what may stand before every wording. The error says what is wrong with it.
    pub(super) fn skip(&mut self, skip: &Template) -> Result<(), String> {
        let first = skip.head().bytes().next().ok_or("`skip` begins with a field")?;
        let regex = compile(&format!(r"\A(?:{})", skip.regex())).map_err(|error| format!("`skip` does not compile: {error}"))?;
        self.skip = Some((first, regex));
        Ok(())
    }

    /// The first pattern that matches, and the fields it reads.
    pub(super) fn find(&self, message: &str) -> Option<(&Pattern, Map<String, Value>)> {
        let message = self.without_skip(message);
        self.patterns.iter().find_map(|pattern| pattern.read(message).map(|fields| (pattern, fields)))
    }

    fn without_skip<'a>(&self, message: &'a str) -> &'a str {
        let Some((first, regex)) = &self.skip else { return message };
        if message.as_bytes().first() != Some(first) {
            return message;
        }
        regex.find(message).and_then(|found| message.get(found.end()..)).unwrap_or(message)
    }
}
