//! Rules are compiled before they go live, so that the detection thread has only to put them in place.

use std::sync::{Arc, Mutex};

use super::effects::lock;
use crate::correlate;
use crate::detect::Detector;
use crate::diag::SourceFile;
use crate::model::Revision;
use crate::sigma::RuleSet;

/// A set of rules, ready for [`super::Pipeline::set_rules`].
#[derive(Debug)]
pub struct Compiled {
    pub(super) rules: Arc<RuleSet>,
    pub(super) detector: Arc<Detector>,
}

impl From<Arc<RuleSet>> for Compiled {
    fn from(rules: Arc<RuleSet>) -> Compiled {
        Compiled { detector: Arc::new(Detector::new(&rules)), rules }
    }
}

/// What was compiled last, with its revision: the reloader puts it there, the detection thread takes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Ahead(Arc<Mutex<Option<(Revision, Compiled)>>>);

impl Ahead {
    /// Compiles the files of a revision that is to go live.
    pub(super) fn compile(&self, revision: &Revision, files: &[SourceFile]) {
        let compiled = Compiled::from(Arc::new(correlate::load(files).set));
        *lock(&self.0) = Some((revision.clone(), compiled));
    }

    /// What was compiled for this revision.
    pub(super) fn take(&self, revision: &Revision) -> Option<Compiled> {
        lock(&self.0).take_if(|(own, _)| own == revision).map(|(_, compiled)| compiled)
    }
}

/// Frees rules that were replaced, which takes a while, beside the detection thread.
pub(super) fn free(replaced: Compiled) {
    // Without a thread it happens here.
    let _ = std::thread::Builder::new().name("replaced rules".to_owned()).spawn(move || drop(replaced));
}
