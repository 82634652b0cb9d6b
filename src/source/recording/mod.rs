//! Recordings: log files, plain or gzip, and standard input, read to their end. They have no arrival clock (semantics X2).

mod merge;
mod shelf;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use rustix::fs::FileType;

use super::lines::MAX_LINE;
use crate::model::{Payload, Record, RecordId, Trust};
use crate::normalise::CUT_MARK;

pub use merge::Merged;
pub use shelf::Shelf;

/// Input is read in pieces of so many bytes.
const BUFFER: usize = 256 * 1024;
/// What a gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {name}: {cause}")]
pub struct RecordingError {
    /// The file as it was named, or `standard input`.
    name: String,
    /// What the system, or the decompression, said.
    cause: io::Error,
}

/// One recording: each line is a record, also an empty one. A line's identity is the recording's name and its place in what was
/// unpacked, so that the same recording gives the same findings.
pub struct Recording {
    name: String,
    input: BufReader<Box<dyn Read + Send>>,
    stream: Arc<str>,
    offset: u64,
    is_file: bool,
}

/// Gives the next record of one stream; `None` at the end.
pub type Lines = Box<dyn FnMut() -> Result<Option<Record>, RecordingError> + Send>;

/// A reader that counts what is taken out of it, before it is unpacked.
struct Counted<R> {
    input: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.taken.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

impl Recording {
    /// Opens a file, or standard input for `-`; gzip is known by its first bytes, whatever the name. `taken` counts the bytes as they
    /// are on disk.
    ///
    /// # Errors
    /// It cannot be opened, or its first bytes cannot be read.
    pub fn open(path: &Path, taken: &Arc<AtomicU64>) -> Result<Recording, RecordingError> {
        let stdin = path == Path::new("-");
        let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
        let fault = |cause| RecordingError { name: name.clone(), cause };
        let (input, is_file): (Box<dyn Read + Send>, _) = if stdin {
            (Box::new(io::stdin()), is_file(io::stdin()))
        } else {
            let file = File::open(path).map_err(fault)?;
            let is_file = is_file(&file);
            (Box::new(file), is_file)
        };
        let counted = Counted { input, taken: Arc::clone(taken) };
        let (input, packed) = unpacked(counted).map_err(fault)?;
        let stream = match &*name {
            _ if stdin => "stdin".into(),
            // Packed it is the same recording.
            name if packed => name.strip_suffix(".gz").unwrap_or(name).into(),
            name => name.into(),
        };
        let input = BufReader::with_capacity(BUFFER, input);
        Ok(Recording { name, input, stream, offset: 0, is_file })
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The system or the decompression says no; what came before was read.
    pub fn record(&mut self) -> Result<Option<Record>, RecordingError> {
        let mut raw = Vec::new();
        let read = read_line(&mut self.input, &mut raw).map_err(|cause| RecordingError { name: self.name.clone(), cause })?;
        let Some(length) = read else { return Ok(None) };
        let id = RecordId::File { file: Arc::clone(&self.stream), offset: self.offset };
        self.offset += length;
        Ok(Some(record(&self.stream, id, raw)))
    }

    /// As one of several.
    #[must_use]
    pub fn lines(mut self) -> Lines {
        Box::new(move || self.record())
    }

    /// Whether reading on may wait for more input.
    #[must_use]
    pub fn waits(&self) -> bool {
        !self.is_file && memchr::memchr(b'\n', self.input.buffer()).is_none()
    }
}

/// Whether it is a regular file, which never lets wait; of anything else that is not known before it is read.
pub fn is_file(input: impl AsFd) -> bool {
    rustix::fs::fstat(input).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
}

/// Several recordings, or one, opened; and how many bytes they have on disk, `None` when that is not known.
///
/// # Errors
/// The first that cannot be opened.
pub fn open(paths: &[PathBuf], taken: &Arc<AtomicU64>) -> Result<(Vec<Recording>, Option<u64>), RecordingError> {
    let recordings = paths.iter().map(|path| Recording::open(path, taken)).collect::<Result<_, _>>()?;
    // A pipe has no length.
    let length = |path: &PathBuf| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|data| data.len());
    Ok((recordings, paths.iter().map(length).sum()))
}

/// Two recordings of one name, if there are some: their lines have the same ids. Packed a recording is named as it is unpacked.
#[must_use]
pub fn same_name(recordings: &[Recording]) -> Option<(&str, &str)> {
    let mut known = HashMap::new();
    recordings.iter().find_map(|recording| known.insert(&recording.stream, recording).map(|first| (&*first.name, &*recording.name)))
}

/// A line of a recording: no arrival, no sender.
#[must_use]
pub fn record(stream: &Arc<str>, id: RecordId, raw: Vec<u8>) -> Record {
    Record {
        id: Some(id),
        source: Arc::clone(stream),
        stream: Arc::clone(stream),
        arrival: None,
        peer: None,
        trust: Trust::Verified,
        raw,
        payload: Payload::Log,
        subject: None,
    }
}

/// What is to be read, and whether it is packed.
fn unpacked(mut input: impl Read + Send + 'static) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let mut first = Vec::with_capacity(GZIP.len());
    // A pipe may give one byte only.
    input.by_ref().take(GZIP.len() as u64).read_to_end(&mut first)?;
    let packed = first == GZIP;
    let whole = Cursor::new(first).chain(input);
    Ok((if packed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) }, packed))
}

/// Reads one line without its newline into `line`; the bytes it took with it, `None` at the end. What goes beyond 1 MiB is read and
/// dropped, and the line ends in [`CUT_MARK`].
///
/// # Errors
/// Those of the input.
pub fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<u64>> {
    line.clear();
    let (mut taken, mut cut) = (0u64, false);
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() && taken == 0 {
            return Ok(None);
        }
        let end = memchr::memchr(b'\n', available);
        let piece = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
        let room = MAX_LINE - line.len();
        cut |= piece.len() > room;
        line.extend_from_slice(piece.get(..room).unwrap_or(piece));
        let (used, done) = (piece.len() + usize::from(end.is_some()), end.is_some() || available.is_empty());
        input.consume(used);
        taken += used as u64;
        if done {
            if cut {
                line.extend_from_slice(CUT_MARK.as_bytes());
            }
            return Ok(Some(taken));
        }
    }
}
