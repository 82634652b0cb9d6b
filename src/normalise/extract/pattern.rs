//! Compiled patterns: one pass over a message, linear in its length.

use std::collections::BTreeMap;
use std::sync::Arc;

use memchr::memmem;
use regex_automata::Input;
use regex_automata::nfa::thompson::{self, pikevm};
use regex_automata::util::{pool::Pool, primitives::NonMaxUsize, syntax};
use serde_json::{Map, Value};

use super::kind::{Kind, Wrong};
use super::template::{Part, Template};
use crate::model::LogSource;

/// Most memory that one pattern's automaton may take.
const MAX_COMPILED: usize = 1 << 20;
/// `KEY=value` words that are looked at in one message.
const MAX_PAIRS: usize = 128;

/// Why a template does not compile.
pub(super) type CompileError = Box<thompson::BuildError>;

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
    /// Fields with a fixed value.
    pub(super) set: Map<String, Value>,
    /// The whole message as a regular expression.
    text: String,
    parts: Vec<Part>,
    /// Decides where [`Pattern::greedy`] does not.
    exact: Expression,
    fields: Vec<(Option<Arc<str>>, Kind)>,
    pairs: BTreeMap<Arc<str>, (Arc<str>, Kind)>,
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
    ) -> Result<Pattern, CompileError> {
        let text = format!("(?:{})\\z", template.regex());
        let exact = compile(&text)?;
        let fields = template.fields().map(|(name, kind)| (name.map(Arc::from), kind)).collect();
        let (remember, recall, parts) = (Vec::new(), Vec::new(), template.parts.clone());
        Ok(Pattern { name: name.into(), action: action.into(), logsource, remember, recall, set, text, parts, exact, fields, pairs })
    }

    /// The fields of a message; `None` when it is not of this wording, or a value is not of its type.
    pub(super) fn read(&self, message: &str) -> Option<Vec<(Arc<str>, Value)>> {
        // Most are told apart by how they begin, without what the regular expression needs.
        if let Some(Part::Fixed(head)) = self.parts.first()
            && !message.starts_with(head.as_str())
        {
            return None;
        }
        let greedy = self.greedy(message).and_then(|texts| self.values(&texts));
        greedy.or_else(|| self.values(&self.exactly(message)?))
    }

    /// The texts of the fields, each as long as it can be without a look at what comes after the next fixed text. When that comes out even it
    /// is what the regular expression finds, whose fields are greedy too.
    fn greedy<'a>(&self, message: &'a str) -> Option<Vec<&'a str>> {
        let mut rest = message;
        let mut texts = Vec::with_capacity(self.fields.len());
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            let end = match (part, parts.peek()) {
                (Part::Fixed(text), _) => {
                    rest = rest.strip_prefix(text.as_str())?;
                    continue;
                }
                (Part::Optional(text), _) => {
                    rest = rest.strip_prefix(text.as_str()).unwrap_or(rest);
                    continue;
                }
                (Part::Field { kind, .. }, Some(Part::Fixed(next))) => {
                    let reach = kind.reach(rest)?.saturating_add(next.len()).min(rest.len());
                    memmem::rfind(rest.as_bytes().get(..reach)?, next.as_bytes())?
                }
                (Part::Field { kind, .. }, _) => kind.reach(rest)?,
            };
            let (text, after) = rest.split_at_checked(end)?;
            texts.push(text);
            rest = after;
        }
        rest.is_empty().then_some(texts)
    }

    /// The texts of the fields as the regular expression has them: slower, and always right.
    fn exactly<'a>(&self, message: &'a str) -> Option<Vec<&'a str>> {
        let mut slots: Vec<Option<NonMaxUsize>> = vec![None; 2 * (self.fields.len() + 1)];
        self.exact.search(message, &mut slots)?;
        let text = |pair: &[Option<NonMaxUsize>]| match pair {
            [Some(from), Some(to)] => message.get(from.get()..to.get()),
            _ => None,
        };
        slots.chunks(2).skip(1).map(text).collect()
    }

    fn values(&self, texts: &[&str]) -> Option<Vec<(Arc<str>, Value)>> {
        let mut fields = Vec::with_capacity(texts.len() + self.pairs.len());
        for ((name, kind), text) in self.fields.iter().zip(texts) {
            match kind {
                Kind::Pairs => self.read_pairs(text, &mut fields).ok()?,
                _ => kind.set(name.as_ref(), text, &mut fields).ok()?,
            }
        }
        Some(fields)
    }

    /// The first value of each key counts. A bracket opens the packet that an ICMP error quotes: not this one's values.
    fn read_pairs(&self, text: &str, fields: &mut Vec<(Arc<str>, Value)>) -> Result<(), Wrong> {
        for word in text.split_ascii_whitespace().take(MAX_PAIRS).take_while(|word| !word.starts_with('[')) {
            let Some((key, value)) = word.split_once('=') else { continue };
            let Some((name, kind)) = self.pairs.get(key) else { continue };
            if !value.is_empty() && !fields.iter().any(|(set, _)| set == name) {
                kind.set(Some(name), value, fields)?;
            }
        }
        Ok(())
    }
}

