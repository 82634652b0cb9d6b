//! The ledger's retention: whole segments go, behind an anchor that carries their chain hash, after what is alive was written again.

use std::fs;
use std::path::{Path, PathBuf};

use super::chain::LedgerHash;
use super::durable::sync_dir;
use super::error::{AppendError, ReadError};
use super::ledger::Ledger;
use super::segment::{Kind, SegmentReader, header_error, list};
use crate::clock;
use crate::model::{Decided, Time};

/// Segments that may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Old {
    /// The last record of them.
    pub until: u64,
    hash: LedgerHash,
    files: Vec<PathBuf>,
}

/// The segments whose records were all written before `before`: each ends where the next was made.
fn old(dir: &Path, before: Time) -> Result<Option<Old>, ReadError> {
    let segments = list(dir, Kind::Ledger).map_err(ReadError::io(dir))?;
    let mut found: Option<Old> = None;
    for pair in segments.windows(2) {
        let [(_, file), (first, next)] = pair else { continue };
        let header = SegmentReader::open(next, Kind::Ledger, u64::MAX).map_err(|fault| header_error(next, fault))?.header;
        let Ok(hash) = header.carried.as_slice().try_into().map(LedgerHash) else { break };
        if header.created >= before {
            break;
        }
        let mut files = found.map_or_else(Vec::new, |old| old.files);
        files.push(file.clone());
        found = Some(Old { until: first - 1, hash, files });
    }
    Ok(found)
}

impl Ledger {
    /// The segments that hold nothing from `before` on; `None` when there are none.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn old(&self, before: Time) -> Result<Option<Old>, ReadError> {
        old(&self.dir, before)
    }

    /// Appends an anchor and `alive`, in one batch, and removes the old segments. Nothing else may be appended between the reading that
    /// `alive` is of and this. A crash in between leaves segments that go the next time.
    ///
    /// # Errors
    /// As [`Ledger::append`]; then nothing is removed.
    pub async fn drop_old(&self, old: Old, alive: Vec<Decided>) -> Result<usize, AppendError> {
        let anchor = Decided::Anchor { until: old.until, hash: old.hash.to_string().into(), carried: alive.len() as u64, at: clock::now() };
        self.append([vec![anchor], alive].concat()).await?;
        let mut dropped = 0;
        // The oldest first: what is left always begins behind what is gone.
        for file in &old.files {
            fs::remove_file(file).map_err(AppendError::disk("drop", file))?;
            dropped += 1;
        }
        sync_dir(&self.dir).map_err(AppendError::disk("sync", &self.dir))?;
        Ok(dropped)
    }
}
