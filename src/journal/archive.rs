//! The spool's archive: segments that are no longer kept as they were written are compressed, one by one, on a thread of their own.
//!
//! `spool/archive/<first seq, 20 digits>.zst` is one segment as a zstd frame, with the modification time of the segment. Stable. It is there
//! whole before the segment goes, so that a crash in between leaves both: then the archived one is read.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use super::durable::write_whole_with;
use super::segment::{Kind, list, list_of};
use crate::model::Span;

/// The folder in the spool's.
pub(super) const FOLDER: &str = "archive";
/// The extension of its files.
const COMPRESSED: &str = "zst";
/// zstd's usual level: log lines shrink to a tenth.
const LEVEL: i32 = 3;

/// Where the segment of the log in `dir` that begins with `first` is archived.
pub(super) fn path_of(dir: &Path, first: u64) -> PathBuf {
    dir.join(FOLDER).join(format!("{first:020}.{COMPRESSED}"))
}

/// Whether a segment's file is compressed.
pub(super) fn is_archived(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == COMPRESSED)
}

/// The segments of a log, archived or not, oldest first, each once: first seq and path.
pub(super) fn list_all(dir: &Path, kind: Kind) -> io::Result<Vec<(u64, PathBuf)>> {
    // In this order: what moves in between is in the second list, and what is in both is whole there.
    let mut segments: BTreeMap<u64, PathBuf> = list(dir, kind)?.into_iter().collect();
    if kind == Kind::Spool {
        segments.extend(list_archived(&dir.join(FOLDER))?);
    }
    Ok(segments.into_iter().collect())
}

fn list_archived(archive: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    match list_of(archive, COMPRESSED) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed,
    }
}

/// Archives what the spool offers, and drops what is beyond the bounds. When it goes, it waits for the segment at hand.
pub(super) struct Archiver {
    archive: PathBuf,
    keep: Duration,
    bytes: u64,
    stop: Arc<AtomicBool>,
    job: Option<JoinHandle<()>>,
}

impl Archiver {
    /// For the spool in `dir`: segments are dropped when they were last written longer than `keep` ago, or when archived ones take more
    /// than `bytes`.
    pub(super) fn new(dir: &Path, keep: Span, bytes: u64) -> Archiver {
        let keep = Duration::from_nanos(u64::try_from(keep.0).unwrap_or(0));
        Archiver { archive: dir.join(FOLDER), keep, bytes, stop: Arc::default(), job: None }
    }

    /// Archives or drops these segments, the oldest first, beside the caller. While it is at work nothing more is taken; what is there
    /// afterwards is to be offered again.
    pub(super) fn take(&mut self, old: Vec<PathBuf>) {
        if self.job.as_ref().is_some_and(|job| !job.is_finished()) || (old.is_empty() && !self.archive.exists()) {
            return;
        }
        let before = SystemTime::now().checked_sub(self.keep).unwrap_or(SystemTime::UNIX_EPOCH);
        let round = Round { archive: self.archive.clone(), before, bytes: self.bytes };
        let stop = Arc::clone(&self.stop);
        let work = move || {
            if let Err(error) = round.run(&old, &stop) {
                tracing::warn!("cannot archive old segments of the spool in {}: {error}; tried again later", round.archive.display());
            }
        };
        match thread::Builder::new().name("opmas-archive".to_owned()).spawn(work) {
            Ok(job) => self.job = Some(job),
            Err(error) => tracing::warn!("cannot start the thread that archives old segments of the spool: {error}; tried again later"),
        }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(job) = self.job.take() {
            // What it could not do it has said, and the next start does it.
            let _ = job.join();
        }
    }
}

/// One pass over what is old. The oldest always goes first, so that what is left has no gap.
struct Round {
    archive: PathBuf,
    before: SystemTime,
    bytes: u64,
}

impl Round {
    fn run(&self, old: &[PathBuf], stop: &AtomicBool) -> io::Result<()> {
        self.trim()?;
        for segment in old {
            let dropped = if fs::metadata(segment)?.modified()? < self.before { Some("age") } else { (self.bytes == 0).then_some("bytes") };
            match dropped.filter(|_| !self.archive.exists() || list_archived(&self.archive).is_ok_and(|files| files.is_empty())) {
                Some(why) => drop_file(segment, why)?,
                None => self.keep(segment).and_then(|()| self.trim())?,
            }
            if stop.load(Ordering::Acquire) {
                break;
            }
        }
        Ok(())
    }

    /// Drops archived segments that are too old, or too many.
    fn trim(&self) -> io::Result<()> {
        let files = list_archived(&self.archive)?.into_iter().map(|(_, path)| fs::metadata(&path).map(|about| (path, about)));
        let files = files.collect::<io::Result<Vec<_>>>()?;
        let mut total: u64 = files.iter().map(|(_, about)| about.len()).sum();
        for (path, about) in files {
            let why = if about.modified()? < self.before { "age" } else { "bytes" };
            if why == "bytes" && total <= self.bytes {
                break;
            }
            drop_file(&path, why)?;
            total = total.saturating_sub(about.len());
        }
        Ok(())
    }

    /// Archives a segment. On a full disk the oldest archived ones make room for it, and without any it goes itself.
    fn keep(&self, segment: &Path) -> io::Result<()> {
        let target = self.archive.join(segment.file_stem().unwrap_or_default()).with_extension(COMPRESSED);
        // One that is there already was whole before a crash kept the segment from going.
        while !target.exists() {
            match compress(segment, &target) {
                Ok(()) => metrics::counter!("opmas_spool_segments_archived_total").increment(1),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => match list_archived(&self.archive)?.first() {
                    Some((_, oldest)) => drop_file(oldest, "full")?,
                    None => return drop_file(segment, "full"),
                },
                Err(error) => return Err(error),
            }
        }
        fs::remove_file(segment)
    }
}

fn drop_file(path: &Path, why: &'static str) -> io::Result<()> {
    fs::remove_file(path)?;
    metrics::counter!("opmas_spool_segments_dropped_total", "why" => why).increment(1);
    Ok(())
}

/// Writes `target` whole; the segment stays.
fn compress(segment: &Path, target: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(target.parent().unwrap_or(Path::new("."))) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut from = File::open(segment)?;
    let modified = from.metadata()?.modified()?;
    let written = write_whole_with(target, |aside| {
        // Header and frames have checksums of their own.
        zstd::stream::copy_encode(&mut from, &mut *aside, LEVEL)?;
        aside.set_modified(modified)
    });
    written.map(drop)
}
