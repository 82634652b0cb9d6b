//! What follows from a finding: the runs and deliveries that it causes, recorded with it in one batch.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};

use super::effects::{Effects, lock};
use crate::alert::intend;
use crate::clock;
use crate::config::Content;
use crate::journal::{CheckpointRef, Checkpoints, SpoolHandle};
use crate::model::{Decided, Finding, FindingId};
use crate::playbook::Run;

/// Most findings that are recorded with one sync.
const MAX_BATCH: usize = 256;

/// What the detection thread hands over, in its order.
pub(super) enum Detected {
    /// A finding that the ledger does not have.
    Finding(Box<Finding>),
    /// The state after the entry `seq`: everything before it in this channel is what it covers.
    Checkpoint {
        /// The last spool entry that it covers.
        seq: u64,
        /// The pipeline's state.
        state: Vec<u8>,
    },
}

/// The task that decides.
pub(super) struct Decider {
    pub(super) effects: Arc<Effects>,
    pub(super) content: watch::Receiver<Arc<Content>>,
    pub(super) checkpoints: Checkpoints,
    /// Taken away when opmas ends: the spool's writer ends with its last handle.
    pub(super) spool: Arc<Mutex<Option<SpoolHandle>>>,
    /// Runs that begin.
    pub(super) runs: mpsc::Sender<Run>,
}

impl Decider {
    /// Decides until the detection thread has ended.
    pub(super) async fn run(mut self, mut detected: mpsc::Receiver<Detected>) {
        let mut waiting = Vec::with_capacity(MAX_BATCH);
        while detected.recv_many(&mut waiting, MAX_BATCH).await > 0 {
            let mut batch = Vec::new();
            for one in waiting.drain(..) {
                match one {
                    Detected::Finding(finding) => batch.extend(self.decide(*finding)),
                    Detected::Checkpoint { seq, state } => {
                        self.record(std::mem::take(&mut batch)).await;
                        self.checkpoint(seq, state).await;
                    }
                }
            }
            self.record(batch).await;
        }
    }

    /// The finding, what it causes, and why, in the order of the ledger.
    fn decide(&self, finding: Finding) -> Vec<Decided> {
        let now = clock::now();
        metrics::counter!("opmas_findings_total", "rule" => rule_name(&finding), "severity" => u8::from(finding.severity).to_string()).increment(1);
        let content = self.content.borrow().clone();
        let triggered: Vec<_> = content.playbooks.iter().filter(|playbook| playbook.triggered_by(&finding)).collect();
        let runs = triggered.iter().map(|playbook| Decided::Run {
            run: run_id(&finding.id, &playbook.name),
            playbook: playbook.name.clone(),
            revision: playbook.revision.clone(),
            finding: finding.id.clone(),
            at: now,
        });
        let intended = intend(&lock(&self.effects.outbox), &content.channels, &finding, &content.routes.route(&finding), now);
        if intended.dropped > 0 {
            metrics::counter!("opmas_deliveries_dropped_total").increment(intended.dropped);
        }
        let names: Vec<&str> = triggered.iter().map(|playbook| &*playbook.name).collect();
        let playbooks = if names.is_empty() { "no playbook".to_owned() } else { names.join(", ") };
        let reason = format!("{playbooks}; {}", intended.reason);
        let triaged = Decided::Triaged { finding: finding.id.clone(), reason };
        let mut batch = vec![Decided::Finding { finding: Box::new(finding.clone()) }];
        batch.extend(runs.chain(intended.deliveries).chain([triaged]));
        batch
    }

    async fn record(&self, batch: Vec<Decided>) {
        let begun: Vec<Run> = batch.iter().filter_map(|one| Run::begin(one).ok()).collect();
        self.effects.record(batch).await;
        for run in begun {
            // The runs' task ends after this one.
            let _ = self.runs.send(run).await;
        }
    }

    async fn checkpoint(&mut self, seq: u64, state: Vec<u8>) {
        let checkpoints = self.checkpoints.clone();
        let written = tokio::task::spawn_blocking(move || checkpoints.write(seq, &state)).await;
        match written {
            Ok(Ok(CheckpointRef { name, hash, seq })) => {
                self.effects.record(vec![Decided::Checkpoint { name: name.clone(), hash: hash.clone(), seq, at: clock::now() }]).await;
                let needed = self.checkpoints.confirm(&CheckpointRef { name, hash, seq });
                if let Some(spool) = &*lock(&self.spool) {
                    spool.retain_from(needed);
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "no checkpoint could be written; recovery starts from the one before"),
            Err(error) => tracing::error!(%error, "the checkpoint's task ended"),
        }
    }
}

fn rule_name(finding: &Finding) -> String {
    finding.rule.name.as_ref().unwrap_or(&finding.rule.id).to_string()
}

/// A run's identity: 16 hexadecimal digits from finding and playbook (stable), so that a finding starts a playbook once.
fn run_id(finding: &FindingId, playbook: &str) -> Arc<str> {
    let id = FindingId::new(&["run", &finding.0, playbook]);
    id.0.get(..16).unwrap_or(&id.0).into()
}
