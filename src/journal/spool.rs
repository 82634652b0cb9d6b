//! The spool: every record, tick and revision, in the order of the system (semantics O1 to O4).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};

use super::archive::{Archiver, list_all};
use super::commit::{Appender, Health, Stage};
use super::datadir::{DataDir, Lock};
use super::error::{AppendError, OpenError, ReadError};
use super::log::{Group, Log, Recovery, SegmentLimits, Visit, refused};
use super::positions::Positions;
use super::reader::LogReader;
use super::segment::{Kind, MAX_PAYLOAD};
use crate::clock;
use crate::model::{Entry, EntryBody, NodeId, RecordId, Span, Time};

/// How often retention is looked after while entries come.
const TIDY_EVERY: Span = Span::secs(60);
/// What an encoded record takes beside its line, mostly: so that it is allocated once.
const AROUND_RAW: usize = 192;
/// Segments are kept as they were written for so long at most, and compressed from then on.
const LIVE: Span = Span::secs(86_400);
/// A segment is closed after this part of `keep` or [`LIVE`], so that a slow spool is dropped in pieces too.
const SEGMENTS_PER_KEEP: i64 = 4;

/// `[spool]`: what is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpoolConfig {
    /// How long records are kept (`24h`). What recovery still needs is kept longer.
    pub keep: Span,
    /// How many bytes are kept as they were written (1 GiB), for a day at most; what is older is archived, that is, kept compressed. What
    /// recovery still needs is kept beyond it.
    pub keep_bytes: u64,
    /// How many bytes the archive takes (1 GiB); the oldest are dropped. 0: there is none.
    pub archive_bytes: u64,
    /// A segment that has reached this size is closed (16 MiB); whole segments are archived and dropped.
    pub segment_bytes: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        SpoolConfig { keep: Span::secs(86_400), keep_bytes: 1 << 30, archive_bytes: 1 << 30, segment_bytes: 16 << 20 }
    }
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The place of the first entry that was kept.
    pub first: u64,
    /// The place of the last one; `first - 1` when all were duplicates.
    pub last: u64,
    /// Records that had been kept before, and were dropped (O4).
    pub duplicates: u64,
}

/// A record's identity (O4): its own, or for pushed input the node and its place. `None` for ticks and revisions.
#[must_use]
pub fn record_id(node: &NodeId, entry: &Entry) -> Option<RecordId> {
    match &entry.body {
        EntryBody::Record(record) => Some(record.id.clone().unwrap_or_else(|| RecordId::Pushed { node: node.clone(), seq: entry.seq })),
        EntryBody::Tick(_) | EntryBody::Revision(_) => None,
    }
}

/// What handle, spool and writer share.
#[derive(Clone)]
struct Shared {
    dir: PathBuf,
    positions: Arc<Mutex<Positions>>,
    /// The newest seq that is durable.
    durable: Arc<AtomicU64>,
    /// The same, for those who wait for it to move.
    moved: watch::Sender<u64>,
    /// Entries from here on are needed by recovery.
    needed: Arc<AtomicU64>,
}

