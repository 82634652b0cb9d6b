//! Runs: what a run needs next is done and recorded, each run by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, lock};
use super::hands::Hands;
use super::policy::Policy;
use super::status::{Gravity, Status};
use super::worker::{Worker, WorkerError};
use crate::clock;
use crate::config::Content;
use crate::diag::SourceFile;
use crate::executor::{Reply, Request, Task};
use crate::journal::Revisions;
use crate::model::{Decided, Finding, Outcome, OutcomeState, RunState, Time, Verdict};
use crate::playbook::{Evaluate, Limits, NextMove, Playbook, Playbooks, Progress, Run, signatures};

/// Runs that are under way at once; further ones wait in their order.
const MAX_RUNNING: usize = 64;
/// Runs that wait; further ones fail with that reason.
const MAX_WAITING: usize = 10_000;
/// First pause before something out of reach is tried again; doubled each time up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// See [`FIRST_PAUSE`].
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Tries of a step whose device is out of reach, about a quarter of an hour.
const MAX_TRIES: u32 = 20;

/// What all runs share.
pub(super) struct Runner {
    pub(super) effects: Arc<Effects>,
    pub(super) policy: Policy,
    pub(super) content: watch::Receiver<Arc<Content>>,
    pub(super) worker: Worker,
    pub(super) hands: Arc<Hands>,
    pub(super) revisions: Revisions,
    pub(super) status: Status,
    pub(super) stop: CancellationToken,
}

/// Drives runs until the decider has ended and `stop` fires: those of the ledger first, then new ones.
pub(super) async fn run(runner: Arc<Runner>, open: Vec<Run>, mut begun: mpsc::Receiver<Run>) {
    let mut waiting: VecDeque<Run> = open.into();
    let mut running = JoinSet::new();
    loop {
        while running.len() < MAX_RUNNING
            && let Some(run) = waiting.pop_front()
        {
            running.spawn(drive(runner.clone(), run));
        }
        metrics::gauge!("opmas_runs_waiting").set(u32::try_from(waiting.len()).unwrap_or(u32::MAX));
        tokio::select! {
            next = begun.recv() => match next {
                Some(run) if waiting.len() >= MAX_WAITING => give_up(&runner, run).await,
                Some(run) => waiting.push_back(run),
                None => break,
            },
            Some(_) = running.join_next() => {}
            () = runner.stop.cancelled() => break,
        }
    }
    while running.join_next().await.is_some() {}
}

async fn give_up(runner: &Runner, run: Run) {
    metrics::counter!("opmas_runs_dropped_total").increment(1);
    let reason = format!("{MAX_WAITING} runs wait already");
    runner.effects.record(vec![moved(&run, RunState::Failed, reason)]).await;
}

fn moved(run: &Run, state: RunState, reason: String) -> Decided {
    Decided::RunMoved { run: run.id().clone(), state, reason, at: clock::now() }
}

/// One run, until it has ended, waits for a person, or opmas ends.
async fn drive(runner: Arc<Runner>, mut run: Run) {
    let Some(finding) = lock(&runner.effects.open).get(run.finding()) else {
        tracing::error!(run = %run.id(), "its finding is not in the ledger");
        return;
    };
    while !runner.stop.is_cancelled() {
        let records = match run.next() {
            NextMove::Evaluate => runner.evaluate(&run, &finding).await,
            NextMove::Attempt { key, .. } => runner.carry_out(&mut run, &key, true).await,
            NextMove::Settle { key, .. } => runner.carry_out(&mut run, &key, false).await,
            NextMove::Answer { key, state } => {
                let reason = run.step(&key).map(|step| step.step.reason.clone()).unwrap_or_default();
                vec![ended(&run, &key, state, &reason)]
            }
            NextMove::Hold { reason, .. } => vec![moved(&run, RunState::Waiting, reason)],
            NextMove::Wait | NextMove::Finished => return,
        };
        if !runner.record(&mut run, records).await {
            return;
        }
    }
}

