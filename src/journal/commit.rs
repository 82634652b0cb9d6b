//! Group commit: one thread per log takes what waits, writes it, syncs once, and answers each append.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use super::datadir::Lock;
use super::error::{AppendError, OpenError};
use super::log::{Group, Log};
use crate::clock;
use crate::model::Time;

/// Appends that may wait for the writer; more make their callers wait.
const MAX_WAITING: usize = 1_024;
/// Appends that share one sync.
const MAX_GROUP: usize = 1_024;
/// A group that has reached this size takes no further append.
const MAX_GROUP_BYTES: usize = 4 << 20;

/// Whether a log can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// The last write succeeded.
    Good,
    /// Appends fail, and are tried anew each time.
    Failing {
        /// Since when.
        since: Time,
        /// The first failure: one sentence.
        why: String,
    },
}

/// What differs between spool and ledger: how items become payloads, and what follows their being durable.
pub(super) trait Stage: Send + 'static {
    /// What an append gives.
    type Item: Send + 'static;
    /// What it gets.
    type Place: Send + 'static;

    /// What a new segment's header carries: the state after all that is committed.
    fn carried(&self) -> Vec<u8>;
    /// Adds an append's payloads to the group, the first of them at `seq`; on an error nothing is added.
    fn stage(&mut self, items: Vec<Self::Item>, seq: u64, group: &mut Group) -> Result<Self::Place, AppendError>;
    /// What was staged is durable. Called before the appends are answered.
    fn commit(&mut self, log: &Log);
    /// What of an append that was staged can be given back to who made it, before [`Stage::rollback`]; asked in the order of staging.
    fn give_back(&mut self, _place: &Self::Place) -> Vec<Self::Item> {
        Vec::new()
    }
    /// What was staged is not kept.
    fn rollback(&mut self);
    /// After the answers, good or bad: hands on what is durable, and tidies up, for which a full disk is the best reason.
    fn after(&mut self, log: &mut Log);
}

/// Why an append was not kept, and what of it can be tried again.
type Refused<S> = (AppendError, Vec<<S as Stage>::Item>);
type Reply<S> = oneshot::Sender<Result<<S as Stage>::Place, Refused<S>>>;

struct Request<S: Stage> {
    items: Vec<S::Item>,
    reply: Reply<S>,
}

/// The way to a writer thread. The thread ends when the last of them is dropped and all that waited is written.
pub(super) struct Appender<S: Stage> {
    requests: mpsc::Sender<Request<S>>,
    health: watch::Receiver<Health>,
}

impl<S: Stage> Clone for Appender<S> {
    fn clone(&self) -> Self {
        Appender { requests: self.requests.clone(), health: self.health.clone() }
    }
}

impl<S: Stage> Appender<S> {
    /// Starts the thread, which holds `lock` for as long as it may write.
    pub(super) fn start(log: Log, stage: S, lock: Arc<Lock>) -> Result<Appender<S>, OpenError> {
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        let (told, health) = watch::channel(Health::Good);
        let name = log.kind.name();
        let thread = std::thread::Builder::new().name(format!("opmas-{name}"));
        let run = move || {
            Writer { log, stage, health: &told }.run(waiting);
            drop(lock);
            // Last, as `ended` waits for it.
            drop(told);
        };
        thread.spawn(run).map_err(OpenError::io("start the writer thread of", name.as_ref()))?;
        Ok(Appender { requests, health })
    }

    /// Resolves once one sync covers all the items, or none of them was kept.
    pub(super) async fn append(&self, items: Vec<S::Item>) -> Result<S::Place, AppendError> {
        self.try_append(items).await.map_err(|(error, _)| error)
    }

