//! Effects with a lifetime: verified in between, asserted again when they are gone, ended once.
//!
//! The ledger's records make the state ([`Leases::apply`]); [`Leases::due`] says what is to be done now, and [`Leases::done`] turns what
//! came of it into the next record. After a restart the records alone give the same leases, and everything that is due is due at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::catalogue::{Action, Catalogue};
use super::facts::GuardFacts;
use super::guard::Guard;
use super::lease::{IllegalMove, Lease, LeaseId, LeaseOp, LeaseState, MAX_WAIT, Want, next_state};
use super::value::Grammar;
use crate::model::{Decided, LeaseChange, Outcome, OutcomeState, Span, Step, Time};

/// Most leases at a time; [`Leases::has_room`] is asked before a step with a lifetime is carried out.
pub const MAX_LEASES: usize = 10_000;
/// Most work that one [`Leases::due`] hands out: the next call hands out the rest.
pub const MAX_WORK: usize = 64;
/// How often an effect is read back, by default.
pub const VERIFY_EVERY: Span = Span::secs(60);

/// Something to be done for a lease, now. [`Leases::done`] must be told what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseWork {
    /// Which lease.
    pub id: LeaseId,
    /// What.
    pub op: LeaseOp,
    /// The run that records carry.
    pub run: Arc<str>,
    /// Its step.
    pub key: Arc<str>,
    /// Parameters; the lifetime is what is left of it, in whole seconds.
    pub params: Map<String, Value>,
    /// When the effect ends. Work that waited in a queue until then is not carried out, except [`LeaseOp::End`].
    pub until: Time,
}

/// All leases.
#[derive(Clone, Debug)]
pub struct Leases {
    catalogue: Arc<Catalogue>,
    verify_every: Span,
    leases: BTreeMap<LeaseId, Lease>,
}

impl Leases {
    /// No leases; `verify_every` is at least a second.
    #[must_use]
    pub fn new(catalogue: Arc<Catalogue>, verify_every: Span) -> Leases {
        Leases { catalogue, verify_every: verify_every.max(Span::secs(1)), leases: BTreeMap::new() }
    }

    /// Takes over a changed catalogue. An effect may be another one for it: the leases stand as if they had been granted under it.
    pub fn configure(&mut self, catalogue: Arc<Catalogue>) {
        self.catalogue = catalogue;
        for (id, mut lease) in std::mem::take(&mut self.leases) {
            let new = self.id(&id.device, &id.action, &lease.params);
            if new != id {
                // What is under way is answered to nobody, and due again.
                (lease.id, lease.in_flight) = (new.clone(), None);
            }
            self.leases.insert(new, lease);
        }
    }

    /// Every lease that has not ended, in a fixed order.
    pub fn active(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// The lease of an effect, when it has not ended.
    #[must_use]
    pub fn get(&self, id: &LeaseId) -> Option<&Lease> {
        self.leases.get(id)
    }

    /// Whether another lease can be looked after.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.leases.len() < MAX_LEASES
    }

    /// Which effect a call makes.
    #[must_use]
    pub fn id(&self, device: &Arc<str>, action: &Arc<str>, params: &Map<String, Value>) -> LeaseId {
        LeaseId { device: device.clone(), action: action.clone(), effect: effect(self.catalogue.get(action), params) }
    }

    /// When [`Leases::due`] has something next, as it is at `now`; `None` when nothing waits for time.
    #[must_use]
    pub fn wakes(&self, now: Time) -> Option<Time> {
        self.leases.values().filter_map(|lease| lease.wakes(now)).min()
    }

    /// The record that makes a lease of a step that was carried out; `None` when it made no effect or the action has no lifetime.
    #[must_use]
    pub fn granted(&self, step: &Step, outcome: &Outcome) -> Option<Decided> {
        let action = self.catalogue.get(&step.action)?;
        let lifetime = action.lifetime(&action.params(&step.params).ok()?)?;
        let made = matches!(outcome.state, OutcomeState::Enforced | OutcomeState::Partial);
        made.then(|| Decided::Lease {
            run: step.run.clone(),
            key: step.key.clone(),
            device: step.device.clone(),
            action: step.action.clone(),
            params: step.params.clone(),
            change: LeaseChange::Granted,
            // What was asked for, not what the device says: if it ends the effect earlier, it is asserted again.
            until: outcome.at.plus(lifetime),
            at: outcome.at,
            detail: outcome.detail.clone(),
        })
    }

