//! Entries of a group and the windows over them (C2).

use std::sync::Arc;

use super::chunks::Chunks;
use super::compiled::{Compiled, bit, has};
use super::hosts::Whose;
use super::measure::Datum;
use super::place::Place;
use super::slide::Totals;
use super::test::{Test, Verdict, met};
use super::wire::{Reader, put, put_signed};
use crate::entity::Overlay;
use crate::model::{Event, Span, Time, Trust};

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
    /// What it brings to a value type (C10).
    pub value: Option<Datum>,
    /// The least trust of what stands behind it.
    pub trust: Trust,
    /// Whose time must pass too, because the event came behind the watermark.
    pub behind: Option<Whose>,
}

/// What stands at one place of a group: one entry, whatever it matched (C1). Its event is the one of its place's `seq`, in the archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub place: Place,
    /// Bits of the slots by which it came.
    pub refs: u64,
    /// The event's own value.
    pub value: Option<Datum>,
    /// A long group has thousands of entries, most of them without any of this.
    pub rare: Option<Box<Rare>>,
    /// 1 for the event and 1 for each finding.
    pub weight: u32,
    /// Whether the event itself counts.
    pub counted: bool,
    pub trust: Trust,
    /// The condition has held here.
    pub held: bool,
    /// The rule has fired here.
    pub fired: bool,
}

/// What few entries have.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare {
    /// The first of those that followed each other within the span up to this one: for `missing` they are one entry. Else its own place.
    pub since: Option<Place>,
    pub overlay: Option<Arc<Overlay>>,
    /// Values of findings.
    pub more: Vec<Datum>,
    /// Whose time must pass too, because the event came behind the watermark.
    pub behind: Option<Whose>,
}

impl Rare {
    /// As an entry has it: nothing where there is none of it.
    pub(super) fn kept(self) -> Option<Box<Rare>> {
        let Rare { since, overlay, more, behind } = &self;
        let is_empty = since.is_none() && overlay.is_none() && more.is_empty() && behind.is_none();
        (!is_empty).then(|| Box::new(self))
    }
}

impl Entry {
    pub(super) fn new(input: Input) -> Entry {
        let (place, trust) = (input.place, input.trust);
        let mut entry = Entry { place, refs: 0, value: None, rare: None, weight: 0, counted: false, trust, held: false, fired: false };
        if input.behind.is_some() {
            entry.rare().behind.clone_from(&input.behind);
        }
        entry.merge(input);
        entry
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// The first of those that it ends, itself where it follows none.
    pub(super) fn since(&self) -> Place {
        self.rare.as_ref().and_then(|rare| rare.since).unwrap_or(self.place)
    }

    fn set_since(&mut self, since: Place) {
        if since != self.since() {
            self.rare().since = Some(since);
        }
    }

    /// What a finding lays over the event's fields.
    pub(super) fn overlay(&self) -> Option<&Overlay> {
        self.rare.as_ref()?.overlay.as_deref()
    }

    /// Values of findings.
    pub(super) fn more(&self) -> &[Datum] {
        self.rare.as_ref().map_or(&[], |rare| &rare.more)
    }

    /// Whose time must pass too, because the event came behind the watermark.
    pub(super) fn behind(&self) -> Option<&Whose> {
        self.rare.as_ref()?.behind.as_ref()
    }

    /// Another reference at the same place.
    pub(super) fn merge(&mut self, input: Input) {
        self.refs |= bit(input.slot);
        self.trust = self.trust.min(input.trust);
        if input.finding || !self.counted {
            self.weight = self.weight.saturating_add(1);
        }
        match (input.finding, input.value) {
            (_, None) => {}
            (true, Some(value)) => self.rare().more.push(value),
            // By several references an event still brings one value.
            (false, value) => self.value = self.value.take().or(value),
        }
        self.counted |= !input.finding;
        let Some(new) = input.overlay else { return };
        match &mut self.rare().overlay {
            Some(known) => {
                let known = Arc::make_mut(known);
                for (name, value) in new.iter() {
                    known.entry(Arc::clone(name)).or_insert_with(|| value.clone());
                }
            }
            none => *none = Some(new),
        }
    }

    /// The values that it brings.
    pub(super) fn values(&self) -> impl Iterator<Item = &Datum> {
        self.value.iter().chain(self.more())
    }
}

/// What is known of the entries up to one place, so that the next needs no second look at them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Per place of an ordered rule: the latest start of a sequence that fills the places up to it.
    starts: Vec<Option<Time>>,
}

