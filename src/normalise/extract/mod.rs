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

    /// Types a message: adds `action` and the fields of the first pattern that matches, and says what log source the line
    /// is of. A program whose extractor names a log source has it also when no pattern matches.
    pub(super) fn apply(&self, program: &str, message: &str, fields: &mut Map<String, Value>) -> LogSource {
        let mut source = LogSource::default();
        let files = self.by_program.get(program).into_iter().flatten().filter_map(|index| self.files.get(*index));
        for file in files {
            if source == LogSource::default() {
                source = file.logsource.clone();
            }
            if let Some((pattern, read)) = file.find(message) {
                fields.insert("action".to_owned(), Value::from(&*pattern.action));
                fields.extend(read);
                return pattern.logsource.clone().unwrap_or_else(|| file.logsource.clone());
            }
        }
        source
    }

    fn add(&mut self, program: Program) {
        let index = self.files.len();
        for name in &program.programs {
            self.by_program.entry(Arc::clone(name)).or_default().push(index);
        }
        self.files.push(program);
    }
}
