//! One execution of a playbook: a state machine over the ledger. Pure; the engine does what [`Run::next`] says and records it.

use std::sync::Arc;

use super::Own;
use super::moves::{IllegalMove, RUN_MOVES, StepMove, StepState, allows, may_leave, step_after};
use super::own::is_carried_out;
use crate::model::{Covered, Decided, FindingId, Outcome, OutcomeState, Recorded, RunState, Span, Step, Time, Verdict};

/// A run as the ledger tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    id: Arc<str>,
    playbook: Arc<str>,
    revision: Arc<str>,
    finding: FindingId,
    about: Option<Arc<str>>,
    began: Time,
    state: RunState,
    reason: String,
    /// What a person is asked, while it waits for the answer.
    asked: Option<Asked>,
    /// What was approved; at most what plans have had.
    covered: Vec<Covered>,
    /// Since when it waits for a person.
    held: Option<Time>,
    /// How long it waited before: for persons, and because its script said so.
    waited: Span,
    /// Steps of an earlier run that it goes on from.
    after: Vec<Recorded>,
    /// In the order of their intents; at most as many as the evaluation's limit of steps.
    steps: Vec<RunStep>,
}

/// What a run asks a person.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// What it would carry out.
    pub plan: Vec<Step>,
    /// Without an answer it is a no then.
    pub until: Time,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunStep {
    /// What is asked for, with its verdict.
    pub step: Step,
    /// Where it stands.
    pub state: StepState,
    /// When it was decided.
    pub intended: Time,
    /// How often it has been attempted.
    pub attempts: u32,
    /// So many of the last attempts came to nothing and were repeated, and what came of the newest.
    pub tried: (u32, String),
    /// Whether a person has approved exactly it.
    pub approved: bool,
    /// Its effect is not known, and is to be read back once more.
    again: bool,
    /// The newest outcome.
    pub outcome: Option<Outcome>,
}

/// What the engine does next for a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextMove {
    /// Evaluate the script with [`Run::history`]; record intents of what is ready, or how it ended.
    Evaluate,
    /// Record `Attempt` with this number, then carry the step out and record its outcome.
    Attempt {
        /// The step.
        key: Arc<str>,
        /// 1 for the first.
        attempt: u32,
    },
    /// After recovery: it was attempted and nothing is known. Read the effect back; record the outcome, or `Unknown`, or (absent and safe) attempt again.
    /// While this process carries the step out there is nothing to do but wait.
    Settle {
        /// The step.
        key: Arc<str>,
        /// The attempt that is unaccounted for.
        attempt: u32,
    },
    /// It is not carried out: record an outcome of this state with the step's reason.
    Answer {
        /// The step.
        key: Arc<str>,
        /// `Planned` or `Refused`.
        state: OutcomeState,
    },
    /// A person must approve: record `Asked` with the plan from here on, and that the run is `Waiting`.
    Ask {
        /// The step.
        key: Arc<str>,
    },
    /// A person must look: record that the run is `Waiting`.
    Hold {
        /// The step.
        key: Arc<str>,
        /// For the person, one sentence.
        reason: String,
    },
    /// Nothing until then; then as [`NextMove::Attempt`].
    Sleep {
        /// The step.
        key: Arc<str>,
        /// When it goes on.
        until: Time,
    },
    /// It waits for a person.
    Wait,
    /// It has ended.
    Finished,
}

impl Run {
    /// Begins a run.
    ///
    /// # Errors
    /// The record is not `Run`.
    pub fn begin(decided: &Decided) -> Result<Run, IllegalMove> {
        let Decided::Run { run, playbook, revision, finding, about, after, at, .. } = decided else { return Err(IllegalMove::NotOurs { run: "".into() }) };
        Ok(Run {
            id: run.clone(),
            playbook: playbook.clone(),
            revision: revision.clone(),
            finding: finding.clone(),
            about: about.clone(),
            began: *at,
            state: RunState::Running,
            reason: String::new(),
            asked: None,
            covered: Vec::new(),
            held: None,
            waited: Span::ZERO,
            after: after.clone(),
            steps: Vec::new(),
        })
    }

