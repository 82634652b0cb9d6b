//! Runs: what a run needs next is done and recorded, each run by itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, lock};
use super::hand::{Desk, Order, Ordered, Wish, cancelled};
use super::hands::Hands;
use super::place::{Place, Places};
use super::plan::{Planner, request};
use super::policy::{Policy, Used};
use super::status::Status;
use super::worker::{Worker, WorkerError};
use crate::clock;
use crate::config::Content;
use crate::diag::SourceFile;
use crate::journal::Revisions;
use crate::model::{Decided, Finding, LeaseChange, Outcome, OutcomeState, RunState, Step, Time, Verdict};
use crate::playbook::{NextMove, OnFailure, Own, Playbook, Playbooks, Progress, Run, RunStep, StepState, signatures};

/// Runs that wait; further ones fail with that reason.
pub(super) const MAX_WAITING: usize = 10_000;
/// First pause before something out of reach is tried again.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Why a run cannot go on that the ledger and opmas know differently.
const MISFIT: &str = "a record of it does not fit what is known; the log says which";

/// What becomes of a failed run's effects: the records, and a part of a sentence.
#[derive(Default)]
struct Undone {
    records: Vec<Decided>,
    said: String,
}

/// What all runs share.
pub(super) struct Runner {
    pub(super) effects: Arc<Effects>,
    pub(super) policy: Policy,
    pub(super) content: watch::Receiver<Arc<Content>>,
    pub(super) worker: Worker,
    pub(super) hands: Arc<Hands>,
    pub(super) places: Arc<Places>,
    pub(super) revisions: Revisions,
    pub(super) evidence: Revisions,
    pub(super) status: Status,
    pub(super) stop: CancellationToken,
}

/// Drives runs until the decider has ended and `stop` fires: those of the ledger first, then new ones; and does what persons want of them.
pub(super) async fn run(runner: Arc<Runner>, open: Vec<Run>, mut begun: mpsc::Receiver<Run>, mut orders: mpsc::Receiver<Ordered>) {
    let mut desk = Desk::new(runner.clone(), open);
    loop {
        let place = runner.places.news();
        desk.start();
        let until_next = desk.until_next();
        tokio::select! {
            next = begun.recv() => match next {
                Some(run) if desk.queue.len() >= MAX_WAITING => give_up(&runner, run).await,
                Some(run) => desk.queue.push_back(run),
                None => break,
            },
            Some((order, answer)) = orders.recv() => {
                // Who asked may have gone away.
                let _ = answer.send(desk.obey(order).await);
            }
            Some(driven) = desk.driving.join_next() => desk.back(driven).await,
            () = place => {}
            () = tokio::time::sleep(until_next) => desk.expire(clock::now()).await,
            () = runner.stop.cancelled() => break,
        }
    }
    while desk.driving.join_next().await.is_some() {}
}

async fn give_up(runner: &Runner, run: Run) {
    metrics::counter!("opmas_runs_dropped_total").increment(1);
    let reason = format!("{MAX_WAITING} runs wait already");
    runner.effects.record(vec![moved(&run, RunState::Failed, reason)]).await;
}

pub(super) fn moved(run: &Run, state: RunState, reason: String) -> Decided {
    Decided::RunMoved { run: run.id().clone(), state, reason, at: clock::now() }
}

