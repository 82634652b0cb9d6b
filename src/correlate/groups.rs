//! The groups of one correlation, and which of them go first when there are too many (C12).

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use super::arena::{Arena, MAX_LEN, groups};
use super::compiled::Compiled;
use super::group::Group;
use super::packed::{self, is_small};
use super::queue::Queue;
use super::timekeeper::Timekeeper;
use super::timer::Timer;
use super::wire::{Reader, put_bytes};
use crate::model::Time;

/// Entries at which a group that had more rests as bytes again.
const AGAIN: usize = 4;
/// Bytes of a text below which that is worth a try.
const SHORT: usize = MAX_LEN / 4;

/// All groups of one rule by their text. Most are small and rest as bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    /// Places in `slots`, by the hash of the text.
    table: HashTable<u32>,
    hasher: RandomState,
    slots: Vec<Slot>,
    /// Slots of nothing.
    free: Vec<u32>,
    arena: Arena,
    /// The groups that are no bytes. Shared with a snapshot while that is written: whoever changes one then copies it first.
    large: Vec<Option<Arc<Large>>>,
    /// Places among those of nothing.
    free_large: Vec<u32>,
    /// The streams, each with its groups in the order in which they are evicted.
    shares: Vec<Share>,
    by_stream: BTreeMap<Arc<str>, u32>,
    /// The streams by the number of their groups.
    sizes: BTreeSet<(usize, Arc<str>)>,
    /// Since when the youngest group of `new_value` learns.
    pub learns: Option<Time>,
    /// Where a group is changed that rests as bytes.
    room: Option<Box<Group>>,
    bytes: Vec<u8>,
}

/// What is known of a group beside its bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    /// Its clock, or an earlier time: where it stands in its share's queue. Looked at again when it comes to the front.
    pub clock: Time,
    /// In the arena, or among the large ones.
    place: u32,
    /// In its share's queue.
    pub at: u32,
    share: u32,
    is_large: bool,
    /// Whether it has an open timer: then others go first.
    timer: bool,
}

/// A group that is no bytes.
#[derive(Clone, Debug)]
struct Large {
    text: Arc<str>,
    share: u32,
    group: Group,
}

#[derive(Clone, Debug, Default)]
struct Share {
    stream: Arc<str>,
    queue: Vec<u32>,
}

/// The groups of one correlation as they were at one moment.
#[derive(Debug)]
pub(super) struct Frozen {
    pages: Vec<Arc<Vec<u8>>>,
    large: Vec<Arc<Large>>,
    /// The streams that groups name by number.
    pub streams: Vec<Arc<str>>,
}

impl Frozen {
    /// How many parts there are.
    pub(super) fn len(&self) -> usize {
        self.pages.len() + self.large.len()
    }

    /// All groups in parts, each group behind its length.
    pub(super) fn parts(&self) -> impl Iterator<Item = Vec<u8>> {
        let pages = self.pages.iter().map(|page| {
            let mut out = Vec::with_capacity(page.len());
            groups(page).for_each(|(_, bytes)| put_bytes(&mut out, bytes));
            out
        });
        let large = self.large.iter().map(|large| {
            let (mut out, mut bytes) = (Vec::new(), Vec::new());
            packed::write(&mut bytes, &large.text, large.share, &large.group);
            put_bytes(&mut out, &bytes);
            out
        });
        pages.chain(large)
    }
}

/// What became of a group.
pub(super) struct Changed<R> {
    pub result: R,
    /// Its timer before and now.
    pub timer: (Option<Timer>, Option<Timer>),
}

fn text<'a>(slots: &[Slot], arena: &'a Arena, large: &'a [Option<Arc<Large>>], slot: u32) -> &'a [u8] {
    match slots.get(slot as usize) {
        Some(Slot { is_large: true, place, .. }) => large.get(*place as usize).and_then(Option::as_ref).map_or(&[], |large| large.text.as_bytes()),
        Some(Slot { place, .. }) => Reader(arena.get(*place)).bytes().unwrap_or_default(),
        None => &[],
    }
}

fn changed<R>(group: &mut Group, learns: &mut Option<Time>, change: impl FnOnce(&mut Group) -> R) -> Changed<R> {
    let before = group.timer.clone();
    let result = change(group);
    *learns = (*learns).max(group.known.as_ref().and_then(|known| known.since));
    Changed { result, timer: (before, group.timer.clone()) }
}

