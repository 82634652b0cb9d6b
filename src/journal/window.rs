//! A segment's file seen through one buffer, compressed or not, so that memory is bounded however long a segment is.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;

use zstd::stream::read::Decoder;

/// How much is read from a file at a time.
pub(super) const CHUNK: usize = 256 << 10;

/// The bytes of a file, or those that it decompresses to.
pub(super) struct Window {
    source: Source,
    start: u64,
    /// The bytes from `start` on, and room behind them.
    buffer: Vec<u8>,
    filled: usize,
}

impl Window {
    pub(super) fn new(file: File, compressed: bool) -> io::Result<Window> {
        let source = if compressed { Source::Compressed(Stream::begin(file)?) } else { Source::Plain(file) };
        Ok(Window { source, start: 0, buffer: Vec::new(), filled: 0 })
    }

    /// Reads anew, also what was read ahead.
    pub(super) fn forget(&mut self) {
        self.filled = 0;
    }

    /// Up to `len` bytes from `offset`: fewer only where the file ends. The end is asked for anew each time, as files grow.
    pub(super) fn at(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let have = offset.checked_sub(self.start).and_then(|d| usize::try_from(d).ok()).filter(|d| d + len <= self.filled);
        if have.is_none() {
            self.fill(offset, len.max(CHUNK))?;
        }
        let from = have.unwrap_or(0);
        Ok(self.buffer.get(from..self.filled.min(from + len)).unwrap_or_default())
    }

    fn fill(&mut self, offset: u64, len: usize) -> io::Result<()> {
        // A stream does not go back, and what it gave does not change.
        let held = match (&self.source, offset.checked_sub(self.start).and_then(|d| usize::try_from(d).ok())) {
            (Source::Compressed(_), Some(from)) if from < self.filled => {
                self.buffer.copy_within(from..self.filled, 0);
                self.filled - from
            }
            _ => 0,
        };
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        (self.start, self.filled) = (offset, held);
        while let Some(rest) = self.buffer.get_mut(self.filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read_at(rest, offset + self.filled as u64) {
                Ok(0) => break,
                Ok(n) => self.filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

enum Source {
    Plain(File),
    Compressed(Stream),
}

impl Source {
    fn read_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            Source::Plain(file) => file.read_at(into, offset),
            Source::Compressed(stream) => stream.read_at(into, offset),
        }
    }
}

/// A file that is being decompressed, and how many bytes it has given.
struct Stream {
    file: File,
    decoder: Decoder<'static, BufReader<File>>,
    at: u64,
}

impl Stream {
    fn begin(file: File) -> io::Result<Stream> {
        let mut same = file.try_clone()?;
        same.rewind()?;
        Ok(Stream { decoder: Decoder::new(same)?, file, at: 0 })
    }

    fn read_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset < self.at {
            *self = Stream::begin(self.file.try_clone()?)?;
        }
        self.at += io::copy(&mut (&mut self.decoder).take(offset - self.at), &mut io::sink())?;
        if self.at < offset {
            return Ok(0);
        }
        let read = self.decoder.read(into)?;
        self.at += read as u64;
        Ok(read)
    }
}
