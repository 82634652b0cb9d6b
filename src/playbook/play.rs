//! A run without an engine: its script, its state machine and what decides on its steps, with answers that are given instead of devices'.
//! For the cases beside playbooks, and for tests that fail, repeat and crash each step. Pure.

use std::sync::Arc;

use super::{Call, Evaluate, Limits, NextMove, OnFailure, Own, Playbook, Progress, Run, RunStep, evaluate};
use crate::action::{self, Catalogue, Guard, GuardConfig, GuardFacts};
use crate::model::{Decided, Finding, Inventory, Outcome, OutcomeState, RunState, Step, Time, Verdict};

/// Everything that a run is played with. Posture, mode and ceilings allow everything; catalogue and guard decide as they do live.
pub struct Play<'a> {
    /// What runs.
    pub playbook: &'a Playbook,
    /// What it is about.
    pub finding: &'a Finding,
    /// The devices that there are.
    pub inventory: &'a Inventory,
    /// The actions that there are.
    pub catalogue: &'a Catalogue,
}

/// What one turn is answered with by whoever plays the devices.
pub trait Devices {
    /// The answer to an attempt; without one it is as if opmas had ended before it came.
    fn attempt(&mut self, step: &Step) -> Option<(OutcomeState, String)>;
    /// What is read back after such an end.
    fn read_back(&mut self, step: &Step) -> (OutcomeState, String);
}

