//! Alerts as the ledger tells of them: what a route and a channel make of the findings of one group, until no further one
//! comes. Pure: `now` comes in, records go out; whoever appends them applies what it appended.
//!
//! ```text
//!            ┌── Alert(updated) ◄──┐  each further finding of the group
//!            ▼                     │
//! Alert(opened) ───────────────────┴──► Delivery(resolved) + Alert(resolved)
//!  + Delivery                              nothing came for `resolve_after`, and what was told before is settled
//! ```
//! What a further finding causes depends on the channel ([`Manner`]): its message is changed in place at most every [`PACE`], or
//! it gets a message each, or one after each `repeat_interval` of the route. Every record of an alert is all of it.

mod due;
mod group;
mod take;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::outbox::Outbox;
use crate::model::{AlertChange, AlertState, Decided, DeliveryState, OfAlert, OpenAlert, Span, Time};

pub use group::group;
pub use take::Taken;

/// Alerts that are followed at once. Beyond it the one whose last finding is the longest ago ends, and its end says why.
pub const MAX_ALERTS: usize = 2_000;
/// Findings that an alert names: the first and the newest; the others are counted.
pub const MAX_NAMED: usize = 10;
/// A message is changed in place, and an incident told of again, at most this often: channels limit how often they are called.
pub const PACE: Span = Span::secs(5);
/// Alerts that are looked after with one append.
const MAX_AT_ONCE: usize = 64;

/// How a channel hears of the further findings of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// What it shows is changed: a message in place, an incident under its key.
    InPlace,
    /// By a message each.
    Each,
}

/// An alert with what became of its deliveries.
#[derive(Clone, Debug, PartialEq)]
struct Followed {
    alert: OpenAlert,
    /// The newest delivery.
    told: Option<Told>,
    /// Deliveries that are on their way.
    unsettled: BTreeSet<Arc<str>>,
    /// The newest delivery that was accepted; before there is one, the newest that may have been.
    heard: Option<Heard>,
}

#[derive(Clone, Debug, PartialEq)]
struct Told {
    delivery: Arc<str>,
    /// So many findings had come then.
    count: u64,
    at: Time,
}

#[derive(Clone, Debug, PartialEq)]
struct Heard {
    delivery: Arc<str>,
    sent: bool,
    /// What the channel calls its message.
    receipt: Option<Arc<str>>,
}

type Key = (Arc<str>, Arc<str>, BTreeMap<String, String>);

/// All alerts that are not resolved.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alerts {
    open: BTreeMap<Arc<str>, Followed>,
    /// By route, channel and group.
    groups: BTreeMap<Key, Arc<str>>,
    /// The alert of each delivery that is on its way.
    of: BTreeMap<Arc<str>, Arc<str>>,
}

impl Alerts {
    /// Takes in a ledger record; one that is not about alerts, or about one that is over, changes nothing.
    pub fn apply(&mut self, decided: &Decided) {
        match decided {
            Decided::Alert { change: AlertChange::Resolved, alert, .. } => self.forget(alert),
            Decided::Alert { alert, .. } => {
                self.groups.insert(key(alert), alert.id.clone());
                match self.open.get_mut(&alert.id) {
                    Some(followed) => followed.alert = (**alert).clone(),
                    None => drop(self.open.insert(alert.id.clone(), Followed::new(alert))),
                }
            }
            Decided::Delivery { delivery, at, of: Some(of), .. } => {
                if let Some(followed) = self.open.get_mut(&of.id) {
                    followed.told = Some(Told { delivery: delivery.clone(), count: of.count, at: *at });
                    followed.unsettled.insert(delivery.clone());
                    self.of.insert(delivery.clone(), of.id.clone());
                }
            }
            Decided::DeliveryOutcome { delivery, state, receipt, .. } if *state != DeliveryState::Retry => {
                if let Some(followed) = self.of.remove(delivery).and_then(|id| self.open.get_mut(&id)) {
                    followed.settled(delivery, *state, receipt.as_ref());
                }
            }
            _ => {}
        }
    }

    /// The alerts, by id.
    pub fn open(&self) -> impl Iterator<Item = &OpenAlert> {
        self.open.values().map(|followed| &followed.alert)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.open.len()
    }

    /// The newest delivery of an open alert.
    #[must_use]
    pub fn newest_delivery(&self, alert: &str) -> Option<&Arc<str>> {
        self.open.get(alert)?.told.as_ref().map(|told| &told.delivery)
    }

    /// Whether the state of the open alerts is made of this record, which was applied: of each its first and its newest, and the
    /// deliveries that it refers to, with all that became of them.
    #[must_use]
    pub fn needs(&self, decided: &Decided) -> bool {
        match decided {
            Decided::Alert { change, alert, .. } => {
                self.open.get(&alert.id).is_some_and(|followed| *change == AlertChange::Opened || followed.alert == **alert)
            }
            Decided::Delivery { delivery, of: Some(of), .. } => self.open.get(&of.id).is_some_and(|followed| followed.refers_to(delivery)),
            _ => false,
        }
    }

    fn forget(&mut self, alert: &OpenAlert) {
        self.groups.remove(&key(alert));
        let followed = self.open.remove(&alert.id);
        followed.iter().flat_map(|followed| &followed.unsettled).for_each(|delivery| drop(self.of.remove(delivery)));
    }
}

impl Followed {
    fn new(alert: &OpenAlert) -> Followed {
        Followed { alert: alert.clone(), told: None, unsettled: BTreeSet::new(), heard: None }
    }

    fn settled(&mut self, delivery: &Arc<str>, state: DeliveryState, receipt: Option<&Arc<str>>) {
        self.unsettled.remove(delivery);
        let sent = state == DeliveryState::Sent;
        let news = sent || (state == DeliveryState::Unknown && self.heard.as_ref().is_none_or(|heard| !heard.sent));
        if news {
            self.heard = Some(Heard { delivery: delivery.clone(), sent, receipt: receipt.cloned() });
        }
    }

    fn refers_to(&self, delivery: &Arc<str>) -> bool {
        let told = self.told.as_ref().is_some_and(|told| told.delivery == *delivery);
        told || self.heard.as_ref().is_some_and(|heard| heard.delivery == *delivery) || self.unsettled.contains(delivery)
    }

    /// Findings that came since the newest delivery was made.
    fn untold(&self) -> u64 {
        self.alert.count.saturating_sub(self.told.as_ref().map_or(0, |told| told.count))
    }

    fn of(&self, state: AlertState, reason: &str) -> OfAlert {
        let OpenAlert { id, group, since, count, .. } = self.alert.clone();
        let receipt = self.heard.as_ref().and_then(|heard| heard.receipt.clone());
        OfAlert { id, group, state, since, count, reason: reason.to_owned(), receipt }
    }
}

fn key(alert: &OpenAlert) -> Key {
    let group = alert.group.iter().map(|(name, value)| (name.clone(), value.to_string())).collect();
    (alert.route.clone(), alert.channel.clone(), group)
}

/// Whether another delivery may wait for the channel.
fn has_room(outbox: &Outbox, alert: &OpenAlert) -> bool {
    outbox.has_room(&alert.channel)
}