    /// Takes a ledger record into account; records that are not about leases change nothing.
    ///
    /// # Errors
    /// The transition table does not have the move; nothing changes.
    pub fn apply(&mut self, decided: &Decided) -> Result<(), IllegalMove> {
        let Decided::Lease { run, key, device, action, params, change, until, at, detail } = decided else { return Ok(()) };
        let id = self.id(device, action, params);
        let from = self.leases.get(&id).map(|lease| lease.state);
        let Some(to) = next_state(from, *change) else { return Err(illegal(id, *change)) };
        let Some(state) = to else {
            self.leases.remove(&id);
            return Ok(());
        };
        let lease = self.leases.entry(id.clone()).or_insert_with(|| Lease::new(id, run, key, *at, *until));
        lease.state = state;
        lease.detail.clone_from(detail);
        match change {
            LeaseChange::Granted => grant(lease, &Grant { run, key, params, until: *until, at: *at }, self.verify_every),
            // `done` may have put the next look off further.
            LeaseChange::Reasserted => {
                lease.made = *at;
                lease.at_ease(*at, lease.next.max(at.plus(self.verify_every)));
            }
            LeaseChange::Lost => lease.want = Want::Reassert,
            LeaseChange::Extended | LeaseChange::Revoked => {
                // What was in the way before is tried anew.
                (lease.until, lease.end_next, lease.next) = (*until, Time::MIN, *at);
                (lease.want, lease.trouble, lease.failures) = (Want::Reassert, None, 0);
            }
            LeaseChange::Ended => {}
        }
        Ok(())
    }

    /// What is to be done at `now`, ends first, at most [`MAX_WORK`]. Each is handed out once, until [`Leases::done`].
    pub fn due(&mut self, now: Time) -> Vec<LeaseWork> {
        let mut needing: Vec<(LeaseOp, Time, LeaseId)> =
            self.leases.values().filter_map(|lease| Some((lease.needs(now)?, lease.next, lease.id.clone()))).collect();
        needing.sort();
        let mut due = Vec::new();
        for (op, _, id) in needing.into_iter().take(MAX_WORK) {
            let action = self.catalogue.get(&id.action);
            let Some(lease) = self.leases.get_mut(&id) else { continue };
            match params_left(action, lease, op, now) {
                Some(params) => {
                    lease.in_flight = Some(op);
                    due.push(LeaseWork { id, op, run: lease.run.clone(), key: lease.key.clone(), params, until: lease.until });
                }
                // Too little is left for the action's grammar: the device ends it by itself in a moment.
                None => lease.next = lease.until,
            }
        }
        due
    }

    /// What came of the work that [`Leases::due`] handed out: `outcome` as the executor read it back (`undone`: it is absent).
    /// The record, if there is one, is to be written and then given to [`Leases::apply`].
    pub fn done(&mut self, id: &LeaseId, now: Time, outcome: &Outcome) -> Option<Decided> {
        let (every, renew) = (self.verify_every, self.catalogue.get(&id.action).and_then(|action| action.renew));
        let lease = self.leases.get_mut(id)?;
        let op = lease.in_flight.take()?;
        if op == LeaseOp::Verify && outcome.state == OutcomeState::Enforced && renew.is_some_and(|renew| now.since(lease.made) >= renew) {
            lease.at_ease(now, now);
            lease.want = Want::Reassert;
            return None;
        }
        let change = settle(lease, op, now, outcome, every)?;
        Some(lease.changed(change, lease.until, now, &outcome.detail))
    }

    /// A device can be reached: every effect on it is read back at once, since something there may have taken them away, and ends that were put off
    /// are tried.
    pub fn look_at(&mut self, device: &str, now: Time) {
        self.leases.values_mut().filter(|lease| *lease.id.device == *device).for_each(|lease| lease.look_at(now));
    }

    /// The record that ends the effect which a step that was carried out has taken away by the name of another action.
    #[must_use]
    pub fn ended_by(&self, step: &Step, outcome: &Outcome) -> Option<Decided> {
        let ends = self.catalogue.get(&step.action)?.ends.clone()?;
        let lease = self.leases.get(&self.id(&step.device, &ends, &step.params))?;
        let done = matches!(outcome.state, OutcomeState::Enforced | OutcomeState::Partial);
        done.then(|| lease.changed(LeaseChange::Revoked, outcome.at, outcome.at, &format!("ended by {} of run {}", step.action, step.run)))
    }

    /// The longest lifetime that an action gives its effect.
    #[must_use]
    pub fn longest(&self, action: &str) -> Option<Span> {
        let action = self.catalogue.get(action)?;
        match action.param(action.lease.as_deref()?)?.grammar {
            Grammar::Duration { max, .. } => Some(max),
            _ => None,
        }
    }

