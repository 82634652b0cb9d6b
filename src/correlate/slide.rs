//! A window over a group's entries that slides: moving an edge past an entry takes the entry in or out, and nothing is counted twice.

use super::compiled::{bit, has};
use super::measure::{Counted, Datum, Ranks, Sum};
use super::test::{Measured, Test};
use super::window::Entry;
use crate::model::Trust;

/// What the entries in a window come to.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    /// Entries, findings each for itself (C8).
    pub count: u64,
    /// Entries that are not verified.
    open: u64,
    measure: Measure,
}

/// What the rule's test asks for beside the count.
#[derive(Clone, Debug)]
enum Measure {
    None,
    /// How often each slot stands there.
    Slots(Vec<u64>),
    // Boxed: most groups are of counts, and have none of them.
    Texts(Box<Counted>),
    Sum(Box<Sum>),
    Ranks(Box<Ranks>, f64),
}

impl Measure {
    fn new(test: &Test) -> Measure {
        match test {
            Test::Compare(Measured::Rules, _) | Test::Rules(_) => Measure::Slots(Vec::new()),
            Test::Compare(Measured::Distinct | Measured::Share, _) => Measure::Texts(Box::default()),
            Test::Compare(Measured::Sum | Measured::Average, _) => Measure::Sum(Box::default()),
            Test::Compare(Measured::Percentile(p), _) => Measure::Ranks(Box::default(), *p),
            Test::Compare(Measured::Events, _) | Test::Ordered(_) | Test::Missing | Test::New => Measure::None,
        }
    }

    fn slots(&mut self, refs: u64, change: impl Fn(u64) -> u64) {
        let Measure::Slots(slots) = self else { return };
        let last = (u64::BITS - refs.leading_zeros()) as usize;
        slots.resize(slots.len().max(last), 0);
        slots.iter_mut().enumerate().filter(|(slot, _)| has(refs, *slot)).for_each(|(_, count)| *count = change(*count));
    }

    fn add(&mut self, datum: &Datum) {
        match (self, datum) {
            (Measure::Texts(texts), Datum::Text(text)) => texts.add(text),
            (Measure::Sum(sum), Datum::Number(number)) => sum.add(*number),
            (Measure::Ranks(ranks, p), Datum::Number(number)) => ranks.add(*number, *p),
            _ => {}
        }
    }

    fn remove(&mut self, datum: &Datum) {
        match (self, datum) {
            (Measure::Texts(texts), Datum::Text(text)) => texts.remove(text),
            (Measure::Sum(sum), Datum::Number(number)) => sum.remove(*number),
            (Measure::Ranks(ranks, p), Datum::Number(number)) => ranks.remove(*number, *p),
            _ => {}
        }
    }
}

impl Totals {
    /// Those of an empty window.
    pub(super) fn new(test: &Test) -> Totals {
        Totals { count: 0, open: 0, measure: Measure::new(test) }
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        self.count += u64::from(entry.weight);
        self.open += u64::from(entry.trust < Trust::Verified);
        self.measure.slots(entry.refs, |count| count + 1);
        entry.values().for_each(|datum| self.measure.add(datum));
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        self.count = self.count.saturating_sub(u64::from(entry.weight));
        self.open = self.open.saturating_sub(u64::from(entry.trust < Trust::Verified));
        self.measure.slots(entry.refs, |count| count.saturating_sub(1));
        entry.values().for_each(|datum| self.measure.remove(datum));
    }

    /// The least trust.
    pub(super) fn trust(&self) -> Trust {
        if self.open > 0 { Trust::Open } else { Trust::Verified }
    }

    /// The bits of the slots that stand there.
    pub(super) fn present(&self) -> u64 {
        let Measure::Slots(slots) = &self.measure else { return 0 };
        slots.iter().enumerate().filter(|(_, count)| **count > 0).fold(0, |bits, (slot, _)| bits | bit(slot))
    }

    /// What is compared, for a window of the entry x; `None` when no value is there to compare.
    pub(super) fn value(&self, measured: Measured, x: &Entry) -> Option<f64> {
        match (measured, &self.measure) {
            (Measured::Events, _) => Some(self.count as f64),
            (Measured::Rules, _) => Some(f64::from(self.present().count_ones())),
            (Measured::Distinct, Measure::Texts(texts)) => Some(texts.distinct()),
            (Measured::Share, Measure::Texts(texts)) => match x.values().next() {
                Some(Datum::Text(text)) => texts.share(text),
                _ => None,
            },
            (Measured::Sum, Measure::Sum(sum)) => sum.sum(),
            (Measured::Average, Measure::Sum(sum)) => sum.average(),
            (Measured::Percentile(p), Measure::Ranks(ranks, _)) => ranks.value(p),
            _ => None,
        }
    }
}
