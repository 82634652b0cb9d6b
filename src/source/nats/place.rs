//! Where reading a stream begins, and the consumer that begins there.
//!
//! Behind the consumer's ack floor and behind what the spool has, whichever is later. A consumer that stands there, with nothing delivered
//! and not acknowledged, goes on; any other is made anew, since it would deliver old messages behind newer ones.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, Info, pull};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, GetStreamErrorKind};
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{self, ConsumerErrorKind, RetentionPolicy, Stream};

use super::super::From;
use super::reading::{Reading, filters};
use crate::broker::nats::Connection;

/// How long the server waits for an acknowledgement before it delivers again. A disk that is full for longer costs only that.
const ACK_WAIT: Duration = Duration::from_secs(60);
/// Messages that are delivered and not acknowledged; the server sends no more then. More than are ever in flight here.
pub(super) const MAX_ACK_PENDING: i64 = 20_000;
/// How often a stream may have been put back to an earlier state.
const MAX_GENERATIONS: u32 = 1_000;

/// Where reading begins.
pub(super) struct Place {
    /// The stream's name in record ids.
    pub(super) log: Arc<str>,
    /// The last message before it.
    pub(super) before: u64,
    /// Whether `before` was read, so that what is missing behind it is gone.
    pub(super) read: bool,
    /// The last delivery of the consumer.
    pub(super) delivered: u64,
    /// Whether each message is to be acknowledged by itself.
    pub(super) each: bool,
    /// Whether each message of the stream comes, so that numbers have no gaps but for what is gone.
    pub(super) dense: bool,
}

/// Why there is no place.
pub(super) enum Nowhere {
    /// The stream is not there any more.
    Gone,
    /// Something is in the way; one sentence.
    Failed(String),
}

/// A stream, what is wanted of it, and what is known of it.
struct Finding<'a> {
    connection: &'a Connection,
    reading: &'a Reading,
    stream: Stream<stream::Info>,
    filters: Vec<String>,
    each: bool,
}

/// Finds the place and sees that the durable consumer stands there.
///
/// # Errors
/// See [`Nowhere`].
pub(super) async fn find(connection: &Connection, reading: &Reading, name: &str) -> Result<Place, Nowhere> {
    let failed = |what: String| Nowhere::Failed(connection.explain(&what));
    let stream = connection.jetstream().get_stream(name).await.map_err(|error| match error.kind() {
        GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Nowhere::Gone,
        _ => failed(format!("stream {name}: {error}")),
    })?;
    let (config, last) = (&stream.cached_info().config, stream.cached_info().state.last_sequence);
    let limits = config.retention == RetentionPolicy::Limits;
    let (filters, all) = filters(reading.subjects(), &config.subjects);
    if filters.is_empty() && !all && !limits {
        // Without filters it would take what others wait for.
        return Err(failed(format!(
            "stream {name} is read by subjects that overlap, which its retention does not allow; write `logs` and `findings` without overlap"
        )));
    }
    let dense = all && limits && config.max_messages_per_subject <= 0;
    let log = log(stream.cached_info(), |log| reading.newest(log), last);
    let finding = Finding { connection, reading, stream, filters, each: !limits };
    let consumer = finding.consumer().await.map_err(failed)?;
    let (newest, fresh) = (reading.newest(&log), !reading.knows(name));
    let floor = consumer.as_ref().map(|consumer| consumer.ack_floor.stream_sequence.min(last));
    let before = match newest.max(floor) {
        Some(before) => before,
        None if fresh && reading.from == From::End => last,
        None => 0,
    };
    let read = newest.is_some() || floor.is_some_and(|floor| floor > 0);
    let delivered = finding.stand(consumer, newest, before, last).await.map_err(failed)?;
    // So a consumer that is deleted before anything was read begins here again.
    reading.settle(&log, before);
    reading.know(name);
    Ok(Place { log, before, read, delivered, each: finding.each, dense })
}

/// `nats:STREAM@CREATED`, and `#N` once the stream has been put back (restored, or its newest messages lost with the power), since then it
/// counts from an earlier number again.
fn log(info: &stream::Info, newest: impl Fn(&str) -> Option<u64>, last: u64) -> Arc<str> {
    let base = base(info);
    let mut log = base.clone();
    for generation in 2..MAX_GENERATIONS {
        match newest(&log) {
            Some(read) if read > last => {
                let next = format!("{base}#{generation}");
                if newest(&next).is_none() {
                    tracing::warn!(
                        stream = info.config.name,
                        read,
                        last,
                        "the stream ends before what was read of it: it was put back to an earlier state, and what it has is read from its start"
                    );
                }
                log = next;
            }
            // A later one may be there already.
            _ => {
                let next = format!("{base}#{generation}");
                if newest(&next).is_none() {
                    break;
                }
                log = next;
            }
        }
    }
    log.into()
}

