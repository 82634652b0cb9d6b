//! What is on disk when opmas starts: the state of everything decided, and where the spool is to be read on from.

use std::collections::{BTreeMap, HashMap, VecDeque};
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

/// Which findings the ledger has, as far as they can be computed again.
///
/// The decider takes findings and states in the order of the spool, and a state only once all findings before it are recorded: a
/// checkpoint's record comes after all findings of the entries that it covers, however long the state was being written. Findings that
/// were recorded meanwhile are of later entries; they are the last before the record, and it says how many (`ahead`). So after any
/// record of the ledger, that is, after a crash at any moment, a finding that it has is of an entry up to `until`, or in `later`.
/// More of them in `later` would do no harm: what is in it is in the ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    /// All findings of entries up to here are in the ledger.
    pub(super) until: u64,
    /// And these, of later entries; each with how many the ledger had with it.
    pub(super) later: HashMap<FindingId, u64>,
    /// How many findings the ledger has.
    count: u64,
}

impl Announced {
    fn finding(&mut self, id: FindingId) {
        self.count += 1;
        self.later.insert(id, self.count);
    }

    fn checkpoint(&mut self, seq: u64, ahead: u64) {
        let covered = self.count.saturating_sub(ahead);
        self.until = self.until.max(seq);
        self.later.retain(|_, count| *count > covered);
    }
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
            Decided::Finding { finding } => self.announced.finding(finding.id.clone()),
            Decided::Run { run, .. } => {
                if let Ok(begun) = Run::begin(decided) {
                    self.runs.insert(run.clone(), begun);
                }
            }
            Decided::Intent { step, .. } => self.step(&step.run.clone(), decided),
            Decided::Attempt { run, .. }
            | Decided::Tried { run, .. }
            | Decided::Outcome { run, .. }
            | Decided::RunMoved { run, .. }
            | Decided::Asked { run, .. }
            | Decided::Answered { run, .. } => self.step(run, decided),
            Decided::Checkpoint { seq, ahead, .. } => {
                self.announced.checkpoint(*seq, *ahead);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::model::Time;

    const ENTRIES: u64 = 40;

    /// The findings that an entry makes: none, one or two.
    fn found(entry: u64) -> Vec<FindingId> {
        (0..entry * 7 % 3).map(|nth| FindingId::new(&[&entry.to_string(), &nth.to_string()])).collect()
    }

    fn finding(id: FindingId) -> Decided {
        let mut finding: crate::model::Finding = serde_json::from_str(include_str!("../../tests/data/finding.json")).unwrap();
        finding.id = id;
        Decided::Finding { finding: Box::new(finding) }
    }

    /// One process: computes from the newest checkpoint on, `takes` says after which entry a state is taken over and how many entries
    /// later it is written, and is killed when the ledger has `most` records.
    fn process(ledger: &mut Vec<Decided>, takes: &[(u64, u64)], most: usize) {
        let mut recovered = Recovered::default();
        ledger.iter().for_each(|one| recovered.apply(one));
        let Recovered { mut announced, checkpoints, .. } = recovered;
        let (mut under_way, from): (Option<(u64, u64, u64)>, u64) = (None, checkpoints.back().map_or(0, |newest| newest.seq));
        for entry in from + 1..=ENTRIES {
            let new: Vec<FindingId> = found(entry).into_iter().filter(|id| announced.later.remove(id).is_none() && entry > announced.until).collect();
            if let Some((.., ahead)) = &mut under_way {
                *ahead += new.len() as u64;
            }
            ledger.extend(new.into_iter().map(finding));
            if let Some((seq, ahead)) = under_way.take_if(|(seq, lasts, _)| *seq + *lasts <= entry).map(|(seq, _, ahead)| (seq, ahead)) {
                ledger.push(Decided::Checkpoint { name: "n".into(), hash: "h".into(), seq, at: Time(0), ahead });
            }
            if under_way.is_none() && announced.later.is_empty() {
                under_way = takes.iter().find(|(seq, _)| *seq == entry).map(|(seq, lasts)| (*seq, *lasts, 0));
            }
            if ledger.len() >= most {
                return ledger.truncate(most);
            }
        }
    }

    proptest! {
        #[test]
        fn findings_that_overtake_a_checkpoint_stay_known_through_crashes(
            takes in proptest::collection::vec((1..=ENTRIES, 0..9_u64), 0..8),
            kills in proptest::collection::vec(1..12_usize, 0..8),
        ) {
            let mut ledger = Vec::new();
            for kill in kills {
                let most = ledger.len() + kill;
                process(&mut ledger, &takes, most);
            }
            process(&mut ledger, &takes, usize::MAX);
            let ids: Vec<&str> = ledger.iter().filter_map(|one| if let Decided::Finding { finding } = one { Some(&*finding.id.0) } else { None }).collect();
            let expected: Vec<FindingId> = (1..=ENTRIES).flat_map(found).collect();
            prop_assert_eq!(ids.len(), expected.len(), "none double");
            prop_assert_eq!(ids.iter().copied().collect::<BTreeSet<_>>(), expected.iter().map(|id| &*id.0).collect::<BTreeSet<_>>(), "none missing");
        }
    }
}
