//! What the ledger says when opmas starts: the state of everything decided, and where the spool is to be read on from.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use super::effects::Effects;
use crate::journal::{CheckpointRef, Content, DataDir, LedgerReader, ReadError};
use crate::model::{Decided, FindingId};
use crate::playbook::{NextMove, Run};

/// Newest checkpoints that are remembered; two are kept on disk.
const MAX_CHECKPOINTS: usize = 4;

/// What the ledger says beside what [`Effects`] keeps.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Findings that it has.
    pub(super) findings: HashSet<FindingId>,
    /// Runs that have not ended, by id.
    pub(super) runs: BTreeMap<Arc<str>, Run>,
    /// Newest checkpoints, the newest last.
    pub(super) checkpoints: VecDeque<CheckpointRef>,
}

/// Reads the ledger from its beginning.
///
/// # Errors
/// A file that cannot be read or does not verify.
pub(super) fn read(data: &DataDir, effects: &Effects) -> Result<Recovered, ReadError> {
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
