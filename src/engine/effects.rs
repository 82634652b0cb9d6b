//! Everything decided: appended to the ledger first, then taken into the state machines that follow from it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, RwLock, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::index::Feed;
use super::open::OpenFindings;
use super::policy::Used;
use super::posture::PostureState;
use super::status::{Gravity, Status};
use crate::action::{Budgets, Leases};
use crate::alert::{Alerts, Outbox};
use crate::clock;
use crate::journal::{Content, DataDir, Ledger, LedgerConfig, LedgerHash, LedgerPlace, LedgerReader, LedgerRecovery, Old, OpenError, ReadError};
use crate::model::{Decided, Posture, Time};

/// How long an append that the disk refused waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a disk that refuses is waited for once more when opmas ends.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many decisions a reader of the feed may be behind before it misses some; the ledger has them all.
const FEED: usize = 4_096;

/// The ledger, and the state that follows from it. Nothing here waits while a lock is held.
pub(super) struct Effects {
    ledger: Ledger,
    /// Held for writing while the ledger is dropped in part: then nothing is recorded.
    recording: RwLock<()>,
    /// Before any record.
    empty: State,
    /// What is to be delivered.
    pub(super) outbox: Mutex<Outbox>,
    /// What was told and is not over.
    pub(super) alerts: Mutex<Alerts>,
    /// What holds on devices.
    pub(super) leases: Mutex<Leases>,
    /// What playbooks may still do.
    pub(super) budgets: Mutex<Budgets>,
    /// Findings that are being worked on.
    pub(super) open: Mutex<OpenFindings>,
    /// How far the system may go; those who follow it are woken when it is set.
    pub(super) posture: watch::Sender<PostureState>,
    /// Wakes the deliveries.
    pub(super) delivery_news: Notify,
    /// Wakes the leases.
    pub(super) lease_news: Notify,
    /// Wakes the decider: a delivery of an alert may be settled.
    pub(super) alert_news: Notify,
    feed: broadcast::Sender<Arc<Decided>>,
    /// The ledger's newest record, for those who follow it on disk.
    recorded: watch::Sender<u64>,
    /// Where queries are answered from, once it is there.
    pub(super) index: OnceLock<Feed>,
    pub(super) status: Status,
    /// opmas ends: a disk that refuses is no longer waited for.
    ending: CancellationToken,
    /// Set when a decision was given up: none that comes later may be recorded without it.
    given_up: AtomicBool,
}

