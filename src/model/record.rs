//! What the spool holds.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RecordId, Time};

/// Who may be believed (DESIGN: who is believed). A finding has the least trust of its evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// UDP, anything else: whoever can send a datagram can write it.
    Open,
    /// A local file, an authenticated peer, or a source that its owner declared `trusted = true`.
    Verified,
}

/// Raw input with its position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its identity; `None` for pushed input until it stands in the spool, whose place then is the identity.
    pub id: Option<RecordId>,
    /// The configured source, `[source.NAME]`.
    pub source: Arc<str>,
    /// What T3 calls a source: the partition, connection, sender or file that this record came through.
    pub stream: Arc<str>,
    /// When it arrived; `None` for a recording, which has no arrival clock.
    pub arrival: Option<Time>,
    /// The sender's address, when it came over a network.
    pub peer: Option<IpAddr>,
    /// Whether its source is believed.
    pub trust: Trust,
    /// The bytes of one line or message, without its framing.
    pub raw: Vec<u8>,
}

/// Moves an idle stream aside, so that it does not hold the watermark back (T3). A spool entry, because it can change a finding (O2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// When the tick was made, by the engine's clock.
    pub at: Time,
    /// The streams that are idle from here on until their next record.
    pub idle: Vec<Arc<str>>,
}

/// What a revision replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevisionKind {
    /// Sigma rules.
    Rules,
    /// Extractor files.
    Extractors,
    /// The device inventory.
    Inventory,
}

/// A set of files going live (O2): from its place in the spool on, these files decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// What it replaces.
    pub kind: RevisionKind,
    /// SHA-256 of the kept copy, hexadecimal; the copy is `revisions/<hash>` in the data folder.
    pub hash: Arc<str>,
}

/// The body of one spool entry. Persisted with postcard: variants are only ever appended (stable).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryBody {
    /// Input.
    Record(Record),
    /// Idle streams.
    Tick(Tick),
    /// Files going live.
    Revision(Revision),
}

/// One spool entry with its place, which is the order of the system (O1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place: 1 for the first, then without gaps.
    pub seq: u64,
    /// What it says.
    pub body: EntryBody,
}
