//! One ledger record into the views.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::draft::Draft;
use super::rows::{AlertRow, AnswerRow, DeliveryRow, FindingRow, LeaseRow, RunRow, Standing, StepRow};
use super::{IndexError, KEEP_DELIVERIES, KEEP_FINDINGS, KEEP_RUNS};
use crate::model::{AlertChange, Decided, DeliveryState, Finding, FindingId, LeaseChange, OpenAlert, RunState, Span, Step};

type Done = Result<(), IndexError>;

/// Runs, and deliveries, that are shown with a finding: the first.
const MAX_LINKS: usize = 100;
/// The view of findings, and the letter of its ids in upper case; the same for the others.
pub(super) const FINDINGS: u8 = b'f';
pub(super) const RUNS: u8 = b'r';
pub(super) const STEPS: u8 = b's';
pub(super) const DELIVERIES: u8 = b'd';
pub(super) const LEASES: u8 = b'l';
pub(super) const ALERTS: u8 = b'a';

/// The key of a row.
pub(super) fn row(view: u8, seq: u64) -> Vec<u8> {
    [&[view], &seq.to_be_bytes()[..]].concat()
}

/// The key of an id, or of all ids that begin so.
pub(super) fn id(view: u8, id: &str) -> Vec<u8> {
    [&[view.to_ascii_uppercase()], id.as_bytes()].concat()
}

/// The key of a step; without a key that of all steps of the run.
pub(super) fn step(run: u64, key: &str) -> Vec<u8> {
    [&row(STEPS, run), key.as_bytes()].concat()
}

/// Two grants of the same effect are one lease, for the longer of the two times.
fn lease(device: &str, action: &str, params: &Map<String, Value>) -> Result<Vec<u8>, IndexError> {
    let is_time = |value: &Value| value.as_str().is_some_and(|text| text.parse::<Span>().is_ok());
    let effect: Map<String, Value> = params.iter().filter(|(_, value)| !is_time(value)).map(|(name, value)| (name.clone(), value.clone())).collect();
    let effect = serde_json::to_vec(&effect)?;
    Ok([&[LEASES][..], device.as_bytes(), b"\0", action.as_bytes(), b"\0", &effect[..]].concat())
}

/// Takes a record in. One of something that is not (or no longer) kept changes nothing, nor does a beginning that is known already.
pub(super) fn apply(draft: &mut Draft<'_>, seq: u64, decided: &Decided) -> Done {
    match decided {
        Decided::Finding { finding } => add_finding(draft, seq, finding),
        Decided::Triaged { finding, reason } => draft.finding(finding, |row| row.triage = Some(reason.clone())),
        Decided::Run { run, finding, .. } if draft.seq(RUNS, run)?.is_none() => {
            draft.finding(finding, |row| link(&mut row.runs, run))?;
            add_run(draft, seq, decided)
        }
        Decided::Intent { step, at } => {
            let row = StepRow { seq, step: (**step).clone(), at: *at, attempts: 0, tried: None, said: String::new(), outcome: None };
            add_step(draft, step, &row)
        }
        Decided::Attempt { run, key, attempt, at } => draft.step(run, key, |row| (row.attempts, row.tried) = (*attempt, Some(*at))),
        Decided::Tried { run, key, detail, .. } => draft.step(run, key, |row| {
            row.outcome = None;
            row.said.clone_from(detail);
        }),
        Decided::Outcome { run, key, outcome } => draft.step(run, key, |row| row.outcome = Some(outcome.clone())),
        Decided::RunMoved { run, state, reason, at } => draft.row::<RunRow>(RUNS, run, |row| {
            (row.state, row.moved) = (*state, *at);
            row.reason.clone_from(reason);
            if *state != RunState::Waiting {
                (row.plan, row.until) = (Vec::new(), None);
            }
        }),
        Decided::Asked { run, plan, until, .. } => draft.row::<RunRow>(RUNS, run, |row| (row.plan, row.until) = (plan.clone(), Some(*until))),
        Decided::Answered { run, approved, by, because, plan, at, .. } => draft.row::<RunRow>(RUNS, run, |row| {
            if row.answers.len() < MAX_LINKS {
                row.answers.push(AnswerRow { approved: *approved, by: by.clone(), because: because.clone(), at: *at, steps: plan.len() });
            }
        }),
        Decided::Lease { .. } => change_lease(draft, seq, decided),
        Decided::Alert { change, alert, .. } => change_alert(draft, seq, *change, alert),
        Decided::Delivery { delivery, findings, .. } if draft.seq(DELIVERIES, delivery)?.is_none() => {
            findings.iter().try_for_each(|finding| draft.finding(finding, |row| link(&mut row.deliveries, delivery)))?;
            add_delivery(draft, seq, decided)
        }
        Decided::DeliveryAttempt { delivery, attempt, at } => draft.row::<DeliveryRow>(DELIVERIES, delivery, |row| {
            (row.state, row.attempts, row.moved, row.next) = (Standing::Trying, *attempt, *at, None);
        }),
        Decided::DeliveryOutcome { delivery, state, detail, at, next, .. } => draft.row::<DeliveryRow>(DELIVERIES, delivery, |row| {
            (row.state, row.moved, row.next) = (standing(*state), *at, *next);
            row.reason.clone_from(detail);
        }),
        Decided::Anchor { .. }
        | Decided::Run { .. }
        | Decided::Delivery { .. }
        | Decided::Checkpoint { .. }
        | Decided::Posture { .. }
        | Decided::Message { .. }
        | Decided::Note { .. } => Ok(()),
    }
}

