//! Which groups of a share go first (C12): a heap of places in a list, which each know where they stand in it.

use super::groups::Slot;

/// The first of `queue`, a heap, is the least; `before` says which of two goes first.
pub(super) struct Queue<'a, B> {
    pub queue: &'a mut Vec<u32>,
    pub list: &'a mut [Slot],
    pub before: B,
}

impl<B: Fn(&[Slot], u32, u32) -> bool> Queue<'_, B> {
    /// Another one.
    pub(super) fn push(&mut self, one: u32) {
        self.queue.push(one);
        self.rise(self.queue.len() - 1);
    }

    /// The one that stands at this place goes.
    pub(super) fn remove(&mut self, at: usize) {
        if at >= self.queue.len() {
            return;
        }
        self.queue.swap_remove(at);
        if at < self.queue.len() {
            self.moved(at);
        }
    }

    /// The one that stands at this place goes before or behind others now.
    pub(super) fn moved(&mut self, at: usize) {
        let at = self.rise(at);
        self.sink(at);
    }

    fn one(&self, at: usize) -> Option<u32> {
        self.queue.get(at).copied()
    }

    fn set(&mut self, at: usize, one: u32) {
        if let (Some(to), Some(item)) = (self.queue.get_mut(at), self.list.get_mut(one as usize)) {
            *to = one;
            item.at = at as u32;
        }
    }

    fn rise(&mut self, mut at: usize) -> usize {
        let Some(one) = self.one(at) else { return at };
        while let Some(above) = at.checked_sub(1).map(|at| at / 2) {
            let Some(other) = self.one(above).filter(|other| (self.before)(self.list, one, *other)) else { break };
            self.set(at, other);
            at = above;
        }
        self.set(at, one);
        at
    }

    fn sink(&mut self, mut at: usize) {
        let Some(one) = self.one(at) else { return };
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let Some(mut least) = self.one(left) else { break };
            let mut below = left;
            if let Some(other) = self.one(right).filter(|other| (self.before)(self.list, *other, least)) {
                (least, below) = (other, right);
            }
            if !(self.before)(self.list, least, one) {
                break;
            }
            self.set(at, least);
            at = below;
        }
        self.set(at, one);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Time;

    proptest! {
        #[test]
        fn the_least_stands_first_and_each_knows_its_place(steps in prop::collection::vec((0..40u32, any::<i16>(), 0..3u8), 1..300)) {
            let mut list = vec![Slot::default(); 40];
            let mut held = Vec::new();
            for (one, rank, what) in steps {
                let known = held.contains(&one);
                let at = list[one as usize].at as usize;
                if what < 2 {
                    list[one as usize].clock = Time(rank.into());
                }
                let before = |list: &[Slot], a: u32, b: u32| list[a as usize].clock < list[b as usize].clock;
                let mut queue = Queue { queue: &mut held, list: &mut list, before };
                match (known, what) {
                    (false, 0 | 1) => queue.push(one),
                    (true, 0 | 1) => queue.moved(at),
                    (true, _) => queue.remove(at),
                    (false, _) => {}
                }
                prop_assert!(held.iter().enumerate().all(|(at, one)| list[*one as usize].at as usize == at));
                let clock = |one: &u32| list[*one as usize].clock;
                prop_assert_eq!(held.first().map(clock), held.iter().map(clock).min());
            }
        }
    }
}
