//! What the detection thread computes, kept where it outlives the process: a record that makes the process die is found out and left out.
//!
//! ```text
//! flight         0 8 magic: OPMFLGHT     24 16 the entries that are suspected, first and last, 0 when none are
//!                8 16 the entries in flight, first and last, 0 when none are      40 4 deaths on them   44 4 of these, on one entry alone
//! poison         the entries that are left out, JSON
//! ```
//! Integers are little-endian. Stable. `flight` is written without a sync: the death of the process, unlike that of the machine, leaves it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::journal::{DataDir, Poison};
use crate::model::Entry;

const MAGIC: &[u8; 8] = b"OPMFLGHT";
/// Bytes of `flight`.
const SIZE: usize = 48;
/// So many deaths on a batch, and its entries are computed one by one; so many on one entry, and it is left out.
const DEATHS: u32 = 2;

/// Entries on which the process has died.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Suspects {
    first: u64,
    last: u64,
    deaths: u32,
    alone: u32,
}

impl Suspects {
    /// After a death while these entries were in flight: what is in both is suspected more, else these are.
    fn after(self, first: u64, last: u64) -> Suspects {
        let both = (self.first.max(first), self.last.min(last));
        let known = if self.deaths > 0 && both.0 <= both.1 { self } else { Suspects { first, last, deaths: 0, alone: 0 } };
        let (first, last) = if known.deaths > 0 { both } else { (first, last) };
        let before = if (known.first, known.last) == (first, last) { known.alone } else { 0 };
        Suspects { first, last, deaths: known.deaths.saturating_add(1), alone: if first == last { before.saturating_add(1) } else { 0 } }
    }

    fn is_poison(self) -> bool {
        self.alone >= DEATHS
    }

    /// Whether this entry is computed by itself.
    fn is_apart(self, seq: u64) -> bool {
        (self.first == self.last || self.deaths >= DEATHS) && (self.first..=self.last).contains(&seq)
    }
}

/// The entries that are computed, and those on which the process has died.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// `None` when it cannot be written: then nothing is found out.
    file: Option<File>,
    /// First and last.
    now: (u64, u64),
    suspects: Suspects,
    poison: BTreeSet<u64>,
}

impl Flight {
    /// Learns how the process before this one has ended. With what a person should know of it.
    pub(super) fn open(data: &DataDir) -> (Flight, Vec<String>) {
        let path = data.path().join("flight");
        let mut notes = Vec::new();
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.inspect_err(|error| notes.push(format!("{}: {error}; a record that makes opmas die is not found out", path.display()))).ok();
        let mut kept = Poison::new(data);
        let mut flight = Flight { poison: kept.read(), ..file.as_ref().and_then(read).unwrap_or_default() };
        flight.file = file;
        let (first, last) = std::mem::take(&mut flight.now);
        if first > 0 {
            flight.suspects = flight.suspects.after(first, last);
            let Suspects { first, last, deaths, .. } = flight.suspects;
            if flight.suspects.is_poison() {
                flight.suspects = Suspects::default();
                flight.poison.insert(first);
                let left_out = format!("entry {first} of the spool is left out: opmas has died {deaths} times on it; it is a dead letter");
                notes.push(left_out);
                notes.extend(kept.add(first).err().map(|error| format!("that entry {first} is left out cannot be kept: {error}")));
            } else if deaths > 1 {
                notes.push(format!("opmas has died {deaths} times on entries {first} to {last} of the spool: they are computed one by one"));
            }
        }
        flight.write();
        (flight, notes)
    }

    /// Whether this entry is left out.
    pub(super) fn is_poison(&self, seq: u64) -> bool {
        self.poison.contains(&seq)
    }

    /// The pieces in which a batch is computed: one, unless some of it is suspected.
    pub(super) fn pieces<'a>(&self, batch: &'a [Entry]) -> Vec<&'a [Entry]> {
        batch.chunk_by(|a, b| !self.suspects.is_apart(a.seq) && !self.suspects.is_apart(b.seq)).collect()
    }

    /// These are computed from now on.
    pub(super) fn begin(&mut self, piece: &[Entry]) {
        if let (Some(first), Some(last)) = (piece.first(), piece.last()) {
            self.now = (first.seq, last.seq);
            self.write();
        }
    }

    /// They have been computed, and nobody died.
    pub(super) fn land(&mut self) {
        let (_, last) = std::mem::take(&mut self.now);
        if last >= self.suspects.last {
            self.suspects = Suspects::default();
        }
        self.write();
    }

    /// Waits for something else meanwhile: to die then says nothing about them.
    pub(super) fn aside<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        let now = std::mem::take(&mut self.now);
        self.write();
        let waited = wait();
        self.now = now;
        self.write();
        waited
    }

    fn write(&mut self) {
        let Suspects { first, last, deaths, alone } = self.suspects;
        let numbers = [self.now.0, self.now.1, first, last].map(u64::to_le_bytes).concat();
        let bytes = [MAGIC.as_slice(), &numbers, &deaths.to_le_bytes(), &alone.to_le_bytes()].concat();
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.write_all_at(&bytes, 0)) {
            tracing::warn!(%error, "it is no longer kept what is computed; a record that makes opmas die is not found out");
            self.file = None;
        }
    }
}

