//! A topic from one time to another, for replay: beside any group, and nothing is committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::assign::{marks, offsets};
use super::ears::Ears;
use super::flight::Place;
use super::message::{self, Labels};
use super::settings;
use crate::broker::{self, kafka};
use crate::model::{NodeId, Payload, Record, Time, Trust};
use crate::source::{Batch, MAX_BATCH};

/// How long the cluster may take to answer, and to bring the next message.
const WITHIN: Duration = Duration::from_secs(20);
/// Bytes of one batch.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// What is to be read.
#[derive(Clone, Debug)]
pub struct KafkaRange {
    /// What records name as their source.
    pub source: Arc<str>,
    /// The topic's name.
    pub topic: Arc<str>,
    /// What its messages are.
    pub payload: Payload,
    /// Whether they are believed.
    pub trust: Trust,
    /// From the first message of this time on (Kafka's time index: the message's own time, or the broker's).
    pub from: Option<Time>,
    /// Up to the first message of this time; never beyond the end at the call.
    pub to: Option<Time>,
    /// Whose own messages are left out.
    pub node: Option<NodeId>,
}

/// Why a topic cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// There is no client.
    #[error(transparent)]
    Client(#[from] kafka::ClientError),
    /// There is no such topic, or it may not be read.
    #[error("Kafka has no topic `{0}` that our user may read")]
    Absent(Arc<str>),
    /// The cluster cannot be reached, or stopped answering; one sentence.
    #[error("{0}")]
    Unreachable(String),
}

/// Reads; hands over batches without arrival, with the ids that the records have live, each partition in its order. Returns how many
/// records there were, also when the receiver went away before the end.
///
/// # Errors
/// [`RangeError`].
pub async fn kafka_range(broker: broker::KafkaConfig, range: KafkaRange, batches: mpsc::Sender<Batch>) -> Result<u64, RangeError> {
    let read = tokio::task::spawn_blocking(move || Reading::open(&broker, &range)?.run(&batches));
    read.await.unwrap_or_else(|error| Err(RangeError::Unreachable(format!("reading Kafka ended: {error}"))))
}

/// A topic that is being read.
struct Reading {
    client: BaseConsumer<Ears>,
    node: NodeId,
    labels: HashMap<i32, Labels>,
    /// Partitions that are not at their end, and where that is.
    ends: HashMap<i32, i64>,
}

impl Reading {
    fn open(broker: &broker::KafkaConfig, range: &KafkaRange) -> Result<Reading, RangeError> {
        let mut config = kafka::client_config(broker)?;
        settings(&mut config);
        // librdkafka assigns nothing without a group; this one is never joined.
        config.set("group.id", "opmas-replay").set("enable.partition.eof", "true");
        let client: BaseConsumer<Ears> = config.create_with_context(Ears::new(kafka::Listener::new(broker))).map_err(kafka::ClientError::from)?;
        let asked = ask(&client, range);
        let unreachable = |_| RangeError::Unreachable(client.context().listener.trouble_or_silence().text);
        let (id, places, starts, ends) = asked.map_err(unreachable)?.ok_or_else(|| RangeError::Absent(range.topic.clone()))?;
        let mut list = TopicPartitionList::new();
        let mut open = HashMap::new();
        for ((topic, number), (start, end)) in places.iter().zip(starts.into_iter().zip(ends)).filter(|(_, (start, end))| start < end) {
            // Offsets are never negative, the one reason to refuse them.
            let _ = list.add_partition(topic, *number).set_offset(Offset::Offset(start));
            open.insert(*number, end);
        }
        client.assign(&list).map_err(|error| RangeError::Unreachable(error.to_string()))?;
        let labels = open.keys().map(|number| (*number, labels(range, id.as_deref(), *number))).collect();
        // A node that is none: no header is equal to it.
        let node = range.node.clone().unwrap_or_else(|| NodeId("".into()));
        Ok(Reading { client, node, labels, ends: open })
    }

