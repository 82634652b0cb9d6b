//! The writing side of a segmented log: recovery at open, group writes, segments' making and dropping.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::durable::{sync_dir, write_whole};
use super::error::{AppendError, OpenError, ReadError};
use super::segment::{Frame, Header, HeaderFault, Item, Kind, SegmentReader, Tail, encode_frame, header_error, list, path_of};
use crate::clock;
use crate::model::{Span, Time};

/// Memory that is kept between groups; a burst may take more.
const MAX_SCRATCH: usize = 1 << 20;

/// What was cut off at open: the end of a write that was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub file: PathBuf,
    /// Where it was cut.
    pub offset: u64,
    /// How many bytes were cut.
    pub bytes: u64,
}

impl std::fmt::Display for Torn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: a torn tail of {} bytes was cut (a write that the last stop interrupted)", self.file.display(), self.offset, self.bytes)
    }
}

/// What opening a log found. For `/readyz`, the log and a note in the ledger.
#[derive(Debug, Default)]
pub struct Recovery {
    /// How many segments there are.
    pub segments: usize,
    /// The newest record's seq, 0 when there is none.
    pub last: u64,
    /// Tails that were cut.
    pub torn: Vec<Torn>,
    /// Damage in the newest segment that was left as it is. (Older segments are read when they are needed.)
    pub broken: Vec<ReadError>,
}

/// How segments are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentLimits {
    /// A segment that has reached this size is closed.
    pub(super) bytes: u64,
    /// So is one that is this old.
    pub(super) age: Span,
}

/// What recovery shows to the log's owner.
pub(super) enum Visit<'a> {
    /// The newest segment's carried state.
    Carried(&'a [u8]),
    /// A frame of it, in order.
    Frame(&'a Frame),
}

/// What one `fdatasync` covers: payloads, each with how many of its batch follow.
#[derive(Default)]
pub(super) struct Group {
    pub(super) frames: Vec<(u32, Vec<u8>)>,
}

impl Group {
    /// The size of its payloads.
    pub(super) fn bytes(&self) -> usize {
        self.frames.iter().map(|(_, payload)| payload.len()).sum()
    }

    /// The seq of its next frame when the log is at `next`.
    pub(super) fn next_seq(&self, next: u64) -> u64 {
        next + self.frames.len() as u64
    }
}

/// Why the end of the current segment is not to be trusted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A write failed; what it left must be cut.
    Write,
    /// A sync failed: the kernel may have dropped the pages and call the next sync a success.
    Sync,
}

/// The segment that is written to.
struct Current {
    /// An older opmas made it: what comes goes to a new one.
    old: bool,
    file: File,
    path: PathBuf,
    first: u64,
    created: Time,
    salt: [u8; 8],
    /// Its acknowledged length.
    len: u64,
}

/// A segment that is only read.
struct Closed {
    path: PathBuf,
    first: u64,
    bytes: u64,
    /// When it was last written.
    newest: Time,
}

/// A log that is open for writing. All calls block.
pub(super) struct Log {
    dir: PathBuf,
    pub(super) kind: Kind,
    limits: SegmentLimits,
    current: Current,
    closed: VecDeque<Closed>,
    next: u64,
    fault: Option<Fault>,
    /// Since the last look at retention, a segment was closed.
    rolled: bool,
    scratch: Vec<u8>,
}

