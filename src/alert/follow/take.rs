//! A finding comes to a route and a channel.

use std::sync::Arc;

use super::{Alerts, Followed, MAX_ALERTS, MAX_NAMED, Manner, PACE, group};
use crate::alert::load::Channels;
use crate::alert::notice::delivery_id;
use crate::alert::outbox::Outbox;
use crate::model::{AlertChange, AlertState, Decided, Finding, FindingId, OpenAlert, Time};
use crate::triage::Routed;

/// What is to be recorded about a finding's way to a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taken {
    /// In their order.
    pub records: Vec<Decided>,
    /// The finding is told by a delivery in `records` or by one that follows from them; otherwise the queue was full.
    pub told: bool,
    /// Another alert ended to make room.
    pub evicted: bool,
    /// What happened beside that, for people; empty when it is the first of its alert.
    pub remark: String,
}

impl Alerts {
    /// Takes a finding in that a route sends to a channel that is there.
    #[must_use]
    pub fn take(&self, outbox: &Outbox, channels: &Channels, finding: &Finding, routed: &Routed, at: Time) -> Taken {
        let Some(channel) = channels.get(&routed.channel) else { return Taken::default() };
        let manner = channel.integration.manner();
        let fresh = opened(finding, routed, manner, at);
        match self.groups.get(&super::key(&fresh)).and_then(|id| self.open.get(id)) {
            Some(known) => again(known, &fresh, outbox, manner, at),
            None if !outbox.has_room(&routed.channel) => Taken::default(),
            None if self.open.len() < MAX_ALERTS => first(fresh, at),
            None => self.instead(outbox, channels, fresh, at),
        }
    }

    /// In the place of the alert that waits for a further finding the longest.
    fn instead(&self, outbox: &Outbox, channels: &Channels, fresh: OpenAlert, at: Time) -> Taken {
        let settled = self.open.values().filter(|followed| followed.unsettled.is_empty());
        let oldest = settled.min_by_key(|followed| (followed.alert.last, followed.alert.id.clone()));
        let reason = format!("it is no longer followed, since more than {MAX_ALERTS} alerts are open");
        let Some(mut records) = oldest.and_then(|oldest| oldest.ends(outbox, channels, &reason, at)) else {
            // None can end yet: it is told by itself.
            return Taken { records: vec![alone(&fresh, at)], told: true, evicted: true, remark: "by itself: too many alerts are open".to_owned() };
        };
        let taken = first(fresh, at);
        records.extend(taken.records);
        Taken { records, evicted: true, ..taken }
    }
}

fn opened(finding: &Finding, routed: &Routed, manner: Manner, at: Time) -> OpenAlert {
    OpenAlert {
        id: delivery_id(&finding.id, &routed.route, &routed.channel),
        route: routed.route.clone(),
        channel: routed.channel.clone(),
        group: group(finding),
        findings: vec![finding.id.clone()],
        count: 1,
        since: at,
        last: at,
        until: routed.terms.resolve_after.map(|after| at.plus(after)),
        repeat: match manner {
            Manner::InPlace => Some(PACE),
            Manner::Each => routed.terms.repeat_interval,
        },
    }
}

fn first(alert: OpenAlert, at: Time) -> Taken {
    let followed = Followed::new(&alert);
    let delivery = followed.tells(alert.id.clone(), alert.findings.clone(), AlertState::Firing, "", at);
    let opened = Decided::Alert { change: AlertChange::Opened, alert: Box::new(alert), reason: String::new(), at };
    Taken { records: vec![opened, delivery], told: true, evicted: false, remark: String::new() }
}

fn alone(alert: &OpenAlert, at: Time) -> Decided {
    let (delivery, route, channel) = (alert.id.clone(), alert.route.clone(), alert.channel.clone());
    Decided::Delivery { delivery, route, channel, findings: alert.findings.clone(), at, of: None }
}

/// A further finding of an alert. It is told at once only where each finding is.
fn again(known: &Followed, fresh: &OpenAlert, outbox: &Outbox, manner: Manner, at: Time) -> Taken {
    let mut followed = known.clone();
    let alert = &mut followed.alert;
    alert.count = alert.count.saturating_add(1);
    alert.findings.extend(fresh.findings.iter().cloned());
    if alert.findings.len() > MAX_NAMED {
        alert.findings.remove(1);
    }
    // As the routes are now.
    (alert.last, alert.until, alert.repeat) = (at, fresh.until, fresh.repeat);
    let remark = format!("{} finding of alert {}", ordinal(alert.count), short(&alert.id));
    let updated = Decided::Alert { change: AlertChange::Updated, alert: Box::new(alert.clone()), reason: String::new(), at };
    let at_once = manner == Manner::Each && alert.repeat.is_none();
    let mut records = vec![updated];
    let told = !at_once || super::has_room(outbox, &followed.alert);
    if at_once && told {
        records.push(followed.tells(fresh.id.clone(), fresh.findings.clone(), AlertState::Firing, "", at));
    }
    Taken { records, told, evicted: false, remark }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn ordinal(n: u64) -> String {
    let ending = match (n % 10, n % 100) {
        (1, 11) | (2, 12) | (3, 13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{n}{ending}")
}

impl Followed {
    /// The delivery that tells of it.
    pub(super) fn tells(&self, delivery: Arc<str>, findings: Vec<FindingId>, state: AlertState, reason: &str, at: Time) -> Decided {
        let (route, channel) = (self.alert.route.clone(), self.alert.channel.clone());
        Decided::Delivery { delivery, route, channel, findings, at, of: Some(Box::new(self.of(state, reason))) }
    }
}
