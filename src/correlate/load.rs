//! Rules that this version can evaluate.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::correlator::{Correlator, Limits};
use crate::diag::SourceFile;
use crate::sigma::{self, Loaded};

/// Loads rule files, and refuses those whose correlations this version does not evaluate, whole, as any other file that is wrong;
/// and then whatever refers to their rules.
#[must_use]
pub fn load(files: &[SourceFile]) -> Loaded {
    let mut files = files.to_vec();
    let mut refused = Vec::new();
    loop {
        let mut loaded = sigma::load(&files);
        let Err(found) = Correlator::new(&loaded.set, Limits::default()) else {
            loaded.diagnostics.extend(refused);
            return loaded;
        };
        let names: BTreeSet<Arc<str>> = found.iter().map(|diagnostic| Arc::clone(&diagnostic.file)).collect();
        let before = files.len();
        files.retain(|file| !names.contains(&file.name));
        refused.extend(found);
        if files.len() == before {
            // No file has that name, so that taking files away leads nowhere.
            return Loaded { diagnostics: refused, ..Loaded::default() };
        }
    }
}
