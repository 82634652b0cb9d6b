//! Which file it is, and how far it was read: kept once the fsync that covers it is done (O3).
//!
//! A redelivered line is recognised by its id (O4), so that losing this file costs reading again, nothing else.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::content::{Content, FINGERPRINT};
use crate::model::hex;

/// The format of the kept file (stable). The first had no `tail` and no `done`; a newer one is not read.
const VERSION: u32 = 2;
/// Files of a folder that are looked at for those that were rotated.
const MAX_SIBLINGS: usize = 4096;
/// Files that were read to their end and are remembered, so that none is read twice.
const MAX_DONE: usize = 64;

/// How far a file was read: everything before `offset` is in the spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// As [`identity`] tells it.
    pub(super) file: Arc<str>,
    /// In bytes, of what was compressed where it is a compressed file.
    pub(super) offset: u64,
    /// A hash of what stands before it: a copy is known by it. Empty where format 1 did not say.
    #[serde(default)]
    tail: Arc<str>,
}

impl Place {
    pub(super) fn new(file: Arc<str>, offset: u64, tail: &[u8]) -> Place {
        Place { file, offset, tail: short_hash(tail).into() }
    }

    /// The beginning of its file.
    pub(super) fn start(&self) -> Place {
        Place { offset: 0, ..self.clone() }
    }

    /// The content of the file `at` behind this place, when the place is of it, and what stands before it. It is known by its first line
    /// and by what stands before the place; `same`: by its inode too, which a copy and a compressed file do not have.
    pub(super) fn of(&self, at: &Path, followed: &Path, same: bool) -> io::Result<Option<(Content, Vec<u8>)>> {
        let mut content = Content::open(at, followed)?;
        let Some(own) = identity(followed, &content)? else { return Ok(None) };
        let numbered = self.file.rsplit_once('~').filter(|(_, number)| number.bytes().all(|b| b.is_ascii_digit()));
        let name = numbered.map_or(&*self.file, |(name, _)| name);
        let hash = |identity: &str| identity.rsplit(':').next().map(str::to_owned);
        let copied = !same && !self.tail.is_empty() && hash(&own) == hash(name);
        if *own != *name && !copied {
            return Ok(None);
        }
        let tail = content.seek(self.offset)?.filter(|tail| self.tail.is_empty() || short_hash(tail) == *self.tail);
        Ok(tail.map(|tail| (content, tail)))
    }
}

/// Where reading goes on. Stored as JSON (stable).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    version: u32,
    /// In the file that is being read.
    #[serde(flatten)]
    pub(super) place: Place,
    /// The first lines of the file are on their way: they may not be in the spool yet, and are read again. The place says which file it is.
    #[serde(default)]
    pub(super) begun: bool,
    /// The ends of those that were read before it, the newest last.
    #[serde(default)]
    pub(super) done: Vec<Place>,
}

impl Position {
    pub(super) fn new(place: Place, done: &[Place]) -> Position {
        Position { version: VERSION, place, begun: false, done: done.to_vec() }
    }

    /// The first lines up to here are on their way.
    pub(super) fn begun(self) -> Position {
        Position { begun: true, ..self }
    }

    /// Nothing was read yet: what is rotated from now on is to be read.
    pub(super) fn none() -> Position {
        Position::new(Place::default(), &[])
    }

    /// The kept position; `None` when there is none, or none that can be read.
    pub(super) fn read(path: &Path) -> Option<Position> {
        let text = std::fs::read(path).ok()?;
        let position: Option<Position> = serde_json::from_slice(&text).ok().filter(|position: &Position| position.version <= VERSION);
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

fn short_hash(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).get(..8).unwrap_or_default())
}

/// Which file this is: the path it is followed by, device and inode, and a hash of its first line, because inodes are
/// used again and a truncated file keeps its own. `None` while its first line is not complete. Stable: record ids are made of it.
pub(super) fn identity(path: &Path, content: &Content) -> io::Result<Option<Arc<str>>> {
    let head = content.head()?;
    let first_line = match head.iter().position(|b| *b == b'\n') {
        Some(end) => head.get(..end).unwrap_or(&head),
        None if head.len() == FINGERPRINT => &head,
        None => return Ok(None),
    };
    let (device, inode) = content.inode()?;
    Ok(Some(format!("{}@{device}:{inode}:{}", path.display(), short_hash(first_line)).into()))
}

/// The same for a file of which nothing was read: where one of those before had this inode and this first line too, it gets a number.
pub(super) fn fresh(identity: Arc<str>, done: &[Place]) -> Arc<str> {
    let taken = |name: &str| done.iter().any(|place| *place.file == *name);
    if !taken(&identity) {
        return identity;
    }
    (1..=MAX_DONE + 1).map(|n| Arc::from(format!("{identity}~{n}"))).find(|name: &Arc<str>| !taken(name)).unwrap_or(identity)
}

/// The content behind a place, under whatever name it has in its folder now (`messages`, `messages.1`); else that of a copy of it
/// (`messages.2.gz`).
pub(super) fn find(path: &Path, place: &Place) -> Option<(Content, Vec<u8>)> {
    let siblings = siblings(path);
    let is_it = |at: &Path, same| place.of(at, path, same).ok()?;
    let same = is_it(path, true).or_else(|| siblings.iter().find_map(|at| is_it(at, true)));
    same.or_else(|| siblings.iter().find_map(|at| is_it(at, false))).or_else(|| is_it(path, false))
}

/// Remembers an end. Of a file only the furthest place counts, else another file with the same first line would begin at a nearer one.
pub(super) fn remember(done: &mut Vec<Place>, place: Place) {
    done.retain(|one| one.file != place.file);
    done.push(place);
    done.drain(..done.len().saturating_sub(MAX_DONE));
}

