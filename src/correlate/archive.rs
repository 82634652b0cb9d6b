//! The events that entries of groups may still show, packed: groups name them by `seq` and are small. Most events are never shown.
//!
//! What enters is written behind one another in blocks, each of which is gone with its last event. The newest blocks are plain: what fires
//! shows what just came, and of short windows nothing is left by the time when a block is compressed.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zstd::bulk::{Compressor, Decompressor};

use super::wire::{Bytes, Reader, put_bytes, put_event, put_fields_of};
use crate::model::{Event, FindingId};

/// Bytes of a block while it is plain.
const BLOCK: usize = 8 << 10;
/// How hard zstd tries: one event costs less than reading it did.
const LEVEL: i32 = -1;
/// Blocks that are not compressed yet: 4 MiB of them; few in tests, so that they see compressed ones.
const MAX_YOUNG: usize = if cfg!(test) { 2 } else { 512 };
/// Blocks that are kept plain beside their compressed form.
const MAX_PLAIN: usize = 64;
/// A block whose events are mostly gone is packed anew without them: when one of so many is left.
const SPARSE: usize = 4;

/// Events by `seq`, each as long as an entry of a group holds it.
#[derive(Clone, Debug, Default)]
pub(super) struct Archive {
    /// By the `seq` of their first event.
    blocks: BTreeMap<u64, Block>,
    /// The block that still grows.
    open: Open,
    /// The newest that was ever put into a block.
    newest: Option<u64>,
    /// What came behind that, such as an event that was not believed before.
    late: BTreeMap<u64, (u32, Bytes)>,
    /// The blocks that are not compressed yet, the newest last; some are gone.
    young: VecDeque<u64>,
    /// Blocks by their first `seq` as they were before they were compressed; the latest asked for last.
    plain: VecDeque<(u64, Arc<[u8]>)>,
    /// Where an event is written before it is known how long it is.
    room: Vec<u8>,
    said: Said,
}

/// The findings that were made at events, by `seq`, and whether each was handed on to later rules: what is held nowhere any more makes no
/// finding again (O6).
type Said = BTreeMap<u64, Vec<(FindingId, bool)>>;

/// What is new about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// All of it.
    All,
    /// It was told, but no later rule knows of it: its event was not believed yet (T3).
    Told,
    /// Nothing.
    Nothing,
}

#[derive(Clone, Debug, Default)]
struct Open {
    seqs: Vec<u64>,
    /// Per event how many entries hold it.
    holds: Vec<u32>,
    /// Per event where it ends.
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Block {
    packed: Packed,
    /// Per event how many entries hold it.
    holds: Vec<u32>,
    /// How many are held.
    live: usize,
}

/// A block's events.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Packed {
    /// What is added to `seqs`.
    first: u64,
    seqs: Arc<[u32]>,
    /// How long it is when it is read; 0 for one that is not compressed.
    size: usize,
    bytes: Bytes,
}

/// An [`Archive`] in a checkpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Kept {
    blocks: Vec<Packed>,
    late: Vec<(u64, Bytes)>,
    said: Said,
}

type Zstd = (Compressor<'static>, Decompressor<'static>);

thread_local! {
    /// Made once for a thread: to make one takes longer than a block does.
    static ZSTD: RefCell<Option<Zstd>> = const { RefCell::new(None) };
}

fn with_zstd<R>(work: impl FnOnce(&mut Zstd) -> io::Result<R>) -> io::Result<R> {
    ZSTD.with_borrow_mut(|zstd| match zstd {
        Some(zstd) => work(zstd),
        none => work(none.insert((Compressor::new(LEVEL)?, Decompressor::new()?))),
    })
}

impl Packed {
    fn is_plain(&self) -> bool {
        self.size == 0
    }

    /// Compresses what is plain. Whatever zstd may say no to is kept as it is.
    fn compress(&mut self) {
        if !self.is_plain() {
            return;
        }
        let plain = &self.bytes.0;
        match with_zstd(|zstd| zstd.0.compress(plain)) {
            Ok(bytes) if bytes.len() < plain.len() => (self.size, self.bytes) = (plain.len(), Bytes(bytes.into())),
            _ => {}
        }
    }

    fn plain(&self) -> Option<Arc<[u8]>> {
        if self.is_plain() {
            return Some(Arc::clone(&self.bytes.0));
        }
        with_zstd(|zstd| zstd.1.decompress(&self.bytes.0, self.size)).ok().map(Arc::from)
    }

    fn index(&self, seq: u64) -> Option<usize> {
        self.seqs.binary_search(&u32::try_from(seq.checked_sub(self.first)?).ok()?).ok()
    }
}

