//! A person's hand on runs: those that wait for one are held here, and those under way are asked to stop between two steps.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};

use super::place::Place;
use super::runs::{MAX_WAITING, Runner, drive, ended, moved, remedy, tried};
use super::status::Gravity;
use crate::clock;
use crate::model::{ByHand, Decided, Finding, FindingId, OutcomeState, RUN_DIGITS, Recorded, RunState, Time};
use crate::playbook::{NextMove, Run, StepState};

/// The shortest beginning of a run's id that names it, in characters.
const SHORTEST: usize = 4;
/// Runs that wait for a person; further ones are cancelled.
const MAX_HELD: usize = 1_000;
/// Orders that wait.
pub(super) const MAX_ORDERS: usize = 64;
/// Longest text that a person gives as a reason, in characters.
const MAX_BECAUSE: usize = 500;
/// How long an answer waits for a run that is just about to ask.
const MOMENT: Duration = Duration::from_secs(1);
/// Longest sleep of the task.
const LOOK: Duration = Duration::from_secs(60);

/// What a person wants of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// The plan that it waits with is carried out.
    Approve,
    /// It is not.
    Deny,
    /// It takes no further step until it is resumed.
    Pause,
    /// It goes on; an effect that is not known is read back once more.
    Resume,
    /// It goes on: a person has looked, and what it waits for was done.
    Done,
    /// It goes on: a person has looked, and what it waits for is attempted once more.
    Again,
    /// It ends; what was not begun is not carried out.
    Cancel,
    /// A playbook runs for a finding, as if that had started it now, and goes on from these steps of an earlier run.
    Begin(Box<Finding>, Vec<Recorded>),
}

/// A wish, whose, and why.
#[derive(Clone, Debug)]
pub struct Order {
    /// The run's id or a unique beginning of it; a playbook's name for [`Wish::Begin`].
    pub of: String,
    /// What.
    pub wish: Wish,
    /// A user of this machine, or the name of a token.
    pub by: Arc<str>,
    /// Why; may be empty.
    pub because: String,
}

/// Why an order is not carried out, one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// There is no such run or playbook.
    #[error("{0}")]
    Unknown(String),
    /// It does not stand so that this could be done.
    #[error("{0}")]
    NotNow(String),
}

/// An order with the place for its answer: the run's id.
pub(super) type Ordered = (Order, oneshot::Sender<Result<Arc<str>, NotDone>>);

/// Gives orders. Cheap to clone.
#[derive(Clone)]
pub struct Hand(pub(super) mpsc::Sender<Ordered>);

impl Hand {
    /// Has an order carried out; the run's id once that is recorded, or once a run under way will see it before its next step.
    ///
    /// # Errors
    /// See [`NotDone`].
    pub async fn order(&self, order: Order) -> Result<Arc<str>, NotDone> {
        let ending = |_| NotDone::NotNow("opmas is ending".to_owned());
        let (answer, answered) = oneshot::channel();
        self.0.send((order, answer)).await.map_err(|_| ending(()))?;
        answered.await.map_err(|_| ending(()))?
    }
}

/// A reason as it is kept: bounded, on one line.
pub(super) fn reason(because: &str) -> String {
    because.chars().filter(|c| !c.is_control()).take(MAX_BECAUSE).collect()
}

/// `denied by root: not today`
pub(super) fn said(verb: &str, by: &str, because: &str) -> String {
    let because = reason(because);
    if because.is_empty() { format!("{verb} by {by}") } else { format!("{verb} by {by}: {because}") }
}

impl Order {
    pub(super) fn said(&self, verb: &str) -> String {
        said(verb, &self.by, &self.because)
    }

    fn answered(&self, run: &Run, approved: bool) -> Option<Decided> {
        let plan = run.asked()?.to_approve().collect();
        let (by, because) = (self.by.clone(), reason(&self.because));
        Some(Decided::Answered { run: run.id().clone(), playbook: run.playbook().clone(), approved, by, because, plan, at: clock::now() })
    }
}