    /// Takes a ledger record about this run, live or on replay. An illegal one changes nothing.
    ///
    /// # Errors
    /// See [`IllegalMove`].
    pub fn apply(&mut self, decided: &Decided) -> Result<(), IllegalMove> {
        match decided {
            Decided::Run { run, .. } if *run == self.id => Err(IllegalMove::BegunTwice { run: run.clone() }),
            Decided::Intent { step, at } if step.run == self.id => self.intend(step, *at),
            Decided::Attempt { run, key, attempt, .. } if *run == self.id => self.attempt(key, *attempt),
            Decided::Tried { run, key, attempt, detail, .. } if *run == self.id => self.tried(key, *attempt, detail),
            Decided::Outcome { run, key, outcome } if *run == self.id => self.end(key, outcome),
            Decided::RunMoved { run, state, reason, at } if *run == self.id => self.shift(*state, reason, *at),
            Decided::Asked { run, plan, until, .. } if *run == self.id => self.ask(plan, *until),
            Decided::Answered { run, approved, plan, .. } if *run == self.id => self.answer(*approved, plan),
            _ => Err(IllegalMove::NotOurs { run: self.id.clone() }),
        }
    }

    /// What to do next.
    #[must_use]
    pub fn next(&self) -> NextMove {
        match self.state {
            RunState::Done | RunState::Failed | RunState::Diverged | RunState::Cancelled => NextMove::Finished,
            RunState::Waiting | RunState::Paused => NextMove::Wait,
            RunState::Running => self.steps.iter().find(|step| step.state != StepState::Ended).map_or(NextMove::Evaluate, RunStep::next),
        }
    }