/// Up to where rotated files were read: those that were written to later are still to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Since {
    /// When the one that was read last was written last.
    at: SystemTime,
    /// Device and inode of those of this very time that were read: file systems count time in ticks.
    taken: Vec<(u64, u64)>,
}

impl Since {
    pub(super) fn new(at: SystemTime) -> Since {
        Since { at, taken: Vec::new() }
    }

    /// A file was read that was written last at this time.
    pub(super) fn take(since: &mut Option<Since>, at: SystemTime, inode: (u64, u64)) {
        let since = since.get_or_insert_with(|| Since::new(at));
        if since.at != at {
            *since = Since::new(at);
        }
        since.taken.push(inode);
    }

    fn is_before(&self, rotated: &Rotated) -> bool {
        rotated.at > self.at || rotated.at == self.at && !self.taken.contains(&rotated.inode)
    }
}

/// A file that the followed one has become.
#[derive(Debug)]
pub(super) struct Rotated {
    /// When it was written last.
    pub(super) at: SystemTime,
    /// Device and inode.
    pub(super) inode: (u64, u64),
    pub(super) path: PathBuf,
}

/// The files that the followed one became by rotation and that were written to after `since`, the oldest first: `messages.1`,
/// `messages-20260101.gz`, `app.2.log`.
pub(super) fn rotated_since(path: &Path, since: &Since) -> Vec<Rotated> {
    let is_rotated =
        |sibling: &Path| sibling.file_name().zip(path.file_name()).is_some_and(|(name, of)| is_rotated(&name.to_string_lossy(), &of.to_string_lossy()));
    let rotated = |path: PathBuf| {
        let about = path.metadata().ok()?;
        Some(Rotated { at: about.modified().ok()?, inode: (about.dev(), about.ino()), path })
    };
    let mut newer: Vec<_> = siblings(path).into_iter().filter(|sibling| is_rotated(sibling)).filter_map(rotated).filter(|one| since.is_before(one)).collect();
    // Of two of one tick the higher number is the older.
    let number = |one: &Rotated| {
        let name = one.path.to_string_lossy().trim_end_matches(".gz").to_owned();
        std::cmp::Reverse((name.len(), name))
    };
    newer.sort_by_cached_key(|one| (one.at, number(one)));
    newer
}

/// Whether this is the name of a file that was called `of`, and has been numbered or dated: at its end, or before its extension.
fn is_rotated(name: &str, of: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    let numbered = |rest: &str| rest.len() > 1 && rest.starts_with(['.', '-', '_']) && rest.chars().all(|c| c.is_ascii_digit() || ".-_T".contains(c));
    let inside = of.rsplit_once('.').and_then(|(stem, extension)| name.strip_prefix(stem)?.strip_suffix(extension)?.strip_suffix('.'));
    name.strip_prefix(of).is_some_and(numbered) || inside.is_some_and(numbered)
}

/// Files beside it whose name begins as its own. One that is being compressed is there twice: then it is the one that is whole.
fn siblings(path: &Path) -> Vec<PathBuf> {
    let Some(own) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { return Vec::new() };
    let stem = own.rsplit_once('.').map_or(&*own, |(stem, _)| stem);
    let files = std::fs::read_dir(folder(path)).into_iter().flatten().take(MAX_SIBLINGS).filter_map(Result::ok);
    let named = files.filter(|entry| entry.file_name().to_string_lossy().starts_with(stem) && entry.file_name() != *own);
    let mut found: Vec<PathBuf> = named.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).map(|entry| entry.path()).collect();
    let whole = found.clone();
    found.retain(|file| file.extension().is_none_or(|extension| extension != "gz") || !whole.contains(&file.with_extension("")));
    found.sort_unstable();
    found
}

/// The folder that a path stands in.
pub(super) fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotated_files_are_told_from_other_logs() {
        for name in ["app.log.1", "app.log.12.gz", "app.log-20260101", "app.log-2026-01-01T10.gz", "app.1.log", "app-20260101.log.gz"] {
            assert!(is_rotated(name, "app.log"), "{name}");
        }
        for name in ["app.log", "app.log.gz", "app-errors.log", "app.log.bak", "app.log.", "app2.log", "app.log.1.tmp"] {
            assert!(!is_rotated(name, "app.log"), "{name}");
        }
        assert!(is_rotated("messages.2.gz", "messages") && !is_rotated("messages-old", "messages"));
    }

    #[test]
    fn a_position_of_format_1_is_read_and_one_of_a_newer_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept.json");
        std::fs::write(&kept, r#"{"version":1,"file":"/a@1:2:00","offset":7}"#).unwrap();
        let position = Position::read(&kept).unwrap();
        assert_eq!((&*position.place.file, position.place.offset, &*position.place.tail, position.done.len()), ("/a@1:2:00", 7, "", 0));
        let place = Place::new("/a@1:2:00".into(), 7, b"before");
        let position = Position::new(place.clone(), &[place]);
        position.write(&kept).unwrap();
        assert_eq!(Position::read(&kept).unwrap(), position);
        std::fs::write(&kept, r#"{"version":3,"file":"/a@1:2:00","offset":7}"#).unwrap();
        assert_eq!(Position::read(&kept), None);
    }

    #[test]
    fn one_inode_with_one_first_line_is_as_many_files_as_were_read() {
        let place = |name: &str| Place::new(name.into(), 1, b"");
        assert_eq!(&*fresh("a".into(), &[]), "a");
        assert_eq!(&*fresh("a".into(), &[place("a"), place("b"), place("a~1")]), "a~2");
    }
}
