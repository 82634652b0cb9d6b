//! An extractor file as it is written (TOML), and every complaint about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::kind::{KINDS, Kind};
use super::pattern::{Pattern, Program};
use super::template::{Template, TemplateError, is_name};
use crate::diag::{self, Diagnostic, Place, SourceFile};
use crate::model::LogSource;

/// Patterns of one file; more are a mistake.
const MAX_PATTERNS: usize = 1000;
/// Fields that the line's header sets: no pattern may replace them.
const RESERVED: &[&str] = &[
    "timestamp",
    "host",
    "program",
    "domain",
    "pid",
    "message",
    "facility",
    "severity_syslog",
    "syslog_prefix",
    "stamp",
    "uptime",
    "device",
    "site",
    "action",
    "sd",
    "msgid",
    "procid",
    "truncated",
];

/// What a program is about: the words of the field `domain`.
const DOMAINS: &[&str] = &["wifi", "security", "connectivity", "dhcp", "system", "health"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    programs: Vec<Spanned<String>>,
    #[serde(default)]
    logsource: Source,
    domain: Option<Spanned<String>>,
    #[serde(default)]
    hostile: Vec<Spanned<String>>,
    skip: Option<Spanned<String>>,
    #[serde(default, rename = "pattern")]
    patterns: Vec<Spanned<WrittenPattern>>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    product: Option<Arc<str>>,
    category: Option<Arc<str>>,
    service: Option<Arc<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPattern {
    name: Spanned<String>,
    action: String,
    line: Spanned<String>,
    #[serde(default)]
    set: BTreeMap<Spanned<String>, Value>,
    #[serde(default)]
    pairs: BTreeMap<String, Spanned<String>>,
    logsource: Option<Source>,
    /// In place of the file's.
    hostile: Option<Vec<String>>,
    #[serde(default)]
    remember: Vec<Arc<str>>,
    #[serde(default)]
    recall: Vec<Arc<str>>,
    #[serde(default, rename = "example")]
    examples: Vec<Example>,
    #[serde(default)]
    refuses: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    line: Spanned<String>,
    #[serde(default)]
    fields: Map<String, Value>,
}

impl From<Source> for LogSource {
    fn from(source: Source) -> LogSource {
        LogSource { product: source.product, category: source.category, service: source.service }
    }
}

/// Reads, compiles and tries one file: its patterns, or everything that is wrong with it.
pub(super) fn load(file: &SourceFile) -> Result<Program, Vec<Diagnostic>> {
    let written: Written = diag::from_toml(&file.name, &file.text).map_err(|error| vec![error])?;
    let mut reader = Reader { file, found: Vec::new() };
    let program = reader.program(&written);
    reader.examples(&written, &program);
    if reader.found.is_empty() { Ok(program) } else { Err(reader.found) }
}

struct Reader<'a> {
    file: &'a SourceFile,
    found: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn wrong(&mut self, offset: usize, message: impl Into<String>, help: impl Into<String>) {
        let place = Place::of_offset(&self.file.text, offset);
        self.found.push(Diagnostic::new(Arc::clone(&self.file.name), place, message).help(help));
    }

    fn program(&mut self, written: &Written) -> Program {
        if written.programs.is_empty() {
            self.wrong(0, "`programs` names no program", "name the syslog programs whose messages the patterns are for");
        }
        if written.patterns.is_empty() || written.patterns.len() > MAX_PATTERNS {
            self.wrong(0, format!("a file has 1 to {MAX_PATTERNS} patterns, not {}", written.patterns.len()), "add a [[pattern]] or split the file");
        }
        let hostile: Vec<String> = written.hostile.iter().map(|name| name.get_ref().clone()).collect();
        let mut patterns: Vec<Pattern> = Vec::new();
        for pattern in &written.patterns {
            let pattern = pattern.get_ref();
            if patterns.iter().any(|other| *other.name == **pattern.name.get_ref()) {
                self.wrong(pattern.name.span().start, format!("a second pattern is named `{}`", pattern.name.get_ref()), "give each its own name");
            }
            patterns.extend(self.pattern(pattern, &hostile));
        }
        let programs = written.programs.iter().map(|name| name.get_ref().as_str().into()).collect();
        let domain = written.domain.as_ref().map(|domain| Arc::from(domain.get_ref().as_str()));
        let mut program = Program::new(programs, written.logsource.clone().into(), domain, patterns);
        self.keys(written);
        if let Some(skip) = &written.skip
            && let Some(template) = self.template(skip, &hostile)
            && let Err(message) = program.skip(&template)
        {
            self.wrong(skip.span().start, message, "make it shorter");
        }
        program
    }

    /// `hostile` names text fields of the patterns, `domain` is one of the known ones.
    fn keys(&mut self, written: &Written) {
        if let Some(domain) = written.domain.as_ref().filter(|domain| !DOMAINS.contains(&domain.get_ref().as_str())) {
            self.wrong(domain.span().start, format!("unknown domain `{}`", domain.get_ref()), format!("known: {}", DOMAINS.join(", ")));
        }
        let templates: Vec<Template> = written.patterns.iter().filter_map(|pattern| Template::parse(pattern.get_ref().line.get_ref(), &[]).ok()).collect();
        for name in &written.hostile {
            if !templates.iter().flat_map(Template::fields).any(|(field, kind)| field == Some(name.get_ref()) && !kind.is_trusted()) {
                self.wrong(name.span().start, format!("no pattern has a text field `{}`", name.get_ref()), "name fields that a client chooses");
            }
        }
    }

    fn template(&mut self, text: &Spanned<String>, hostile: &[String]) -> Option<Template> {
        match Template::parse(text.get_ref(), hostile) {
            Ok(template) => Some(template),
            Err(TemplateError { offset, message, help }) => {
                // Behind the opening quote; exact for texts without escapes.
                self.wrong(text.span().start + 1 + offset, message, help);
                None
            }
        }
    }

    fn pattern(&mut self, written: &WrittenPattern, hostile: &[String]) -> Option<Pattern> {
        let template = self.template(&written.line, written.hostile.as_deref().unwrap_or(hostile))?;
        let at = written.line.span().start;
        let pairs = self.pairs(written, &template);
        let mut names: Vec<String> =
            template.fields().filter(|(_, kind)| *kind != Kind::Pairs).flat_map(|(name, kind)| name.map(|name| kind.sets(name))).flatten().collect();
        // Two keys may stand for one field (TTL, HOPLIMIT).
        names.extend(pairs.values().flat_map(|(name, kind)| kind.sets(name)).collect::<std::collections::BTreeSet<_>>());
        names.extend(written.set.keys().map(|name| name.get_ref().clone()));
        self.names(at, &names);
        if written.examples.is_empty() {
            self.wrong(
                written.name.span().start,
                format!("`{}` has no example", written.name.get_ref()),
                "add a [[pattern.example]] with a line as the program logs it",
            );
        }
        let set = written.set.iter().map(|(name, value)| (name.get_ref().clone(), value.clone())).collect();
        let mut pattern = Pattern::new(written.name.get_ref(), &written.action, &template, pairs, set, written.logsource.clone().map(LogSource::from));
        if let Ok(pattern) = &mut pattern {
            (pattern.remember, pattern.recall) = (written.remember.clone(), written.recall.clone());
        }
        pattern.map_err(|error| self.wrong(at, format!("the pattern does not compile: {error}"), "make it shorter")).ok()
    }

    fn names(&mut self, at: usize, names: &[String]) {
        for (index, name) in names.iter().enumerate() {
            if RESERVED.contains(&name.as_str()) || !is_name(name) {
                self.wrong(at, format!("a pattern cannot set the field `{name}`"), "choose another name; lower-case letters, digits and `_`");
            } else if names.iter().take(index).any(|other| other == name) {
                self.wrong(at, format!("the field `{name}` is set twice"), "write `{:type}` for a part that is to be left out");
            }
        }
    }

    /// `SRC = "src_ip:ip"`
    fn pairs(&mut self, written: &WrittenPattern, template: &Template) -> BTreeMap<Arc<str>, (Arc<str>, Kind)> {
        let has = template.fields().any(|(_, kind)| kind == Kind::Pairs);
        if has == written.pairs.is_empty() {
            self.wrong(written.line.span().start, "`{:pairs}` in `line` and the table `pairs` need each other", "write both or none");
        }
        let mut pairs = BTreeMap::new();
        for (key, target) in &written.pairs {
            let (name, kind) = target.get_ref().split_once(':').unwrap_or((target.get_ref(), "word"));
            match KINDS.iter().find(|(known, _)| *known == kind) {
                Some((_, kind)) if *kind != Kind::Pairs => {
                    pairs.insert(key.as_str().into(), (name.into(), *kind));
                }
                _ => self.wrong(
                    target.span().start,
                    format!("unknown type `{kind}`"),
                    format!("known: {}", KINDS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")),
                ),
            }
        }
        pairs
    }

    /// The examples are the file's tests: each line must be typed by its own pattern, with exactly these fields.
    fn examples(&mut self, written: &Written, program: &Program) {
        for pattern in written.patterns.iter().map(Spanned::get_ref) {
            for example in &pattern.examples {
                self.example(pattern, example, program);
            }
            for line in &pattern.refuses {
                if program.find(line.get_ref()).is_some_and(|(found, _)| *found.name == **pattern.name.get_ref()) {
                    self.wrong(line.span().start, format!("`{}` matches a line that it must refuse", pattern.name.get_ref()), "narrow its types");
                }
            }
        }
    }

    fn example(&mut self, pattern: &WrittenPattern, example: &Example, program: &Program) {
        let at = example.line.span().start;
        let name = pattern.name.get_ref();
        let Some((found, mut fields)) = program.find(example.line.get_ref()) else {
            return self.wrong(at, format!("`{name}` does not match its example"), "correct the pattern or the example");
        };
        if *found.name != **name {
            return self.wrong(at, format!("`{}` matches this example of `{name}` first", found.name), "put the narrower pattern first");
        }
        for constant in pattern.set.keys() {
            fields.remove(constant.get_ref());
        }
        if fields != example.fields {
            let got = Value::Object(fields);
            self.wrong(at, format!("`{name}` reads {got} from its example"), "correct the pattern or the example's fields");
        }
    }
}