/// Messages are UTF-8 and so is the text of templates: bytes do, and make small automata.
pub(super) fn bytes() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

/// What a compiled pattern may be.
pub(super) fn bounded() -> thompson::Config {
    thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_COMPILED))
}

fn compile(text: &str) -> Result<Expression, CompileError> {
    let vm = pikevm::PikeVM::builder().syntax(bytes()).thompson(bounded()).build(text).map_err(Box::new)?;
    let own = vm.clone();
    Ok(Expression { vm, caches: Pool::new(Box::new(move || own.create_cache())) })
}

type NewCache = Box<dyn Fn() -> pikevm::Cache + Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe>;

/// A regular expression, and what it is searched for in.
#[derive(Debug)]
struct Expression {
    vm: pikevm::PikeVM,
    caches: Pool<pikevm::Cache, NewCache>,
}

impl Expression {
    /// Where a message begins with it: `slots` are filled.
    fn search(&self, message: &str, slots: &mut [Option<NonMaxUsize>]) -> Option<()> {
        let input = Input::new(message).anchored(regex_automata::Anchored::Yes);
        self.vm.search_slots(&mut self.caches.get(), &input, slots).map(drop)
    }
}

/// What may stand before the wordings of a file: its first byte, where that is fixed, and the whole.
#[derive(Debug)]
pub(super) struct Skip {
    first: Option<u8>,
    vm: Expression,
    text: String,
}

impl Skip {
    /// Compiles it. The error says what is wrong with it.
    pub(super) fn new(template: &Template) -> Result<Skip, String> {
        let first = match template.parts.first() {
            Some(Part::Fixed(head)) => head.bytes().next(),
            _ => None,
        };
        let text = template.regex();
        let vm = compile(&text).map_err(|error| format!("`skip` does not compile: {error}"))?;
        Ok(Skip { first, vm, text })
    }

    /// The message without it.
    pub(super) fn strip<'a>(&self, message: &'a str) -> &'a str {
        if self.first.is_some_and(|first| message.as_bytes().first() != Some(&first)) {
            return message;
        }
        let mut slots = [None; 2];
        let found = self.vm.search(message, &mut slots);
        let end = found.and(slots.last().copied().flatten()).map_or(0, NonMaxUsize::get);
        message.get(end..).unwrap_or(message)
    }
}

/// The patterns of one file, in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) programs: Vec<Arc<str>>,
    pub(super) logsource: LogSource,
    domain: Option<Arc<str>>,
    pub(super) patterns: Vec<Pattern>,
    skip: Option<Skip>,
}

impl Program {
    /// Puts a file's patterns together.
    pub(super) fn new(programs: Vec<Arc<str>>, logsource: LogSource, domain: Option<Arc<str>>, patterns: Vec<Pattern>) -> Program {
        Program { programs, logsource, domain, skip: None, patterns }
    }

    /// The field `domain` and its value.
    pub(super) fn domain(&self) -> Option<(String, Value)> {
        self.domain.as_deref().map(|domain| ("domain".to_owned(), Value::from(domain)))
    }

    /// Leaves out what may stand before every wording. The error says what is wrong with it.
    pub(super) fn skip(&mut self, skip: &Template) -> Result<(), String> {
        self.skip = Some(Skip::new(skip)?);
        Ok(())
    }

    /// The first pattern that matches, and the fields it reads: each pattern by itself, without an automaton.
    pub(super) fn find(&self, message: &str) -> Option<(&Pattern, Map<String, Value>)> {
        let message = self.without_skip(message);
        self.patterns.iter().find_map(|pattern| {
            let mut fields = pattern.set.clone();
            fields.extend(pattern.read(message)?.into_iter().map(|(name, value)| (name.to_string(), value)));
            Some((pattern, fields))
        })
    }

    /// The message without what may stand before its wording.
    pub(super) fn without_skip<'a>(&self, message: &'a str) -> &'a str {
        self.skip.as_ref().map_or(message, |skip| skip.strip(message))
    }

    /// What the automaton of its programs looks for: at least the messages that the patterns match.
    pub(super) fn expressions(&self) -> impl Iterator<Item = String> {
        let skip = self.skip.as_ref().map(|skip| format!("(?:{})?", skip.text)).unwrap_or_default();
        self.patterns.iter().map(move |pattern| format!("{skip}{}", pattern.text))
    }
}

#[cfg(test)]
impl Pattern {
    /// The quick way never says anything else than the regular expression.
    pub(super) fn check(&self, message: &str) {
        if let Some(texts) = self.greedy(message).filter(|texts| self.values(texts).is_some()) {
            assert_eq!(Some(texts), self.exactly(message), "{}: {message:?}", self.name);
        }
    }
}
