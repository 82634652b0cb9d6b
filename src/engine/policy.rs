//! From what a script asks for to a step: the device, the parameters, the commands, and whether it may be carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use serde_json::Map;
use tokio::sync::watch;

use super::effects::lock;
use super::own;
use crate::action::{self, Action, Budgets, Ceilings, Guard, GuardFacts, Leases, Params, Posture};
use crate::config::{Content, Settings};
use crate::endpoint::Endpoint;
use crate::model::{Device, Finding, Step, Time, Verdict};
use crate::playbook::{Call, Own, Playbook};

/// Everything that decides on a step.
pub(super) struct Policy {
    pub(super) content: watch::Receiver<Arc<Content>>,
    pub(super) ceilings: Ceilings,
    /// `[publish.NAME]` that take messages of playbooks.
    pub(super) outlets: BTreeSet<Arc<str>>,
    /// `[endpoint.NAME]`
    pub(super) endpoints: BTreeMap<Arc<str>, Endpoint>,
}

/// Where playbooks may send requests to.
pub(super) fn endpoints(settings: &Settings) -> BTreeMap<Arc<str>, Endpoint> {
    settings.endpoint.iter().map(|(name, config)| (name.as_str().into(), Endpoint::new(config))).collect()
}

/// The names of what takes messages of playbooks.
pub(super) fn outlets(settings: &Settings) -> BTreeSet<Arc<str>> {
    settings.publish.iter().filter(|(_, publish)| !publish.messages.is_empty()).map(|(name, _)| name.as_str().into()).collect()
}

/// What earlier steps have used up, and when and under which posture the step is decided.
pub(super) struct Used<'a> {
    pub(super) leases: &'a Mutex<Leases>,
    pub(super) budgets: &'a Mutex<Budgets>,
    pub(super) posture: Posture,
    pub(super) configured: Posture,
    pub(super) now: Time,
}

/// What a call names, found.
struct Found {
    action: Action,
    device: Device,
    params: Params,
}

impl Policy {
    /// The step that a call becomes. What cannot be carried out is a step too, refused with its reason.
    pub(super) fn step(&self, used: &Used<'_>, run: &Arc<str>, playbook: &Playbook, finding: &Finding, call: &Call) -> Step {
        let mut step = Step {
            run: run.clone(),
            key: call.key.clone(),
            playbook: playbook.name.clone(),
            device: call.device.clone(),
            action: call.action.clone(),
            params: Map::new(),
            commands: Vec::new(),
            stdin: Vec::new(),
            decision: Verdict::Refused,
            reason: String::new(),
        };
        let decided = match Own::of(&call.device, &call.action, &call.params) {
            Some(own) => own.and_then(|(own, params)| {
                step.params = params;
                own::decide(self, used, playbook, finding, &own, &mut step)
            }),
            None => self.decide(used, playbook, finding, call, &mut step),
        };
        if let Err(reason) = decided {
            step.decision = Verdict::Refused;
            step.reason = reason;
        }
        step
    }

    /// Whether a step that was decided may still be carried out, as it was shown.
    ///
    /// # Errors
    /// Why not, one sentence.
    pub(super) fn still(&self, used: &Used<'_>, playbook: &Playbook, finding: &Finding, step: &Step) -> Result<(), String> {
        let call = Call { key: step.key.clone(), device: step.device.clone(), action: step.action.clone(), params: step.params.clone() };
        let now = self.step(used, &step.run, playbook, finding, &call);
        match now.decision {
            Verdict::Refused | Verdict::Observe => Err(now.reason),
            Verdict::Approve if step.decision == Verdict::Auto => Err(now.reason),
            Verdict::Approve | Verdict::Auto if (&now.commands, &now.stdin) != (&step.commands, &step.stdin) => {
                Err(format!("the commands of {} are others than when it was decided", step.action))
            }
            Verdict::Approve | Verdict::Auto => Ok(()),
        }
    }

    fn decide(&self, used: &Used<'_>, playbook: &Playbook, finding: &Finding, call: &Call, step: &mut Step) -> Result<(), String> {
        let Found { action, device, params } = self.find(call)?;
        step.params = params.to_json();
        if action.lifetime(&params).is_some() && !lock(used.leases).has_room() {
            return Err(format!("{} effects are looked after already, which is the most", action::MAX_LEASES));
        }
        let plan = action::plan(&action, device.platform, &params).map_err(|error| error.to_string())?;
        (step.commands, step.stdin) = (plan.commands, plan.stdin);
        self.guard().check_call(&action, &params, &GuardFacts::default()).map_err(|refusal| refusal.to_string())?;
        self.authorise(used, playbook, finding, step);
        within_budget(used, playbook, step)
    }

    /// What must not be touched, as far as it is known without a device.
    pub(super) fn guard(&self) -> Guard {
        let content = self.content.borrow();
        Guard::new(&content.guard, &content.inventory, [])
    }

    /// Whether a step's action may be carried out, by who may act.
    pub(super) fn authorise(&self, used: &Used<'_>, playbook: &Playbook, finding: &Finding, step: &mut Step) {
        let decision = action::authorise(&action::Request {
            playbook: &playbook.name,
            action: &step.action,
            posture: used.posture,
            configured: used.configured,
            mode: playbook.mode,
            ceiling: self.ceilings.of(&step.action),
            trust: finding.trust,
        });
        (step.decision, step.reason) = (decision.verdict, decision.reason);
    }

    fn find(&self, call: &Call) -> Result<Found, String> {
        let content = self.content.borrow().clone();
        let device = content.inventory.by_name(&call.device).cloned().ok_or_else(|| format!("device {} is not in devices.toml", call.device))?;
        let action = content.catalogue.get(&call.action).cloned().ok_or_else(|| format!("there is no action {}", call.action))?;
        let params = action.params(&call.params).map_err(|error| error.to_string())?;
        Ok(Found { action, device, params })
    }
}

/// Whether the budget has room for a step that may be carried out.
pub(super) fn within_budget(used: &Used<'_>, playbook: &Playbook, step: &Step) -> Result<(), String> {
    match step.decision {
        Verdict::Auto | Verdict::Approve => lock(used.budgets).check(step, playbook.budget, used.now).map_err(|over| over.to_string()),
        Verdict::Observe | Verdict::Refused => Ok(()),
    }
}
