//! `new_value`: which values a group knows, and since when it learns (C14).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::chunks::Chunks;
use super::compiled::Compiled;
use super::group::{Entered, Fire, Group, Held};
use super::measure::Datum;
use super::place::Place;
use super::window::{Entry, Input};
use super::wire::{Reader, put, put_signed, put_text};
use crate::entity::Buckets;
use crate::model::Time;

/// The values of a group, each with its newest time: of the rest of a window nothing is asked. They are many, and a copy shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The time of the group's first entry.
    pub since: Option<Time>,
    /// Its newest entry.
    last: Option<Place>,
    newest: Buckets<Arc<str>, Time>,
    /// In order of time; some are not their value's newest any more.
    by_time: Chunks<(Time, Arc<str>)>,
}

/// How many of those are left there, beside as many as there are values.
const STALE: usize = 64;

impl Known {
    /// Writes it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.since.is_some()) | u8::from(self.last.is_some()) << 1);
        self.since.iter().for_each(|since| put_signed(out, since.0));
        if let Some(Place { time, seq }) = self.last {
            put_signed(out, time.0);
            put(out, seq);
        }
        put(out, self.newest.len() as u64);
        for (time, value) in self.by_time.iter().filter(|known| self.is_newest(known)) {
            put_text(out, value);
            put_signed(out, time.0);
        }
    }

    /// Reads what was written.
    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Known> {
        let (flags, mut known) = (reader.byte()?, Known::default());
        if flags & 1 != 0 {
            known.since = Some(Time(reader.signed()?));
        }
        if flags & 2 != 0 {
            known.last = Some(Place { time: Time(reader.signed()?), seq: reader.number()? });
        }
        for _ in 0..reader.len()? {
            let (value, time): (Arc<str>, Time) = (reader.text()?.into(), Time(reader.signed()?));
            known.place(time, &value);
            known.newest.get_or_insert_with(value, || time);
        }
        Some(known)
    }

    /// Takes a value in; whether nothing brought it later than `after`.
    fn learn(&mut self, value: &Arc<str>, time: Time, after: Time) -> bool {
        let mut is_first = false;
        let Some(newest) = self.newest.get_or_insert_with(Arc::clone(value), || {
            is_first = true;
            time
        }) else {
            return false;
        };
        let before = (!is_first).then_some(*newest);
        if before.is_none_or(|before| before < time) {
            *newest = time;
            self.place(time, value);
        }
        before.is_none_or(|before| before <= after)
    }

    fn place(&mut self, time: Time, value: &Arc<str>) {
        if self.by_time.len() > 2 * self.newest.len() + STALE {
            let mut all = Chunks::default();
            self.by_time.iter().filter(|known| self.is_newest(known)).for_each(|known| all.push_back(known.clone()));
            self.by_time = all;
        }
        let before = self.by_time.partition_point(|(own, other)| (*own, other) < (time, value));
        self.by_time.insert(before, (time, Arc::clone(value)));
    }

    fn is_newest(&self, (time, value): &(Time, Arc<str>)) -> bool {
        self.newest.get(&**value) == Some(time)
    }

    /// Takes the oldest time away; whether it was still a value's newest, which is forgotten then.
    fn pop(&mut self) -> bool {
        let oldest = self.by_time.remove(0).filter(|oldest| self.is_newest(oldest));
        oldest.and_then(|(_, value)| self.newest.remove(&*value)).is_some()
    }

    fn forget_oldest(&mut self) {
        while self.by_time.len() > 0 && !self.pop() {}
    }

    /// Forgets what is not kept any longer (C1).
    fn forget(&mut self, horizon: Time) {
        while self.by_time.front().is_some_and(|(time, _)| *time <= horizon) {
            self.pop();
        }
    }
}

