//! The index beside the engine: a thread that takes in what is recorded and answers queries. It may lag: what it missed it reads from
//! the ledger, and nothing waits for it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::index::{Answer, Index, IndexError, OpenError, Opened, Query};
use crate::journal::{Content, DataDir, LedgerEntry, LedgerPlace, LedgerReader, ReadError};
use crate::model::Decided;

use super::effects::lock;
use super::progress::{Progress, Unit};
use super::status::{Gravity, Status};

/// Batches between the ledger and the index; when it is full, the index reads the ledger.
const MAX_NEWS: usize = 256;
/// Batches that wait for one before them; when there are more, the index reads the ledger.
const MAX_EARLY: usize = 64;
/// How long a missing batch is waited for: batches may come in another order than they were recorded in.
const LATE: Duration = Duration::from_millis(500);
/// Ledger entries that are applied as one while catching up.
const BATCH: usize = 256;
/// How long a command that holds the index may take, before its index is set aside.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// The first pause before an index that cannot be used is tried again; doubled each time, up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// Why there is no index to ask.
#[derive(Debug, thiserror::Error)]
pub enum NoIndex {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The ledger cannot be read.
    #[error("the index cannot be brought up to date: {0}")]
    Ledger(#[from] ReadError),
}

/// Opens the index of a data folder that no opmas runs on, for a command that only reads, and brings it up to the ledger's newest entry;
/// `far` hears how far that is. `None` when another process holds it for longer than `patience`, or an opmas starts meanwhile: the index
/// is that one's.
///
/// # Errors
/// The file system says no, or the ledger does not read.
pub fn open_index(data: &DataDir, patience: Duration, far: &mut dyn FnMut(u64)) -> Result<Option<Index>, NoIndex> {
    let Some((index, opened)) = unlocked(&data.path().join("index"), patience, || !data.is_held())? else { return Ok(None) };
    up_to_date(index, &opened, &data.ledger(), None, &mut |seq| {
        far(seq);
        !data.is_held()
    })
}

/// The same for the opmas that runs on the folder, up to `head`: an index that another process holds for too long is made anew.
fn own_index(data: &DataDir, head: u64) -> Result<Option<Index>, NoIndex> {
    let path = data.path().join("index");
    let (index, opened) = match unlocked(&path, LOCK_PATIENCE, || true)? {
        Some(opened) => opened,
        None => Index::replace(&path, "another process holds it")?,
    };
    up_to_date(index, &opened, &data.ledger(), Some(head), &mut |_| true)
}

/// Opens the index at a path; `None` when another process holds it for longer than `patience`, or once `goes_on` says no.
fn unlocked(path: &Path, patience: Duration, goes_on: impl Fn() -> bool) -> Result<Option<(Index, Opened)>, OpenError> {
    let until = Instant::now() + patience;
    while goes_on() {
        match Index::open(path) {
            Err(OpenError::Locked(_)) if Instant::now() < until => thread::sleep(LOCK_PAUSE),
            Err(OpenError::Locked(_)) => break,
            other => return other.map(Some),
        }
    }
    Ok(None)
}

/// One that is not of this ledger is made anew; why is logged, and a rebuilding shows how far it is. `None` once `goes_on`, which is told
/// the newest entry that it knows, says no.
fn up_to_date(mut index: Index, opened: &Opened, ledger: &Path, head: Option<u64>, goes_on: &mut dyn FnMut(u64) -> bool) -> Result<Option<Index>, NoIndex> {
    if let Opened::Rebuilt { why } = opened {
        tell(why, head);
    }
    let mut caught = catch_up(&mut index, ledger, head, goes_on)?;
    if let CaughtUp::Other(why) = &caught {
        let (anew, _) = index.anew(why)?;
        index = anew;
        tell(why, head);
        caught = catch_up(&mut index, ledger, head, goes_on)?;
    }
    Ok((caught != CaughtUp::Left).then_some(index))
}

/// How an index stands to the ledger.
#[derive(PartialEq)]
enum CaughtUp {
    /// It knows all of it.
    Whole,
    /// It was not gone on with.
    Left,
    /// It is not one of this ledger, and why.
    Other(String),
}

fn tell(why: &str, head: Option<u64>) {
    if head != Some(0) {
        tracing::info!(why, "the index is made anew from the ledger");
    }
}

/// Applies what the ledger has behind the index's position, up to `head`, as long as `goes_on`.
fn catch_up(index: &mut Index, ledger: &Path, head: Option<u64>, goes_on: &mut dyn FnMut(u64) -> bool) -> Result<CaughtUp, NoIndex> {
    let (position, hash) = index.position();
    let mut reader = match LedgerReader::open(ledger, position) {
        Err(ReadError::Gone { oldest, .. }) => return Ok(CaughtUp::Other(format!("it ends with entry {position}, and the ledger begins with {oldest}"))),
        other => other?,
    };
    if position > 0 {
        match reader.next().transpose()? {
            Some(entry) if entry.seq == position && entry.hash.0 == hash && head.is_none_or(|head| position <= head) => {}
            _ => return Ok(CaughtUp::Other(format!("its entry {position} is not that of the ledger"))),
        }
    }
    let mut progress = Progress::new("the index", Unit::Count("ledger entries"), head);
    loop {
        let entries = reader.by_ref().take_while(|entry| entry.as_ref().map_or(true, |e| head.is_none_or(|head| e.seq <= head)));
        let batch = entries.take(BATCH).collect::<Result<Vec<LedgerEntry>, ReadError>>()?;
        let Some(last) = batch.last() else { break };
        index.apply(&batch.iter().map(|entry| (entry.seq, decided(entry))).collect::<Vec<_>>(), last.hash.0)?;
        progress.at(last.seq);
        if !goes_on(last.seq) {
            return Ok(CaughtUp::Left);
        }
    }
    Ok(CaughtUp::Whole)
}

fn decided(entry: &LedgerEntry) -> Option<&Decided> {
    match &entry.content {
        Content::Decided(decided) => Some(decided),
        Content::Erased { .. } => None,
    }
}

/// What the thread is told.
enum News {
    /// Recorded, durably.
    Recorded { place: LedgerPlace, decided: Vec<Arc<Decided>> },
    /// A question, with the ledger's head when it was asked: the answer knows at least that.
    Query { query: Query, head: u64, answer: SyncSender<Result<Answer, String>> },
    /// Know everything up to this entry, write it, and end.
    End { head: u64 },
}

/// The way to the thread, which ends with the last of them or when it is told.
#[derive(Clone)]
pub(super) struct Feed {
    news: SyncSender<News>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Feed {
    /// Tells of a batch that is on disk. Never waits: one that does not fit is read from the ledger later.
    pub(super) fn recorded(&self, place: LedgerPlace, decided: Vec<Arc<Decided>>) {
        if let Err(TrySendError::Full(_)) = self.news.try_send(News::Recorded { place, decided }) {
            metrics::counter!("opmas_index_lagged_total").increment(1);
        }
    }

    /// Asks, and waits for the answer. Blocking.
    pub(super) fn query(&self, query: Query, head: u64) -> Result<Answer, String> {
        let ended = || "the index has ended".to_owned();
        let (answer, answered) = sync_channel(1);
        self.news.send(News::Query { query, head, answer }).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }

    /// Has the thread write everything up to `head` and end. Blocking.
    pub(super) fn end(&self, head: u64) {
        // It may have ended already.
        let _ = self.news.send(News::End { head });
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

/// Starts the thread; it opens the index and catches up with the ledger first, up to `head`.
///
/// # Errors
/// The system has no thread for it.
pub(super) fn start(data: DataDir, head: u64, status: Status) -> io::Result<Feed> {
    let (sender, news) = sync_channel(MAX_NEWS);
    let keeper = Keeper { data, index: None, pause: Duration::ZERO, next: Instant::now(), why: String::new(), head, early: BTreeMap::new(), status };
    let thread = thread::Builder::new().name("index".to_owned()).spawn(move || keeper.run(&news))?;
    Ok(Feed { news: sender, thread: Arc::new(Mutex::new(Some(thread))) })
}

/// The thread's own.
struct Keeper {
    data: DataDir,
    /// `None` until it opens.
    index: Option<Index>,
    /// While there is none: how long is waited before it is tried again, until when, and why there is none.
    pause: Duration,
    next: Instant,
    why: String,
    /// The newest entry that is known to be durable.
    head: u64,
    /// Batches with a gap before them, by their first entry.
    early: BTreeMap<u64, (LedgerPlace, Vec<Arc<Decided>>)>,
    status: Status,
}

impl Keeper {
    fn run(mut self, news: &Receiver<News>) {
        self.catch_up();
        loop {
            let next = match &self.index {
                None => news.recv_timeout(self.next.saturating_duration_since(Instant::now())),
                Some(_) if self.early.is_empty() => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(_) => news.recv_timeout(LATE),
            };
            match next {
                Ok(News::Recorded { place, decided }) => self.recorded(place, decided),
                Ok(News::Query { query, head, answer }) => {
                    self.head = self.head.max(head);
                    // Who asked may have gone away.
                    let _ = answer.send(self.answer(&query));
                }
                Err(RecvTimeoutError::Timeout) => self.catch_up(),
                Ok(News::End { head }) => {
                    self.head = self.head.max(head);
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.catch_up();
        self.used(|index| index.flush());
    }

    fn position(&self) -> u64 {
        self.index.as_ref().map_or(0, |index| index.position().0)
    }

    fn recorded(&mut self, place: LedgerPlace, decided: Vec<Arc<Decided>>) {
        self.head = self.head.max(place.last);
        if self.index.is_none() {
            // The ledger has it.
            return if self.next <= Instant::now() {
                self.catch_up()
            };
        }
        self.early.insert(place.first, (place, decided));
        while self.early.keys().next().is_some_and(|first| *first <= self.position() + 1) {
            let Some((_, (place, decided))) = self.early.pop_first() else { break };
            let entries: Vec<_> = (place.first..).zip(decided.iter().map(|one| Some(&**one))).collect();
            self.used(|index| index.apply(&entries, place.hash.0));
        }
        if self.early.len() > MAX_EARLY {
            self.catch_up();
        }
    }

    fn answer(&mut self, query: &Query) -> Result<Answer, String> {
        self.catch_up();
        self.used(|index| index.query(query)).ok_or_else(|| self.why.clone())
    }

    /// Uses the index; one that fails is given up, to be opened anew soon, or when it is asked for.
    fn used<T>(&mut self, work: impl FnOnce(&mut Index) -> Result<T, IndexError>) -> Option<T> {
        match work(self.index.as_mut()?) {
            Ok(done) => Some(done),
            Err(error) => {
                tracing::error!(%error, "the index is given up; the ledger has everything");
                self.index = None;
                self.missing(&error);
                None
            }
        }
    }

    /// There is none, and it is tried again by itself.
    fn missing(&mut self, error: &dyn std::fmt::Display) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
        self.next = Instant::now() + self.pause;
        self.why = format!(
            "commands cannot list what was decided: {error}; see that the disk has room; the index is tried again by itself, and made anew from the ledger once that can be"
        );
        self.status.set("index", Gravity::Degraded, self.why.clone());
    }

    /// Opens the index when it is not open, and reads from the ledger what it does not know.
    fn catch_up(&mut self) {
        if self.index.is_some() && self.position() >= self.head {
            return;
        }
        self.early.clear();
        let opened = match self.index.take() {
            Some(index) => up_to_date(index, &Opened::Ready, &self.data.ledger(), Some(self.head), &mut |_| true),
            None => own_index(&self.data, self.head),
        };
        match opened {
            Ok(index) => {
                self.status.clear("index");
                (self.index, self.pause) = (index, Duration::ZERO);
            }
            Err(error) => self.missing(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Rows;
    use crate::journal::Ledger;
    use crate::model::{FindingId, Time};

    fn run(n: usize) -> Decided {
        Decided::Run {
            run: format!("{n:016x}").into(),
            playbook: "p".into(),
            revision: "r".into(),
            finding: FindingId::new(&["f"]),
            about: None,
            after: Vec::new(),
            at: Time(0),
            by_hand: None,
        }
    }

    fn runs(feed: &Feed, head: u64) -> Vec<String> {
        match feed.query(Query::Runs { state: None, limit: 1_000 }, head).unwrap().rows {
            Rows::Runs(rows) => rows.iter().map(|row| row.run.to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn batches_may_come_late_in_another_order_or_never() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(&dir.path().join("data")).unwrap();
        let (ledger, _) = Ledger::open(&data).unwrap();
        let status = Status::default();
        let feed = start(data, 0, status.clone()).unwrap();
        let mut told = Vec::new();
        for n in 0..8 {
            let place = ledger.append(vec![run(2 * n), run(2 * n + 1)]).await.unwrap();
            told.push((place, vec![Arc::new(run(2 * n)), Arc::new(run(2 * n + 1))]));
        }
        // Batches 3 and 7 are never told of, and the others not in their order.
        for at in [1, 0, 2, 5, 4, 6, 4] {
            let (place, decided) = told[at].clone();
            feed.recorded(place, decided);
        }
        let expected: Vec<String> = (0..16).rev().map(|n| format!("{n:016x}")).collect();
        assert_eq!(runs(&feed, ledger.head().0), expected);
        feed.end(ledger.head().0);
        assert!(feed.query(Query::Leases, 0).is_err(), "it has ended");
        assert_eq!(status.reasons(), []);
    }
}