fn link(links: &mut Vec<Arc<str>>, to: &Arc<str>) {
    if links.len() < MAX_LINKS {
        links.push(to.clone());
    }
}

fn standing(state: DeliveryState) -> Standing {
    match state {
        DeliveryState::Sent => Standing::Sent,
        DeliveryState::Retry => Standing::Retry,
        DeliveryState::Failed => Standing::Failed,
        DeliveryState::Unknown => Standing::Unknown,
    }
}

fn add_finding(draft: &mut Draft<'_>, seq: u64, finding: &Finding) -> Done {
    if draft.seq(FINDINGS, &finding.id.0)?.is_some() {
        return Ok(());
    }
    let row = FindingRow { seq, finding: finding.clone(), triage: None, runs: Vec::new(), deliveries: Vec::new() };
    draft.add(FINDINGS, seq, &finding.id.0, &row)?;
    draft.keep::<FindingRow>(FINDINGS, KEEP_FINDINGS, |old| old.finding.id.0)
}

fn add_run(draft: &mut Draft<'_>, seq: u64, decided: &Decided) -> Done {
    let Decided::Run { run, playbook, revision, finding, at, by_hand, .. } = decided else { return Ok(()) };
    let row = RunRow {
        seq,
        run: run.clone(),
        playbook: playbook.clone(),
        revision: revision.clone(),
        finding: finding.clone(),
        at: *at,
        state: RunState::Running,
        reason: String::new(),
        moved: *at,
        steps: 0,
        by: by_hand.as_ref().map(|by_hand| by_hand.by.clone()),
        plan: Vec::new(),
        until: None,
        answers: Vec::new(),
    };
    draft.add(RUNS, seq, run, &row)?;
    draft.keep::<RunRow>(RUNS, KEEP_RUNS, |old| old.run)
}

fn add_step(draft: &mut Draft<'_>, asked: &Step, row: &StepRow) -> Done {
    let Some(run) = draft.seq(RUNS, &asked.run)? else { return Ok(()) };
    let key = step(run, &asked.key);
    if draft.get::<StepRow>(&key)?.is_some() {
        return Ok(());
    }
    draft.row::<RunRow>(RUNS, &asked.run, |run| run.steps = run.steps.saturating_add(1))?;
    draft.put(key, row)
}

fn add_delivery(draft: &mut Draft<'_>, seq: u64, decided: &Decided) -> Done {
    let Decided::Delivery { delivery, route, channel, findings, at, of } = decided else { return Ok(()) };
    let row = DeliveryRow {
        seq,
        delivery: delivery.clone(),
        route: route.clone(),
        channel: channel.clone(),
        findings: findings.clone(),
        at: *at,
        state: Standing::Waiting,
        attempts: 0,
        reason: String::new(),
        moved: *at,
        next: None,
        tells: of.as_ref().map_or_else(Default::default, |of| of.state),
        alert: of.as_ref().map(|of| of.id.clone()),
    };
    draft.add(DELIVERIES, seq, delivery, &row)?;
    draft.keep::<DeliveryRow>(DELIVERIES, KEEP_DELIVERIES, |old| old.delivery)
}

