//! What can be said of a record by itself, on any thread: its fields, and the rules that hold for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::correlate::Timekeeper;
use crate::detect::{Detector, LogsourceMode, Room};
use crate::entity;
use crate::model::{Entry, EntryBody, Event, Inventory, Record, Time};
use crate::normalise::{ADDED, Glance, Normaliser, Parsed};

/// Entries that a thread takes at a time.
const PIECE: usize = 32;

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
}

impl Drafter<'_> {
    /// Drafts of the records among the entries, in pieces on as many threads as there are rooms, of which this is one.
    pub(super) fn spread(self, entries: &[Entry], rooms: &mut [Room]) -> Vec<Option<Draft>> {
        let one = move |entry: &Entry, room: &mut Room| match &entry.body {
            EntryBody::Record(record) => Some(self.draft(record, room)),
            EntryBody::Tick(_) | EntryBody::Revision(_) => None,
        };
        let each = |piece: &[Entry], room: &mut Room| piece.iter().map(|entry| one(entry, room)).collect::<Vec<_>>();
        let (pieces, next): (Vec<_>, _) = (entries.chunks(PIECE).collect(), AtomicUsize::new(0));
        // Whoever is through with a piece takes the next: no thread waits long for another.
        let work = |room: &mut Room| {
            let place = || Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, *pieces.get(at)?)));
            std::iter::from_fn(place).map(|(at, piece)| (at, each(piece, room))).collect::<Vec<_>>()
        };
        let mut done: BTreeMap<usize, Vec<Option<Draft>>> = std::thread::scope(|scope| {
            let Some((own, others)) = rooms.split_first_mut() else { return BTreeMap::new() };
            let threads: Vec<_> = others.iter_mut().map(|room| scope.spawn(|| work(room))).collect();
            let own = work(own);
            own.into_iter().chain(threads.into_iter().filter_map(|thread| thread.join().ok()).flatten()).collect()
        });
        // What a thread that died had taken is made up for here: then the panic is this thread's.
        (0..).zip(pieces).flat_map(|(at, piece)| done.remove(&at).unwrap_or_else(|| each(piece, &mut Room::default()))).collect()
    }

    /// Reads a record and looks for the rules that hold for it. Most records are [`Draft::Quiet`]: for those no event is made.
    pub(super) fn draft(self, record: &Record, room: &mut Room) -> Draft {
        if let Some(glance) = self.normaliser.glance(record, &mut room.tape) {
            let (time, _) = self.normaliser.time_of(record, &glance);
            let teaches = glance.action.as_deref().is_some_and(entity::teaches);
            if Timekeeper::restamped(time, record.arrival).is_none() && !teaches && !self.is_joined(record, &glance) {
                let seen = (self.detector.minds_time() && !glance.has_timestamp).then_some(time);
                let matched = self.detector.matches_tape(seen, self.mode, room);
                return if matched.is_empty() { Draft::Quiet(glance, seen) } else { Draft::Parsed(Box::new(self.normaliser.parse(record)), matched, seen) };
            }
        }
        let parsed = Box::new(self.normaliser.parse(record));
        if parsed.refusal.is_some() {
            return Draft::Parsed(parsed, Vec::new(), None);
        }
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
