//! Which groups of a share go first (C12): a heap of places in a list, which each know where they stand in it.

/// What stands in a queue.
pub(super) trait Queued {
    /// Where it stands.
    fn at(&mut self) -> &mut u32;
}

/// The first of `queue`, a heap, is the least; `before` says which of two goes first.
pub(super) struct Queue<'a, T, B> {
    pub queue: &'a mut Vec<u32>,
    pub list: &'a mut [T],
    pub before: B,
}

impl<T: Queued, B: Fn(&[T], u32, u32) -> bool> Queue<'_, T, B> {
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
            *item.at() = at as u32;
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

    impl Queued for (u16, u32) {
        fn at(&mut self) -> &mut u32 {
            &mut self.1
        }
    }

    proptest! {
        #[test]
        fn the_least_stands_first_and_each_knows_its_place(steps in prop::collection::vec((0..40u32, any::<u16>(), 0..3u8), 1..300)) {
            let mut list: Vec<(u16, u32)> = vec![(0, 0); 40];
            let mut held = Vec::new();
            for (one, rank, what) in steps {
                let known = held.contains(&one);
                let at = list[one as usize].1 as usize;
                if what < 2 {
                    list[one as usize].0 = rank;
                }
                let before = |list: &[(u16, u32)], a: u32, b: u32| list[a as usize].0 < list[b as usize].0;
                let mut queue = Queue { queue: &mut held, list: &mut list, before };
                match (known, what) {
                    (false, 0 | 1) => queue.push(one),
                    (true, 0 | 1) => queue.moved(at),
                    (true, _) => queue.remove(at),
                    (false, _) => {}
                }
                prop_assert!(held.iter().enumerate().all(|(at, one)| list[*one as usize].1 as usize == at));
                prop_assert_eq!(held.first().map(|one| list[*one as usize].0), held.iter().map(|one| list[*one as usize].0).min());
            }
        }
    }
}