impl Shared {
    fn positions(&self) -> MutexGuard<'_, Positions> {
        // Nothing panics while it is held, and each change is one call.
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A spool that is open and recovered, and not yet written.
pub struct Spool {
    log: Log,
    config: SpoolConfig,
    shared: Shared,
    lock: Arc<Lock>,
}

impl Spool {
    /// Opens the spool of a data folder: reads its newest segment, cuts a torn tail, and reports damage without touching it.
    ///
    /// # Errors
    /// The newest segment's header is damaged or of a newer version, or the file system says no.
    pub fn open(data: &DataDir, config: SpoolConfig) -> Result<(Spool, Recovery), OpenError> {
        let (dir, lock) = (data.spool(), data.lock()?);
        let mut positions = Ok(Positions::default());
        let age = Span((config.keep.min(LIVE).0 / SEGMENTS_PER_KEEP).max(1));
        let limits = SegmentLimits { bytes: config.segment_bytes, age };
        let mut visit = |visit: Visit<'_>| match visit {
            Visit::Carried(bytes) => positions = Positions::decode(bytes).ok_or("its table of file positions does not decode"),
            Visit::Frame(frame) => {
                let file = postcard::from_bytes::<EntryBody>(&frame.payload).ok();
                if let (Ok(positions), Some((file, offset))) = (&mut positions, file.as_ref().and_then(place)) {
                    positions.set(file, offset, frame.seq);
                }
            }
        };
        let (mut log, mut recovery) = Log::open(&dir, Kind::Spool, limits, &Positions::default().encode(), &mut visit)?;
        let positions = positions.map_err(|what| refused(Kind::Spool, ReadError::Header { file: log.path().to_owned(), what }))?;
        if log.next_seq() == 1 {
            recovery.last = behind_archive(&mut log, &dir, &positions)?;
        }
        let shared = Shared {
            dir,
            positions: Arc::new(Mutex::new(positions)),
            durable: Arc::new(AtomicU64::new(recovery.last)),
            moved: watch::Sender::new(recovery.last),
            needed: Arc::new(AtomicU64::new(0)),
        };
        Ok((Spool { log, config, shared, lock }, recovery))
    }

    /// The newest entry's place, 0 when there is none.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.log.next_seq() - 1
    }

    /// Gives no place up to `seq` again: for a spool that ends before what checkpoint or ledger name, because segments were lost.
    ///
    /// # Errors
    /// The segment that begins behind the gap cannot be made.
    pub fn skip_to(&mut self, seq: u64) -> Result<(), AppendError> {
        let carried = self.shared.positions().encode();
        self.log.skip_to(seq, carried)?;
        self.shared.durable.store(self.last(), Ordering::Release);
        Ok(())
    }

    /// Reads from a place on; see [`SpoolReader`].
    ///
    /// # Errors
    /// As [`SpoolReader::open`].
    pub fn read(&self, from: u64) -> Result<SpoolReader, ReadError> {
        SpoolReader::new(&self.shared.dir, from, Some(Arc::clone(&self.shared.durable)))
    }

    /// Starts the writer thread. It hands all that it has made durable to `subscriber`, in order and in batches; when that is full
    /// it waits, and appends wait with it. So the task that reads the other end must never wait for an append itself.
    /// When the other end is dropped, entries are still kept. The sender is dropped when the writer ends.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(self, subscriber: mpsc::Sender<Arc<[Entry]>>) -> Result<SpoolHandle, OpenError> {
        let Spool { log, config, shared, lock } = self;
        let archiver = Archiver::new(&shared.dir, config.keep, config.archive_bytes);
        let (staged, moved) = (Vec::new(), HashMap::new());
        let writer = SpoolStage { shared: shared.clone(), config, archiver, subscriber: Some(subscriber), staged, moved, tidied: Time::MIN };
        let appender = Appender::start(log, writer, lock)?;
        Ok(SpoolHandle { appender, shared })
    }
}

/// The way to the spool's writer; cheap to clone. The writer ends when the last one is dropped.
#[derive(Clone)]
pub struct SpoolHandle {
    appender: Appender<SpoolStage>,
    shared: Shared,
}

impl SpoolHandle {
    /// Appends entries; resolves once one fsync covers all of them (O3), or with an error and none of them kept.
    /// Records of files and brokers at or before their log's position are dropped and counted (O4).
    ///
    /// # Errors
    /// The disk says no (try again), one entry is too large, or the writer has ended.
    pub async fn append(&self, bodies: Vec<EntryBody>) -> Result<Appended, AppendError> {
        self.appender.append(bodies).await
    }

    /// As [`SpoolHandle::append`], and gives the entries back with an error that is temporary, without those that were known before. What
    /// was delivered twice must not be appended from two places at a time: the one that is dropped as known is not given back.
    ///
    /// # Errors
    /// As [`SpoolHandle::append`].
    pub async fn try_append(&self, bodies: Vec<EntryBody>) -> Result<Appended, (AppendError, Vec<EntryBody>)> {
        self.appender.try_append(bodies).await
    }

