//! A hash map in small buckets that copies of it share until they change: a copy costs little, and so does each change after it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::Equivalent;

/// Entries of a bucket on average, beyond which they are spread over twice as many: what the first change behind a copy copies.
const FULL: usize = 8;

#[derive(Clone, Debug)]
struct Entry<K, V> {
    hash: u64,
    key: K,
    value: V,
}

type Bucket<K, V> = Arc<Vec<Entry<K, V>>>;

/// Values by key, in no order.
#[derive(Clone, Debug)]
pub struct Buckets<K, V> {
    hasher: RandomState,
    /// None, or a power of two: a key's is told by the last bits of its hash.
    buckets: Vec<Bucket<K, V>>,
    len: usize,
}

impl<K, V> Default for Buckets<K, V> {
    fn default() -> Self {
        Buckets { hasher: RandomState::new(), buckets: Vec::new(), len: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Buckets<K, V> {
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

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.buckets.iter().flat_map(|bucket| bucket.iter()).map(|entry| (&entry.key, &entry.value))
    }

    /// The value of a key.
    pub fn get<Q: Equivalent<K> + Hash + ?Sized>(&self, key: &Q) -> Option<&V> {
        let hash = self.hasher.hash_one(key);
        let bucket = self.buckets.get(self.bucket(hash))?;
        bucket.iter().find(|entry| entry.hash == hash && key.equivalent(&entry.key)).map(|entry| &entry.value)
    }

    /// The same, to be changed; where there is none, one is made first.
    pub fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> Option<&mut V> {
        let hash = self.hasher.hash_one(&key);
        let found = |bucket: &Bucket<K, V>| bucket.iter().position(|entry| entry.hash == hash && entry.key == key);
        let at = self.buckets.get(self.bucket(hash)).and_then(found);
        if at.is_none() {
            self.len += 1;
            self.grow();
        }
        let bucket = self.bucket(hash);
        let entries = Arc::make_mut(self.buckets.get_mut(bucket)?);
        let at = at.unwrap_or_else(|| {
            entries.push(Entry { hash, key, value: value() });
            entries.len() - 1
        });
        entries.get_mut(at).map(|entry| &mut entry.value)
    }

    /// Takes an entry out.
    pub fn remove<Q: Equivalent<K> + Hash + ?Sized>(&mut self, key: &Q) -> Option<(K, V)> {
        let hash = self.hasher.hash_one(key);
        let bucket = self.bucket(hash);
        let bucket = self.buckets.get_mut(bucket)?;
        let at = bucket.iter().position(|entry| entry.hash == hash && key.equivalent(&entry.key))?;
        let Entry { key, value, .. } = Arc::make_mut(bucket).swap_remove(at);
        self.len -= 1;
        Some((key, value))
    }

    fn bucket(&self, hash: u64) -> usize {
        // Of the hash the last bits are enough.
        hash as usize & self.buckets.len().saturating_sub(1)
    }

    /// Makes room for as many as there are to be.
    fn grow(&mut self) {
        let before = self.buckets.len();
        if self.len <= before * FULL {
            return;
        }
        let mut further = Vec::with_capacity(before.max(1));
        for bucket in &mut self.buckets {
            let (go, stay) = Arc::unwrap_or_clone(std::mem::take(bucket)).into_iter().partition(|entry| entry.hash as usize & before != 0);
            *bucket = Arc::new(stay);
            further.push(Arc::new(go));
        }
        if further.is_empty() {
            further.push(Bucket::default());
        }
        self.buckets.append(&mut further);
    }
}

/// What is left of a map that nobody asks any more. To free all of it at once takes as long as it is large.
#[derive(Clone, Debug)]
pub struct Remains<K, V>(Vec<Bucket<K, V>>);

impl<K, V> Default for Remains<K, V> {
    fn default() -> Self {
        Remains(Vec::new())
    }
}

impl<K, V> From<Buckets<K, V>> for Remains<K, V> {
    fn from(map: Buckets<K, V>) -> Self {
        Remains(map.buckets)
    }
}

impl<K, V> Remains<K, V> {
    /// Frees a bucket of it.
    pub fn free_some(&mut self) {
        self.0.pop();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        /// Finds a value or inserts one, …
        Find(u16, u8),
        /// … and changes it.
        Edit(u16, u8),
        Remove(u16),
        /// A copy is kept from here on.
        Copy,
    }

    fn change() -> impl Strategy<Value = Change> {
        let key = || 0..300u16;
        prop_oneof![
            16 => (key(), any::<u8>()).prop_map(|(key, value)| Change::Find(key, value)),
            8 => (key(), any::<u8>()).prop_map(|(key, value)| Change::Edit(key, value)),
            6 => key().prop_map(Change::Remove),
            1 => Just(Change::Copy),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map_and_a_copy_stays_as_it_was(changes in prop::collection::vec(change(), 0..500)) {
            let (mut buckets, mut map, mut copies) = (Buckets::default(), BTreeMap::new(), Vec::new());
            for change in changes {
                match change {
                    Change::Find(key, value) => {
                        prop_assert_eq!(buckets.get_or_insert_with(key, || value).copied(), Some(*map.entry(key).or_insert(value)));
                    }
                    Change::Edit(key, value) => {
                        let both = (buckets.get_or_insert_with(key, || 0), map.entry(key).or_insert(0));
                        prop_assert_eq!(both.0.as_deref(), Some(&*both.1));
                        both.0.into_iter().chain([both.1]).for_each(|known| *known = value);
                    }
                    Change::Remove(key) => prop_assert_eq!(buckets.remove(&key), map.remove_entry(&key)),
                    Change::Copy => copies.push((buckets.clone(), map.clone())),
                }
            }
            copies.push((buckets, map));
            for (buckets, map) in copies {
                prop_assert_eq!((buckets.len(), buckets.is_empty()), (map.len(), map.is_empty()));
                prop_assert_eq!(&buckets.iter().collect::<BTreeMap<_, _>>(), &map.iter().collect());
                prop_assert!((0..300).all(|key| buckets.get(&key) == map.get(&key)));
                prop_assert!(buckets.buckets.len() <= 512 / FULL && (buckets.buckets.is_empty() || buckets.buckets.len().is_power_of_two()));
            }
        }
    }
}
