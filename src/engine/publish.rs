//! What goes out to brokers: findings and the ledger's signed head (`[publish.NAME]`), records (`[forward]`).
//!
//! Each way out follows a log on disk, ledger or spool, from a kept place on, and moves that place once the broker has acknowledged: nothing
//! goes out before it is durable (O5), everything goes out at least once, in the order of the log, and memory holds one batch. A broker that
//! is away is waited for; what it refuses for good is counted, noted and left out.

mod findings;
mod forward;
mod way;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::Settings;
use crate::journal::{DataDir, SignedHead};
use crate::model::Decided;
use crate::publish::{Cursor, Message};

use super::effects::Effects;
use super::start::StartError;
use findings::{Findings, Subjects};
pub(super) use forward::Forward;
use way::Way;

/// Messages of one batch at most.
const MAX_MESSAGES: usize = 512;
/// A batch takes no further message when it has this size.
const MAX_BYTES: usize = 2 << 20;
/// Entries that are looked at for one batch.
const MAX_ENTRIES: usize = 4_096;
/// The place is kept so often at most: what is published again after a crash is bounded by it.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// How long a log that cannot be read waits before it is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The newest signed head of the ledger.
pub(super) type Heads = watch::Receiver<Option<Arc<SignedHead>>>;

/// A log that is followed. Blocking.
trait Log: Send + 'static {
    /// What its messages are, in metrics.
    const KIND: &'static str;

    /// The next messages; opens the log when it is not open.
    fn look(&mut self) -> Look;
}

/// What was read at one look.
#[derive(Debug, Default)]
struct Look {
    messages: Vec<Message>,
    /// Everything up to here is acknowledged.
    from: u64,
    /// How far it was read: to be kept once the messages are acknowledged.
    cursor: Option<Cursor>,
    /// What a person should know.
    notes: Vec<String>,
    /// Entries that are gone.
    lost: u64,
    /// There may be more right away.
    more: bool,
    /// Why the log cannot be read now.
    failed: Option<String>,
}

impl Look {
    fn is_full(&self) -> bool {
        self.messages.len() >= MAX_MESSAGES || self.messages.iter().map(|message| message.payload.len()).sum::<usize>() >= MAX_BYTES
    }

    /// Entries that were not there to be read.
    fn gap(&mut self, from: u64, to: u64, why: &str) {
        self.lost += (to + 1).saturating_sub(from);
        self.notes.push(format!("entries {from} to {to} were not published: {why}"));
    }
}

/// The place up to which everything is acknowledged, and what of it is on disk.
struct Kept {
    acknowledged: Option<Cursor>,
    saved: Option<Cursor>,
    at: Instant,
    /// Being written; messages do not wait for it.
    saving: Option<JoinHandle<()>>,
}

impl Kept {
    /// What is not on disk yet.
    fn unsaved(&self) -> Option<&Cursor> {
        self.acknowledged.as_ref().filter(|cursor| self.saved.as_ref() != Some(cursor))
    }

    /// When that is to be written.
    fn due(&self) -> Option<Instant> {
        self.unsaved().map(|_| self.at + SAVE_EVERY)
    }

    async fn save(&mut self, way: &Way) {
        if let Some(cursor) = self.unsaved().cloned() {
            self.end().await;
            self.saving = Some(way.save(cursor));
            (self.saved, self.at) = (self.acknowledged.clone(), Instant::now());
        }
    }

    /// Waits for what is being written.
    async fn end(&mut self) {
        if let Some(Err(error)) = futures_util::future::OptionFuture::from(self.saving.take()).await {
            tracing::error!(%error, "the task that keeps a place ended");
        }
    }
}

/// Publishes a log and the heads until `stop`; `news` is the log's newest entry.
async fn run<L: Log>(mut way: Way, mut log: Option<L>, mut news: watch::Receiver<u64>, mut heads: Option<(Arc<str>, Heads)>, stop: CancellationToken) {
    let mut kept = Kept { acknowledged: None, saved: None, at: Instant::now(), saving: None };
    while !stop.is_cancelled() && head(&mut way, &mut heads).await {
        news.mark_unchanged();
        let Some(look) = look(&mut log).await else { break };
        way.lose(&look).await;
        way.readable(look.failed.as_deref());
        way.at(look.from);
        if !way.send(look.messages, L::KIND).await {
            break;
        }
        if let Some(cursor) = look.cursor {
            way.at(cursor.seq);
            kept.acknowledged = Some(cursor);
        }
        if kept.due().is_some_and(|due| due <= Instant::now()) {
            kept.save(&way).await;
        }
        if !look.more {
            let retry = look.failed.map(|_| Instant::now() + RETRY);
            wait(&mut news, &mut heads, retry.or(kept.due()), &stop).await;
        }
    }
    kept.save(&way).await;
    kept.end().await;
}

