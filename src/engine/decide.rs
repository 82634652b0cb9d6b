//! What follows from a finding: the runs and deliveries that it causes, recorded with it in one batch.

use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::checkpoint::State;
use super::dead::Dead;
use super::effects::{Effects, lock};
use crate::alert::{Outbox, intend};
use crate::clock;
use crate::config::Content;
use crate::journal::{CheckpointRef, Checkpoints, SpoolHandle};
use crate::model::{DeadLetter, Decided, Finding, FindingId, Time};
use crate::playbook::Run;

/// Most findings that are recorded with one sync.
const MAX_BATCH: usize = 256;

/// A batch takes no further finding when its texts are of this size together: the ledger takes 16 MiB, in JSON with its escapes.
const MAX_BATCH_TEXT: usize = 2 << 20;
/// Bytes that are kept of a line or a value in a finding: with all its evidence it stays below what the ledger takes. The spool has the whole line.
const MAX_TEXT: usize = 8 << 10;

/// What the detection thread hands over, in its order.
pub(super) enum Detected {
    /// A finding that the ledger does not have.
    Finding(Box<Finding>),
    /// A record that could not be used; it may be one that was kept before.
    Dead(Box<DeadLetter>),
    /// The state after the entry `seq`: everything before it in this channel is what it covers.
    Checkpoint {
        /// The last spool entry that it covers.
        seq: u64,
        /// The state, which is written aside while detection goes on.
        state: Box<State>,
    },
}

/// The task that decides.
pub(super) struct Decider {
    pub(super) effects: Arc<Effects>,
    pub(super) content: watch::Receiver<Arc<Content>>,
    pub(super) checkpoints: Checkpoints,
    pub(super) dead: Dead,
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
            let (mut batch, mut dead, mut text) = (Vec::new(), Vec::new(), 0);
            for one in waiting.drain(..) {
                match one {
                    Detected::Finding(finding) => {
                        let (finding, size) = bounded(*finding);
                        batch.extend(self.decide(finding));
                        text += size;
                        if text > MAX_BATCH_TEXT {
                            self.record(std::mem::take(&mut batch)).await;
                            text = 0;
                        }
                    }
                    Detected::Dead(letter) => dead.push(*letter),
                    Detected::Checkpoint { seq, state } => {
                        self.record(std::mem::take(&mut batch)).await;
                        // What it covers is not computed again.
                        if self.dead.keep(std::mem::take(&mut dead)).await {
                            self.checkpoint(seq, *state).await;
                        }
                    }
                }
            }
            self.record(batch).await;
            self.dead.keep(dead).await;
        }
    }

    /// The finding, what it causes, and why, in the order of the ledger.
    fn decide(&self, finding: Finding) -> Vec<Decided> {
        metrics::counter!("opmas_findings_total", "rule" => rule_name(&finding), "severity" => u8::from(finding.severity).to_string()).increment(1);
        let content = self.content.borrow().clone();
        let (batch, dropped) = caused(&content, &lock(&self.effects.outbox), finding, clock::now());
        if dropped > 0 {
            metrics::counter!("opmas_deliveries_dropped_total").increment(dropped);
        }
        batch
    }

    async fn record(&self, batch: Vec<Decided>) {
        let begun: Vec<Run> = batch.iter().filter_map(|one| Run::begin(one).ok()).collect();
        if !self.effects.record(batch).await {
            return;
        }
        for run in begun {
            // The runs' task ends after this one.
            let _ = self.runs.send(run).await;
        }
    }

    async fn checkpoint(&mut self, seq: u64, state: State) {
        let checkpoints = self.checkpoints.clone();
        let write = move || checkpoints.write(seq, &state.encode().map_err(std::io::Error::other)?);
        let written = tokio::task::spawn_blocking(write).await;
        match written {
            Ok(Ok(CheckpointRef { name, hash, seq })) => {
                if !self.effects.record(vec![Decided::Checkpoint { name: name.clone(), hash: hash.clone(), seq, at: clock::now() }]).await {
                    return;
                }
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

/// The finding, the runs and deliveries that it causes, and why, in the order of the ledger; and how many deliveries a full queue took
/// away.
pub(super) fn caused(content: &Content, outbox: &Outbox, finding: Finding, now: Time) -> (Vec<Decided>, u64) {
    let triggered: Vec<_> = content.playbooks.iter().filter(|playbook| playbook.triggered_by(&finding)).collect();
    let runs = triggered.iter().map(|playbook| Decided::Run {
        run: run_id(&finding.id, &playbook.name),
        playbook: playbook.name.clone(),
        revision: playbook.revision.clone(),
        finding: finding.id.clone(),
        at: now,
    });
    let intended = intend(outbox, &content.channels, &finding, &content.routes.route(&finding), now);
    let names: Vec<&str> = triggered.iter().map(|playbook| &*playbook.name).collect();
    let playbooks = if names.is_empty() { "no playbook".to_owned() } else { names.join(", ") };
    let triaged = Decided::Triaged { finding: finding.id.clone(), reason: format!("{playbooks}; {}", intended.reason) };
    let effects: Vec<Decided> = runs.chain(intended.deliveries).chain([triaged]).collect();
    (std::iter::once(Decided::Finding { finding: Box::new(finding) }).chain(effects).collect(), intended.dropped)
}

/// The finding with long texts cut, and the size of its texts: lines may be 1 MiB long, and whoever writes them must not make a finding
/// that cannot be recorded.
pub(super) fn bounded(mut finding: Finding) -> (Finding, usize) {
    for evidence in &mut finding.evidence {
        if evidence.raw.len() > MAX_TEXT {
            evidence.raw = cut(&evidence.raw).into();
        }
    }
    for value in finding.group.values_mut() {
        if let Value::String(text) = value
            && text.len() > MAX_TEXT
        {
            *text = cut(text);
        }
    }
    for entity in finding.entities.values_mut().filter(|entity| entity.value.len() > MAX_TEXT) {
        entity.value = cut(&entity.value).into();
    }
    for text in [&mut finding.device, &mut finding.site].into_iter().flatten().filter(|text| text.len() > MAX_TEXT) {
        *text = cut(text).into();
    }
    let raw: usize = finding.evidence.iter().map(|evidence| evidence.raw.len()).sum();
    let group: usize = finding.group.values().map(|value| value.as_str().map_or(0, str::len)).sum();
    let entities: usize = finding.entities.values().map(|entity| entity.value.len()).sum();
    let size = raw + group + entities + finding.text.len();
    (finding, size)
}

fn cut(text: &str) -> String {
    let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned() + crate::normalise::CUT_MARK
}

fn rule_name(finding: &Finding) -> String {
    finding.rule.name.as_ref().unwrap_or(&finding.rule.id).to_string()
}

/// A run's identity: 16 hexadecimal digits from finding and playbook (stable), so that a finding starts a playbook once.
fn run_id(finding: &FindingId, playbook: &str) -> Arc<str> {
    let id = FindingId::new(&["run", &finding.0, playbook]);
    id.0.get(..16).unwrap_or(&id.0).into()
}
