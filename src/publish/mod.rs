//! Findings and records to Kafka and NATS: messages that carry their identity, so that one that comes twice is known.

mod config;
mod cursor;
mod kafka;
mod nats;

use std::sync::Arc;

use crate::broker::BrokerConfig;
use crate::model::NodeId;
pub use config::{ForwardConfig, Origin, PublishConfig, Unfit};
pub use cursor::{Cursor, Found};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its identity: NATS's `Nats-Msg-Id`, Kafka's key. The same message has the same one, whenever it is sent.
    pub id: Arc<str>,
    /// NATS's subject, Kafka's topic.
    pub subject: Arc<str>,
    /// JSON.
    pub payload: Vec<u8>,
}

/// Why messages were not taken.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct PublishError {
    /// One sentence, without secrets.
    pub text: String,
    /// The index of a message that the broker will never take (too large, a subject that is none). Without it: try all again later.
    pub refused: Option<usize>,
}

/// The way to one broker. It connects when it is first used, and again when the connection is lost.
#[derive(Debug)]
pub enum Publisher {
    /// A Kafka cluster.
    Kafka(kafka::Producer),
    /// A NATS server with JetStream.
    Nats(nats::Producer),
}

impl Publisher {
    /// A way that is not opened yet. `origin` goes into the header [`ORIGIN`](crate::broker::ORIGIN) of every message.
    #[must_use]
    pub fn new(config: &BrokerConfig, origin: &NodeId) -> Publisher {
        match config {
            BrokerConfig::Kafka(config) => Publisher::Kafka(kafka::Producer::new(config, origin)),
            BrokerConfig::Nats(config) => Publisher::Nats(nats::Producer::new(config, origin)),
        }
    }

    /// Sends messages in their order; resolves when the broker has acknowledged all of them as durable. After an error some may have been
    /// taken: sending all again is right, since each carries its identity.
    ///
    /// # Errors
    /// The broker is away, refuses us, or refuses a message.
    pub async fn publish(&mut self, messages: &[Message]) -> Result<(), PublishError> {
        match self {
            Publisher::Kafka(producer) => producer.publish(messages).await,
            Publisher::Nats(producer) => producer.publish(messages).await,
        }
    }
}
