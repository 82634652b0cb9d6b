//! Bytes to records: syslog over UDP and TCP, files that are followed, standard input.
//!
//! [`bind`] takes what a source needs (sockets, the file's folder) before anything starts and says what is in the way;
//! [`Bound::run`] then hands batches to the bounded channel and waits when it is full, until it is told to stop.

mod config;
mod file;
mod framing;
mod lines;
mod meter;
mod position;
mod stdin;
mod syslog;
mod tcp;
mod udp;

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::model::{Record, RecordId, Trust};
pub use config::{FileConfig, From, SourceConfig, SyslogConfig, address};
pub use framing::{Framer, MAX_FRAME};
use meter::Meter;

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
    Stdin,
}

/// Binds a source. `positions` is the folder for the kept positions of files; it is made when it is first written to.
///
/// # Errors
/// One sentence with the address or path and the remedy.
pub fn bind(name: &str, config: &SourceConfig, positions: &Path) -> Result<Bound, BindError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(BindError::Name(name.to_owned()));
    }
    let kind = match config {
        SourceConfig::Syslog(config) => Kind::Syslog(syslog::bind(name, config)?),
        SourceConfig::File(config) => Kind::File(file::bind(name, config, positions)?),
        SourceConfig::Stdin => Kind::Stdin,
    };
    Ok(Bound { name: name.into(), kind })
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
            Kind::File(_) | Kind::Stdin => (None, None),
        }
    }

    /// Reads until `shutdown` becomes true, the receiver of `batches` is gone, or standard input ends. What was read by
    /// then has been handed over when this returns. `inventory` holds the addresses whose TCP connections are believed.
    pub async fn run(self, batches: mpsc::Sender<Batch>, inventory: watch::Receiver<Arc<HashSet<IpAddr>>>, shutdown: watch::Receiver<bool>) {
        let outlet = Outlet { source: Arc::clone(&self.name), batches, shutdown, meter: Meter::new(&self.name) };
        match self.kind {
            Kind::Syslog(sockets) => sockets.run(outlet, inventory).await,
            Kind::File(follower) => follower.run(outlet).await,
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
        Record { id, source: Arc::clone(&self.source), stream: Arc::clone(stream), arrival: Some(clock::now()), peer, trust, raw }
    }
}
