//! Kept copies of what went live (semantics O2) and of what actions have read: `revisions/<SHA-256 of the content, hexadecimal>`, `evidence/…`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::datadir::DataDir;
use super::durable::write_whole;
use crate::clock;
use crate::model::hex;

/// The largest revision that is kept: a whole set of rules or extractors, or an inventory.
const MAX_REVISION: usize = 64 << 20;
/// Most bytes of evidence in all, and of revisions: what was kept longest ago goes first. What is live was kept last, at the start or the last
/// reload.
const MAX_EVIDENCE: u64 = 256 << 20;
const MAX_REVISIONS: u64 = 1 << 30;
/// What a small piece counts for, so that there are not too many.
const BLOCK: u64 = 4096;

/// The folder `revisions/`, or `evidence/`. Blocking.
#[derive(Clone, Debug)]
pub struct Revisions {
    dir: PathBuf,
    most: u64,
    /// Counts what is taken away.
    count: fn(),
}

impl Revisions {
    /// The revisions of a data folder.
    #[must_use]
    pub fn new(data: &DataDir) -> Revisions {
        Revisions { dir: data.revisions(), most: MAX_REVISIONS, count: || metrics::counter!("opmas_revisions_dropped_total").increment(1) }
    }

    /// The evidence of a data folder.
    #[must_use]
    pub fn evidence(data: &DataDir) -> Revisions {
        Revisions { dir: data.evidence(), most: MAX_EVIDENCE, count: || metrics::counter!("opmas_evidence_dropped_total").increment(1) }
    }

    /// Keeps a copy, durably, and gives its hash. A copy that is there already and verifies is only marked as kept now. Beyond the bound,
    /// what was kept longest ago is taken away.
    ///
    /// # Errors
    /// It is larger than a revision may be, or the file system says no.
    pub fn keep(&self, content: &[u8]) -> io::Result<String> {
        if content.len() > MAX_REVISION {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("a revision of {} bytes is larger than {MAX_REVISION}", content.len())));
        }
        let hash = hex(&Sha256::digest(content));
        let path = self.dir.join(&hash);
        match self.read(&hash) {
            Ok(_) => File::open(path)?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(clock::now().0.unsigned_abs()))?,
            Err(_) => self.make_room(write_whole(&path, &[content])?)?,
        }
        Ok(hash)
    }

    /// Takes away what was kept longest ago, down to the bound; never this one.
    fn make_room(&self, kept: File) -> io::Result<()> {
        let kept = kept.metadata()?.ino();
        let (mut files, mut bytes) = (Vec::new(), 0);
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // What was being written, or was taken away, meanwhile is no more.
            if let Ok(about) = entry.metadata() {
                bytes += about.len().max(BLOCK);
                files.push((about.modified()?, about.len().max(BLOCK), about.ino(), entry.path()));
            }
        }
        files.sort_unstable();
        for (_, size, _, path) in files.iter().filter(|(_, _, inode, _)| *inode != kept) {
            if bytes <= self.most {
                break;
            }
            match fs::remove_file(path) {
                Ok(()) => (self.count)(),
                // Another task that keeps something was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            bytes -= size;
        }
        Ok(())
    }

    /// Reads a kept copy.
    ///
    /// # Errors
    /// `hash` is not 64 hexadecimal digits, there is no such copy, or its content has another hash.
    pub fn read(&self, hash: &str) -> io::Result<Vec<u8>> {
        let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(invalid(format!("`{}` is not the hash of a revision", hash.escape_debug())));
        }
        let path = self.dir.join(hash);
        let mut content = Vec::new();
        File::open(&path)?.take(MAX_REVISION as u64 + 1).read_to_end(&mut content)?;
        if hex(&Sha256::digest(&content)) != hash {
            return Err(invalid(format!("{}: its content has another hash than its name says", path.display())));
        }
        Ok(content)
    }

    /// The hashes of all kept copies, sorted.
    pub(super) fn all(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.dir)?.map(|entry| entry.map(|e| e.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<_>>>()?;
        // Those are still being written.
        names.retain(|name| !name.ends_with(".tmp"));
        names.sort_unstable();
        Ok(names)
    }
}