/// A run ends by hand: what was not begun is refused, what is not accounted for is not known.
pub(super) fn cancelled(run: &Run, why: &str) -> Vec<Decided> {
    let end = |step: &crate::playbook::RunStep| match step.state {
        StepState::Intended => Some(ended(run, &step.step.key, OutcomeState::Refused, why)),
        StepState::Tried => Some(ended(run, &step.step.key, OutcomeState::Failed, &format!("{why}; the last try: {}", step.tried.1))),
        StepState::Attempted => Some(ended(run, &step.step.key, OutcomeState::Unknown, why)),
        StepState::Absent | StepState::Unknown | StepState::Ended => None,
    };
    run.steps().iter().filter_map(end).chain([moved(run, RunState::Cancelled, why.to_owned())]).collect()
}

/// All runs that have not ended.
pub(super) struct Desk {
    pub(super) runner: Arc<Runner>,
    /// In their order; at most [`MAX_WAITING`].
    pub(super) queue: VecDeque<Run>,
    held: BTreeMap<Arc<str>, Run>,
    /// What is wanted of each run under way.
    flags: BTreeMap<Arc<str>, watch::Sender<Option<Order>>>,
    pub(super) driving: JoinSet<Run>,
}

impl Desk {
    /// The runs of the ledger.
    pub(super) fn new(runner: Arc<Runner>, open: Vec<Run>) -> Desk {
        let (held, queue): (Vec<Run>, Vec<Run>) = open.into_iter().partition(|run| run.next() == NextMove::Wait);
        let held = held.into_iter().map(|run| (run.id().clone(), run)).collect();
        Desk { runner, queue: queue.into(), held, flags: BTreeMap::new(), driving: JoinSet::new() }
    }

    /// Has runs driven while there is room.
    pub(super) fn start(&mut self) {
        while let Some((run, place)) = self.take() {
            let (flag, wanted) = watch::channel(None);
            self.flags.insert(run.id().clone(), flag);
            self.driving.spawn(drive(self.runner.clone(), run, place, wanted));
        }
        metrics::gauge!("opmas_runs_waiting").set(u32::try_from(self.queue.len()).unwrap_or(u32::MAX));
        metrics::gauge!("opmas_runs_held").set(u32::try_from(self.held.len()).unwrap_or(u32::MAX));
        match self.held.len() {
            0 => self.runner.status.clear("runs"),
            held => self.runner.status.set("runs", Gravity::Notice, format!("{held} wait for a person: `opmas playbook runs --state waiting` and `paused`")),
        }
    }

    /// The first run of the queue for which there is a place beside those under way.
    fn take(&mut self) -> Option<(Run, Place)> {
        if self.runner.places.are_full() {
            return None;
        }
        let now = clock::now();
        let free = |run: &Run| if asleep(run).is_none_or(|until| until <= now) { self.runner.places.take(run) } else { None };
        let (first, place) = self.queue.iter().enumerate().find_map(|(at, run)| Some((at, free(run)?)))?;
        Some((self.queue.remove(first)?, place))
    }

    /// A run is no longer driven: it has ended, or is held from now on.
    pub(super) async fn back(&mut self, driven: Result<Run, JoinError>) {
        let Ok(run) = driven else {
            tracing::error!("the task of a run ended; the run goes on at the next start");
            return;
        };
        let wanted = self.flags.remove(run.id()).and_then(|flag| flag.borrow().clone());
        if asleep(&run).is_some() {
            let id = run.id().clone();
            self.held.insert(id.clone(), run);
            let obeyed = match &wanted {
                Some(order) => self.held_obeys(&id, order).await.is_ok(),
                None => false,
            };
            if !obeyed {
                self.queue.extend(self.held.remove(&id));
            }
            return;
        }
        if run.next() != NextMove::Wait {
            return;
        }
        let id = run.id().clone();
        self.held.insert(id.clone(), run);
        let why = match wanted {
            Some(order) if order.wish == Wish::Cancel => order.said("cancelled"),
            _ if self.held.len() > MAX_HELD => format!("{MAX_HELD} runs wait for a person already"),
            _ => return,
        };
        self.end(&id, |run| cancelled(run, &why)).await;
    }

