//! Why the journal could not be opened, appended to or read. Each message is one sentence with the place and the remedy.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a data folder, or a log in it, does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system said no.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was attempted: `make`, `read`, …
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// There is no such folder (read-only opening does not make one).
    #[error("there is no data folder {}", .0.display())]
    Absent(PathBuf),
    /// The folder was opened for reading, so nothing holds it for us.
    #[error("the data folder {} was opened for reading only", .0.display())]
    ReadOnly(PathBuf),
    /// Another process holds the lock.
    #[error("the data folder {} is held by another opmas{by}; stop that one, or give this one a `data_dir` of its own", path.display())]
    Held {
        /// The folder.
        path: PathBuf,
        /// ` (process 1234)` where it is known.
        by: String,
    },
    /// A folder with other things in it.
    #[error("{} has files in it but no `format` file, so it is not an opmas data folder; name a new or empty folder as `data_dir`", .0.display())]
    NotOurs(PathBuf),
    /// The format file, or a log's header, names a version above ours.
    #[error("{} was written by a newer opmas (format {found}; this one reads up to {known}); run that version, or use another `data_dir`", path.display())]
    Newer {
        /// What says so.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The format file names no version that was ever released.
    #[error("{} does not name a version that this opmas can migrate from ({found}); restore the folder from a backup, or use another `data_dir`", path.display())]
    Unknown {
        /// The format file.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// Damage that must not be cut away.
    #[error("{what}; {remedy}")]
    Damaged {
        /// What is wrong, with file and offset.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
}

impl OpenError {
    /// For `map_err`: an I/O error with what was attempted on which path.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
        let path = path.to_owned();
        move |source| OpenError::Io { doing, path, source }
    }
}

/// Why an append was not kept. Nothing of it is in the log, and it may be tried again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk said no: full, read-only, broken.
    #[error("cannot {doing} {}: {source}; nothing of it was kept, and it is tried again with what comes next", path.display())]
    Disk {
        /// What was attempted: `write`, `sync`, …
        doing: &'static str,
        /// The segment.
        path: PathBuf,
        /// The answer.
        source: Arc<io::Error>,
    },
    /// One entry is larger than a frame may be; trying again does not help.
    #[error("an entry of {bytes} bytes is larger than the journal takes (at most {max})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// It has no serialised form; trying again does not help.
    #[error("an entry cannot be serialised: {0}")]
    Encode(String),
    /// The writer has ended (shutdown).
    #[error("the journal's writer has ended")]
    Stopped,
}

impl AppendError {
    /// For `map_err`: a disk error with what was attempted on which path.
    pub(super) fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AppendError {
        let path = path.to_owned();
        move |source| AppendError::Disk { doing, path, source: Arc::new(source) }
    }

    /// Whether the same append can succeed later: so for a disk, not for an entry that is too large.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, AppendError::Disk { .. })
    }
}

/// What a reader met. After [`ReadError::Io`] it ends, after any other it goes on behind the damage.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system said no.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What was read.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// A segment's header does not verify: its records cannot be read.
    #[error("{}:0: the header of this segment is damaged: {what}", file.display())]
    Header {
        /// The segment.
        file: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A segment of a newer format.
    #[error("{} was written by a newer opmas (format {found}; this one reads up to {known})", file.display())]
    Newer {
        /// The segment.
        file: PathBuf,
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Bytes that are no frame, with whole frames or a later segment behind them.
    #[error("{}:{offset}: damaged: records {from} to {to} cannot be read", file.display())]
    Broken {
        /// The segment.
        file: PathBuf,
        /// Where the damage begins.
        offset: u64,
        /// The first record that is lost.
        from: u64,
        /// The last record that is lost.
        to: u64,
    },
    /// A whole frame with a content that does not decode, or that is not what chain and hashes say.
    #[error("{}:{offset}: record {seq}: {what}", file.display())]
    Content {
        /// The segment.
        file: PathBuf,
        /// Where its frame begins.
        offset: u64,
        /// Which record.
        seq: u64,
        /// What is wrong.
        what: String,
    },
    /// Reading was to begin at a record that is no longer kept.
    #[error("record {asked} is asked for, and {} begins with record {oldest}", dir.display())]
    Gone {
        /// The log's folder.
        dir: PathBuf,
        /// Where reading was to begin.
        asked: u64,
        /// What there is.
        oldest: u64,
    },
}

impl ReadError {
    /// For `map_err`.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
        let path = path.to_owned();
        move |source| ReadError::Io { path, source }
    }
}
