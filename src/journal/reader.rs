//! Reads a log over its segments, also while it is being written.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::archive::{self, list_all};
use super::error::ReadError;
use super::segment::{Frame, HeaderFault, Item, Kind, SegmentReader, Tail, header_error, list};

/// What a log reader hands out: a frame and the segment that it stands in, or damage.
pub(super) type Found = Result<(Frame, Arc<Path>), ReadError>;

/// Yields the frames of whole batches in order from the beginning of the segment that holds the asked seq. `None` is the end for now:
/// a later call goes on with what was appended meanwhile. Not fused.
pub(super) struct LogReader {
    dir: PathBuf,
    kind: Kind,
    segment: Option<(SegmentReader, Arc<Path>)>,
    /// The first seq of the segment that was opened last, and whether that opening succeeded.
    opened: Option<(u64, bool)>,
    /// The first seq of the segment to begin with.
    begin: u64,
    /// The current segment has a successor, so nothing will be appended to it.
    closed: bool,
    expect: u64,
    /// Where the segment before ended.
    left_at: (PathBuf, u64),
    batch: Vec<Frame>,
    ready: VecDeque<Found>,
    tail: Tail,
    durable: Option<Arc<AtomicU64>>,
    /// Frames up to here were durable before they were read from the file.
    sure: u64,
    failed: bool,
}

impl LogReader {
    /// `from` 0 is the oldest that is kept. With `durable`, frames above that seq are not read before it has moved.
    pub(super) fn open(dir: &Path, kind: Kind, from: u64, durable: Option<Arc<AtomicU64>>) -> Result<LogReader, ReadError> {
        let segments = list_all(dir, kind).map_err(ReadError::io(dir))?;
        let oldest = segments.first().map_or(1, |(first, _)| *first);
        if from != 0 && from < oldest {
            return Err(ReadError::Gone { dir: dir.to_owned(), asked: from, oldest });
        }
        let begin = segments.iter().map(|(first, _)| *first).take_while(|first| *first <= from).last().unwrap_or(oldest);
        Ok(LogReader {
            dir: dir.to_owned(),
            kind,
            segment: None,
            opened: None,
            begin,
            closed: false,
            expect: begin,
            left_at: (PathBuf::new(), 0),
            batch: Vec::new(),
            ready: VecDeque::new(),
            tail: Tail::Clean,
            durable,
            sure: 0,
            failed: false,
        })
    }

    /// What stood behind the last whole batch when the end was met.
    pub(super) fn tail(&self) -> (Tail, &Path, u64) {
        (self.tail, &self.left_at.0, self.left_at.1)
    }

    /// First seq and carried state of the segment that the frames handed out last stand in.
    pub(super) fn carried(&self) -> Option<(u64, &[u8])> {
        self.segment.as_ref().map(|(segment, _)| (segment.header.first, segment.header.carried.as_slice()))
    }

    fn fill(&mut self) -> Result<(), ReadError> {
        while self.ready.is_empty() {
            let Some((segment, file)) = &mut self.segment else {
                if self.advance()? {
                    continue;
                }
                return Ok(());
            };
            if let Some(durable) = self.durable.as_ref().filter(|_| segment.expect() > self.sure) {
                self.sure = durable.load(Ordering::Acquire);
                if segment.expect() > self.sure {
                    return Ok(());
                }
                // What was read ahead was not durable then, and may have been cut and written anew since.
                segment.forget();
            }
            match segment.next().map_err(ReadError::io(&segment.path))? {
                Item::Frame(frame) => {
                    let whole = frame.left == 0;
                    self.batch.push(frame);
                    if whole {
                        self.ready.extend(self.batch.drain(..).map(|frame| Ok((frame, Arc::clone(file)))));
                    }
                }
                Item::Broken { offset, from, to } => {
                    self.ready.extend(self.batch.drain(..).map(|frame| Ok((frame, Arc::clone(file)))));
                    self.ready.push_back(Err(ReadError::Broken { file: segment.path.clone(), offset, from, to }));
                }
                Item::End(tail) if self.ended(tail)? => {}
                Item::End(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// At the end of a segment: whether there is more to read, here or in the next one.
    fn ended(&mut self, tail: Tail) -> Result<bool, ReadError> {
        let Some((segment, _)) = &mut self.segment else { return Ok(false) };
        // A batch that has begun counts only as a whole; it is read again when there is more.
        self.tail = if tail == Tail::Clean && !self.batch.is_empty() { Tail::Short } else { tail };
        if let Some(first) = self.batch.first() {
            segment.rewind(first);
            self.batch.clear();
        }
        self.left_at = (segment.path.clone(), segment.offset());
        self.expect = segment.expect();
        if self.closed {
            self.segment = None;
        } else {
            // What was appended between the end that was met and the successor's making is read before moving on.
            let here = segment.header.first;
            self.closed =
                archive::is_archived(&segment.path) || list(&self.dir, self.kind).map_err(ReadError::io(&self.dir))?.iter().any(|(first, _)| *first > here);
        }
        Ok(self.closed)
    }

    /// Opens the next segment, if there is one, and says so.
    fn advance(&mut self) -> Result<bool, ReadError> {
        let segments = list_all(&self.dir, self.kind).map_err(ReadError::io(&self.dir))?;
        let after = |first: u64| self.opened.map_or(first >= self.begin, |(opened, _)| first > opened);
        let mut rest = segments.into_iter().filter(|(first, _)| after(*first));
        let Some((first, path)) = rest.next() else { return Ok(false) };
        let stop = rest.next().map_or(u64::MAX, |(first, _)| first);
        let intact_before = self.opened.is_none_or(|(_, intact)| intact);
        match SegmentReader::open(&path, self.kind, stop) {
            Ok(segment) => {
                if intact_before && first > self.expect {
                    let (file, offset) = self.left_at.clone();
                    self.ready.push_back(Err(ReadError::Broken { file, offset, from: self.expect, to: first - 1 }));
                }
                self.opened = Some((first, true));
                self.closed = false;
                self.segment = Some((segment, path.into()));
            }
            // Since it was listed it was archived, and is listed there; or retention has dropped it.
            Err(HeaderFault::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
                if !archive::path_of(&self.dir, first).exists() {
                    self.opened = Some((first, false));
                }
            }
            Err(fault) => {
                self.opened = Some((first, false));
                self.ready.push_back(Err(header_error(&path, fault)));
            }
        }
        Ok(true)
    }
}

impl Iterator for LogReader {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        if !self.failed
            && self.ready.is_empty()
            && let Err(error) = self.fill()
        {
            self.failed = true;
            self.ready.push_back(Err(error));
        }
        self.ready.pop_front()
    }
}