    /// The steps that have ended, for the next evaluation; with those of an earlier run that it goes on from.
    #[must_use]
    pub fn history(&self) -> Vec<Recorded> {
        let recorded = |step: &RunStep| {
            let outcome = step.outcome.clone().filter(|_| step.state == StepState::Ended)?;
            Some(Recorded { key: step.step.key.clone(), device: step.step.device.clone(), action: step.step.action.clone(), outcome })
        };
        self.after.iter().cloned().chain(self.steps.iter().filter_map(recorded)).collect()
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The playbook's name.
    #[must_use]
    pub fn playbook(&self) -> &Arc<str> {
        &self.playbook
    }

    /// The revision of the script that it is pinned to.
    #[must_use]
    pub fn revision(&self) -> &Arc<str> {
        &self.revision
    }

    /// The finding that it is about.
    #[must_use]
    pub fn finding(&self) -> &FindingId {
        &self.finding
    }

    /// The entity that it is about, as the playbook's `per` counts.
    #[must_use]
    pub fn about(&self) -> Option<&Arc<str>> {
        self.about.as_ref()
    }

    /// The step that failed or was refused first.
    #[must_use]
    pub fn failure(&self) -> Option<&RunStep> {
        let failed = |outcome: &Outcome| matches!(outcome.state, OutcomeState::Failed | OutcomeState::Refused);
        self.steps.iter().find(|step| step.state == StepState::Ended && step.outcome.as_ref().is_some_and(failed))
    }

    /// When its time began to count: its beginning, and as much later as it has waited.
    #[must_use]
    pub fn counts_from(&self) -> Time {
        self.began.plus(self.waited)
    }

    /// What a person is asked now.
    #[must_use]
    pub fn asked(&self) -> Option<&Asked> {
        self.asked.as_ref()
    }

    /// Where it stands, and why.
    #[must_use]
    pub fn state(&self) -> (RunState, &str) {
        (self.state, &self.reason)
    }

    /// Its steps, in the order of their intents.
    #[must_use]
    pub fn steps(&self) -> &[RunStep] {
        &self.steps
    }

    /// The steps on devices and at endpoints that can be carried out at one time, and whether an attempt of each is unaccounted for.
    pub fn carried_out(&self) -> impl Iterator<Item = (&Arc<str>, bool)> {
        self.steps.iter().filter(|step| step.state != StepState::Ended && is_carried_out(&step.step)).filter_map(|step| match step.next() {
            NextMove::Attempt { .. } => Some((&step.step.key, false)),
            NextMove::Settle { .. } => Some((&step.step.key, true)),
            _ => None,
        })
    }

    /// The step whose effect is not known, and which the run waits for.
    #[must_use]
    pub fn unknown(&self) -> Option<&RunStep> {
        self.steps.iter().find(|step| step.state != StepState::Ended).filter(|step| self.state == RunState::Waiting && step.state == StepState::Unknown)
    }

    /// The step with this key.
    #[must_use]
    pub fn step(&self, key: &str) -> Option<&RunStep> {
        self.steps.iter().find(|step| &*step.step.key == key)
    }

    fn intend(&mut self, step: &Step, at: Time) -> Result<(), IllegalMove> {
        let from = self.step(&step.key).map_or(StepState::Absent, |step| step.state);
        let state = self.moved(&step.key, from, StepMove::Intend)?;
        let approved = self.covered.contains(&Covered::of(step));
        self.steps.push(RunStep { step: step.clone(), state, intended: at, attempts: 0, tried: (0, String::new()), approved, again: false, outcome: None });
        Ok(())
    }

    fn attempt(&mut self, key: &Arc<str>, attempt: u32) -> Result<(), IllegalMove> {
        let illegal = |from, why| IllegalMove::Step { run: self.id.clone(), key: key.clone(), from, by: StepMove::Attempt, why };
        let Some(step) = self.step(key) else { return Err(illegal(StepState::Absent, "there is no intent")) };
        if !step.may_be_attempted() {
            return Err(illegal(step.state, "its verdict does not allow it"));
        }
        if attempt != step.attempts + 1 {
            return Err(illegal(step.state, "attempts are counted one by one"));
        }
        let state = self.moved(key, step.state, StepMove::Attempt)?;
        self.change(key, |step| (step.state, step.attempts) = (state, attempt));
        Ok(())
    }

    /// After a person has looked the tries are counted anew.
    fn tried(&mut self, key: &Arc<str>, attempt: u32, detail: &str) -> Result<(), IllegalMove> {
        let (from, attempts) = self.step(key).map_or((StepState::Absent, 0), |step| (step.state, step.attempts));
        let state = self.moved(key, from, StepMove::Tried)?;
        if attempt != attempts {
            return Err(IllegalMove::Step { run: self.id.clone(), key: key.clone(), from, by: StepMove::Tried, why: "another attempt is the newest" });
        }
        self.change(key, |step| {
            let tries = if from == StepState::Unknown { 0 } else { step.tried.0 + 1 };
            (step.state, step.again, step.outcome, step.tried) = (state, false, None, (tries, detail.to_owned()));
        });
        Ok(())
    }

    fn end(&mut self, key: &Arc<str>, outcome: &Outcome) -> Result<(), IllegalMove> {
        let from = self.step(key).map_or(StepState::Absent, |step| step.state);
        let state = self.moved(key, from, StepMove::End(outcome.state))?;
        if let Some(Own::Wait(span)) = self.step(key).and_then(|step| Own::of_step(&step.step)).filter(|_| outcome.state == OutcomeState::Done) {
            self.waited = self.waited.plus(span);
        }
        self.change(key, |step| (step.state, step.again, step.outcome) = (state, false, Some(outcome.clone())));
        Ok(())
    }

    fn ask(&mut self, plan: &[Step], until: Time) -> Result<(), IllegalMove> {
        if self.state != RunState::Running {
            return Err(IllegalMove::Answer { run: self.id.clone(), why: "it is not running" });
        }
        self.asked = Some(Asked { plan: plan.to_vec(), until });
        Ok(())
    }

    /// An approval covers nothing that was not asked, and nothing that the policy has refused.
    fn answer(&mut self, approved: bool, plan: &[Covered]) -> Result<(), IllegalMove> {
        let illegal = |why| IllegalMove::Answer { run: self.id.clone(), why };
        let (RunState::Waiting, Some(asked)) = (self.state, &self.asked) else { return Err(illegal("it does not ask")) };
        if !plan.iter().all(|covered| asked.to_approve().any(|one| one == *covered)) {
            return Err(illegal("the answer is about another plan"));
        }
        self.asked = None;
        if approved {
            self.covered.extend_from_slice(plan);
            let covered = &self.covered;
            self.steps.iter_mut().for_each(|step| step.approved = covered.contains(&Covered::of(&step.step)));
        }
        Ok(())
    }

    fn shift(&mut self, to: RunState, reason: &str, at: Time) -> Result<(), IllegalMove> {
        let illegal = |why| IllegalMove::Run { run: self.id.clone(), from: self.state, to, why };
        if !RUN_MOVES.contains(&(self.state, to)) {
            return Err(illegal("there is no such way"));
        }
        if !self.steps.iter().all(|step| may_leave(to, step.state)) {
            return Err(illegal("a step is still open"));
        }
        if to == RunState::Running {
            // A person has looked, or the device is back: what is not known is read back once more.
            self.steps.iter_mut().for_each(|step| step.again = step.state == StepState::Unknown && step.can_be_asked());
        }
        match self.held.take() {
            Some(since) => self.waited = self.waited.plus(at.since(since).max(Span::ZERO)),
            None => self.held = matches!(to, RunState::Waiting | RunState::Paused).then_some(at),
        }
        if to != RunState::Waiting {
            self.asked = None;
        }
        self.state = to;
        reason.clone_into(&mut self.reason);
        Ok(())
    }

    fn moved(&self, key: &Arc<str>, from: StepState, by: StepMove) -> Result<StepState, IllegalMove> {
        let illegal = |why| IllegalMove::Step { run: self.id.clone(), key: key.clone(), from, by, why };
        if !allows(self.state, by) {
            return Err(illegal("the run does not go on"));
        }
        step_after(from, by).ok_or_else(|| illegal("there is no such way"))
    }

    fn change(&mut self, key: &Arc<str>, change: impl FnOnce(&mut RunStep)) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.step.key == *key) {
            change(step);
        }
    }
}

