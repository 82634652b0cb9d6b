//! Opening an index, and setting one aside that is not in order.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::draft::{META, Meta};
use super::{Index, IndexError, VERSION, guarded};
use crate::clock;

/// What sled may keep in memory, in bytes; its own default is 1 GiB.
const CACHE: u64 = 16 << 20;
/// How often sled writes what is in memory, in milliseconds. What a crash loses is applied again from the ledger.
const FLUSH_EVERY: u64 = 10_000;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It opens and verifies.
    Ready,
    /// It is new and empty: the ledger is to be applied from its beginning.
    Rebuilt {
        /// Why: there was none, or what is wrong with the one that was there.
        why: String,
    },
}

/// Why there is no index.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{}: another process holds the index", .0.display())]
    Locked(PathBuf),
    /// The system says no, and would say so to another index too.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it says.
        cause: io::Error,
    },
}

/// Why an index that is there is not taken.
enum Refused {
    Open(OpenError),
    Broken(String),
}

impl Index {
    /// Opens the index in this folder; makes it when there is none. One that does not open, is of another version or does not verify
    /// (every row counts) is set aside as `<name>.broken-<time>`, in place of the one that was set aside before.
    ///
    /// # Errors
    /// Another process holds it: try again, or [`Index::replace`] it. Or the file system says no.
    pub fn open(path: &Path) -> Result<(Index, Opened), OpenError> {
        if !path.exists() {
            return Index::replace(path, "there was none");
        }
        match existing(path) {
            Ok(index) => Ok((index, Opened::Ready)),
            Err(Refused::Broken(why)) => Index::replace(path, &why),
            Err(Refused::Open(error)) => Err(error),
        }
    }

    /// Sets aside what is there, and makes an empty index.
    ///
    /// # Errors
    /// The file system says no.
    pub fn replace(path: &Path, why: &str) -> Result<(Index, Opened), OpenError> {
        set_aside(path).map_err(|cause| OpenError::Io { path: path.to_owned(), cause })?;
        let opened = Opened::Rebuilt { why: why.to_owned() };
        match store(path) {
            Ok(db) => Ok((Index { path: path.to_owned(), db, meta: Meta::default() }, opened)),
            Err(Refused::Open(error)) => Err(error),
            Err(Refused::Broken(why)) => Err(OpenError::Io { path: path.to_owned(), cause: io::Error::other(why) }),
        }
    }

    /// Gives this one up for an empty one.
    ///
    /// # Errors
    /// The file system says no.
    pub fn anew(self, why: &str) -> Result<(Index, Opened), OpenError> {
        let path = self.path.clone();
        drop(self);
        Index::replace(&path, why)
    }
}

fn existing(path: &Path) -> Result<Index, Refused> {
    let db = store(path)?;
    let broken = |error: IndexError| Refused::Broken(error.to_string());
    let meta = guarded(|| Ok(db.get(META)?.map(|meta| serde_json::from_slice::<Meta>(&meta)).transpose()?)).map_err(broken)?;
    let Some(meta) = meta else { return Err(Refused::Broken("it is empty".to_owned())) };
    if meta.version != VERSION {
        return Err(Refused::Broken(format!("it is of version {}, and this opmas writes version {VERSION}", meta.version)));
    }
    match guarded(|| meta.describes(db.iter())).map_err(broken)? {
        true => Ok(Index { path: path.to_owned(), db, meta }),
        false => Err(Refused::Broken("its rows are not those that were written".to_owned())),
    }
}

fn store(path: &Path) -> Result<sled::Db, Refused> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(Some(FLUSH_EVERY));
    guarded(|| Ok(config.open()?)).map_err(|error| match error {
        IndexError::Store(sled::Error::Io(cause)) if cause.to_string().contains("could not acquire lock") => Refused::Open(OpenError::Locked(path.to_owned())),
        IndexError::Store(sled::Error::Io(cause)) if outside(cause.kind()) => Refused::Open(OpenError::Io { path: path.to_owned(), cause }),
        other => Refused::Broken(other.to_string()),
    })
}

/// Errors that do not come from what is in the files.
fn outside(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(kind, PermissionDenied | StorageFull | QuotaExceeded | ReadOnlyFilesystem)
}

/// Renames the folder, in place of the one that was set aside before.
fn set_aside(path: &Path) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else { return Ok(()) };
    if !path.exists() {
        return Ok(());
    }
    let broken = format!("{name}.broken-");
    for before in fs::read_dir(folder)?.flatten() {
        if before.file_name().to_str().is_some_and(|name| name.starts_with(&broken)) {
            fs::remove_dir_all(before.path())?;
        }
    }
    fs::rename(path, folder.join(format!("{broken}{}", clock::now().0)))
}
