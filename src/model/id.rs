//! Identities. All of them are persisted and stable.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
        out
    })
}

/// Hexadecimal digits of a run's id.
pub const RUN_DIGITS: usize = 16;

/// Which data folder pushed input came to: 16 hexadecimal digits, made once when the folder is made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub Arc<str>);

/// Where a record came from, so that a redelivered one is recognised (semantics O4).
///
/// Its `Display` form is stable: finding ids are hashes over it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordId {
    /// Pushed input (syslog, stdin): the node and the place in its spool.
    Pushed {
        /// The data folder it came to.
        node: NodeId,
        /// Its place in that folder's spool.
        seq: u64,
    },
    /// A line of a file: the file's identity (its path, and device:inode when followed live) and the line's first byte.
    File {
        /// Which file.
        file: Arc<str>,
        /// Offset of the line's first byte.
        offset: u64,
    },
    /// A message of a broker: the log that it stands in and its place there.
    Broker {
        /// `kafka:TOPIC@ID/PARTITION` with the topic's id, or `nats:STREAM` with when the stream was made, since one that is made anew counts
        /// from the beginning again.
        log: Arc<str>,
        /// Kafka's offset, JetStream's sequence.
        offset: u64,
    },
}

impl RecordId {
    /// The ordered log that it stands in and its place there, for what is read in order and may be delivered again; `None` for pushed input.
    #[must_use]
    pub fn place(&self) -> Option<(&Arc<str>, u64)> {
        match self {
            RecordId::Pushed { .. } => None,
            RecordId::File { file: log, offset } | RecordId::Broker { log, offset } => Some((log, *offset)),
        }
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordId::Pushed { node, seq } => write!(f, "pushed:{}:{seq}", node.0),
            RecordId::File { file, offset } => write!(f, "file:{file}:{offset}"),
            RecordId::Broker { log, offset } => write!(f, "{log}:{offset}"),
        }
    }
}

/// A finding's identity (semantics O6): the first 128 bits of a SHA-256 as 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FindingId(pub Arc<str>);

impl FindingId {
    /// The hash of rule id, group and the id of the event that made it fire (for a timer, also the deadline).
    ///
    /// Each part goes in with its length before it, so that no two lists of parts hash alike.
    #[must_use]
    pub fn new(parts: &[&str]) -> FindingId {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        FindingId(hex(digest.get(..16).unwrap_or(&[])).into())
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