impl Log {
    /// Opens a log: cuts a torn tail, reports or (ledger) refuses damage, makes the first segment (with `initial` as
    /// its carried state) where there is none.
    pub(super) fn open(dir: &Path, kind: Kind, limits: SegmentLimits, initial: &[u8], visit: &mut dyn FnMut(Visit<'_>)) -> Result<(Log, Recovery), OpenError> {
        let mut recovery = Recovery::default();
        let mut segments = list(dir, kind).map_err(OpenError::io("read", dir))?;
        let last = loop {
            let Some((first, path)) = segments.pop() else { break None };
            match SegmentReader::open(&path, kind, u64::MAX) {
                Ok(reader) => break Some(reader),
                // Nothing can have been acknowledged in a segment whose header is not whole.
                Err(HeaderFault::Short) if first == 1 || !segments.is_empty() => recovery.torn.push(remove_headless(dir, path)?),
                Err(fault) => return Err(refused(kind, header_error(&path, fault))),
            }
        };
        let (current, next) = match last {
            Some(reader) => recover_last(reader, kind, &mut recovery, visit)?,
            None => {
                visit(Visit::Carried(initial));
                let made = create(dir, kind, 1, initial.to_vec());
                (made.map_err(OpenError::io("make a segment in", dir))?, 1)
            }
        };
        let closed: VecDeque<Closed> = segments.into_iter().map(|(first, path)| closed_segment(first, path)).collect();
        (recovery.segments, recovery.last) = (closed.len() + 1, next - 1);
        Ok((Log { dir: dir.to_owned(), kind, limits, current, closed, next, fault: None, rolled: true, scratch: Vec::new() }, recovery))
    }

    /// The seq of the next frame.
    pub(super) fn next_seq(&self) -> u64 {
        self.next
    }

    /// The segment that is written to.
    pub(super) fn path(&self) -> &Path {
        &self.current.path
    }

    /// Whether a segment was closed since the last [`Log::old`].
    pub(super) fn has_rolled(&self) -> bool {
        self.rolled
    }

    /// Leaves out the places up to `seq`, so that none is given twice when segments were lost. A new segment follows them.
    pub(super) fn skip_to(&mut self, seq: u64, carried: Vec<u8>) -> Result<(), AppendError> {
        if seq < self.next {
            return Ok(());
        }
        let next = std::mem::replace(&mut self.next, seq.saturating_add(1));
        self.roll(carried).inspect_err(|_| self.next = next)
    }

    /// Before a group: repairs what a failed write or sync left, and makes a new segment when it is time.
    ///
    /// After a failed sync the kernel may call the same pages clean, so a second sync proves nothing. What earlier syncs
    /// acknowledged is on the disk; all behind it is cut away and written anew, to a segment of its own.
    pub(super) fn prepare(&mut self, carried: impl FnOnce() -> Vec<u8>) -> Result<(), AppendError> {
        let doubted = self.fault == Some(Fault::Sync);
        if self.fault.is_some() {
            self.cut()?;
        }
        let old = clock::now().since(self.current.created) >= self.limits.age && self.next > self.current.first;
        if doubted || old || self.current.old || self.current.len >= self.limits.bytes {
            self.roll(carried())?;
        }
        self.fault = None;
        Ok(())
    }

    /// Cuts the current segment back to what is acknowledged.
    fn cut(&mut self) -> Result<(), AppendError> {
        self.current.file.set_len(self.current.len).map_err(AppendError::disk("cut back", &self.current.path))
    }

    fn roll(&mut self, carried: Vec<u8>) -> Result<(), AppendError> {
        let made = create(&self.dir, self.kind, self.next, carried);
        let made = made.map_err(AppendError::disk("make a segment in", &self.dir))?;
        let old = std::mem::replace(&mut self.current, made);
        self.rolled = true;
        // An empty one had the same name, and has been replaced.
        if old.first < self.next {
            self.closed.push_back(Closed { path: old.path, first: old.first, bytes: old.len, newest: clock::now() });
        }
        Ok(())
    }

    /// Writes a group and makes it durable: one write, one `fdatasync`. On an error nothing of it is kept.
    pub(super) fn write(&mut self, group: &Group) -> Result<(), AppendError> {
        self.scratch.clear();
        self.scratch.shrink_to(MAX_SCRATCH);
        for (seq, (left, payload)) in (self.next..).zip(&group.frames) {
            encode_frame(&mut self.scratch, self.current.salt, seq, *left, payload);
        }
        let Current { file, path, len, .. } = &mut self.current;
        if let Err(error) = file.write_all_at(&self.scratch, *len) {
            let failed = AppendError::disk("write", path)(error);
            self.fault = Some(Fault::Write);
            if self.cut().is_ok() {
                self.fault = None;
            }
            return Err(failed);
        }
        if let Err(error) = file.sync_data() {
            self.fault = Some(Fault::Sync);
            return Err(AppendError::disk("sync", &self.current.path)(error));
        }
        *len += self.scratch.len() as u64;
        self.next = group.next_seq(self.next);
        Ok(())
    }

    /// The oldest segments that are older than `keep` or beyond `keep_bytes`, but none with a record from `needed` on,
    /// and never the current one. They are to be removed by the caller, the oldest first.
    pub(super) fn old(&mut self, keep: Span, keep_bytes: u64, needed: u64) -> Vec<PathBuf> {
        self.rolled = false;
        while self.closed.front().is_some_and(|oldest| oldest.path.try_exists().is_ok_and(|there| !there)) {
            self.closed.pop_front();
        }
        let before = clock::now().minus(keep);
        let mut total: u64 = self.current.len + self.closed.iter().map(|c| c.bytes).sum::<u64>();
        let next_firsts = self.closed.iter().skip(1).map(|c| c.first).chain([self.current.first]);
        let old = self.closed.iter().zip(next_firsts).take_while(|(oldest, next_first)| {
            let is_old = *next_first <= needed && (oldest.newest < before || total > keep_bytes);
            total = total.saturating_sub(oldest.bytes);
            is_old
        });
        old.map(|(closed, _)| closed.path.clone()).collect()
    }

    /// Drops what is old, as [`Log::old`] says.
    pub(super) fn retain(&mut self, keep: Span, keep_bytes: u64) {
        for path in self.old(keep, keep_bytes, u64::MAX) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!("cannot drop {}: {error}; tried again later", path.display());
                break;
            }
        }
    }
}

