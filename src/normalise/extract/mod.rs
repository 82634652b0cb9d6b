//! Extractors: data files that type the messages of a program.

mod automaton;
mod file;
mod kind;
mod pattern;
mod template;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::diag::{Diagnostic, SourceFile};
use crate::model::LogSource;
use automaton::Automaton;
use pattern::{Pattern, Program};

/// All loaded extractors. A message is typed by the first pattern that matches: files in their order, patterns in the order of their file.
#[derive(Debug, Default)]
pub struct Extractors {
    files: Vec<Program>,
    by_program: HashMap<Arc<str>, Compiled>,
    /// What the first line loads, in place of the above.
    later: Vec<SourceFile>,
    loaded: OnceLock<Box<Extractors>>,
}

/// What there is for one program.
#[derive(Debug, Default)]
struct Compiled {
    /// The files that have patterns for it.
    files: Vec<usize>,
    /// The patterns in their order, each as the file and its place there.
    patterns: Vec<(usize, usize)>,
    /// Says which of the patterns can match; without it each is tried. Made when the program is first heard of.
    automaton: OnceLock<Option<Automaton>>,
}

/// What a message was typed as, beside its fields.
#[derive(Default)]
pub(super) struct Applied<'a> {
    pub(super) logsource: LogSource,
    /// Fields that later lines of the same process may need.
    pub(super) remember: &'a [Arc<str>],
    /// Fields that this line takes from what its process said before.
    pub(super) recall: &'a [Arc<str>],
}

impl Extractors {
    /// Loads extractor files. Every pattern is tried on its own examples; a file with anything wrong in it is left out
    /// whole, and the diagnostics say what and where.
    #[must_use]
    pub fn load(files: &[SourceFile]) -> (Extractors, Vec<Diagnostic>) {
        let mut loaded = Extractors::default();
        let mut diagnostics = Vec::new();
        for file in files {
            match file::load(file) {
                Ok(program) => loaded.add(program),
                Err(found) => diagnostics.extend(found),
            }
        }
        (loaded, diagnostics)
    }

    /// Those of files that are known to load; the first line of a program loads them, structured events never do.
    #[must_use]
    pub fn later(files: Vec<SourceFile>) -> Extractors {
        Extractors { later: files, ..Extractors::default() }
    }

    fn now(&self) -> &Extractors {
        if self.later.is_empty() { self } else { self.loaded.get_or_init(|| Box::new(Extractors::load(&self.later).0)) }
    }

    /// How many files are loaded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.now().files.len()
    }

    /// Whether no file is loaded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.now().files.is_empty()
    }

    /// Whether some extractor is for this program.
    #[must_use]
    pub fn knows(&self, program: &str) -> bool {
        self.now().by_program.contains_key(program)
    }

    /// Types a message: adds `domain`, `action` and the fields of the first pattern that matches, and says what log source the line
    /// is of. The lines of a program that has but one file have its domain and log source also when no pattern matches.
    pub(super) fn apply(&self, program: &str, message: &str, fields: &mut Map<String, Value>) -> Applied<'_> {
        self.now().apply_own(program, message, fields)
    }

    fn apply_own(&self, program: &str, message: &str, fields: &mut Map<String, Value>) -> Applied<'_> {
        let Some(compiled) = self.by_program.get(program) else { return Applied::default() };
        let (repeats, message) = repeated(message).map_or((None, message), |(repeats, line)| (Some(repeats), line));
        let mut candidates = Vec::new();
        let automaton = compiled.automaton.get_or_init(|| self.automaton(compiled));
        if automaton.as_ref().and_then(|automaton| automaton.candidates(message, &mut candidates)).is_none() {
            candidates = (0..compiled.patterns.len()).collect();
        }
        let read = candidates.into_iter().find_map(|candidate| {
            let (file, pattern) = self.pattern(*compiled.patterns.get(candidate)?)?;
            Some((file, pattern, pattern.read(file.without_skip(message))?))
        });
        let Some((file, pattern, read)) = read else {
            let [only] = compiled.files.as_slice() else { return Applied::default() };
            let Some(file) = self.files.get(*only) else { return Applied::default() };
            fields.extend(file.domain());
            return Applied { logsource: file.logsource.clone(), ..Applied::default() };
        };
        fields.extend(file.domain());
        fields.insert("action".to_owned(), Value::from(&*pattern.action));
        fields.extend(repeats.map(|repeats| ("repeats".to_owned(), Value::from(repeats))));
        fields.extend(pattern.set.iter().map(|(name, value)| (name.clone(), value.clone())));
        fields.extend(read.into_iter().map(|(name, value)| (String::from(&*name), value)));
        let logsource = pattern.logsource.as_ref().unwrap_or(&file.logsource).clone();
        Applied { logsource, remember: &pattern.remember, recall: &pattern.recall }
    }

    fn pattern(&self, (file, pattern): (usize, usize)) -> Option<(&Program, &Pattern)> {
        let file = self.files.get(file)?;
        Some((file, file.patterns.get(pattern)?))
    }

    fn add(&mut self, program: Program) {
        let index = self.files.len();
        for name in &program.programs {
            let compiled = self.by_program.entry(Arc::clone(name)).or_default();
            compiled.files.push(index);
            compiled.patterns.extend((0..program.patterns.len()).map(|pattern| (index, pattern)));
        }
        self.files.push(program);
    }

    /// Each pattern compiled by itself, so that all together only take more room.
    fn automaton(&self, compiled: &Compiled) -> Option<Automaton> {
        let files = compiled.files.iter().filter_map(|index| self.files.get(*index));
        Automaton::new(&files.flat_map(Program::expressions).collect::<Vec<_>>()).ok()
    }
}

