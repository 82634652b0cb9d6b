//! Extractors: data files that type the messages of a program.

mod file;
mod kind;
mod pattern;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::diag::{Diagnostic, SourceFile};
use crate::model::LogSource;
use pattern::Program;

/// All loaded extractors. A message is typed by the first pattern that matches: files in their order, patterns in the order of their file.
#[derive(Debug, Default)]
pub struct Extractors {
    files: Vec<Program>,
    by_program: BTreeMap<Arc<str>, Vec<usize>>,
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

    /// How many files are loaded.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether no file is loaded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether some extractor is for this program.
    #[must_use]
    pub fn knows(&self, program: &str) -> bool {
        self.by_program.contains_key(program)
    }

    /// Types a message: adds `domain`, `action` and the fields of the first pattern that matches, and says what log source the line
    /// is of. A program whose extractor names a log source has it also when no pattern matches, and its domain if it has but one file.
    pub(super) fn apply(&self, program: &str, message: &str, fields: &mut Map<String, Value>) -> Applied<'_> {
        let indices = self.by_program.get(program).map_or(&[][..], Vec::as_slice);
        let mut applied = Applied::default();
        for file in indices.iter().filter_map(|index| self.files.get(*index)) {
            if applied.logsource == LogSource::default() {
                applied.logsource = file.logsource.clone();
            }
            let found = file.find(message);
            if let Some(domain) = file.domain.as_deref().filter(|_| found.is_some() || indices.len() == 1) {
                fields.insert("domain".to_owned(), Value::from(domain));
            }
            if let Some((pattern, read)) = found {
                fields.insert("action".to_owned(), Value::from(&*pattern.action));
                fields.extend(read);
                let logsource = pattern.logsource.clone().unwrap_or_else(|| file.logsource.clone());
                return Applied { logsource, remember: &pattern.remember, recall: &pattern.recall };
            }
        }
        applied
    }

    fn add(&mut self, program: Program) {
        let index = self.files.len();
        for name in &program.programs {
            self.by_program.entry(Arc::clone(name)).or_default().push(index);
        }
        self.files.push(program);
    }
}
