//! An ordered map in small pieces that copies of it share until they change: a copy costs little, and so does each change after it.

use std::cmp::Ordering;
use std::sync::Arc;

/// Entries of one piece: what the first change behind a copy copies.
const MAX_PIECE: usize = 64;

#[derive(Clone, Debug)]
struct Piece<K, V> {
    /// The keys of the pieces before are less; its own, but for those of the first piece, are not.
    from: K,
    /// In the order of their keys; never empty.
    entries: Arc<Vec<(K, V)>>,
}

/// Values by key.
#[derive(Clone, Debug)]
pub struct Pieces<K, V> {
    pieces: Vec<Piece<K, V>>,
    len: usize,
}

impl<K, V> Default for Pieces<K, V> {
    fn default() -> Self {
        Pieces { pieces: Vec::new(), len: 0 }
    }
}

impl<K: Clone + Ord, V: Clone> Pieces<K, V> {
    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.pieces.iter().flat_map(|piece| piece.entries.iter())
    }

    /// The entry with the least key.
    #[must_use]
    pub fn first(&self) -> Option<&(K, V)> {
        self.pieces.first()?.entries.first()
    }

    /// The value of a key, by how keys compare to it.
    pub fn get(&self, to: impl Fn(&K) -> Ordering) -> Option<&V> {
        let (piece, at) = self.find(to);
        self.pieces.get(piece)?.entries.get(at.ok()?).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, to: impl Fn(&K) -> Ordering) -> Option<&mut V> {
        let (piece, at) = self.find(to);
        let entries = &mut self.pieces.get_mut(piece)?.entries;
        Arc::make_mut(entries).get_mut(at.ok()?).map(|(_, value)| value)
    }

    /// The same; where there is none, the entry is made first.
    pub fn get_or_insert_with(&mut self, to: impl Fn(&K) -> Ordering, entry: impl FnOnce() -> (K, V)) -> Option<&mut V> {
        let (piece, at) = self.find(to);
        let (piece, at) = at.map_or_else(|at| self.add((piece, at), entry()), |at| (piece, at));
        Arc::make_mut(&mut self.pieces.get_mut(piece)?.entries).get_mut(at).map(|(_, value)| value)
    }

    /// Gives a key a value; the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(|other| other.cmp(&key)) {
            (piece, Ok(at)) => {
                let entries = Arc::make_mut(&mut self.pieces.get_mut(piece)?.entries);
                entries.get_mut(at).map(|(_, before)| std::mem::replace(before, value))
            }
            (piece, Err(at)) => {
                self.add((piece, at), (key, value));
                None
            }
        }
    }

    /// Adds an entry where [`Pieces::find`] told; where it stands then.
    fn add(&mut self, (piece, at): (usize, usize), entry: (K, V)) -> (usize, usize) {
        self.len += 1;
        let Some(Piece { entries, .. }) = self.pieces.get_mut(piece) else {
            self.pieces.push(Piece { from: entry.0.clone(), entries: Arc::new(vec![entry]) });
            return (piece, 0);
        };
        let entries = Arc::make_mut(entries);
        entries.insert(at, entry);
        if entries.len() <= MAX_PIECE {
            return (piece, at);
        }
        let rest = entries.split_off(MAX_PIECE / 2);
        if let Some(from) = rest.first().map(|(from, _)| from.clone()) {
            self.pieces.insert(piece + 1, Piece { from, entries: Arc::new(rest) });
        }
        at.checked_sub(MAX_PIECE / 2).map_or((piece, at), |at| (piece + 1, at))
    }

    /// Takes an entry out, by how keys compare to its.
    pub fn remove(&mut self, to: impl Fn(&K) -> Ordering) -> Option<(K, V)> {
        let (piece, at) = self.find(to);
        self.take(piece, at.ok()?)
    }

    /// Takes the entry with the least key out.
    pub fn pop_first(&mut self) -> Option<(K, V)> {
        if self.is_empty() { None } else { self.take(0, 0) }
    }

    fn take(&mut self, piece: usize, at: usize) -> Option<(K, V)> {
        let entries = Arc::make_mut(&mut self.pieces.get_mut(piece)?.entries);
        let taken = entries.remove(at);
        if entries.is_empty() {
            self.pieces.remove(piece);
        }
        self.len -= 1;
        Some(taken)
    }

    /// The piece where a key is or would be, and its place there.
    fn find(&self, to: impl Fn(&K) -> Ordering) -> (usize, Result<usize, usize>) {
        let piece = self.pieces.partition_point(|piece| to(&piece.from).is_le()).saturating_sub(1);
        let place = self.pieces.get(piece).map(|piece| piece.entries.binary_search_by(|(key, _)| to(key)));
        (piece, place.unwrap_or(Err(0)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Insert(u16, u8),
        Find(u16, u8),
        Edit(u16, u8),
        Remove(u16),
        RemoveFirst,
        /// A copy is kept from here on.
        Copy,
    }

    fn change() -> impl Strategy<Value = Change> {
        let key = || 0..300u16;
        prop_oneof![
            16 => (key(), any::<u8>()).prop_map(|(key, value)| Change::Insert(key, value)),
            8 => (key(), any::<u8>()).prop_map(|(key, value)| Change::Find(key, value)),
            4 => (key(), any::<u8>()).prop_map(|(key, value)| Change::Edit(key, value)),
            6 => key().prop_map(Change::Remove),
            1 => Just(Change::RemoveFirst),
            1 => Just(Change::Copy),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_a_copy_stays_as_it_was(changes in prop::collection::vec(change(), 0..500)) {
            let (mut pieces, mut map, mut copies) = (Pieces::default(), BTreeMap::new(), Vec::new());
            for change in changes {
                match change {
                    Change::Insert(key, value) => prop_assert_eq!(pieces.insert(key, value), map.insert(key, value)),
                    Change::Find(key, value) => {
                        let known = pieces.get_or_insert_with(|other| other.cmp(&key), || (key, value));
                        prop_assert_eq!(known.copied(), Some(*map.entry(key).or_insert(value)));
                    }
                    Change::Edit(key, value) => {
                        let both = (pieces.get_mut(|other| other.cmp(&key)), map.get_mut(&key));
                        prop_assert_eq!(&both.0, &both.1);
                        both.0.into_iter().chain(both.1).for_each(|known| *known = value);
                    }
                    Change::Remove(key) => prop_assert_eq!(pieces.remove(|other| other.cmp(&key)), map.remove_entry(&key)),
                    Change::RemoveFirst => {
                        prop_assert_eq!(pieces.first().copied(), map.first_key_value().map(|(key, value)| (*key, *value)));
                        prop_assert_eq!(pieces.pop_first(), map.pop_first());
                    }
                    Change::Copy => copies.push((pieces.clone(), map.clone())),
                }
            }
            copies.push((pieces, map));
            for (pieces, map) in copies {
                prop_assert_eq!((pieces.len(), pieces.is_empty()), (map.len(), map.is_empty()));
                prop_assert!(pieces.iter().map(|(key, value)| (key, value)).eq(&map));
                prop_assert!((0..300).all(|key| pieces.get(|other| other.cmp(&key)) == map.get(&key)));
                prop_assert!(pieces.pieces.iter().all(|piece| (1..=MAX_PIECE).contains(&piece.entries.len())));
            }
        }
    }
}