/// A poisoned lock is taken all the same: no state machine is left half changed, since none of them panics.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Effects {
    /// Opens the ledger, and takes in what it holds; `visit` sees each record too.
    ///
    /// # Errors
    /// As [`Ledger::open_with`].
    pub(super) fn open(
        data: &DataDir,
        config: &LedgerConfig,
        empty: State,
        status: Status,
        visit: &mut dyn FnMut(&Decided),
    ) -> Result<(Effects, LedgerRecovery), OpenError> {
        let mut state = empty.clone();
        let (ledger, recovery) = Ledger::open_with(data, config, &mut |entry| {
            if let Content::Decided(decided) = entry.content {
                match *decided {
                    Decided::Anchor { .. } => state = empty.clone(),
                    _ => state.apply(&decided),
                }
                visit(&decided);
            }
        })?;
        let effects = Effects {
            recorded: watch::Sender::new(ledger.head().0),
            ledger,
            recording: RwLock::default(),
            empty,
            outbox: Mutex::new(state.outbox),
            alerts: Mutex::new(state.alerts),
            leases: Mutex::new(state.leases),
            budgets: Mutex::new(state.budgets),
            open: Mutex::new(state.open),
            posture: watch::Sender::new(state.posture),
            delivery_news: Notify::new(),
            lease_news: Notify::new(),
            alert_news: Notify::new(),
            feed: broadcast::channel(FEED).0,
            index: OnceLock::new(),
            status,
            ending: CancellationToken::new(),
            given_up: AtomicBool::new(false),
        };
        Ok((effects, recovery))
    }

    /// From now on a disk that refuses is waited for only [`PATIENCE`]: what cannot be recorded is computed again at the next start.
    pub(super) fn end(&self) {
        self.ending.cancel();
    }

    /// Cancelled when opmas ends.
    pub(super) fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// Every decision from now on, for people who watch; a slow reader misses some.
    pub(super) fn feed(&self) -> broadcast::Receiver<Arc<Decided>> {
        self.feed.subscribe()
    }

    /// Appends decisions as one atomic batch, and takes them in once they are on disk. A disk that refuses is waited for:
    /// nothing that follows from a decision happens before it is recorded (O5). Whether they are recorded: see [`Effects::end`].
    pub(super) async fn record(&self, decided: Vec<Decided>) -> bool {
        if decided.is_empty() {
            return true;
        }
        let _recording = self.recording.read().await;
        let Some(place) = self.append(&decided).await else { return false };
        let decided: Vec<Arc<Decided>> = decided.into_iter().map(Arc::new).collect();
        for one in &decided {
            if let Decided::Note { text, .. } = &**one {
                tracing::warn!("{text}");
            }
            self.apply(one);
            if let Decided::DeliveryOutcome { .. } = &**one {
                self.alert_news.notify_one();
            }
            // No reader is no error.
            let _ = self.feed.send(one.clone());
        }
        if let Some(index) = self.index.get() {
            index.recorded(place, decided);
        }
        self.recorded.send_modify(|newest| *newest = place.last.max(*newest));
        self.delivery_news.notify_one();
        self.lease_news.notify_one();
        true
    }

    /// Where it is on disk; `None` only when opmas ends, or for what no disk takes.
    async fn append(&self, decided: &[Decided]) -> Option<LedgerPlace> {
        while !self.given_up.load(Ordering::Acquire) {
            let error = match self.ledger.append(decided.to_vec()).await {
                Ok(place) => {
                    self.status.clear("ledger");
                    return Some(place);
                }
                Err(error) => error,
            };
            if !error.is_temporary() {
                tracing::error!(%error, "decisions cannot be recorded; nothing follows from them");
                metrics::counter!("opmas_decisions_refused_total").increment(decided.len() as u64);
                return None;
            }
            self.status.set("ledger", Gravity::NotReady, format!("nothing can be recorded, so nothing is done: {error}"));
            if self.ending.is_cancelled() {
                tracing::error!(%error, "opmas ends with decisions that cannot be recorded; they are made again at the next start");
                self.given_up.store(true, Ordering::Release);
            } else {
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = self.ending.cancelled() => tokio::time::sleep(PATIENCE).await,
                }
            }
        }
        None
    }

    /// The ledger's newest record and the chain hash up to it.
    pub(super) fn head(&self) -> (u64, LedgerHash) {
        self.ledger.head()
    }

    /// The ledger's newest record, for those who wait for it to move.
    pub(super) fn recorded(&self) -> watch::Receiver<u64> {
        self.recorded.subscribe()
    }

    /// Reads the ledger from a place on, up to the newest durable record.
    ///
    /// # Errors
    /// As [`LedgerReader::open`].
    pub(super) fn read(&self, from: u64) -> Result<LedgerReader, ReadError> {
        self.ledger.read(from)
    }

    /// Drops the segments of the ledger that hold nothing from `before` on. What is alive, as `alive` reads it from the ledger's folder
    /// beginning with no state, is written again first. How many were dropped.
    ///
    /// # Errors
    /// The ledger cannot be read or written; then nothing was dropped.
    pub(super) async fn drop_old(
        &self,
        before: Time,
        alive: impl FnOnce(State) -> Result<Vec<Decided>, ReadError> + Send + 'static,
    ) -> Result<usize, Box<dyn std::error::Error + Send + Sync>> {
        let Some(old): Option<Old> = self.ledger.old(before)? else { return Ok(0) };
        let _alone = self.recording.write().await;
        let empty = self.empty.clone();
        let alive = tokio::task::spawn_blocking(move || alive(empty)).await??;
        Ok(self.ledger.drop_old(old, alive).await?)
    }

    /// What steps have used up until now.
    pub(super) fn used(&self) -> Used<'_> {
        let (configured, now) = (self.posture.borrow().configured, clock::now());
        Used { leases: &self.leases, budgets: &self.budgets, posture: self.posture(), configured, now }
    }

    /// How far the system may go now.
    pub(super) fn posture(&self) -> Posture {
        self.posture.borrow().now(clock::now())
    }

    /// Takes a record in that was just appended.
    fn apply(&self, decided: &Decided) {
        fits(lock(&self.outbox).apply(decided));
        fits(lock(&self.leases).apply(decided));
        lock(&self.alerts).apply(decided);
        lock(&self.budgets).apply(decided);
        lock(&self.open).apply(decided);
        self.posture.send_if_modified(|posture| posture.apply(decided));
    }
}

/// The state machines while the ledger is read.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) outbox: Outbox,
    pub(super) alerts: Alerts,
    pub(super) leases: Leases,
    pub(super) budgets: Budgets,
    pub(super) open: OpenFindings,
    pub(super) posture: PostureState,
}

impl State {
    /// Before any record.
    pub(super) fn new(outbox: Outbox, leases: Leases, configured: Posture) -> State {
        let posture = PostureState { configured, last: None };
        State { outbox, posture, alerts: Alerts::default(), leases, budgets: Budgets::default(), open: OpenFindings::default() }
    }

    pub(super) fn apply(&mut self, decided: &Decided) {
        fits(self.outbox.apply(decided));
        fits(self.leases.apply(decided));
        self.alerts.apply(decided);
        self.budgets.apply(decided);
        self.open.apply(decided);
        self.posture.apply(decided);
    }
}

fn fits(applied: Result<(), impl std::fmt::Display>) {
    if let Err(error) = applied {
        tracing::error!(%error, "a record does not fit what came before it; it is left out");
    }
}
