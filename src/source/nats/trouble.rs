//! What keeps a source from reading, told once for the whole source.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::{Outlet, State};

/// Sentences by what they are about: the connection, a subject, a stream.
#[derive(Clone)]
pub(super) struct Troubles {
    outlet: Outlet,
    told: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Troubles {
    pub(super) fn new(outlet: &Outlet) -> Troubles {
        Troubles { outlet: outlet.clone(), told: Arc::default() }
    }

    /// Something is in the way; one sentence.
    pub(super) fn set(&self, part: &str, why: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(part) == Some(&why) {
            return;
        }
        tracing::warn!(source = %self.outlet.source, "{why}; trying again");
        told.insert(part.to_owned(), why);
        let state = all(&told);
        drop(told);
        (self.outlet.report)(&self.outlet.source, state);
    }

    /// It is no longer in the way.
    pub(super) fn clear(&self, part: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.remove(part).is_none() {
            return;
        }
        let state = all(&told);
        drop(told);
        if state == State::Reads {
            tracing::info!(source = %self.outlet.source, "reading again");
        }
        (self.outlet.report)(&self.outlet.source, state);
    }
}

/// Several subjects may be in want of the same thing.
fn all(told: &BTreeMap<String, String>) -> State {
    let mut sentences: Vec<&str> = told.values().map(String::as_str).collect();
    sentences.dedup();
    if sentences.is_empty() { State::Reads } else { State::Fails(sentences.join("; ")) }
}
