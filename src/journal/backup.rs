//! A copy of a data folder, also while an opmas writes it: in an order in which each part holds what those before it follow from.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::datadir::{ARCHIVE, DataDir};
use super::durable::sync_dir;
use super::head::SignedHead;
use super::verify::{Report, verify_checkpoints, verify_dead, verify_evidence, verify_ledger, verify_revisions, verify_spool};

/// A part that is copied while it is tidied may lack something; then it is copied again so often.
const TRIES: usize = 3;
/// What is copied, in this order. Cursors and positions come before what they count in; the ledger before the checkpoints that it names and
/// before the spool that its findings follow from (O5); the spool before its archive, to which segments move; `format` last, since a folder with it is whole.
const PARTS: [&str; 12] = ["published", "positions", "dead", "poison", "ledger", "evidence", "state", "spool", ARCHIVE, "revisions", "node", "format"];
/// Left out unless they are asked for.
const KEYS: &str = "keys";

/// Why there is no copy: one sentence.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The operating system said no.
    #[error("cannot copy {}: {source}", path.display())]
    Io {
        /// What was copied, or made.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Something is where the copy is to be.
    #[error("{} is not empty; name a folder that is not there yet, or an empty one", .0.display())]
    NotEmpty(PathBuf),
    /// The copy does not verify, or what was to be copied does not.
    #[error("{} does not verify: {wrong}", path.display())]
    Wrong {
        /// Which folder.
        path: PathBuf,
        /// The first thing that is wrong.
        wrong: String,
    },
}

impl BackupError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
        let path = path.to_owned();
        move |source| BackupError::Io { path, source }
    }
}

/// Every part of a data folder, verified: its name, what its files and records are called, what was found.
#[must_use]
pub fn verify_all(data: &DataDir) -> [(&'static str, &'static str, &'static str, Report); 6] {
    let ledger = verify_ledger(data, None);
    let checkpoints = verify_checkpoints(data, &ledger.checkpoints);
    [
        ("spool", "segments", "entries", verify_spool(data)),
        ("ledger", "segments", "records", ledger),
        ("checkpoints", "files", "verified", checkpoints),
        ("revisions", "files", "verified", verify_revisions(data)),
        ("dead letters", "segments", "letters", verify_dead(data)),
        ("evidence", "files", "verified", verify_evidence(data)),
    ]
}

/// Copies a data folder to `to` and verifies the copy. Nobody need stop for it. The index is left out, as it is made of the ledger.
///
/// # Errors
/// See [`BackupError`]; what was copied by then has no `format`, and is no data folder.
pub fn backup(data: &DataDir, to: &Path, keys: bool) -> Result<DataDir, BackupError> {
    let mut made = DirBuilder::new();
    match made.mode(0o700).create(to) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(BackupError::io(to)(error)),
        _ => {}
    }
    if fs::read_dir(to).map_err(BackupError::io(to))?.next().is_some() {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    let mut tries = 1;
    loop {
        let parts = PARTS.into_iter().filter(|part| *part != "format").chain(keys.then_some(KEYS)).chain(["format"]);
        parts.into_iter().try_for_each(|part| copy(&data.path().join(part), &to.join(part)))?;
        sync_dir(to).map_err(BackupError::io(to))?;
        let copied = DataDir::open_read_only(to).map_err(|error| wrong(to, error))?;
        match first_wrong(&copied) {
            None => return Ok(copied),
            Some(what) if tries == TRIES => return Err(wrong(to, what)),
            Some(_) => tries += 1,
        }
        fs::remove_dir_all(to).and_then(|()| made.create(to)).map_err(BackupError::io(to))?;
    }
}

/// Copies a backup into a data folder that is not there yet, or empty; it is verified first.
///
/// # Errors
/// See [`BackupError`].
pub fn restore(backup_of: &DataDir, to: &Path) -> Result<DataDir, BackupError> {
    match first_wrong(backup_of) {
        Some(what) => Err(wrong(backup_of.path(), what)),
        None => backup(backup_of, to, true),
    }
}

fn wrong(path: &Path, wrong: impl ToString) -> BackupError {
    BackupError::Wrong { path: path.to_owned(), wrong: wrong.to_string() }
}

fn first_wrong(data: &DataDir) -> Option<String> {
    verify_all(data).into_iter().find_map(|(part, .., report)| report.wrong.first().map(|what| format!("{part}: {what}")))
}

/// A file, or the files of a folder, the oldest first; what is not there is left out, and what an opmas is about to write.
fn copy(from: &Path, to: &Path) -> Result<(), BackupError> {
    let io = |error| BackupError::io(from)(error);
    if !from.is_dir() {
        return copy_file(from, to).map_err(io);
    }
    DirBuilder::new().mode(0o700).create(to).map_err(BackupError::io(to))?;
    let mut names =
        fs::read_dir(from).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()).map_err(io)?;
    // The ledger's head before the records that it is signed over.
    names.sort_unstable_by_key(|name| (name != SignedHead::FILE, name.clone()));
    for name in names {
        let path = from.join(&name);
        let passing = path.extension().is_some_and(|extension| extension == "tmp" || extension == "new");
        if !passing && path.is_file() {
            copy_file(&path, &to.join(&name)).map_err(BackupError::io(&path))?;
        }
    }
    sync_dir(to).map_err(BackupError::io(to))
}

/// What is gone meanwhile was tidied away: the copy is verified afterwards.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = match File::open(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut target = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut source, &mut target)?;
    // How long an archived segment is kept counts from there.
    target.set_modified(source.metadata()?.modified()?)?;
    target.sync_all()
}