/// A stream's name in record ids (stable).
pub(super) fn base(info: &stream::Info) -> String {
    format!("nats:{}@{}", info.config.name, info.created.unix_timestamp_nanos())
}

impl Finding<'_> {
    /// The durable consumer as it is.
    async fn consumer(&self) -> Result<Option<Info>, String> {
        match self.stream.consumer_info(&self.reading.durable).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("consumer {} of stream {}: {error}", self.reading.durable, self.name())),
        }
    }

    fn name(&self) -> &str {
        &self.stream.cached_info().config.name
    }

    /// Sees that the consumer stands behind `before`; the number of its last delivery.
    async fn stand(&self, consumer: Option<Info>, newest: Option<u64>, before: u64, last: u64) -> Result<u64, String> {
        let Some(consumer) = consumer else { return self.make(before).await };
        let at = consumer.delivered.stream_sequence;
        let right = consumer.num_ack_pending == 0 && newest.is_none_or(|newest| newest <= at) && at <= last;
        if right && self.fits(&consumer) {
            return Ok(consumer.delivered.consumer_sequence);
        }
        if self.stream.cached_info().config.retention == RetentionPolicy::Interest {
            return self.put_back(&consumer).await;
        }
        self.stream.delete_consumer(&self.reading.durable).await.map_err(|error| format!("consumer {}: {error}", self.reading.durable))?;
        self.make(before).await
    }

    /// Whether it delivers what we want, as we want it.
    fn fits(&self, consumer: &Info) -> bool {
        let (is, wanted) = (&consumer.config, self.wanted(0));
        let one = (!is.filter_subject.is_empty()).then_some(&is.filter_subject);
        let filters: BTreeSet<&String> = is.filter_subjects.iter().chain(one).collect();
        filters == self.filters.iter().collect() && is.ack_policy == wanted.ack_policy && is.deliver_subject.is_none() && !is.headers_only
    }

    fn wanted(&self, before: u64) -> pull::Config {
        // A stream of work is read from its start by rule; what was acknowledged is no longer in it.
        let whole = before == 0 || self.stream.cached_info().config.retention == RetentionPolicy::WorkQueue;
        pull::Config {
            durable_name: Some(self.reading.durable.clone()),
            description: Some(format!("opmas {}, source {}", self.reading.outlet.node.0, self.reading.outlet.source)),
            deliver_policy: if whole { DeliverPolicy::All } else { DeliverPolicy::ByStartSequence { start_sequence: before + 1 } },
            ack_policy: if self.each { AckPolicy::Explicit } else { AckPolicy::All },
            ack_wait: ACK_WAIT,
            max_ack_pending: MAX_ACK_PENDING,
            filter_subjects: self.filters.clone(),
            ..pull::Config::default()
        }
    }

    async fn make(&self, before: u64) -> Result<u64, String> {
        let made = self.stream.create_consumer(self.wanted(before)).await;
        let consumer = made.map_err(|error| match error.kind() {
            ConsumerErrorKind::JetStream(error) => format!("a consumer of stream {} cannot be made: {error}", self.name()),
            _ => format!("a consumer of stream {} cannot be made: {error}", self.name()),
        })?;
        Ok(consumer.cached_info().delivered.consumer_sequence)
    }

    /// A stream that keeps only what somebody wants would forget everything without its consumer. So the consumer is put back to its ack
    /// floor; with a server that cannot do that, what was delivered is waited for.
    async fn put_back(&self, consumer: &Info) -> Result<u64, String> {
        let subject = format!("CONSUMER.RESET.{}.{}", self.name(), self.reading.durable);
        let answer = self.connection.jetstream().request::<_, _, Response<serde_json::Value>>(subject, &serde_json::json!({"seq": 0})).await;
        if !matches!(answer, Ok(Response::Ok(_))) {
            tracing::info!(stream = self.name(), "waiting until the server delivers again what was not acknowledged");
            tokio::time::sleep(consumer.config.ack_wait).await;
        }
        if !self.fits(consumer) {
            return self.make(0).await;
        }
        let consumer = self.consumer().await?.ok_or("the consumer is gone")?;
        Ok(consumer.delivered.consumer_sequence)
    }
}
