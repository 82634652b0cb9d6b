//! The findings that a run, a delivery under way or an open alert still needs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{AlertChange, Decided, DeliveryState, Finding, FindingId, OutcomeState, RunState, Step};

/// Most findings kept; beyond it new ones are not kept and the work that needs them waits for a restart. Queues bound this long before.
const MAX_OPEN: usize = 100_000;
/// Most sentences kept of what was done about a finding.
const MAX_DONE: usize = 50;

/// Follows the ledger: a finding is open from its record to the end of the last run and delivery that it caused, and as long as it is
/// the newest of an alert.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OpenFindings {
    findings: BTreeMap<FindingId, Open>,
    /// The finding of each open run, delivery and alert.
    of: BTreeMap<Arc<str>, FindingId>,
}

#[derive(Clone, Debug, PartialEq)]
struct Open {
    finding: Arc<Finding>,
    /// Runs and deliveries that are under way.
    needed_by: BTreeSet<Arc<str>>,
    /// Steps without an outcome yet, by run and key.
    steps: BTreeMap<(Arc<str>, Arc<str>), Step>,
    /// Playbooks that run, by run; what they wait for a person with.
    runs: BTreeMap<Arc<str>, (Arc<str>, Option<String>)>,
    /// What was done, a sentence each.
    done: Vec<String>,
}

impl OpenFindings {
    /// Takes a record in.
    pub(super) fn apply(&mut self, decided: &Decided) {
        match decided {
            Decided::Finding { finding } if self.findings.len() < MAX_OPEN => drop(self.findings.insert(finding.id.clone(), Open::new(finding))),
            Decided::Run { run, playbook, finding, by_hand, .. } => {
                if let Some(by_hand) = by_hand {
                    self.findings.entry(finding.clone()).or_insert_with(|| Open::new(&by_hand.finding));
                }
                self.need(run, finding);
                if let Some(open) = self.by(run) {
                    open.runs.insert(run.clone(), (playbook.clone(), None));
                }
            }
            // The newest: those before it were told, or are counted.
            Decided::Delivery { delivery, findings, .. } => findings.last().into_iter().for_each(|finding| self.need(delivery, finding)),
            Decided::Alert { change: AlertChange::Resolved, alert, .. } => self.release(&by_alert(&alert.id)),
            Decided::Alert { alert, .. } => self.newest(&by_alert(&alert.id), alert.findings.last()),
            Decided::Triaged { finding, .. } => self.forget(finding),
            Decided::Intent { step, .. } => {
                if let Some(open) = self.by(&step.run) {
                    open.steps.insert((step.run.clone(), step.key.clone()), (**step).clone());
                }
            }
            Decided::Outcome { run, key, outcome } => {
                if let Some(open) = self.by(run)
                    && let Some(step) = open.steps.remove(&(run.clone(), key.clone()))
                    && open.done.len() < MAX_DONE
                {
                    open.done.push(sentence(&step, outcome.state, &outcome.detail));
                }
            }
            Decided::RunMoved { run, state, reason, .. } => self.moved(run, *state, reason),
            Decided::DeliveryOutcome { delivery, state, .. } if *state != DeliveryState::Retry => self.release(delivery),
            _ => {}
        }
    }

    /// An open finding.
    pub(super) fn get(&self, id: &FindingId) -> Option<Arc<Finding>> {
        self.findings.get(id).map(|open| open.finding.clone())
    }

    /// What was done about an open finding, a sentence each, and what is still under way.
    pub(super) fn done(&self, id: &FindingId) -> Vec<String> {
        let Some(open) = self.findings.get(id) else { return Vec::new() };
        let under_way = open.runs.values().map(|(playbook, waits)| format!("{playbook}: {}", waits.as_deref().unwrap_or("under way")));
        open.done.iter().cloned().chain(under_way).collect()
    }

    /// Whether a playbook still runs for an open finding.
    pub(super) fn is_under_way(&self, id: &FindingId) -> bool {
        self.findings.get(id).is_some_and(|open| open.runs.values().any(|(_, waits)| waits.is_none()))
    }

    fn moved(&mut self, run: &Arc<str>, state: RunState, reason: &str) {
        if !state.is_end() {
            if let Some((_, waits)) = self.by(run).and_then(|open| open.runs.get_mut(run)) {
                *waits = (state != RunState::Running).then(|| format!("{} {reason}", word(state)));
            }
            return;
        }
        if let Some(open) = self.by(run)
            && let Some((playbook, _)) = open.runs.remove(run)
        {
            let said = open.done.iter().any(|sentence| sentence.starts_with(&*playbook));
            if (state != RunState::Done || !said) && open.done.len() < MAX_DONE {
                open.done.push(format!("{playbook}: {}: {reason}", word(state)));
            }
        }
        self.release(run);
    }

    fn by(&mut self, run: &Arc<str>) -> Option<&mut Open> {
        self.of.get(run).and_then(|id| self.findings.get_mut(id))
    }

    fn need(&mut self, by: &Arc<str>, id: &FindingId) {
        if let Some(open) = self.findings.get_mut(id) {
            open.needed_by.insert(by.clone());
            self.of.insert(by.clone(), id.clone());
        }
    }

    /// An alert needs the newest of its findings alone.
    fn newest(&mut self, by: &Arc<str>, id: Option<&FindingId>) {
        let before = self.of.get(by).cloned();
        if let Some(id) = id.filter(|id| before.as_ref() != Some(*id)) {
            self.release(by);
            self.need(by, id);
        }
    }

    fn release(&mut self, by: &Arc<str>) {
        if let Some(id) = self.of.remove(by) {
            if let Some(open) = self.findings.get_mut(&id) {
                open.needed_by.remove(by);
            }
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &FindingId) {
        if self.findings.get(id).is_some_and(|open| open.needed_by.is_empty()) {
            self.findings.remove(id);
        }
    }
}

impl Open {
    fn new(finding: &Finding) -> Open {
        Open { finding: Arc::new(finding.clone()), needed_by: BTreeSet::new(), steps: BTreeMap::new(), runs: BTreeMap::new(), done: Vec::new() }
    }
}

/// An alert has the id of its first delivery.
fn by_alert(id: &str) -> Arc<str> {
    format!("alert {id}").into()
}

fn word(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Done => "done",
        RunState::Failed => "failed",
        RunState::Diverged => "stopped for a person to look",
        RunState::Waiting => "waits for a person",
        RunState::Paused => "is held:",
        RunState::Cancelled => "cancelled",
    }
}

/// `block_source: block_ip ip=203.0.113.9 duration=1h on ap1: enforced, …`
pub(super) fn sentence(step: &Step, state: OutcomeState, detail: &str) -> String {
    format!("{}: {}: {}, {detail}", step.playbook, step.sentence(), state.word())
}