fn create(dir: &Path, kind: Kind, first: u64, carried: Vec<u8>) -> std::io::Result<Current> {
    let header = Header { old: false, first, created: clock::now(), salt: clock::random()?, carried };
    let bytes = header.encode(kind);
    let path = path_of(dir, kind, first);
    let file = write_whole(&path, &[&bytes])?;
    Ok(Current { old: false, file, path, first, created: header.created, salt: header.salt, len: bytes.len() as u64 })
}

fn remove_headless(dir: &Path, file: PathBuf) -> Result<Torn, OpenError> {
    let bytes = fs::metadata(&file).map_err(OpenError::io("read", &file))?.len();
    fs::remove_file(&file).and_then(|()| sync_dir(dir)).map_err(OpenError::io("remove", &file))?;
    Ok(Torn { file, offset: 0, bytes })
}

fn closed_segment(first: u64, path: PathBuf) -> Closed {
    let about = fs::metadata(&path).ok();
    let newest = about.as_ref().and_then(|m| m.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok());
    let newest = newest.map_or(clock::now(), |since| Time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)));
    Closed { path, first, bytes: about.map_or(0, |m| m.len()), newest }
}

/// Reads the newest segment to its end, cuts a torn tail, and opens it for writing; with the seq that comes next.
fn recover_last(mut reader: SegmentReader, kind: Kind, recovery: &mut Recovery, visit: &mut dyn FnMut(Visit<'_>)) -> Result<(Current, u64), OpenError> {
    let path = reader.path.clone();
    visit(Visit::Carried(&reader.header.carried));
    // Behind the last whole batch.
    let (mut len, mut next) = (reader.offset(), reader.expect());
    let tail = loop {
        match reader.next().map_err(OpenError::io("read", &path))? {
            Item::Frame(frame) => {
                visit(Visit::Frame(&frame));
                if frame.left == 0 {
                    (len, next) = (frame.end(), frame.seq.saturating_add(1));
                }
            }
            Item::Broken { offset, from, to } => {
                let broken = ReadError::Broken { file: path.clone(), offset, from, to };
                if kind == Kind::Ledger {
                    return Err(refused(kind, broken));
                }
                recovery.broken.push(broken);
            }
            Item::End(tail) => break tail,
        }
    };
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(OpenError::io("open", &path))?;
    let whole = file.metadata().map_err(OpenError::io("read", &path))?.len();
    if tail != Tail::Clean || whole > len {
        file.set_len(len).and_then(|()| file.sync_all()).map_err(OpenError::io("cut the torn tail of", &path))?;
        recovery.torn.push(Torn { file: path.clone(), offset: len, bytes: whole.saturating_sub(len) });
    }
    let header = reader.header;
    Ok((Current { old: header.old, file, path, first: header.first, created: header.created, salt: header.salt, len }, next))
}

/// Damage with which a log does not open.
pub(super) fn refused(kind: Kind, error: ReadError) -> OpenError {
    let remedy = match kind {
        Kind::Spool => "move this file out of the data folder: what it holds is lost to opmas, the segments before it are kept",
        Kind::Dead => "move this file out of the data folder: the dead letters in it are lost, those before it are kept",
        Kind::Ledger => {
            "restore the data folder from a backup, or move `ledger` and `state` out of it to begin a new ledger, which then knows no earlier finding or lease"
        }
    };
    match error {
        ReadError::Newer { file, found, known } => OpenError::Newer { path: file, found, known },
        ReadError::Io { path, source } => OpenError::Io { doing: "read", path, source },
        error => OpenError::Damaged { what: error.to_string(), remedy },
    }
}
