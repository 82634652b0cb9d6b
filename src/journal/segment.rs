//! The format of one segment file, of spool, ledger and dead letters alike. Integers are little-endian. Stable.
//!
//! ```text
//! header   0  8  magic: OPMSPOOL, OPMLEDGR or OPMDEADL
//!          8  2  format version, 2 (1: records without payload and subject)
//!         10  2  zero
//!         12  4  n, the length of the carried state
//!         16  8  seq of the first frame
//!         24  8  when the segment was made, nanoseconds since the epoch
//!         32  8  salt, random
//!         40  n  carried state: what a reader must know of all that came before
//!       40+n  4  CRC-32 of all of the above
//! frame    0  4  n, the length of the payload, 1 to MAX_PAYLOAD
//!          4  4  how many frames of its batch follow this one; a batch counts only as a whole
//!          8  8  seq, one more than the frame before
//!         16  4  CRC-32 of salt and payload
//!         20  4  CRC-32 of salt and the 20 bytes above
//!         24  n  payload
//! ```
//!
//! The salt keeps log text that looks like a frame from being taken for one when a reader looks for the next whole
//! frame behind damage. The header's own CRC makes a length trustworthy, so that an unfinished write (the length
//! points beyond the end) is told from damage.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::archive::is_archived;
use super::error::ReadError;
use super::window::{CHUNK, Window};
use crate::model::Time;

/// The segment format that this opmas writes.
const VERSION: u16 = 2;
/// Bytes of a segment header before the carried state.
const HEADER: usize = 40;
/// Bytes of a frame before its payload.
pub(super) const FRAME: usize = 24;
/// The largest payload: far above the longest line a source takes or a finding with its evidence.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// The largest carried state; the tables that go into it have tighter bounds of their own.
const MAX_CARRIED: usize = 16 << 20;

/// Which log a segment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Spool,
    Ledger,
    Dead,
}

impl Kind {
    /// Also the file extension.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Spool => "spool",
            Kind::Ledger => "ledger",
            Kind::Dead => "dead",
        }
    }

    fn magic(self) -> &'static [u8; 8] {
        match self {
            Kind::Spool => b"OPMSPOOL",
            Kind::Ledger => b"OPMLEDGR",
            Kind::Dead => b"OPMDEADL",
        }
    }
}

/// What a segment begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether an older opmas wrote it: then it is read, and not written to.
    pub(super) old: bool,
    pub(super) first: u64,
    pub(super) created: Time,
    pub(super) salt: [u8; 8],
    pub(super) carried: Vec<u8>,
}

impl Header {
    pub(super) fn encode(&self, kind: Kind) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.carried.len() + 4);
        out.extend_from_slice(kind.magic());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&length(self.carried.len()));
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.created.0.to_le_bytes());
        out.extend_from_slice(&self.salt);
        out.extend_from_slice(&self.carried);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn bytes(&self) -> u64 {
        (HEADER + self.carried.len() + 4) as u64
    }
}

/// Why a header was not read.
pub(super) enum HeaderFault {
    /// The file ends inside it.
    Short,
    Newer(u32),
    Damaged(&'static str),
    Io(io::Error),
}

/// Lengths are bounded far below 4 GiB before they come here.
fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes()
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
}

/// Reads a segment's header through a window on its file.
fn read_header(window: &mut Window, kind: Kind, path: &Path) -> Result<Header, HeaderFault> {
    let fixed = window.at(0, HEADER).map_err(HeaderFault::Io)?.to_vec();
    if fixed.len() < HEADER {
        return Err(HeaderFault::Short);
    }
    if !fixed.starts_with(kind.magic()) {
        return Err(HeaderFault::Damaged("it does not begin with the magic of its kind"));
    }
    let carried = u32::from_le_bytes(take(&fixed, 12)) as usize;
    let version = u16::from_le_bytes(take(&fixed, 8));
    if carried > MAX_CARRIED {
        return Err(HeaderFault::Damaged("its length is out of bounds"));
    }
    let whole = window.at(0, HEADER + carried + 4).map_err(HeaderFault::Io)?;
    let (Some(body), Some(crc)) = (whole.get(..HEADER + carried), whole.get(HEADER + carried..HEADER + carried + 4)) else {
        return Err(HeaderFault::Short);
    };
    if crc32fast::hash(body).to_le_bytes() != *crc {
        return Err(HeaderFault::Damaged("its CRC is wrong"));
    }
    if version > VERSION {
        return Err(HeaderFault::Newer(version.into()));
    }
    let first = u64::from_le_bytes(take(body, 16));
    if first == 0 {
        return Err(HeaderFault::Damaged("its first record is 0, and places begin with 1"));
    }
    if path.file_stem().and_then(|s| s.to_str()) != Some(&format!("{first:020}")) {
        return Err(HeaderFault::Damaged("its first record is not the one that the file's name says"));
    }
    let created = Time(i64::from_le_bytes(take(body, 24)));
    Ok(Header { old: version < VERSION, first, created, salt: take(body, 32), carried: body.get(HEADER..).unwrap_or_default().to_vec() })
}