/// The end of a step that the executor did not bring about.
fn ended(run: &Run, key: &Arc<str>, state: OutcomeState, detail: &str) -> Decided {
    outcome(run, key, Outcome { state, detail: detail.to_owned(), at: clock::now(), took_ms: 0, until: None })
}

fn outcome(run: &Run, key: &Arc<str>, outcome: Outcome) -> Decided {
    Decided::Outcome { run: run.id().clone(), key: key.clone(), outcome }
}

impl Runner {
    /// Takes records in and appends them. `false` when one does not fit what is known: the ledger and the run disagree, and a person must look.
    async fn record(&self, run: &mut Run, records: Vec<Decided>) -> bool {
        for record in &records {
            if matches!(record, Decided::Lease { .. }) {
                continue;
            }
            if let Err(error) = run.apply(record) {
                tracing::error!(%error, "a record of a run does not fit what is known; the run stays where it is");
                return false;
            }
        }
        self.effects.record(records).await;
        true
    }

    /// Asks the script what comes next.
    async fn evaluate(&self, run: &Run, finding: &Arc<Finding>) -> Vec<Decided> {
        let Some(playbook) = self.pinned(run) else {
            return vec![moved(run, RunState::Failed, format!("revision {} of its script is neither loaded nor kept", run.revision()))];
        };
        if clock::now() > run.began().plus(playbook.timeout) {
            return vec![moved(run, RunState::Failed, format!("its time is over: {} (timeout in {}.rhai)", playbook.timeout, playbook.name))];
        }
        let request = Evaluate {
            playbook: playbook.name.clone(),
            script: playbook.script.clone(),
            actions: playbook.actions.clone(),
            finding: Box::new((**finding).clone()),
            devices: self.content.borrow().inventory.devices.clone(),
            history: run.history(),
            plan: false,
            limits: Limits::default(),
        };
        let evaluation = match self.worker.evaluate(request).await {
            Ok(evaluation) => evaluation,
            Err(WorkerError::Unavailable(_)) => {
                self.sleep(FIRST_PAUSE).await;
                return Vec::new();
            }
            // Whatever ends opmas may have ended the worker first: then the run goes on at the next start.
            Err(WorkerError::Died(_)) if self.stop.is_cancelled() => return Vec::new(),
            Err(WorkerError::Died(why)) => return vec![moved(run, RunState::Failed, why)],
        };
        match evaluation.progress {
            Progress::Ready(calls) => calls
                .iter()
                .map(|call| Decided::Intent { step: Box::new(self.policy.step(&self.effects.used(), run.id(), &playbook, finding, call)), at: clock::now() })
                .collect(),
            Progress::Done => vec![moved(run, RunState::Done, done_reason(&evaluation.log))],
            Progress::Failed { message, place } => {
                let place = place.map(|place| format!("{}:{}:{}: ", playbook.file, place.line, place.column)).unwrap_or_default();
                vec![moved(run, RunState::Failed, format!("{place}{message}"))]
            }
            Progress::Diverged { detail, .. } => vec![moved(run, RunState::Diverged, detail)],
        }
    }

    /// The playbook in the revision that the run began with.
    fn pinned(&self, run: &Run) -> Option<Playbook> {
        let content = self.content.borrow().clone();
        if let Some(playbook) = content.playbooks.get(run.playbook()).filter(|playbook| playbook.revision == *run.revision()) {
            return Some(playbook.clone());
        }
        let text = String::from_utf8(self.revisions.read(run.revision()).ok()?).ok()?;
        let file = SourceFile { name: format!("playbooks/{}.rhai", run.playbook()).into(), text: text.into() };
        Playbooks::load(&[file], &signatures(&content.catalogue)).playbooks.get(run.playbook()).cloned()
    }

