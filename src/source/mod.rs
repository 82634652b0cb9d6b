//! Bytes to records: Kafka, NATS JetStream, syslog over UDP and TCP, HTTP, files that are followed, standard input.
//!
//! [`bind`] takes what a source needs (sockets, the file's folder) before anything starts and says what is in the way;
//! [`Bound::run`] then hands batches to the bounded channel and waits when it is full, until it is told to stop.

mod config;
mod content;
mod file;
mod framing;
pub mod http;
mod kafka;
mod lines;
mod meter;
mod nats;
mod position;
pub mod recording;
mod stdin;
mod syslog;
mod tcp;
mod tls;
mod udp;

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::broker::BrokerConfig;
use crate::clock;
use crate::model::{NodeId, Payload, Record, RecordId, Trust};
pub use config::{FileConfig, From, HttpConfig, KafkaConfig, NatsConfig, ServerTls, SourceConfig, SyslogConfig, address};
pub use framing::{Framer, MAX_FRAME};
pub use kafka::range::{KafkaRange, RangeError as KafkaRangeError, kafka_range};
use meter::Meter;
pub use nats::{Range as NatsRange, RangeError as NatsRangeError, range as nats_range};

/// Records of one batch at most, so that a full channel has a bounded size.
pub(super) const MAX_BATCH: usize = 1024;

/// How long a source that stops waits for what has reached the kernel.
const LAST_WAIT: std::time::Duration = std::time::Duration::from_millis(20);

/// Records that came together.
#[derive(Debug)]
pub struct Batch {
    /// In the order in which they came; at least one.
    pub records: Vec<Record>,
    /// Fires once the fsync that covers them is done; only then a file's position counts as kept (O3).
    pub done: Option<oneshot::Sender<()>>,
}

/// The newest place in the spool of a log, as [`RecordId::place`] names it.
pub type Kept = Arc<dyn Fn(&str) -> Option<u64> + Send + Sync>;
/// Takes a source's name (`[source.NAME]`) and how it stands.
pub type Report = Arc<dyn Fn(&str, State) + Send + Sync>;

/// How a source stands that reads from a broker. The texts are one sentence without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It reads.
    Reads,
    /// It cannot read, and why.
    Fails(String),
    /// Another opmas reads in its place, and which.
    Waits(String),
    /// From now on it reads what another has read until now: what that one read is not in its windows.
    TookOver,
}

/// What the engine gives every source.
#[derive(Clone)]
pub struct Context {
    /// Where batches go; it is bounded, and a full one is waited for.
    pub batches: mpsc::Sender<Batch>,
    /// The addresses whose TCP connections are believed.
    pub inventory: watch::Receiver<Arc<HashSet<IpAddr>>>,
    /// Becomes true when sources are to end.
    pub shutdown: watch::Receiver<bool>,
    /// Whose own messages are dropped when they are read back.
    pub node: NodeId,
    /// What need not be read again.
    pub kept: Kept,
    /// Who hears how a source stands.
    pub report: Report,
}

/// Why a source cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The name would not do as part of a file's name.
    #[error("`{0}` is no name for a source; use 1 to 64 letters, digits, `-` and `_`")]
    Name(String),
    /// An address cannot be listened on.
    #[error("source `{source_name}` cannot listen on {protocol} {address}: {}", listen_reason(.error))]
    Listen {
        /// `[source.NAME]`
        source_name: String,
        /// `udp` or `tcp`
        protocol: &'static str,
        /// As configured.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// Its certificate or key cannot be used.
    #[error("source `{source_name}`: {reason}")]
    Tls {
        /// `[source.NAME]`
        source_name: String,
        /// What is wrong, with the file.
        reason: String,
    },
    /// A file cannot be followed.
    #[error("source `{source_name}` cannot follow {}: {reason}", .path.display())]
    File {
        /// `[source.NAME]`
        source_name: String,
        /// As configured.
        path: PathBuf,
        /// What is in the way, with the remedy.
        reason: String,
    },
    /// There is no broker for it.
    #[error("source `{source_name}`: {reason}")]
    Broker {
        /// `[source.NAME]`
        source_name: String,
        /// What is missing, with the remedy.
        reason: String,
    },
}

fn listen_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use; stop the other program or choose another `listen`".to_owned(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need root or CAP_NET_BIND_SERVICE; choose a higher port in `listen`".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address; correct `listen`".to_owned(),
        _ => error.to_string(),
    }
}

/// A source that has everything it needs to start.
#[derive(Debug)]
pub struct Bound {
    name: Arc<str>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Syslog(syslog::Sockets),
    File(file::Follower),
    Kafka(kafka::Consumer),
    Nats(nats::Consumer),
    /// The API hands over what comes, through its door.
    Http(HttpConfig),
    Stdin,
}

/// Binds a source. `positions` is the folder for the kept positions of files; it is made when it is first written to.
/// `brokers` are those of the configuration.
///
/// # Errors
/// One sentence with the address or path and the remedy.
pub fn bind(name: &str, config: &SourceConfig, positions: &Path, brokers: &BTreeMap<String, BrokerConfig>) -> Result<Bound, BindError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(BindError::Name(name.to_owned()));
    }
    let kind = match config {
        SourceConfig::Syslog(config) => Kind::Syslog(syslog::bind(name, config)?),
        SourceConfig::File(config) => Kind::File(file::bind(name, config, positions)?),
        SourceConfig::Kafka(config) => match broker(name, config.broker.as_deref(), brokers, "kafka", |broker| matches!(broker, BrokerConfig::Kafka(_)))? {
            BrokerConfig::Kafka(broker) => Kind::Kafka(kafka::bind(name, config, broker)?),
            BrokerConfig::Nats(_) => return Err(no_broker(name, "its broker is a NATS server")),
        },
        SourceConfig::Nats(config) => match broker(name, config.broker.as_deref(), brokers, "nats", |broker| matches!(broker, BrokerConfig::Nats(_)))? {
            BrokerConfig::Nats(broker) => Kind::Nats(nats::bind(name, config, broker)?),
            BrokerConfig::Kafka(_) => return Err(no_broker(name, "its broker is a Kafka cluster")),
        },
        SourceConfig::Http(config) => Kind::Http(config.clone()),
        SourceConfig::Stdin => Kind::Stdin,
    };
    Ok(Bound { name: name.into(), kind })
}

