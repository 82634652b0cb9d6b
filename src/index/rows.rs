//! The rows of the views. Persisted as JSON, and what `--json` prints (stable: fields are only ever added).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{AlertState, Finding, FindingId, OpenAlert, Outcome, RunState, Step, Time};

/// A finding and what it caused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct FindingRow {
    /// Its ledger entry.
    pub(super) seq: u64,
    /// The finding.
    pub(super) finding: Finding,
    /// What triage said, once it has.
    pub(super) triage: Option<String>,
    /// The runs that it began.
    pub(super) runs: Vec<Arc<str>>,
    /// The deliveries that tell of it.
    pub(super) deliveries: Vec<Arc<str>>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// Its ledger entry.
    pub seq: u64,
    /// Its id.
    pub run: Arc<str>,
    /// The playbook's name.
    pub playbook: Arc<str>,
    /// SHA-256 of the script, hexadecimal.
    pub revision: Arc<str>,
    /// The finding that it is about.
    pub finding: FindingId,
    /// When it began.
    pub at: Time,
    /// Where it stands.
    pub state: RunState,
    /// Why.
    pub reason: String,
    /// When it got there.
    pub moved: Time,
    /// How many steps it has asked for.
    pub steps: u32,
    /// Who began it by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Arc<str>>,
    /// What it asks a person now: the steps that it would take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub plan: Vec<Step>,
    /// Until when the answer is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// What persons answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<AnswerRow>,
}

/// A person's answer to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnswerRow {
    /// Yes or no.
    pub approved: bool,
    /// Who.
    pub by: Arc<str>,
    /// Why.
    pub because: String,
    /// When.
    pub at: Time,
    /// How many steps it covers.
    pub steps: usize,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRow {
    /// The ledger entry of its intent.
    pub seq: u64,
    /// The step.
    pub step: Step,
    /// When it was asked for.
    pub at: Time,
    /// How often it was attempted.
    pub attempts: u32,
    /// When it was attempted last.
    pub tried: Option<Time>,
    /// What came of the last attempt that is to be repeated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// An effect on a device that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseRow {
    /// The ledger entry that granted it first.
    pub seq: u64,
    /// The run that asked first.
    pub run: Arc<str>,
    /// Its step.
    pub key: Arc<str>,
    /// The device's inventory name.
    pub device: Arc<str>,
    /// The action.
    pub action: Arc<str>,
    /// Canonical parameters.
    pub params: Map<String, Value>,
    /// Whether it was on the device when it was last looked at; otherwise it is being asserted again.
    pub held: bool,
    /// When it was granted.
    pub since: Time,
    /// When it ends.
    pub until: Time,
    /// What was last recorded.
    pub detail: String,
    /// When that was.
    pub at: Time,
    /// What `opmas lease end` calls it.
    #[serde(default)]
    pub lease: String,
    /// The device cannot be asked: since when, and why. Only a running opmas knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unverified: Option<Unverified>,
}

/// An effect of which it is not known whether it is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unverified {
    /// When it was last seen.
    pub since: Time,
    /// What is in the way.
    pub why: String,
}

/// Where a delivery stands, as a person asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Not attempted yet.
    Waiting,
    /// Being attempted.
    Trying,
    /// To be tried again.
    Retry,
    /// Accepted.
    Sent,
    /// Given up.
    Failed,
    /// Begun and not answered; a person must look.
    Unknown,
}

/// One alert's way to one channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// Its ledger entry.
    pub seq: u64,
    /// Its id, which the other side sees as the idempotency key.
    pub delivery: Arc<str>,
    /// The route that made it.
    pub route: Arc<str>,
    /// The channel's name.
    pub channel: Arc<str>,
    /// The findings that it tells of.
    pub findings: Vec<FindingId>,
    /// When it was intended.
    pub at: Time,
    /// Where it stands.
    pub state: Standing,
    /// How often it was attempted.
    pub attempts: u32,
    /// The last answer, or why there is none.
    pub reason: String,
    /// When that was.
    pub moved: Time,
    /// When it is tried next.
    pub next: Option<Time>,
    /// Whether it tells that something was found, or that it is over.
    #[serde(default)]
    pub tells: AlertState,
    /// The alert that it tells of.
    #[serde(default)]
    pub alert: Option<Arc<str>>,
}

/// An alert that is not over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertRow {
    /// The ledger entry that opened it.
    pub seq: u64,
    /// The alert.
    #[serde(flatten)]
    pub alert: OpenAlert,
}

/// A run with its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStory {
    /// The run.
    pub run: RunRow,
    /// Its steps, in the order in which they were asked for.
    pub steps: Vec<StepRow>,
}

/// A finding with everything that was done about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FindingStory {
    /// The finding.
    pub finding: Finding,
    /// What triage said, once it has.
    pub triage: Option<String>,
    /// The runs that it began.
    pub runs: Vec<RunStory>,
    /// The deliveries that tell of it.
    pub deliveries: Vec<DeliveryRow>,
}
