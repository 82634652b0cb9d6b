//! The loop of the thread that polls.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::ears::Ears;
use super::flight::{Flights, GivenBack, Parts, Place, take_ends};
use super::look::Look;
use super::message::{self, LeftOut};
use super::{Consumer, SESSION};
use crate::clock;
use crate::model::Record;
use crate::source::{Batch, MAX_BATCH, Outlet, State};

/// How long a poll waits when nothing is under way.
const POLL: Duration = Duration::from_millis(100);
/// How long it waits while batches are under way, whose commits are not to be late.
const POLL_BUSY: Duration = Duration::from_millis(5);
/// A batch of so many bytes is handed over; its last message may go beyond it by [`crate::source::lines::MAX_LINE`].
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Batches that are not in the spool yet. With [`MAX_BATCH_BYTES`] it bounds what a source holds in memory.
const MAX_FLIGHTS: usize = 16;
/// A wait for the spool is interrupted so often, to look at other things.
const WAIT: Duration = Duration::from_millis(20);
/// When the spool has not taken anything for so long, partitions are paused and the group is served meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);
/// A partition that was silent for so long may be another one since: librdkafka goes on at the same offset in a topic that was made anew. It
/// tries again only after half a second (`fetch.error.backoff.ms`), so that such a change is never without a silence.
const SILENCE: Duration = Duration::from_millis(300);
/// The group may have heard of us for the last time so long before we were frozen.
const ASIDE: Duration = Duration::from_secs(3);
/// How long what is under way may take to be kept when partitions are given up, or the source ends.
pub(super) const LAST: Duration = Duration::from_secs(2);

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The source is to end.
    Stopped,
    /// Another client may do better.
    Anew,
    /// Another member of our name has taken our place.
    Fenced,
}

/// What polling brought.
#[derive(Default)]
pub(super) struct Collected {
    records: Vec<Record>,
    bytes: usize,
    /// Whether anything was read, also what is no record.
    some: bool,
    /// Whether some of it came after a silence.
    doubtful: bool,
}

impl Collected {
    fn is_full(&self) -> bool {
        self.records.len() >= MAX_BATCH || self.bytes >= MAX_BATCH_BYTES
    }

    /// Without the records of partitions that are not ours any more: they were not committed, and are read again by their next owner.
    pub(super) fn forget(&mut self, logs: &[Arc<str>]) {
        self.records.retain(|record| !record.id.as_ref().and_then(|id| id.place()).is_some_and(|(log, _)| logs.contains(log)));
    }
}

/// A member of the group.
pub(super) struct Member<'a> {
    /// Before the client, as what waits for answers to commits has to be dropped before it.
    pub(super) flights: Flights,
    pub(super) client: BaseConsumer<Ears>,
    pub(super) consumer: &'a Consumer,
    pub(super) outlet: &'a Outlet,
    handle: &'a Handle,
    pub(super) parts: Parts,
    /// What was read and not handed over yet.
    pub(super) collected: Collected,
    pub(super) look: Look,
    /// Partitions that are ours and whose beginning could not be found out yet, and when to try again.
    pub(super) unresolved: Vec<Place>,
    pub(super) resolve_at: Instant,
    /// How often a partition's end was before what was read of it.
    pub(super) doubts: HashMap<Place, u32>,
    /// Whether partitions were assigned before: what appears later is read from its first message.
    pub(super) has_begun: bool,
    pub(super) paused: bool,
    pub(super) presence: Presence,
    /// Another has read until now some of what we are about to read.
    pub(super) took_over: bool,
    pub(super) client_id: String,
}