    /// How long until something is to be done for a run that is held or waits.
    pub(super) fn until_next(&self) -> Duration {
        let asked = self.held.values().filter_map(|run| run.asked()).map(|asked| asked.until);
        let next = asked.chain(self.queue.iter().filter_map(asleep).filter(|until| clock::now() < *until)).min();
        next.map_or(LOOK, |at| at.since(clock::now()).to_std().min(LOOK))
    }

    /// No answer in time is a no.
    pub(super) async fn expire(&mut self, now: Time) {
        let over: Vec<_> = self.held.values().filter(|run| run.asked().is_some_and(|asked| asked.until <= now)).map(|run| run.id().clone()).collect();
        for id in over {
            self.end(&id, |run| cancelled(run, "nobody approved it in time")).await;
        }
    }

    /// Carries an order out.
    pub(super) async fn obey(&mut self, order: Order) -> Result<Arc<str>, NotDone> {
        if let Wish::Begin(finding, after) = &order.wish {
            return self.begin(&order, finding, after).await;
        }
        let id = self.find(&order.of)?;
        if self.flags.contains_key(&id) {
            if matches!(order.wish, Wish::Approve | Wish::Deny | Wish::Resume | Wish::Done | Wish::Again) {
                self.moment(&id).await;
            } else if let Some(flag) = self.flags.get(&id) {
                flag.send_replace(Some(order));
                return Ok(id);
            }
        }
        if let Some(at) = self.queue.iter().position(|run| *run.id() == id)
            && let Some(run) = self.queue.remove(at)
        {
            // It has not begun: it is as if it were held.
            let (id, running) = (run.id().clone(), run.state().0 == RunState::Running);
            self.held.insert(id.clone(), run);
            let done = self.held_obeys(&id, &order).await;
            if running && done.is_err() {
                self.queue.extend(self.held.remove(&id));
            }
            return done;
        }
        self.held_obeys(&id, &order).await
    }

    async fn held_obeys(&mut self, id: &Arc<str>, order: &Order) -> Result<Arc<str>, NotDone> {
        let Some(run) = self.held.get(id) else { return Err(NotDone::NotNow(format!("run {id} is under way, and waits for nobody"))) };
        let records = records(run, order).map_err(NotDone::NotNow)?;
        if order.wish == Wish::Approve {
            self.runner.allowed(run).map_err(|why| NotDone::NotNow(format!("run {id} goes on waiting, since it could not be carried out now: {why}")))?;
        }
        if let (Wish::Done | Wish::Again, Some(step)) = (&order.wish, run.unknown()) {
            self.runner.is_for_a_person(run, step, order.wish == Wish::Again).map_err(|why| NotDone::NotNow(format!("run {id} goes on waiting: {why}")))?;
        }
        if self.end(id, |_| records).await { Ok(id.clone()) } else { Err(NotDone::NotNow("it cannot be recorded".to_owned())) }
    }

    /// Records what becomes of a held run; one that goes on is driven next.
    async fn end(&mut self, id: &Arc<str>, records: impl FnOnce(&Run) -> Vec<Decided>) -> bool {
        let Some(mut run) = self.held.remove(id) else { return false };
        let records = records(&run);
        let done = self.runner.record(&mut run, records).await;
        match run.next() {
            NextMove::Finished => {}
            NextMove::Wait => drop(self.held.insert(id.clone(), run)),
            _ => self.queue.push_front(run),
        }
        done
    }

