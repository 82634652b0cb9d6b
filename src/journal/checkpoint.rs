//! Checkpoints: computed state, so that recovery need not read the whole spool. The ledger says which one counts.
//!
//! ```text
//!  0  8  magic: OPMCHKPT        10  2  zero                     20 32  SHA-256 of what follows
//!  8  2  format version, 2      12  8  seq that it covers       52  n  body, zstd (format 1: as it is)
//! ```
//! Integers are little-endian. Stable; what the body says is its writer's affair.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::datadir::DataDir;
use super::durable::write_whole;
use crate::model::{Decided, hex};

const MAGIC: &[u8; 8] = b"OPMCHKPT";
const VERSION: u16 = 2;
/// The format whose body is not compressed.
const PLAIN: u16 = 1;
const HEADER: usize = 52;
/// The largest body: a million groups take 2 GB.
const MAX_BODY: usize = 4 << 30;
/// The largest file that is written or read.
const MAX_CHECKPOINT: usize = 2 << 30;
/// The quickest of zstd's usual levels: what correlation remembers shrinks to a tenth at any of them.
const LEVEL: i32 = 1;

/// A checkpoint as the ledger names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRef {
    /// Its file name in `state/`.
    pub name: Arc<str>,
    /// SHA-256 of the file, hexadecimal.
    pub hash: Arc<str>,
    /// The last spool entry that it covers.
    pub seq: u64,
}

impl CheckpointRef {
    /// The checkpoint that a ledger payload names, if it names one.
    #[must_use]
    pub fn of(decided: &Decided) -> Option<CheckpointRef> {
        match decided {
            Decided::Checkpoint { name, hash, seq, .. } => Some(CheckpointRef { name: name.clone(), hash: hash.clone(), seq: *seq }),
            _ => None,
        }
    }
}

/// A checkpoint that verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedCheckpoint {
    /// Which one.
    pub checkpoint: CheckpointRef,
    /// Its content.
    pub body: Vec<u8>,
    /// Newer ones that were passed over, with why: one sentence each.
    pub passed_over: Vec<String>,
}

/// The folder `state/`: written by one task, blocking.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    dir: PathBuf,
    /// The one that the ledger names last.
    confirmed: Option<CheckpointRef>,
}

impl Checkpoints {
    /// The checkpoints of a data folder.
    #[must_use]
    pub fn new(data: &DataDir) -> Checkpoints {
        Checkpoints { dir: data.state(), confirmed: None }
    }

    /// Writes a checkpoint that covers the spool up to `seq`, durably. It counts once the ledger names it: then call [`Checkpoints::confirm`].
    ///
    /// # Errors
    /// It is larger than a checkpoint may be, or the file system says no; then nothing is left of it.
    pub fn write(&self, seq: u64, body: &[u8]) -> io::Result<CheckpointRef> {
        let too_large = |bytes: usize, max: usize| io::Error::new(io::ErrorKind::FileTooLarge, format!("a checkpoint of {bytes} bytes is larger than {max}"));
        if body.len() > MAX_BODY {
            return Err(too_large(body.len(), MAX_BODY));
        }
        let body = zstd::bulk::compress(body, LEVEL)?;
        if body.len() > MAX_CHECKPOINT {
            return Err(too_large(body.len(), MAX_CHECKPOINT));
        }
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0, 0]);
        header.extend_from_slice(&seq.to_le_bytes());
        header.extend_from_slice(&Sha256::digest(&body));
        let hash = hex(&Sha256::new().chain_update(&header).chain_update(&body).finalize());
        let name = format!("{seq:020}-{}.checkpoint", hash.get(..16).unwrap_or_default());
        write_whole(&self.dir.join(&name), &[&header, &body])?;
        Ok(CheckpointRef { name: name.into(), hash: hash.into(), seq })
    }

    /// The ledger now durably names this one: it and the one confirmed before are kept, all others removed. Gives the spool place that
    /// recovery may have to read from, for [`super::SpoolHandle::retain_from`].
    pub fn confirm(&mut self, checkpoint: &CheckpointRef) -> u64 {
        let before = self.confirmed.replace(checkpoint.clone());
        let kept = [Some(checkpoint), before.as_ref()];
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if is_checkpoint(&entry.path()) && !kept.iter().flatten().any(|k| name == *k.name) {
                // What stays costs only space, until the next time.
                let _ = fs::remove_file(entry.path());
            }
        }
        before.map_or(0, |before| before.seq.saturating_add(1))
    }

    /// The newest of these that verifies; `candidates` as the ledger names them, in its order. It counts as confirmed.
    pub fn newest_valid(&mut self, candidates: &[CheckpointRef]) -> Option<LoadedCheckpoint> {
        let mut passed_over = Vec::new();
        for checkpoint in candidates.iter().rev() {
            match load(&self.dir, checkpoint) {
                Ok(body) => {
                    self.confirmed = Some(checkpoint.clone());
                    return Some(LoadedCheckpoint { checkpoint: checkpoint.clone(), body, passed_over });
                }
                Err(why) if passed_over.len() < MAX_PASSED_OVER => passed_over.push(why),
                Err(_) => {}
            }
        }
        None
    }
}

/// Sentences about passed over checkpoints: the ledger names all that there ever were, and two are kept.
const MAX_PASSED_OVER: usize = 4;

fn is_checkpoint(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "checkpoint")
}

/// Reads and checks one checkpoint; the error is one sentence with the place.
pub(super) fn load(dir: &Path, checkpoint: &CheckpointRef) -> Result<Vec<u8>, String> {
    if checkpoint.name.contains('/') || !is_checkpoint(checkpoint.name.as_ref().as_ref()) {
        return Err(format!("`{}` is not the name of a checkpoint", checkpoint.name));
    }
    let path = dir.join(&*checkpoint.name);
    let wrong = |what: &str| format!("{}: {what}", path.display());
    let mut file = Vec::new();
    let limit = (HEADER + MAX_CHECKPOINT) as u64;
    File::open(&path).and_then(|f| f.take(limit).read_to_end(&mut file)).map_err(|error| wrong(&format!("cannot read it: {error}")))?;
    if hex(&Sha256::digest(&file)) != *checkpoint.hash {
        return Err(wrong("it is not the file that the ledger has the hash of"));
    }
    let (Some(header), Some(body)) = (file.get(..HEADER), file.get(HEADER..)) else { return Err(wrong("it is shorter than a checkpoint")) };
    let version = header.get(8..10).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes));
    if !header.starts_with(MAGIC) || !(PLAIN..=VERSION).contains(&version) {
        return Err(wrong("it is not a checkpoint of a format that this opmas reads"));
    }
    if header.get(12..20) != Some(&checkpoint.seq.to_le_bytes()) || header.get(20..52) != Some(&Sha256::digest(body)[..]) {
        return Err(wrong("its header does not fit its body"));
    }
    if version == PLAIN {
        return Ok(body.to_vec());
    }
    let mut whole = Vec::new();
    let decoder = zstd::stream::read::Decoder::new(body);
    let read = decoder.and_then(|decoder| decoder.take(MAX_BODY as u64 + 1).read_to_end(&mut whole));
    match read {
        Ok(bytes) if bytes <= MAX_BODY => Ok(whole),
        Ok(_) => Err(wrong("it is larger than a checkpoint may be")),
        Err(error) => Err(wrong(&format!("it cannot be decompressed: {error}"))),
    }
}
