//! The groups of one correlation, and which of them go first when there are too many (C12).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::compiled::Compiled;
use super::group::Group;
use super::timekeeper::Timekeeper;
use super::timer::Timer;
use crate::model::Time;

/// All groups of one rule by their text. What is iterated is ordered; the map is only asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    /// Shared with a snapshot while that is written: whoever changes a group then copies it first.
    by_text: HashMap<Arc<str>, Arc<Group>>,
    /// By stream, each one's groups in the order in which they are evicted.
    shares: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    /// The streams by the number of their groups.
    sizes: BTreeSet<(usize, Arc<str>)>,
    /// Since when the youngest group of `new_value` learns.
    pub learns: Option<Time>,
}

/// Groups with an open timer last; among others who is idle longest by the group's own clock stands first.
type Rank = (bool, Time, Arc<str>);

fn rank(text: &Arc<str>, group: &Group) -> Rank {
    (group.timer.is_some(), group.clock, Arc::clone(text))
}

impl Groups {
    pub(super) fn len(&self) -> usize {
        self.by_text.len()
    }

    /// Does something to a group as it is to be seen now, or to a new one of this stream's share; with its timer before.
    pub(super) fn change<R>(&mut self, text: &Arc<str>, stream: &Arc<str>, change: impl FnOnce(&mut Group) -> R) -> (R, Option<Timer>) {
        let mut group = self.by_text.remove(text);
        let before = group.as_ref().map(|group| rank(text, group));
        let timer = group.as_ref().and_then(|group| group.timer.clone());
        let mut group = group.take().unwrap_or_else(|| Arc::new(Group::new(Arc::clone(stream))));
        let result = change(Arc::make_mut(&mut group));
        self.learns = self.learns.max(group.known.as_ref().and_then(|known| known.since));
        // One that nothing entered is not kept.
        let now = (group.clock > Time::MIN).then(|| rank(text, &group));
        if before != now {
            self.stand(&group.stream, before, now.clone());
        }
        if now.is_some() {
            self.by_text.insert(Arc::clone(text), group);
        }
        (result, timer)
    }

    /// A group has another rank in its stream's share, a first one or none.
    fn stand(&mut self, stream: &Arc<str>, before: Option<Rank>, now: Option<Rank>) {
        let share = self.shares.entry(Arc::clone(stream)).or_default();
        let size = share.len();
        before.map(|rank| share.remove(&rank));
        now.map(|rank| share.insert(rank));
        let grown = share.len();
        if grown == 0 {
            self.shares.remove(stream);
        }
        if size != grown {
            self.sizes.remove(&(size, Arc::clone(stream)));
            if grown > 0 {
                self.sizes.insert((grown, Arc::clone(stream)));
            }
        }
    }

    pub(super) fn get(&self, text: &Arc<str>) -> Option<&Group> {
        self.by_text.get(text).map(|group| &**group)
    }

    /// Puts a group back that a snapshot kept.
    pub(super) fn restore(&mut self, text: Arc<str>, group: Group) {
        self.learns = self.learns.max(group.known.as_ref().and_then(|known| known.since));
        self.stand(&Arc::clone(&group.stream), None, Some(rank(&text, &group)));
        self.by_text.insert(text, Arc::new(group));
    }

    /// Frees what the watermark has passed (T4); the events that its entries held.
    pub(super) fn free(&mut self, rule: &Compiled, time: &Timekeeper) -> Vec<u64> {
        let mut gone = Vec::new();
        let reach = rule.reach();
        let past = self.shares.values().flat_map(|share| share.iter().take_while(|(timer, clock, _)| !timer && time.passed(clock.plus(reach), None)));
        let over = past.filter(|(_, _, text)| self.by_text.get(text).is_none_or(|group| group.is_over(rule, time)));
        for rank in over.cloned().collect::<Vec<_>>() {
            if let Some((_, group)) = self.remove(rank) {
                gone.extend(group.entries.iter().map(|entry| entry.place.seq));
            }
        }
        gone
    }

    fn remove(&mut self, rank: Rank) -> Option<(Arc<str>, Arc<Group>)> {
        let (text, group) = self.by_text.remove_entry(&rank.2)?;
        self.stand(&group.stream, Some(rank), None);
        Some((text, group))
    }

    /// How many groups the largest share has.
    pub(super) fn largest(&self) -> usize {
        self.sizes.last().map_or(0, |(size, _)| *size)
    }

    /// Evicts the first group of the largest share: whoever makes groups without end loses their own, and a source with fewer than its
    /// part of the bound loses none.
    pub(super) fn evict(&mut self) -> Option<(Arc<str>, Arc<Group>)> {
        let (_, stream) = self.sizes.last()?;
        let rank = self.shares.get(stream)?.first()?.clone();
        self.remove(rank)
    }

    /// All groups as they are now, in no order.
    pub(super) fn shared(&self) -> Vec<(Arc<str>, Arc<Group>)> {
        self.by_text.iter().map(|(text, group)| (Arc::clone(text), Arc::clone(group))).collect()
    }
}