impl Group {
    /// [`Group::enter`] for `new_value`.
    pub(super) fn meet(&mut self, rule: &Compiled, inputs: Vec<Input>, limit: usize, only: Option<Place>) -> Entered {
        let mut entered = Entered::default();
        let newest = inputs.iter().map(|input| input.place.time).max().unwrap_or(Time::MIN).max(self.clock);
        let horizon = newest.minus(rule.reach());
        let mut known = self.known.take().unwrap_or_default();
        let mut entries: BTreeMap<Place, Entry> = BTreeMap::new();
        for input in inputs {
            let time = input.place.time;
            if time <= horizon {
                entered.late += 1;
                continue;
            }
            if Some(input.place) > known.last {
                known.last = Some(input.place);
                self.waits_for.clone_from(&input.behind);
            }
            self.clock = self.clock.max(time);
            match entries.get_mut(&input.place) {
                Some(entry) => entry.merge(input),
                None => _ = entries.insert(input.place, Entry::new(input)),
            }
        }
        known.forget(horizon);
        for entry in entries.into_values() {
            if self.is_new(rule, &mut known, &entry) && only.is_none_or(|only| only == entry.place) {
                entered.held.push(self.new_value(rule, entry));
            }
        }
        while known.newest.len() > limit {
            known.forget_oldest();
            entered.dropped += 1;
        }
        self.known = Some(known);
        entered
    }

    /// Whether one of an entry's values is new, behind the warm-up.
    fn is_new(&self, rule: &Compiled, known: &mut Known, entry: &Entry) -> bool {
        let time = entry.place.time;
        let warm = time >= known.since.get_or_insert(time).plus(rule.warmup);
        let mut new = false;
        for datum in entry.values() {
            if let Datum::Text(value) = datum {
                new |= known.learn(value, time, time.minus(rule.span));
            }
        }
        new && warm
    }

    fn new_value(&mut self, rule: &Compiled, entry: Entry) -> Held {
        let (time, trust) = (entry.place.time, entry.trust);
        let fires = !self.is_silent(rule, time);
        if fires {
            self.fired = self.fired.max(Some(time));
        }
        let fire = Fire { value: None, count: u64::from(entry.weight), from: time, evidence: vec![entry.place.seq] };
        Held { entry, new: true, trust, fire: fires.then_some(fire) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn c14_it_knows_the_newest_time_of_each_value(said in prop::collection::vec((0..12u8, 0..20i64), 0..600), keep in 1..100i64, limit in 1..14usize) {
            let (mut known, mut model): (Known, BTreeMap<Arc<str>, Time>) = Default::default();
            for (n, (value, late)) in said.into_iter().enumerate() {
                let (value, time): (Arc<str>, Time) = (value.to_string().into(), Time(n as i64 - late));
                let (horizon, before) = (Time(time.0 - keep), model.get(&value).copied());
                known.forget(horizon);
                model.retain(|_, time| *time > horizon);
                let before = before.filter(|before| *before > horizon);
                prop_assert_eq!(known.learn(&value, time, Time(time.0 - 5)), before.is_none_or(|before| before.0 <= time.0 - 5));
                let newest = model.entry(value).or_insert(time);
                *newest = time.max(*newest);
                while model.len() > limit {
                    let oldest = model.iter().map(|(value, time)| (*time, value.clone())).min().unwrap();
                    model.remove(&oldest.1);
                }
                while known.newest.len() > limit {
                    known.forget_oldest();
                }
                prop_assert_eq!(known.newest.iter().collect::<BTreeMap<_, _>>(), model.iter().collect());
                prop_assert!(known.by_time.len() <= 2 * known.newest.len() + STALE + 2 * limit + 2);
                let mut bytes = Vec::new();
                known.write(&mut bytes);
                let read = Known::read(&mut Reader(&bytes)).unwrap();
                prop_assert_eq!(read.newest.iter().collect::<BTreeMap<_, _>>(), model.iter().collect());
                prop_assert_eq!(read.by_time.len(), model.len());
            }
        }
    }
}
