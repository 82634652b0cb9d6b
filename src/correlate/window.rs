//! Entries of a group and the windows over them (C2).

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::compiled::{Compiled, Test, bit, has};
use super::place::Place;
use super::value::Overlay;
use crate::model::{Event, Time, Trust};
use crate::sigma::Comparison;

/// How many of a window's first events a finding shows.
pub const EVIDENCE_FIRST: usize = 3;
/// How many of a window's last events a finding shows.
pub const EVIDENCE_LAST: usize = 5;

/// What one spool entry brings into a group.
#[derive(Clone, Debug)]
pub(super) struct Input {
    pub place: Place,
    pub event: Arc<Event>,
    /// What a finding lays over the event's fields.
    pub overlay: Option<Arc<Overlay>>,
    pub slot: usize,
    /// A finding that is counted, beside whatever else stands at its place (C8); else the event itself.
    pub finding: bool,
    /// The least trust of what stands behind it.
    pub trust: Trust,
    /// The host whose time must pass too, because the event came behind the watermark.
    pub behind: Option<Arc<str>>,
    /// A finding at this place was told while the event was not believed yet (T3).
    pub told: bool,
}

/// What stands at one place of a group: one entry, whatever it matched (C1).
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub place: Place,
    pub event: Arc<Event>,
    pub overlay: Option<Arc<Overlay>>,
    /// Bits of the slots by which it came.
    pub refs: u64,
    /// 1 for the event and 1 for each finding.
    pub weight: u32,
    /// Whether the event itself counts.
    pub counted: bool,
    pub trust: Trust,
    /// The condition has held here.
    pub held: bool,
    /// The rule has fired here.
    pub fired: bool,
    /// A finding at this place was told before the event was believed.
    pub told: bool,
}

impl Entry {
    pub(super) fn new(input: Input) -> Entry {
        let Input { place, event, trust, told, .. } = input.clone();
        let mut entry = Entry { place, event, overlay: None, refs: 0, weight: 0, counted: false, trust, held: false, fired: false, told };
        entry.merge(input);
        entry
    }

    /// Another reference at the same place.
    pub(super) fn merge(&mut self, input: Input) {
        self.refs |= bit(input.slot);
        self.trust = self.trust.min(input.trust);
        self.told |= input.told;
        if input.finding || !self.counted {
            self.weight = self.weight.saturating_add(1);
        }
        self.counted |= !input.finding;
        match (&mut self.overlay, input.overlay) {
            (None, new) => self.overlay = new,
            (Some(known), Some(new)) => {
                let known = Arc::make_mut(known);
                for (name, value) in new.iter() {
                    known.entry(Arc::clone(name)).or_insert_with(|| value.clone());
                }
            }
            (Some(_), None) => {}
        }
    }
}

/// What is known of the entries up to one place, so that the next needs no second look at them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Tally {
    /// Per place of an ordered rule: the latest start of a sequence that fills the places up to it.
    starts: Vec<Option<Time>>,
    /// The newest entry that is not verified.
    open: Option<Time>,
}

impl Tally {
    fn start(&self, place: usize) -> Option<Time> {
        self.starts.get(place).copied().flatten()
    }

    /// Takes an entry in; one event fills one place, so later places go first (C7).
    pub(super) fn take(&mut self, test: &Test, entry: &Entry) {
        if entry.trust < Trust::Verified {
            self.open = self.open.max(Some(entry.place.time));
        }
        let Test::Ordered(order) = test else { return };
        self.starts.resize(order.len(), None);
        for (place, _) in order.iter().enumerate().rev().filter(|(_, slot)| has(entry.refs, **slot)) {
            let start = if place == 0 { Some(entry.place.time) } else { self.start(place - 1) };
            if let Some(known) = self.starts.get_mut(place) {
                *known = (*known).max(start);
            }
        }
    }

    /// Whether the sequence is complete at this entry, which is not taken in yet, with all of it later than `after`.
    fn completes(&self, order: &[usize], entry: &Entry, after: Time) -> bool {
        let Some((last, before)) = order.split_last() else { return false };
        let reached = before.len().checked_sub(1).is_none_or(|place| self.start(place).is_some_and(|start| start > after));
        has(entry.refs, *last) && reached
    }

