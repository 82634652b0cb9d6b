//! What opmas does itself for a run: it waits, has a person asked, tells a channel.

use std::sync::Arc;

use super::effects::lock;
use super::policy::{Policy, Used};
use super::runs::{Runner, ended};
use crate::action::{self, Mode, Posture};
use crate::clock;
use crate::model::{Decided, Finding, FindingId, OutcomeState, Step, Verdict};
use crate::playbook::{Own, Playbook, Run};

/// Whether it is done: nothing in the posture or mode observe, an approval always asks.
///
/// # Errors
/// There is nothing of that name: one sentence.
pub(super) fn decide(policy: &Policy, used: &Used<'_>, playbook: &Playbook, finding: &Finding, own: &Own, step: &mut Step) -> Result<(), String> {
    if let Own::Publish { to } = own {
        if !policy.outlets.contains(to) {
            return Err(format!("there is no [publish.{to}] with `messages` in opmas.toml"));
        }
        let decision = action::authorise(&action::Request {
            playbook: &playbook.name,
            action: &step.action,
            posture: used.posture,
            mode: playbook.mode,
            ceiling: policy.ceilings.of(&step.action),
            trust: finding.trust,
        });
        (step.decision, step.reason) = (decision.verdict, decision.reason);
        return Ok(());
    }
    let (decision, reason) = if used.posture == Posture::Observe {
        (Verdict::Observe, "only shown: posture is observe".to_owned())
    } else if playbook.mode == Mode::Observe {
        (Verdict::Observe, format!("only shown: the mode of {} is observe", playbook.name))
    } else if *own == Own::Approve {
        (Verdict::Approve, "waits for approval: the script asks for it".to_owned())
    } else {
        (Verdict::Auto, "done by opmas itself".to_owned())
    };
    (step.decision, step.reason) = (decision, reason);
    Ok(())
}

impl Runner {
    /// Does it: everything that follows is recorded in one batch, so that it is done once.
    pub(super) fn own(&self, run: &Run, finding: &Finding, key: &Arc<str>, own: &Own) -> Vec<Decided> {
        let attempt = run.step(key).map_or(0, |step| step.attempts) + 1;
        let mut records = vec![Decided::Attempt { run: run.id().clone(), key: key.clone(), attempt, at: clock::now() }];
        match own {
            Own::Wait(span) => records.push(ended(run, key, OutcomeState::Done, &format!("{span} have passed"))),
            Own::Approve => records.push(ended(run, key, OutcomeState::Done, "approved")),
            Own::Publish { to } => {
                let body = run.step(key).and_then(|step| step.step.params.get("body")).cloned().unwrap_or_default();
                records.push(ended(run, key, OutcomeState::Done, &format!("given to [publish.{to}]")));
                records.push(Decided::Message {
                    publish: to.clone(),
                    run: run.id().clone(),
                    key: key.clone(),
                    playbook: run.playbook().clone(),
                    finding: finding.id.clone(),
                    body,
                    at: clock::now(),
                });
            }
            Own::Notify { channel } => match self.refusal(channel) {
                Some(why) => records.push(ended(run, key, OutcomeState::Failed, &why)),
                None => {
                    let delivery = FindingId::new(&["notify", run.id(), key]).0;
                    records.push(ended(run, key, OutcomeState::Done, &format!("given to the channel {channel} as delivery {delivery}")));
                    records.push(Decided::Delivery {
                        delivery,
                        route: format!("playbook {}", run.playbook()).into(),
                        channel: channel.clone(),
                        findings: vec![finding.id.clone()],
                        at: clock::now(),
                        of: None,
                    });
                }
            },
        }
        records
    }

    /// Why a channel cannot be told.
    fn refusal(&self, name: &str) -> Option<String> {
        let content = self.content.borrow().clone();
        match content.channels.get(name) {
            None => Some(format!("there is no channel {name}")),
            Some(channel) if !channel.enabled => Some(format!("the channel {name} is disabled in {}", channel.file)),
            Some(_) if !lock(&self.effects.outbox).has_room(name) => Some(format!("too many deliveries wait for the channel {name}")),
            Some(_) => None,
        }
    }
}
