//! Which file it is, and how far it was read: kept once the fsync that covers it is done (O3).
//!
//! A redelivered line is recognised by its id (O4), so that losing this file costs reading again, nothing else.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::hex;

/// The format of the kept file (stable); another one is not read.
const VERSION: u32 = 1;
/// How much of a file's first line tells it from another one.
const FINGERPRINT: usize = 1024;
/// Files of a folder that are looked at for one that was renamed.
const MAX_SIBLINGS: usize = 4096;

/// How far a file was read: everything before `offset` is in the spool. Stored as JSON (stable).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    version: u32,
    /// As [`identity`] tells it.
    pub(super) file: Arc<str>,
    /// In bytes.
    pub(super) offset: u64,
}

impl Position {
    pub(super) fn new(file: Arc<str>, offset: u64) -> Position {
        Position { version: VERSION, file, offset }
    }

    /// The kept position; `None` when there is none, or none that can be read.
    pub(super) fn read(path: &Path) -> Option<Position> {
        let text = std::fs::read(path).ok()?;
        let position: Option<Position> = serde_json::from_slice(&text).ok().filter(|position: &Position| position.version == VERSION);
        if position.is_none() {
            tracing::warn!(path = %path.display(), "the kept position cannot be read; the file is read again, and lines that are known already are dropped");
        }
        position
    }

    /// Writes it aside and renames it.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let aside = path.with_extension("new");
        std::fs::write(&aside, serde_json::to_vec(self)?)?;
        std::fs::rename(aside, path)
    }
}

/// Device and inode.
pub(super) fn inode(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|data| (data.dev(), data.ino()))
}

/// Which file this is: the path it is followed by, device and inode, and a hash of its first line, because inodes are
/// used again and a truncated file keeps its own. `None` while its first line is not complete. Stable: record ids are made of it.
pub(super) fn identity(path: &Path, file: &File) -> io::Result<Option<Arc<str>>> {
    let mut head = vec![0; FINGERPRINT];
    let mut filled = 0;
    while let Some(rest) = head.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    let head = head.get(..filled).unwrap_or_default();
    let first_line = match head.iter().position(|b| *b == b'\n') {
        Some(end) => head.get(..end).unwrap_or(head),
        None if filled == FINGERPRINT => head,
        None => return Ok(None),
    };
    let hash = hex(Sha256::digest(first_line).get(..8).unwrap_or_default());
    let (device, inode) = inode(file)?;
    Ok(Some(format!("{}@{device}:{inode}:{hash}", path.display()).into()))
}

/// The file that the position speaks of, under whatever name of its own it has in its folder now (`messages.1`).
pub(super) fn find(path: &Path, position: &Position) -> Option<File> {
    let is_it = |candidate: &Path| {
        let file = File::open(candidate).ok()?;
        let same = identity(path, &file).ok()?? == position.file;
        let long_enough = file.metadata().ok()?.len() >= position.offset;
        (same && long_enough).then_some(file)
    };
    if let Some(file) = is_it(path) {
        return Some(file);
    }
    let name = path.file_name()?.to_string_lossy().into_owned();
    let siblings = std::fs::read_dir(folder(path)).ok()?.take(MAX_SIBLINGS).filter_map(Result::ok);
    let renamed = siblings.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name) && entry.file_type().is_ok_and(|kind| kind.is_file()));
    renamed.map(|entry| entry.path()).find_map(|candidate| is_it(&candidate))
}

/// The folder that a path stands in.
pub(super) fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