/// One look, on a thread that may block. Without a log there is nothing; `None` when the thread has died.
async fn look<L: Log>(log: &mut Option<L>) -> Option<Look> {
    let Some(mut taken) = log.take() else { return Some(Look::default()) };
    let looked = tokio::task::spawn_blocking(move || {
        let look = taken.look();
        (taken, look)
    });
    match looked.await {
        Ok((taken, look)) => {
            *log = Some(taken);
            Some(look)
        }
        Err(error) => {
            tracing::error!(%error, "the task that reads what is published ended");
            None
        }
    }
}

/// Publishes the newest head, if it is new. Whether to go on.
async fn head(way: &mut Way, heads: &mut Option<(Arc<str>, Heads)>) -> bool {
    let Some((subject, heads)) = heads else { return true };
    if !heads.has_changed().unwrap_or(false) {
        return true;
    }
    let Some(head) = heads.borrow_and_update().clone() else { return true };
    let id = format!("{}:{}:{}", head.node, head.seq, head.at);
    match serde_json::to_vec(&*head) {
        Ok(payload) => way.send(vec![Message { id: id.into(), subject: subject.clone(), payload }], "head").await,
        Err(error) => {
            tracing::error!(%error, "the ledger's head is not published");
            true
        }
    }
}

/// Until there may be something to do, or until `until`.
async fn wait(news: &mut watch::Receiver<u64>, heads: &mut Option<(Arc<str>, Heads)>, until: Option<Instant>, stop: &CancellationToken) {
    let moved = async {
        if news.changed().await.is_err() {
            // The log is no longer written: opmas ends.
            std::future::pending::<()>().await;
        }
    };
    let head = async {
        let Some((_, heads)) = heads else { return std::future::pending().await };
        match heads.changed().await {
            // It is asked for again by who publishes it.
            Ok(()) => heads.mark_changed(),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = moved => {}
        () = head => {}
        () = tokio::time::sleep(until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()))) => {}
        () = stop.cancelled() => {}
    }
}

/// What is published of decisions, a task each; they end with `stop`.
///
/// # Errors
/// A table names no broker, which the configuration was checked for.
pub(super) fn start(
    settings: &Settings,
    data: &DataDir,
    effects: &Arc<Effects>,
    heads: &Heads,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, StartError> {
    let mut tasks = Vec::new();
    for (name, config) in &settings.publish {
        let (_, broker) = config.check(&settings.broker).map_err(|unfit| StartError::Internal(format!("[publish.{name}] {unfit}")))?;
        let names = (format!("publish {name}"), format!("publish.{name}"));
        let way = Way::new(names, broker, data, effects.clone(), effects.recorded(), stop.clone());
        let subject = |subject: &str| (!subject.is_empty()).then(|| Arc::<str>::from(subject));
        let subjects = Subjects { name: name.as_str().into(), findings: subject(&config.findings), messages: subject(&config.messages) };
        let followed = subjects.findings.is_some() || subjects.messages.is_some();
        let findings = followed.then(|| Findings::new(subjects, way.cursor(), effects.clone()));
        let heads = subject(&config.audit).map(|subject| (subject, unseen(heads)));
        tasks.push(tokio::spawn(run(way, findings, effects.recorded(), heads, stop.clone())));
    }
    Ok(tasks)
}

/// As a receiver that has not seen the head that is there.
fn unseen(heads: &Heads) -> Heads {
    let mut heads = heads.clone();
    heads.mark_changed();
    heads
}

/// Something that may be said at most once an hour; how often it was not said meanwhile.
#[derive(Debug, Default)]
struct Hourly {
    said: BTreeMap<&'static str, (Instant, u64)>,
}

impl Hourly {
    /// Whether to say it now, and how often it was kept back since it was said last.
    fn say(&mut self, what: &'static str) -> Option<u64> {
        const HOUR: Duration = Duration::from_secs(3_600);
        let now = Instant::now();
        match self.said.get_mut(what) {
            Some((at, unsaid)) if now.duration_since(*at) < HOUR => {
                *unsaid += 1;
                None
            }
            Some((at, unsaid)) => {
                *at = now;
                Some(std::mem::take(unsaid))
            }
            None => {
                self.said.insert(what, (now, 0));
                Some(0)
            }
        }
    }
}

/// A note of a way out.
fn note(part: &str, text: &str) -> Decided {
    Decided::Note { text: format!("{part}: {text}"), at: clock::now() }
}
