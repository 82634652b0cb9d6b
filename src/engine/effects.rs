//! Everything decided: appended to the ledger first, then taken into the state machines that follow from it.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, broadcast};

use super::index::Feed;
use super::open::OpenFindings;
use super::status::{Gravity, Status};
use crate::action::{Budgets, Leases};
use crate::alert::Outbox;
use crate::journal::{Ledger, LedgerHash};
use crate::model::Decided;

/// How long an append that the disk refused waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How many decisions a reader of the feed may be behind before it misses some; the ledger has them all.
const FEED: usize = 4_096;

/// The ledger, and the state that follows from it. Nothing here waits while a lock is held.
pub(super) struct Effects {
    ledger: Ledger,
    /// What is to be delivered.
    pub(super) outbox: Mutex<Outbox>,
    /// What holds on devices.
    pub(super) leases: Mutex<Leases>,
    /// What playbooks may still do.
    pub(super) budgets: Mutex<Budgets>,
    /// Findings that are being worked on.
    pub(super) open: Mutex<OpenFindings>,
    /// Wakes the deliveries.
    pub(super) delivery_news: Notify,
    /// Wakes the leases.
    pub(super) lease_news: Notify,
    feed: broadcast::Sender<Arc<Decided>>,
    /// Where queries are answered from, once it is there.
    pub(super) index: OnceLock<Feed>,
    status: Status,
}

/// A poisoned lock is taken all the same: no state machine is left half changed, since none of them panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Effects {
    pub(super) fn new(ledger: Ledger, outbox: Outbox, leases: Leases, status: Status) -> Effects {
        Effects {
            ledger,
            outbox: Mutex::new(outbox),
            leases: Mutex::new(leases),
            budgets: Mutex::default(),
            open: Mutex::default(),
            delivery_news: Notify::new(),
            lease_news: Notify::new(),
            feed: broadcast::channel(FEED).0,
            index: OnceLock::new(),
            status,
        }
    }

    /// Every decision from now on, for people who watch; a slow reader misses some.
    pub(super) fn feed(&self) -> broadcast::Receiver<Arc<Decided>> {
        self.feed.subscribe()
    }

    /// Appends decisions as one atomic batch, and takes them in once they are on disk. A disk that refuses is waited for:
    /// nothing that follows from a decision happens before it is recorded (O5).
    pub(super) async fn record(&self, decided: Vec<Decided>) {
        if decided.is_empty() {
            return;
        }
        let place = loop {
            let error = match self.ledger.append(decided.clone()).await {
                Ok(place) => break place,
                Err(error) => error,
            };
            self.status.set("ledger", Gravity::NotReady, format!("nothing can be recorded, so nothing is done: {error}"));
            if !error.is_temporary() {
                tracing::error!(%error, "a decision is too large for the ledger, or opmas is ending; nothing follows from it");
                return;
            }
            tokio::time::sleep(RETRY).await;
        };
        self.status.clear("ledger");
        let decided: Vec<Arc<Decided>> = decided.into_iter().map(Arc::new).collect();
        for one in &decided {
            self.apply(one);
            // No reader is no error.
            let _ = self.feed.send(one.clone());
        }
        if let Some(index) = self.index.get() {
            index.recorded(place, decided);
        }
        self.delivery_news.notify_one();
        self.lease_news.notify_one();
    }

    /// The ledger's newest record and the chain hash up to it.
    pub(super) fn head(&self) -> (u64, LedgerHash) {
        self.ledger.head()
    }

    /// Takes a record in: one that was just appended, or one of the ledger when opmas starts.
    pub(super) fn apply(&self, decided: &Decided) {
        if let Err(error) = lock(&self.outbox).apply(decided) {
            tracing::error!(%error, "a delivery's record does not fit what is known; it is left out");
        }
        if let Err(error) = lock(&self.leases).apply(decided) {
            tracing::error!(%error, "a lease's record does not fit what is known; it is left out");
        }
        lock(&self.budgets).apply(decided);
        lock(&self.open).apply(decided);
    }
}
