//! What librdkafka calls back: errors and rebalances. It only notes them; the thread that polls acts on them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;

use crate::broker::kafka::Listener;

/// A change of which partitions are ours.
pub(super) enum Rebalance {
    /// These are ours from now on.
    Assigned(TopicPartitionList),
    /// These are to be given up.
    Revoked(TopicPartitionList),
}

/// The context of a group's member.
pub(super) struct Ears {
    pub(super) listener: Listener,
    rebalances: Mutex<Vec<Rebalance>>,
    /// Set before the client is dropped: nobody acts on rebalances any more.
    leaving: AtomicBool,
}

impl Ears {
    pub(super) fn new(listener: Listener) -> Ears {
        Ears { listener, rebalances: Mutex::default(), leaving: AtomicBool::new(false) }
    }

    /// The rebalances since the last call, in their order. There are never more than two: the next comes when they are answered.
    pub(super) fn take_rebalances(&self) -> Vec<Rebalance> {
        std::mem::take(&mut lock(&self.rebalances))
    }

    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }
}

/// Each holder makes one call that cannot panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Ears {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.listener.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.listener.error(error, reason);
    }
}

impl ConsumerContext for Ears {
    fn rebalance(&self, consumer: &BaseConsumer<Ears>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            // The group waits for an answer, and the client's end for the group.
            if !assigned && let Err(error) = consumer.incremental_unassign(list) {
                tracing::debug!(%error, "Kafka: partitions are given up with the client");
            }
            return;
        }
        lock(&self.rebalances).push(if assigned { Rebalance::Assigned(list.clone()) } else { Rebalance::Revoked(list.clone()) });
    }
}
