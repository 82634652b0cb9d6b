//! What opmas does itself for a run: it waits, has a person asked, tells a channel, asks another program.

use std::sync::Arc;

use serde_json::Value;

use super::effects::lock;
use super::policy::{Policy, Used, within_budget};
use super::runs::{Runner, ended};
use crate::action::{Mode, Posture};
use crate::clock;
use crate::diag::nearest;
use crate::executor::{Ran, Reply, Request};
use crate::model::{Command, Decided, Finding, FindingId, Outcome, OutcomeState, Step, Verdict};
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
        policy.authorise(used, playbook, finding, step);
        return Ok(());
    }
    if let Own::Request { to } = own {
        let endpoint = policy.endpoints.get(to).ok_or_else(|| unknown(policy, to))?;
        let values = step.params.get("values").and_then(Value::as_object).cloned().unwrap_or_default();
        let planned = endpoint.config.plan(&values)?;
        (step.commands, step.stdin) = (vec![endpoint.config.shown(&planned)], vec![planned.json]);
        for name in &endpoint.config.guarded {
            let value = values.get(name).ok_or_else(|| format!("[endpoint.{to}] guards `{name}`, which is not given"))?;
            policy.guard().check_value(value).map_err(|why| format!("`{name}`: {why}"))?;
        }
        policy.authorise(used, playbook, finding, step);
        return within_budget(used, playbook, step);
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

fn unknown(policy: &Policy, name: &str) -> String {
    match nearest(name, policy.endpoints.keys().map(|known| &**known)) {
        Some(known) => format!("there is no [endpoint.{}] in opmas.toml; did you mean `{known}`?", name.escape_debug()),
        None => format!("there is no [endpoint.{}] in opmas.toml", name.escape_debug()),
    }
}

impl Runner {
    /// Has a task carried out by the executor, or by the endpoint that it names. At an endpoint nothing can be read back: what may be
    /// repeated counts as not there.
    pub(super) async fn perform(&self, request: Request) -> Reply {
        let Some(Ok((Own::Request { to }, params))) = request.task().and_then(|task| Own::of(&task.device, &task.action, &task.params)) else {
            return self.hands.perform(request).await;
        };
        let mut reply = Reply::plain(Outcome::new(OutcomeState::Failed, "", clock::now()));
        let Some(endpoint) = self.policy.endpoints.get(&to) else {
            reply.outcome.detail = unknown(&self.policy, &to);
            return reply;
        };
        let Request::Apply(task) = request else {
            let (state, detail) = match endpoint.config.may_repeat() {
                true => (OutcomeState::Undone, "it is sent again"),
                false => (OutcomeState::Unknown, "opmas ended before its answer came; `repeat = true` in its [endpoint] would have it sent again"),
            };
            (reply.outcome.state, reply.outcome.detail) = (state, detail.to_owned());
            return reply;
        };
        let values = params.get("values").and_then(Value::as_object).cloned().unwrap_or_default();
        let planned = match endpoint.config.plan(&values) {
            Ok(planned) => planned,
            Err(why) => {
                (reply.outcome.state, reply.outcome.detail) = (OutcomeState::Refused, why);
                return reply;
            }
        };
        let begun = clock::now();
        let ended = endpoint.send(&planned, &task.id).await;
        let took = clock::now().since(begun);
        metrics::counter!("opmas_http_requests_total", "endpoint" => to.to_string(), "state" => ended.state.word()).increment(1);
        if !ended.again {
            let command = Command { argv: endpoint.config.shown(&planned), stdin: planned.json };
            let took_ms = u64::try_from(took.to_std().as_millis()).unwrap_or(u64::MAX);
            reply.commands.push(Ran { command, exit: ended.status.map(i32::from), said: String::new(), took_ms });
            reply.outcome.took_ms = took_ms;
        }
        (reply.outcome.state, reply.outcome.detail, reply.evidence) = (ended.state, ended.detail, ended.body);
        reply
    }
    /// Does it: everything that follows is recorded in one batch, so that it is done once.
    pub(super) fn own(&self, run: &Run, finding: &Finding, key: &Arc<str>, own: &Own) -> Vec<Decided> {
        let attempt = run.step(key).map_or(0, |step| step.attempts) + 1;
        let mut records = vec![Decided::Attempt { run: run.id().clone(), key: key.clone(), attempt, at: clock::now() }];
        match own {
            Own::Wait(span) => records.push(ended(run, key, OutcomeState::Done, &format!("{span} have passed"))),
            Own::Approve => records.push(ended(run, key, OutcomeState::Done, "approved")),
            // It is carried out like a step on a device.
            Own::Request { .. } => {}
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
