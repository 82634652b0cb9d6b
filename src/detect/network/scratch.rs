//! Room that evaluating an event needs, kept from one event to the next.

use std::collections::HashMap;

use super::grams::Grams;
use super::names::Slot;
use super::sources::Key;
use super::texts::Predicate;
use super::walk::Walk;

/// Log sources whose rules are remembered; beyond it they are worked out anew.
const MAX_ACTIVE: usize = 1024;

/// A set of small numbers.
#[derive(Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub fn with_room(len: usize) -> Bits {
        Bits(vec![0; len / 64 + 1])
    }

    pub fn has(&self, bit: u32) -> bool {
        self.0.get(bit as usize / 64).is_some_and(|word| word >> (bit & 63) & 1 == 1)
    }

    /// Whether it was not there before.
    pub fn set(&mut self, bit: u32) -> bool {
        let Some(word) = self.0.get_mut(bit as usize / 64) else { return false };
        let before = *word;
        *word |= 1 << (bit & 63);
        before != *word
    }

    pub fn clear(&mut self, bit: u32) {
        if let Some(word) = self.0.get_mut(bit as usize / 64) {
            *word &= !(1 << (bit & 63));
        }
    }
}

/// What a log source leaves over.
#[derive(Debug, Default)]
pub(super) struct Active {
    pub rules: Bits,
    pub slots: Bits,
    /// Rules that nothing has to wake.
    pub always: Vec<u32>,
    pub keywords: bool,
    /// Of the keywords of these rules.
    pub grams: Option<Grams>,
}

/// Room for one thread. It follows the network that it is used with.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) owner: u64,
    /// The log source of the event before, and those of others.
    pub(super) last: Option<(Key, Active)>,
    pub(super) active: HashMap<Key, Active>,
    /// Predicates that hold, and those in the order in which they were found.
    pub(super) holds: Bits,
    pub(super) hits: Vec<Predicate>,
    /// Asked predicates that have been answered.
    pub(super) answered: Bits,
    pub(super) answers: Vec<Predicate>,
    /// Rules that were evaluated.
    pub(super) woken: Bits,
    pub(super) wakened: Vec<u32>,
    /// Values by field, as places on the tape.
    pub(super) values: Vec<(Slot, u32)>,
    /// Fields that stand there by their whole name.
    pub(super) literal: Bits,
    /// Keys that begin paths: the root, and the place of the value.
    pub(super) paths: Vec<(u32, u32)>,
    /// One for each field's automaton.
    pub(super) walks: Vec<Walk>,
    pub(super) folded: String,
    pub(super) room: String,
    /// Hints of the text at hand that were refuted.
    pub(super) refuted: Vec<Predicate>,
}

impl Scratch {
    /// Makes room for another network.
    pub(super) fn follow(&mut self, owner: u64, predicates: usize, rules: usize, slots: usize) {
        if self.owner != owner {
            *self = Scratch {
                owner,
                holds: Bits::with_room(predicates),
                answered: Bits::with_room(predicates),
                woken: Bits::with_room(rules),
                literal: Bits::with_room(slots),
                walks: (0..slots).map(|_| Walk::default()).collect(),
                ..Scratch::default()
            };
        }
        if self.active.len() > MAX_ACTIVE {
            self.active.clear();
        }
    }

    /// What a log source leaves over, as it was worked out before.
    pub(super) fn take(&mut self, key: Key) -> Option<Active> {
        match self.last.take() {
            Some((last, active)) if last == key => Some(active),
            other => {
                self.active.extend(other);
                self.active.remove(&key)
            }
        }
    }

    /// Forgets the event.
    pub(super) fn clear(&mut self) {
        self.hits.drain(..).for_each(|bit| self.holds.clear(bit));
        for bit in self.answers.drain(..) {
            self.answered.clear(bit);
            self.holds.clear(bit);
        }
        self.wakened.drain(..).for_each(|bit| self.woken.clear(bit));
        self.values.drain(..).for_each(|(slot, _)| self.literal.clear(slot));
        self.paths.clear();
    }
}
