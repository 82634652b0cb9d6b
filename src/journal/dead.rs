//! Dead letters: records that could not be used, each with the reason, once. A log of its own, since it outlives the spool.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::commit::{Appender, Stage};
use super::datadir::DataDir;
use super::error::{AppendError, OpenError, ReadError};
use super::log::{Group, Log, Recovery, SegmentLimits, Visit, refused};
use super::reader::LogReader;
use super::segment::{Kind, MAX_PAYLOAD};
use crate::clock;
use crate::model::{DeadLetter, Span, Time};

/// A segment is closed after this part of what is kept, so that it is dropped in pieces.
const SEGMENTS_PER_KEEP: i64 = 8;
/// How often retention is looked after while letters come.
const TIDY_EVERY: Span = Span::secs(60);
/// Bytes of the carried state: the newest letter's place in the spool and its time, little-endian (stable).
const MARK: usize = 16;

/// `[dead]`: which dead letters are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadConfig {
    /// How long (`30d`).
    pub keep: Span,
    /// How many bytes at most (64 MiB).
    pub keep_bytes: u64,
}

impl Default for DeadConfig {
    fn default() -> Self {
        DeadConfig { keep: Span::secs(30 * 86_400), keep_bytes: 64 << 20 }
    }
}

/// The newest dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadMark {
    /// Its record's place in the spool.
    pub seq: u64,
    /// When that record arrived.
    pub time: Time,
}

impl DeadMark {
    fn of(letter: &DeadLetter) -> DeadMark {
        DeadMark { seq: letter.seq, time: letter.time }
    }

    fn encode(mark: Option<DeadMark>) -> Vec<u8> {
        let DeadMark { seq, time } = mark.unwrap_or(DeadMark { seq: 0, time: Time(0) });
        [seq.to_le_bytes(), time.0.to_le_bytes()].concat()
    }

    /// The outer `None` is no mark; the inner one is that there is no letter yet.
    fn decode(bytes: &[u8]) -> Option<Option<DeadMark>> {
        let bytes: &[u8; MARK] = bytes.try_into().ok()?;
        let (seq, time) = bytes.split_first_chunk::<8>()?;
        let mark = DeadMark { seq: u64::from_le_bytes(*seq), time: Time(i64::from_le_bytes(time.try_into().ok()?)) };
        Some((mark.seq > 0).then_some(mark))
    }
}

/// The open log of dead letters; cheap to clone. Its writer ends when the last one is dropped.
#[derive(Clone)]
pub struct DeadLetters {
    appender: Appender<DeadStage>,
    newest: Arc<Mutex<Option<DeadMark>>>,
}

impl DeadLetters {
    /// Opens the dead letters of a data folder: cuts a torn tail, and reports damage without touching it.
    ///
    /// # Errors
    /// The newest segment's header is damaged or of a newer version, or the file system says no.
    pub fn open(data: &DataDir, config: &DeadConfig) -> Result<(DeadLetters, Recovery), OpenError> {
        let (dir, lock) = (data.dead(), data.lock()?);
        let mut newest = Ok(None);
        let pieces = SEGMENTS_PER_KEEP.unsigned_abs();
        let limits = SegmentLimits { bytes: (config.keep_bytes / pieces).max(1), age: Span((config.keep.0 / SEGMENTS_PER_KEEP).max(1)) };
        let mut visit = |visit: Visit<'_>| match visit {
            Visit::Carried(bytes) => newest = DeadMark::decode(bytes).ok_or("it does not say which dead letter was the newest before it"),
            Visit::Frame(frame) => {
                if let (Ok(newest), Ok(letter)) = (&mut newest, postcard::from_bytes::<DeadLetter>(&frame.payload)) {
                    *newest = Some(DeadMark::of(&letter));
                }
            }
        };
        let (mut log, recovery) = Log::open(&dir, Kind::Dead, limits, &DeadMark::encode(None), &mut visit)?;
        let newest = newest.map_err(|what| refused(Kind::Dead, ReadError::Header { file: log.path().to_owned(), what }))?;
        log.retain(config.keep, config.keep_bytes);
        let shared = Arc::new(Mutex::new(newest));
        let stage = DeadStage { config: config.clone(), newest: Arc::clone(&shared), staged: newest, kept: Vec::new(), tidied: clock::now() };
        Ok((DeadLetters { appender: Appender::start(log, stage, lock)?, newest: shared }, recovery))
    }

    /// Appends letters, in the order of their records; resolves once an fsync covers them. Those at or before the newest one's place
    /// were kept before, and are dropped: what is computed again after a crash gives each letter once. How many were kept.
    ///
    /// # Errors
    /// The disk says no (try again), or the writer has ended.
    pub async fn append(&self, letters: Vec<DeadLetter>) -> Result<u64, AppendError> {
        self.appender.append(letters).await
    }

    /// The newest durable letter.
    #[must_use]
    pub fn newest(&self) -> Option<DeadMark> {
        *both(&self.newest)
    }

    /// Drops this handle and waits for the writer's end, which comes when no other handle is left.
    pub async fn close(self) {
        self.appender.ended().await;
    }
}