impl<'a> Member<'a> {
    pub(super) fn new((client, client_id): (BaseConsumer<Ears>, String), consumer: &'a Consumer, outlet: &'a Outlet, handle: &'a Handle) -> Member<'a> {
        Member {
            client,
            consumer,
            outlet,
            handle,
            parts: HashMap::new(),
            flights: Flights::default(),
            collected: Collected::default(),
            look: Look::new(),
            unresolved: Vec::new(),
            resolve_at: Instant::now(),
            doubts: HashMap::new(),
            has_begun: false,
            paused: false,
            presence: Presence::new(),
            took_over: false,
            client_id,
        }
    }

    pub(super) fn run(mut self) -> After {
        let after = loop {
            if self.is_stopped() {
                break After::Stopped;
            }
            if self.look_if_due() == Some(After::Anew) {
                break After::Anew;
            }
            match self.read() {
                Ok(None) => {}
                Ok(Some(after)) => break after,
                Err(GivenBack) => break After::Stopped,
            }
        };
        self.leave();
        after
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.outlet.shutdown.borrow() || self.outlet.batches.is_closed()
    }

    /// One batch from Kafka to the spool's channel.
    fn read(&mut self) -> Result<Option<After>, GivenBack> {
        let mut wait = if self.flights.len() == 0 { POLL } else { POLL_BUSY };
        while !self.collected.is_full() {
            match self.poll(wait) {
                Polled::Message => wait = Duration::ZERO,
                Polled::Nothing => break,
                Polled::Dead => return Ok(Some(After::Anew)),
                Polled::Fenced => return Ok(Some(After::Fenced)),
            }
        }
        if self.presence.was_left {
            return Ok(Some(After::Anew));
        }
        self.resolve_if_due();
        if std::mem::take(&mut self.collected.doubtful) {
            self.look.refresh();
            self.look_if_due();
        }
        self.settle()?;
        self.hand_over()?;
        Ok(None)
    }

    /// Asks the cluster something, for which the thread may wait some seconds; whoever was frozen meanwhile is seen to have been.
    pub(super) fn asked<R>(&mut self, question: impl FnOnce(&Self) -> R) -> R {
        self.presence.lasts();
        let answer = question(self);
        self.presence.lasts();
        answer
    }

    pub(super) fn settle(&mut self) -> Result<(), GivenBack> {
        self.flights.settle(&mut self.parts)?;
        self.flights.commit(&self.client, &mut self.parts);
        Ok(())
    }

    /// One message, one event, or nothing within the time.
    pub(super) fn poll(&mut self, wait: Duration) -> Polled {
        if !self.presence.lasts() {
            return Polled::Nothing;
        }
        let polled = self.client.poll(wait);
        if !self.presence.lasts() {
            return Polled::Nothing;
        }
        let polled = match polled {
            None => Polled::Nothing,
            Some(Err(error)) => return self.complain(&error),
            Some(Ok(message)) => {
                // One of a partition that has no beginning yet comes again when it has.
                if let Some(part) = self.parts.get_mut(message.topic()).and_then(|parts| parts.get_mut(&message.partition())) {
                    part.next = message.offset().saturating_add(1);
                    let silent = std::mem::replace(&mut part.heard, Instant::now()).elapsed();
                    self.collected.doubtful |= silent > SILENCE;
                    self.collected.some = true;
                    match message::take(&message, &part.labels, &self.outlet.node) {
                        Ok((record, cut)) => {
                            self.outlet.meter.truncated.increment(u64::from(cut));
                            self.collected.bytes += record.raw.len();
                            self.collected.records.push(Record { arrival: Some(clock::now()), ..record });
                        }
                        Err(LeftOut::Own) => self.outlet.meter.own.increment(1),
                        Err(LeftOut::Empty) => self.outlet.meter.empty.increment(1),
                    }
                }
                Polled::Message
            }
        };
        self.rebalance();
        polled
    }

    /// What an error of a poll leads to. Those of connections are the listener's, and the next look's.
    fn complain(&mut self, error: &KafkaError) -> Polled {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::FencedInstanceId) {
            let why = "another member of the consumer group has our `instance`, and takes its messages; give each opmas one of its own";
            tracing::warn!(source = %self.outlet.source, "Kafka: {why}");
            (self.outlet.report)(&self.outlet.source, State::Fails(why.to_owned()));
            return Polled::Fenced;
        }
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            tracing::warn!(source = %self.outlet.source, %error, "Kafka: the client has to be made anew");
            return Polled::Dead;
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.look.now();
                self.check_places();
            }
            Some(RDKafkaErrorCode::PartitionEOF) | None => {}
            Some(code) => {
                self.look.heard(code);
                tracing::debug!(source = %self.outlet.source, %error, "Kafka");
            }
        }
        Polled::Nothing
    }

    /// Waits for room, bounded; meanwhile commits go out, and the group is served so that it does not shut us out.
    fn hand_over(&mut self) -> Result<(), GivenBack> {
        if !self.collected.some {
            return Ok(());
        }
        let since = Instant::now();
        while !self.has_room()? {
            if self.is_stopped() {
                return Ok(());
            }
            if !self.presence.lasts() {
                return Ok(());
            }
            if since.elapsed() > PATIENCE {
                self.pause();
                self.poll(Duration::ZERO);
                self.resolve_if_due();
                self.look_if_due();
            }
            self.settle()?;
        }
        self.resume();
        self.send()
    }

    /// Waits for the oldest batch under way for a moment.
    pub(super) fn wait_for_flight(&mut self) -> Result<(), GivenBack> {
        self.handle.block_on(self.flights.wait(WAIT))?;
        self.flights.settle(&mut self.parts)
    }

    fn has_room(&mut self) -> Result<bool, GivenBack> {
        if self.flights.len() >= MAX_FLIGHTS {
            self.wait_for_flight()?;
            return Ok(self.flights.len() < MAX_FLIGHTS);
        }
        match self.handle.block_on(async { tokio::time::timeout(WAIT, self.outlet.batches.reserve()).await }) {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(_)) => Err(GivenBack),
            Err(_) => Ok(false),
        }
    }

    /// Hands over what was collected. Other sources may have been quicker: then it stays where it is.
    fn send(&mut self) -> Result<(), GivenBack> {
        if !self.presence.lasts() {
            return Ok(());
        }
        let room = match self.outlet.batches.try_reserve() {
            Ok(room) => room,
            Err(mpsc::error::TrySendError::Full(())) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(())) => return Err(GivenBack),
        };
        let Collected { records, .. } = std::mem::take(&mut self.collected);
        let ends = take_ends(&mut self.parts);
        if records.is_empty() {
            self.flights.push(None, ends);
            return Ok(());
        }
        let (done, safe) = oneshot::channel();
        let batch = Batch { records, done: Some(done) };
        self.outlet.meter.count(&batch);
        room.send(batch);
        self.flights.push(Some(safe), ends);
        Ok(())
    }

    fn pause(&mut self) {
        if !std::mem::replace(&mut self.paused, true) {
            tracing::debug!(source = %self.outlet.source, "Kafka: the spool does not take more; reading pauses");
            self.with_assignment(BaseConsumer::pause, "pause");
        }
    }

    fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.with_assignment(BaseConsumer::resume, "go on");
        }
    }

    /// Ends well: what is under way is waited for a little, committed, and the group is left.
    fn leave(mut self) {
        self.client.context().leave(&self.client);
        let until = Instant::now() + LAST;
        while Instant::now() < until && !self.flights.is_over(&self.parts) {
            if self.wait_for_flight().is_err() || self.settle().is_err() {
                break;
            }
            // What it reads is not handed over, and not committed.
            self.client.poll(POLL_BUSY);
        }
    }
}

