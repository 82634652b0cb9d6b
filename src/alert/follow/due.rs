//! Time passes: what is to be told again, and what is over.

use super::{Alerts, Followed, MAX_AT_ONCE, has_room};
use crate::alert::load::Channels;
use crate::alert::notice::delivery_id;
use crate::alert::outbox::Outbox;
use crate::model::{AlertChange, AlertState, Decided, FindingId, Time};

impl Alerts {
    /// The records of what is due, as one batch; to be asked again until there are none. An alert whose deliveries are on their way
    /// waits for them, so that nothing overtakes.
    #[must_use]
    pub fn due(&self, outbox: &Outbox, channels: &Channels, now: Time) -> Vec<Decided> {
        let settled = self.open.values().filter(|followed| followed.unsettled.is_empty());
        settled.filter_map(|followed| followed.due(outbox, channels, now)).take(MAX_AT_ONCE).flatten().collect()
    }

    /// When something becomes due, as far as time alone decides it; may be in the past.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        self.open.values().filter(|followed| followed.unsettled.is_empty()).filter_map(Followed::wakes).min()
    }
}

impl Followed {
    fn wakes(&self) -> Option<Time> {
        self.alert.until.into_iter().chain(self.repeats()).min()
    }

    /// When what came since is told.
    fn repeats(&self) -> Option<Time> {
        let after = self.alert.repeat.filter(|_| self.untold() > 0)?;
        Some(self.told.as_ref().map_or(self.alert.last, |told| told.at.plus(after)))
    }

    fn due(&self, outbox: &Outbox, channels: &Channels, now: Time) -> Option<Vec<Decided>> {
        let alert = &self.alert;
        if let Some(until) = alert.until.filter(|until| *until <= now) {
            let reason = format!("no further finding came for {}", until.since(alert.last));
            return self.ends(outbox, channels, &reason, now);
        }
        self.repeats().filter(|at| *at <= now)?;
        let channel = channels.get(&alert.channel).filter(|channel| channel.enabled && has_room(outbox, alert))?;
        let newest = alert.findings.last()?;
        let untold = usize::try_from(self.untold()).unwrap_or(usize::MAX);
        let from = match channel.integration.manner() {
            super::Manner::InPlace => 0,
            super::Manner::Each => alert.findings.len().saturating_sub(untold),
        };
        let findings = alert.findings.get(from..).unwrap_or_default().to_vec();
        Some(vec![self.tells(delivery_id(newest, &alert.route, &alert.channel), findings, AlertState::Firing, "", now)])
    }

    /// It is over: recorded, and before that (its findings are at hand until then) told where it was heard of and the channel tells it. `None` while the channel's queue is full.
    pub(super) fn ends(&self, outbox: &Outbox, channels: &Channels, reason: &str, now: Time) -> Option<Vec<Decided>> {
        let alert = &self.alert;
        let resolved = Decided::Alert { change: AlertChange::Resolved, alert: Box::new(alert.clone()), reason: reason.to_owned(), at: now };
        let told = channels.get(&alert.channel).is_some_and(|channel| channel.enabled && channel.integration.tells_the_end());
        if !told || self.heard.is_none() || alert.until.is_none() {
            return Some(vec![resolved]);
        }
        let delivery = FindingId::new(&["resolved", &alert.id]).0;
        has_room(outbox, alert).then(|| vec![self.tells(delivery, alert.findings.clone(), AlertState::Resolved, reason, now), resolved])
    }
}
