//! Messages to Kafka.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::{Message, PublishError};
use crate::broker::kafka::{ClientError, Listener, client_config};
use crate::broker::{KafkaConfig, ORIGIN};
use crate::model::NodeId;

/// The header with a message's identity, which is its key too: a topic may be compacted or keyed anew on its way.
const ID: &str = "Opmas-Id";
/// How long a message may take to be acknowledged, in milliseconds, before its caller decides anew.
const WITHIN_MS: u32 = 15_000;
/// How long a topic that is not there is waited for, in milliseconds: the broker may be making it.
const TOPIC_MS: u32 = 5_000;
/// Bytes of messages under way, in KiB: more than one message may have, or that one waits for ever.
const QUEUE_KB: u32 = 64 << 10;
/// The largest message that is sent at all, in bytes; mostly the broker's own bound is lower.
const MAX_MESSAGE: u32 = 32 << 20;
/// How long a full queue is waited for before the next try.
const FULL: Duration = Duration::from_millis(20);

/// The way to Kafka: an idempotent producer, made when it is first used.
pub struct Producer {
    config: KafkaConfig,
    origin: NodeId,
    open: Option<(FutureProducer<Listener>, Listener)>,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("config", &self.config).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// What became of one message.
type Delivered = Result<(), KafkaError>;

impl Producer {
    pub(super) fn new(config: &KafkaConfig, origin: &NodeId) -> Producer {
        Producer { config: config.clone(), origin: origin.clone(), open: None }
    }

    pub(super) async fn publish(&mut self, messages: &[Message]) -> Result<(), PublishError> {
        let (producer, listener) = self.open().map_err(|error| later(error.to_string()))?;
        let origin = self.origin.0.clone();
        let result = publish(&producer, &listener, &origin, messages).await;
        match &result {
            Ok(()) => listener.clear(),
            // A new client reads the password anew, and forgets what an idempotent one cannot go on from.
            Err(error) if error.refused.is_none() => self.open = None,
            Err(_) => {}
        }
        result
    }

    fn open(&mut self) -> Result<(FutureProducer<Listener>, Listener), ClientError> {
        if let Some((producer, listener)) = &self.open {
            return Ok((producer.clone(), listener.clone()));
        }
        let listener = Listener::new(&self.config);
        let mut client = client_config(&self.config)?;
        client.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "5");
        client.set("message.timeout.ms", WITHIN_MS.to_string()).set("topic.metadata.propagation.max.ms", TOPIC_MS.to_string());
        client.set("message.max.bytes", MAX_MESSAGE.to_string()).set("queue.buffering.max.kbytes", QUEUE_KB.to_string());
        client.set("compression.type", "zstd");
        let producer: FutureProducer<Listener> = client.create_with_context(listener.clone())?;
        self.open = Some((producer.clone(), listener.clone()));
        Ok((producer, listener))
    }
}

/// Sends all in their order, and waits for the last answer. What the broker finds too large as part of a batch is sent by itself, so that
/// a message is refused for its own size only.
async fn publish(producer: &FutureProducer<Listener>, listener: &Listener, origin: &Arc<str>, messages: &[Message]) -> Result<(), PublishError> {
    let mut under_way = Vec::with_capacity(messages.len());
    for message in messages {
        under_way.push(enqueue(producer, origin, message).await);
    }
    let mut too_large = Vec::new();
    let mut failed = None;
    for (index, delivery) in under_way.into_iter().enumerate() {
        match answer(delivery).await {
            Ok(()) => {}
            Err(error) if is_too_large(&error) => too_large.push(index),
            Err(error) => failed = failed.or(Some((index, error))),
        }
    }
    if let Some((index, error)) = failed {
        return Err(sentence(index, &error, messages, listener));
    }
    for index in too_large {
        let Some(message) = messages.get(index) else { continue };
        let alone = enqueue(producer, origin, message).await;
        answer(alone).await.map_err(|error| sentence(index, &error, messages, listener))?;
    }
    Ok(())
}

/// Puts a message into the queue; waits while it is full.
async fn enqueue(producer: &FutureProducer<Listener>, origin: &Arc<str>, message: &Message) -> Result<DeliveryFuture, KafkaError> {
    loop {
        let headers = OwnedHeaders::new().insert(Header { key: ORIGIN, value: Some(&**origin) }).insert(Header { key: ID, value: Some(&*message.id) });
        let record = FutureRecord::to(&message.subject).key(&*message.id).payload(&message.payload).headers(headers);
        match producer.send_result(record) {
            Ok(delivery) => return Ok(delivery),
            // It empties by itself: each message has a time limit.
            Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => tokio::time::sleep(FULL).await,
            Err((error, _)) => return Err(error),
        }
    }
}

async fn answer(delivery: Result<DeliveryFuture, KafkaError>) -> Delivered {
    delivery?
        .await
        .unwrap_or(Err((KafkaError::Canceled, rdkafka::message::OwnedMessage::new(None, None, String::new(), rdkafka::Timestamp::NotAvailable, 0, 0, None))))
        .map(drop)
        .map_err(|(error, _)| error)
}

fn is_too_large(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge))
}

fn later(text: String) -> PublishError {
    PublishError { text, refused: None }
}

fn sentence(index: usize, error: &KafkaError, messages: &[Message], listener: &Listener) -> PublishError {
    use RDKafkaErrorCode as Code;
    let topic = messages.get(index).map_or("", |message| &*message.subject);
    let refused = |text| PublishError { text, refused: Some(index) };
    match error.rdkafka_error_code() {
        _ if is_too_large(error) => refused(format!("the message is larger than the Kafka topic `{topic}` takes; raise its max.message.bytes")),
        Some(Code::InvalidTopic) => refused(format!("`{topic}` is no name of a Kafka topic")),
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
            later(format!("Kafka has no topic `{topic}`; make it, or let the broker make topics by itself"))
        }
        Some(Code::TopicAuthorizationFailed) => later(format!("the Kafka broker does not let our user write to the topic `{topic}`; allow it to")),
        // What is behind a time limit is what the listener heard.
        Some(Code::MessageTimedOut | Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Authentication | Code::SSL | Code::PurgeQueue) => {
            later(listener.trouble_or_silence().text)
        }
        _ => later(format!("Kafka does not take the message for `{topic}`: {error}")),
    }
}