/// Whether the group still counts on us. It goes on without one that was frozen for longer than its session: what librdkafka holds may be
/// another's by now. So it is looked at between all that may block; none of these waits for as long as that.
pub(super) struct Presence {
    awake: Instant,
    /// The group has gone on without us: whoever reads now came before us.
    pub(super) was_left: bool,
}

impl Presence {
    fn new() -> Presence {
        Presence { awake: Instant::now(), was_left: false }
    }

    /// Whether it does, as far as can be told from the time since the last look.
    pub(super) fn lasts(&mut self) -> bool {
        let asleep = std::mem::replace(&mut self.awake, Instant::now()).elapsed();
        self.was_left |= asleep > SESSION - ASIDE;
        !self.was_left
    }
}

/// What a poll brought.
pub(super) enum Polled {
    Message,
    Nothing,
    /// The client cannot go on.
    Dead,
    /// Nor is another to be made soon.
    Fenced,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_frozen_for_longer_than_its_session_is_out_for_good() {
        let mut presence = Presence::new();
        assert!(presence.lasts());
        presence.awake -= SESSION - ASIDE - Duration::from_secs(2);
        assert!(presence.lasts(), "a slow answer of a broker");
        presence.awake -= SESSION - ASIDE;
        assert!(!presence.lasts() && !presence.lasts() && presence.was_left);
    }
}
