//! Deliveries as the ledger tells of them: what waits, what is due, what was lost on the way. Pure: `now` comes in,
//! values go out; the engine appends them to the ledger and applies what it appended.
//!
//! ```text
//!            ┌── Outcome(retry) ◄────────────┐
//!            ▼                               │
//! Delivery ─► waiting ── Attempt ─► open ────┼── Outcome(sent)
//!               │                            ├── Outcome(failed)
//!               └── Outcome(failed)          └── Outcome(unknown)
//! ```
//! `Outcome(retry)` and `Outcome(failed)` also come to a waiting delivery: the way to the channel broke before an attempt.

mod backoff;
mod decide;
mod queue;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::channel::Repeat;
use super::load::Channels;
use crate::model::{Decided, DeliveryState, FindingId, OfAlert, Time};

pub use backoff::backoff;
pub use decide::{MAX_AGE, MAX_TRIES};
pub use queue::IN_ORDER_TRIES;

/// Deliveries that may wait for one channel; beyond it `intend` refuses new ones and says so.
pub const MAX_WAITING: usize = 10_000;
/// Settled deliveries that are remembered, to be listed and to recognise a second settlement.
const MAX_SETTLED: usize = 10_000;

/// One delivery that is to be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its id, the idempotency key.
    pub delivery: Arc<str>,
    /// The route that made it.
    pub route: Arc<str>,
    /// Where to.
    pub channel: Arc<str>,
    /// What it tells of.
    pub findings: Vec<FindingId>,
    /// When it was intended: the alert's time, the same in every try.
    pub at: Time,
    /// 1 for the first.
    pub attempt: u32,
    /// What it tells of which alert.
    pub of: Option<Box<OfAlert>>,
}

/// How a delivery stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// To be sent, not before `from`, after `tries` that did not work.
    Waiting {
        /// So many tries were answered with `retry`.
        tries: u32,
        /// Not before.
        from: Time,
    },
    /// An attempt is recorded, its outcome is not.
    Open {
        /// Which attempt.
        attempt: u32,
        /// When it was recorded.
        at: Time,
    },
    /// It will not be tried again.
    Settled(DeliveryState),
}

/// A ledger record that does not follow from those before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The same delivery is intended a second time.
    #[error("delivery {0} is intended a second time")]
    Twice(Arc<str>),
    /// Nothing is known of it.
    #[error("delivery {0} was never intended")]
    NoSuch(Arc<str>),
    /// It stands where this cannot follow.
    #[error("delivery {delivery}: {what} cannot follow {standing:?}")]
    Move {
        /// Which.
        delivery: Arc<str>,
        /// What came.
        what: &'static str,
        /// Where it stands.
        standing: Standing,
    },
}

#[derive(Clone, Debug)]
struct Delivery {
    /// What would be sent; its `attempt` is not kept up to date, `standing` is.
    due: Due,
    standing: Standing,
    /// What the channel calls the message.
    receipt: Option<Arc<str>>,
}

/// All deliveries that are not settled, and the latest that are.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    repeat: BTreeMap<Arc<str>, Repeat>,
    deliveries: BTreeMap<Arc<str>, Delivery>,
    /// By channel, in the order of intent; only what is not settled.
    queues: BTreeMap<Arc<str>, VecDeque<Arc<str>>>,
    /// Oldest first.
    settled: VecDeque<Arc<str>>,
    /// Being worked on right now; not in the ledger, gone with the process.
    claimed: BTreeSet<Arc<str>>,
}

