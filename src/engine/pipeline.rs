//! Spool entries to findings: normalise, judge the time, detect, correlate. The same for `run`, `demo` and `eval`.
//!
//! A pure function of the entries that went through it (O2): the same on one thread or on many, live or again.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use super::ahead::Compiled;
use super::draft::{Draft, Drafter, Drafts, Reading, Rooms};
use super::tally::Tally;
use crate::correlate::{self, Correlator, Counters, Fired, Frozen, Judgement, Limits, State, Timekeeper, WireEvent};
use crate::detect::{Detector, LogsourceMode, Room};
use crate::diag::Diagnostic;
use crate::model::{Entry, EntryBody, Event, Finding, FindingId, Inventory, Record, Span, Time};
use crate::normalise::{self, ADDED, Extractors, Glance, Normaliser, Parsed, Refusal};
use crate::sigma::RuleSet;

/// What begins every snapshot (stable).
const MAGIC: &[u8] = b"opmas-state";
/// The version of what follows the magic; raised with every change of a serialised type.
const VERSION: u16 = 8;

/// A finding in the order of firing; silent rules (C11) give none.
pub type Found = Fired;

/// How a pipeline works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// T3's lateness.
    pub lateness: Span,
    /// The bounds of correlation; its lateness is C1's default.
    pub limits: Limits,
    /// Where log sources are read from (X3).
    pub logsource: LogsourceMode,
    /// Threads that detection is spread over.
    pub threads: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { lateness: correlate::LATENESS, limits: Limits::default(), logsource: LogsourceMode::default(), threads: 1 }
    }
}

/// Why a snapshot cannot be gone on from. The state before it is kept.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It does not begin as one.
    #[error("this is no snapshot of correlation state")]
    NotASnapshot,
    /// Another version wrote it.
    #[error("the snapshot has format version {0}, this program reads {VERSION}")]
    Version(u16),
    /// It is torn or changed.
    #[error("the snapshot is damaged: {0}")]
    Damaged(#[from] postcard::Error),
    /// What is in it is not what was written.
    #[error("the snapshot is damaged: {0}")]
    Unreadable(#[from] correlate::Unreadable),
}

/// An event that is not believed yet (T3).
#[derive(Clone, Debug)]
struct Pending {
    event: Arc<Event>,
    matched: Vec<usize>,
    told: Vec<FindingId>,
}

/// A [`Pending`] in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
struct PendingState {
    event: WireEvent,
    told: Vec<FindingId>,
}

/// Everything that later findings depend on, beside rules, extractors and inventory, as it was at one moment; the pipeline goes on meanwhile.
#[derive(Debug, Serialize)]
pub struct Snapshot {
    normaliser: normalise::State,
    timekeeper: Timekeeper,
    correlator: Frozen,
    pending: Vec<PendingState>,
}

/// A [`Snapshot`] as it is read.
#[derive(Debug, Deserialize)]
struct Written {
    normaliser: normalise::State,
    timekeeper: Timekeeper,
    correlator: State,
    pending: Vec<PendingState>,
}

impl Snapshot {
    /// The bytes that [`Pipeline::restore`] reads.
    ///
    /// # Errors
    /// [`RestoreError::Damaged`] when a value cannot be written, which no input brings about.
    pub fn encode(self) -> Result<Vec<u8>, RestoreError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        Ok(postcard::to_extend(&self, bytes)?)
    }
}

/// From entry to findings, with all state that findings depend on.
#[derive(Debug)]
pub struct Pipeline {
    rules: Arc<RuleSet>,
    inventory: Arc<Inventory>,
    normaliser: Normaliser,
    timekeeper: Timekeeper,
    detector: Arc<Detector>,
    rooms: Rooms,
    correlator: Correlator,
    /// By `seq`.
    pending: BTreeMap<u64, Pending>,
    /// By `seq`: of the last call.
    refused: Vec<(u64, Refusal)>,
    settings: Settings,
    /// Of a running opmas.
    tally: Option<Tally>,
}

impl Pipeline {
    /// An empty state. The rules should come from [`correlate::load`], which has refused what cannot be evaluated.
    ///
    /// # Errors
    /// A diagnostic for each correlation that this version does not evaluate.
    pub fn new(rules: Arc<RuleSet>, normaliser: Normaliser, inventory: Arc<Inventory>, settings: Settings) -> Result<Pipeline, Vec<Diagnostic>> {
        let Compiled { rules, detector, correlator, rooms } = Compiled::new(rules, &settings)?;
        let timekeeper = Timekeeper::new(settings.lateness);
        let (pending, refused) = (BTreeMap::new(), Vec::new());
        Ok(Pipeline { rules, inventory, normaliser, timekeeper, detector, rooms, correlator, pending, refused, settings, tally: None })
    }

