//! Messages of Kafka.

use super::{BindError, KafkaConfig, Outlet};
use crate::broker;

/// What is needed to read.
#[derive(Debug)]
pub(super) struct Consumer {
    config: KafkaConfig,
    broker: broker::KafkaConfig,
}

pub(super) fn bind(_name: &str, config: &KafkaConfig, broker: &broker::KafkaConfig) -> Result<Consumer, BindError> {
    Ok(Consumer { config: config.clone(), broker: broker.clone() })
}

impl Consumer {
    pub(super) async fn run(self, outlet: Outlet) {
        (outlet.report)(&outlet.source, Some(format!("{:?} {:?} {:?} {:?}", self.config, self.broker, outlet.node, (outlet.kept)("x"))));
        outlet.stopped().await;
    }
}
