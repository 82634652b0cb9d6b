//! The ledger: everything decided, in a hash chain (semantics O5 to O7).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::chain::{Chain, Content, LedgerEntry, LedgerHash, encode};
use super::commit::{Appender, Health, Stage};
use super::datadir::DataDir;
use super::error::{AppendError, OpenError, ReadError};
use super::log::{Group, Log, SegmentLimits, Torn, refused};
use super::reader::LogReader;
use super::segment::{Kind, MAX_PAYLOAD};
use crate::clock;
use crate::model::{Decided, Span};

/// A segment that has reached this size is closed.
const SEGMENT_BYTES: u64 = 16 << 20;
/// A segment is closed after this part of `keep`, so that a slow ledger is dropped in pieces too.
const SEGMENTS_PER_KEEP: i64 = 4;
/// The payloads of one batch together: it is read as a whole.
const MAX_BATCH_BYTES: usize = 16 << 20;

/// `[ledger]`: what is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LedgerConfig {
    /// How long decisions are kept (`90d`); what is alive is kept longer.
    pub keep: Span,
    /// How often the head is signed and published when it has moved (`1h`).
    pub publish_head: Span,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        LedgerConfig { keep: Span::secs(90 * 86_400), publish_head: Span::secs(3_600) }
    }
}

/// Where an append stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerPlace {
    /// The first record.
    pub first: u64,
    /// The last record; `first - 1` for an empty append.
    pub last: u64,
    /// The chain hash up to and with the last record.
    pub hash: LedgerHash,
}

/// What opening the ledger found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRecovery {
    /// How many segments there are.
    pub segments: usize,
    /// The newest record's seq, 0 when there is none.
    pub last: u64,
    /// The chain hash up to and with it, zeros when there is none.
    pub hash: LedgerHash,
    /// Tails that were cut, whole batches each.
    pub torn: Vec<Torn>,
}

/// The open ledger; cheap to clone. Its writer ends when the last one is dropped.
#[derive(Clone)]
pub struct Ledger {
    pub(super) dir: Arc<Path>,
    appender: Appender<LedgerStage>,
    head: Arc<Mutex<(u64, LedgerHash)>>,
    /// The newest seq that is durable.
    durable: Arc<AtomicU64>,
}

impl Ledger {
    /// As [`Ledger::open_with`], for those who want to know nothing of what it holds.
    ///
    /// # Errors
    /// As [`Ledger::open_with`].
    pub fn open(data: &DataDir) -> Result<(Ledger, LedgerRecovery), OpenError> {
        Ledger::open_with(data, &LedgerConfig::default(), &mut drop)
    }

    /// Opens the ledger of a data folder: cuts a torn tail, reads all of it, checks hashes and chain, and shows every record to `visit`.
    ///
    /// # Errors
    /// Anything that does not verify and is no torn tail (the ledger is evidence: nothing of it is passed over), a newer version, or
    /// the file system says no.
    pub fn open_with(data: &DataDir, config: &LedgerConfig, visit: &mut dyn FnMut(LedgerEntry)) -> Result<(Ledger, LedgerRecovery), OpenError> {
        let (dir, lock) = (data.ledger(), data.lock()?);
        let limits = SegmentLimits { bytes: SEGMENT_BYTES, age: Span((config.keep.0 / SEGMENTS_PER_KEEP).max(1)) };
        let (log, recovery) = Log::open(&dir, Kind::Ledger, limits, &LedgerHash::default().0, &mut |_| {})?;
        let mut reader = LedgerReader::open(&dir, 0).map_err(|error| refused(Kind::Ledger, error))?;
        reader.by_ref().try_for_each(|entry| entry.map(&mut *visit)).map_err(|error| refused(Kind::Ledger, error))?;
        reader.check_beginning().map_err(|error| refused(Kind::Ledger, error))?;
        let hash = reader.head();
        let head = Arc::new(Mutex::new((recovery.last, hash)));
        let durable = Arc::new(AtomicU64::new(recovery.last));
        let stage = LedgerStage { head: Arc::clone(&head), durable: Arc::clone(&durable), committed: hash, staged: hash };
        let appender = Appender::start(log, stage, lock)?;
        let recovery = LedgerRecovery { segments: recovery.segments, last: recovery.last, hash, torn: recovery.torn };
        Ok((Ledger { dir: dir.into(), appender, head, durable }, recovery))
    }

