//! One lease: what it is, which moves are legal, and when it needs what.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::model::{Decided, LeaseChange, Span, Time};

/// First wait after a device did not answer; doubled each time, up to [`MAX_WAIT`].
const FIRST_WAIT: Span = Span::secs(5);
/// Longest wait between two tries: a device that comes back is looked after within this time.
pub const MAX_WAIT: Span = Span::secs(300);
/// Most (run, step) pairs that are remembered for one effect; the oldest names stay.
const MAX_OWNERS: usize = 64;

/// Which effect on which device: two runs that ask for the same one share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId {
    /// The device's inventory name.
    pub device: Arc<str>,
    /// The action.
    pub action: Arc<str>,
    /// The values that identify the effect ([`super::Action::effect`]).
    pub effect: String,
}

/// Whether the effect is on the device, as far as the ledger knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseState {
    /// It was read back.
    Held,
    /// It was gone, and asserting it again failed.
    Lost,
}

/// A move that the transition table does not have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the lease of {action} on {device} ({effect}) cannot be {change:?}: it is {from}")]
pub struct IllegalMove {
    /// The device.
    pub device: Arc<str>,
    /// The action.
    pub action: Arc<str>,
    /// The effect.
    pub effect: String,
    /// What the record says.
    pub change: LeaseChange,
    /// What it was.
    pub from: &'static str,
}

/// The transition table; the outer `None` is an illegal move, the inner one is the end.
#[must_use]
#[expect(clippy::option_option, reason = "illegal, ended and a state are three answers")]
pub(super) fn next_state(from: Option<LeaseState>, change: LeaseChange) -> Option<Option<LeaseState>> {
    match (from, change) {
        (_, LeaseChange::Granted) | (Some(_), LeaseChange::Reasserted) => Some(Some(LeaseState::Held)),
        (Some(_), LeaseChange::Lost) => Some(Some(LeaseState::Lost)),
        (Some(state), LeaseChange::Extended | LeaseChange::Revoked) => Some(Some(state)),
        (Some(_), LeaseChange::Ended) => Some(None),
        (None, _) => None,
    }
}

/// An effect with a lifetime.
#[derive(Clone, Debug, PartialEq)]
pub struct Lease {
    /// Which effect.
    pub id: LeaseId,
    /// The run that asked first; records of the lease carry it.
    pub run: Arc<str>,
    /// Its step.
    pub key: Arc<str>,
    /// Every (run, step) that asked for this effect.
    pub owners: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Canonical parameters as they were asked for.
    pub params: Map<String, Value>,
    /// Whether it is on the device.
    pub state: LeaseState,
    /// When it ends: the latest end that was asked for.
    pub until: Time,
    /// When it was first granted.
    pub since: Time,
    /// When the device last said how it is.
    pub seen: Time,
    /// What was last recorded.
    pub detail: String,
    /// Why the last try failed, when it did.
    pub trouble: Option<String>,
    pub(super) want: Want,
    /// When it was last made, as far as is known.
    pub(super) made: Time,
    /// Verified or asserted again not before this.
    pub(super) next: Time,
    /// Ended not before this: its end, or later when ending it has failed.
    pub(super) end_next: Time,
    pub(super) failures: u32,
    pub(super) in_flight: Option<LeaseOp>,
}

/// What the lease needs next, until its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Verify,
    Reassert,
}

/// What is to be done for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseOp {
    /// Undo it, and read back that it is gone.
    End,
    /// Apply it again for the time that is left, and read it back.
    Reassert,
    /// Read it back.
    Verify,
}

impl Lease {
    pub(super) fn new(id: LeaseId, run: &Arc<str>, key: &Arc<str>, at: Time, until: Time) -> Lease {
        Lease {
            id,
            run: run.clone(),
            key: key.clone(),
            owners: BTreeSet::new(),
            params: Map::new(),
            state: LeaseState::Held,
            until,
            since: at,
            seen: at,
            detail: String::new(),
            trouble: None,
            want: Want::Verify,
            made: at,
            next: at,
            end_next: Time::MIN,
            failures: 0,
            in_flight: None,
        }
    }

    /// What it is called by people.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}:{}", self.run, self.key)
    }

    /// Whether nothing is to be done for it at `now`, as far as is known.
    #[must_use]
    pub fn is_settled(&self, now: Time) -> bool {
        now < self.until && self.want == Want::Verify && self.in_flight.is_none()
    }

    /// The record of a change.
    #[must_use]
    pub fn changed(&self, change: LeaseChange, until: Time, at: Time, detail: &str) -> Decided {
        Decided::Lease {
            run: self.run.clone(),
            key: self.key.clone(),
            device: self.id.device.clone(),
            action: self.id.action.clone(),
            params: self.params.clone(),
            change,
            until,
            at,
            detail: detail.to_owned(),
        }
    }

    pub(super) fn own(&mut self, run: &Arc<str>, key: &Arc<str>) {
        if self.owners.len() < MAX_OWNERS {
            self.owners.insert((run.clone(), key.clone()));
        }
    }

    /// What it needs at `now`, if anything: after its end nothing but its end, ever.
    pub(super) fn needs(&self, now: Time) -> Option<LeaseOp> {
        if self.in_flight.is_some() {
            return None;
        }
        if now >= self.until {
            // The end does not wait for the next look, only for its own failures.
            return (now >= self.end_next).then_some(LeaseOp::End);
        }
        let op = if self.want == Want::Reassert { LeaseOp::Reassert } else { LeaseOp::Verify };
        (now >= self.next).then_some(op)
    }

    /// When it needs something next, as it is at `now`; `None` while something is under way.
    pub(super) fn wakes(&self, now: Time) -> Option<Time> {
        let looked_at = now.max(self.next) < self.until;
        self.in_flight.is_none().then(|| if looked_at { self.next } else { self.until.max(self.end_next) })
    }

    /// Its device can be reached: what was put off is tried now.
    pub(super) fn look_at(&mut self, now: Time) {
        (self.next, self.end_next) = (self.next.min(now), self.end_next.min(now));
    }

    /// Puts the next try off: 5 s, 10 s, 20 s … 5 min.
    pub(super) fn put_off(&mut self, op: LeaseOp, now: Time, trouble: &str) {
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(trouble.to_owned());
        let later = now.plus(self.wait());
        match op {
            LeaseOp::End => self.end_next = later,
            LeaseOp::Verify | LeaseOp::Reassert => self.next = later,
        }
    }

    fn wait(&self) -> Span {
        let doubled = FIRST_WAIT.0.saturating_mul(1 << self.failures.saturating_sub(1).min(16));
        Span(doubled.min(MAX_WAIT.0))
    }

    pub(super) fn at_ease(&mut self, now: Time, next: Time) {
        self.seen = now;
        self.want = Want::Verify;
        self.failures = 0;
        self.trouble = None;
        self.next = next;
    }
}
