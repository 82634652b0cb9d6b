//! The state of all groups as a value that serde can write, and back: checkpoints, and rules that are replaced (C13).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use super::archive::{Archive, Kept};
use super::compiled::Compiled;
use super::correlator::{Correlator, Counters};
use super::group::Group;
use super::groups::{self, Groups};
use super::packed;
use super::test::Timing;
use super::wire::{Bytes, Reader};
use crate::entity::View;
use crate::model::Time;

/// Everything that a [`Correlator`] remembers. Each event is there once, however many groups hold it.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct State {
    archive: Kept,
    rules: Vec<RuleState>,
    counters: Counters,
    freed: Time,
    view: View,
}

#[derive(Clone, Debug, Deserialize)]
struct RuleState {
    key: Arc<str>,
    shape: Arc<str>,
    /// The streams that groups name by number.
    streams: Vec<Arc<str>>,
    /// Groups, each behind its length.
    groups: Vec<Bytes>,
}

/// Everything that a [`Correlator`] remembers, as it was at one moment: what it holds is shared with it, so that taking it costs little, and
/// is copied when it changes while this is kept. It is written as [`State`] reads it.
#[derive(Debug, Serialize)]
pub struct Frozen {
    archive: Kept,
    rules: Vec<FrozenRule>,
    counters: Counters,
    freed: Time,
    view: View,
}

#[derive(Debug)]
struct FrozenRule {
    key: Arc<str>,
    shape: Arc<str>,
    groups: groups::Frozen,
}

/// What a snapshot holds is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("groups that cannot be read")]
pub struct Unreadable;

impl Serialize for FrozenRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.key, &self.shape, &self.groups.streams, &self.groups).serialize(serializer)
    }
}

impl Serialize for groups::Frozen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut parts = serializer.serialize_seq(Some(self.len()))?;
        // One after the other, so that there is no second copy of all.
        self.parts().try_for_each(|part| parts.serialize_element(&Bytes(part.into())))?;
        parts.end()
    }
}

impl From<Frozen> for State {
    fn from(frozen: Frozen) -> State {
        let Frozen { archive, rules, counters, freed, view } = frozen;
        let rules = rules.into_iter().map(|FrozenRule { key, shape, groups }| {
            let parts = groups.parts().map(|part| Bytes(part.into())).collect();
            RuleState { key, shape, streams: groups.streams, groups: parts }
        });
        State { archive, rules: rules.collect(), counters, freed, view }
    }
}

impl Correlator {
    /// Everything that it remembers.
    #[must_use]
    pub fn freeze(&self) -> Frozen {
        let frozen = |(rule, groups): (&Compiled, &Groups)| FrozenRule { key: self.key(rule.rule), shape: Arc::clone(&rule.shape), groups: groups.freeze() };
        let rules = self.rules.iter().zip(&self.groups).map(frozen).collect();
        Frozen { archive: self.archive.kept(), rules, counters: self.counters, freed: self.freed, view: self.view.clone() }
    }

    /// Goes on from what another one remembered. The windows of rules that are equal as far as windows go are kept, others are empty (C13).
    ///
    /// # Errors
    /// The state is damaged; the one before stays.
    pub fn restore(&mut self, state: State) -> Result<(), Unreadable> {
        let empty = vec![Groups::default(); self.rules.len()];
        let before = (std::mem::replace(&mut self.groups, empty), std::mem::take(&mut self.archive), std::mem::take(&mut self.timers));
        let State { archive, rules, counters, freed, view } = state;
        self.archive = Archive::restore(archive);
        if self.restore_rules(rules).is_none() {
            (self.groups, self.archive, self.timers) = before;
            return Err(Unreadable);
        }
        self.archive.settle();
        self.total = self.groups.iter().map(Groups::len).sum();
        (self.counters, self.freed, self.view) = (counters, freed, view);
        Ok(())
    }

    /// Takes over what another one remembers, as [`Correlator::restore`] does from its [`Correlator::freeze`] (C13); the groups of a rule
    /// that decides just as before go over as they are, however many.
    pub fn take_over(&mut self, before: &mut Correlator) {
        let mut known: BTreeMap<_, usize> = before.rules.iter().enumerate().map(|(from, rule)| (before.windows_of(rule), from)).collect();
        let mut moved = vec![None; before.rules.len()];
        for (at, rule) in self.rules.iter().enumerate() {
            let from = known.remove(&self.windows_of(rule)).filter(|from| before.rules.get(*from).is_some_and(|own| rule.decides_as(own)));
            from.and_then(|from| moved.get_mut(from)).into_iter().for_each(|moved| *moved = Some(at));
        }
        if moved.iter().zip(&before.groups).any(|(to, groups)| to.is_none() && groups.len() > 0) {
            // To take events out of the archive one by one takes longer. What was never written to a disk is not damaged.
            let _ = self.restore(before.freeze().into());
            return;
        }
        self.archive = std::mem::take(&mut before.archive);
        for (to, groups) in moved.iter().zip(&mut before.groups) {
            to.and_then(|to| self.groups.get_mut(to)).into_iter().for_each(|place| *place = std::mem::take(groups));
        }
        self.timers.take_over(std::mem::take(&mut before.timers), &moved);
        self.total = self.groups.iter().map(Groups::len).sum();
        (self.counters, self.freed, self.view) = (before.counters, before.freed, before.view.clone());
    }

    /// By what a rule's windows are known again: its key and its shape.
    fn windows_of(&self, rule: &Compiled) -> (Arc<str>, Arc<str>) {
        (self.key(rule.rule), Arc::clone(&rule.shape))
    }

    fn restore_rules(&mut self, rules: Vec<RuleState>) -> Option<()> {
        let mut known: BTreeMap<_, RuleState> = rules.into_iter().map(|rule| ((rule.key.clone(), rule.shape.clone()), rule)).collect();
        for at in 0..self.rules.len() {
            let rule = self.rules.get(at)?;
            if let Some(kept) = known.remove(&self.windows_of(rule)) {
                self.restore_rule(at, &kept)?;
            }
        }
        Some(())
    }

    fn restore_rule(&mut self, at: usize, kept: &RuleState) -> Option<()> {
        let (rule, groups) = (self.rules.get(at)?, self.groups.get_mut(at)?);
        for part in &kept.groups {
            let mut part = Reader(&part.0);
            while !part.0.is_empty() {
                let mut reader = Reader(part.bytes()?);
                let (text, _, clock, stream) = packed::read_head(&mut reader)?;
                let mut group = Group::new(Arc::clone(kept.streams.get(stream as usize)?));
                packed::read(&mut reader, clock, &mut group)?;
                // A timer follows from the rest.
                group.timer = None;
                if rule.timing != Timing::AtOnce {
                    group.open_first(rule);
                }
                group.entries.iter().all(|entry| self.archive.hold_known(entry.place.seq)).then_some(())?;
                self.timers.replace(at, text, (None, group.timer.clone()));
                groups.restore(text, group);
            }
        }
        Some(())
    }
}
