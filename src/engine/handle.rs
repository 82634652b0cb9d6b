//! The running system, as the API and the command line hold it.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bundle;
use super::effects::{Effects, lock};
use super::hands::Hands;
use super::intake;
use super::status::Status;
use crate::executor::{Reply, Request};
use crate::index::{Answer, Query};
use crate::journal::{LedgerHash, Revisions, SpoolHandle};
use crate::model::{Decided, EntryBody, Inventory};
use crate::source::Batch;

/// How long what is under way on devices and channels may take to end when opmas ends; then it is settled at the next start.
const PATIENCE: Duration = Duration::from_secs(15);

/// The running system.
pub struct Engine {
    pub(super) status: Status,
    pub(super) effects: Arc<Effects>,
    pub(super) hands: Arc<Hands>,
    pub(super) revisions: Revisions,
    pub(super) inventory: watch::Sender<Arc<Inventory>>,
    pub(super) verified: watch::Sender<Arc<HashSet<IpAddr>>>,
    pub(super) spool: Arc<Mutex<Option<SpoolHandle>>>,
    pub(super) batches: mpsc::Sender<Batch>,
    /// Source, and protocol with address.
    pub(super) listening: Vec<(String, String)>,
    pub(super) stop: Stop,
}

/// How the parts are told to end, from left to right.
pub(super) struct Stop {
    pub(super) sources: watch::Sender<bool>,
    pub(super) ticks: CancellationToken,
    /// Runs, leases and deliveries.
    pub(super) effects: CancellationToken,
    pub(super) before_decider: Vec<JoinHandle<()>>,
    pub(super) decider: JoinHandle<()>,
    pub(super) after_decider: Vec<JoinHandle<()>>,
    pub(super) index: thread::JoinHandle<()>,
}

/// The addresses whose TCP connections are believed: those of devices.
pub(super) fn addresses(inventory: &Inventory) -> HashSet<IpAddr> {
    inventory.devices.iter().filter_map(|device| device.host.parse().ok()).collect()
}

impl Engine {
    /// How things stand.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Every decision from now on; a slow reader misses some.
    #[must_use]
    pub fn feed(&self) -> broadcast::Receiver<Arc<Decided>> {
        self.effects.feed()
    }

    /// Where it listens: source, protocol and address.
    #[must_use]
    pub fn addresses(&self) -> &[(String, String)] {
        &self.listening
    }

    /// A way in for records, beside the configured sources. To be dropped before [`Engine::stop`].
    #[must_use]
    pub fn input(&self) -> mpsc::Sender<Batch> {
        self.batches.clone()
    }

    /// The ledger's newest record and the chain hash up to it.
    #[must_use]
    pub fn ledger_head(&self) -> (u64, LedgerHash) {
        self.effects.head()
    }

    /// Asks the index; the answer knows everything that was recorded before.
    ///
    /// # Errors
    /// There is no index that can be used: one sentence.
    pub async fn query(&self, query: Query) -> Result<Answer, String> {
        let head = self.effects.head().0;
        let Some(feed) = self.effects.index.get().cloned() else { return Err("the index is not there yet".to_owned()) };
        // It waits for the thread, which may be catching up.
        tokio::task::spawn_blocking(move || feed.query(query, head)).await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Asks the executor how a device can be reached.
    pub async fn check_device(&self, name: &str) -> Reply {
        self.hands.perform(Request::Check { device: name.into() }).await
    }

    /// Another inventory, from the next spool entry on; the executor reads its own.
    ///
    /// # Errors
    /// It cannot be kept.
    pub async fn set_inventory(&self, inventory: Inventory) -> io::Result<()> {
        let revision = bundle::keep_inventory(&self.revisions, &inventory)?;
        let spool = lock(&self.spool).clone();
        if let Some(spool) = spool {
            intake::append(&spool, vec![EntryBody::Revision(revision)], &self.status).await;
        }
        self.verified.send_replace(Arc::new(addresses(&inventory)));
        self.inventory.send_replace(Arc::new(inventory));
        self.hands.start().await;
        Ok(())
    }

    /// Ends everything, from left to right: what was accepted is on disk and computed; what is under way on devices and channels is
    /// waited for a while, and settled at the next start otherwise.
    pub async fn stop(self) {
        self.stop.sources.send_replace(true);
        self.stop.ticks.cancel();
        drop(self.batches);
        for task in self.stop.before_decider {
            // A task that panicked has said so.
            let _ = task.await;
        }
        lock(&self.spool).take();
        let _ = self.stop.decider.await;
        self.stop.effects.cancel();
        for mut task in self.stop.after_decider {
            if tokio::time::timeout(PATIENCE, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.hands.shutdown().await;
        let (feed, head) = (self.effects.index.get().cloned(), self.effects.head().0);
        let ended = tokio::task::spawn_blocking(move || {
            feed.iter().for_each(|feed| feed.end(head));
            self.stop.index.join()
        });
        // What it has not written it reads from the ledger at the next start.
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }
}
