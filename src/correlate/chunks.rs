//! A list in chunks that copies of it share until they change. A long one grows without being moved, and a copy of it costs little, as does
//! each change after that.

use std::collections::VecDeque;
use std::sync::Arc;

/// Items of a chunk.
const CHUNK: usize = 64;
/// Items up to which there is room for no more than there are: most lists are that short.
const FEW: usize = 4;

type Chunk<T> = Arc<VecDeque<T>>;

/// A list that grows at its end and shrinks at its start.
#[derive(Clone, Debug)]
pub(super) struct Chunks<T> {
    /// All but the first and the last are full, none but an only one is empty.
    chunks: VecDeque<Chunk<T>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Chunks { chunks: VecDeque::new(), len: 0 }
    }
}

impl<T: Clone> Chunks<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.chunks.front()?.front()
    }

    pub(super) fn back(&self) -> Option<&T> {
        self.chunks.back()?.back()
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        let (chunk, at) = self.split(index);
        self.chunks.get(chunk)?.get(at)
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        let (chunk, at) = self.split(index);
        self.chunk(chunk)?.get_mut(at)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Those of a range of indices.
    pub(super) fn range(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &T> {
        range.map_while(|index| self.get(index))
    }

    /// Index of the first item that is not one of the first ones, as [`slice::partition_point`] has it.
    pub(super) fn partition_point(&self, is_first: impl Fn(&T) -> bool) -> usize {
        let chunk = self.chunks.partition_point(|chunk| chunk.front().is_some_and(&is_first)).saturating_sub(1);
        let before = if chunk == 0 { 0 } else { self.first() + (chunk - 1) * CHUNK };
        before + self.chunks.get(chunk).map_or(0, |chunk| chunk.partition_point(is_first))
    }

    /// Adds an item at the end.
    pub(super) fn push_back(&mut self, item: T) {
        self.insert(self.len, item);
    }

    /// Adds an item before the one with this index.
    pub(super) fn insert(&mut self, index: usize, item: T) {
        let (mut at, mut place) = if index < self.len { self.split(index) } else { self.end() };
        let mut item = Some(item);
        // What a full chunk has no room for goes on to the next.
        while let Some(one) = item.take() {
            if at == self.chunks.len() {
                self.chunks.push_back(Chunk::default());
            }
            let Some(chunk) = self.chunk(at) else { return };
            if chunk.len() < FEW {
                chunk.reserve_exact(1);
            }
            chunk.insert(place.min(chunk.len()), one);
            item = if chunk.len() > CHUNK { chunk.pop_back() } else { None };
            (at, place) = (at + 1, 0);
        }
        self.len += 1;
    }

    /// Takes an item out.
    pub(super) fn remove(&mut self, index: usize) -> Option<T> {
        let (at, place) = self.split(index);
        let removed = self.chunk(at)?.remove(place)?;
        self.len -= 1;
        // Each but the first is filled again from the next.
        for at in (at..self.chunks.len()).filter(|_| at > 0) {
            let next = self.chunk(at + 1).and_then(VecDeque::pop_front);
            if let (Some(next), Some(chunk)) = (next, self.chunk(at)) {
                chunk.push_back(next);
            }
        }
        if self.chunks.len() > 1 && self.chunks.back().is_some_and(|last| last.is_empty()) {
            self.chunks.pop_back();
        }
        if self.chunks.len() > 1 && self.first() == 0 {
            self.chunks.pop_front();
        }
        Some(removed)
    }

    /// Takes all out; some of the room stays.
    pub(super) fn clear(&mut self) {
        self.chunks.truncate(1);
        match self.chunks.front_mut().and_then(Arc::get_mut) {
            Some(chunk) => chunk.clear(),
            None => self.chunks.clear(),
        }
        self.len = 0;
    }

    fn first(&self) -> usize {
        self.chunks.front().map_or(0, |first| first.len())
    }

    /// The chunk in which the item with this index is, and where.
    fn split(&self, index: usize) -> (usize, usize) {
        match index.checked_sub(self.first()) {
            None => (0, index),
            Some(behind) => (1 + behind / CHUNK, behind % CHUNK),
        }
    }

    /// Where the next item goes to.
    fn end(&self) -> (usize, usize) {
        match self.chunks.back() {
            Some(last) if last.len() < CHUNK => (self.chunks.len() - 1, last.len()),
            _ => (self.chunks.len(), 0),
        }
    }

    fn chunk(&mut self, at: usize) -> Option<&mut VecDeque<T>> {
        self.chunks.get_mut(at).map(Arc::make_mut)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Push(u16),
        Insert(prop::sample::Index, u16),
        Edit(prop::sample::Index, u16),
        Remove(prop::sample::Index),
        RemoveFirst,
        Clear,
        /// A copy is kept from here on.
        Copy,
    }

    fn change() -> impl Strategy<Value = Change> {
        let (at, item) = (any::<prop::sample::Index>(), any::<u16>());
        prop_oneof![
            400 => item.prop_map(Change::Push),
            40 => (at.clone(), any::<u16>()).prop_map(|(at, item)| Change::Insert(at, item)),
            40 => (at.clone(), any::<u16>()).prop_map(|(at, item)| Change::Edit(at, item)),
            20 => at.prop_map(Change::Remove),
            100 => Just(Change::RemoveFirst),
            1 => Just(Change::Clear),
            4 => Just(Change::Copy),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_list_and_a_copy_stays_as_it_was(changes in prop::collection::vec(change(), 0..1_500), sorted in any::<bool>()) {
            let (mut chunks, mut list, mut copies) = (Chunks::default(), VecDeque::new(), Vec::new());
            for change in changes {
                match change {
                    Change::Push(item) => {
                        chunks.push_back(item);
                        list.push_back(item);
                    }
                    Change::Insert(at, item) => {
                        let at = at.index(list.len() + 1);
                        chunks.insert(at, item);
                        list.insert(at, item);
                    }
                    Change::Edit(at, item) => {
                        let at = at.index(list.len() + 1);
                        let both = (chunks.get_mut(at), list.get_mut(at));
                        prop_assert_eq!(&both.0, &both.1);
                        both.0.into_iter().chain(both.1).for_each(|known| *known = item);
                    }
                    Change::Remove(at) => {
                        let at = at.index(list.len() + 1);
                        prop_assert_eq!(chunks.remove(at), list.remove(at));
                    }
                    Change::RemoveFirst => prop_assert_eq!(chunks.remove(0), list.pop_front()),
                    Change::Clear => {
                        chunks.clear();
                        list.clear();
                    }
                    Change::Copy => copies.push((chunks.clone(), list.clone())),
                }
            }
            if sorted {
                list.make_contiguous().sort_unstable();
                chunks.clear();
                list.iter().for_each(|item| chunks.push_back(*item));
                for item in [0, 1_000, 30_000, u16::MAX] {
                    prop_assert_eq!(chunks.partition_point(|other| *other < item), list.partition_point(|other| *other < item));
                }
            }
            copies.push((chunks, list));
            for (chunks, list) in copies {
                prop_assert_eq!((chunks.len(), chunks.front(), chunks.back()), (list.len(), list.front(), list.back()));
                prop_assert!(chunks.iter().eq(&list));
                prop_assert!((0..=list.len()).all(|at| chunks.get(at) == list.get(at)));
                let (from, to) = (list.len() / 3, list.len() / 2);
                prop_assert!(chunks.range(from..to).eq(list.range(from..to)));
                let lens: Vec<usize> = chunks.chunks.iter().map(|chunk| chunk.len()).collect();
                prop_assert!(lens.iter().skip(1).rev().skip(1).all(|len| *len == CHUNK), "{:?}", lens);
                prop_assert!(lens.len() == 1 || lens.iter().all(|len| (1..=CHUNK).contains(len)), "{:?}", lens);
            }
        }
    }
}