impl Groups {
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    fn find(&self, group: &str) -> Option<u32> {
        let hash = self.hasher.hash_one(group.as_bytes());
        self.table.find(hash, |slot| text(&self.slots, &self.arena, &self.large, *slot) == group.as_bytes()).copied()
    }

    /// A group as it is.
    pub(super) fn copy(&self, group: &str) -> Option<Group> {
        self.read(self.find(group)?).map(|(_, group)| group)
    }

    fn read(&self, slot: u32) -> Option<(Arc<str>, Group)> {
        let Slot { place, is_large, .. } = *self.slots.get(slot as usize)?;
        if is_large {
            let large = self.large.get(place as usize)?.as_ref()?;
            return Some((Arc::clone(&large.text), large.group.clone()));
        }
        let mut group = Group::new(Arc::default());
        let text = self.unpack(slot, &mut group)?;
        Some((text.into(), group))
    }

    /// Does something to a group as it is to be seen now, or to a new one of this stream's share.
    pub(super) fn change<R>(&mut self, text: &str, stream: &Arc<str>, change: impl FnOnce(&mut Group) -> R) -> Changed<R> {
        let found = self.find(text);
        let large = found.and_then(|slot| self.slots.get(slot as usize)).filter(|slot| slot.is_large).map(|slot| slot.place as usize);
        if let Some(large) = large.and_then(|large| self.large.get_mut(large)).and_then(Option::as_mut) {
            let group = &mut Arc::make_mut(large).group;
            let changed = changed(group, &mut self.learns, change);
            let (timer, clock, len) = (group.timer.is_some(), group.clock, group.entries.len());
            if let Some(slot) = found {
                self.rank(slot, timer, clock);
                if len <= AGAIN {
                    self.pack(slot);
                }
            }
            return changed;
        }
        let mut group = self.room.take().unwrap_or_else(|| Box::new(Group::new(Arc::clone(stream))));
        if found.is_none_or(|slot| self.unpack(slot, &mut group).is_none()) {
            *group = Group::new(Arc::clone(stream));
        }
        let changed = changed(&mut group, &mut self.learns, change);
        // One that nothing entered is not kept.
        if found.is_some() || group.clock > Time::MIN {
            let slot = found.unwrap_or_else(|| self.add(text, &group));
            self.rank(slot, group.timer.is_some(), group.clock);
            self.keep(slot, text, group);
        } else {
            self.room = Some(group);
        }
        changed
    }

    /// Reads a group that rests as bytes; its text.
    fn unpack(&self, slot: u32, group: &mut Group) -> Option<&str> {
        let Slot { place, share, .. } = *self.slots.get(slot as usize)?;
        let stream = &self.shares.get(share as usize)?.stream;
        if !Arc::ptr_eq(&group.stream, stream) {
            group.stream = Arc::clone(stream);
        }
        let mut reader = Reader(self.arena.get(place));
        let (text, _, clock, _) = packed::read_head(&mut reader)?;
        packed::read(&mut reader, clock, group).map(|()| text)
    }