fn change_lease(draft: &mut Draft<'_>, seq: u64, decided: &Decided) -> Done {
    let Decided::Lease { run, key, device, action, params, change, until, at, detail } = decided else { return Ok(()) };
    let place = lease(device, action, params)?;
    let before = draft.get::<LeaseRow>(&place)?;
    let mut row = match (change, before) {
        (LeaseChange::Ended, None) => return Ok(()),
        (LeaseChange::Ended, Some(_)) => return draft.remove(place),
        (_, Some(row)) => row,
        (_, None) => LeaseRow {
            seq,
            run: run.clone(),
            key: key.clone(),
            device: device.clone(),
            action: action.clone(),
            params: params.clone(),
            held: true,
            since: *at,
            until: *until,
            detail: String::new(),
            at: *at,
            lease: String::new(),
            unverified: None,
        },
    };
    match change {
        LeaseChange::Granted | LeaseChange::Reasserted => row.held = true,
        LeaseChange::Lost => row.held = false,
        LeaseChange::Extended | LeaseChange::Revoked | LeaseChange::Ended => row.until = *until,
    }
    if *until >= row.until {
        row.until = *until;
        row.params.clone_from(params);
    }
    row.detail.clone_from(detail);
    row.at = *at;
    draft.put(place, &row)
}

fn change_alert(draft: &mut Draft<'_>, seq: u64, change: AlertChange, alert: &OpenAlert) -> Done {
    let known = draft.seq(ALERTS, &alert.id)?;
    let row_of = |seq| AlertRow { seq, alert: alert.clone() };
    match (change, known) {
        (AlertChange::Opened, None) => draft.add(ALERTS, seq, &alert.id, &row_of(seq)),
        (AlertChange::Updated, Some(seq)) => draft.put(row(ALERTS, seq), &row_of(seq)),
        (AlertChange::Resolved, Some(seq)) => {
            draft.remove(id(ALERTS, &alert.id))?;
            draft.remove(row(ALERTS, seq))
        }
        (AlertChange::Opened, Some(_)) | (AlertChange::Updated | AlertChange::Resolved, None) => Ok(()),
    }
}

impl Draft<'_> {
    /// The ledger entry of a row, by its id.
    fn seq(&self, view: u8, name: &str) -> Result<Option<u64>, IndexError> {
        self.get(&id(view, name))
    }

    fn add<T: serde::Serialize>(&mut self, view: u8, seq: u64, name: &str, value: &T) -> Done {
        self.put(id(view, name), &seq)?;
        self.put(row(view, seq), value)
    }

    /// Changes a row, when it is kept.
    fn row<T: serde::Serialize + serde::de::DeserializeOwned>(&mut self, view: u8, name: &str, change: impl FnOnce(&mut T)) -> Done {
        let Some(seq) = self.seq(view, name)? else { return Ok(()) };
        self.change(row(view, seq), change)
    }

    fn finding(&mut self, finding: &FindingId, change: impl FnOnce(&mut FindingRow)) -> Done {
        self.row(FINDINGS, &finding.0, change)
    }

    fn step(&mut self, run: &str, key: &Arc<str>, change: impl FnOnce(&mut StepRow)) -> Done {
        let Some(run) = self.seq(RUNS, run)? else { return Ok(()) };
        self.change(step(run, key), change)
    }

    fn change<T: serde::Serialize + serde::de::DeserializeOwned>(&mut self, key: Vec<u8>, change: impl FnOnce(&mut T)) -> Done {
        let Some(mut value) = self.get::<T>(&key)? else { return Ok(()) };
        change(&mut value);
        self.put(key, &value)
    }

    /// Removes the oldest rows beyond `keep`, with their ids and steps.
    fn keep<T: serde::de::DeserializeOwned>(&mut self, view: u8, keep: u64, name: impl Fn(T) -> Arc<str>) -> Done {
        while self.count(view) > keep {
            let Some(oldest) = self.keys(&[view], 1)?.pop() else { return Ok(()) };
            if let Some(value) = self.get::<T>(&oldest)? {
                self.remove(id(view, &name(value)))?;
            }
            if view == RUNS {
                let steps = [&[STEPS], oldest.get(1..).unwrap_or_default()].concat();
                self.keys(&steps, usize::MAX)?.into_iter().try_for_each(|step| self.remove(step))?;
            }
            self.remove(oldest)?;
        }
        Ok(())
    }
}
