//! What a script would ask for from where its run stands, decided as it would be, and never carried out.

use std::sync::Arc;

use super::effects::lock;
use super::policy::{Policy, Used};
use super::worker::{Worker, WorkerError};
use crate::model::{Decided, Device, Finding, Outcome, OutcomeState, Step, Time, Verdict};
use crate::playbook::{Call, Evaluate, Limits, Playbook, Progress, Recorded};

/// What an action that was not carried out answers its script.
pub(super) const ASSUMED: &str = "assumed";

/// One evaluation of a run's script.
pub(super) fn request(playbook: &Playbook, finding: &Finding, devices: &[Device], history: Vec<Recorded>, plan: bool) -> Evaluate {
    Evaluate {
        playbook: playbook.name.clone(),
        script: playbook.script.clone(),
        actions: playbook.actions.clone(),
        finding: Box::new(finding.clone()),
        devices: devices.to_vec(),
        history,
        plan,
        limits: Limits::default(),
    }
}

/// Whose plan is made, and by what.
pub(super) struct Planner<'a> {
    pub(super) worker: &'a Worker,
    pub(super) policy: &'a Policy,
    /// Copies: what the plan would use up counts in them.
    pub(super) used: Used<'a>,
    pub(super) run: &'a Arc<str>,
    pub(super) playbook: &'a Playbook,
    pub(super) finding: &'a Finding,
}

impl Planner<'_> {
    /// The steps when each action answers its assumed outcome, and one that is refused that it is refused; they are put into `steps`
    /// as far as they are known. How the script ends then.
    ///
    /// # Errors
    /// The script cannot be evaluated.
    pub(super) async fn plan(&self, mut history: Vec<Recorded>, steps: &mut Vec<Step>) -> Result<Progress, WorkerError> {
        // Each turn but the last adds a step at least, and a script has a bounded number of them.
        loop {
            let devices = self.policy.content.borrow().inventory.devices.clone();
            let evaluation = self.worker.evaluate(request(self.playbook, self.finding, &devices, history.clone(), true)).await?;
            let mut refused = false;
            for call in &evaluation.planned {
                let step = self.step(call);
                refused = step.decision == Verdict::Refused;
                history.push(answered(&step, call, self.used.now));
                steps.push(step);
                if refused {
                    break;
                }
            }
            if !refused {
                return Ok(evaluation.progress);
            }
        }
    }

    /// Decides on a step, and counts it as carried out when it would be.
    fn step(&self, call: &Call) -> Step {
        let (step, at) = (self.policy.step(&self.used, self.run, self.playbook, self.finding, call), self.used.now);
        if matches!(step.decision, Verdict::Auto | Verdict::Approve) {
            lock(self.used.budgets).apply(&Decided::Intent { step: Box::new(Step { decision: Verdict::Auto, ..step.clone() }), at });
        }
        if step.decision == Verdict::Auto {
            let mut leases = lock(self.used.leases);
            let granted = leases.granted(&step, &Outcome::new(OutcomeState::Enforced, ASSUMED, at));
            // One that cannot follow was granted before.
            granted.iter().for_each(|lease| drop(leases.apply(lease)));
        }
        step
    }
}

/// What the script is told in its next evaluation.
fn answered(step: &Step, call: &Call, at: Time) -> Recorded {
    let outcome = match step.decision {
        Verdict::Refused => Outcome::new(OutcomeState::Refused, &step.reason, at),
        Verdict::Auto | Verdict::Approve | Verdict::Observe => Outcome::new(OutcomeState::Planned, ASSUMED, at),
    };
    Recorded { key: call.key.clone(), device: call.device.clone(), action: call.action.clone(), outcome }
}