    /// The newest kept place of a log as [`RecordId::File`] and [`RecordId::Broker`] name it: a source resumes there, and the record
    /// there is recognised and dropped. A log that counts from the beginning again must get another name.
    #[must_use]
    pub fn position(&self, log: &str) -> Option<u64> {
        self.shared.positions().get(log)
    }

    /// All such positions, by name.
    #[must_use]
    pub fn positions(&self) -> Vec<(Arc<str>, u64)> {
        self.shared.positions().all()
    }

    /// The newest durable place, 0 when there is none.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// The newest durable place, for those who wait for it to move. It ends with the writer.
    #[must_use]
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.shared.moved.subscribe()
    }

    /// Entries from `seq` on are needed by recovery: the oldest kept checkpoint's next one. Before the first call nothing is dropped.
    pub fn retain_from(&self, seq: u64) {
        self.shared.needed.store(seq, Ordering::Release);
    }

    /// Whether the spool can be written, since when not, and why.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.appender.health()
    }

    /// Reads from a place on, up to the newest durable entry; see [`SpoolReader`].
    ///
    /// # Errors
    /// As [`SpoolReader::open`].
    pub fn read(&self, from: u64) -> Result<SpoolReader, ReadError> {
        SpoolReader::new(&self.shared.dir, from, Some(Arc::clone(&self.shared.durable)))
    }

    /// Drops this handle and waits for the writer's end, which comes when no other handle is left.
    pub async fn close(self) {
        self.appender.ended().await;
    }
}

/// Gives no place of the archive again, where the segments behind it were lost; the newest place that was given.
fn behind_archive(log: &mut Log, dir: &Path, positions: &Positions) -> Result<u64, OpenError> {
    let archived = list_all(dir, Kind::Spool).map_err(OpenError::io("read", dir))?.last().map_or(1, |(first, _)| *first);
    if archived > 1 || SpoolReader::newest(dir).is_ok_and(|newest| newest > 0) {
        let newest = SpoolReader::newest(dir).unwrap_or(0).max(archived);
        log.skip_to(newest, positions.encode()).map_err(|error| OpenError::io("make a segment in", dir)(std::io::Error::other(error)))?;
    }
    Ok(log.next_seq() - 1)
}

/// Log and offset of a record that can be delivered again.
fn place(body: &EntryBody) -> Option<(&Arc<str>, u64)> {
    match body {
        EntryBody::Record(record) => record.id.as_ref()?.place(),
        EntryBody::Tick(_) | EntryBody::Revision(_) => None,
    }
}

/// The writer's part that is the spool's own. What is staged lies beside the positions until it is durable.
struct SpoolStage {
    shared: Shared,
    config: SpoolConfig,
    archiver: Archiver,
    subscriber: Option<mpsc::Sender<Arc<[Entry]>>>,
    staged: Vec<Entry>,
    /// The positions that the staged entries will make: file to offset and seq.
    moved: HashMap<Arc<str>, (u64, u64)>,
    tidied: Time,
}

impl SpoolStage {
    /// Whether this record has been kept or staged before; if not, it is staged from now on.
    fn is_known(&mut self, body: &EntryBody, seq: u64) -> bool {
        let Some((file, offset)) = place(body) else { return false };
        let newest = self.moved.get(file).map(|(offset, _)| *offset).or_else(|| self.shared.positions().get(file));
        let known = newest.is_some_and(|newest| offset <= newest);
        if !known {
            self.moved.insert(Arc::clone(file), (offset, seq));
        }
        known
    }

    fn hand_on(&mut self) {
        let entries: Arc<[Entry]> = std::mem::take(&mut self.staged).into();
        if entries.is_empty() {
            return;
        }
        if self.subscriber.as_ref().is_some_and(|s| s.blocking_send(entries).is_err()) {
            self.subscriber = None;
        }
    }
}

impl Stage for SpoolStage {
    type Item = EntryBody;
    type Place = Appended;

    fn carried(&self) -> Vec<u8> {
        self.shared.positions().encode()
    }

