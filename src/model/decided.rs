//! What the ledger holds: everything decided, as JSON payloads. Variants and fields are only ever added (stable).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AlertChange, Finding, FindingId, OfAlert, OpenAlert, Outcome, Recorded, Step, Time};

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
    /// A person holds it.
    Paused,
    /// A person denied or cancelled it, or nobody approved it in time: what was open is not carried out.
    Cancelled,
}

impl RunState {
    /// As the ledger writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Done => "done",
            RunState::Failed => "failed",
            RunState::Diverged => "diverged",
            RunState::Waiting => "waiting",
            RunState::Paused => "paused",
            RunState::Cancelled => "cancelled",
        }
    }

    /// Whether it stays so.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, RunState::Done | RunState::Failed | RunState::Diverged | RunState::Cancelled)
    }
}

/// How far the whole system may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Posture {
    /// Nothing is carried out.
    #[default]
    Observe,
    /// A person approves what is carried out.
    Guarded,
    /// What playbooks and ceilings allow is carried out.
    Armed,
}

impl Posture {
    /// As the configuration writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Posture::Observe => "observe",
            Posture::Guarded => "guarded",
            Posture::Armed => "armed",
        }
    }
}

/// A posture set by hand in the place of the configured one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetPosture {
    /// How far the system may go.
    pub posture: Posture,
    /// Until when; without it until it is set again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// A step that an answer covers: exactly this.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Covered {
    /// Its place in the script and the fingerprint of what was asked for.
    pub key: Arc<str>,
    /// The device's inventory name.
    pub device: Arc<str>,
    /// The action.
    pub action: Arc<str>,
    /// Canonical parameters.
    pub params: Map<String, Value>,
}

impl Covered {
    /// What an answer to this step covers.
    #[must_use]
    pub fn of(step: &Step) -> Covered {
        Covered { key: step.key.clone(), device: step.device.clone(), action: step.action.clone(), params: step.params.clone() }
    }
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
    /// It holds longer, until `until`; `detail` says who wanted it and why.
    Extended,
    /// It is to end now; `detail` says who wanted it and why.
    Revoked,
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

/// Who began a run, and about what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ByHand {
    /// A user of this machine.
    pub by: Arc<str>,
    /// Why; may be empty.
    pub because: String,
    /// The finding.
    pub finding: Finding,
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
        /// The entity that it is about, when its playbook counts runs by one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        about: Option<Arc<str>>,
        /// Steps of an earlier run that it goes on from.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        after: Vec<Recorded>,
        /// When.
        at: Time,
        /// Who began it by hand, and the finding once more, which may be over; nothing when the finding began it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by_hand: Option<Box<ByHand>>,
    },
    /// A run asks a person: what it would carry out, and until when the answer is waited for. It waits then.
    Asked {
        /// The run.
        run: Arc<str>,
        /// Every step that the script asks for from here on when each action answers its assumed outcome.
        plan: Vec<Step>,
        /// Without an answer it is a no then.
        until: Time,
        /// When.
        at: Time,
    },
    /// A person's answer to what a run asks.
    Answered {
        /// The run.
        run: Arc<str>,
        /// The playbook's name.
        playbook: Arc<str>,
        /// Yes or no.
        approved: bool,
        /// Who: a user of this machine, or the name of a token.
        by: Arc<str>,
        /// Why; may be empty.
        because: String,
        /// The steps that it covers.
        plan: Vec<Covered>,
        /// When.
        at: Time,
    },
    /// The posture was set by hand, or is the configured one again.
    Posture {
        /// What it is now; `None` is the configured one.
        set: Option<SetPosture>,
        /// Who.
        by: Arc<str>,
        /// Why; may be empty.
        because: String,
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
    /// An attempt is over and is to be repeated: nothing was done, or the same once more is the same. The step goes on being tried.
    Tried {
        /// The run.
        run: Arc<str>,
        /// The step's key.
        key: Arc<str>,
        /// Which attempt.
        attempt: u32,
        /// What came of it; or who found out that nothing did, and why it is repeated.
        detail: String,
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
        /// So many findings before this record, the last ones, are of later entries: they were made while it was written.
        #[serde(default, skip_serializing_if = "is_zero")]
        ahead: u64,
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
    /// A playbook has something to say: `[publish.NAME]` of this name takes it to its broker.
    Message {
        /// Which.
        publish: Arc<str>,
        /// The run.
        run: Arc<str>,
        /// The step's key; with the run it is the idempotency key.
        key: Arc<str>,
        /// The playbook's name.
        playbook: Arc<str>,
        /// The finding that the run is about.
        finding: FindingId,
        /// What is said: a text, or a map.
        body: Value,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
