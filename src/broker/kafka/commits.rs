//! Commits that are answered: those of the `rdkafka` crate either block for ever or are never heard of again.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaRespErr as Code;

use super::native::{Owned, text};

/// Where the answers to commits come in. To be dropped before its client.
pub struct Commits(Owned<native::rd_kafka_queue_t>);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Commits {}

impl Commits {
    /// For this client's commits; `None` when librdkafka has no memory.
    pub fn new<C: ClientContext>(client: &Client<C>) -> Option<Commits> {
        // SAFETY: the client is alive, and the queue is given back once.
        Owned::new(unsafe { native::rd_kafka_queue_new(client.native_ptr()) }, native::rd_kafka_queue_destroy).map(Commits)
    }

    /// Sends a group's offsets. The answer comes later.
    ///
    /// # Errors
    /// The client has no group, or is closed.
    pub fn send<C: ClientContext>(&self, client: &Client<C>, offsets: &TopicPartitionList) -> Result<(), String> {
        // SAFETY: client, list and queue are alive; librdkafka copies the list.
        let code = unsafe { native::rd_kafka_commit_queue(client.native_ptr(), offsets.ptr(), self.0.get(), None, std::ptr::null_mut()) };
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(text(code)) }
    }

    /// The next answer, if one comes within the time.
    #[must_use]
    pub fn answer(&self, within: Duration) -> Option<Result<(), String>> {
        let within = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive, and so is the event until it is given back.
        unsafe {
            let event = Owned::new(native::rd_kafka_queue_poll(self.0.get(), within), native::rd_kafka_event_destroy)?;
            let code = native::rd_kafka_event_error(event.get());
            Some(if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(text(code)) })
        }
    }
}
