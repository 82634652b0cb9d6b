//! A file's bytes; of one that was compressed when it was rotated, those that were compressed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;

/// How much of a file's first line tells it from another one.
pub(super) const FINGERPRINT: usize = 1024;
/// How much of what stands before a place tells it from the same place of another file.
pub(super) const TAIL: usize = 256;
/// Bytes of one read while the place to begin at is looked for.
const SKIP: usize = 64 * 1024;

/// An open file.
#[derive(Debug)]
pub(super) struct Content {
    file: File,
    /// With it, the file is compressed; and what its content begins with.
    gunzip: Option<(MultiGzDecoder<File>, Vec<u8>)>,
}

impl Content {
    /// Opens a file that is `followed` or has become of it by rotation: such a one is decompressed where it ends in `.gz`.
    pub(super) fn open(path: &Path, followed: &Path) -> io::Result<Content> {
        let file = File::open(path)?;
        if path == followed || path.extension().is_none_or(|extension| extension != "gz") {
            return Ok(Content { file, gunzip: None });
        }
        let mut head = Vec::new();
        MultiGzDecoder::new(&file).take(FINGERPRINT as u64).read_to_end(&mut head)?;
        (&file).rewind()?;
        let gunzip = MultiGzDecoder::new(file.try_clone()?);
        Ok(Content { file, gunzip: Some((gunzip, head)) })
    }

    /// Whether it grows no more, so that what cannot be read of it never can.
    pub(super) fn is_compressed(&self) -> bool {
        self.gunzip.is_some()
    }

    /// Device and inode.
    pub(super) fn inode(&self) -> io::Result<(u64, u64)> {
        self.file.metadata().map(|data| (data.dev(), data.ino()))
    }

    /// When it was last written.
    pub(super) fn modified(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    /// Whether these bytes stand before a place. A compressed file does not change.
    pub(super) fn has(&self, offset: u64, tail: &[u8]) -> io::Result<bool> {
        Ok(self.is_compressed() || read_at(&self.file, offset.saturating_sub(tail.len() as u64), tail.len())? == tail)
    }

    /// Its first bytes, at most [`FINGERPRINT`].
    pub(super) fn head(&self) -> io::Result<Vec<u8>> {
        self.gunzip.as_ref().map_or_else(|| read_at(&self.file, 0, FINGERPRINT), |(_, head)| Ok(head.clone()))
    }

    /// Back to the beginning.
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.file.rewind()?;
        if let Some((gunzip, _)) = &mut self.gunzip {
            *gunzip = MultiGzDecoder::new(self.file.try_clone()?);
        }
        Ok(())
    }

    /// Goes to a place, from the beginning; what stands before it, at most [`TAIL`]. `None` when the file is shorter.
    pub(super) fn seek(&mut self, offset: u64) -> io::Result<Option<Vec<u8>>> {
        let mut tail = Tail::default();
        let mut left = offset;
        if self.gunzip.is_none() {
            left = offset.min(TAIL as u64);
            if self.file.metadata()?.len() < offset {
                return Ok(None);
            }
            self.file.seek(SeekFrom::Start(offset - left))?;
        }
        let mut buffer = vec![0; SKIP];
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(SKIP).min(SKIP);
            let read = self.read(buffer.get_mut(..room).unwrap_or_default())?;
            if read == 0 {
                return Ok(None);
            }
            tail.push(buffer.get(..read).unwrap_or_default());
            left -= read as u64;
        }
        Ok(Some(tail.0))
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.gunzip {
            Some((gunzip, _)) => gunzip.read(buffer),
            None => self.file.read(buffer),
        }
    }
}

/// The last bytes of what went by, at most [`TAIL`].
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(pub(super) Vec<u8>);

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let bytes = bytes.get(bytes.len().saturating_sub(TAIL)..).unwrap_or_default();
        let excess = (self.0.len() + bytes.len()).saturating_sub(TAIL);
        self.0.drain(..excess);
        self.0.extend_from_slice(bytes);
    }
}

/// Up to `length` bytes from a place on.
pub(super) fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
