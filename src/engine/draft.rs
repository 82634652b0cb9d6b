//! What can be said of a record by itself, on any thread: its fields, and the rules that hold for them.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use crate::correlate::Timekeeper;
use crate::detect::{Detector, LogsourceMode, Room};
use crate::entity;
use crate::model::{Entry, EntryBody, Event, Inventory, Record, Time};
use crate::normalise::{ADDED, Glance, Normaliser, Parsed};

/// Entries whose drafts are made by one thread, one after the other.
const SHARE: usize = 64;
/// Shares that are made and not asked for yet; beyond it other threads wait.
const MAX_MADE: usize = 32;

/// What threads work in.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    pub(super) own: Room,
    /// One for each further thread.
    others: Vec<Room>,
}

impl Rooms {
    /// For so many threads.
    pub(super) fn new(threads: usize) -> Rooms {
        Rooms { own: Room::default(), others: std::iter::repeat_with(Room::default).take(threads.saturating_sub(1)).collect() }
    }

    /// Each of them.
    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut Room> {
        std::iter::once(&mut self.own).chain(&mut self.others)
    }
}

/// A record before its time and its place are known; with the time that the rules took for its own where they mind it.
pub(super) enum Draft {
    /// No rule holds for it, and only its time counts.
    Quiet(Glance, Option<Time>),
    /// With the rules that hold for its fields as they are so far.
    Parsed(Box<Parsed>, Vec<usize>, Option<Time>),
}

/// What drafts are made with; it stays as it is while they are.
#[derive(Clone, Copy)]
pub(super) struct Drafter<'p> {
    pub(super) normaliser: &'p Normaliser,
    pub(super) detector: &'p Detector,
    pub(super) inventory: &'p Inventory,
    pub(super) mode: LogsourceMode,
    /// The fields that are asked for of an event, where nothing else is.
    pub(super) asked: Option<&'p [Arc<str>]>,
}

/// What drafts are made with, kept for other threads.
pub(super) struct Reading {
    pub(super) normaliser: Normaliser,
    pub(super) detector: Arc<Detector>,
    pub(super) inventory: Arc<Inventory>,
    pub(super) mode: LogsourceMode,
    pub(super) asked: Option<Arc<[Arc<str>]>>,
}

impl Reading {
    /// Has the drafts of the entries made while `then` asks for them: on another thread for each further room, and on this one as well while
    /// the next is not made.
    pub(super) fn ahead<R>(&self, entries: &[Entry], rooms: &mut Rooms, then: impl FnOnce(&mut Drafts<'_>) -> R) -> R {
        let Reading { normaliser, detector, inventory, mode, asked } = self;
        let drafter = Drafter { normaliser, detector, inventory, mode: *mode, asked: asked.as_deref() };
        let Rooms { own, others } = rooms;
        let (shares, next) = (Shares(if others.is_empty() { &[] } else { entries }), &AtomicUsize::new(0));
        std::thread::scope(|scope| {
            let (made, ready) = sync_channel(MAX_MADE);
            for room in others.iter_mut().take(shares.len()) {
                let made = made.clone();
                let work = move || {
                    while let Some((at, share)) = shares.claim(next) {
                        // What makes this thread panic is left to the first one: then the panic is that one's.
                        let Ok(drafts) = catch_unwind(AssertUnwindSafe(|| drafter.share(share, room))) else { return };
                        if made.send((at, drafts)).is_err() {
                            return;
                        }
                    }
                };
                // Without a thread the first one makes them all.
                let _ = std::thread::Builder::new().name("reading".to_owned()).spawn_scoped(scope, work);
            }
            drop(made);
            then(&mut Drafts { drafter, shares, next, ready, made: BTreeMap::new(), room: own, at: 0, now: Vec::new().into_iter() })
        })
    }
}

/// Entries in shares, of which each is claimed once.
#[derive(Clone, Copy)]
struct Shares<'a>(&'a [Entry]);

impl<'a> Shares<'a> {
    fn get(self, at: usize) -> Option<&'a [Entry]> {
        self.0.chunks(SHARE).nth(at)
    }

    fn len(self) -> usize {
        self.0.len().div_ceil(SHARE)
    }

    fn claim(self, next: &AtomicUsize) -> Option<(usize, &'a [Entry])> {
        let at = next.fetch_add(1, Ordering::Relaxed);
        self.get(at).map(|share| (at, share))
    }
}

