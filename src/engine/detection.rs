//! The detection thread: spool entries through the pipeline, in their order; findings and checkpoints to the decider.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::ahead::{self, Ahead};
use super::bounds::Bounds;
use super::bundle::{self, Content};
use super::checkpoint::{Checkpoint, State};
use super::decide::Detected;
use super::flight::{Flight, Together};
use super::pipeline::{Pipeline, Settings};
use super::recover::Announced;
use super::status::{Gravity, Status};
use crate::clock;
use crate::correlate;
use crate::diag::Diagnostic;
use crate::journal::{Revisions, SpoolReader, record_id};
use crate::model::{DeadLetter, DeadReason, Entry, EntryBody, Finding, Inventory, NodeId, RecordId, Revision, RevisionKind, Time};
use crate::normalise::{Extractors, Normaliser, Options, Refusal};
use crate::sigma::RuleSet;

/// A checkpoint is written after so many entries …
const CHECKPOINT_ENTRIES: u64 = 100_000;
/// … or after this time, if there was any entry.
const CHECKPOINT_TIME: Duration = Duration::from_secs(60);

/// Entries that are computed as one piece when the spool is computed again.
const PIECE: usize = 256;
/// Damage that is named when the spool is computed again.
const MAX_DAMAGE: usize = 100;

/// Where the thread is when it has caught up with what the spool held at the start.
#[derive(Debug)]
pub(super) struct CaughtUp {
    /// The revisions that are live, by kind.
    pub(super) live: Live,
    /// Streams that its watermark knows.
    pub(super) streams: Vec<Arc<str>>,
    /// How many entries were computed again.
    pub(super) entries: u64,
    /// What could not be read, the first [`MAX_DAMAGE`]; the rest was.
    pub(super) damage: Vec<String>,
    /// Where it looks for the rules of the next revision.
    pub(super) ahead: Ahead,
}

/// The revisions that are live.
pub(super) type Live = BTreeMap<u8, Revision>;

/// The key of a kind in [`Live`].
pub(super) fn kind_key(kind: RevisionKind) -> u8 {
    match kind {
        RevisionKind::Rules => 0,
        RevisionKind::Extractors => 1,
        RevisionKind::Inventory => 2,
    }
}

/// The thread's state.
pub(super) struct Detection {
    node: NodeId,
    pipeline: Pipeline,
    bounds: Bounds,
    live: Live,
    revisions: Revisions,
    ahead: Ahead,
    status: Status,
    /// Findings that the ledger has: those that are computed again are dropped (O6).
    announced: Announced,
    /// What could not be read or put in place.
    damage: Vec<String>,
    detected: mpsc::Sender<Detected>,
    flight: Flight,
    seq: u64,
    since_checkpoint: (u64, Instant),
    /// Held by the checkpoint that is under way, too.
    turn: Arc<()>,
}

/// Why detection ends before its time.
#[derive(Debug, thiserror::Error)]
#[error("the decider has ended")]
struct Closed;

impl Detection {
    /// An empty state.
    pub(super) fn new(
        node: &NodeId,
        revisions: Revisions,
        announced: Announced,
        detected: mpsc::Sender<Detected>,
        status: Status,
    ) -> Result<Detection, Vec<Diagnostic>> {
        let pipeline = empty(node, Settings::default())?.counted(status.tally().clone());
        let (node, bounds, since_checkpoint) = (node.clone(), Bounds::default(), (0, Instant::now()));
        let ahead = Ahead::default();
        let (live, damage, flight) = (Live::new(), Vec::new(), Flight::default());
        Ok(Detection {
            node,
            pipeline,
            bounds,
            live,
            revisions,
            ahead,
            status,
            announced,
            damage,
            detected,
            flight,
            seq: 0,
            since_checkpoint,
            turn: Arc::default(),
        })
    }

