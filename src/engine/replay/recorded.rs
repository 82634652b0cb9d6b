//! What was live before the oldest entry that a spool keeps: the entries that said so are gone.

use std::collections::BTreeMap;

use crate::engine::detection::{kind_key, part, revisions_of};
use crate::journal::{CheckpointRef, Checkpoints, Content, DataDir, LedgerReader, ReadError, SpoolReader};
use crate::model::{EntryBody, Revision, RevisionKind};

/// All kinds, in the order in which they go live.
const KINDS: [RevisionKind; 3] = [RevisionKind::Extractors, RevisionKind::Inventory, RevisionKind::Rules];

/// What was live before the first entry.
#[derive(Debug, Default)]
pub(super) struct Before {
    pub(super) revisions: Vec<Revision>,
    /// Of these nothing says what was live.
    pub(super) unknown: Vec<RevisionKind>,
}

/// Reads it from the oldest checkpoint that is kept, where no entry between the first and it has changed it.
///
/// # Errors
/// Spool or ledger cannot be read.
pub(super) fn before(data: &DataDir) -> Result<Before, ReadError> {
    let first = SpoolReader::open(&data.spool(), 0)?.flatten().next().map_or(1, |entry| entry.seq);
    if first <= 1 {
        return Ok(Before::default());
    }
    let (seq, live) = oldest_checkpoint(data)?;
    let changed = changed_until(data, seq)?;
    let mut before = Before::default();
    for kind in KINDS {
        match live.iter().find(|revision| revision.kind == kind).filter(|_| !changed.contains_key(&kind_key(kind))) {
            Some(revision) => before.revisions.push(revision.clone()),
            None => before.unknown.push(kind),
        }
    }
    Ok(before)
}

/// For people: what stands in for what is not known.
pub(super) fn unknown(kind: RevisionKind) -> String {
    let what = part(kind).trim_end_matches(" revision");
    format!("the spool begins behind its first entry, and nothing says which {what} were live there: up to the next change in it, today's decide")
}

/// The revisions of the kinds that change before `seq` and with it.
fn changed_until(data: &DataDir, seq: u64) -> Result<BTreeMap<u8, Revision>, ReadError> {
    let mut changed = BTreeMap::new();
    for entry in SpoolReader::open(&data.spool(), 0)?.flatten().take_while(|entry| entry.seq <= seq) {
        if let EntryBody::Revision(revision) = entry.body {
            changed.insert(kind_key(revision.kind), revision);
        }
    }
    Ok(changed)
}

/// The place and the live revisions of the oldest checkpoint that can be read; place 0 and none without one.
fn oldest_checkpoint(data: &DataDir) -> Result<(u64, Vec<Revision>), ReadError> {
    for entry in LedgerReader::open(&data.ledger(), 0)?.flatten() {
        let Content::Decided(decided) = &entry.content else { continue };
        let Some(checkpoint) = CheckpointRef::of(decided) else { continue };
        // The ledger names all that there ever were; most files are gone.
        let loaded = Checkpoints::new(data).newest_valid(std::slice::from_ref(&checkpoint));
        if let Some(revisions) = loaded.and_then(|loaded| revisions_of(&loaded.body).ok()) {
            return Ok((checkpoint.seq, revisions));
        }
    }
    Ok((0, Vec::new()))
}