    /// Appends a batch, which is kept as a whole or not at all, also through a crash; resolves once an fsync covers it.
    ///
    /// # Errors
    /// The disk says no (try again), the batch or a record of it is too large, or the writer has ended.
    pub async fn append(&self, batch: Vec<Decided>) -> Result<LedgerPlace, AppendError> {
        self.appender.append(batch).await
    }

    /// The newest durable record and the chain hash up to and with it; 0 and zeros when there is none.
    #[must_use]
    pub fn head(&self) -> (u64, LedgerHash) {
        *both(&self.head)
    }

    /// Reads from a place on, up to the newest durable record; see [`LedgerReader`].
    ///
    /// # Errors
    /// As [`LedgerReader::open`].
    pub fn read(&self, from: u64) -> Result<LedgerReader, ReadError> {
        LedgerReader::new(&self.dir, from, Some(Arc::clone(&self.durable)))
    }

    /// Whether the ledger can be written, since when not, and why.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.appender.health()
    }

    /// Drops this handle and waits for the writer's end, which comes when no other handle is left.
    pub async fn close(self) {
        self.appender.ended().await;
    }
}

fn both(head: &Mutex<(u64, LedgerHash)>) -> MutexGuard<'_, (u64, LedgerHash)> {
    // A pair that is written at once: there is no half-written one.
    head.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writer's part that is the ledger's own.
struct LedgerStage {
    head: Arc<Mutex<(u64, LedgerHash)>>,
    durable: Arc<AtomicU64>,
    committed: LedgerHash,
    staged: LedgerHash,
}

impl Stage for LedgerStage {
    type Item = Decided;
    type Place = LedgerPlace;

    fn carried(&self) -> Vec<u8> {
        self.committed.0.to_vec()
    }

    fn stage(&mut self, batch: Vec<Decided>, first: u64, group: &mut Group) -> Result<LedgerPlace, AppendError> {
        let now = clock::now();
        let (mut hash, mut records, mut bytes) = (self.staged, Vec::with_capacity(batch.len()), 0);
        for (seq, decided) in (first..).zip(&batch) {
            let (record, next) = encode(seq, now, hash, decided).map_err(|error| AppendError::Encode(error.to_string()))?;
            if record.len() > MAX_PAYLOAD {
                return Err(AppendError::TooLarge { bytes: record.len(), max: MAX_PAYLOAD });
            }
            bytes += record.len();
            records.push(record);
            hash = next;
        }
        if bytes > MAX_BATCH_BYTES {
            return Err(AppendError::TooLarge { bytes, max: MAX_BATCH_BYTES });
        }
        let last = (first + records.len() as u64) - 1;
        let left = (0..u32::try_from(records.len()).unwrap_or(u32::MAX)).rev();
        group.frames.extend(left.zip(records));
        self.staged = hash;
        Ok(LedgerPlace { first, last, hash })
    }

    fn commit(&mut self, log: &Log) {
        self.committed = self.staged;
        *both(&self.head) = (log.next_seq() - 1, self.committed);
        self.durable.store(log.next_seq() - 1, Ordering::Release);
    }

    fn rollback(&mut self) {
        self.staged = self.committed;
    }

    fn after(&mut self, _log: &mut Log) {}
}

/// Iterates over ledger records from a place on, checking hashes and chain from the beginning of that place's segment. `None` is the
/// end for now: a later call goes on. After damage it goes on too; whoever needs the whole chain stops at the first error.
pub struct LedgerReader {
    log: LogReader,
    from: u64,
    chain: Chain,
    /// The first seq of the segment whose carried hash was checked last.
    segment: u64,
    /// The chain hash in front of each segment, by the seq that it is of.
    boundaries: BTreeMap<u64, LedgerHash>,
    /// An anchor was met that says what stood in front of the first segment.
    anchored: bool,
    dir: PathBuf,
}