    /// Keeps from now on what is computed, and leaves out what made the process die.
    pub(super) fn watched(self, flight: Flight) -> Detection {
        Detection { flight, ..self }
    }

    /// Goes on from a checkpoint's body, which covers the spool up to `seq`.
    ///
    /// # Errors
    /// It is another version's, damaged, or names a revision that is no longer kept: then nothing has changed but revisions.
    pub(super) fn restore(&mut self, seq: u64, body: &[u8]) -> Result<(), String> {
        let (checkpoint, bounds) = Checkpoint::decode(body)?;
        for revision in &checkpoint.revisions {
            self.revise(revision)?;
        }
        self.pipeline.restore(&checkpoint.snapshot).map_err(|error| error.to_string())?;
        self.bounds = bounds.unwrap_or_else(|| Bounds::from(self.pipeline.counters()));
        (self.seq, self.since_checkpoint) = (seq, (seq, Instant::now()));
        Ok(())
    }

    /// The place that reading goes on from.
    pub(super) fn next(&self) -> u64 {
        self.seq + 1
    }

    /// The thread: first what the spool held at the start, then what comes. `durable` is the newest place in the spool.
    pub(super) fn run(
        mut self,
        recorded: Option<SpoolReader>,
        caught_up: oneshot::Sender<CaughtUp>,
        mut entries: mpsc::Receiver<Arc<[Entry]>>,
        durable: watch::Receiver<u64>,
    ) {
        let _together = Together;
        let Ok(entries_read) = self.catch_up(recorded) else { return };
        self.announced = Announced::default();
        let damage = std::mem::take(&mut self.damage);
        let (live, streams, ahead) = (self.live.clone(), self.pipeline.streams(), self.ahead.clone());
        let report = CaughtUp { live, streams, entries: entries_read, damage, ahead };
        // The start may have been given up meanwhile.
        let _ = caught_up.send(report);
        while let Some(batch) = entries.blocking_recv() {
            if self.batch(&batch).is_err() {
                return;
            }
            self.measure(&batch, *durable.borrow());
            if self.is_due() && self.checkpoint().is_err() {
                return;
            }
            self.ahead.saw(batch);
        }
        // The spool has ended; a checkpoint here makes the next start short.
        if self.seq > self.since_checkpoint.0 {
            let _ = self.checkpoint();
        }
    }

    /// What the spool held at the start; how many entries that were.
    fn catch_up(&mut self, recorded: Option<SpoolReader>) -> Result<u64, Closed> {
        let (mut count, mut piece) = (0, Vec::with_capacity(PIECE));
        let mut recorded = recorded.into_iter().flatten();
        loop {
            let read = recorded.next();
            let is_end = read.is_none();
            match read {
                Some(Ok(entry)) => piece.push(entry),
                Some(Err(error)) => self.damaged(error.to_string()),
                None => {}
            }
            if is_end || piece.len() == PIECE {
                self.batch(&piece)?;
                count += piece.len() as u64;
                piece.clear();
                // A long way is gone in pieces, also when it is interrupted. But behind a checkpoint's record the ledger's earlier
                // findings are taken for those of earlier entries: not while some of later ones are still to be computed again.
                if self.announced.later.is_empty() && self.is_due() {
                    self.checkpoint()?;
                }
            }
            if is_end {
                return Ok(count);
            }
        }
    }

    fn batch(&mut self, entries: &[Entry]) -> Result<(), Closed> {
        for piece in self.flight.pieces(entries) {
            self.flight.begin(piece);
            piece.iter().try_for_each(|entry| self.entry(entry))?;
            self.flight.land();
        }
        Ok(())
    }