/// One run, until it has ended, waits for a person, or opmas ends.
pub(super) async fn drive(runner: Arc<Runner>, mut run: Run, place: Place, wanted: watch::Receiver<Option<Order>>) -> Run {
    let Some(finding) = lock(&runner.effects.open).get(run.finding()) else {
        return runner.stuck(run, "its finding is not kept").await;
    };
    let mut begun = BTreeSet::new();
    while !runner.stop.is_cancelled() {
        let records = match (stopped(&run, &wanted), run.next()) {
            (_, NextMove::Wait | NextMove::Finished) => return run,
            (Some(records), _) => records,
            (None, NextMove::Evaluate) => {
                let (records, at_once) = runner.at_once(runner.evaluate(&run, &finding).await);
                begun = at_once;
                records
            }
            (None, NextMove::Ask { key }) => runner.ask(&run, &finding, &key).await,
            (None, NextMove::Sleep { until, .. }) if clock::now() < until => return run,
            (None, NextMove::Attempt { key, .. } | NextMove::Settle { key, .. } | NextMove::Sleep { key, .. }) => {
                match run.step(&key).and_then(|step| Own::of_step(&step.step)) {
                    Some(own) if !matches!(own, Own::Request { .. }) => runner.own(&run, &finding, &key, &own),
                    _ if runner.carry_out_all(&mut run, &finding, std::mem::take(&mut begun), (&place, &wanted)).await => continue,
                    _ => return runner.stuck(run, MISFIT).await,
                }
            }
            (None, NextMove::Answer { key, state }) => {
                let reason = run.step(&key).map(|step| step.step.reason.clone()).unwrap_or_default();
                vec![ended(&run, &key, state, &reason)]
            }
            (None, NextMove::Hold { key, reason }) => {
                let remedy = run.step(&key).map(|step| remedy(&run, step)).unwrap_or_default();
                vec![moved(&run, RunState::Waiting, format!("{reason}; {remedy}"))]
            }
        };
        if !runner.record(&mut run, records).await {
            return runner.stuck(run, MISFIT).await;
        }
    }
    run
}

/// A person wants it to stop here. What was attempted is accounted for before a run is cancelled.
fn stopped(run: &Run, wanted: &watch::Receiver<Option<Order>>) -> Option<Vec<Decided>> {
    let order = wanted.borrow().clone()?;
    match order.wish {
        Wish::Pause => Some(vec![moved(run, RunState::Paused, order.said("paused"))]),
        Wish::Cancel if run.steps().iter().all(|step| step.state != StepState::Attempted) => Some(cancelled(run, &order.said("cancelled"))),
        _ => None,
    }
}

/// Takes records in, as far as they are the run's.
pub(super) fn fits(run: &mut Run, records: &[Decided]) -> bool {
    let ours = records.iter().filter(|record| !matches!(record, Decided::Lease { .. } | Decided::Delivery { .. } | Decided::Message { .. }));
    for record in ours {
        if let Err(error) = run.apply(record) {
            tracing::error!(%error, "a record of a run does not fit what is known; the run stays where it is");
            return false;
        }
    }
    true
}

/// The end of a step that the executor did not bring about.
pub(super) fn ended(run: &Run, key: &Arc<str>, state: OutcomeState, detail: &str) -> Decided {
    outcome(run, key, Outcome::new(state, detail, clock::now()))
}

pub(super) fn outcome(run: &Run, key: &Arc<str>, outcome: Outcome) -> Decided {
    Decided::Outcome { run: run.id().clone(), key: key.clone(), outcome }
}

/// That a run's time is over.
pub(super) fn its_time(playbook: &Playbook) -> String {
    format!("its time is over: {} (timeout in {}.rhai)", playbook.timeout, playbook.name)
}

/// The newest attempt came to nothing and is repeated; `None` when there is no such step.
pub(super) fn tried(run: &Run, key: &Arc<str>, detail: &str) -> Option<Decided> {
    let attempt = run.step(key)?.attempts;
    Some(Decided::Tried { run: run.id().clone(), key: key.clone(), attempt, detail: detail.to_owned(), at: clock::now() })
}

/// How a person goes on with a run that waits since the effect of a step is not known.
pub(super) fn remedy(run: &Run, step: &RunStep) -> String {
    let id = run.id();
    if step.can_be_asked() {
        return format!("look at the device, then opmas playbook resume {id}, or cancel {id}");
    }
    format!("look at the endpoint, then opmas playbook resume {id} --done if it came there, or resume {id} --again to send it once more, or cancel {id}")
}

impl Runner {
    /// Takes records in and appends them. `false` when one does not fit what is known: the ledger and the run disagree, and a person must look.
    pub(super) async fn record(&self, run: &mut Run, records: Vec<Decided>) -> bool {
        if !fits(run, &records) {
            return false;
        }
        self.effects.record(records).await;
        true
    }

    /// A run that cannot go on says why, and waits for a person.
    async fn stuck(&self, mut run: Run, why: &str) -> Run {
        tracing::error!(run = %run.id(), why, "a run cannot go on");
        if run.state().0 == RunState::Running {
            let reason = format!("{why}: look at it, then opmas playbook resume {id}, or cancel {id}", id = run.id());
            let waits = moved(&run, RunState::Waiting, reason);
            self.record(&mut run, vec![waits]).await;
        }
        run
    }

