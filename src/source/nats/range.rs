//! A stretch of time of NATS streams, for replay.

use std::sync::Arc;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{self, Stream};
use tokio::sync::mpsc;

use super::super::{MAX_BATCH, NatsConfig};
use super::place::base;
use super::pull::{Came, Pull, Standing};
use super::reading::{bytes, filters, kind, trust};
use crate::broker;
use crate::broker::nats::{Connection, of_subject};
use crate::model::{Payload, Record, RecordId, Time, Trust};

/// Messages that one request asks for.
const PULL: usize = 2_048;
/// How long a consumer may stand idle before the server forgets it: as long as nobody takes records.
const IDLE: std::time::Duration = std::time::Duration::from_secs(300);
/// How often reading begins again behind the last message without getting any.
const MAX_TRIES: u32 = 5;

/// What is read.
#[derive(Clone, Debug)]
pub struct Range {
    /// `[source.NAME]` that the records are of.
    pub source: Arc<str>,
    /// Its configuration: which subjects are logs and which findings.
    pub config: NatsConfig,
    /// This stream alone, all of it (subjects that the configuration does not name are logs); without it the streams of the subjects, one after another.
    pub stream: Option<String>,
    /// From what the server took then on.
    pub from: Time,
    /// Up to what the server took before that.
    pub to: Time,
}

/// Why a stretch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The server is away or refuses us.
    #[error(transparent)]
    Connect(#[from] broker::nats::ConnectError),
    /// Its streams cannot be listed.
    #[error(transparent)]
    Streams(#[from] broker::nats::StreamError),
    /// A stream cannot be read; one sentence.
    #[error("{0}")]
    Stream(String),
}

/// Reads what the streams hold from a time up to another, or up to their end as it is now, in the order of each stream. Records have no
/// arrival, and the ids that they have live. Returns how many; ends early when nobody takes them.
///
/// # Errors
/// See [`RangeError`]; what was handed over by then is right.
pub async fn range(broker: &broker::NatsConfig, what: &Range, batches: mpsc::Sender<Vec<Record>>) -> Result<u64, RangeError> {
    let connection = Connection::open(broker).await?;
    let mut names = Vec::new();
    match &what.stream {
        Some(name) => names.push(name.clone()),
        None => {
            for subject in what.config.logs.iter().chain(&what.config.findings) {
                names.extend(of_subject(&connection, subject).await?);
            }
            names.sort();
            names.dedup();
        }
    }
    let mut count = 0;
    for name in names {
        let failed = |why: String| RangeError::Stream(connection.explain(&format!("stream {name}: {why}")));
        let stream = connection.jetstream().get_stream(&name).await.map_err(|error| failed(error.to_string()))?;
        let mut reader = Reader::new(&connection, what, broker, stream, &batches);
        count += reader.read().await.map_err(failed)?;
        if batches.is_closed() {
            break;
        }
    }
    Ok(count)
}

/// Reads one stream.
struct Reader<'a> {
    connection: &'a Connection,
    what: &'a Range,
    stream: Stream<stream::Info>,
    batches: &'a mpsc::Sender<Vec<Record>>,
    log: Arc<str>,
    name: Arc<str>,
    trust: Trust,
    filters: Vec<String>,
    /// The stream's last message as it was at first.
    end: u64,
    /// The last message that came.
    last: u64,
}

impl<'a> Reader<'a> {
    fn new(
        connection: &'a Connection,
        what: &'a Range,
        broker: &broker::NatsConfig,
        stream: Stream<stream::Info>,
        batches: &'a mpsc::Sender<Vec<Record>>,
    ) -> Reader<'a> {
        let info = stream.cached_info();
        let ours = what.config.logs.iter().chain(&what.config.findings);
        let filters = if what.stream.is_some() { Vec::new() } else { filters(ours, &info.config.subjects).0 };
        let (log, name) = (base(info).into(), format!("{}/nats/{}", what.source, info.config.name).into());
        let (end, trust) = (info.state.last_sequence, trust(&what.config, broker));
        Reader { connection, what, batches, log, name, trust, filters, end, last: 0, stream }
    }

    async fn read(&mut self) -> Result<u64, String> {
        let (mut count, mut tries) = (0, 0);
        loop {
            let before = self.last;
            let why = match self.go_on(&mut count).await {
                Ok(()) => return Ok(count),
                Err(why) => why,
            };
            tries = if self.last > before { 0 } else { tries + 1 };
            if tries >= MAX_TRIES || self.connection.is_lost() {
                return Err(why);
            }
        }
    }

    /// With a consumer of its own, to the end or until that fails.
    async fn go_on(&mut self, count: &mut u64) -> Result<(), String> {
        let consumer = self.stream.create_consumer(self.consumer()?).await.map_err(|error| error.to_string())?;
        let (name, pending) = (consumer.cached_info().name.clone(), consumer.cached_info().num_pending);
        let read = if pending == 0 { Ok(()) } else { self.pull(&name, count).await };
        // It would go by itself; so it goes sooner.
        let _ = self.stream.delete_consumer(&name).await;
        read
    }

    fn consumer(&self) -> Result<pull::Config, String> {
        let from = async_nats::datetime::from_nanos(i128::from(self.what.from.0)).map_err(|error| error.to_string())?;
        let deliver_policy = match self.last {
            0 => DeliverPolicy::ByStartTime { start_time: from },
            last => DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
        };
        let filter_subjects = self.filters.clone();
        Ok(pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            inactive_threshold: IDLE,
            memory_storage: true,
            filter_subjects,
            ..pull::Config::default()
        })
    }

    async fn pull(&mut self, consumer: &str, count: &mut u64) -> Result<(), String> {
        let mut pull = Pull::new(self.connection, &self.stream.cached_info().config.name, consumer).await?;
        let mut records = Vec::new();
        loop {
            if !pull.is_open() {
                pull.ask(PULL).await?;
            }
            let mut next = Some(tokio::select! {
                came = pull.next() => came,
                () = self.connection.ended() => return Err("the connection was lost".to_owned()),
            });
            let mut ended = false;
            while let Some(came) = next {
                match came {
                    Came::Message(message, _, standing) => {
                        let place = (standing.sequence, standing.pending);
                        ended = self.take(message, standing, &mut records) || place.1 == 0 || place.0 >= self.end;
                    }
                    Came::Ended => break,
                    Came::Failed(why) => return Err(why),
                }
                if ended || records.len() >= MAX_BATCH {
                    break;
                }
                next = pull.at_hand();
            }
            *count += records.len() as u64;
            let batch = std::mem::take(&mut records);
            if (!batch.is_empty() && self.batches.send(batch).await.is_err()) || ended {
                return Ok(());
            }
        }
    }

    /// Whether the message is beyond the stretch.
    fn take(&mut self, message: async_nats::Message, standing: Standing, records: &mut Vec<Record>) -> bool {
        if standing.taken >= self.what.to.0 || standing.sequence > self.end {
            return true;
        }
        self.last = standing.sequence;
        let config = &self.what.config;
        let payload = kind(&config.logs, &config.findings, &message.subject).or(self.what.stream.as_ref().map(|_| Payload::Log));
        let (raw, _) = bytes(&message);
        if let (Some(payload), false) = (payload, raw.is_empty()) {
            records.push(Record {
                id: Some(RecordId::Broker { log: Arc::clone(&self.log), offset: standing.sequence }),
                source: Arc::clone(&self.what.source),
                stream: Arc::clone(&self.name),
                arrival: None,
                peer: None,
                trust: self.trust,
                raw,
                payload,
                subject: Some(message.subject.as_str().into()),
            });
        }
        false
    }
}