impl Play<'_> {
    /// The record that begins the run.
    #[must_use]
    pub fn begin(&self) -> Decided {
        Decided::Run {
            run: "case".into(),
            playbook: self.playbook.name.clone(),
            revision: self.playbook.revision.clone(),
            finding: self.finding.id.clone(),
            about: self.playbook.about(self.finding),
            after: Vec::new(),
            at: self.finding.time,
            by_hand: None,
        }
    }

    /// The records of the run's next turn; none when it has ended. What the script printed goes to `log`.
    pub fn turn(&self, run: &Run, devices: &mut impl Devices, log: &mut Vec<String>) -> Vec<Decided> {
        let at = self.finding.time;
        let end = |key: &Arc<str>, (state, detail): (OutcomeState, String)| {
            let outcome = Outcome::new(state, detail, at);
            Decided::Outcome { run: run.id().clone(), key: key.clone(), outcome }
        };
        let step = |key: &Arc<str>| run.step(key).map(|step| step.step.clone());
        match run.next() {
            NextMove::Evaluate => self.evaluate(run, log),
            NextMove::Attempt { key, attempt } if step(&key).is_some_and(|step| Own::of_step(&step).is_some()) => {
                vec![Decided::Attempt { run: run.id().clone(), key: key.clone(), attempt, at }, end(&key, (OutcomeState::Done, "done".to_owned()))]
            }
            NextMove::Sleep { key, .. } => {
                vec![Decided::Attempt { run: run.id().clone(), key: key.clone(), attempt: 1, at }, end(&key, (OutcomeState::Done, "waited".to_owned()))]
            }
            NextMove::Attempt { key, attempt } => {
                let attempted = Decided::Attempt { run: run.id().clone(), key: key.clone(), attempt, at };
                let answer = step(&key).and_then(|step| devices.attempt(&step));
                std::iter::once(attempted).chain(answer.map(|answer| end(&key, answer))).collect()
            }
            NextMove::Settle { key, attempt } => match step(&key).map(|step| (devices.read_back(&step), step)) {
                // Nothing of it is there: it is carried out again, as the engine does.
                Some(((OutcomeState::Undone, _), step)) => {
                    let again = Decided::Attempt { run: run.id().clone(), key: key.clone(), attempt: attempt + 1, at };
                    std::iter::once(again).chain(devices.attempt(&step).map(|answer| end(&key, answer))).collect()
                }
                Some((answer, _)) => vec![end(&key, answer)],
                None => Vec::new(),
            },
            NextMove::Answer { key, state } => vec![end(&key, (state, step(&key).map(|step| step.reason).unwrap_or_default()))],
            NextMove::Hold { reason, .. } => vec![self.moved(run, RunState::Waiting, reason)],
            NextMove::Ask { .. } | NextMove::Wait | NextMove::Finished => Vec::new(),
        }
    }

    fn evaluate(&self, run: &Run, log: &mut Vec<String>) -> Vec<Decided> {
        if self.playbook.on_failure != OnFailure::Continue
            && let Some(failed) = run.failure()
        {
            return vec![self.moved(run, RunState::Failed, format!("{} failed", failed.step.action))];
        }
        let evaluation = evaluate(&Evaluate {
            playbook: self.playbook.name.clone(),
            script: self.playbook.script.clone(),
            actions: self.playbook.actions.clone(),
            finding: Box::new(self.finding.clone()),
            devices: self.inventory.devices.clone(),
            history: run.history(),
            plan: false,
            limits: Limits::default(),
        });
        *log = evaluation.log;
        match evaluation.progress {
            Progress::Ready(calls) => calls.iter().map(|call| Decided::Intent { step: Box::new(self.step(run, call)), at: self.finding.time }).collect(),
            Progress::Done => vec![self.moved(run, RunState::Done, String::new())],
            Progress::Failed { message, .. } => vec![self.moved(run, RunState::Failed, message)],
            Progress::Diverged { detail, .. } => vec![self.moved(run, RunState::Diverged, detail)],
        }
    }

    fn moved(&self, run: &Run, state: RunState, reason: String) -> Decided {
        Decided::RunMoved { run: run.id().clone(), state, reason, at: self.finding.time }
    }

    /// What a call becomes: what catalogue or guard refuse is a step too, with the reason.
    fn step(&self, run: &Run, call: &Call) -> Step {
        let mut step = Step {
            run: run.id().clone(),
            key: call.key.clone(),
            playbook: self.playbook.name.clone(),
            device: call.device.clone(),
            action: call.action.clone(),
            params: call.params.clone(),
            commands: Vec::new(),
            stdin: Vec::new(),
            decision: Verdict::Auto,
            reason: String::new(),
        };
        if let Err(why) = self.decide(&mut step) {
            (step.decision, step.reason) = (Verdict::Refused, why);
        }
        step
    }

    fn decide(&self, step: &mut Step) -> Result<(), String> {
        if let Some(own) = Own::of(&step.device, &step.action, &step.params) {
            step.params = own?.1;
            return Ok(());
        }
        let device = self.inventory.by_name(&step.device).ok_or_else(|| format!("there is no device {}", step.device))?;
        let action = self.catalogue.get(&step.action).ok_or_else(|| format!("there is no action {}", step.action))?;
        let params = action.params(&step.params).map_err(|error| error.to_string())?;
        step.params = params.to_json();
        let plan = action::plan(action, device.platform, &params).map_err(|error| error.to_string())?;
        (step.commands, step.stdin) = (plan.commands, plan.stdin);
        let guard = Guard::new(&GuardConfig::default(), self.inventory, []);
        guard.check_call(action, &params, &GuardFacts::default()).map_err(|refusal| refusal.to_string())
    }

    /// The steps whose effects a failed run with `on_failure = "undo"` undoes, in that order; those without a lifetime stay.
    pub fn undone<'r>(&self, run: &'r Run) -> impl Iterator<Item = &'r Step> {
        let undoes = self.playbook.on_failure == OnFailure::Undo && run.state().0 == RunState::Failed;
        let lasts = |step: &Step| {
            let action = self.catalogue.get(&step.action);
            action.is_some_and(|action| action.params(&step.params).is_ok_and(|params| action.lifetime(&params).is_some()))
        };
        run.done().filter(move |step| undoes && lasts(step))
    }
}

impl Run {
    /// The steps that have made an effect, the newest first.
    pub fn done(&self) -> impl Iterator<Item = &Step> {
        let made = |step: &&RunStep| step.outcome.as_ref().is_some_and(|end| matches!(end.state, OutcomeState::Enforced | OutcomeState::Partial));
        self.steps().iter().rev().filter(made).map(|step| &step.step)
    }
}

/// The beginning of a case's time, when it does not say.
pub(super) const CASE_TIME: Time = Time(1_795_266_492_000_000_000);
