//! What a route and a channel make of the findings of a group, as the ledger keeps it (stable: fields are only ever added).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{FindingId, Span, Time};

/// Whether what an alert tells of goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// It was found.
    #[default]
    Firing,
    /// It is over.
    Resolved,
}

/// What happens to an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertChange {
    /// Its first finding.
    Opened,
    /// A further finding of its group.
    Updated,
    /// No further finding came, or it is no longer followed.
    Resolved,
}

/// An alert after a change: the newest record of an alert is all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenAlert {
    /// The hash of first finding, route and channel: the id of its first delivery, and the key that the other side knows it by.
    pub id: Arc<str>,
    /// The route's name.
    pub route: Arc<str>,
    /// The channel's name.
    pub channel: Arc<str>,
    /// The fields that its findings have in common.
    pub group: BTreeMap<String, Value>,
    /// The first finding and the newest ones, oldest first.
    pub findings: Vec<FindingId>,
    /// How many findings there were.
    pub count: u64,
    /// When it was opened.
    pub since: Time,
    /// When its newest finding came.
    pub last: Time,
    /// When it is resolved unless a further finding comes; `None`: never.
    pub until: Option<Time>,
    /// What was found while an earlier message stands is told so long after it; `None`: each finding at once.
    pub repeat: Option<Span>,
}

/// What a delivery tells of an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfAlert {
    /// The alert's id.
    pub id: Arc<str>,
    /// The fields that its findings have in common.
    pub group: BTreeMap<String, Value>,
    /// Whether it goes on.
    pub state: AlertState,
    /// When it was opened.
    pub since: Time,
    /// How many findings there were.
    pub count: u64,
    /// Why it is over; empty while it goes on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the channel calls the message that this one changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Arc<str>>,
}
