//! What is on disk when opmas starts: the state of everything decided, and where the spool is to be read on from.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::decide::Detected;
use super::detection::Detection;
use super::effects::Effects;
use super::start::{StartError, note};
use super::status::Status;
use crate::action::Leases;
use crate::alert::Outbox;
use crate::config::Setup;
use crate::diag::Diagnostic;
use crate::journal::{CheckpointRef, Checkpoints, Content, DataDir, Ledger, LedgerReader, ReadError, Revisions, Spool, SpoolReader};
use crate::model::{Decided, FindingId};
use crate::playbook::{NextMove, Run};

/// Newest checkpoints that are remembered; two are kept on disk.
const MAX_CHECKPOINTS: usize = 4;

/// The journal, opened, with what it says.
pub(super) struct Store {
    pub(super) effects: Arc<Effects>,
    pub(super) spool: Spool,
    /// Runs that have not ended.
    pub(super) runs: Vec<Run>,
    findings: HashSet<FindingId>,
    checkpoints: VecDeque<CheckpointRef>,
}

/// Opens spool and ledger, and takes in what the ledger has.
///
/// # Errors
/// A file that cannot be read or does not verify.
pub(super) async fn open(data: &DataDir, setup: &Setup, status: &Status) -> Result<Store, StartError> {
    let (ledger, recovery) = Ledger::open(data)?;
    let leases = Leases::new(setup.content.catalogue.clone(), setup.settings.lease.verify_every);
    let effects = Arc::new(Effects::new(ledger, Outbox::new(&setup.content.channels), leases, status.clone()));
    let recovered = read(data, &effects)?;
    let (spool, spool_recovery) = Spool::open(data, setup.settings.spool.clone())?;
    let torn = recovery.torn.iter().chain(&spool_recovery.torn).map(|torn| note(torn.to_string()));
    let broken = spool_recovery.broken.iter().map(|error| note(error.to_string()));
    effects.record(torn.chain(broken).collect()).await;
    let Recovered { findings, runs, checkpoints } = recovered;
    Ok(Store { effects, spool, runs: runs.into_values().collect(), findings, checkpoints })
}

/// The detection state of the newest checkpoint that can be gone on from; without one an empty state.
///
/// # Errors
/// Only [`StartError::Internal`]: an empty rule set was refused.
pub(super) fn detection(data: &DataDir, store: &mut Store, detected: mpsc::Sender<Detected>, status: &Status) -> Result<(Detection, Checkpoints), StartError> {
    let mut checkpoints = Checkpoints::new(data);
    let known = std::mem::take(&mut store.findings);
    let new = |known| {
        let internal = |wrong: Vec<Diagnostic>| StartError::Internal(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        Detection::new(data.node(), Revisions::new(data), known, detected.clone(), status.clone()).map_err(internal)
    };
    let Some(loaded) = checkpoints.newest_valid(store.checkpoints.make_contiguous()) else { return Ok((new(known)?, checkpoints)) };
    for why in &loaded.passed_over {
        tracing::warn!(why, "a checkpoint is passed over");
    }
    let mut detection = new(known.clone())?;
    if let Err(why) = detection.restore(loaded.checkpoint.seq, &loaded.body) {
        tracing::warn!(why, checkpoint = %loaded.checkpoint.name, "a checkpoint cannot be gone on from; the spool is computed from its beginning");
        detection = new(known)?;
    }
    Ok((detection, checkpoints))
}

/// What the spool has behind the checkpoint.
///
/// # Errors
/// The spool cannot be read.
pub(super) fn recorded(store: &mut Store, detection: &Detection) -> Result<Option<SpoolReader>, StartError> {
    let from = detection.next();
    // The checkpoint may be newer than a spool that lost its tail: no place is given twice.
    store.spool.skip_to(from - 1).map_err(|error| StartError::Internal(error.to_string()))?;
    if store.spool.last() < from {
        return Ok(None);
    }
    Ok(Some(match store.spool.read(from) {
        // The state is gone and retention has passed: what is left is computed from its beginning.
        Err(ReadError::Gone { oldest, .. }) => store.spool.read(oldest)?,
        other => other?,
    }))
}

/// What the ledger says beside what [`Effects`] keeps.
#[derive(Debug, Default)]
struct Recovered {
    /// Findings that it has.
    findings: HashSet<FindingId>,
    /// Runs that have not ended, by id.
    runs: BTreeMap<Arc<str>, Run>,
    /// Newest checkpoints, the newest last.
    checkpoints: VecDeque<CheckpointRef>,
}

/// Reads the ledger from its beginning.
fn read(data: &DataDir, effects: &Effects) -> Result<Recovered, ReadError> {
    let mut recovered = Recovered::default();
    for entry in LedgerReader::open(&data.ledger(), 0)? {
        if let Content::Decided(decided) = entry?.content {
            effects.apply(&decided);
            recovered.apply(&decided);
        }
    }
    Ok(recovered)
}

impl Recovered {
    fn apply(&mut self, decided: &Decided) {
        match decided {
            Decided::Finding { finding } => _ = self.findings.insert(finding.id.clone()),
            Decided::Run { run, .. } => {
                if let Ok(begun) = Run::begin(decided) {
                    self.runs.insert(run.clone(), begun);
                }
            }
            Decided::Intent { step, .. } => self.step(&step.run.clone(), decided),
            Decided::Attempt { run, .. } | Decided::Outcome { run, .. } | Decided::RunMoved { run, .. } => self.step(run, decided),
            Decided::Checkpoint { .. } => {
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