impl Asked {
    /// What an approval covers: steps that the policy lets a person approve.
    pub fn to_approve(&self) -> impl Iterator<Item = Covered> {
        self.plan.iter().filter(|step| matches!(step.decision, Verdict::Approve | Verdict::Auto)).map(Covered::of)
    }
}

impl RunStep {
    fn may_be_attempted(&self) -> bool {
        match self.step.decision {
            Verdict::Auto => true,
            Verdict::Approve => self.approved,
            Verdict::Observe | Verdict::Refused => false,
        }
    }

    /// Whether what became of it can be read back: no program says what it did with a request.
    #[must_use]
    pub fn can_be_asked(&self) -> bool {
        !matches!(Own::of_step(&self.step), Some(Own::Request { .. }))
    }

    fn next(&self) -> NextMove {
        let key = self.step.key.clone();
        match (self.state, self.step.decision) {
            (StepState::Attempted, _) => NextMove::Settle { key, attempt: self.attempts },
            (StepState::Unknown, _) if self.again => NextMove::Settle { key, attempt: self.attempts },
            (StepState::Unknown, _) => {
                let why = self.outcome.as_ref().map_or("", |outcome| &outcome.detail);
                NextMove::Hold { key, reason: format!("what became of {} is not known: {why}", self.step.sentence()) }
            }
            (_, Verdict::Observe) => NextMove::Answer { key, state: OutcomeState::Planned },
            (_, Verdict::Refused) => NextMove::Answer { key, state: OutcomeState::Refused },
            (_, Verdict::Approve) if !self.approved => NextMove::Ask { key },
            (_, Verdict::Auto | Verdict::Approve) => match Own::of_step(&self.step) {
                Some(Own::Wait(span)) => NextMove::Sleep { key, until: self.intended.plus(span) },
                _ => NextMove::Attempt { key, attempt: self.attempts + 1 },
            },
        }
    }
}