/// What stands for several equal lines of a program in rsyslog's `message repeated N times: [ LINE]`: how many, and that line.
fn repeated(message: &str) -> Option<(u32, &str)> {
    let (times, line) = message.strip_prefix("message repeated ")?.strip_suffix(']')?.split_once(" times: [")?;
    Some((times.parse().ok()?, line.strip_prefix(' ').unwrap_or(line)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The shipped extractors, and every line that they have as an example or as one to refuse, with its program.
    fn shipped() -> (Extractors, Vec<(Arc<str>, String)>) {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/rules/extractors")).unwrap() {
            let path = entry.unwrap().path();
            files.push(SourceFile { name: path.display().to_string().into(), text: std::fs::read_to_string(path).unwrap().into() });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let (extractors, found) = Extractors::load(&files);
        assert!(found.is_empty(), "{found:?}");
        let lines: Vec<_> = extractors
            .files
            .iter()
            .zip(&files)
            .flat_map(|(program, file)| {
                let lines = file.text.lines().filter_map(|line| line.strip_prefix("line = "));
                let lines =
                    lines.filter_map(|text| toml::from_str::<toml::Table>(&format!("x = {text}")).ok()).map(|table| table["x"].as_str().unwrap().to_owned());
                lines.map(|line| (program.programs[0].clone(), line)).collect::<Vec<_>>()
            })
            .collect();
        (extractors, lines)
    }

    /// Each file and pattern in turn, without an automaton.
    fn in_turn(extractors: &Extractors, program: &str, message: &str) -> Option<(Arc<str>, Map<String, Value>)> {
        let files = extractors.files.iter().filter(|file| file.programs.iter().any(|name| **name == *program));
        files.filter_map(|file| file.find(message)).next().map(|(pattern, fields)| (pattern.action.clone(), fields))
    }

    fn check(extractors: &Extractors, program: &str, message: &str) {
        let mut fields = Map::new();
        extractors.apply(program, message, &mut fields);
        fields.remove("domain");
        let action = fields.remove("action").map(|action| action.as_str().unwrap().into());
        assert_eq!(action.map(|action| (action, fields)), in_turn(extractors, program, message), "{program}: {message:?}");
        for pattern in extractors.files.iter().flat_map(|file| &file.patterns) {
            pattern.check(message);
        }
    }

    #[test]
    fn the_automaton_finds_what_the_patterns_find_in_turn() {
        let (extractors, lines) = shipped();
        let (programs, cut) = (lines.len(), any::<prop::sample::Index>());
        let mutation = (0..programs, 0..programs, cut.clone(), cut, "[ -~é]{0,12}");
        for (program, line) in &lines {
            check(&extractors, program, line);
        }
        proptest!(|((one, other, from, to, between) in mutation)| {
            let (program, line) = &lines[one];
            let tail = &lines[other].1;
            let head: String = line.chars().take(from.index(line.chars().count() + 1)).collect();
            let tail: String = tail.chars().skip(to.index(tail.chars().count() + 1)).collect();
            check(&extractors, program, &format!("{head}{between}{tail}"));
            let rest: String = line.chars().skip(from.index(line.chars().count() + 1)).collect();
            check(&extractors, program, &format!("{head}{between}{rest}"));
        });
    }
}