fn both(newest: &Mutex<Option<DeadMark>>) -> MutexGuard<'_, Option<DeadMark>> {
    // It is written at once: there is no half-written one.
    newest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writer's part that is the dead letters' own.
struct DeadStage {
    config: DeadConfig,
    newest: Arc<Mutex<Option<DeadMark>>>,
    staged: Option<DeadMark>,
    /// What is counted once it is durable: source and reason.
    kept: Vec<(Arc<str>, &'static str)>,
    tidied: Time,
}

impl Stage for DeadStage {
    type Item = DeadLetter;
    type Place = u64;

    fn carried(&self) -> Vec<u8> {
        DeadMark::encode(*both(&self.newest))
    }

    fn stage(&mut self, letters: Vec<DeadLetter>, _first: u64, group: &mut Group) -> Result<u64, AppendError> {
        let known = self.staged.map_or(0, |mark| mark.seq);
        let new: Vec<&DeadLetter> = letters.iter().filter(|letter| letter.seq > known).collect();
        let payloads = new.iter().map(|letter| encode(letter)).collect::<Result<Vec<_>, _>>()?;
        group.frames.extend(payloads.into_iter().map(|payload| (0, payload)));
        self.kept.extend(new.iter().map(|letter| (Arc::clone(&letter.source), letter.reason.word())));
        self.staged = new.last().map(|letter| DeadMark::of(letter)).or(self.staged);
        Ok(new.len() as u64)
    }

    fn commit(&mut self, _log: &Log) {
        *both(&self.newest) = self.staged;
        for (source, reason) in self.kept.drain(..) {
            metrics::counter!("opmas_dead_letters_total", "source" => source.to_string(), "reason" => reason).increment(1);
        }
    }

    fn rollback(&mut self) {
        self.staged = *both(&self.newest);
        self.kept.clear();
    }

    fn after(&mut self, log: &mut Log) {
        let now = clock::now();
        if now.since(self.tidied) >= TIDY_EVERY || log.has_rolled() {
            self.tidied = now;
            log.retain(self.config.keep, self.config.keep_bytes);
        }
    }
}

fn encode(letter: &DeadLetter) -> Result<Vec<u8>, AppendError> {
    let payload = postcard::to_stdvec(letter).map_err(|error| AppendError::Encode(error.to_string()))?;
    if payload.len() > MAX_PAYLOAD {
        return Err(AppendError::TooLarge { bytes: payload.len(), max: MAX_PAYLOAD });
    }
    Ok(payload)
}

/// Iterates over the dead letters that are kept, the oldest first. Behind damage it goes on with the next whole one.
pub struct DeadReader {
    log: Option<LogReader>,
}

impl DeadReader {
    /// Reads a data folder's `dead`, whether or not an opmas holds the folder. A folder that is not there holds none.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(dir: &Path) -> Result<DeadReader, ReadError> {
        let log = dir.is_dir().then(|| LogReader::open(dir, Kind::Dead, 0, None)).transpose()?;
        Ok(DeadReader { log })
    }

    pub(super) fn log(&self) -> Option<&LogReader> {
        self.log.as_ref()
    }
}

impl Iterator for DeadReader {
    type Item = Result<DeadLetter, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (frame, file) = match self.log.as_mut()?.next()? {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        let (offset, seq) = (frame.offset, frame.seq);
        let broken = |error| ReadError::Content { file: file.to_path_buf(), offset, seq, what: format!("it does not decode: {error}") };
        Some(postcard::from_bytes(&frame.payload).map_err(broken))
    }
}
