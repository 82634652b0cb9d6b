//! Messages to NATS JetStream.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;

use super::{Message, PublishError};
use crate::broker::nats::{Connection, StreamError, is_subject, make, of_subject};
use crate::broker::{NatsConfig, ORIGIN};
use crate::model::NodeId;

/// Messages that are sent before the acknowledgement of the first of them is waited for.
const WINDOW: usize = 256;
/// How long an acknowledgement may take.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);
/// Subjects whose stream is known to be there.
const MAX_KNOWN: usize = 1_024;

/// The way to NATS.
#[derive(Debug)]
pub struct Producer {
    config: NatsConfig,
    origin: NodeId,
    connection: Option<Box<Connection>>,
    /// Subjects that a stream holds.
    known: BTreeSet<Arc<str>>,
}

/// Why messages were not taken.
enum Failed {
    /// The message of that index never will be.
    Refused(usize, String),
    /// There is no stream.
    NoStream,
    /// Later, perhaps.
    Later(String),
}

impl Producer {
    pub(super) fn new(config: &NatsConfig, origin: &NodeId) -> Producer {
        Producer { config: config.clone(), origin: origin.clone(), connection: None, known: BTreeSet::new() }
    }

    pub(super) async fn publish(&mut self, messages: &[Message]) -> Result<(), PublishError> {
        let sent = match self.send(messages).await {
            // The stream was deleted meanwhile: it is made anew, once.
            Err(Failed::NoStream) => self.send(messages).await,
            sent => sent,
        };
        sent.map_err(|failed| match failed {
            Failed::Refused(place, text) => PublishError { text, refused: Some(place) },
            Failed::NoStream => {
                PublishError { text: "NATS: no stream takes the messages, although one was made; look at the server".to_owned(), refused: None }
            }
            Failed::Later(text) => {
                // The next attempt connects anew, with credentials read anew.
                self.connection = None;
                PublishError { text, refused: None }
            }
        })
    }

    async fn send(&mut self, messages: &[Message]) -> Result<(), Failed> {
        let connection = match self.connection.take().filter(|connection| !connection.is_lost()) {
            Some(connection) => connection,
            None => Box::new(Connection::open(&self.config).await.map_err(|error| Failed::Later(error.to_string()))?),
        };
        let sent = self.send_through(&connection, messages).await;
        self.connection = Some(connection);
        sent
    }

    async fn send_through(&mut self, connection: &Connection, messages: &[Message]) -> Result<(), Failed> {
        let headers = messages.iter().map(|message| self.headers(message)).collect::<Vec<_>>();
        self.check(connection, messages, &headers)?;
        for message in messages {
            self.has_stream(connection, &message.subject).await?;
        }
        let mut headers = headers.into_iter();
        for (window, messages) in messages.chunks(WINDOW).enumerate() {
            let mut waiting = Vec::with_capacity(messages.len());
            for (message, headers) in messages.iter().zip(headers.by_ref()) {
                let outgoing = PublishMessage::build().headers(headers).payload(message.payload.clone().into());
                let sent = connection.jetstream().send_publish(message.subject.to_string(), outgoing).await;
                waiting.push(sent.map_err(|error| Failed::Later(connection.explain(&error.to_string())))?);
            }
            for (place, acknowledged) in waiting.into_iter().enumerate() {
                self.acknowledged(connection, window * WINDOW + place, acknowledged).await?;
            }
        }
        Ok(())
    }

    fn headers(&self, message: &Message) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, clean(&message.id).as_str());
        headers.insert(ORIGIN, clean(&self.origin.0).as_str());
        headers
    }

    /// Finds what the server would end the connection for, before anything is sent.
    fn check(&self, connection: &Connection, messages: &[Message], headers: &[HeaderMap]) -> Result<(), Failed> {
        let most = connection.client().max_payload();
        for (place, (message, headers)) in messages.iter().zip(headers).enumerate() {
            if !is_subject(&message.subject) {
                return Err(Failed::Refused(place, format!("`{}` is no subject; write words between dots", message.subject)));
            }
            let bytes = message.payload.len() + length(headers);
            if bytes > most {
                return Err(Failed::Refused(place, connection.explain(&format!("a message of {bytes} bytes is too large; its max_payload is {most}"))));
            }
        }
        Ok(())
    }

    async fn has_stream(&mut self, connection: &Connection, subject: &Arc<str>) -> Result<(), Failed> {
        if self.known.contains(subject) {
            return Ok(());
        }
        let later = |error: StreamError| Failed::Later(error.to_string());
        match of_subject(connection, subject).await {
            Ok(streams) if streams.is_empty() => drop(make(connection, subject).await.map_err(later)?),
            Ok(_) => {}
            // A user who may publish need not be allowed to look; without a stream publishing says so.
            Err(StreamError::Unanswered(why)) if !connection.is_lost() => tracing::debug!("{why}"),
            Err(error) => return Err(later(error)),
        }
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(Arc::clone(subject));
        Ok(())
    }

    async fn acknowledged(&mut self, connection: &Connection, place: usize, acknowledged: PublishAckFuture) -> Result<(), Failed> {
        let Ok(answer) = tokio::time::timeout(ACKNOWLEDGED_WITHIN, acknowledged).await else {
            return Err(Failed::Later(connection.explain("a message was not acknowledged in time")));
        };
        let Err(error) = answer else { return Ok(()) };
        let text = error.to_string();
        match error.kind() {
            PublishErrorKind::StreamNotFound => {
                self.known.clear();
                Err(Failed::NoStream)
            }
            PublishErrorKind::MaxPayloadExceeded => Err(Failed::Refused(place, connection.explain(&text))),
            // The stream's own bound (error 10054).
            _ if text.contains("message size exceeds maximum allowed") => Err(Failed::Refused(place, connection.explain(&text))),
            _ => Err(Failed::Later(connection.explain(&text))),
        }
    }
}

/// What may stand in a header.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// The bytes of headers as they are sent.
fn length(headers: &HeaderMap) -> usize {
    let line = |name: &str, value: &str| name.len() + value.len() + 4;
    let lines: usize = headers.iter().flat_map(|(name, values)| values.iter().map(move |value| line(name.as_ref(), value.as_str()))).sum();
    "NATS/1.0\r\n\r\n".len() + lines
}
