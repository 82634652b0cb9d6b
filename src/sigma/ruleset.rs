//! All rules that are loaded together.

use std::collections::HashMap;
use std::sync::Arc;

use super::ast::{Body, Rule};
use super::collection;
use super::document::{self, Filter, Parsed};
use super::processing::{self, Fills};
use super::read::Sink;
use super::resolve;
use super::yaml;
use crate::diag::{Diagnostic, Place, SourceFile};

/// The largest rule file that is read.
pub const MAX_FILE_BYTES: usize = 4 << 20;

/// What came of loading files.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The rules of the files that are right.
    pub set: RuleSet,
    /// What is wrong with the others, in the order of the files and of the places in them. A file named here is not loaded.
    pub diagnostics: Vec<Diagnostic>,
}

/// Rules whose references are resolved. The index of a rule in `rules` is its name among the pure stages.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// In the order of the files and of the documents in them; filters are already joined to their detections.
    pub rules: Vec<Rule>,
    pub(super) inputs: Vec<Vec<usize>>,
    pub(super) silent: Vec<bool>,
    pub(super) order: Vec<usize>,
    pub(super) by_reference: HashMap<Arc<str>, usize>,
}

impl RuleSet {
    /// The indices of the rules that a correlation's `rules` name, place by place; empty for a detection.
    #[must_use]
    pub fn inputs(&self, rule: usize) -> &[usize] {
        self.inputs.get(rule).map_or(&[], Vec::as_slice)
    }

    /// Whether the rule reports nothing of its own (C11): a correlation refers to it, and none of those says `generate: true`.
    #[must_use]
    pub fn is_silent(&self, rule: usize) -> bool {
        self.silent.get(rule).copied().unwrap_or(false)
    }

    /// The correlations' indices, each behind those that it refers to (C8).
    #[must_use]
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The rule with this `id` or `name`.
    #[must_use]
    pub fn find(&self, reference: &str) -> Option<usize> {
        self.by_reference.get(reference).copied()
    }
}

/// One file's documents.
pub(super) struct File {
    pub sink: Sink,
    pub rules: Vec<Rule>,
    pub filters: Vec<Filter>,
}

impl File {
    /// The references of its correlations and filters, each with its place.
    pub fn references(&self) -> impl Iterator<Item = &(Arc<str>, Place)> {
        let correlated = self.rules.iter().filter_map(|rule| match &rule.body {
            Body::Correlation(correlation) => Some(&correlation.rules),
            Body::Detection(_) => None,
        });
        correlated.chain(self.filters.iter().map(|filter| &filter.rules)).flatten()
    }
}

/// How the names of case files end. They stand beside the rules that they test, and are no rules.
pub const CASES_SUFFIX: &str = ".cases.yml";

/// Loads rule files together, with the pipelines that a [`super::manifest`] among them names. A file with anything wrong in it is refused
/// whole, and then whatever refers to its rules. Case files ([`CASES_SUFFIX`]) are passed over.
#[must_use]
pub fn load(files: &[SourceFile]) -> Loaded {
    let mut files: Vec<SourceFile> = files.iter().filter(|file| !file.name.ends_with(CASES_SUFFIX)).cloned().collect();
    let (pipelines, sinks) = processing::take(&mut files);
    // What the pipelines cannot do to a file's rules refuses it as anything else does: each round one more.
    let mut unfit: Vec<Diagnostic> = Vec::new();
    loop {
        let mut read: Vec<File> = files.iter().map(|source| file(source, &pipelines.fills)).collect();
        for file in &mut read {
            let name = Arc::clone(&file.sink.file);
            unfit.iter().filter(|wrong| wrong.file == name).for_each(|wrong| file.sink.add(wrong.clone()));
        }
        let mut set = resolve::resolve(&mut read);
        let found = processing::apply(&pipelines, &mut set);
        if found.is_empty() {
            let mut diagnostics = Vec::new();
            for sink in sinks.into_iter().chain(read.into_iter().map(|file| file.sink)) {
                let mut found = sink.found;
                found.sort_by_key(|diagnostic| diagnostic.place);
                diagnostics.append(&mut found);
            }
            return Loaded { set, diagnostics };
        }
        unfit.extend(found);
    }
}

fn file(source: &SourceFile, fills: &Arc<Fills>) -> File {
    let sink = Sink { fills: Arc::clone(fills), ..Sink::new(&source.name) };
    let mut file = File { sink, rules: Vec::new(), filters: Vec::new() };
    if source.text.len() > MAX_FILE_BYTES {
        file.sink.error(Place::default(), format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20), "split it");
        return file;
    }
    let text = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
    match yaml::parse(text) {
        Ok(documents) => {
            let lines: Vec<&str> = text.lines().collect();
            for document in collection::written_out(documents, &mut file.sink) {
                match document::parse(document, &lines, &mut file.sink) {
                    Some(Parsed::Rule(rule)) => file.rules.push(*rule),
                    Some(Parsed::Filter(filter)) => file.filters.push(filter),
                    None => {}
                }
            }
        }
        Err(error) => file.sink.error(error.place(), error.to_string(), error.help()),
    }
    file
}
