//! The data folder: which version wrote it, who we are, and that only one opmas writes it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use super::durable::{remove_aside, write_whole};
use super::error::OpenError;
use crate::clock;
use crate::model::NodeId;

/// The first word of the `format` file (stable).
const MAGIC: &str = "opmas-data";
/// The format that this opmas writes, the second word of the `format` file.
const VERSION: u32 = 1;
/// Sub-folders, in the order of the flow.
const FOLDERS: [&str; 6] = ["spool", "dead", "ledger", "state", "revisions", "evidence"];
/// Where old segments of the spool are, once there are some.
pub(super) const ARCHIVE: &str = "spool/archive";
/// So often a lock that is held is tried again, since a command that looks whether it is ([`DataDir::is_held`]) holds it for that moment.
const LOOKS: u32 = 3;
/// The pause before each.
const LOOK: Duration = Duration::from_millis(20);
/// `format`, `node` and `lock` are shorter than this; more is not read.
const MAX_SMALL_FILE: u64 = 256;

/// The held lock. It is given up by name, not by closing: a child process between fork and exec has the same file open.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file follows, which is the second best.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// An open data folder. While a writable one lives, and while any log of it is still being written, no other process opens it.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    node: NodeId,
    lock: Option<Arc<Lock>>,
}

impl DataDir {
    /// Opens the folder for writing; makes it (0700) when it is not there or empty. Its parent must be there.
    ///
    /// # Errors
    /// Held by another opmas, not ours, written by a newer or an unknown version, or the file system says no.
    pub fn open(path: &Path) -> Result<DataDir, OpenError> {
        make_folder(path)?;
        if !path.join("format").exists() {
            refuse_foreign(path)?;
        }
        let lock = hold(path)?;
        for folder in FOLDERS.map(|name| path.join(name)) {
            make_folder(&folder)?;
            remove_aside(&folder).map_err(OpenError::io("tidy", &folder))?;
        }
        let archive = path.join(ARCHIVE);
        if archive.exists() {
            remove_aside(&archive).map_err(OpenError::io("tidy", &archive))?;
        }
        let format = path.join("format");
        if format.exists() {
            check_format(&format)?;
        } else {
            create(path)?;
        }
        Ok(DataDir { path: path.to_owned(), node: read_node(path)?, lock: Some(Arc::new(lock)) })
    }

    /// Opens the folder for reading, also while an opmas holds it; changes nothing.
    ///
    /// # Errors
    /// Not there, not ours, or written by a newer or an unknown version.
    pub fn open_read_only(path: &Path) -> Result<DataDir, OpenError> {
        if !path.is_dir() {
            return Err(OpenError::Absent(path.to_owned()));
        }
        let format = path.join("format");
        if !format.exists() {
            return Err(OpenError::NotOurs(path.to_owned()));
        }
        check_format(&format)?;
        Ok(DataDir { path: path.to_owned(), node: read_node(path)?, lock: None })
    }

    /// Who this folder is, in ids of pushed records (O4).
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the spool's segments are.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }

    /// Where the segments of dead letters are; not there in a folder that only older versions had.
    #[must_use]
    pub fn dead(&self) -> PathBuf {
        self.path.join("dead")
    }

    /// Where the ledger's segments are.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.path.join("ledger")
    }

    /// Where checkpoints are.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Where kept revisions are.
    #[must_use]
    pub fn revisions(&self) -> PathBuf {
        self.path.join("revisions")
    }

    /// Where what actions have read is kept.
    #[must_use]
    pub fn evidence(&self) -> PathBuf {
        self.path.join("evidence")
    }

    /// Whether an opmas has it open for writing, or is about to. Takes nothing from it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let Ok(file) = File::open(self.path.join("lock")) else { return false };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                // It is closed next, which is the second best.
                let _ = flock(&file, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }

    /// What a writer keeps for as long as it writes.
    pub(super) fn lock(&self) -> Result<Arc<Lock>, OpenError> {
        self.lock.clone().ok_or_else(|| OpenError::ReadOnly(self.path.clone()))
    }
}

fn make_folder(path: &Path) -> Result<(), OpenError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(OpenError::io("make the folder", path)(error)),
        _ => Ok(()),
    }
}

/// A folder without a `format` file may hold only what an interrupted first start left: else it is somebody else's.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    for entry in fs::read_dir(path).map_err(OpenError::io("read", path))? {
        let name = entry.map_err(OpenError::io("read", path))?.file_name();
        let ours = name.to_str().is_some_and(|n| n == "lock" || n == "node" || n.ends_with(".tmp"));
        let empty = || FOLDERS.iter().any(|f| name == *f) && fs::read_dir(path.join(&name)).is_ok_and(|mut d| d.next().is_none());
        if !ours && !empty() {
            return Err(OpenError::NotOurs(path.to_owned()));
        }
    }
    Ok(())
}

/// Takes the lock, and writes our process id into it for the one who finds it held.
fn hold(path: &Path) -> Result<Lock, OpenError> {
    let lock = path.join("lock");
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&lock).map_err(OpenError::io("open", &lock))?;
    let mut held = flock(&file, FlockOperation::NonBlockingLockExclusive);
    for _ in 0..LOOKS {
        if held.is_err() {
            std::thread::sleep(LOOK);
            held = flock(&file, FlockOperation::NonBlockingLockExclusive);
        }
    }
    match held {
        Ok(()) => {}
        Err(error) if io::Error::from(error).kind() == io::ErrorKind::WouldBlock => {
            let by = read_small(&lock).ok().and_then(|text| text.trim().parse::<u32>().ok()).map_or(String::new(), |pid| format!(" (process {pid})"));
            return Err(OpenError::Held { path: path.to_owned(), by });
        }
        Err(error) => return Err(OpenError::io("lock", &lock)(error.into())),
    }
    let told = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    told.map_err(OpenError::io("write", &lock)).map(|()| Lock(file))
}

/// The first start: `node`, then `format`, so that a folder with a `format` file is complete.
fn create(path: &Path) -> Result<(), OpenError> {
    let node = path.join("node");
    if !node.exists() {
        let name = clock::random_hex::<8>().map_err(OpenError::io("find randomness for", &node))?;
        write_whole(&node, &[name.as_bytes(), b"\n"]).map_err(OpenError::io("write", &node))?;
    }
    let format = path.join("format");
    write_whole(&format, &[format!("{MAGIC} {VERSION}\n").as_bytes()]).map_err(OpenError::io("write", &format))?;
    Ok(())
}

/// Version 1 is the first: there is nothing to migrate from yet, and what is older than it is nothing of ours.
fn check_format(format: &Path) -> Result<(), OpenError> {
    let text = read_small(format).map_err(OpenError::io("read", format))?;
    let version = text.trim().strip_prefix(MAGIC).and_then(|v| v.trim().parse::<u32>().ok());
    match version {
        Some(VERSION) => Ok(()),
        Some(found) if found > VERSION => Err(OpenError::Newer { path: format.to_owned(), found, known: VERSION }),
        _ => Err(OpenError::Unknown { path: format.to_owned(), found: format!("it says `{}`", text.trim().escape_debug()) }),
    }
}

fn read_node(path: &Path) -> Result<NodeId, OpenError> {
    let file = path.join("node");
    let text = read_small(&file).map_err(OpenError::io("read", &file))?;
    let name = text.trim();
    if name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(NodeId(name.into()));
    }
    Err(OpenError::Damaged {
        what: format!("{} is not 16 hexadecimal digits", file.display()),
        remedy: "restore it from a backup: the ids of what was received are made with it",
    })
}

fn read_small(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_SMALL_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
