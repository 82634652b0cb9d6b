//! How far a log was published: a small file of its own, written aside and renamed once the broker has acknowledged.
//!
//! Without it publishing begins anew with the oldest record that is kept: what is published twice is known by its id, what is left out
//! is not.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::model::Revision;

/// The format of the file (stable); one of another version is not read.
const VERSION: u32 = 1;
/// Such a file is shorter than this; more is not read.
const MAX_FILE: u64 = 4_096;

/// A place in a log: everything up to `seq` was published, or is known to be lost. JSON (stable).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    version: u32,
    /// The last record; 0 before the first.
    pub seq: u64,
    /// What tells the log from another with the same places: of the ledger the chain hash at `seq`. Empty where there is none.
    #[serde(default)]
    pub hash: String,
    /// The newest record that was gone before it could be published; 0 when none was.
    #[serde(default)]
    pub gap: u64,
    /// The revisions that were live at `seq`, by kind and hash, where records are normalised.
    #[serde(default)]
    pub revisions: Vec<Revision>,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A cursor.
    Cursor(Cursor),
    /// No file: nothing was published yet, or it was removed.
    Nothing,
    /// A file that cannot be used, and why.
    Unreadable(String),
}

impl Cursor {
    /// At a place of the ledger.
    #[must_use]
    pub fn of_ledger(seq: u64, hash: String, gap: u64) -> Cursor {
        Cursor { version: VERSION, seq, hash, gap, revisions: Vec::new() }
    }

    /// At a place of the spool, with the revisions that are live there.
    #[must_use]
    pub fn of_spool(seq: u64, revisions: Vec<Revision>) -> Cursor {
        Cursor { version: VERSION, seq, hash: String::new(), gap: 0, revisions }
    }

    /// Where the cursor of a way out is kept in a data folder: `published/WAY.json`.
    #[must_use]
    pub fn path(data: &Path, way: &str) -> PathBuf {
        data.join("published").join(format!("{way}.json"))
    }

    /// Reads one. Blocking.
    #[must_use]
    pub fn read(path: &Path) -> Found {
        let mut text = Vec::new();
        match File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => return Found::Unreadable(error.to_string()),
            Ok(_) => {}
        }
        match serde_json::from_slice::<Cursor>(&text) {
            Ok(cursor) if cursor.version == VERSION => Found::Cursor(cursor),
            Ok(cursor) => Found::Unreadable(format!("it has version {}, this opmas reads {VERSION}", cursor.version)),
            Err(error) => Found::Unreadable(error.to_string()),
        }
    }

    /// Writes it aside, syncs and renames it. The folder is made when it is not there. The name is not synced: with the one before, what
    /// it is behind is published again, and a sync less holds spool and ledger up. Blocking.
    ///
    /// # Errors
    /// The file system says no; then the one before stays.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let aside = path.with_extension("tmp");
        let mut file = File::create(&aside)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    }
}
