//! Places: what windows are made of.

use serde::{Deserialize, Serialize};

use crate::model::Time;

/// A place in a group: (event time, seq), the order of everything that correlates (C1, C2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Event time.
    pub time: Time,
    /// The record's place in the spool.
    pub seq: u64,
}
