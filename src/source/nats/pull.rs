//! Pull requests to one consumer, and what comes for them.

use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subject, Subscriber};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::broker::nats::Connection;

/// How long a request stays with the server when nothing comes.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often the server shows meanwhile that it is there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// A request of which nothing was heard for so long is lost.
const SILENCE: Duration = Duration::from_secs(15);
/// Bytes that one request asks for; a larger message is asked for alone.
const MAX_BYTES: usize = 4 << 20;

/// Where a message stands, as its reply subject says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// In the stream, from 1.
    pub(super) sequence: u64,
    /// Among what this consumer delivered, from 1.
    pub(super) delivery: u64,
    /// When the server took it, nanoseconds since 1970.
    pub(super) taken: i64,
    /// How many follow for this consumer.
    pub(super) pending: u64,
}

impl Standing {
    /// `$JS.ACK.STREAM.CONSUMER.TRIES.SEQUENCE.DELIVERY.TIME.PENDING`, or with a domain and an account before the stream.
    pub(super) fn read(reply: &str) -> Option<Standing> {
        let mut all = [""; 9];
        let tokens = reply.strip_prefix("$JS.ACK.")?.split('.').zip(&mut all).map(|(token, place)| *place = token).count();
        let mut tokens = all.into_iter().skip(if tokens == all.len() { 5 } else { 3 });
        Some(Standing {
            sequence: tokens.next()?.parse().ok()?,
            delivery: tokens.next()?.parse().ok()?,
            taken: tokens.next()?.parse().ok()?,
            pending: tokens.next()?.parse().ok()?,
        })
    }
}

/// What came.
#[expect(clippy::large_enum_variant, reason = "nearly all are messages, one at a time, and none is kept")]
pub(super) enum Came {
    /// A message, and where to acknowledge it.
    Message(Message, Subject, Standing),
    /// The request is at its end; ask again.
    Ended,
    /// The consumer is not to be had like this; why.
    Failed(String),
}

/// The requests to a consumer; at most one is open.
pub(super) struct Pull {
    client: Client,
    to: String,
    inbox: String,
    messages: Subscriber,
    number: u64,
    /// Messages that the open request may still bring.
    open: usize,
    /// Messages that it has brought.
    brought: usize,
    /// The next message is too large to come with others.
    alone: bool,
    heard: Instant,
}

impl Pull {
    pub(super) async fn new(connection: &Connection, stream: &str, consumer: &str) -> Result<Pull, String> {
        let client = connection.client();
        let inbox = client.new_inbox();
        let messages = client.subscribe(format!("{inbox}.*")).await.map_err(|error| connection.explain(&error.to_string()))?;
        let to = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        Ok(Pull { client, to, inbox, messages, number: 0, open: 0, brought: 0, alone: false, heard: Instant::now() })
    }

    /// Whether a request is open.
    pub(super) fn is_open(&self) -> bool {
        self.open > 0
    }

    /// Asks for at most so many messages.
    pub(super) async fn ask(&mut self, messages: usize) -> Result<(), String> {
        let mut request = serde_json::json!({"expires": EXPIRES.as_nanos() as u64, "idle_heartbeat": HEARTBEAT.as_nanos() as u64});
        let batch = if self.alone { 1 } else { messages };
        if let Some(request) = request.as_object_mut() {
            request.insert("batch".to_owned(), batch.into());
            if !self.alone {
                request.insert("max_bytes".to_owned(), MAX_BYTES.into());
            }
        }
        self.number += 1;
        (self.open, self.brought, self.heard) = (batch, 0, Instant::now());
        let reply = format!("{}.{}", self.inbox, self.number);
        self.client.publish_with_reply(self.to.clone(), reply, request.to_string().into()).await.map_err(|error| error.to_string())
    }

    /// What comes next. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Came {
        loop {
            let message = match tokio::time::timeout_at(self.heard + SILENCE, self.messages.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Came::Failed("the subscription ended".to_owned()),
                Err(_) => return Came::Failed("the server has fallen silent".to_owned()),
            };
            self.heard = Instant::now();
            if let Some(came) = self.sort(message) {
                return came;
            }
        }
    }

    /// What is here already, without waiting.
    pub(super) fn at_hand(&mut self) -> Option<Came> {
        loop {
            let message = futures_util::FutureExt::now_or_never(self.messages.next())??;
            if let Some(came) = self.sort(message) {
                return Some(came);
            }
        }
    }

    /// `None` for what says nothing.
    fn sort(&mut self, message: Message) -> Option<Came> {
        match message.status {
            None | Some(StatusCode::OK) => return self.message(message),
            Some(StatusCode::IDLE_HEARTBEAT) => return None,
            _ => {}
        }
        // Of an earlier request, which was at its end without it.
        if message.subject.rsplit('.').next() != Some(self.number.to_string().as_str()) || self.open == 0 {
            return None;
        }
        let brought = std::mem::take(&mut self.brought);
        self.open = 0;
        let said = message.description.unwrap_or_default();
        let (status, said) = (message.status.map_or(0, |status| status.as_u16()), said.as_str());
        Some(match (status, said) {
            (404 | 408, _) | (409, "Batch Completed" | "Leadership Change") => Came::Ended,
            (409, said) if said.starts_with("Message Size Exceeds") => {
                self.alone = brought == 0;
                Came::Ended
            }
            (503, _) => Came::Failed("the consumer is gone".to_owned()),
            (409, "Consumer Deleted") => Came::Failed("the consumer was deleted (or another opmas reads with the same `durable`)".to_owned()),
            (status, said) => Came::Failed(format!("{status} {said}")),
        })
    }

    fn message(&mut self, message: Message) -> Option<Came> {
        self.open = self.open.saturating_sub(1);
        self.brought += 1;
        self.alone = false;
        // What has none did not come from a stream: somebody knows our inbox.
        let reply = message.reply.clone()?;
        let standing = Standing::read(&reply)?;
        Some(Came::Message(message, reply, standing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_subject_says_where_a_message_stands() {
        let standing = Some(Standing { sequence: 71, delivery: 5, taken: 1_700_000_000_000_000_001, pending: 9 });
        assert_eq!(Standing::read("$JS.ACK.LOGS.opmas.1.71.5.1700000000000000001.9"), standing);
        assert_eq!(Standing::read("$JS.ACK._.hash.LOGS.opmas.1.71.5.1700000000000000001.9"), standing);
        assert_eq!(Standing::read("$JS.ACK.hub.hash.LOGS.opmas.1.71.5.1700000000000000001.9.random"), standing);
        assert_eq!(Standing::read("$JS.ACK.LOGS.opmas"), None);
        assert_eq!(Standing::read("_INBOX.x"), None);
    }
}
