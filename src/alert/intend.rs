//! From a routing to the deliveries that the ledger is to hold, and what is not delivered and why.

use super::load::Channels;
use super::notice::delivery_id;
use super::outbox::{MAX_WAITING, Outbox};
use crate::model::{Decided, Finding, Time};
use crate::triage::{Routed, Routing};

/// What is to be recorded about a finding's alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct Intended {
    /// One `Decided::Delivery` for each channel that will be told.
    pub deliveries: Vec<Decided>,
    /// Where it goes and where it does not, and why: for `Decided::Triaged`.
    pub reason: String,
    /// How many deliveries were not made because a queue is full: for the metric.
    pub dropped: u64,
}

/// Decides what is delivered: a disabled or broken channel and one whose queue is full get nothing, and the reason says so.
#[must_use]
pub fn intend(outbox: &Outbox, channels: &Channels, finding: &Finding, routing: &Routing, at: Time) -> Intended {
    let mut intended = Intended { deliveries: Vec::new(), reason: routing.reason.clone(), dropped: 0 };
    for routed in &routing.to {
        match refusal(outbox, channels, routed) {
            None => intended.deliveries.push(Decided::Delivery {
                delivery: delivery_id(&finding.id, &routed.route, &routed.channel),
                route: routed.route.clone(),
                channel: routed.channel.clone(),
                findings: vec![finding.id.clone()],
                at,
            }),
            Some(why) => {
                intended.reason.push_str(&format!("; not delivered to {}: {why}", routed.channel));
                intended.dropped += u64::from(!outbox.has_room(&routed.channel));
            }
        }
    }
    intended
}

fn refusal(outbox: &Outbox, channels: &Channels, routed: &Routed) -> Option<String> {
    match channels.get(&routed.channel) {
        None if channels.is_broken(&routed.channel) => Some("its file does not load".to_owned()),
        None => Some("it is not configured".to_owned()),
        Some(channel) if !channel.enabled => Some(format!("it is disabled in {}", channel.file)),
        Some(_) if !outbox.has_room(&routed.channel) => Some(format!("{MAX_WAITING} deliveries wait for it already")),
        Some(_) => None,
    }
}
