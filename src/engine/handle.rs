//! The running system, as the API and the command line hold it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::again::{self, Again, Which};
use super::devices;
use super::effects::{Effects, lock};
use super::hand::{Hand, NotDone};
use super::hands::Hands;
use super::health::Observer;
use super::leases::{self, LeaseOrder};
use super::posture::{self, PostureState, Wanted};
use super::reload;
use super::status::Status;
use crate::config::Content;
use crate::executor::{Reply, Request};
use crate::index::{Answer, Query, Rows, Unverified};
use crate::journal::{DataDir, LedgerHash, SpoolHandle};
use crate::model::{Decided, Inventory, Posture};
use crate::source::Batch;
use crate::source::http::Door;

/// How long what is under way on devices and channels may take to end when opmas ends; then it is settled at the next start.
const PATIENCE: Duration = Duration::from_secs(15);

/// The running system.
pub struct Engine {
    pub(super) status: Status,
    pub(super) effects: Arc<Effects>,
    pub(super) hands: Arc<Hands>,
    pub(super) hand: Hand,
    pub(super) reload: mpsc::Sender<reload::Asked>,
    pub(super) spool: Arc<Mutex<Option<SpoolHandle>>>,
    /// Where dead letters are; held while some are put into the spool again.
    pub(super) data: tokio::sync::Mutex<DataDir>,
    pub(super) batches: mpsc::Sender<Batch>,
    /// Sources whose lines come by HTTP.
    pub(super) doors: Vec<Door>,
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

    /// Has opmas write every so often into its own spool how it is (docs/fields.md), until it stops. `metrics` gives them in Prometheus'
    /// text form.
    pub fn observe(&self, every: Duration, metrics: impl Fn() -> String + Send + Sync + 'static) {
        let observer = Observer { metrics: Box::new(metrics), status: self.status.clone(), spool: self.spool.clone() };
        tokio::spawn(observer.run(every, self.stop.ticks.clone()));
    }

    /// The ways in for what comes by HTTP.
    #[must_use]
    pub fn doors(&self) -> Vec<Door> {
        self.doors.clone()
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
        let mut answer = tokio::task::spawn_blocking(move || feed.query(query, head)).await.unwrap_or_else(|error| Err(error.to_string()))?;
        if let Rows::Leases(rows) = &mut answer.rows {
            let leases = lock(&self.effects.leases);
            for row in rows {
                let lease = leases.get(&leases.id(&row.device, &row.action, &row.params));
                row.unverified = lease.and_then(|lease| Some(Unverified { since: lease.seen, why: lease.trouble.clone()? }));
            }
        }
        Ok(answer)
    }

    /// The way to the runs, for what persons want of them.
    #[must_use]
    pub fn hand(&self) -> Hand {
        self.hand.clone()
    }

    /// Ends or extends effects by hand; a sentence for each.
    ///
    /// # Errors
    /// There is no such effect, or it cannot be extended so.
    pub async fn change_leases(&self, order: &LeaseOrder, by: &str) -> Result<Vec<leases::LeaseTold>, NotDone> {
        leases::by_hand(&self.effects, order, by).await
    }

    /// How far the system may go, after the change that is wanted.
    ///
    /// # Errors
    /// It may not be so, or cannot be recorded: one sentence.
    pub async fn posture(&self, wanted: Option<Wanted>, by: &Arc<str>) -> Result<(PostureState, Posture), String> {
        if let Some(wanted) = wanted {
            posture::change(&self.effects, wanted, by).await?;
        }
        Ok((self.effects.posture.borrow().clone(), self.effects.posture()))
    }

    /// Puts dead letters into the spool again, each once.
    ///
    /// # Errors
    /// One sentence; what was begun is done at the next start.
    pub async fn replay_dead(&self, which: &Which) -> Result<Again, String> {
        let data = self.data.lock().await;
        let spool = lock(&self.spool).clone().ok_or("opmas is ending")?;
        again::replay(&data, &spool, which).await
    }

    /// Asks the executor how a device can be reached.
    pub async fn check_device(&self, name: &str) -> Reply {
        let reply = self.hands.perform(Request::Check { device: name.into() }).await;
        devices::checked(&self.effects, &self.status, name, &reply);
        reply
    }

    /// Has the configuration folder read at once, and gives what is live then.
    ///
    /// # Errors
    /// It cannot be read, or opmas is ending; one sentence.
    pub async fn reload(&self) -> Result<Arc<Content>, String> {
        let ending = || "opmas is ending".to_owned();
        let (asked, done) = oneshot::channel();
        self.reload.send(asked).await.map_err(|_| ending())?;
        done.await.map_err(|_| ending())?
    }

    /// The same, without waiting for it. Where as many wait already as may, one more would change nothing.
    pub fn reload_soon(&self) {
        let _ = self.reload.try_send(oneshot::channel().0);
    }

    /// Ends everything, from left to right: what was accepted is on disk and computed; what is under way on devices and channels is
    /// waited for a while, and settled at the next start otherwise.
    pub async fn stop(self) {
        self.stop.sources.send_replace(true);
        self.stop.ticks.cancel();
        self.effects.end();
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
        let ended = tokio::task::spawn_blocking(move || feed.map(|feed| feed.end(head)));
        // What it has not written it reads from the ledger at the next start.
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }
}