impl Tally {
    /// Whether nothing was taken in.
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.starts.clear();
    }

    /// Writes it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        put(out, self.starts.len() as u64);
        for start in &self.starts {
            out.push(u8::from(start.is_some()));
            start.iter().for_each(|start| put_signed(out, start.0));
        }
    }

    /// Reads into an empty one what was written.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        for _ in 0..reader.len()? {
            self.starts.push(if reader.byte()? == 0 { None } else { Some(Time(reader.signed()?)) });
        }
        Some(())
    }

    fn start(&self, place: usize) -> Option<Time> {
        self.starts.get(place).copied().flatten()
    }

    /// Takes an entry in; one event fills one place, so later places go first (C7).
    pub(super) fn take(&mut self, test: &Test, entry: &Entry) {
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
}

/// A window of entries, by index.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Its first entry.
    pub first: usize,
    /// Its last entry.
    pub last: usize,
}

/// The entries of a group, ordered by place, and the window over them that was asked for last.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    list: Chunks<Entry>,
    /// What the entries from `first` to before `end` come to; `None` before the first window.
    totals: Option<Totals>,
    first: usize,
    end: usize,
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
            Some(last) if last.place == place => self.list.len() - 1,
            _ => self.list.partition_point(|entry| entry.place < place),
        }
    }

    /// Puts it at its place, joined to those since another; whether the place was empty.
    pub(super) fn put(&mut self, input: Input, since: Place) -> bool {
        let index = self.index(input.place);
        let inside = index >= self.first && index < self.end;
        let mut totals = self.totals.as_mut().filter(|_| inside);
        match self.list.get_mut(index).filter(|entry| entry.place == input.place) {
            Some(entry) => {
                totals.iter_mut().for_each(|totals| totals.remove(entry));
                entry.merge(input);
                totals.iter_mut().for_each(|totals| totals.add(entry));
                false
            }
            None => {
                let mut entry = Entry::new(input);
                entry.set_since(since);
                totals.iter_mut().for_each(|totals| totals.add(&entry));
                self.list.insert(index, entry);
                self.end += usize::from(index < self.end);
                self.first += usize::from(index < self.first);
                true
            }
        }
    }

    /// Puts an entry back that a snapshot kept.
    pub(super) fn restore(&mut self, entry: Entry) {
        self.list.push_back(entry);
    }

    /// Takes an entry away.
    pub(super) fn take(&mut self, index: usize) -> Option<Place> {
        let entry = self.list.remove(index)?;
        if (self.first..self.end).contains(&index) {
            self.totals.iter_mut().for_each(|totals| totals.remove(&entry));
        }
        self.first -= usize::from(index < self.first);
        self.end -= usize::from(index < self.end);
        Some(entry.place)
    }

    /// Joins an entry that is to come to those around it that it follows, or that follow it, within the span. Where none follows it, it is
    /// to be put, as the last of those since the first place; of what it makes needless the place is the second.
    pub(super) fn join(&mut self, place: Place, span: Span) -> (Option<Place>, Option<Place>) {
        let at = self.index(place);
        let within = |early: Place, late: Place| late.time < early.time.plus(span);
        match self.list.get(at) {
            Some(next) if next.place == place => return (Some(next.since()), None),
            Some(next) if next.since() <= place => return (None, None),
            _ => {}
        }
        let before = at.checked_sub(1).and_then(|at| Some((at, self.list.get(at)?))).filter(|(_, before)| within(before.place, place));
        let (before, since) = before.map_or((None, place), |(at, before)| (Some(at), before.since()));
        let followed = self.list.get_mut(at).filter(|next| within(place, next.since())).map(|next| next.set_since(since)).is_some();
        let needless = before.and_then(|before| self.take(before));
        (Some(since).filter(|_| !followed), needless)
    }

    pub(super) fn oldest(&self) -> Option<Place> {
        self.list.front().map(|entry| entry.place)
    }

    /// Empty, with the room that it had.
    pub(super) fn wipe(&mut self) {
        self.list.clear();
        (self.totals, self.first, self.end) = (None, 0, 0);
    }

    /// Takes all away; the events that they held.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = u64> + use<> {
        let seqs: Vec<u64> = std::mem::take(self).list.iter().map(|entry| entry.place.seq).collect();
        seqs.into_iter()
    }

    /// What the entries from `first` to before `end` come to: the window slides there.
    pub(super) fn slide(&mut self, test: &Test, first: usize, end: usize) {
        let apart = first >= self.end || end <= self.first;
        let mut totals = self.totals.take().filter(|_| !apart).unwrap_or_else(|| {
            (self.first, self.end) = (first, first);
            Totals::new(test)
        });
        // The window grows before it shrinks, so that its edges never cross.
        self.list.range(self.end.min(end)..end).for_each(|entry| totals.add(entry));
        self.list.range(first..self.first.max(first)).for_each(|entry| totals.add(entry));
        self.list.range(end..self.end.max(end)).for_each(|entry| totals.remove(entry));
        self.list.range(self.first.min(first)..first).for_each(|entry| totals.remove(entry));
        (self.first, self.end) = (first, end);
        self.totals = Some(totals);
    }

    /// What the window comes to that was slid to last.
    pub(super) fn totals(&self) -> Option<&Totals> {
        self.totals.as_ref()
    }

    /// The window that ends at the entry with this index and begins after `after`.
    pub(super) fn window(&self, last: usize, after: Time) -> Window {
        let before = |at: usize| self.list.get(at).is_some_and(|entry| entry.place.time <= after);
        // Mostly it begins a little behind the last one: what is between is taken out of the totals one by one anyway.
        let first = if self.first.checked_sub(1).is_none_or(before) {
            (self.first..last).find(|at| !before(*at)).unwrap_or(last)
        } else {
            self.list.partition_point(|entry| entry.place.time <= after).min(last)
        };
        Window { first, last }
    }

    /// The first and the last events of a window.
    pub(super) fn evidence(&self, window: Window) -> Vec<u64> {
        let len = window.last - window.first + 1;
        let shown = |at: &usize| *at < EVIDENCE_FIRST || at + EVIDENCE_LAST >= len;
        let head = 0..len.min(EVIDENCE_FIRST);
        let tail = len.saturating_sub(EVIDENCE_LAST).max(EVIDENCE_FIRST)..len;
        head.chain(tail).filter(shown).filter_map(|at| self.list.get(window.first + at)).map(|entry| entry.place.seq).collect()
    }
}

/// What a rule's condition comes to for a window of the entry x, and the value that was compared; `tally` stands just before x.
pub(super) fn verdict(rule: &Compiled, tally: &Tally, x: &Entry, totals: &Totals) -> (Verdict, Option<f64>) {
    let enough = totals.count >= rule.min_events;
    let holds = match &rule.test {
        Test::Compare(measured, _) => {
            let value = totals.value(*measured, x);
            return (rule.test.verdict(value, enough), value);
        }
        Test::Rules(condition) => enough && met(condition, totals.present(), totals.present()),
        Test::Ordered(order) => enough && tally.completes(order, x, x.place.time.minus(rule.span)),
        Test::Missing => true,
        Test::New => false,
    };
    (if holds { Verdict::True } else { Verdict::Wanting }, None)
}