    /// A slot for a group that is new, which is nowhere yet.
    fn add(&mut self, group: &str, state: &Group) -> u32 {
        let share = match self.by_stream.get(&state.stream) {
            Some(share) => *share,
            None => self.share(&state.stream),
        };
        let new = Slot { clock: state.clock, place: NOWHERE, at: 0, share, is_large: false, timer: state.timer.is_some() };
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(new.clone());
                (self.slots.len() - 1) as u32
            }
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = new;
        }
        let Groups { table, hasher, slots, arena, large, .. } = self;
        let hash = hasher.hash_one(group.as_bytes());
        table.insert_unique(hash, slot, |slot| hasher.hash_one(text(slots, arena, large, *slot)));
        self.resize(share, |queue| queue.push(slot));
        slot
    }

    fn share(&mut self, stream: &Arc<str>) -> u32 {
        let unused = self.shares.iter().position(|share| share.queue.is_empty());
        let share = unused.unwrap_or_else(|| {
            self.shares.push(Share::default());
            self.shares.len() - 1
        });
        if let Some(place) = self.shares.get_mut(share) {
            place.stream = Arc::clone(stream);
        }
        share as u32
    }

    /// Something comes into a share's queue, or goes.
    fn resize(&mut self, share: u32, change: impl FnOnce(&mut Queue<'_, &dyn Fn(&[Slot], u32, u32) -> bool>)) {
        let Some(Share { stream, queue }) = self.shares.get_mut(share as usize) else { return };
        let size = queue.len();
        let (arena, large) = (&self.arena, &self.large);
        let before = |slots: &[Slot], one: u32, other: u32| goes_first(slots, arena, large, one, other);
        change(&mut Queue { queue, list: &mut self.slots, before: &before });
        if size == queue.len() {
            return;
        }
        self.sizes.remove(&(size, Arc::clone(stream)));
        if queue.is_empty() {
            self.by_stream.remove(stream);
            return;
        }
        self.sizes.insert((queue.len(), Arc::clone(stream)));
        if size == 0 {
            self.by_stream.insert(Arc::clone(stream), share);
        }
    }

    /// A group has this rank now. To go later than it stands is looked at when it comes to the front.
    fn rank(&mut self, slot: u32, timer: bool, clock: Time) {
        let Some(known) = self.slots.get_mut(slot as usize) else { return };
        if (timer, clock) >= (known.timer, known.clock) {
            return;
        }
        (known.timer, known.clock) = (timer, clock);
        let (share, at) = (known.share, known.at as usize);
        self.resize(share, |queue| queue.moved(at));
    }

    /// Keeps a group that was changed.
    fn keep(&mut self, slot: u32, text: &str, group: Box<Group>) {
        let Groups { slots, arena, bytes, .. } = self;
        let Some((place, share)) = slots.get(slot as usize).map(|slot| (Some(slot.place).filter(|place| *place != NOWHERE), slot.share)) else { return };
        bytes.clear();
        let small = is_small(&group) && packed::write(bytes, text, share, &group);
        let mut moved = |owner: u32, place: u32| slots.get_mut(owner as usize).into_iter().for_each(|slot| slot.place = place);
        let now = if small { arena.put(slot, place, bytes, &mut moved) } else { None };
        if let Some(place) = place.filter(|_| !small) {
            arena.remove(place);
        }
        match now {
            Some(now) => {
                slots.get_mut(slot as usize).into_iter().for_each(|slot| slot.place = now);
                self.room = Some(group);
            }
            None => self.enlarge(slot, Large { text: text.into(), share, group: *group }),
        }
    }

    fn enlarge(&mut self, slot: u32, large: Large) {
        let place = self.free_large.pop().unwrap_or_else(|| {
            self.large.push(None);
            (self.large.len() - 1) as u32
        });
        if let (Some(slot), Some(to)) = (self.slots.get_mut(slot as usize), self.large.get_mut(place as usize)) {
            *to = Some(Arc::new(large));
            (slot.place, slot.is_large) = (place, true);
        }
    }

    /// A group that was large has few entries.
    fn pack(&mut self, slot: u32) {
        let Some(place) = self.slots.get(slot as usize).map(|slot| slot.place) else { return };
        let Some(large) = self.large.get_mut(place as usize) else { return };
        if let Some(Large { text, group, .. }) = large.take_if(|large| large.text.len() < SHORT && is_small(&large.group)).map(Arc::unwrap_or_clone) {
            self.free_large.push(place);
            if let Some(slot) = self.slots.get_mut(slot as usize) {
                (slot.place, slot.is_large) = (NOWHERE, false);
            }
            self.keep(slot, &text, Box::new(group));
        }
    }

    /// The group of a share that goes first.
    fn front(&mut self, share: u32) -> Option<u32> {
        loop {
            let slot = *self.shares.get(share as usize)?.queue.first()?;
            let (timer, clock) = self.now(slot)?;
            let known = self.slots.get_mut(slot as usize)?;
            if (timer, clock) == (known.timer, known.clock) {
                return Some(slot);
            }
            (known.timer, known.clock) = (timer, clock);
            self.resize(share, |queue| queue.moved(0));
        }
    }

    /// Whether a group has an open timer, and its clock.
    fn now(&self, slot: u32) -> Option<(bool, Time)> {
        let Slot { place, is_large, .. } = *self.slots.get(slot as usize)?;
        if is_large {
            let group = &self.large.get(place as usize)?.as_ref()?.group;
            return Some((group.timer.is_some(), group.clock));
        }
        packed::read_head(&mut Reader(self.arena.get(place))).map(|(_, timer, clock, _)| (timer, clock))
    }

    /// Puts a group back that a snapshot kept.
    pub(super) fn restore(&mut self, text: &str, group: Group) {
        self.change(text, &Arc::clone(&group.stream), |new| *new = group);
    }

    /// Frees what the watermark has passed (T4); the events that its entries held.
    pub(super) fn free(&mut self, rule: &Compiled, time: &Timekeeper) -> Vec<u64> {
        let (mut gone, reach) = (Vec::new(), rule.reach());
        for share in 0..self.shares.len() as u32 {
            // What is past, but not over: it keeps its place.
            let mut stays = Vec::new();
            while let Some(slot) = self.front(share) {
                let Some((timer, clock)) = self.now(slot) else { break };
                if timer || !time.passed(clock.plus(reach), None) {
                    break;
                }
                let Some((_, group)) = self.read(slot) else { break };
                if group.is_over(rule, time) {
                    self.remove(slot);
                    gone.extend(group.entries.iter().map(|entry| entry.place.seq));
                } else {
                    self.resize(share, |queue| queue.remove(0));
                    stays.push(slot);
                }
            }
            for slot in stays {
                self.resize(share, |queue| queue.push(slot));
            }
        }
        if self.table.is_empty() {
            *self = Groups { learns: self.learns, ..Groups::default() };
        }
        gone
    }

    /// Takes out the groups with an open timer that streams of these sources made.
    pub(super) fn abandon(&mut self, sources: &[Arc<str>]) -> Vec<(Arc<str>, Group)> {
        let of = |stream: &str| sources.iter().any(|source| stream.strip_prefix(&**source).is_some_and(|rest| rest.starts_with('/')));
        let theirs = self.shares.iter().filter(|share| of(&share.stream)).flat_map(|share| share.queue.iter().copied());
        let waiting: Vec<u32> = theirs.filter(|slot| self.now(*slot).is_some_and(|(timer, _)| timer)).collect();
        waiting.into_iter().filter_map(|slot| self.remove(slot)).collect()
    }

    fn remove(&mut self, slot: u32) -> Option<(Arc<str>, Group)> {
        let removed = self.read(slot)?;
        let Slot { place, at, share, is_large, .. } = *self.slots.get(slot as usize)?;
        let hash = self.hasher.hash_one(removed.0.as_bytes());
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.resize(share, |queue| queue.remove(at as usize));
        if is_large {
            self.large.get_mut(place as usize)?.take();
            self.free_large.push(place);
        } else {
            self.arena.remove(place);
        }
        self.free.push(slot);
        Some(removed)
    }

    /// How many groups the largest share has.
    pub(super) fn largest(&self) -> usize {
        self.sizes.last().map_or(0, |(size, _)| *size)
    }

    /// Evicts the first group of the largest share: whoever makes groups without end loses their own, and a source with fewer than its
    /// part of the bound loses none.
    pub(super) fn evict(&mut self) -> Option<(Arc<str>, Group)> {
        let share = *self.by_stream.get(&self.sizes.last()?.1)?;
        let slot = self.front(share)?;
        self.remove(slot)
    }

    /// All groups as they are now.
    pub(super) fn freeze(&self) -> Frozen {
        let streams = self.shares.iter().map(|share| Arc::clone(&share.stream)).collect();
        Frozen { pages: self.arena.pages(), large: self.large.iter().flatten().cloned().collect(), streams }
    }
}

/// The place of a group that is new.
const NOWHERE: u32 = u32::MAX;

/// Groups with an open timer last; among others who is idle longest by the group's own clock goes first.
fn goes_first(slots: &[Slot], arena: &Arena, large: &[Option<Arc<Large>>], one: u32, other: u32) -> bool {
    let rank = |slot: u32| slots.get(slot as usize).map(|slot| (slot.timer, slot.clock));
    match rank(one).cmp(&rank(other)) {
        std::cmp::Ordering::Equal => text(slots, arena, large, one) < text(slots, arena, large, other),
        order => order.is_lt(),
    }
}