impl LedgerReader {
    /// Reads a data folder's `ledger`, whether or not an opmas holds the folder; `from` 0 is the oldest that is kept.
    ///
    /// # Errors
    /// `from` is no longer kept, or the folder cannot be read.
    pub fn open(dir: &Path, from: u64) -> Result<LedgerReader, ReadError> {
        LedgerReader::new(dir, from, None)
    }

    fn new(dir: &Path, from: u64, durable: Option<Arc<AtomicU64>>) -> Result<LedgerReader, ReadError> {
        Ok(LedgerReader {
            log: LogReader::open(dir, Kind::Ledger, from, durable)?,
            from,
            chain: Chain::default(),
            segment: 0,
            boundaries: BTreeMap::new(),
            anchored: false,
            dir: dir.to_owned(),
        })
    }

    /// At a segment's first record, its header must carry the hash that the chain has there. After damage there is none to compare.
    fn enter_segment(&mut self, intact: bool) -> Result<(), String> {
        let (first, carried) = self.log.carried().unwrap_or((self.segment, &[]));
        if !intact {
            (self.segment, self.chain.head) = (first, None);
        } else if first != self.segment {
            let genesis = (first == 1).then(LedgerHash::default);
            let carried = carried.try_into().map(LedgerHash).map_err(|_| "its segment's header carries no chain hash".to_owned())?;
            self.segment = first;
            self.boundaries.insert(first - 1, carried);
            if self.chain.head.or(genesis).is_some_and(|head| head != carried) {
                return Err("the chain is broken: its segment's header carries another hash than the record before it has".to_owned());
            }
            self.chain.head = Some(carried);
        }
        Ok(())
    }

    /// An anchor must name the hash that the chain has at its place.
    fn check_anchor(&mut self, entry: &LedgerEntry) -> Result<(), String> {
        let Content::Decided(decided) = &entry.content else { return Ok(()) };
        let Decided::Anchor { until, hash, .. } = &**decided else { return Ok(()) };
        let Some(known) = self.boundaries.get(until) else { return Ok(()) };
        if known.to_string() != **hash {
            return Err(format!("this anchor names another chain hash for record {until} than the segment behind it carries"));
        }
        self.anchored = true;
        Ok(())
    }

    /// What was read must begin with record 1, or behind what a later anchor says retention dropped. To be asked at the end.
    ///
    /// # Errors
    /// [`ReadError::Gone`].
    pub(super) fn check_beginning(&self) -> Result<(), ReadError> {
        match self.begun() {
            Some((before, _)) if before > 0 && !self.anchored => Err(ReadError::Gone { dir: self.dir.clone(), asked: 1, oldest: before + 1 }),
            _ => Ok(()),
        }
    }

    /// The last record before those that are kept (0 when all are), and the chain hash up to and with it.
    pub(super) fn begun(&self) -> Option<(u64, LedgerHash)> {
        self.boundaries.first_key_value().map(|(seq, hash)| (*seq, *hash))
    }

    /// The chain hash of the newest record that was read.
    pub(super) fn head(&self) -> LedgerHash {
        self.chain.head.unwrap_or_default()
    }

    pub(super) fn log(&self) -> &LogReader {
        &self.log
    }
}

impl Iterator for LedgerReader {
    type Item = Result<LedgerEntry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let found = self.log.next()?;
            let carried_on = self.enter_segment(found.is_ok());
            let (frame, file) = match found {
                Ok(found) => found,
                Err(error) => return Some(Err(error)),
            };
            let wrong = |what: String| ReadError::Content { file: file.to_path_buf(), offset: frame.offset, seq: frame.seq, what };
            let entry = carried_on.and_then(|()| self.chain.next(frame.seq, &frame.payload));
            match entry.and_then(|entry| self.check_anchor(&entry).map(|()| entry)) {
                Ok(entry) if entry.seq >= self.from => return Some(Ok(entry)),
                Ok(_) => {}
                Err(what) => return Some(Err(wrong(what))),
            }
        }
    }
}
