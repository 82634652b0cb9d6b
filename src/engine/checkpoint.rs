//! What a checkpoint holds.

use serde::{Deserialize, Serialize};

use super::bounds::Bounds;
use super::pipeline::Snapshot;
use crate::model::Revision;

/// A checkpoint's body (postcard, stable): the pipeline's snapshot, and the revisions that were live. [`Bounds`] follow, which older
/// ones do not have.
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
    pub(super) fn decode(body: &[u8]) -> Result<(Checkpoint, Option<Bounds>), String> {
        let (checkpoint, rest) = postcard::take_from_bytes(body).map_err(|error| error.to_string())?;
        let bounds = (!rest.is_empty()).then(|| postcard::from_bytes(rest)).transpose().map_err(|error| error.to_string())?;
        Ok((checkpoint, bounds))
    }
}

/// What becomes a checkpoint. It is apart from the detection thread, which goes on while it is written.
#[derive(Debug)]
pub(super) struct State {
    pub(super) revisions: Vec<Revision>,
    pub(super) snapshot: Snapshot,
    pub(super) bounds: Bounds,
}

impl State {
    /// The checkpoint's body.
    ///
    /// # Errors
    /// A value cannot be written, which no input brings about.
    pub(super) fn encode(self) -> Result<Vec<u8>, String> {
        let snapshot = self.snapshot.encode().map_err(|error| error.to_string())?;
        let body = postcard::to_stdvec(&Checkpoint { revisions: self.revisions, snapshot }).map_err(|error| error.to_string())?;
        postcard::to_extend(&self.bounds, body).map_err(|error| error.to_string())
    }
}
