//! How far each file, partition and stream has been taken into the spool, so that redelivered lines are recognised (semantics O4).

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Logs whose position is kept; beyond it the one that was longest without a new record is forgotten.
const MAX_LOGS: usize = 4_096;
/// Their names together, in bytes; it bounds what each segment's header carries.
const MAX_NAMES: usize = 4 << 20;

/// One file's position. Persisted in segment headers with postcard (stable).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    file: Arc<str>,
    /// Of the first byte of the newest line that is kept.
    offset: u64,
    /// Where that line stands in the spool.
    seq: u64,
}

/// The positions of all files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Positions {
    /// File to offset and seq.
    files: HashMap<Arc<str>, (u64, u64)>,
    names: usize,
}

impl Positions {
    /// The newest kept line's offset.
    pub(super) fn get(&self, file: &str) -> Option<u64> {
        self.files.get(file).map(|(offset, _)| *offset)
    }

    /// A line was kept.
    pub(super) fn set(&mut self, file: &Arc<str>, offset: u64, seq: u64) {
        if self.files.insert(Arc::clone(file), (offset, seq)).is_none() {
            self.names += file.len();
        }
        while self.files.len() > MAX_LOGS || (self.names > MAX_NAMES && self.files.len() > 1) {
            let Some(oldest) = self.files.iter().min_by_key(|(_, (_, seq))| *seq).map(|(file, _)| Arc::clone(file)) else { break };
            self.files.remove(&oldest);
            self.names = self.names.saturating_sub(oldest.len());
        }
    }

    /// File names and offsets, by name.
    pub(super) fn all(&self) -> Vec<(Arc<str>, u64)> {
        let mut all: Vec<_> = self.files.iter().map(|(file, (offset, _))| (Arc::clone(file), *offset)).collect();
        all.sort_unstable();
        all
    }

    /// The form in segment headers: sorted by name, so that equal positions have equal bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut all: Vec<Position> = self.files.iter().map(|(file, (offset, seq))| Position { file: Arc::clone(file), offset: *offset, seq: *seq }).collect();
        all.sort_unstable_by(|a, b| a.file.cmp(&b.file));
        // Strings and integers in a Vec: postcard has no error for them.
        postcard::to_stdvec(&all).unwrap_or_default()
    }

    /// What [`Positions::encode`] wrote; `None` for anything else.
    pub(super) fn decode(bytes: &[u8]) -> Option<Positions> {
        let mut positions = Positions::default();
        for position in postcard::from_bytes::<Vec<Position>>(bytes).ok()? {
            positions.set(&position.file, position.offset, position.seq);
        }
        Some(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_survive_the_header_and_are_bounded() {
        let mut positions = Positions::default();
        for n in 0..=MAX_LOGS as u64 {
            positions.set(&format!("/var/log/{n}").into(), n * 10, n + 1);
        }
        assert_eq!(positions.files.len(), MAX_LOGS);
        assert_eq!(positions.get("/var/log/0"), None, "the longest idle one is forgotten");
        assert_eq!(positions.get("/var/log/4096"), Some(40_960));
        assert_eq!(Positions::decode(&positions.encode()), Some(positions));
    }

    #[test]
    fn long_names_are_bounded_too() {
        let mut positions = Positions::default();
        for n in 0..6 {
            positions.set(&format!("{n}{}", "x".repeat(1 << 20)).into(), 0, n + 1);
        }
        assert!(positions.names <= MAX_NAMES);
        assert!(positions.encode().len() < 5 << 20);
    }

    #[test]
    fn positions_have_stable_bytes() {
        let mut positions = Positions::default();
        positions.set(&"b".into(), 300, 2);
        positions.set(&"a".into(), 1, 7);
        assert_eq!(positions.encode(), [2, 1, b'a', 1, 7, 1, b'b', 0xAC, 2, 2]);
    }

    #[test]
    fn what_is_no_table_of_positions_is_none() {
        assert_eq!(Positions::decode(&[9]), None);
    }
}