impl Block {
    fn new(packed: Packed, holds: Vec<u32>) -> Block {
        Block { packed, live: holds.iter().filter(|holds| **holds > 0).count(), holds }
    }

    fn is_sparse(&self) -> bool {
        self.live * SPARSE <= self.holds.len()
    }

    /// Without what nothing holds; plain if it is.
    fn dense(&self, plain: &[u8]) -> Option<Block> {
        let (mut reader, mut bytes, mut seqs, mut holds) = (Reader(plain), Vec::new(), Vec::new(), Vec::new());
        for (seq, held) in self.packed.seqs.iter().zip(&self.holds) {
            let event = reader.bytes()?;
            if *held > 0 {
                put_bytes(&mut bytes, event);
                seqs.push(*seq);
                holds.push(*held);
            }
        }
        let mut packed = Packed { first: self.packed.first, seqs: seqs.into(), size: 0, bytes: Bytes(bytes.into()) };
        if !self.packed.is_plain() {
            packed.compress();
        }
        Some(Block::new(packed, holds))
    }
}

impl Archive {
    /// An entry of a group holds this event, of which nothing is asked but the fields of these names, if any are given: they are few, and
    /// are not compressed.
    pub(super) fn hold(&mut self, event: &Event, names: Option<&[Arc<str>]>) {
        let seq = event.seq;
        let is_newest = self.newest.is_none_or(|newest| seq > newest);
        if !is_newest && self.hold_known(seq) {
            return;
        }
        self.room.clear();
        match names {
            None => put_event(&mut self.room, event),
            Some(names) => put_fields_of(&mut self.room, event, names),
        }
        if !is_newest {
            self.late.insert(seq, (1, Bytes(self.room.as_slice().into())));
            return;
        }
        // In a block a `seq` is told by 32 bits.
        if self.open.seqs.first().is_some_and(|first| u32::try_from(seq - first).is_err()) {
            self.seal(names.is_none());
        }
        self.newest = Some(seq);
        self.open.push(seq, &self.room);
        if self.open.bytes.len() >= BLOCK {
            self.seal(names.is_none());
        }
    }

    /// Another entry holds an event; whether it is there.
    pub(super) fn hold_known(&mut self, seq: u64) -> bool {
        let Some(holds) = self.holds(seq) else { return false };
        *holds += 1;
        if *holds == 1
            && let Some(block) = self.block(seq)
        {
            block.live += 1;
        }
        true
    }

    /// An entry that held an event is gone.
    pub(super) fn release(&mut self, seq: u64) {
        let Some(holds) = self.holds(seq) else { return };
        *holds = holds.saturating_sub(1);
        if *holds > 0 {
            return;
        }
        self.said.remove(&seq);
        if self.late.remove(&seq).is_some() {
            return;
        }
        if let Some(block) = self.block(seq) {
            block.live = block.live.saturating_sub(1);
            let first = block.packed.first;
            if block.is_sparse() {
                self.thin(first);
            }
        }
    }

    /// Findings at an event that is held were told before it was believed.
    pub(super) fn tell(&mut self, seq: u64, told: &[FindingId]) {
        self.said.entry(seq).or_default().extend(told.iter().map(|id| (id.clone(), false)));
    }

    /// Whether anything was said of an event.
    pub(super) fn has_said(&self, seq: u64) -> bool {
        self.said.contains_key(&seq)
    }

    /// A finding is made at an event: what is new about it.
    pub(super) fn say(&mut self, seq: u64, id: FindingId) -> News {
        if let Some((_, handed)) = self.said.get_mut(&seq).and_then(|said| said.iter_mut().find(|(known, _)| *known == id)) {
            return if std::mem::replace(handed, true) { News::Nothing } else { News::Told };
        }
        if self.is_held(seq) {
            self.said.entry(seq).or_default().push((id, true));
        }
        News::All
    }

    fn is_held(&mut self, seq: u64) -> bool {
        self.holds(seq).is_some_and(|holds| *holds > 0)
    }

    /// An event that is held.
    pub(super) fn get(&mut self, seq: u64) -> Option<Arc<Event>> {
        if let Some(bytes) = self.open.get(seq).or_else(|| self.late.get(&seq).map(|(_, bytes)| &*bytes.0)) {
            return Reader(bytes).event(seq).map(Arc::new);
        }
        let block = self.block(seq)?;
        let (at, first) = (block.packed.index(seq)?, block.packed.first);
        let plain = self.plain(first)?;
        let mut reader = Reader(&plain);
        for _ in 0..at {
            reader.bytes()?;
        }
        Reader(reader.bytes()?).event(seq).map(Arc::new)
    }

