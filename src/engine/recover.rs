//! What is on disk when opmas starts: the state of everything decided, and where the spool is to be read on from.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::bundle;
use super::decide::Detected;
use super::detection::Detection;
use super::effects::{Effects, State};
use super::start::{StartError, note};
use super::status::Status;
use crate::action::Leases;
use crate::alert::Outbox;
use crate::config::Setup;
use crate::diag::Diagnostic;
use crate::journal::{CheckpointRef, Checkpoints, DataDir, DeadLetters, ReadError, Revisions, Spool, SpoolReader};
use crate::model::{Decided, FindingId};
use crate::playbook::{Begun, NextMove, Run};

/// Newest checkpoints that are remembered; two are kept on disk.
const MAX_CHECKPOINTS: usize = 4;

/// The journal, opened, with what it says.
pub(super) struct Store {
    pub(super) effects: Arc<Effects>,
    pub(super) spool: Spool,
    pub(super) dead: DeadLetters,
    /// Runs that have not ended.
    pub(super) runs: Vec<Run>,
    /// Which runs began when.
    pub(super) begun: Begun,
    announced: Announced,
    checkpoints: VecDeque<CheckpointRef>,
}

/// Opens spool and ledger, and takes in what the ledger has. What is configured is kept as revisions first, so that a copy that is
/// missing is there again before it is needed.
///
/// # Errors
/// A file that cannot be read or does not verify.
pub(super) async fn open(data: &DataDir, setup: &Setup, status: &Status) -> Result<Store, StartError> {
    bundle::keep_all(&setup.content, &Revisions::new(data)).map_err(StartError::io("keep the rules' revision"))?;
    let leases = Leases::new(setup.content.catalogue.clone(), setup.settings.lease.verify_every);
    let mut recovered = Recovered::default();
    let state = State::new(Outbox::new(&setup.content.channels), leases, setup.settings.posture);
    let (effects, recovery) = Effects::open(data, &setup.settings.ledger, state, status.clone(), &mut |decided| recovered.apply(decided))?;
    let (spool, spool_recovery) = Spool::open(data, setup.settings.spool.clone())?;
    let (dead, dead_recovery) = DeadLetters::open(data, &setup.settings.dead)?;
    let torn = recovery.torn.iter().chain(&spool_recovery.torn).chain(&dead_recovery.torn).map(|torn| note(torn.to_string()));
    let broken = spool_recovery.broken.iter().chain(&dead_recovery.broken).map(|error| note(error.to_string()));
    effects.record(torn.chain(broken).collect()).await;
    let Recovered { announced, runs, begun, checkpoints } = recovered;
    Ok(Store { effects: Arc::new(effects), spool, dead, runs: runs.into_values().collect(), begun, announced, checkpoints })
}

