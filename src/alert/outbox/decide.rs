//! What an answer means for a delivery: sent, tried again and when, failed for good, or unknown.

use std::sync::Arc;

use super::{Outbox, Standing, backoff::backoff};
use crate::alert::answer::{Answer, Failure, MAX_RETRY_AFTER, SendError};
use crate::alert::channel::Repeat;
use crate::model::{Decided, DeliveryState, Span, Time};

/// A delivery that would be tried later than this after its intent has failed: who reads of an attack a day late has
/// other sources.
pub const MAX_AGE: Span = Span::secs(24 * 3_600);
/// A delivery that was tried this often has failed; reached only when the clock is set back again and again.
pub const MAX_TRIES: u32 = 300;

impl Outbox {
    /// The record that says that a waiting delivery is being attempted; to be on disk before the message is given away.
    /// `None` when it is not waiting.
    #[must_use]
    pub fn attempt(&self, delivery: &Arc<str>, now: Time) -> Option<Decided> {
        match self.standing(delivery)? {
            Standing::Waiting { tries, .. } => Some(Decided::DeliveryAttempt { delivery: delivery.clone(), attempt: tries.saturating_add(1), at: now }),
            _ => None,
        }
    }

    /// The record that an answer makes. `None` when the delivery is settled or not known.
    #[must_use]
    pub fn outcome(&self, delivery: &Arc<str>, answer: &Result<Answer, SendError>, now: Time) -> Option<Decided> {
        let state = |state, detail: &str| self.record(delivery, state, detail, now, None);
        match answer {
            Ok(answer) => state(DeliveryState::Sent, &answer.to_string()).map(|outcome| with_receipt(outcome, answer)),
            Err(error) => match error.kind {
                Failure::Permanent => state(DeliveryState::Failed, &error.detail),
                Failure::Ambiguous if self.repeat(delivery) == Repeat::Never => state(DeliveryState::Unknown, &error.detail),
                Failure::Ambiguous => self.again(delivery, None, &error.detail, now),
                Failure::Retryable { after } => self.again(delivery, after, &error.detail, now),
            },
        }
    }

    /// What became of attempts whose outcome the last process did not record: to be appended and applied once, after the
    /// ledger was replayed and before anything is sent (semantics O7).
    #[must_use]
    pub fn settle(&self, now: Time) -> Vec<Decided> {
        let open = self.queues.values().flatten().filter(|id| matches!(self.standing(id), Some(Standing::Open { .. })));
        open.filter_map(|id| match self.repeat_cut(id) {
            // A message that ends the process each time must not be tried for ever.
            Repeat::ByKey if self.tries(id) >= MAX_TRIES => self.record(id, DeliveryState::Failed, "opmas ended during the attempt, too often", now, None),
            Repeat::ByKey => self.record(id, DeliveryState::Retry, "opmas ended during the attempt; sent again under the same id", now, Some(now)),
            Repeat::Never => self.record(id, DeliveryState::Unknown, "opmas ended during the attempt: look whether the message arrived", now, None),
        })
        .collect()
    }

    /// Whether one that the end of the process cut may be sent again: also the change of a message that is there already. (What
    /// answers `lost` to a change says so itself; it may have been the new message in the place of one that is gone.)
    fn repeat_cut(&self, delivery: &str) -> Repeat {
        let of = self.deliveries.get(delivery).and_then(|d| d.due.of.as_ref());
        if of.is_some_and(|of| of.receipt.is_some()) { Repeat::ByKey } else { self.repeat(delivery) }
    }

    fn repeat(&self, delivery: &str) -> Repeat {
        let channel = self.deliveries.get(delivery).map(|d| &d.due.channel);
        channel.and_then(|channel| self.repeat.get(channel)).copied().unwrap_or(Repeat::Never)
    }

    /// Tried again later, or given up.
    fn again(&self, delivery: &Arc<str>, after: Option<Span>, detail: &str, now: Time) -> Option<Decided> {
        let tries = self.tries(delivery);
        let wait = backoff(delivery, tries).max(after.unwrap_or(Span::ZERO).min(MAX_RETRY_AFTER));
        let next = now.plus(wait);
        let since = self.deliveries.get(delivery)?.due.at;
        if tries >= MAX_TRIES || next.since(since) > MAX_AGE {
            let detail = format!("given up after {tries} tries since {since}; the last: {detail}");
            return self.record(delivery, DeliveryState::Failed, &detail, now, None);
        }
        self.record(delivery, DeliveryState::Retry, detail, now, Some(next))
    }

    /// How many tries there were, the one that has just ended included.
    fn tries(&self, delivery: &str) -> u32 {
        match self.standing(delivery) {
            Some(Standing::Waiting { tries, .. }) => tries.saturating_add(1),
            Some(Standing::Open { attempt, .. }) => *attempt,
            Some(Standing::Settled(_)) | None => 0,
        }
    }

    fn record(&self, delivery: &Arc<str>, state: DeliveryState, detail: &str, at: Time, next: Option<Time>) -> Option<Decided> {
        match self.standing(delivery)? {
            Standing::Settled(_) => None,
            _ => Some(Decided::DeliveryOutcome { delivery: delivery.clone(), state, detail: detail.to_owned(), at, next, receipt: None }),
        }
    }
}

fn with_receipt(mut outcome: Decided, answer: &Answer) -> Decided {
    if let Decided::DeliveryOutcome { receipt, .. } = &mut outcome {
        *receipt = answer.receipt.clone();
    }
    outcome
}
