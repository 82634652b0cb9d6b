//! Messages of Nats.

use super::{BindError, NatsConfig, Outlet};
use crate::broker;

/// What is needed to read.
#[derive(Debug)]
pub(super) struct Consumer {
    config: NatsConfig,
    broker: broker::NatsConfig,
}

pub(super) fn bind(_name: &str, config: &NatsConfig, broker: &broker::NatsConfig) -> Result<Consumer, BindError> {
    Ok(Consumer { config: config.clone(), broker: broker.clone() })
}

impl Consumer {
    pub(super) async fn run(self, outlet: Outlet) {
        (outlet.report)(&outlet.source, Some(format!("{:?} {:?} {:?} {:?}", self.config, self.broker, outlet.node, (outlet.kept)("x"))));
        outlet.stopped().await;
    }
}