    /// Asks the script what comes next.
    async fn evaluate(&self, run: &Run, finding: &Arc<Finding>) -> Vec<Decided> {
        let Some(playbook) = self.pinned(run) else {
            return vec![moved(run, RunState::Failed, format!("revision {} of its script is neither loaded nor kept", run.revision()))];
        };
        if clock::now() > run.counts_from().plus(playbook.timeout) {
            return self.fail(run, &playbook, its_time(&playbook));
        }
        if playbook.on_failure != OnFailure::Continue
            && let Some(failed) = run.failure()
        {
            let why = failed.outcome.as_ref().map_or("", |outcome| &outcome.detail);
            return self.fail(run, &playbook, format!("{}: {why}", failed.step.sentence()));
        }
        let devices = self.content.borrow().inventory.devices.clone();
        let evaluation = match self.worker.evaluate(request(&playbook, finding, &devices, run.history(), false)).await {
            Ok(evaluation) => evaluation,
            Err(error) => return self.not_evaluated(run, error).await,
        };
        match evaluation.progress {
            Progress::Ready(calls) => calls
                .iter()
                .map(|call| Decided::Intent { step: Box::new(self.policy.step(&self.effects.used(), run.id(), &playbook, finding, call)), at: clock::now() })
                .collect(),
            Progress::Done => vec![moved(run, RunState::Done, done_reason(&evaluation.log))],
            Progress::Failed { message, place } => {
                let place = place.map(|place| format!("{}:{}:{}: ", playbook.file, place.line, place.column)).unwrap_or_default();
                self.fail(run, &playbook, format!("{place}{message}"))
            }
            Progress::Diverged { detail, .. } => vec![moved(run, RunState::Diverged, detail)],
        }
    }

    /// Where everything that a script asks for next is carried out on devices at once, the attempts are recorded with the intents: one sync
    /// less before the devices hear of it. With the keys of the steps.
    fn at_once(&self, mut records: Vec<Decided>) -> (Vec<Decided>, BTreeSet<Arc<str>>) {
        let away = self.hands.away();
        let steps = records.iter().map(|record| match record {
            Decided::Intent { step, .. } => Some(step).filter(|step| step.decision == Verdict::Auto && Own::of_step(step).is_none()),
            _ => None,
        });
        let near = steps.map(|step| step.filter(|step| !away.borrow().contains_key(&step.device)));
        let attempts: Option<Vec<_>> = near.map(|step| Some((step?.run.clone(), step?.key.clone()))).collect();
        let attempts = attempts.unwrap_or_default();
        let attempt = |(run, key): &(Arc<str>, Arc<str>)| Decided::Attempt { run: run.clone(), key: key.clone(), attempt: 1, at: clock::now() };
        records.extend(attempts.iter().map(attempt));
        (records, attempts.into_iter().map(|(_, key)| key).collect())
    }

    /// The run fails; what it has done is undone when its playbook says so.
    fn fail(&self, run: &Run, playbook: &Playbook, why: String) -> Vec<Decided> {
        let Undone { mut records, said } = if playbook.on_failure == OnFailure::Undo { self.undone(run, &why) } else { Undone::default() };
        records.push(moved(run, RunState::Failed, format!("{why}{said}")));
        records
    }

    /// Effects with a lifetime that no other run asked for as well end now, the last first, and are tried until they have.
    fn undone(&self, run: &Run, why: &str) -> Undone {
        let (now, mut undone) = (clock::now(), Undone::default());
        let (leases, mut stays) = (lock(&self.effects.leases), Vec::new());
        for step in run.done() {
            match leases.get(&leases.id(&step.device, &step.action, &step.params)) {
                Some(lease) if lease.owners.iter().all(|(owner, _)| owner == run.id()) => {
                    undone.records.push(lease.changed(LeaseChange::Revoked, now, now, &format!("undone, because run {} failed: {why}", run.id())));
                }
                _ => stays.push(step.sentence()),
            }
        }
        undone.said = format!("; {} of its effects are undone", undone.records.len());
        if !stays.is_empty() {
            undone.said += &format!(", {} stay: {}", stays.len(), stays.join(", "));
        }
        undone
    }

