//! What the ledger holds: everything decided, as JSON payloads. Variants and fields are only ever added (stable).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AlertChange, Finding, FindingId, OfAlert, OpenAlert, Outcome, Step, Time};

/// Where a run stands. Which moves are legal is `playbook`'s transition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It has steps to take.
    Running,
    /// All its steps are done.
    Done,
    /// A step failed, or the script did.
    Failed,
    /// A recorded step differs from what the script asks for on replay; a person must look.
    Diverged,
    /// A step's effect is not known, or needs approval; a person must look.
    Waiting,
}

/// What happens to a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseChange {
    /// The effect was read back and holds until `until`.
    Granted,
    /// It was gone from the device and has been asserted again.
    Reasserted,
    /// It was gone from the device, and asserting it again failed; tried again later.
    Lost,
    /// It has ended, and its absence was read back.
    Ended,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// The other side accepted it.
    Sent,
    /// It will be tried again.
    Retry,
    /// It will not be tried again.
    Failed,
    /// It was begun and not answered, and cannot be repeated safely; shown to a person.
    Unknown,
}

/// One ledger payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Decided {
    /// A finding, once (O6).
    Finding {
        /// The finding.
        finding: Box<Finding>,
    },
    /// Triage of a finding is complete: the runs and deliveries that it causes are in the ledger (written in one batch).
    Triaged {
        /// Which finding.
        finding: FindingId,
        /// Why it went nowhere or where it went.
        reason: String,
    },
    /// A run begins; it pins the revision of its script.
    Run {
        /// 16 hexadecimal digits: the hash of finding id and playbook name.
        run: Arc<str>,
        /// The playbook's file name without `.rhai`.
        playbook: Arc<str>,
        /// SHA-256 of the script, hexadecimal.
        revision: Arc<str>,
        /// The finding that it is about.
        finding: FindingId,
        /// When.
        at: Time,
    },
    /// A step is about to be attempted (or is only planned): intent.
    Intent {
        /// The step with its verdict.
        step: Box<Step>,
        /// When.
        at: Time,
    },
    /// A step is being attempted.
    Attempt {
        /// The run.
        run: Arc<str>,
        /// The step's key.
        key: Arc<str>,
        /// 1 for the first.
        attempt: u32,
        /// When.
        at: Time,
    },
    /// A step ended.
    Outcome {
        /// The run.
        run: Arc<str>,
        /// The step's key.
        key: Arc<str>,
        /// What came of it.
        outcome: Outcome,
    },
    /// A run moved.
    RunMoved {
        /// The run.
        run: Arc<str>,
        /// Where to.
        state: RunState,
        /// Why.
        reason: String,
        /// When.
        at: Time,
    },
    /// A lease changed.
    Lease {
        /// The run that it belongs to.
        run: Arc<str>,
        /// The step that it belongs to.
        key: Arc<str>,
        /// The device's inventory name.
        device: Arc<str>,
        /// The action.
        action: Arc<str>,
        /// Canonical parameters.
        params: Map<String, Value>,
        /// What happened.
        change: LeaseChange,
        /// When the effect ends.
        until: Time,
        /// When this happened.
        at: Time,
        /// What was read back, or why it failed.
        detail: String,
    },
    /// An alert changed.
    Alert {
        /// What happened.
        change: AlertChange,
        /// The alert after it.
        alert: Box<OpenAlert>,
        /// Why it is over; empty for other changes.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// When.
        at: Time,
    },
    /// An alert is to go to a channel: intent. The delivery's id is the idempotency key.
    Delivery {
        /// The hash of finding id, route and channel; for what is over, of the alert's id.
        delivery: Arc<str>,
        /// The route that made it.
        route: Arc<str>,
        /// The channel's file name without `.toml`.
        channel: Arc<str>,
        /// The findings it tells of, the newest last.
        findings: Vec<FindingId>,
        /// When.
        at: Time,
        /// What it tells of which alert. Deliveries of older versions are of none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Box<OfAlert>>,
    },
    /// A delivery is being attempted.
    DeliveryAttempt {
        /// Which delivery.
        delivery: Arc<str>,
        /// 1 for the first.
        attempt: u32,
        /// When.
        at: Time,
    },
    /// A delivery was answered.
    DeliveryOutcome {
        /// Which delivery.
        delivery: Arc<str>,
        /// How it stands.
        state: DeliveryState,
        /// The answer, bounded, without secrets.
        detail: String,
        /// When.
        at: Time,
        /// When it is tried again.
        next: Option<Time>,
        /// What the channel calls the message it has shown, for channels that can change it later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Arc<str>>,
    },
    /// A checkpoint was written: recovery starts from the newest one that verifies.
    Checkpoint {
        /// Its file name in `state/`.
        name: Arc<str>,
        /// SHA-256 of the file, hexadecimal.
        hash: Arc<str>,
        /// The last spool entry that it covers.
        seq: u64,
        /// When.
        at: Time,
    },
    /// Retention: older segments of the ledger go. What is alive follows in the same batch, written again: state is made of what
    /// stands behind the newest anchor.
    Anchor {
        /// The last record that goes.
        until: u64,
        /// The chain hash up to and with it, hexadecimal.
        hash: Arc<str>,
        /// So many records follow that were written before.
        carried: u64,
        /// When.
        at: Time,
    },
    /// Something a person should know: a truncated tail, a gap, a configuration that came live.
    Note {
        /// One sentence.
        text: String,
        /// When.
        at: Time,
    },
}
