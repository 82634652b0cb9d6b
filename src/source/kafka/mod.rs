//! Reads Kafka's topics as a member of a consumer group.
//!
//! One thread polls: it turns messages into records (`message`), hands them over in order, and commits offsets once the records are in
//! the spool (`flight`). Unless members share, one of the group reads and the others wait (`first`). Partitions come and go with the group
//! (`assign`), each from where the spool and the group left it (`start`); topics are looked at now and then (`look`), because they come, go and are made anew.

mod assign;
mod ears;
mod first;
mod flight;
mod look;
mod member;
mod message;
pub(super) mod range;
mod start;
mod topics;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::BaseConsumer;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::{BindError, KafkaConfig, Outlet, State};
use crate::broker::{self, kafka};
use crate::model::Trust;
use ears::Ears;
use member::{After, Member};
use topics::Topics;

/// How long a client that could not be made, or ended, waits for the next.
const RETRY: Duration = Duration::from_secs(2);
/// How long one waits whose place in the group another member of its name has taken.
const FENCED: Duration = Duration::from_secs(30);
/// How long the thread may take to end once it is told to; a broker that is away must not hold up the end.
const LAST: Duration = Duration::from_secs(6);
/// A member that was not heard of for so long is out of its group: so long a crash keeps its partitions from being read.
const SESSION: Duration = Duration::from_secs(10);
/// Bytes of messages that are fetched ahead, in KiB.
const AHEAD_KB: u32 = 16 << 10;
/// Bytes of one answer, and of one partition in it; a larger message comes alone.
const FETCH: u32 = 8 << 20;
const FETCH_PARTITION: u32 = 1 << 20;

/// What is needed to read.
#[derive(Clone, Debug)]
pub(super) struct Consumer {
    config: KafkaConfig,
    broker: broker::KafkaConfig,
    topics: Topics,
}

/// Checks the topics' names and regular expressions.
pub(super) fn bind(name: &str, config: &KafkaConfig, broker: &broker::KafkaConfig) -> Result<Consumer, BindError> {
    let topics = Topics::new(&config.logs, &config.findings).map_err(|reason| BindError::Broker { source_name: name.to_owned(), reason })?;
    Ok(Consumer { config: config.clone(), broker: broker.clone(), topics })
}

impl Consumer {
    /// Reads until it is stopped, on a thread of its own, because librdkafka's calls block.
    pub(super) async fn run(self, outlet: Outlet) {
        loop {
            let (tell, ended) = oneshot::channel();
            let (consumer, theirs, handle) = (self.clone(), outlet.clone(), Handle::current());
            let thread = std::thread::Builder::new().name(format!("kafka {}", outlet.source));
            let started = thread.spawn(move || {
                let read = AssertUnwindSafe(|| consumer.read(&theirs, &handle));
                // Whoever waits may have gone.
                let _ = tell.send(std::panic::catch_unwind(read).is_ok());
            });
            let ended = async { started.is_ok() && ended.await.unwrap_or(false) };
            tokio::pin!(ended);
            let well = tokio::select! {
                well = &mut ended => well,
                () = outlet.stopped() => tokio::time::timeout(LAST, ended).await.unwrap_or(true),
            };
            if well || *outlet.shutdown.borrow() {
                return;
            }
            (outlet.report)(&outlet.source, State::Fails("the thread that reads Kafka ended; it is started again".to_owned()));
            tracing::error!(source = %outlet.source, "the thread that reads Kafka ended; it is started again");
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One client after the other until it is stopped: a new one reads password and certificates anew.
    fn read(&self, outlet: &Outlet, handle: &Handle) {
        loop {
            let after = match self.client(outlet) {
                Ok(client) => Member::new(client, self, outlet, handle).run(),
                Err(error) => {
                    tracing::warn!(source = %outlet.source, %error, "Kafka cannot be read");
                    (outlet.report)(&outlet.source, State::Fails(error.to_string()));
                    After::Anew
                }
            };
            let stopped = || *outlet.shutdown.borrow() || outlet.batches.is_closed();
            if after == After::Stopped || stopped() {
                return;
            }
            // Dropped when it is over or when it is stopped.
            let wait = if after == After::Fenced { FENCED } else { RETRY };
            let _ = handle.block_on(async { tokio::time::timeout(wait, outlet.stopped()).await });
        }
    }

    /// A client and what it is called.
    fn client(&self, outlet: &Outlet) -> Result<(BaseConsumer<Ears>, String), kafka::ClientError> {
        let mut client = kafka::client_config(&self.broker)?;
        settings(&mut client);
        client.set("group.id", &self.config.group);
        if let Some(instance) = &self.config.instance {
            client.set("group.instance.id", instance);
        }
        let client_id = first::client_id(&self.name(outlet), self.config.share);
        client.set("client.id", &client_id);
        Ok((client.create_with_context(Ears::new(kafka::Listener::new(&self.broker)))?, client_id))
    }

    /// What the group's members call us.
    fn name(&self, outlet: &Outlet) -> String {
        format!("opmas-{}-{}", outlet.node.0, outlet.source)
    }

    /// Whether its messages are believed.
    fn trust(&self) -> Trust {
        if self.config.trusted.unwrap_or_else(|| self.broker.is_authenticated()) { Trust::Verified } else { Trust::Open }
    }
}

/// What reading needs, as a member of a group or not.
fn settings(client: &mut ClientConfig) {
    // Offsets are committed by us alone (O3), and where to begin is decided by us alone.
    client.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false").set("auto.offset.reset", "error");
    client.set("partition.assignment.strategy", "cooperative-sticky");
    client.set("session.timeout.ms", SESSION.as_millis().to_string()).set("heartbeat.interval.ms", "2000");
    client.set("allow.auto.create.topics", "false").set("topic.metadata.refresh.interval.ms", "30000");
    client.set("isolation.level", "read_committed");
    client.set("queued.max.messages.kbytes", AHEAD_KB.to_string());
    client.set("fetch.max.bytes", FETCH.to_string()).set("max.partition.fetch.bytes", FETCH_PARTITION.to_string());
    client.set("fetch.wait.max.ms", "200");
}