    /// Carries a step out, or finds out first what became of the last attempt. Each attempt is on disk before the executor hears of
    /// it (O7). Empty when opmas ends meanwhile: then it is settled at the next start.
    async fn carry_out(&self, run: &mut Run, key: &Arc<str>, mut settled: bool) -> Vec<Decided> {
        let Some(task) = self.task(run, key) else { return Vec::new() };
        let over = self.pinned(run).map(|playbook| run.began().plus(playbook.timeout));
        for tries in 1..=MAX_TRIES {
            if self.stop.is_cancelled() {
                return Vec::new();
            }
            if tries > 1 && over.is_some_and(|over| over <= clock::now()) {
                break;
            }
            let reply = if settled {
                if self.end(run, &task).is_some_and(|end| end <= clock::now()) {
                    return vec![ended(run, key, OutcomeState::Refused, "its time was over before it could be carried out")];
                }
                let attempt = run.step(key).map_or(0, |step| step.attempts) + 1;
                if !self.record(run, vec![Decided::Attempt { run: run.id().clone(), key: key.clone(), attempt, at: clock::now() }]).await {
                    return Vec::new();
                }
                self.hands.perform(Request::Apply(task.clone())).await
            } else {
                self.hands.perform(Request::Verify(task.clone())).await
            };
            match (settled, reply.outcome.state) {
                // A command was sent and its end was not seen.
                (true, OutcomeState::Unknown) => settled = false,
                // Nothing was sent: the device, or the executor, is out of reach.
                (true, OutcomeState::Failed) if reply.commands.is_empty() => self.pause(tries, &task, &reply).await,
                (true, _) | (false, OutcomeState::Enforced | OutcomeState::Partial) => return self.outcome(run, key, &task, reply, !settled),
                // Nothing of it is there: it may be carried out again.
                (false, OutcomeState::Undone) => settled = true,
                (false, _) => self.pause(tries, &task, &reply).await,
            }
        }
        self.status.clear(&waiting_for(&task));
        if settled {
            return vec![ended(run, key, OutcomeState::Failed, "the device stayed out of reach; nothing was changed")];
        }
        vec![ended(run, key, OutcomeState::Unknown, "the device could not be asked what became of it")]
    }

    /// The outcome, and the lease when the effect has a lifetime.
    fn outcome(&self, run: &Run, key: &Arc<str>, task: &Task, reply: Reply, read_back: bool) -> Vec<Decided> {
        self.status.clear(&waiting_for(task));
        let mut end = reply.outcome;
        if read_back {
            // What was found there was made by an attempt before; its time has run since.
            end.until = self.end(run, task);
        }
        let lease = run.step(key).and_then(|step| lock(&self.effects.leases).granted(&step.step, &end));
        [outcome(run, key, end)].into_iter().chain(lease).collect()
    }

    /// When the effect would end, counted from the run's beginning; `None` for an action without a lifetime.
    fn end(&self, run: &Run, task: &Task) -> Option<Time> {
        let content = self.content.borrow().clone();
        let action = content.catalogue.get(&task.action)?;
        let params = action.params(&task.params).ok()?;
        action.lifetime(&params).map(|lifetime| run.began().plus(lifetime))
    }

    fn task(&self, run: &Run, key: &Arc<str>) -> Option<Task> {
        let step = &run.step(key)?.step;
        let id = format!("{}:{key}", run.id()).into();
        Some(Task { id, device: step.device.clone(), action: step.action.clone(), params: step.params.clone(), verdict: Verdict::Auto })
    }

    async fn pause(&self, tries: u32, task: &Task, reply: &Reply) {
        tracing::warn!(device = %task.device, tries, detail = reply.outcome.detail, "a step waits for its device");
        self.status.set(&waiting_for(task), Gravity::Degraded, format!("{} waits: {}", task.action, reply.outcome.detail));
        self.sleep(FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(MAX_PAUSE)).await;
    }

    async fn sleep(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// The part of the status that names a device which a step waits for.
fn waiting_for(task: &Task) -> String {
    format!("step on {}", task.device)
}

fn done_reason(log: &[String]) -> String {
    if log.is_empty() { "the script has ended".to_owned() } else { format!("the script has ended; it said: {}", log.join(" | ")) }
}