/// The detection state of the newest checkpoint that can be gone on from; without one an empty state. What was passed over is noted.
///
/// # Errors
/// Only [`StartError::Internal`]: an empty rule set was refused.
pub(super) async fn detection(
    data: &DataDir,
    store: &mut Store,
    detected: mpsc::Sender<Detected>,
    status: &Status,
) -> Result<(Detection, Checkpoints), StartError> {
    let (mut checkpoints, mut passed_over) = (Checkpoints::new(data), Vec::new());
    let new = || {
        let internal = |wrong: Vec<Diagnostic>| StartError::Internal(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        Detection::new(data.node(), Revisions::new(data), store.announced.clone(), detected.clone(), status.clone()).map_err(internal)
    };
    let mut detection = new()?;
    // The place of the newest one is taken, whether or not it can be read.
    let newest = store.checkpoints.back().map_or(0, |checkpoint| checkpoint.seq);
    while let Some(loaded) = checkpoints.newest_valid(store.checkpoints.make_contiguous()) {
        passed_over.extend(loaded.passed_over);
        let Err(why) = detection.restore(loaded.checkpoint.seq, &loaded.body) else { break };
        passed_over.push(format!("{}: it cannot be gone on from: {why}", loaded.checkpoint.name));
        detection = new()?;
        store.checkpoints.retain(|checkpoint| checkpoint.seq < loaded.checkpoint.seq);
    }
    let from = detection.next();
    if from == 1 && newest > 0 && passed_over.is_empty() {
        passed_over.push("no checkpoint that the ledger names can be read".to_owned());
    }
    store
        .effects
        .record(
            passed_over.into_iter().map(|why| note(format!("a checkpoint was passed over, and the spool is computed from entry {from} on: {why}"))).collect(),
        )
        .await;
    // It may be newer than a spool that lost its tail: no place is given twice.
    let dead = store.dead.newest().map_or(0, |newest| newest.seq);
    store.spool.skip_to(newest.max(from - 1).max(dead)).map_err(|error| StartError::Internal(error.to_string()))?;
    Ok((detection, checkpoints))
}

/// What the spool has behind the checkpoint.
///
/// # Errors
/// The spool cannot be read.
pub(super) async fn recorded(store: &mut Store, detection: &Detection) -> Result<Option<SpoolReader>, StartError> {
    let from = detection.next();
    if store.spool.last() < from {
        return Ok(None);
    }
    Ok(Some(match store.spool.read(from) {
        // The state is gone and retention has passed: what is left is computed from its beginning.
        Err(ReadError::Gone { oldest, .. }) => {
            if from > 1 {
                store.effects.record(vec![note(format!("the spool begins with entry {oldest}: those from {from} on are gone, and windows begin anew"))]).await;
            }
            store.spool.read(oldest)?
        }
        other => other?,
    }))
}

/// Which findings the ledger has, as far as they can be computed again. A checkpoint's record comes after all findings of the entries
/// that it covers: of those before it only the place is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    /// All findings of entries up to here are in the ledger.
    pub(super) until: u64,
    /// And these, of later entries.
    pub(super) later: HashSet<FindingId>,
}

/// What the ledger says beside what [`Effects`] keeps.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) announced: Announced,
    /// Runs that have not ended, by id.
    pub(super) runs: BTreeMap<Arc<str>, Run>,
    /// Which runs began when.
    pub(super) begun: Begun,
    /// Newest checkpoints, the newest last.
    pub(super) checkpoints: VecDeque<CheckpointRef>,
}

impl Recovered {
    pub(super) fn apply(&mut self, decided: &Decided) {
        self.begun.apply(decided);
        match decided {
            Decided::Anchor { .. } => *self = Recovered::default(),
            Decided::Finding { finding } => _ = self.announced.later.insert(finding.id.clone()),
            Decided::Run { run, .. } => {
                if let Ok(begun) = Run::begin(decided) {
                    self.runs.insert(run.clone(), begun);
                }
            }
            Decided::Intent { step, .. } => self.step(&step.run.clone(), decided),
            Decided::Attempt { run, .. }
            | Decided::Outcome { run, .. }
            | Decided::RunMoved { run, .. }
            | Decided::Asked { run, .. }
            | Decided::Answered { run, .. } => self.step(run, decided),
            Decided::Checkpoint { seq, .. } => {
                self.announced = Announced { until: self.announced.until.max(*seq), later: HashSet::new() };
                self.checkpoints.extend(CheckpointRef::of(decided));
                while self.checkpoints.len() > MAX_CHECKPOINTS {
                    self.checkpoints.pop_front();
                }
            }
            _ => {}
        }
    }

    fn step(&mut self, id: &Arc<str>, decided: &Decided) {
        let Some(run) = self.runs.get_mut(id) else { return };
        if let Err(error) = run.apply(decided) {
            tracing::error!(%error, "a record of a run does not fit what came before it; it is left out");
        }
        if run.next() == NextMove::Finished {
            self.runs.remove(id);
        }
    }
}
