//! Messages to Nats.

use super::{Message, PublishError};
use crate::broker::NatsConfig;
use crate::model::NodeId;

/// The way to Nats.
#[derive(Debug)]
pub struct Producer {
    config: NatsConfig,
    origin: NodeId,
}

impl Producer {
    pub(super) fn new(config: &NatsConfig, origin: &NodeId) -> Producer {
        Producer { config: config.clone(), origin: origin.clone() }
    }

    pub(super) async fn publish(&mut self, _messages: &[Message]) -> Result<(), PublishError> {
        Err(PublishError { text: format!("{:?} {:?}", self.config.servers, self.origin), refused: None })
    }
}
