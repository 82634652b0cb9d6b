//! What is on its way to the spool, and the commits that follow its arrival (O3).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::ears::Ears;
use super::message::Labels;
use crate::broker::kafka::Commits;

/// How long a commit that failed waits for the next try.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a commit may stay unanswered before another is tried.
const UNANSWERED: Duration = Duration::from_secs(60);

/// A topic and one of its partitions.
pub(super) type Place = (Arc<str>, i32);

/// One partition that is ours.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) labels: Labels,
    /// The topic's id, which goes into commits: one of a topic that was deleted counts for nothing.
    pub(super) id: Option<Arc<str>>,
    /// The offset behind the newest message that was read, and when that was.
    pub(super) next: i64,
    pub(super) heard: Instant,
    /// The same of what was handed over.
    pub(super) handed: i64,
    /// The offset behind the newest one that is in the spool, or that needs not be there.
    pub(super) safe: i64,
    /// What the group has.
    pub(super) committed: Option<i64>,
}

/// Partitions by topic and number.
pub(super) type Parts = HashMap<Arc<str>, HashMap<i32, Part>>;

/// Up to where a batch reaches, by place; the log's name tells a topic from one that was made anew.
pub(super) type Ends = HashMap<Place, (Arc<str>, i64)>;

/// A batch that was handed over.
struct Flight {
    /// `None` when it is safe.
    done: Option<oneshot::Receiver<()>>,
    ends: Ends,
}

/// Batches under way, in their order, and the commit under way.
#[derive(Default)]
pub(super) struct Flights {
    under_way: VecDeque<Flight>,
    /// What was sent to the group, when, and where the answer comes.
    sent: Option<(Instant, Ends, Commits)>,
    not_before: Option<Instant>,
}

/// A batch was given back: the engine ends, and nothing is kept any more.
#[derive(Debug)]
pub(super) struct GivenBack;

impl Flights {
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    pub(super) fn push(&mut self, done: Option<oneshot::Receiver<()>>, ends: Ends) {
        self.under_way.push_back(Flight { done, ends });
    }

    /// Waits for the oldest batch, at most so long.
    pub(super) async fn wait(&mut self, within: Duration) -> Result<(), GivenBack> {
        let Some(Flight { done: waiting @ Some(_), .. }) = self.under_way.front_mut() else { return Ok(()) };
        let Some(done) = waiting.as_mut() else { return Ok(()) };
        match tokio::time::timeout(within, done).await {
            Ok(Ok(())) => *waiting = None,
            Ok(Err(_)) => return Err(GivenBack),
            Err(_) => {}
        }
        Ok(())
    }

    /// Takes off the batches that are safe. Never one before another that came earlier.
    pub(super) fn settle(&mut self, parts: &mut Parts) -> Result<(), GivenBack> {
        while let Some(flight) = self.under_way.front_mut() {
            match flight.done.as_mut().map(oneshot::Receiver::try_recv) {
                Some(Err(oneshot::error::TryRecvError::Empty)) => return Ok(()),
                Some(Err(oneshot::error::TryRecvError::Closed)) => return Err(GivenBack),
                Some(Ok(())) | None => {}
            }
            let ends = self.under_way.pop_front().map(|flight| flight.ends).unwrap_or_default();
            for_each(ends, parts, |part, end| part.safe = part.safe.max(end));
        }
        Ok(())
    }

    /// Commits what is safe and not committed, one commit at a time.
    pub(super) fn commit(&mut self, client: &BaseConsumer<Ears>, parts: &mut Parts) {
        self.answered(Duration::ZERO, parts);
        let waits = self.sent.is_some() || self.not_before.is_some_and(|at| Instant::now() < at);
        let ends = uncommitted(parts);
        if !waits && !ends.is_empty() {
            self.send(client, ends, parts);
        }
    }

    /// The same, and waits a while for the answer: before partitions are given up. Their next owner reads again what could not be committed.
    pub(super) fn commit_now(&mut self, within: Duration, client: &BaseConsumer<Ears>, parts: &mut Parts) {
        let ends = uncommitted(parts);
        if !ends.is_empty() {
            self.send(client, ends, parts);
            self.answered(within, parts);
        }
    }

    fn send(&mut self, client: &BaseConsumer<Ears>, ends: Ends, parts: &Parts) {
        let Some(commits) = Commits::new(client.client()) else { return };
        match commits.send(client.client(), &list(&ends, parts)) {
            Ok(()) => self.sent = Some((Instant::now(), ends, commits)),
            Err(error) => self.failed(&error),
        }
    }