    /// A run that was seen to ask may not be back yet.
    async fn moment(&mut self, id: &Arc<str>) {
        let end = tokio::time::Instant::now() + MOMENT;
        while self.flags.contains_key(id) {
            match tokio::time::timeout_at(end, self.driving.join_next()).await {
                Ok(Some(driven)) => self.back(driven).await,
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn find(&self, beginning: &str) -> Result<Arc<str>, NotDone> {
        let all = self.held.keys().chain(self.flags.keys()).chain(self.queue.iter().map(Run::id));
        let shown = beginning.escape_debug();
        if beginning.len() < SHORTEST {
            return Err(NotDone::Unknown(format!("`{shown}` is too short for a run's id; give {SHORTEST} characters of it at least")));
        }
        let mut found = all.filter(|id| id.starts_with(beginning));
        match (found.next(), found.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(_), Some(_)) => Err(NotDone::Unknown(format!("several runs have an id that begins with `{shown}`; give more of it"))),
            (None, _) => Err(NotDone::Unknown(format!("no run that has not ended has an id that begins with `{shown}`; see `opmas playbook runs`"))),
        }
    }

    async fn begin(&mut self, order: &Order, finding: &Finding, after: &[Recorded]) -> Result<Arc<str>, NotDone> {
        let content = self.runner.content.borrow().clone();
        let Some(playbook) = content.playbooks.get(&order.of) else {
            return Err(NotDone::Unknown(format!("there is no playbook `{}`; see `opmas playbook list`", order.of.escape_debug())));
        };
        if self.queue.len() >= MAX_WAITING {
            return Err(NotDone::NotNow(format!("{MAX_WAITING} runs wait already")));
        }
        let at = clock::now();
        let id = FindingId::new(&["run by hand", &finding.id.0, &playbook.name, &at.to_string()]).0;
        let by_hand = ByHand { by: order.by.clone(), because: reason(&order.because), finding: finding.clone() };
        let begun = Decided::Run {
            run: id.get(..RUN_DIGITS).unwrap_or(&id).into(),
            playbook: playbook.name.clone(),
            revision: playbook.revision.clone(),
            finding: finding.id.clone(),
            about: playbook.about(finding),
            after: after.to_vec(),
            at,
            by_hand: Some(Box::new(by_hand)),
        };
        let run = Run::begin(&begun).map_err(|error| NotDone::NotNow(error.to_string()))?;
        if !self.runner.effects.record(vec![begun]).await {
            return Err(NotDone::NotNow("it cannot be recorded".to_owned()));
        }
        let id = run.id().clone();
        self.queue.push_back(run);
        Ok(id)
    }
}

/// Until when a run waits because its script said so.
fn asleep(run: &Run) -> Option<Time> {
    match run.next() {
        NextMove::Sleep { until, .. } => Some(until),
        _ => None,
    }
}

/// What is recorded when a held run obeys; otherwise why it does not.
fn records(run: &Run, order: &Order) -> Result<Vec<Decided>, String> {
    let (id, (state, reason)) = (run.id(), run.state());
    let asks = || order.answered(run, order.wish == Wish::Approve).ok_or_else(|| format!("run {id} waits for no approval: {reason}"));
    let in_time = || match run.asked() {
        Some(asked) if asked.until <= clock::now() => Err(format!("run {id} was not approved in time")),
        _ => Ok(()),
    };
    match &order.wish {
        Wish::Approve => {
            in_time()?;
            Ok(vec![asks()?, moved(run, RunState::Running, order.said("approved"))])
        }
        Wish::Deny => Ok([asks()?].into_iter().chain(cancelled(run, &order.said("denied"))).collect()),
        Wish::Cancel => Ok(cancelled(run, &order.said("cancelled"))),
        Wish::Pause if state == RunState::Running => Ok(vec![moved(run, RunState::Paused, order.said("paused"))]),
        Wish::Pause => Err(format!("run {id} waits already: {reason}")),
        Wish::Resume if state == RunState::Running => Err(format!("run {id} is about to begin")),
        Wish::Resume if run.asked().is_some() => Err(format!("run {id} waits for an answer: opmas approve {id}, or opmas deny {id}")),
        Wish::Resume => match run.unknown().filter(|step| !step.can_be_asked()) {
            Some(step) => Err(format!("run {id} goes on waiting, since nobody can be asked what became of {}: {}", step.step.sentence(), remedy(run, step))),
            None => Ok(vec![moved(run, RunState::Running, order.said("resumed"))]),
        },
        Wish::Done | Wish::Again => {
            let unknown = run.unknown().ok_or_else(|| format!("run {id} waits for no step whose effect is not known: it is {} {reason}", state.word()))?;
            let key = &unknown.step.key;
            let settled = match order.wish {
                Wish::Done => Some(ended(run, key, OutcomeState::Done, &order.said("found done"))),
                _ => tried(run, key, &order.said("attempted once more")),
            };
            Ok(settled.into_iter().chain([moved(run, RunState::Running, order.said("resumed"))]).collect())
        }
        Wish::Begin(..) => Err("a run begins once".to_owned()),
    }
}
