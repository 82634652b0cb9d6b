//! Rules, extractors and the inventory as revisions: kept copies of their files, named in the spool where they go live (O2).

use std::io;
use std::sync::Arc;

use super::detection::{Live, kind_key};
use crate::diag::SourceFile;
use crate::journal::Revisions;
use crate::model::{EntryBody, Inventory, Revision, RevisionKind};

/// Files as the kept copy of a revision has them: JSON, a list of name and text (stable).
///
/// # Errors
/// As [`Revisions::keep`].
fn keep_files(revisions: &Revisions, kind: RevisionKind, files: &[SourceFile]) -> io::Result<Revision> {
    let pairs: Vec<(&str, &str)> = files.iter().map(|file| (&*file.name, &*file.text)).collect();
    keep(revisions, kind, &serde_json::to_vec(&pairs)?)
}

/// The inventory as JSON (stable).
///
/// # Errors
/// As [`Revisions::keep`].
pub(super) fn keep_inventory(revisions: &Revisions, inventory: &Inventory) -> io::Result<Revision> {
    keep(revisions, RevisionKind::Inventory, &serde_json::to_vec(inventory)?)
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

/// What is configured now goes live where it differs from what the spool has.
pub(super) struct Configured<'a> {
    pub(super) rules: &'a [SourceFile],
    pub(super) extractors: &'a [SourceFile],
    pub(super) inventory: &'a Inventory,
}

impl Configured<'_> {
    /// Keeps copies; extractors first, as they go live first.
    ///
    /// # Errors
    /// As [`Revisions::keep`].
    pub(super) fn keep(&self, kept: &Revisions) -> io::Result<[Revision; 3]> {
        Ok([
            keep_files(kept, RevisionKind::Extractors, self.extractors)?,
            keep_inventory(kept, self.inventory)?,
            keep_files(kept, RevisionKind::Rules, self.rules)?,
        ])
    }

    /// Keeps copies, and gives the revisions that differ from what is live, in the order in which they go live.
    ///
    /// # Errors
    /// As [`Revisions::keep`].
    pub(super) fn new_revisions(&self, kept: &Revisions, live: &Live) -> io::Result<Vec<EntryBody>> {
        let new = self.keep(kept)?.into_iter().filter(|revision| live.get(&kind_key(revision.kind)) != Some(revision));
        Ok(new.map(EntryBody::Revision).collect())
    }
}