    fn stage(&mut self, bodies: Vec<EntryBody>, first: u64, group: &mut Group) -> Result<Appended, AppendError> {
        let payloads = bodies.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        group.frames.reserve(payloads.len());
        self.staged.reserve(payloads.len());
        let (mut seq, mut duplicates) = (first, 0);
        for (body, payload) in bodies.into_iter().zip(payloads) {
            if self.is_known(&body, seq) {
                duplicates += 1;
                continue;
            }
            group.frames.push((0, payload));
            self.staged.push(Entry { seq, body });
            seq += 1;
        }
        metrics::counter!("opmas_spool_duplicates_total").increment(duplicates);
        Ok(Appended { first, last: seq - 1, duplicates })
    }

    fn commit(&mut self, log: &Log) {
        let mut positions = self.shared.positions();
        for (file, (offset, seq)) in self.moved.drain() {
            positions.set(&file, offset, seq);
        }
        drop(positions);
        self.shared.durable.store(log.next_seq() - 1, Ordering::Release);
        self.shared.moved.send_replace(log.next_seq() - 1);
    }

    fn give_back(&mut self, place: &Appended) -> Vec<EntryBody> {
        let count = self.staged.partition_point(|entry| entry.seq <= place.last);
        self.staged.drain(..count).map(|entry| entry.body).collect()
    }

    fn rollback(&mut self) {
        self.staged.clear();
        self.moved.clear();
    }

    fn after(&mut self, log: &mut Log) {
        self.hand_on();
        let now = clock::now();
        if now.since(self.tidied) >= TIDY_EVERY || log.has_rolled() {
            self.tidied = now;
            let needed = self.shared.needed.load(Ordering::Acquire);
            self.archiver.take(log.old(self.config.keep.min(LIVE), self.config.keep_bytes, needed));
        }
    }
}

fn encode(body: &EntryBody) -> Result<Vec<u8>, AppendError> {
    let raw = if let EntryBody::Record(record) = body { record.raw.len() } else { 0 };
    let payload = postcard::to_extend(body, Vec::with_capacity(raw + AROUND_RAW)).map_err(|error| AppendError::Encode(error.to_string()))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(AppendError::TooLarge { bytes: payload.len(), max: MAX_PAYLOAD });
    }
    Ok(payload)
}

/// Iterates over entries from a place on. `None` is the end for now: a later call goes on with what was appended meanwhile.
/// Behind damage it goes on with the next whole entry; after an I/O error it ends.
pub struct SpoolReader {
    log: LogReader,
    from: u64,
}

impl SpoolReader {
    /// Reads a data folder's `spool`, whether or not an opmas holds the folder; `from` 0 is the oldest that is kept.
    /// While another process writes, the newest entries may be ones that its fsync does not cover yet.
    ///
    /// # Errors
    /// `from` is no longer kept, or the folder cannot be read.
    pub fn open(dir: &Path, from: u64) -> Result<SpoolReader, ReadError> {
        SpoolReader::new(dir, from, None)
    }

    fn new(dir: &Path, from: u64, durable: Option<Arc<AtomicU64>>) -> Result<SpoolReader, ReadError> {
        Ok(SpoolReader { log: LogReader::open(dir, Kind::Spool, from, durable)?, from })
    }

    /// The place of the newest entry of a data folder's `spool`, 0 when there is none.
    ///
    /// # Errors
    /// As [`SpoolReader::open`].
    pub fn newest(dir: &Path) -> Result<u64, ReadError> {
        Ok(LogReader::open(dir, Kind::Spool, u64::MAX, None)?.flatten().last().map_or(0, |(frame, _)| frame.seq))
    }

    pub(super) fn log(&self) -> &LogReader {
        &self.log
    }
}

impl Iterator for SpoolReader {
    type Item = Result<Entry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.log.next()? {
                Ok((frame, _)) if frame.seq < self.from => {}
                Ok((frame, file)) => {
                    let offset = frame.offset;
                    let broken = |error| ReadError::Content { file: file.to_path_buf(), offset, seq: frame.seq, what: format!("it does not decode: {error}") };
                    return Some(postcard::from_bytes(&frame.payload).map(|body| Entry { seq: frame.seq, body }).map_err(broken));
                }
                Err(ReadError::Broken { to, .. }) if to < self.from => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