/// What the process before has left.
fn read(file: &File) -> Option<Flight> {
    let mut bytes = [0; SIZE];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?));
    let small = |at: usize| Some(u32::from_le_bytes(bytes.get(at..)?.first_chunk().copied()?));
    let suspects = Suspects { first: number(24)?, last: number(32)?, deaths: small(40)?, alone: small(44)? };
    bytes.starts_with(MAGIC).then_some(Flight { now: (number(8)?, number(16)?), suspects, ..Flight::default() })
}

/// The process ends with the thread that holds it, should that panic: nothing is computed any more, and a new start finds out why.
pub(super) struct Together;

impl Drop for Together {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the detection thread has died, and opmas with it");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{EntryBody, Tick};

    fn entry(seq: u64) -> Entry {
        Entry { seq, body: EntryBody::Tick(Tick::default()) }
    }

    /// One process from the entry `from` on, in batches of `size`, until it dies: on a poisonous entry, or after so many entries. What it computed.
    fn process(data: &DataDir, from: u64, size: usize, poisonous: &[u64], killed_after: Option<usize>) -> (Vec<u64>, bool) {
        let (mut flight, _) = Flight::open(data);
        let entries: Vec<Entry> = (from..=300).map(entry).collect();
        let mut done = Vec::new();
        for piece in entries.chunks(size).flat_map(|batch| flight.pieces(batch)).collect::<Vec<_>>() {
            flight.begin(piece);
            for one in piece.iter().filter(|one| !flight.is_poison(one.seq)).map(|one| one.seq).collect::<Vec<_>>() {
                if poisonous.contains(&one) || killed_after.is_some_and(|after| done.len() >= after) {
                    return (done, false);
                }
                done.push(one);
            }
            flight.land();
        }
        (done, true)
    }

    proptest! {
        #[test]
        fn a_poisonous_entry_is_left_out_after_few_deaths_and_no_other(poisonous in proptest::collection::btree_set(1u64..300, 0..4), sizes in proptest::collection::vec(1usize..120, 8)) {
            let folder = tempfile::tempdir().unwrap();
            let data = DataDir::open(&folder.path().join("data")).unwrap();
            let poisonous: Vec<u64> = poisonous.into_iter().collect();
            let (mut deaths, mut sizes) = (0, sizes.into_iter().cycle());
            let done = loop {
                match process(&data, 1, sizes.next().unwrap(), &poisonous, None) {
                    (done, true) => break done,
                    _ => deaths += 1,
                }
            };
            let expected: Vec<u64> = (1..=300).filter(|seq| !poisonous.contains(seq)).collect();
            prop_assert_eq!(done, expected);
            prop_assert!(deaths <= 4 * poisonous.len(), "{} deaths", deaths);
        }

        #[test]
        fn kills_from_outside_leave_nothing_out(moments in proptest::collection::vec(0usize..300, 1..30), size in 1usize..120) {
            let folder = tempfile::tempdir().unwrap();
            let data = DataDir::open(&folder.path().join("data")).unwrap();
            let mut last = None;
            // Nobody hits the same entry by itself twice in a row.
            for moment in moments.into_iter().filter(|moment| last.replace(*moment) != Some(*moment)) {
                process(&data, 1, size, &[], Some(moment));
            }
            prop_assert_eq!(process(&data, 1, size, &[], None).0, (1..=300).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_waits_for_others_is_not_in_flight() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataDir::open(&folder.path().join("data")).unwrap();
        for _ in 0..9 {
            let (mut flight, notes) = Flight::open(&data);
            assert!(notes.is_empty() && !flight.is_poison(7));
            flight.begin(&[entry(7)]);
            flight.aside(|| assert_eq!(Flight::open(&data).1, [] as [String; 0]));
            flight.aside(|| ());
            flight.now = (0, 0);
            flight.write();
        }
    }
}