    async fn not_evaluated(&self, run: &Run, error: WorkerError) -> Vec<Decided> {
        match error {
            WorkerError::Unavailable(_) => {
                self.sleep(FIRST_PAUSE).await;
                Vec::new()
            }
            // Whatever ends opmas may have ended the worker first: then the run goes on at the next start.
            WorkerError::Died(_) if self.stop.is_cancelled() => Vec::new(),
            WorkerError::Died(why) => vec![moved(run, RunState::Failed, why)],
        }
    }

    /// Asks a person: with the plan from this step on, and what to say.
    async fn ask(&self, run: &Run, finding: &Finding, key: &Arc<str>) -> Vec<Decided> {
        if let Err(why) = self.still(run, finding, key) {
            return vec![ended(run, key, OutcomeState::Refused, &why)];
        }
        let Some(playbook) = self.pinned(run) else { return Vec::new() };
        // What the plan would use up is not used up.
        let leases = Mutex::new(lock(&self.effects.leases).clone());
        let budgets = Mutex::new(lock(&self.effects.budgets).clone());
        let used = Used { leases: &leases, budgets: &budgets, ..self.effects.used() };
        let now = used.now;
        let planner = Planner { worker: &self.worker, policy: &self.policy, used, run: run.id(), playbook: &playbook, finding };
        let mut plan = Vec::new();
        if let Err(error) = planner.plan(run.history(), &mut plan).await {
            return self.not_evaluated(run, error).await;
        }
        let until = now.plus(playbook.approve_within);
        let reason = question(run, &plan, until);
        vec![Decided::Asked { run: run.id().clone(), plan, until, at: now }, moved(run, RunState::Waiting, reason)]
    }

    /// Whether what a run waits with could be carried out now.
    pub(super) fn allowed(&self, run: &Run) -> Result<(), String> {
        let Some(finding) = lock(&self.effects.open).get(run.finding()) else { return Err("its finding is not kept".to_owned()) };
        let open = run.steps().iter().filter(|step| step.state == StepState::Intended);
        open.map(|step| &step.step.key).try_for_each(|key| self.still(run, &finding, key))
    }

    /// Whether a step may be carried out, as posture, guard and budgets are now.
    pub(super) fn still(&self, run: &Run, finding: &Finding, key: &Arc<str>) -> Result<(), String> {
        let Some(step) = run.step(key) else { return Err("there is no such step".to_owned()) };
        let playbook = self.pinned(run).ok_or_else(|| format!("revision {} of its script is neither loaded nor kept", run.revision()))?;
        self.policy.still(&self.effects.used(), &playbook, finding, &step.step)
    }

    /// The playbook in the revision that the run began with.
    pub(super) fn pinned(&self, run: &Run) -> Option<Playbook> {
        let content = self.content.borrow().clone();
        if let Some(playbook) = content.playbooks.get(run.playbook()).filter(|playbook| playbook.revision == *run.revision()) {
            return Some(playbook.clone());
        }
        let text = String::from_utf8(self.revisions.read(run.revision()).ok()?).ok()?;
        let file = SourceFile { name: format!("playbooks/{}.rhai", run.playbook()).into(), text: text.into() };
        Playbooks::load(&[file], &signatures(&content.catalogue)).playbooks.get(run.playbook()).cloned()
    }

    pub(super) async fn sleep(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// What a waiting run says, in `playbook show` and in alerts: what it asks for, and how to answer.
fn question(run: &Run, plan: &[Step], until: Time) -> String {
    let steps = match plan {
        [] => "its next step".to_owned(),
        [one] => one.sentence(),
        [first, rest @ ..] => format!("{} and {} more", first.sentence(), rest.len()),
    };
    let why = plan.iter().find(|step| step.decision == Verdict::Approve).map_or("", |step| &step.reason);
    format!("to carry out {steps}: opmas approve {id}, or opmas deny {id}, until {}; {why}", until.brief(), id = run.id())
}

fn done_reason(log: &[String]) -> String {
    if log.is_empty() { "the script has ended".to_owned() } else { format!("the script has ended; it said: {}", log.join(" | ")) }
}
