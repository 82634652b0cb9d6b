//! Processing pipelines in pySigma's form: other field names, other log sources, and what stands in the place of placeholders.
//!
//! Which files are pipelines says a manifest among the files that are loaded together ([`manifest`]): a rule file cannot make itself one.

mod apply;
mod fill;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use self::apply::apply;
pub(super) use self::fill::{Fills, Unfilled};
use super::ast::{Pattern, Search, Test};
use super::read::Sink;
use crate::diag::SourceFile;
use crate::model::LogSource;

/// How the manifest is called among the files.
const MANIFEST: &str = "[sigma]";

#[derive(Debug, Default, Deserialize, Serialize)]
struct Manifest {
    pipelines: Vec<Arc<str>>,
    placeholders: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

/// The file (its content is stable, it stands in kept revisions) that says which of the others are pipelines, by name, and what stands in the
/// place of placeholders besides what those say. `None` when there is nothing to say.
#[must_use]
pub fn manifest(pipelines: Vec<Arc<str>>, placeholders: BTreeMap<Arc<str>, Vec<Arc<str>>>) -> Option<SourceFile> {
    let empty = pipelines.is_empty() && placeholders.is_empty();
    let text = serde_json::to_string(&Manifest { pipelines, placeholders }).ok().filter(|_| !empty)?;
    Some(SourceFile { name: MANIFEST.into(), text: text.into() })
}

/// All pipelines that apply, as one.
#[derive(Debug, Default)]
pub(super) struct Pipelines {
    /// In the order of the pipelines' priorities, then of the manifest, then of the file.
    pub steps: Vec<Step>,
    pub fills: Arc<Fills>,
}

/// What applies to the rules that are meant.
#[derive(Debug)]
pub(super) struct Step {
    pub id: Option<Arc<str>>,
    pub rules: Conditions<OfRule>,
    pub items: Conditions<OfItem>,
    pub fields: Conditions<OfField>,
    pub change: Change,
}

/// Joined by `and` or `or`; none of them is always met.
#[derive(Debug)]
pub(super) struct Conditions<C> {
    pub of: Vec<C>,
    pub any: bool,
    pub not: bool,
}

impl<C> Conditions<C> {
    pub fn hold(&self, is: impl Fn(&C) -> bool) -> bool {
        self.joined(self.of.iter().map(is))
    }

    /// What comes of what is known of each.
    pub fn joined(&self, mut met: impl Iterator<Item = bool>) -> bool {
        self.of.is_empty() || self.not != if self.any { met.any(|met| met) } else { met.all(|met| met) }
    }
}

#[derive(Debug)]
pub(super) enum OfRule {
    LogSource(LogSource),
    HasField(Arc<str>),
    HasItem(Arc<str>, Test),
    Tag(Arc<str>),
    IsCorrelation(bool),
    Applied(Arc<str>),
}

#[derive(Debug)]
pub(super) enum OfItem {
    /// With every value, or with any.
    Text {
        pattern: Pattern,
        negated: bool,
        all: bool,
    },
    Null {
        all: bool,
    },
    Applied(Arc<str>),
}

#[derive(Debug)]
pub(super) enum OfField {
    /// The names, and whether those are the ones that are not meant.
    Named(Vec<Arc<str>>, bool),
    Like(Vec<Pattern>, bool),
    Applied(Arc<str>),
}

/// What becomes what; the first that fits counts.
type Mapping = Vec<(Arc<str>, Vec<Arc<str>>)>;

#[derive(Debug)]
pub(super) enum Change {
    Names(BTreeMap<Arc<str>, Vec<Arc<str>>>),
    Prefixes(Mapping),
    Around { prefix: Arc<str>, suffix: Arc<str> },
    Drop,
    LogSource(LogSource),
    Add { search: Search, negated: bool },
}

/// Takes manifest and pipelines out of the files. What is wrong with a pipeline stands in its sink; the others apply.
pub(super) fn take(files: &mut Vec<SourceFile>) -> (Pipelines, Vec<Sink>) {
    let said = files.iter().position(|file| *file.name == *MANIFEST).map(|at| files.remove(at));
    let manifest: Manifest = said.and_then(|file| serde_json::from_str(&file.text).ok()).unwrap_or_default();
    let (mut found, mut sinks) = (Vec::new(), Vec::new());
    for name in &manifest.pipelines {
        let Some(file) = files.iter().position(|file| file.name == *name).map(|at| files.remove(at)) else { continue };
        let mut sink = Sink::new(&file.name);
        found.extend(read::parse(&file, &mut sink).filter(|_| sink.found.is_empty()));
        sinks.push(sink);
    }
    found.sort_by(|a, b| a.priority.total_cmp(&b.priority));
    let mut pipelines = Pipelines::default();
    let mut fills = Fills::default();
    for pipeline in found {
        pipelines.steps.extend(pipeline.steps);
        fills.add(pipeline.vars, pipeline.fills);
    }
    fills.add(manifest.placeholders, Vec::new());
    pipelines.fills = Arc::new(fills);
    (pipelines, sinks)
}