    /// Hands on. The decider may have to wait for the disk, and then so does this.
    fn send(&mut self, one: Detected) -> Result<(), Closed> {
        match self.detected.try_send(one) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Full(one)) => self.flight.aside(|| self.detected.blocking_send(one)).map_err(|_| Closed),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Closed),
        }
    }

    fn damaged(&mut self, what: String) {
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(what);
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Closed> {
        self.seq = entry.seq;
        if let EntryBody::Revision(revision) = &entry.body
            && !self.flight.is_poison(entry.seq)
        {
            let part = part(revision.kind);
            match self.revise(revision) {
                Ok(()) => self.status.clear(part),
                Err(why) => {
                    self.status.set(part, Gravity::Degraded, format!("the last good version stays: {why}"));
                    self.damaged(format!("entry {}, {part}: {why}", entry.seq));
                }
            }
        }
        let announced = entry.seq <= self.announced.until;
        let is_poison = self.flight.is_poison(entry.seq);
        let found = if is_poison { Vec::new() } else { self.pipeline.entry(entry) };
        let refused = self.pipeline.refused().first().filter(|_| !is_poison).map(|(_, Refusal { reason, detail })| (*reason, detail.clone()));
        let refused = refused.or_else(|| is_poison.then(|| (DeadReason::Deadly, "opmas has died on it, again and again".to_owned())));
        if let Some(letter) = refused.and_then(|why| self.dead_letter(entry, why)).filter(|_| !announced) {
            self.send(Detected::Dead(Box::new(letter)))?;
        }
        for fired in found.iter().filter(|found| found.group.is_some()) {
            let rule = self.pipeline.rules().rules.get(fired.rule);
            rule.into_iter().for_each(|rule| self.status.tally().fired(rule.key(), fired.place.time));
        }
        let findings: Vec<Finding> = found.iter().filter_map(|found| self.pipeline.finding(found)).collect();
        let id = || record_id(&self.node, entry).unwrap_or_else(|| RecordId::Pushed { node: self.node.clone(), seq: entry.seq });
        let bounds = self.bounds.look(self.pipeline.counters(), entry, id, self.pipeline.watermark());
        for finding in findings.into_iter().chain(bounds) {
            if !announced {
                self.announce(finding)?;
            }
        }
        Ok(())
    }

    /// Of a record that cannot be used.
    fn dead_letter(&self, entry: &Entry, (reason, detail): (DeadReason, String)) -> Option<DeadLetter> {
        let EntryBody::Record(record) = &entry.body else { return None };
        Some(DeadLetter {
            seq: entry.seq,
            id: record_id(&self.node, entry)?,
            source: Arc::clone(&record.source),
            stream: Arc::clone(&record.stream),
            subject: record.subject.clone(),
            time: record.arrival.unwrap_or_default(),
            reason,
            detail,
            bytes: record.raw.len() as u64,
            raw: record.raw.get(..DeadLetter::MAX_RAW).unwrap_or(&record.raw).to_vec(),
        })
    }

    /// Hands a finding on that the ledger does not have.
    fn announce(&mut self, finding: Finding) -> Result<(), Closed> {
        if self.announced.later.remove(&finding.id).is_some() {
            return Ok(());
        }
        self.send(Detected::Finding(Box::new(finding)))
    }

    /// Puts a revision in place.
    fn revise(&mut self, revision: &Revision) -> Result<(), String> {
        match self.ahead.take(revision) {
            Some(compiled) => ahead::free(self.pipeline.put(compiled)),
            None => put(&mut self.pipeline, &self.revisions, revision)?,
        }
        self.status.tally().set(self.pipeline.rules());
        self.live.insert(kind_key(revision.kind), revision.clone());
        Ok(())
    }

    /// One is under way at most: what is shared with it is copied when it changes.
    fn is_due(&self) -> bool {
        let (seq, at) = self.since_checkpoint;
        self.seq > seq && Arc::strong_count(&self.turn) == 1 && (self.seq - seq >= CHECKPOINT_ENTRIES || at.elapsed() >= CHECKPOINT_TIME)
    }

    fn checkpoint(&mut self) -> Result<(), Closed> {
        self.since_checkpoint = (self.seq, Instant::now());
        let (revisions, snapshot) = (self.live.values().cloned().collect(), self.pipeline.snapshot());
        let state = State { revisions, snapshot, bounds: self.bounds };
        self.detected.blocking_send(Detected::Checkpoint { seq: self.seq, state: Box::new(state), turn: self.turn.clone() }).map_err(|_| Closed)
    }

    fn measure(&self, batch: &[Entry], durable: u64) {
        metrics::counter!("opmas_detection_entries_total").increment(batch.len() as u64);
        metrics::gauge!("opmas_detection_lag_entries").set(u32::try_from(durable.saturating_sub(self.seq)).unwrap_or(u32::MAX));
        let arrival = batch.iter().rev().find_map(|entry| if let EntryBody::Record(record) = &entry.body { record.arrival } else { None });
        if let Some(arrival) = arrival {
            metrics::gauge!("opmas_detection_lag_seconds").set(clock::now().since(arrival).to_std().as_secs_f64());
        }
        self.status.tally().publish();
        match self.pipeline.learning() {
            rules if rules.is_empty() => self.status.clear("warm-up"),
            rules => self.status.set("warm-up", Gravity::Notice, format!("these rules only learn which values there are: {}", rules.join(", "))),
        }
        self.status.measure_windows(|| self.pipeline.longest());
        let counters = self.pipeline.counters();
        metrics::gauge!("opmas_correlation_groups").set(u32::try_from(self.pipeline.groups()).unwrap_or(u32::MAX));
        metrics::counter!("opmas_late_matches_total").absolute(counters.late_matches);
        metrics::counter!("opmas_missing_group_field_total").absolute(counters.missing_group_field);
        metrics::counter!("opmas_not_a_number_total").absolute(counters.not_a_number);
        metrics::counter!("opmas_groups_evicted_total").absolute(counters.groups_evicted);
        metrics::counter!("opmas_group_entries_dropped_total").absolute(counters.entries_dropped);
    }
}