/// The drafts of a share; of what is no record there is none.
type Share = Vec<Option<Draft>>;

/// Drafts of entries, in their order.
pub(super) struct Drafts<'a> {
    drafter: Drafter<'a>,
    shares: Shares<'a>,
    next: &'a AtomicUsize,
    ready: Receiver<(usize, Share)>,
    /// Shares that come later.
    made: BTreeMap<usize, Share>,
    pub(super) room: &'a mut Room,
    /// The next share.
    at: usize,
    now: std::vec::IntoIter<Option<Draft>>,
}

impl Drafts<'_> {
    /// That of the next entry, if it is made ahead.
    pub(super) fn next(&mut self) -> Option<Draft> {
        if self.now.len() == 0 && !self.shares.0.is_empty() {
            self.now = self.share().into_iter();
            self.at += 1;
        }
        self.now.next().flatten()
    }

    fn share(&mut self) -> Share {
        loop {
            self.made.extend(self.ready.try_iter());
            if let Some(share) = self.made.remove(&self.at) {
                return share;
            }
            if let Some((at, share)) = self.shares.claim(self.next) {
                self.made.insert(at, self.drafter.share(share, self.room));
            } else if let Ok((at, share)) = self.ready.recv() {
                self.made.insert(at, share);
            } else {
                return self.shares.get(self.at).map(|share| self.drafter.share(share, self.room)).unwrap_or_default();
            }
        }
    }
}

impl Drafter<'_> {
    fn share(self, entries: &[Entry], room: &mut Room) -> Share {
        let one = |entry: &Entry| match &entry.body {
            EntryBody::Record(record) => Some(self.draft(record, room)),
            EntryBody::Tick(_) | EntryBody::Revision(_) => None,
        };
        entries.iter().map(one).collect()
    }

    /// Reads a record and looks for the rules that hold for it. Most records are [`Draft::Quiet`]: for those no event is made.
    pub(super) fn draft(self, record: &Record, room: &mut Room) -> Draft {
        if let Some(glance) = self.normaliser.glance(record, &mut room.tape) {
            let (time, _) = self.normaliser.time_of(record, &glance);
            let teaches = glance.action.as_deref().is_some_and(entity::teaches);
            if Timekeeper::restamped(time, record.arrival).is_none() && !teaches && !self.is_joined(record, &glance) {
                let seen = (self.detector.minds_time() && !glance.has_timestamp).then_some(time);
                let matched = self.detector.matches_tape(seen, self.mode, room);
                if matched.is_empty() {
                    return Draft::Quiet(glance, seen);
                }
                return Draft::Parsed(Box::new(self.normaliser.parsed(record, &glance, &room.tape, self.asked)), matched, seen);
            }
        }
        let mut parsed = Box::new(self.normaliser.parse(record));
        if parsed.refusal.is_some() {
            return Draft::Parsed(parsed, Vec::new(), None);
        }
        // Then rules are asked once.
        parsed.join(record, self.inventory);
        let minds = self.detector.minds_time() && !parsed.fields.contains_key("timestamp");
        let seen = minds.then(|| self.normaliser.time_of_parsed(record, &parsed));
        let matched = self.detector.matches_fields(&parsed.fields, seen, &parsed.logsource, self.mode, room);
        Draft::Parsed(parsed, matched, seen)
    }

    /// Whether the inventory has something to add.
    fn is_joined(self, record: &Record, glance: &Glance) -> bool {
        !self.inventory.devices.is_empty() && self.inventory.by_host_or_peer(glance.host.as_deref(), record.peer).is_some()
    }

    /// Whether an event got something after its draft that may change which rules hold for it. `had`: which of [`ADDED`] it had then,
    /// `seen`: the time that rules took for its own.
    pub(super) fn is_changed(self, event: &Event, had: [bool; ADDED.len()], seen: Option<Time>, room: &mut Room) -> bool {
        ADDED.iter().zip(had).any(|(name, had)| {
            let is_time = *name == "timestamp";
            // Its own `timestamp` is another when arrival has taken its place.
            let kept = if is_time && !had { seen == Some(event.time) } else { had && !(is_time && event.time_from_arrival) };
            !kept && event.fields.get(*name).is_some_and(|value| !self.detector.is_inert(name, value, room))
        })
    }
}