    /// The ends of effects that the guard would not let be made any more.
    #[must_use]
    pub fn protected(&self, guard: &Guard, now: Time) -> Vec<Decided> {
        let refused = |lease: &&Lease| {
            let action = self.catalogue.get(&lease.id.action)?;
            let params = action.params(&lease.params).ok()?;
            guard.check_call(action, &params, &GuardFacts::default()).err()
        };
        let held = self.leases.values().filter(|lease| now < lease.until);
        held.filter_map(|lease| Some(lease.changed(LeaseChange::Revoked, now, now, &format!("ended by the guard: {}", refused(&lease)?)))).collect()
    }
}

fn illegal(id: LeaseId, change: LeaseChange) -> IllegalMove {
    IllegalMove { device: id.device, action: id.action, effect: id.effect, change, from: "not granted, or has ended" }
}

struct Grant<'a> {
    run: &'a Arc<str>,
    key: &'a Arc<str>,
    params: &'a Map<String, Value>,
    until: Time,
    at: Time,
}

fn grant(lease: &mut Lease, grant: &Grant<'_>, every: Span) {
    lease.own(grant.run, grant.key);
    lease.made = grant.at;
    lease.at_ease(grant.at, grant.at.plus(every));
    if grant.until >= lease.until {
        lease.until = grant.until;
        lease.params.clone_from(grant.params);
        lease.end_next = Time::MIN;
    } else {
        // The later call has shortened the time on the device, and the longer one still holds.
        lease.want = Want::Reassert;
        lease.next = grant.at;
    }
}

/// What an outcome means for the lease: when it is looked at next, and what the ledger should say.
fn settle(lease: &mut Lease, op: LeaseOp, now: Time, outcome: &Outcome, every: Span) -> Option<LeaseChange> {
    use OutcomeState::{Enforced, Partial, Undone, Unknown};
    match (op, outcome.state) {
        (LeaseOp::Verify, Enforced) => {
            lease.at_ease(now, now.plus(every));
            (lease.state == LeaseState::Lost).then_some(LeaseChange::Reasserted)
        }
        // It was no better when it was granted: asserting it again would change nothing.
        (LeaseOp::Verify, Partial) if outcome.detail == lease.detail => {
            lease.at_ease(now, now.plus(every));
            None
        }
        (LeaseOp::Verify, Partial | Undone) => {
            lease.at_ease(now, now);
            lease.want = Want::Reassert;
            None
        }
        (LeaseOp::Reassert, Enforced) => Some(LeaseChange::Reasserted),
        (LeaseOp::Reassert, Partial) => {
            lease.at_ease(now, now.plus(every.max(MAX_WAIT)));
            Some(LeaseChange::Reasserted)
        }
        // Granted anew while it was being ended: what was taken away belongs there.
        (LeaseOp::End, _) if now < lease.until => {
            lease.at_ease(now, now);
            lease.want = Want::Reassert;
            None
        }
        (LeaseOp::End, Undone) => Some(LeaseChange::Ended),
        (LeaseOp::Reassert, Unknown) => {
            // It may be there now: read back before anything else.
            lease.put_off(op, now, &outcome.detail);
            lease.want = Want::Verify;
            None
        }
        (op, _) => {
            lease.put_off(op, now, &outcome.detail);
            (op == LeaseOp::Reassert && lease.state == LeaseState::Held).then_some(LeaseChange::Lost)
        }
    }
}

/// The parameters with the lifetime that is left; `None` when that is less than the action takes.
fn params_left(action: Option<&Action>, lease: &Lease, op: LeaseOp, now: Time) -> Option<Map<String, Value>> {
    let mut params = lease.params.clone();
    let lifetime = action.and_then(|action| action.param(action.lease.as_deref()?));
    if let (Some(param), LeaseOp::Reassert | LeaseOp::Verify) = (lifetime, op)
        && let Grammar::Duration { min, max } = param.grammar
    {
        let left = Span::secs(lease.until.since(now).0.saturating_add(Span::secs(1).0 - 1) / Span::secs(1).0);
        if left < min {
            return None;
        }
        params.insert(param.name.clone(), Value::String(left.min(max).to_string()));
    }
    Some(params)
}

/// As [`Action::effect`], over a record's canonical parameters; of an action that the catalogue no longer has, all of them.
fn effect(action: Option<&Action>, params: &Map<String, Value>) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match action {
        Some(action) => {
            let identifying = action.idempotence.iter().filter_map(|name| Some(format!("{name}={}", text(params.get(name)?))));
            identifying.collect::<Vec<_>>().join(" ")
        }
        None => Value::Object(params.clone()).to_string(),
    }
}