impl Outbox {
    /// An empty one. The channels say which of them may be repeated after a lost answer.
    #[must_use]
    pub fn new(channels: &Channels) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.configure(channels);
        outbox
    }

    /// Takes over changed channels. A channel that is not there any more is treated as one that may not be repeated.
    pub fn configure(&mut self, channels: &Channels) {
        self.repeat = channels.iter().map(|channel| (channel.name.clone(), channel.integration.repeat())).collect();
    }

    /// Takes in a ledger record; records that are not about deliveries change nothing.
    ///
    /// # Errors
    /// [`Illegal`] when it does not follow from those before it; nothing is changed then.
    pub fn apply(&mut self, decided: &Decided) -> Result<(), Illegal> {
        match decided {
            Decided::Delivery { delivery, route, channel, findings, at, of } => self.intended(Due {
                delivery: delivery.clone(),
                route: route.clone(),
                channel: channel.clone(),
                findings: findings.clone(),
                at: *at,
                attempt: 1,
                of: of.clone(),
            }),
            Decided::DeliveryAttempt { delivery, attempt, at } => self.attempted(delivery, *attempt, *at),
            Decided::DeliveryOutcome { delivery, state, at, next, receipt, .. } => self.ended(delivery, *state, next.unwrap_or(*at), receipt.as_ref()),
            _ => Ok(()),
        }
    }

    /// How a delivery stands; `None` when it is not known (any more).
    #[must_use]
    pub fn standing(&self, delivery: &str) -> Option<&Standing> {
        self.deliveries.get(delivery).map(|d| &d.standing)
    }

    /// What the channel calls the message of a delivery; `None` when it gave no name, or the delivery is not known (any more).
    #[must_use]
    pub fn receipt(&self, delivery: &str) -> Option<Arc<str>> {
        self.deliveries.get(delivery)?.receipt.clone()
    }

    /// Whether another delivery may wait for this channel.
    #[must_use]
    pub fn has_room(&self, channel: &str) -> bool {
        self.waiting(channel) < MAX_WAITING
    }

    /// How many deliveries to this channel are not settled: for the metric.
    #[must_use]
    pub fn waiting(&self, channel: &str) -> usize {
        self.queues.get(channel).map_or(0, VecDeque::len)
    }

    /// Deliveries that a person must look at, latest settled last: begun, not answered, not safe to repeat.
    pub fn unknown(&self) -> impl Iterator<Item = &Due> {
        let settled = self.settled.iter().filter_map(|id| self.deliveries.get(id));
        settled.filter(|d| d.standing == Standing::Settled(DeliveryState::Unknown)).map(|d| &d.due)
    }

    fn intended(&mut self, due: Due) -> Result<(), Illegal> {
        let id = due.delivery.clone();
        if self.deliveries.contains_key(&id) {
            return Err(Illegal::Twice(id));
        }
        self.queues.entry(due.channel.clone()).or_default().push_back(id.clone());
        let standing = Standing::Waiting { tries: 0, from: due.at };
        self.deliveries.insert(id, Delivery { due, standing, receipt: None });
        Ok(())
    }

    fn attempted(&mut self, id: &Arc<str>, attempt: u32, at: Time) -> Result<(), Illegal> {
        let delivery = self.deliveries.get_mut(id).ok_or_else(|| Illegal::NoSuch(id.clone()))?;
        match delivery.standing {
            Standing::Waiting { tries, .. } if attempt == tries.saturating_add(1) => {
                delivery.standing = Standing::Open { attempt, at };
                Ok(())
            }
            ref standing => Err(Illegal::Move { delivery: id.clone(), what: "an attempt", standing: standing.clone() }),
        }
    }

    fn ended(&mut self, id: &Arc<str>, state: DeliveryState, next: Time, receipt: Option<&Arc<str>>) -> Result<(), Illegal> {
        let delivery = self.deliveries.get_mut(id).ok_or_else(|| Illegal::NoSuch(id.clone()))?;
        let tries = match (&delivery.standing, state) {
            (Standing::Open { attempt, .. }, _) => *attempt,
            (Standing::Waiting { tries, .. }, DeliveryState::Retry | DeliveryState::Failed) => tries.saturating_add(1),
            (standing, _) => return Err(Illegal::Move { delivery: id.clone(), what: "this outcome", standing: standing.clone() }),
        };
        self.claimed.remove(id);
        if state == DeliveryState::Retry {
            delivery.standing = Standing::Waiting { tries, from: next };
            return Ok(());
        }
        delivery.standing = Standing::Settled(state);
        delivery.receipt = receipt.cloned();
        let channel = delivery.due.channel.clone();
        self.leave_queue(&channel, id);
        Ok(())
    }

    fn leave_queue(&mut self, channel: &str, id: &Arc<str>) {
        if let Some(queue) = self.queues.get_mut(channel) {
            queue.retain(|waiting| waiting != id);
            if queue.is_empty() {
                self.queues.remove(channel);
            }
        }
        self.settled.push_back(id.clone());
        if self.settled.len() > MAX_SETTLED
            && let Some(oldest) = self.settled.pop_front()
        {
            self.deliveries.remove(&oldest);
        }
    }
}