/// A pipeline over a spool, before its first revision.
pub(super) fn empty(node: &NodeId, settings: Settings) -> Result<Pipeline, Vec<Diagnostic>> {
    let normaliser = Normaliser::new(Arc::new(Extractors::default()), options(node));
    Pipeline::new(Arc::new(RuleSet::default()), normaliser, Arc::new(Inventory::default()), settings)
}

/// How the records of a spool are read, live and again.
pub(super) fn options(node: &NodeId) -> Options {
    Options { node: node.clone(), ..Options::at(Time(0)) }
}

/// Puts a revision in the place of what a pipeline has.
pub(super) fn put(pipeline: &mut Pipeline, revisions: &Revisions, revision: &Revision) -> Result<(), String> {
    match bundle::read(revisions, revision).map_err(|error| format!("revision {}: {error}", revision.hash))? {
        Content::Rules(files) => {
            // What does not load was named when the files were read; here the same files are left out again.
            let loaded = correlate::load(&files);
            pipeline.set_rules(Arc::new(loaded.set)).map_err(|wrong| sentences(&wrong))?;
        }
        Content::Extractors(files) => pipeline.set_extractors(Arc::new(Extractors::load(&files).0)),
        Content::Inventory(inventory) => pipeline.set_inventory(Arc::new(inventory)),
    }
    Ok(())
}

fn sentences(wrong: &[Diagnostic]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The revisions that a checkpoint's body names.
pub(super) fn revisions_of(body: &[u8]) -> Result<Vec<Revision>, String> {
    postcard::from_bytes::<Checkpoint>(body).map(|checkpoint| checkpoint.revisions).map_err(|error| error.to_string())
}

pub(super) fn part(kind: RevisionKind) -> &'static str {
    match kind {
        RevisionKind::Rules => "rules revision",
        RevisionKind::Extractors => "extractors revision",
        RevisionKind::Inventory => "inventory revision",
    }
}
