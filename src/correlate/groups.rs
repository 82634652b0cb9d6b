//! The groups of one correlation, and which of them go first when there are too many (C12).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::compiled::Compiled;
use super::group::Group;
use super::timekeeper::Timekeeper;
use crate::model::Time;

/// All groups of one rule by their text. What is iterated is ordered; the map is only asked.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    by_text: HashMap<Arc<str>, Group>,
    /// By the group's own clock: who is idle longest stands first.
    by_clock: BTreeSet<(Time, Arc<str>)>,
}

impl Groups {
    pub(super) fn len(&self) -> usize {
        self.by_text.len()
    }

    /// A group as it stands, or a new one, emptied when the watermark has passed it (C1).
    pub(super) fn take(&mut self, text: &Arc<str>, rule: &Compiled, time: &Timekeeper) -> Group {
        let Some(group) = self.by_text.remove(text) else { return Group::default() };
        self.by_clock.remove(&(group.clock, Arc::clone(text)));
        group.seen(rule, time)
    }

    /// A copy of a group, to try something on.
    pub(super) fn copy(&self, text: &Arc<str>, rule: &Compiled, time: &Timekeeper) -> Group {
        self.by_text.get(text).cloned().unwrap_or_default().seen(rule, time)
    }

    /// Puts a group back where it was taken from. One that nothing entered is not kept.
    pub(super) fn put(&mut self, text: Arc<str>, group: Group) {
        if group.clock > Time::MIN {
            self.by_clock.insert((group.clock, Arc::clone(&text)));
            self.by_text.insert(text, group);
        }
    }

    /// Frees what the watermark has passed (T4).
    pub(super) fn free(&mut self, rule: &Compiled, time: &Timekeeper) {
        let reach = rule.reach();
        let past = self.by_clock.iter().take_while(|(clock, _)| time.passed(clock.plus(reach), None));
        let over = past.filter(|(_, text)| self.by_text.get(text).is_none_or(|group| group.is_over(rule, time)));
        for key in over.cloned().collect::<Vec<_>>() {
            self.by_text.remove(&key.1);
            self.by_clock.remove(&key);
        }
    }

    /// The clock of the group that is idle longest.
    pub(super) fn idle_since(&self) -> Option<Time> {
        self.by_clock.first().map(|(clock, _)| *clock)
    }

    /// Evicts the group that is idle longest.
    pub(super) fn evict(&mut self) -> bool {
        let Some((_, text)) = self.by_clock.pop_first() else { return false };
        self.by_text.remove(&text).is_some()
    }

    /// All groups, in the order of their clocks and texts.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Group)> {
        self.by_clock.iter().filter_map(|(_, text)| self.by_text.get(text).map(|group| (text, group)))
    }
}
