//! How things stand: what `/readyz` and `opmas` commands say of the running system.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::tally::Tally;
use crate::clock;
use crate::model::{Span, Time};

/// How bad a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Gravity {
    /// A limit that a person should know; everything works.
    Notice,
    /// A part does not work; the rest does.
    Degraded,
    /// The main job does not go on: input is not accepted.
    NotReady,
}

/// One reason why things are not as they should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Which part: `spool`, `executor`, `rules`, `device ap1`.
    pub part: String,
    /// How bad.
    pub gravity: Gravity,
    /// Since when.
    pub since: Time,
    /// What is wrong and the remedy, one sentence.
    pub text: String,
}

/// Shared by everything that runs; a clone is the same status.
#[derive(Clone, Debug, Default)]
pub struct Status {
    reasons: Arc<Mutex<BTreeMap<String, Reason>>>,
    /// Sources that read since then what another opmas has read before.
    taken_over: Arc<Mutex<BTreeMap<String, Time>>>,
    tally: Tally,
}

/// Most reasons kept; more parts than this cannot be told apart by a person anyway.
const MAX_REASONS: usize = 1_000;

impl Status {
    /// What each rule does.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Says that a part is not as it should be. The time since when stays while the gravity does.
    pub fn set(&self, part: &str, gravity: Gravity, text: impl Into<String>) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let since = reasons.get(part).filter(|old| old.gravity == gravity).map_or_else(clock::now, |old| old.since);
        if reasons.len() < MAX_REASONS || reasons.contains_key(part) {
            reasons.insert(part.to_owned(), Reason { part: part.to_owned(), gravity, since, text: text.into() });
        }
    }

    /// Says that a part is well again.
    pub fn clear(&self, part: &str) {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner).remove(part);
    }

    /// From this time on a source reads what another opmas has read until then.
    pub fn took_over(&self, source: &str, at: Time) {
        tracing::warn!(source, "takes over what another opmas has read until now; what that one read is not in the windows");
        self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).insert(source.to_owned(), at);
    }

    /// Says from when on windows are whole, and that they are once they are. The longest window is asked for after a takeover alone.
    pub fn measure_windows(&self, longest: impl FnOnce() -> Span) {
        let mut taken_over = self.taken_over.lock().unwrap_or_else(PoisonError::into_inner);
        if taken_over.is_empty() {
            return;
        }
        let (longest, now) = (longest(), clock::now());
        taken_over.retain(|source, at| {
            let (part, sure) = (format!("windows over source {source}"), at.plus(longest));
            if sure <= now {
                self.clear(&part);
                return false;
            }
            let text = format!(
                "until {} another opmas read; a window that reaches back beyond it lacks what came then: all are whole from {} on",
                at.brief(),
                sure.brief()
            );
            self.set(&part, Gravity::Notice, text);
            true
        });
    }

    /// Everything that is not as it should be, the gravest first.
    #[must_use]
    pub fn reasons(&self) -> Vec<Reason> {
        let reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let mut list: Vec<Reason> = reasons.values().cloned().collect();
        list.sort_by(|a, b| b.gravity.cmp(&a.gravity).then_with(|| a.part.cmp(&b.part)));
        list
    }

    /// The gravest of all reasons, if there is any.
    #[must_use]
    pub fn worst(&self) -> Option<Gravity> {
        self.reasons().first().map(|reason| reason.gravity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_comes_first_and_clearing_removes() {
        let status = Status::default();
        status.set("executor", Gravity::Notice, "Landlock is absent");
        status.set("spool", Gravity::NotReady, "no space");
        assert_eq!(status.worst(), Some(Gravity::NotReady));
        assert_eq!(status.reasons().first().map(|r| r.part.clone()), Some("spool".to_owned()));
        status.clear("spool");
        assert_eq!(status.worst(), Some(Gravity::Notice));
    }

    #[test]
    fn since_stays_while_the_gravity_does() {
        let status = Status::default();
        status.set("spool", Gravity::NotReady, "no space");
        let first = status.reasons()[0].since;
        status.set("spool", Gravity::NotReady, "still no space");
        assert_eq!(status.reasons()[0].since, first);
    }
}