    /// The same, and gives back what the log's stage can give back.
    pub(super) async fn try_append(&self, items: Vec<S::Item>) -> Result<S::Place, Refused<S>> {
        let (reply, answer) = oneshot::channel();
        let stopped = || (AppendError::Stopped, Vec::new());
        self.requests.send(Request { items, reply }).await.map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Drops this way to the thread and waits until the thread has ended, which it does when there is no other.
    pub(super) async fn ended(self) {
        let Appender { requests, mut health } = self;
        drop(requests);
        while health.changed().await.is_ok() {}
    }
}

/// An append that is in the group, with what to answer when the group is durable.
type Staged<S> = (Reply<S>, <S as Stage>::Place);

struct Writer<'a, S> {
    log: Log,
    stage: S,
    health: &'a watch::Sender<Health>,
}

impl<S: Stage> Writer<'_, S> {
    fn run(&mut self, mut waiting: mpsc::Receiver<Request<S>>) {
        while let Some(first) = waiting.blocking_recv() {
            if let Err(error) = self.log.prepare(|| self.stage.carried()) {
                self.failing(&error);
                // An answer that nobody waits for is none.
                let _ = first.reply.send(Err((error, first.items)));
                self.stage.after(&mut self.log);
                continue;
            }
            let (group, staged) = self.gather(first, &mut waiting);
            match self.keep(&group) {
                Ok(()) => {
                    self.stage.commit(&self.log);
                    staged.into_iter().for_each(|(reply, place)| drop(reply.send(Ok(place))));
                }
                Err(error) => {
                    let back = staged.into_iter().map(|(reply, place)| (reply, self.stage.give_back(&place)));
                    let back: Vec<(Reply<S>, Vec<S::Item>)> = back.collect();
                    self.stage.rollback();
                    self.failing(&error);
                    back.into_iter().for_each(|(reply, items)| drop(reply.send(Err((error.clone(), items)))));
                }
            }
            self.stage.after(&mut self.log);
        }
    }

    /// The first append and what waits behind it, as one group. An append that cannot be staged is answered at once.
    fn gather(&mut self, first: Request<S>, waiting: &mut mpsc::Receiver<Request<S>>) -> (Group, Vec<Staged<S>>) {
        let (mut group, mut staged) = (Group::default(), Vec::new());
        let mut request = Some(first);
        while let Some(Request { items, reply }) = request {
            let seq = group.next_seq(self.log.next_seq());
            match self.stage.stage(items, seq, &mut group) {
                Ok(place) => staged.push((reply, place)),
                // Never for want of a disk: it would be refused again.
                Err(error) => drop(reply.send(Err((error, Vec::new())))),
            }
            let room = staged.len() < MAX_GROUP && group.bytes() < MAX_GROUP_BYTES;
            request = if room { waiting.try_recv().ok() } else { None };
        }
        (group, staged)
    }

    /// Makes a group durable, with its measures.
    fn keep(&mut self, group: &Group) -> Result<(), AppendError> {
        if group.frames.is_empty() {
            return Ok(());
        }
        let log = self.log.kind.name();
        let begun = clock::now();
        self.log.write(group)?;
        #[expect(clippy::cast_precision_loss, reason = "a measure in seconds")]
        metrics::histogram!("opmas_journal_commit_seconds", "log" => log).record(clock::now().since(begun).0 as f64 / 1e9);
        metrics::counter!("opmas_journal_entries_total", "log" => log).increment(group.frames.len() as u64);
        metrics::counter!("opmas_journal_bytes_total", "log" => log).increment(group.bytes() as u64);
        let failed = |health: &Health| matches!(health, Health::Failing { .. });
        if self.health.send_if_modified(|health| {
            failed(health) && {
                *health = Health::Good;
                true
            }
        }) {
            tracing::info!("the {log} is written again");
        }
        Ok(())
    }

    fn failing(&self, error: &AppendError) {
        let log = self.log.kind.name();
        metrics::counter!("opmas_journal_append_errors_total", "log" => log).increment(1);
        let first = self.health.send_if_modified(|health| {
            let good = *health == Health::Good;
            if good {
                *health = Health::Failing { since: clock::now(), why: error.to_string() };
            }
            good
        });
        if first {
            tracing::error!("the {log} cannot be written: {error}");
        }
    }
}
