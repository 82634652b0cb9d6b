//! What the spool holds.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{RecordId, Span, Time};

/// Who may be believed (DESIGN: who is believed). A finding has the least trust of its evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// UDP, anything else: whoever can send a datagram can write it.
    Open,
    /// A local file, an authenticated peer, or a source that its owner declared `trusted = true`.
    Verified,
}

/// What a record's bytes are. Persisted with postcard: variants are only ever appended (stable).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// A log line, or an event as a JSON object.
    #[default]
    Log,
    /// A finding of an external agent, as a JSON object (semantics M2).
    Finding,
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
    #[serde(with = "serde_bytes")]
    pub raw: Vec<u8>,
    /// What they are.
    pub payload: Payload,
    /// The NATS subject or the Kafka topic that it was published to.
    pub subject: Option<Arc<str>>,
}

/// A [`Record`] as spools of format 1 have it (stable).
#[derive(Deserialize)]
struct RecordV1 {
    id: Option<RecordId>,
    source: Arc<str>,
    stream: Arc<str>,
    arrival: Option<Time>,
    peer: Option<IpAddr>,
    trust: Trust,
    #[serde(with = "serde_bytes")]
    raw: Vec<u8>,
}

impl From<RecordV1> for Record {
    fn from(old: RecordV1) -> Record {
        let RecordV1 { id, source, stream, arrival, peer, trust, raw } = old;
        Record { id, source, stream, arrival, peer, trust, raw, payload: Payload::Log, subject: None }
    }
}

/// Moves an idle stream aside, so that it does not hold the watermark back (T3). A spool entry, because it can change a finding (O2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// When the tick was made, by the engine's clock.
    pub at: Time,
    /// The streams that are idle from here on until their next record.
    pub idle: Vec<Arc<str>>,
    /// The sources that another opmas reads from here on: that nothing comes from them says nothing.
    pub elsewhere: Vec<Arc<str>>,
}

impl Tick {
    /// A stream without a record for longer no longer holds the watermark back (T3).
    pub const IDLE: Span = Span::secs(30);
}

/// A [`Tick`] without sources that are read elsewhere (stable).
#[derive(Serialize, Deserialize)]
struct TickV1 {
    at: Time,
    idle: Vec<Arc<str>>,
}

impl From<TickV1> for Tick {
    fn from(TickV1 { at, idle }: TickV1) -> Tick {
        Tick { at, idle, elsewhere: Vec::new() }
    }
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

/// The body of one spool entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryBody {
    /// Input.
    Record(Record),
    /// Idle streams.
    Tick(Tick),
    /// Files going live.
    Revision(Revision),
}

/// An [`EntryBody`] as it is persisted, with postcard: variants are only ever appended (stable).
#[derive(Deserialize)]
enum Stored {
    RecordV1(RecordV1),
    TickV1(TickV1),
    Revision(Revision),
    Record(Record),
    Tick(Tick),
}

impl Serialize for EntryBody {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            EntryBody::Tick(Tick { at, idle, elsewhere }) if elsewhere.is_empty() => {
                serializer.serialize_newtype_variant("Stored", 1, "TickV1", &TickV1 { at: *at, idle: idle.clone() })
            }
            EntryBody::Tick(tick) => serializer.serialize_newtype_variant("Stored", 4, "Tick", tick),
            EntryBody::Revision(revision) => serializer.serialize_newtype_variant("Stored", 2, "Revision", revision),
            EntryBody::Record(record) => serializer.serialize_newtype_variant("Stored", 3, "Record", record),
        }
    }
}

impl<'de> Deserialize<'de> for EntryBody {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<EntryBody, D::Error> {
        Stored::deserialize(deserializer).map(|stored| match stored {
            Stored::RecordV1(old) => EntryBody::Record(old.into()),
            Stored::Record(record) => EntryBody::Record(record),
            Stored::TickV1(old) => EntryBody::Tick(old.into()),
            Stored::Tick(tick) => EntryBody::Tick(tick),
            Stored::Revision(revision) => EntryBody::Revision(revision),
        })
    }
}

/// One spool entry with its place, which is the order of the system (O1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its place: 1 for the first, then without gaps.
    pub seq: u64,
    /// What it says.
    pub body: EntryBody,
}
