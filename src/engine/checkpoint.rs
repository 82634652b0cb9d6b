//! What a checkpoint holds.

use serde::{Deserialize, Serialize};

use super::pipeline::Snapshot;
use crate::model::Revision;

/// A checkpoint's body (postcard, stable): the pipeline's snapshot, and the revisions that were live.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub(super) revisions: Vec<Revision>,
    #[serde(with = "serde_bytes")]
    pub(super) snapshot: Vec<u8>,
}

impl Checkpoint {
    /// Reads a body.
    ///
    /// # Errors
    /// It is damaged, or another version's.
    pub(super) fn decode(body: &[u8]) -> Result<Checkpoint, String> {
        postcard::from_bytes(body).map_err(|error| error.to_string())
    }
}

/// What becomes a checkpoint. It is apart from the detection thread, which goes on while it is written.
#[derive(Debug)]
pub(super) struct State {
    pub(super) revisions: Vec<Revision>,
    pub(super) snapshot: Snapshot,
}

impl State {
    /// The checkpoint's body.
    ///
    /// # Errors
    /// A value cannot be written, which no input brings about.
    pub(super) fn encode(self) -> Result<Vec<u8>, String> {
        let snapshot = self.snapshot.encode().map_err(|error| error.to_string())?;
        postcard::to_stdvec(&Checkpoint { revisions: self.revisions, snapshot }).map_err(|error| error.to_string())
    }
}