/// Appends one frame to `out`.
pub(super) fn encode_frame(out: &mut Vec<u8>, salt: [u8; 8], seq: u64, left: u32, payload: &[u8]) {
    let start = out.len();
    out.extend_from_slice(&length(payload.len()));
    out.extend_from_slice(&left.to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&salted(salt, payload).to_le_bytes());
    let crc = salted(salt, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(payload);
}

fn salted(salt: [u8; 8], bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt);
    crc.update(bytes);
    crc.finalize()
}

/// One whole frame and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) seq: u64,
    pub(super) left: u32,
    pub(super) offset: u64,
    pub(super) payload: Vec<u8>,
}

impl Frame {
    /// The offset behind it.
    pub(super) fn end(&self) -> u64 {
        self.offset + (FRAME + self.payload.len()) as u64
    }
}

/// What stands behind the last whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing.
    Clean,
    /// The beginning of a frame: a write that is under way, or was when the process died.
    Short,
    /// Bytes that are no frame.
    Garbage,
}

/// What a segment reader meets next.
pub(super) enum Item {
    Frame(Frame),
    /// Damage from `offset`, with a whole frame behind it; the record `from` was due, the next one is `to` + 1.
    Broken {
        offset: u64,
        from: u64,
        to: u64,
    },
    /// The end, for now: a later call reads what has been appended meanwhile.
    End(Tail),
}

/// How the bytes at one offset look.
enum Look {
    Whole {
        seq: u64,
        left: u32,
        bytes: usize,
    },
    /// The header is good, the payload is not; the next frame should be this many bytes on.
    BadPayload(usize),
    BadHeader,
    End(Tail),
}

/// Reads one segment from its header on.
pub(super) struct SegmentReader {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    window: Window,
    at: u64,
    expect: u64,
    /// Frames from this seq on are what was cut away: the next segment has them anew.
    stop: u64,
    /// What was met last does not decompress.
    given_up: bool,
}

impl SegmentReader {
    /// `stop` is the first seq of the next segment, `u64::MAX` without one.
    pub(super) fn open(path: &Path, kind: Kind, stop: u64) -> Result<SegmentReader, HeaderFault> {
        let compressed = is_archived(path);
        let fault = |error: io::Error| if compressed && is_damage(&error) { HeaderFault::Damaged("it does not decompress") } else { HeaderFault::Io(error) };
        let mut window = File::open(path).and_then(|file| Window::new(file, compressed)).map_err(fault)?;
        let header = read_header(&mut window, kind, path).map_err(|found| if let HeaderFault::Io(error) = found { fault(error) } else { found })?;
        let (at, expect) = (header.bytes(), header.first);
        Ok(SegmentReader { path: path.to_owned(), header, window, at, expect, stop, given_up: false })
    }

    /// Where the next frame begins.
    pub(super) fn offset(&self) -> u64 {
        self.at
    }

    /// The seq that is due.
    pub(super) fn expect(&self) -> u64 {
        self.expect
    }

    /// Reads anew what comes next, also where it was read ahead.
    pub(super) fn forget(&mut self) {
        self.window.forget();
    }

    /// Goes back to a frame that was read.
    pub(super) fn rewind(&mut self, frame: &Frame) {
        (self.at, self.expect) = (frame.offset, frame.seq);
    }

    /// What cannot be decompressed is damage up to the next segment.
    pub(super) fn next(&mut self) -> io::Result<Item> {
        if self.given_up {
            return Ok(Item::End(Tail::Clean));
        }
        match self.look_on() {
            Err(error) if is_archived(&self.path) && is_damage(&error) => {
                let next = if self.stop == u64::MAX { self.expect.saturating_add(1) } else { self.stop };
                let broken = Item::Broken { offset: self.at, from: self.expect, to: next.saturating_sub(1) };
                let lost = self.expect < next;
                (self.given_up, self.expect) = (true, self.expect.max(next));
                Ok(if lost { broken } else { Item::End(Tail::Clean) })
            }
            met => met,
        }
    }