    fn run(mut self, batches: &mpsc::Sender<Batch>) -> Result<u64, RangeError> {
        let (mut records, mut bytes, mut count) = (Vec::new(), 0, 0);
        let mut last = Instant::now();
        while !self.ends.is_empty() {
            let before = self.ends.len();
            let record = self.next();
            if record.is_some() || self.ends.len() < before {
                last = Instant::now();
            } else if last.elapsed() > WITHIN {
                return Err(RangeError::Unreachable(self.client.context().listener.trouble_or_silence().text));
            }
            let idle = record.is_none();
            if let Some(record) = record {
                count += 1;
                bytes += record.raw.len();
                records.push(record);
            }
            let full = records.len() >= MAX_BATCH || bytes >= MAX_BATCH_BYTES;
            if (full || idle || self.ends.is_empty()) && !records.is_empty() {
                bytes = 0;
                if batches.blocking_send(Batch { records: std::mem::take(&mut records), done: None }).is_err() {
                    return Ok(count);
                }
            }
        }
        Ok(count)
    }

    /// The next record; `None` when nothing came for a moment, or what came is none.
    fn next(&mut self) -> Option<Record> {
        match self.client.poll(Duration::from_millis(100))? {
            Err(KafkaError::PartitionEOF(number)) => {
                self.ends.remove(&number);
                None
            }
            Err(error) => {
                tracing::debug!(%error, "Kafka");
                None
            }
            Ok(message) => {
                let number = message.partition();
                let end = *self.ends.get(&number)?;
                if message.offset() + 1 >= end {
                    self.ends.remove(&number);
                    let mut over = TopicPartitionList::new();
                    over.add_partition(message.topic(), number);
                    // Else it goes on being fetched, and what comes is left out above.
                    let _ = self.client.pause(&over);
                }
                let labels = self.labels.get(&number).filter(|_| message.offset() < end)?;
                message::take(&message, labels, &self.node).ok().map(|(record, _)| record)
            }
        }
    }
}

/// A topic's id and partitions, and where each begins and ends.
type Asked = (Option<Arc<str>>, Vec<Place>, Vec<i64>, Vec<i64>);

/// `None` when there is no such topic.
fn ask(client: &BaseConsumer<Ears>, range: &KafkaRange) -> Result<Option<Asked>, String> {
    let text = |error: KafkaError| error.to_string();
    let topics = kafka::describe(client.client(), &[&*range.topic], WITHIN)?;
    let Some(kafka::Topic::There(id)) = topics.get(&*range.topic) else { return Ok(None) };
    let metadata = client.fetch_metadata(Some(&range.topic), WITHIN).map_err(text)?;
    let topic = metadata.topics().iter().find(|topic| topic.error().is_none() && topic.name() == &*range.topic);
    let places: Vec<Place> = topic.iter().flat_map(|topic| topic.partitions()).map(|partition| (range.topic.clone(), partition.id())).collect();
    let (low, high) = (marks(client, &places, Offset::Beginning).map_err(text)?, marks(client, &places, Offset::End).map_err(text)?);
    let starts = at(client, &places, range.from, low, &high, i64::div_euclid).map_err(text)?;
    let ends = at(client, &places, range.to, high.clone(), &high, |time, unit| time.saturating_add(unit - 1).div_euclid(unit)).map_err(text)?;
    Ok(Some((id.clone(), places, starts, ends)))
}

/// The first offset of a time, the end where there is none so late; `unsaid` without a time.
fn at(client: &BaseConsumer<Ears>, places: &[Place], time: Option<Time>, unsaid: Vec<i64>, high: &[i64], to_ms: fn(i64, i64) -> i64) -> KafkaResult<Vec<i64>> {
    let Some(Time(time)) = time else { return Ok(unsaid) };
    let mut asked = TopicPartitionList::new();
    for (topic, number) in places {
        // Before 1970 nothing was written.
        asked.add_partition_offset(topic, *number, Offset::Offset(to_ms(time, 1_000_000).max(0)))?;
    }
    let found = offsets(&client.offsets_for_times(asked, WITHIN)?, places)?;
    Ok(found.into_iter().zip(high).map(|(offset, high)| offset.unwrap_or(*high).min(*high)).collect())
}

fn labels(range: &KafkaRange, id: Option<&str>, number: i32) -> Labels {
    Labels {
        source: range.source.clone(),
        stream: format!("{}/kafka/{}/{number}", range.source, range.topic).into(),
        log: kafka::log_name(&range.topic, id, number).into(),
        topic: range.topic.clone(),
        payload: range.payload,
        trust: range.trust,
    }
}