    /// With what each rule does counted.
    #[must_use]
    pub fn counted(self, tally: Tally) -> Pipeline {
        Pipeline { tally: Some(tally), ..self }
    }

    /// The rules that decide.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// What was not counted or not kept.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.correlator.counters()
    }

    /// How many groups correlation keeps.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.correlator.size()
    }

    /// Rules in their warm-up, which only learn, and until when (C14): a sentence for each.
    #[must_use]
    pub fn learning(&self) -> Vec<String> {
        let named = |(rule, until): (usize, Time)| self.rules.rules.get(rule).map(|rule| format!("{} until {}", rule.title, until.brief()));
        self.correlator.learning(self.watermark()).into_iter().filter_map(named).collect()
    }

    /// The longest window of the rules, their lateness included.
    #[must_use]
    pub fn longest(&self) -> Span {
        self.correlator.longest()
    }

    /// The streams that the watermark knows, for those that look for idle ones.
    #[must_use]
    pub fn streams(&self) -> Vec<Arc<str>> {
        self.timekeeper.streams()
    }

    /// The watermark (T3).
    #[must_use]
    pub fn watermark(&self) -> Time {
        self.timekeeper.watermark()
    }

    /// The finding that was found (M1); to be asked for before other rules are set.
    #[must_use]
    pub fn finding(&self, found: &Found) -> Option<Finding> {
        correlate::finding(found, &self.rules)
    }

    /// One entry. A revision is the caller's: it calls [`Pipeline::set_rules`], [`Pipeline::set_extractors`] or [`Pipeline::set_inventory`].
    pub fn entry(&mut self, entry: &Entry) -> Vec<Found> {
        self.refused.clear();
        let mut rooms = std::mem::take(&mut self.rooms);
        let found = self.one(entry, &mut rooms.own);
        self.rooms = rooms;
        found
    }

    /// The records of the last call that could not be used, by their place, and why (M2). They move time on and do nothing else.
    #[must_use]
    pub fn refused(&self) -> &[(u64, Refusal)] {
        &self.refused
    }

    fn next(&mut self, entry: &Entry, drafts: &mut Drafts<'_>) -> Vec<Found> {
        let draft = drafts.next();
        match (&entry.body, draft) {
            (EntryBody::Record(record), Some(draft)) => self.complete(entry.seq, record, draft, drafts.room),
            _ => self.one(entry, drafts.room),
        }
    }

    fn one(&mut self, entry: &Entry, room: &mut Room) -> Vec<Found> {
        match &entry.body {
            EntryBody::Record(record) => {
                let draft = self.drafter().draft(record, room);
                self.complete(entry.seq, record, draft, room)
            }
            EntryBody::Tick(tick) => {
                self.correlator.abandon(&tick.elsewhere);
                let before = self.timekeeper.watermark();
                self.timekeeper.tick(tick);
                self.correlator.advance(&mut self.timekeeper, before)
            }
            EntryBody::Revision(_) => Vec::new(),
        }
    }

    /// Several entries in their order, detection spread over the threads of the settings; the findings as [`Pipeline::entry`] gives them one by one.
    pub fn entries(&mut self, entries: &[Entry]) -> Vec<Found> {
        self.refused.clear();
        let reading = Reading {
            normaliser: self.normaliser.reader(),
            detector: Arc::clone(&self.detector),
            inventory: Arc::clone(&self.inventory),
            mode: self.settings.logsource,
            asked: self.correlator.asked().cloned(),
        };
        let mut rooms = std::mem::take(&mut self.rooms);
        let found = reading.ahead(entries, &mut rooms, |drafts| entries.iter().flat_map(|entry| self.next(entry, drafts)).collect());
        self.rooms = rooms;
        found
    }

    fn drafter(&self) -> Drafter<'_> {
        let Pipeline { normaliser, detector, inventory, settings, correlator, .. } = self;
        Drafter { normaliser, detector, inventory, mode: settings.logsource, asked: correlator.asked().map(|asked| &**asked) }
    }

    /// Gives a draft its time and its place.
    fn complete(&mut self, seq: u64, record: &Record, draft: Draft, room: &mut Room) -> Vec<Found> {
        let (parsed, mut matched, seen) = match draft {
            Draft::Quiet(glance, seen) => match self.quiet(record, seq, &glance, seen) {
                Some(found) => return found,
                None => (Box::new(self.normaliser.parse(record)), Vec::new(), seen),
            },
            Draft::Parsed(parsed, matched, seen) => (parsed, matched, seen),
        };
        let (len, recalls, mut had) = (parsed.fields.len(), parsed.recalls(), [false; ADDED.len()]);
        for key in parsed.fields.keys() {
            ADDED.iter().zip(&mut had).filter(|(name, _)| *name == key).for_each(|(_, had)| *had = true);
        }
        let (event, refusal) = placed(&mut self.normaliser, &self.inventory, seq, record, *parsed);
        let is_as_it_was = event.fields.len() == len && !event.time_from_arrival;
        if refusal.is_none() && (recalls || !is_as_it_was && self.drafter().is_changed(&event, had, seen, room)) {
            matched = match self.correlator.asked() {
                None => self.detector.matches_with(&event, self.settings.logsource, room),
                Some(_) => {
                    let mut fields = self.normaliser.parse(record).fields;
                    fields.extend(event.fields.clone());
                    self.detector.matches_fields(&fields, None, &event.logsource, self.settings.logsource, room)
                }
            };
        }
        self.refused.extend(refusal.map(|refusal| (seq, refusal)));
        self.take(event, matched, record.arrival)
    }

    /// A record that no rule holds for: its time is judged, and makes due what it makes due. `None`, with nothing done, when an event is to be
    /// made of it after all: rules have seen another time, or it has to wait.
    fn quiet(&mut self, record: &Record, seq: u64, glance: &Glance, seen: Option<Time>) -> Option<Vec<Found>> {
        let said = self.normaliser.time_of(record, glance);
        if seen.is_some_and(|seen| seen != said.0) || !self.timekeeper.is_believed(&record.stream, said.0, record.arrival) {
            return None;
        }
        self.normaliser.pass(record, said.0);
        let (time, judgement) = self.timekeeper.judge(&record.stream, seq, said, record.arrival);
        let mut found = self.earlier(&judgement);
        found.extend(self.believe(&record.stream, time, glance.host.as_deref(), record.arrival.is_some()));
        Some(found)
    }

    fn take(&mut self, mut event: Event, matched: Vec<usize>, arrival: Option<Time>) -> Vec<Found> {
        let (time, judgement) = self.timekeeper.judge(&event.stream, event.seq, (event.time, !event.time_from_arrival), arrival);
        restamp(&mut event, time);
        let event = Arc::new(event);
        if let Some(tally) = &self.tally {
            tally.event(&self.rules, &event, &matched);
        }
        let mut found = self.correlator.detections(&event, &matched);
        found.extend(self.earlier(&judgement));
        if judgement.pending {
            let fired = self.correlator.attempt(&self.timekeeper, &event, &matched);
            let told = fired.iter().map(Fired::id).collect();
            found.extend(fired);
            self.pending.insert(event.seq, Pending { event, matched, told });
        } else {
            found.extend(self.enter(&event, &matched, &[], arrival.is_some()));
        }
        found
    }

    /// What waited and is believed now enters; what is given up never does.
    fn earlier(&mut self, judgement: &Judgement) -> Vec<Found> {
        let mut found = Vec::new();
        for (seq, _) in &judgement.believed {
            if let Some(earlier) = self.pending.remove(seq) {
                found.extend(self.enter(&earlier.event, &earlier.matched, &earlier.told, false));
            }
        }
        if let Some(seq) = judgement.given_up {
            self.pending.remove(&seq);
        }
        found
    }

    fn enter(&mut self, event: &Arc<Event>, matched: &[usize], told: &[FindingId], live: bool) -> Vec<Found> {
        let mut found = self.believe(&event.stream, event.time, event.text("host"), live);
        found.extend(self.correlator.event(&mut self.timekeeper, event, matched, told));
        found
    }

    fn believe(&mut self, stream: &Arc<str>, time: Time, host: Option<&str>, live: bool) -> Vec<Found> {
        let before = self.timekeeper.watermark();
        self.timekeeper.believe(stream, time, host, live);
        self.correlator.advance(&mut self.timekeeper, before)
    }

    /// The input has ended: what time would still decide (X3). What is not believed by now never enters.
    pub fn finish(&mut self) -> Vec<Found> {
        self.correlator.finish(&mut self.timekeeper)
    }

    /// Other rules from here on. Windows of rules that are equal as far as windows go are kept (C13).
    ///
    /// # Errors
    /// As [`Pipeline::new`]; then the rules before stay.
    pub fn set_rules(&mut self, rules: Arc<RuleSet>) -> Result<(), Vec<Diagnostic>> {
        self.put(Compiled::new(rules, &self.settings)?);
        Ok(())
    }

    /// As [`Pipeline::set_rules`], of rules that were compiled for its settings; what was in their place, as freeing it takes a while.
    pub fn put(&mut self, compiled: Compiled) -> Compiled {
        let pending = self.pending_state();
        let Compiled { rules, detector, mut correlator, rooms } = compiled;
        correlator.take_over(&mut self.correlator);
        let before = Compiled {
            rules: std::mem::replace(&mut self.rules, rules),
            detector: std::mem::replace(&mut self.detector, detector),
            correlator: std::mem::replace(&mut self.correlator, correlator),
            rooms: std::mem::replace(&mut self.rooms, rooms),
        };
        self.restore_pending(pending);
        before
    }

    /// Other extractors from here on.
    pub fn set_extractors(&mut self, extractors: Arc<Extractors>) {
        self.normaliser.set_extractors(extractors);
    }

    /// Another inventory from here on.
    pub fn set_inventory(&mut self, inventory: Arc<Inventory>) {
        self.inventory = inventory;
    }

    /// A copy of the state as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            normaliser: self.normaliser.state().clone(),
            timekeeper: self.timekeeper.clone(),
            correlator: self.correlator.freeze(),
            pending: self.pending_state(),
        }
    }

    /// Goes on from a snapshot, as if its entries had gone through this pipeline.
    ///
    /// # Errors
    /// It is no snapshot, another version's, or damaged.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), RestoreError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(RestoreError::NotASnapshot)?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(RestoreError::NotASnapshot)?;
        match u16::from_be_bytes(*version) {
            VERSION => {}
            other => return Err(RestoreError::Version(other)),
        }
        let Written { normaliser, timekeeper, correlator, pending } = postcard::from_bytes(rest)?;
        self.correlator.restore(correlator)?;
        self.normaliser.restore(normaliser);
        self.timekeeper = timekeeper.with_lateness(self.settings.lateness);
        self.restore_pending(pending);
        Ok(())
    }

    fn pending_state(&self) -> Vec<PendingState> {
        self.pending.values().map(|p| PendingState { event: (&*p.event).into(), told: p.told.clone() }).collect()
    }

    fn restore_pending(&mut self, states: Vec<PendingState>) {
        let (detector, mode, mut room) = (&self.detector, self.settings.logsource, Room::default());
        let pending = states.into_iter().map(|PendingState { event, told }| {
            let event = Arc::new(Event::from(event));
            (event.seq, Pending { matched: detector.matches_with(&event, mode, &mut room), event, told })
        });
        self.pending = pending.collect();
    }
}

/// The event of a record; a stamp too far ahead of arrival is replaced by it (T3).
pub(super) fn event(normaliser: &mut Normaliser, inventory: &Inventory, seq: u64, record: &Record) -> (Event, Option<Refusal>) {
    let parsed = normaliser.parse(record);
    placed(normaliser, inventory, seq, record, parsed)
}

fn placed(normaliser: &mut Normaliser, inventory: &Inventory, seq: u64, record: &Record, parsed: Parsed) -> (Event, Option<Refusal>) {
    let (mut event, refusal) = normaliser.place(seq, record, parsed, inventory);
    if let Some(arrival) = Timekeeper::restamped(event.time, record.arrival) {
        restamp(&mut event, arrival);
        event.time_from_arrival = true;
    }
    (event, refusal)
}

/// Gives an event another time, and its `timestamp` field with it where that said the same.
fn restamp(event: &mut Event, time: Time) {
    if time == event.time {
        return;
    }
    let before = event.time.to_string();
    if let Some(stamp) = event.fields.get_mut("timestamp").filter(|stamp| stamp.as_str() == Some(&before)) {
        *stamp = time.to_string().into();
    }
    event.time = time;
}