    fn block(&mut self, seq: u64) -> Option<&mut Block> {
        self.blocks.range_mut(..=seq).next_back().map(|(_, block)| block).filter(|block| block.packed.index(seq).is_some())
    }

    fn holds(&mut self, seq: u64) -> Option<&mut u32> {
        if let Ok(at) = self.open.seqs.binary_search(&seq) {
            return self.open.holds.get_mut(at);
        }
        if self.late.contains_key(&seq) {
            return self.late.get_mut(&seq).map(|(holds, _)| holds);
        }
        let block = self.block(seq)?;
        let at = block.packed.index(seq)?;
        block.holds.get_mut(at)
    }

    /// A block's events one behind the other.
    fn plain(&mut self, first: u64) -> Option<Arc<[u8]>> {
        if let Some(at) = self.plain.iter().rposition(|(of, _)| *of == first) {
            return self.plain.get(at).map(|(_, plain)| Arc::clone(plain));
        }
        let packed = &self.blocks.get(&first)?.packed;
        let plain = packed.plain()?;
        if packed.is_plain() {
            return Some(plain);
        }
        if self.plain.len() >= MAX_PLAIN {
            self.plain.pop_front();
        }
        self.plain.push_back((first, Arc::clone(&plain)));
        Some(plain)
    }

    /// The block that grew is full: what nothing holds any more is left out.
    fn seal(&mut self, ages: bool) {
        let Open { seqs, holds, bytes, .. } = std::mem::take(&mut self.open);
        let Some(first) = seqs.first().copied() else { return };
        let seqs: Arc<[u32]> = seqs.iter().filter_map(|seq| u32::try_from(seq - first).ok()).collect();
        let block = Block::new(Packed { first, seqs, size: 0, bytes: Bytes(bytes.into()) }, holds);
        let block = match block.live {
            0 => None,
            live if live == block.holds.len() => Some(block),
            _ => block.dense(&block.packed.bytes.0),
        };
        self.blocks.extend(block.map(|block| (first, block)));
        if ages {
            self.young.push_back(first);
            self.age();
        }
    }

    /// Compresses the oldest of too many blocks that are not.
    fn age(&mut self) {
        while self.young.len() > MAX_YOUNG
            && let Some(first) = self.young.pop_front()
        {
            self.blocks.get_mut(&first).into_iter().for_each(|block| block.packed.compress());
        }
    }

    /// Gives back what nothing of a block holds.
    fn thin(&mut self, first: u64) {
        let plain = if self.blocks.get(&first).is_some_and(|block| block.live > 0) { self.plain(first) } else { None };
        let dense = plain.and_then(|plain| self.blocks.get(&first)?.dense(&plain));
        self.plain.retain(|(of, _)| *of != first);
        match dense {
            Some(block) => _ = self.blocks.insert(first, block),
            None => _ = self.blocks.remove(&first),
        }
    }

    /// As it is now: blocks are shared.
    pub(super) fn kept(&self) -> Kept {
        let mut blocks: Vec<Packed> = self.blocks.values().map(|block| block.packed.clone()).collect();
        blocks.extend(self.open.packed());
        Kept { blocks, late: self.late.iter().map(|(seq, (_, bytes))| (*seq, bytes.clone())).collect(), said: self.said.clone() }
    }

    /// As it was, held by nothing yet; after the last [`Archive::hold_known`] comes [`Archive::settle`].
    pub(super) fn restore(kept: Kept) -> Archive {
        let last = |packed: &Packed| packed.seqs.last().map(|last| packed.first + u64::from(*last));
        let newest = kept.blocks.iter().filter_map(last).chain(kept.late.iter().map(|(seq, _)| *seq)).max();
        let young = kept.blocks.iter().filter(|packed| packed.is_plain()).map(|packed| packed.first).collect();
        let blocks = kept.blocks.into_iter().map(|packed| (packed.first, Block { holds: vec![0; packed.seqs.len()], packed, live: 0 }));
        let late = kept.late.into_iter().map(|(seq, bytes)| (seq, (0, bytes))).collect();
        Archive { blocks: blocks.collect(), young, newest, late, said: kept.said, ..Archive::default() }
    }

    /// Gives back what nothing holds.
    pub(super) fn settle(&mut self) {
        self.said = std::mem::take(&mut self.said).into_iter().filter(|(seq, _)| self.is_held(*seq)).collect();
        self.late.retain(|_, (holds, _)| *holds > 0);
        let sparse: Vec<u64> = self.blocks.values().filter(|block| block.is_sparse()).map(|block| block.packed.first).collect();
        sparse.into_iter().for_each(|first| self.thin(first));
    }
}