    /// The least trust of the entries later than `after`.
    pub(super) fn trust(&self, after: Time) -> Trust {
        if self.open.is_some_and(|open| open > after) { Trust::Open } else { Trust::Verified }
    }
}

/// The entries of a group, ordered by place.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    list: VecDeque<Entry>,
    /// How many weigh more than 1.
    heavy: usize,
}

/// A window that ends at an entry: `(x − T, x]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Index of its first entry.
    pub first: usize,
    /// Index of x.
    pub last: usize,
    /// What it counts.
    pub count: u64,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn newest(&self) -> Option<Place> {
        self.list.back().map(|entry| entry.place)
    }

    pub(super) fn get(&self, index: usize) -> Option<&Entry> {
        self.list.get(index)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.list.get_mut(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.list.iter()
    }

    /// Index of the first entry at or after a place.
    pub(super) fn index(&self, place: Place) -> usize {
        match self.list.back() {
            Some(last) if last.place < place => self.list.len(),
            _ => self.list.partition_point(|entry| entry.place < place),
        }
    }

    /// Puts it at its place; whether that was empty.
    pub(super) fn put(&mut self, input: Input) -> bool {
        let index = self.index(input.place);
        match self.list.get_mut(index).filter(|entry| entry.place == input.place) {
            Some(entry) => {
                let before = entry.weight;
                entry.merge(input);
                self.heavy += usize::from(before == 1 && entry.weight > 1);
                false
            }
            None => {
                self.list.insert(index, Entry::new(input));
                true
            }
        }
    }

    /// Puts an entry back that a snapshot kept.
    pub(super) fn restore(&mut self, entry: Entry) {
        self.heavy += usize::from(entry.weight > 1);
        self.list.push_back(entry);
    }

    /// Takes the oldest entry away.
    pub(super) fn pop(&mut self) -> Option<Place> {
        let entry = self.list.pop_front()?;
        self.heavy -= usize::from(entry.weight > 1);
        Some(entry.place)
    }

    pub(super) fn oldest(&self) -> Option<Place> {
        self.list.front().map(|entry| entry.place)
    }

    pub(super) fn clear(&mut self) {
        self.list = VecDeque::new();
        self.heavy = 0;
    }

    /// The window that ends at the entry with this index and begins after `after`.
    pub(super) fn window(&self, last: usize, after: Time) -> Window {
        let first = self.list.partition_point(|entry| entry.place.time <= after).min(last);
        let count = if self.heavy == 0 {
            last - first + 1
        } else {
            self.list.range(first..=last).map(|entry| usize::try_from(entry.weight).unwrap_or(usize::MAX)).sum()
        };
        Window { first, last, count: count as u64 }
    }

    /// The first and the last events of a window.
    pub(super) fn evidence(&self, window: Window) -> Vec<Arc<Event>> {
        let len = window.last - window.first + 1;
        let shown = |at: &usize| *at < EVIDENCE_FIRST || at + EVIDENCE_LAST >= len;
        let head = 0..len.min(EVIDENCE_FIRST);
        let tail = len.saturating_sub(EVIDENCE_LAST).max(EVIDENCE_FIRST)..len;
        head.chain(tail).filter(shown).filter_map(|at| self.list.get(window.first + at)).map(|entry| Arc::clone(&entry.event)).collect()
    }
}

/// Whether a rule's condition holds at an entry; `tally` stands just before it.
pub(super) fn holds(rule: &Compiled, tally: &Tally, entry: &Entry, window: Window) -> bool {
    let after = entry.place.time.minus(rule.span);
    let test = match &rule.test {
        Test::Count(comparisons) => comparisons.iter().all(|(comparison, number)| compare(*comparison, window.count as f64, *number)),
        Test::Ordered(order) => tally.completes(order, entry, after),
    };
    test && window.count >= rule.min_events
}

fn compare(comparison: Comparison, left: f64, right: f64) -> bool {
    match comparison {
        Comparison::Lt => left < right,
        Comparison::Lte => left <= right,
        Comparison::Gt => left > right,
        Comparison::Gte => left >= right,
        Comparison::Eq => left == right,
        Comparison::Neq => left != right,
    }
}
