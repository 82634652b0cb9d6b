//! Rules, extractors and the inventory as revisions: kept copies of their files, named in the spool where they go live (O2).

use std::io;
use std::sync::Arc;

use super::detection::{Live, kind_key};
use crate::config::{self, Part};
use crate::diag::SourceFile;
use crate::journal::Revisions;
use crate::model::{Inventory, Revision, RevisionKind};

/// Files as the kept copy of a revision has them: JSON, a list of name and text (stable); the inventory is JSON as well (stable).
///
/// # Errors
/// As [`Revisions::keep`].
fn keep_files(revisions: &Revisions, kind: RevisionKind, files: &[SourceFile]) -> io::Result<Revision> {
    let pairs: Vec<(&str, &str)> = files.iter().map(|file| (&*file.name, &*file.text)).collect();
    keep(revisions, kind, &serde_json::to_vec(&pairs)?)
}

fn keep(revisions: &Revisions, kind: RevisionKind, content: &[u8]) -> io::Result<Revision> {
    revisions.keep(content).map(|hash| Revision { kind, hash: hash.into() })
}

/// What a revision brings.
pub(super) enum Content {
    /// Rule files.
    Rules(Vec<SourceFile>),
    /// Extractor files.
    Extractors(Vec<SourceFile>),
    /// The devices.
    Inventory(Inventory),
}

/// Reads a revision's kept copy.
///
/// # Errors
/// The copy is gone or damaged.
pub(super) fn read(revisions: &Revisions, revision: &Revision) -> io::Result<Content> {
    let bytes = revisions.read(&revision.hash)?;
    let files = || -> io::Result<Vec<SourceFile>> {
        let pairs: Vec<(Arc<str>, Arc<str>)> = serde_json::from_slice(&bytes)?;
        Ok(pairs.into_iter().map(|(name, text)| SourceFile { name, text }).collect())
    };
    Ok(match revision.kind {
        RevisionKind::Rules => Content::Rules(files()?),
        RevisionKind::Extractors => Content::Extractors(files()?),
        RevisionKind::Inventory => Content::Inventory(serde_json::from_slice(&bytes)?),
    })
}

/// The files of a revision.
///
/// # Errors
/// The copy is gone or damaged, or holds no files.
pub(super) fn files(revisions: &Revisions, revision: &Revision) -> io::Result<Vec<SourceFile>> {
    match read(revisions, revision)? {
        Content::Rules(files) | Content::Extractors(files) => Ok(files),
        Content::Inventory(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Keeps copies of what is configured, and gives the revisions that differ from what is live, in the order in which they go live.
///
/// # Errors
/// As [`Revisions::keep`].
pub(super) fn new_revisions(configured: &config::Content, kept: &Revisions, live: &Live) -> io::Result<Vec<Revision>> {
    let all = [
        keep_files(kept, RevisionKind::Extractors, configured.good(Part::Extractors))?,
        keep(kept, RevisionKind::Inventory, &serde_json::to_vec(&*configured.inventory)?)?,
        keep_files(kept, RevisionKind::Rules, configured.good(Part::Rules))?,
    ];
    Ok(all.into_iter().filter(|revision| live.get(&kind_key(revision.kind)) != Some(revision)).collect())
}