/// Whether a file can be followed; unlike [`bind`] it keeps no position.
///
/// # Errors
/// As [`bind`].
pub fn check_file(name: &str, config: &FileConfig) -> Result<(), BindError> {
    file::check(name, config)
}

/// Whether what a syslog source reads for TLS can be used.
///
/// # Errors
/// As [`bind`].
pub fn check_tls(name: &str, config: &SyslogConfig) -> Result<(), BindError> {
    let checked = config.tls.as_ref().map(tls::config).transpose();
    checked.map(drop).map_err(|reason| BindError::Tls { source_name: name.to_owned(), reason })
}

fn no_broker(name: &str, reason: impl Into<String>) -> BindError {
    BindError::Broker { source_name: name.to_owned(), reason: reason.into() }
}

/// The broker of that name; without a name the only one that fits.
fn broker<'a>(
    name: &str,
    named: Option<&str>,
    brokers: &'a BTreeMap<String, BrokerConfig>,
    word: &str,
    fits: fn(&BrokerConfig) -> bool,
) -> Result<&'a BrokerConfig, BindError> {
    if let Some(named) = named {
        return brokers.get(named).ok_or_else(|| no_broker(name, format!("there is no [broker.{named}]")));
    }
    let mut fitting = brokers.values().filter(|broker| fits(broker));
    match (fitting.next(), fitting.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(no_broker(name, format!("there is no broker; write [broker.NAME] with type = \"{word}\" and servers"))),
        (Some(_), Some(_)) => Err(no_broker(name, "there is more than one broker of its type; say which with `broker`")),
    }
}

impl Bound {
    /// `[source.NAME]`
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The addresses it listens on: UDP, TCP.
    #[must_use]
    pub fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        match &self.kind {
            Kind::Syslog(sockets) => sockets.addresses(),
            _ => (None, None),
        }
    }

    /// The way in for what comes by HTTP, when it is such a source.
    #[must_use]
    pub fn door(&self, context: &Context) -> Option<http::Door> {
        match &self.kind {
            Kind::Http(config) => Some(http::Door::new(&self.name, config, &context.batches, &context.shutdown)),
            _ => None,
        }
    }

    /// Reads until `shutdown` becomes true, the receiver of `batches` is gone, or standard input ends. What was read by
    /// then has been handed over when this returns.
    pub async fn run(self, context: Context) {
        let Context { batches, inventory, shutdown, node, kept, report } = context;
        let outlet = Outlet { source: Arc::clone(&self.name), batches, shutdown, meter: Meter::new(&self.name), node, kept, report };
        match self.kind {
            Kind::Syslog(sockets) => sockets.run(outlet, inventory).await,
            Kind::File(follower) => follower.run(outlet).await,
            Kind::Kafka(consumer) => consumer.run(outlet).await,
            Kind::Nats(consumer) => consumer.run(outlet).await,
            Kind::Http(_) => outlet.stopped().await,
            Kind::Stdin => stdin::run(outlet).await,
        }
    }
}

/// Where a source's tasks put their batches.
#[derive(Clone)]
struct Outlet {
    source: Arc<str>,
    batches: mpsc::Sender<Batch>,
    shutdown: watch::Receiver<bool>,
    meter: Meter,
    node: NodeId,
    kept: Kept,
    report: Report,
}

/// Nobody takes batches any more: the task ends.
#[derive(Debug)]
struct Closed;

impl Outlet {
    /// Hands records over; waits while the channel is full. No records are no batch.
    async fn send(&self, records: Vec<Record>, done: Option<oneshot::Sender<()>>) -> Result<(), Closed> {
        if records.is_empty() {
            return Ok(());
        }
        let batch = Batch { records, done };
        self.meter.count(&batch);
        self.batches.send(batch).await.map_err(|_| Closed)
    }

    /// As [`Outlet::send`], in batches of at most [`MAX_BATCH`].
    async fn send_all(&self, records: Vec<Record>) -> Result<(), Closed> {
        let mut records = records.into_iter();
        loop {
            let batch: Vec<Record> = records.by_ref().take(MAX_BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            self.send(batch, None).await?;
        }
    }

    /// Returns when the source is to stop: told so, or nobody listens any more.
    async fn stopped(&self) {
        let mut shutdown = self.shutdown.clone();
        tokio::select! {
            // An error is a sender that is gone: then nobody could ever stop us.
            _ = shutdown.wait_for(|stop| *stop) => {}
            () = self.batches.closed() => {}
        }
    }

    /// A record that arrives now.
    fn record(&self, stream: &Arc<str>, id: Option<RecordId>, peer: Option<IpAddr>, trust: Trust, raw: Vec<u8>) -> Record {
        Record {
            id,
            source: Arc::clone(&self.source),
            stream: Arc::clone(stream),
            arrival: Some(clock::now()),
            peer,
            trust,
            raw,
            payload: Payload::Log,
            subject: None,
        }
    }
}
