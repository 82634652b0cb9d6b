//! What is due: one queue per channel, in the order of intent. A dead channel delays no other.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Due, Outbox, Standing, backoff};
use crate::alert::answer::MAX_RETRY_AFTER;
use crate::model::Time;

/// So many tries hold the deliveries behind them back, so that order is kept over a short outage. Then a delivery steps
/// aside and waits by itself, so that one that the other side cannot take does not stop the channel.
pub const IN_ORDER_TRIES: u32 = 5;

impl Outbox {
    /// What is to be sent now, at most one for each channel; none for a channel whose last attempt is open or claimed.
    #[must_use]
    pub fn due(&self, now: Time) -> Vec<Due> {
        self.queues.values().filter_map(|queue| self.first(queue, |from| is_past(from, now))).collect()
    }

    /// The next moment at which something becomes due, `now` when it is; `None` when nothing waits.
    /// A channel that is being worked on has none: its outcome comes first.
    #[must_use]
    pub fn next_wake(&self, now: Time) -> Option<Time> {
        let candidates = self.queues.values().flat_map(|queue| self.candidates(queue));
        candidates.map(|(_, from, _)| if is_past(from, now) { now } else { from }).min()
    }

    /// Marks a due delivery as being worked on, so that it is not due again before its outcome.
    pub fn claim(&mut self, delivery: &Arc<str>) {
        self.claimed.insert(delivery.clone());
    }

    /// Gives a claimed delivery back without an outcome (the worker ended early).
    pub fn release(&mut self, delivery: &str) {
        self.claimed.remove(delivery);
    }

    fn first(&self, queue: &VecDeque<Arc<str>>, is_past: impl Fn(Time) -> bool) -> Option<Due> {
        let (due, _, attempt) = self.candidates(queue).into_iter().find(|(_, from, _)| is_past(*from))?;
        Some(Due { attempt, ..due.clone() })
    }

    /// Those of a queue that may go next: the ones that stepped aside before the first that keeps its place, and that one.
    /// None while one of the queue is being worked on: one at a time.
    fn candidates(&self, queue: &VecDeque<Arc<str>>) -> Vec<(&Due, Time, u32)> {
        if queue.iter().any(|id| self.is_busy(id)) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for delivery in queue.iter().filter_map(|id| self.deliveries.get(id)) {
            let Standing::Waiting { tries, from } = delivery.standing else { continue };
            found.push((&delivery.due, from, tries.saturating_add(1)));
            if tries < IN_ORDER_TRIES {
                break;
            }
        }
        found
    }

    fn is_busy(&self, id: &str) -> bool {
        self.claimed.contains(id) || matches!(self.standing(id), Some(Standing::Open { .. }))
    }
}

/// A moment farther off than any wait of ours was told by a clock that has since been set back.
fn is_past(from: Time, now: Time) -> bool {
    let longest = MAX_RETRY_AFTER.0.saturating_add(backoff::CAP.0);
    from <= now || from.since(now).0 > longest
}
