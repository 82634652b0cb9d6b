//! What a batch of ledger entries changes, until it is written as one.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{IndexError, VERSION};

/// The key of [`Meta`].
pub(super) const META: &[u8] = b"m";

/// What the index says of itself; written with every batch, in the same atomic write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// [`VERSION`]
    pub(super) version: u32,
    /// The newest ledger entry that is in the views.
    pub(super) position: u64,
    /// The chain hash up to it: tells this ledger from any other.
    pub(super) hash: [u8; 32],
    /// By the first byte of the keys: how many there are, and the sum of their checksums.
    views: BTreeMap<u8, (u64, u64)>,
}

impl Default for Meta {
    fn default() -> Meta {
        Meta { version: VERSION, position: 0, hash: [0; 32], views: BTreeMap::new() }
    }
}

impl Meta {
    /// How many rows a view has.
    pub(super) fn count(&self, view: u8) -> u64 {
        self.views.get(&view).map_or(0, |(count, _)| *count)
    }

    /// A key gets a value, another one, or none.
    fn change(&mut self, key: &[u8], before: Option<&[u8]>, after: Option<&[u8]>) {
        let view = key.first().copied().unwrap_or_default();
        let (count, sum) = self.views.entry(view).or_default();
        if let Some(before) = before {
            (*count, *sum) = (count.saturating_sub(1), sum.wrapping_sub(checksum(key, before)));
        }
        if let Some(after) = after {
            (*count, *sum) = (count.saturating_add(1), sum.wrapping_add(checksum(key, after)));
        }
        if *count == 0 {
            self.views.remove(&view);
        }
    }

    /// Whether these are exactly the rows that it was written with.
    pub(super) fn describes(&self, rows: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>) -> Result<bool, IndexError> {
        let mut found = Meta::default();
        for row in rows {
            let (key, value) = row?;
            if *key != *META {
                found.change(&key, None, Some(&value));
            }
        }
        Ok(found.views == self.views)
    }
}

fn checksum(key: &[u8], value: &[u8]) -> u64 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(&(value.len() as u64).to_be_bytes());
    crc.update(value);
    u64::from(crc.finalize())
}

/// The tree with changes that are not written yet.
pub(super) struct Draft<'a> {
    tree: &'a sled::Tree,
    meta: Meta,
    /// `None`: to be removed.
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(tree: &'a sled::Tree, meta: Meta) -> Draft<'a> {
        Draft { tree, meta, changes: BTreeMap::new() }
    }

    fn bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        match self.changes.get(key) {
            Some(changed) => Ok(changed.clone()),
            None => Ok(self.tree.get(key)?.map(|value| value.to_vec())),
        }
    }

    pub(super) fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, IndexError> {
        Ok(self.bytes(key)?.map(|value| serde_json::from_slice(&value)).transpose()?)
    }

    pub(super) fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) -> Result<(), IndexError> {
        let value = serde_json::to_vec(value)?;
        self.set(key, Some(value))
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) -> Result<(), IndexError> {
        self.set(key, None)
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), IndexError> {
        let before = self.bytes(&key)?;
        self.meta.change(&key, before.as_deref(), value.as_deref());
        self.changes.insert(key, value);
        Ok(())
    }

    /// How many rows a view has.
    pub(super) fn count(&self, view: u8) -> u64 {
        self.meta.count(view)
    }

    /// The first `limit` keys that begin with `prefix`, in their order.
    pub(super) fn keys(&self, prefix: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, IndexError> {
        let written = self.tree.scan_prefix(prefix).keys().filter(|key| key.as_ref().map_or(true, |key| !self.changes.contains_key(&**key)));
        let mut keys = written.take(limit).map(|key| Ok(key?.to_vec())).collect::<Result<Vec<_>, IndexError>>()?;
        let changed = self.changes.range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix));
        keys.extend(changed.filter(|(_, value)| value.is_some()).take(limit).map(|(key, _)| key.clone()));
        keys.sort_unstable();
        keys.truncate(limit);
        Ok(keys)
    }

    /// Writes everything and the position, as one.
    pub(super) fn commit(mut self, position: u64, hash: [u8; 32]) -> Result<Meta, IndexError> {
        (self.meta.position, self.meta.hash) = (position, hash);
        let mut batch = sled::Batch::default();
        for (key, value) in self.changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        batch.insert(META, serde_json::to_vec(&self.meta)?);
        self.tree.apply_batch(batch)?;
        Ok(self.meta)
    }
}