impl Open {
    /// As a block that is not compressed.
    fn packed(&self) -> Option<Packed> {
        let first = *self.seqs.first()?;
        let seqs = self.seqs.iter().filter_map(|seq| u32::try_from(seq - first).ok()).collect();
        Some(Packed { first, seqs, size: 0, bytes: Bytes(self.bytes.as_slice().into()) })
    }

    fn push(&mut self, seq: u64, event: &[u8]) {
        put_bytes(&mut self.bytes, event);
        self.seqs.push(seq);
        self.holds.push(1);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, seq: u64) -> Option<&[u8]> {
        let at = self.seqs.binary_search(&seq).ok()?;
        let begin = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or_default();
        Reader(self.bytes.get(begin..)?).bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::wire::tests::event;
    use super::*;

    #[test]
    fn what_was_late_and_is_the_newest_left_is_not_there_twice() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let mut one = |seq| Event { seq, ..proptest::strategy::ValueTree::current(&event().new_tree(&mut runner).unwrap()) };
        let (newest, late) = (one(9), one(7));
        let mut archive = Archive::default();
        archive.hold(&newest, None);
        archive.hold(&late, None);
        archive.release(9);
        let mut archive = Archive::restore(archive.kept());
        assert!(archive.hold_known(7) && !archive.hold_known(8));
        archive.settle();
        archive.hold(&late, None);
        assert_eq!(archive.get(7).as_deref(), Some(&late));
        (0..2).for_each(|_| archive.release(7));
        assert!(archive.get(7).is_none() && archive.late.is_empty() && archive.blocks.is_empty());
    }

    #[test]
    fn o6_what_was_said_of_an_event_is_known_as_long_as_it_is_held() {
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        let event = proptest::strategy::ValueTree::current(&event().new_tree(&mut runner).unwrap());
        let (seq, id) = (event.seq, |name: &str| FindingId::new(&[name]));
        let mut archive = Archive::default();
        assert_eq!([(); 2].map(|()| archive.say(seq, id("a"))), [News::All; 2], "nothing holds it");
        archive.hold(&event, None);
        archive.tell(seq, &[id("b")]);
        assert_eq!(["a", "a", "b", "b"].map(|name| archive.say(seq, id(name))), [News::All, News::Nothing, News::Told, News::Nothing]);
        for held in [true, false] {
            let mut again = Archive::restore(archive.kept());
            assert!(!held || again.hold_known(seq));
            again.settle();
            assert_eq!(again.has_said(seq), held);
        }
        archive.release(seq);
        assert!(!archive.has_said(seq));
    }

    proptest! {
        #[test]
        fn an_event_is_there_as_long_as_something_holds_it(
            events in prop::collection::vec(event(), 1..40), steps in prop::collection::vec((0..40usize, 0..3u8, any::<u16>()), 1..400)
        ) {
            let (mut archive, mut model): (Archive, BTreeMap<u64, u32>) = Default::default();
            let mut by_seq: BTreeMap<u64, Event> = BTreeMap::new();
            for (which, what, seq) in steps {
                let seq = u64::from(seq % 300) * 7;
                match what {
                    0 | 1 => {
                        // A long line now and then, so that blocks fill.
                        let mut event = Event { seq, ..events[which % events.len()].clone() };
                        event.raw = event.raw.repeat(1 + which * 8).into();
                        archive.hold(by_seq.entry(seq).or_insert(event), None);
                        *model.entry(seq).or_default() += 1;
                    }
                    _ => {
                        if let Some((seq, holds)) = model.range_mut(seq..).next() {
                            let seq = *seq;
                            archive.release(seq);
                            *holds -= 1;
                            if *holds == 0 {
                                model.remove(&seq);
                            }
                        }
                    }
                }
                if which == 0 {
                    let bytes = postcard::to_stdvec(&archive.kept()).unwrap();
                    archive = Archive::restore(postcard::from_bytes(&bytes).unwrap());
                    model.iter().for_each(|(seq, holds)| (0..*holds).for_each(|_| assert!(archive.hold_known(*seq))));
                    archive.settle();
                }
            }
            for seq in model.keys() {
                let got = archive.get(*seq);
                prop_assert_eq!(got.as_deref(), by_seq.get(seq));
            }
            for (seq, holds) in model {
                (0..holds).for_each(|_| archive.release(seq));
            }
            prop_assert!(archive.blocks.is_empty() && archive.late.is_empty());
        }
    }
}