    /// Whether everything is safe and committed.
    pub(super) fn is_over(&self, parts: &Parts) -> bool {
        self.under_way.is_empty() && uncommitted(parts).is_empty()
    }

    fn answered(&mut self, within: Duration, parts: &mut Parts) {
        let Some((at, _, commits)) = &self.sent else { return };
        match commits.answer(within) {
            None if at.elapsed() < UNANSWERED => {}
            None => self.sent = None,
            Some(Ok(())) => {
                let ends = self.sent.take().map(|(_, ends, _)| ends).unwrap_or_default();
                for_each(ends, parts, |part, end| part.committed = part.committed.max(Some(end)));
            }
            Some(Err(error)) => {
                self.sent = None;
                self.failed(&error);
            }
        }
    }

    fn failed(&mut self, error: &str) {
        tracing::debug!(error, "Kafka: a commit failed; it is tried again");
        self.not_before = Some(Instant::now() + AGAIN);
    }
}

/// Those ends whose partitions are still ours, and still the same logs.
fn for_each(ends: Ends, parts: &mut Parts, mut act: impl FnMut(&mut Part, i64)) {
    for ((topic, partition), (log, end)) in ends {
        if let Some(part) = parts.get_mut(&topic).and_then(|parts| parts.get_mut(&partition))
            && part.labels.log == log
        {
            act(part, end);
        }
    }
}

/// Up to where a batch reaches that holds everything that was read since the last call.
pub(super) fn take_ends(parts: &mut Parts) -> Ends {
    let read = parts.values_mut().flatten().filter(|(_, part)| part.next > part.handed);
    let end = |(partition, part): (&i32, &mut Part)| {
        part.handed = part.next;
        ((part.labels.topic.clone(), *partition), (part.labels.log.clone(), part.next))
    };
    read.map(end).collect()
}

fn uncommitted(parts: &Parts) -> Ends {
    let all = parts.values().flatten().filter(|(_, part)| part.committed.is_none_or(|committed| committed < part.safe));
    all.map(|(partition, part)| ((part.labels.topic.clone(), *partition), (part.labels.log.clone(), part.safe))).collect()
}

fn list(ends: &Ends, parts: &Parts) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(ends.len());
    for ((topic, partition), (_, end)) in ends {
        let mut one = list.add_partition(topic, *partition);
        // Offsets are never negative, the one reason to refuse them.
        let _ = one.set_offset(Offset::Offset(*end));
        if let Some(id) = parts.get(topic).and_then(|parts| parts.get(partition)).and_then(|part| part.id.as_deref()) {
            one.set_metadata(id);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Payload, Trust};

    fn parts() -> Parts {
        let labels = Labels { source: "s".into(), stream: "x".into(), log: "kafka:t/0".into(), topic: "t".into(), payload: Payload::Log, trust: Trust::Open };
        let part = Part { labels, id: None, next: 0, heard: Instant::now(), handed: 0, safe: 0, committed: Some(0) };
        HashMap::from([("t".into(), HashMap::from([(0, part)]))])
    }

    fn ends(end: i64) -> Ends {
        HashMap::from([(("t".into(), 0), ("kafka:t/0".into(), end))])
    }

    #[test]
    fn o3_nothing_is_safe_before_what_came_earlier() {
        let (mut parts, mut flights) = (parts(), Flights::default());
        let (first, first_done) = oneshot::channel();
        let (second, second_done) = oneshot::channel();
        flights.push(Some(first_done), ends(10));
        flights.push(Some(second_done), ends(20));
        flights.push(None, ends(21));
        second.send(()).unwrap();
        flights.settle(&mut parts).unwrap();
        assert!(uncommitted(&parts).is_empty() && flights.len() == 3);
        first.send(()).unwrap();
        flights.settle(&mut parts).unwrap();
        assert_eq!(uncommitted(&parts), ends(21));
    }

    #[test]
    fn o3_what_is_given_back_is_not_safe() {
        let (mut parts, mut flights) = (parts(), Flights::default());
        let (first, done) = oneshot::channel::<()>();
        flights.push(Some(done), ends(10));
        drop(first);
        assert!(flights.settle(&mut parts).is_err());
        assert!(uncommitted(&parts).is_empty());
    }

    #[test]
    fn a_batch_of_a_topic_that_was_made_anew_is_not_the_new_ones() {
        let (mut parts, mut flights) = (parts(), Flights::default());
        flights.push(None, HashMap::from([(("t".into(), 0), ("kafka:t@other/0".into(), 10))]));
        flights.settle(&mut parts).unwrap();
        assert!(uncommitted(&parts).is_empty());
    }
}
