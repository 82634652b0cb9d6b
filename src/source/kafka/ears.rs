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
    /// Set before the client is dropped: rebalances are only answered from then on.
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

    /// From here on nothing is taken. What was noted and not acted on is answered, because the client's end waits for the answer.
    pub(super) fn leave(&self, client: &BaseConsumer<Ears>) {
        self.leaving.store(true, Ordering::Release);
        for event in self.take_rebalances() {
            decline(client, &event);
        }
    }
}

/// Takes nothing of what comes and gives up what goes.
fn decline(client: &BaseConsumer<Ears>, event: &Rebalance) {
    let answered = match event {
        Rebalance::Assigned(_) => client.incremental_assign(&TopicPartitionList::new()),
        Rebalance::Revoked(list) => client.incremental_unassign(list),
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "Kafka: partitions are given up with the client");
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
        let event = if assigned { Rebalance::Assigned(list.clone()) } else { Rebalance::Revoked(list.clone()) };
        if self.leaving.load(Ordering::Acquire) {
            return decline(consumer, &event);
        }
        lock(&self.rebalances).push(event);
    }
}