    fn look_on(&mut self) -> io::Result<Item> {
        let found = match self.look(self.at)? {
            Look::Whole { seq, .. } if seq >= self.stop => return Ok(Item::End(Tail::Clean)),
            Look::Whole { seq, left, bytes } if seq == self.expect => return self.frame(seq, left, bytes),
            Look::End(tail) => return Ok(Item::End(tail)),
            Look::Whole { seq, .. } if seq > self.expect => Some(self.at),
            Look::Whole { bytes, .. } | Look::BadPayload(bytes) => self.find(self.at + (FRAME + bytes) as u64)?,
            Look::BadHeader => self.find(self.at + 1)?,
        };
        let Some(found) = found else { return Ok(Item::End(Tail::Garbage)) };
        let seq = match self.look(found)? {
            Look::Whole { seq, .. } if seq < self.stop => seq,
            _ => return Ok(Item::End(Tail::Garbage)),
        };
        let broken = Item::Broken { offset: self.at, from: self.expect, to: seq.saturating_sub(1) };
        (self.at, self.expect) = (found, seq);
        Ok(broken)
    }

    fn frame(&mut self, seq: u64, left: u32, bytes: usize) -> io::Result<Item> {
        let payload = self.window.at(self.at + FRAME as u64, bytes)?.to_vec();
        let frame = Frame { seq, left, offset: self.at, payload };
        (self.at, self.expect) = (frame.end(), seq.saturating_add(1));
        Ok(Item::Frame(frame))
    }

    fn look(&mut self, at: u64) -> io::Result<Look> {
        let salt = self.header.salt;
        let head = self.window.at(at, FRAME)?;
        let Some(head) = head.first_chunk::<FRAME>().copied() else {
            return Ok(Look::End(if head.is_empty() { Tail::Clean } else { Tail::Short }));
        };
        let bytes = u32::from_le_bytes(take(&head, 0)) as usize;
        if salted(salt, head.get(..20).unwrap_or_default()).to_le_bytes() != take(&head, 20) || bytes > MAX_PAYLOAD {
            return Ok(Look::BadHeader);
        }
        let payload = self.window.at(at + FRAME as u64, bytes)?;
        if payload.len() < bytes {
            return Ok(Look::End(Tail::Short));
        }
        if salted(salt, payload).to_le_bytes() != take(&head, 16) {
            return Ok(Look::BadPayload(bytes));
        }
        Ok(Look::Whole { seq: u64::from_le_bytes(take(&head, 8)), left: u32::from_le_bytes(take(&head, 4)), bytes })
    }

    /// The first offset from `at` on where a whole frame with a seq that is still to come begins. Ends with the file.
    fn find(&mut self, mut at: u64) -> io::Result<Option<u64>> {
        loop {
            let expect = self.expect;
            let chunk = self.window.at(at, CHUNK)?;
            if chunk.len() < FRAME {
                return Ok(None);
            }
            // Cheap tests first; the CRCs decide.
            let likely = chunk.windows(FRAME).position(|w| {
                let bytes = u32::from_le_bytes(take(w, 0)) as usize;
                (1..=MAX_PAYLOAD).contains(&bytes) && u64::from_le_bytes(take(w, 8)) >= expect
            });
            let skip = likely.unwrap_or(chunk.len() - FRAME + 1) as u64;
            at += skip;
            if likely.is_some() {
                if let Look::Whole { .. } = self.look(at)? {
                    return Ok(Some(at));
                }
                at += 1;
            }
        }
    }
}

/// Whether reading failed for what a compressed file says, not for want of the file.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Other | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
}

/// The segments of a log, oldest first: first seq (of the name) and path. Other files are not looked at, nor is the archive.
pub(super) fn list(dir: &Path, kind: Kind) -> io::Result<Vec<(u64, PathBuf)>> {
    list_of(dir, kind.name())
}

/// The same of files with this extension.
pub(super) fn list_of(dir: &Path, extension: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|s| s.to_str()).filter(|s| s.len() == 20);
        if let Some(first) = stem.and_then(|s| s.parse().ok()).filter(|_| path.extension().is_some_and(|e| e == extension)) {
            found.push((first, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The path of the segment that begins with `first`.
pub(super) fn path_of(dir: &Path, kind: Kind, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.{}", kind.name()))
}

/// A header's fault as what a reader says of it.
pub(super) fn header_error(file: &Path, fault: HeaderFault) -> ReadError {
    let file = file.to_owned();
    match fault {
        HeaderFault::Short => ReadError::Header { file, what: "the file ends inside it" },
        HeaderFault::Damaged(what) => ReadError::Header { file, what },
        HeaderFault::Newer(found) => ReadError::Newer { file, found, known: VERSION.into() },
        HeaderFault::Io(source) => ReadError::Io { path: file, source },
    }
}
