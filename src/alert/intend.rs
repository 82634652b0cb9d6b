//! From a routing to the alerts and deliveries that the ledger is to hold, and what is not delivered and why.

use super::follow::Alerts;
use super::load::Channels;
use super::outbox::{MAX_WAITING, Outbox};
use crate::model::{Decided, Finding, Time};
use crate::triage::{Routed, Routing};

/// What is to be recorded about a finding's alerts.
#[derive(Clone, Debug, PartialEq)]
pub struct Intended {
    /// For each channel that hears of it a `Decided::Alert` that opens or goes on, and a `Decided::Delivery` where it is told at
    /// once.
    pub records: Vec<Decided>,
    /// Where it goes and where it does not, and why: for `Decided::Triaged`.
    pub reason: String,
    /// How many deliveries were not made because a queue is full: for the metric.
    pub dropped: u64,
    /// How many alerts ended to make room: for the metric.
    pub evicted: u64,
}

/// Decides what is delivered: a disabled or broken channel and one whose queue is full get nothing, and the reason says so.
#[must_use]
pub fn intend(outbox: &Outbox, alerts: &Alerts, channels: &Channels, finding: &Finding, routing: &Routing, at: Time) -> Intended {
    let mut intended = Intended { records: Vec::new(), reason: routing.reason.clone(), dropped: 0, evicted: 0 };
    for routed in &routing.to {
        if let Some(why) = refusal(channels, routed) {
            intended.not_delivered(routed, &why);
            continue;
        }
        let taken = alerts.take(outbox, channels, finding, routed, at);
        if !taken.remark.is_empty() {
            intended.reason.push_str(&format!("; {}: {}", routed.channel, taken.remark));
        }
        if !taken.told {
            intended.not_delivered(routed, &format!("{MAX_WAITING} deliveries wait for it already"));
            intended.dropped += 1;
        }
        intended.evicted += u64::from(taken.evicted);
        intended.records.extend(taken.records);
    }
    intended
}

impl Intended {
    fn not_delivered(&mut self, routed: &Routed, why: &str) {
        self.reason.push_str(&format!("; not delivered to {}: {why}", routed.channel));
    }
}

fn refusal(channels: &Channels, routed: &Routed) -> Option<String> {
    match channels.get(&routed.channel) {
        None if channels.is_broken(&routed.channel) => Some("its file does not load".to_owned()),
        None => Some("it is not configured".to_owned()),
        Some(channel) if !channel.enabled => Some(format!("it is disabled in {}", channel.file)),
        Some(_) => None,
    }
}
