//! What a playbook asks for and what came of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Time;

/// One command for a device: arguments, each of which is data, and what goes to its standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Standard input, such as an nft script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
}

/// Whether a step may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Carried out.
    Auto,
    /// Needs a person's word.
    Approve,
    /// Only shown: posture, mode or ceiling says observe.
    Observe,
    /// Refused by guard, budget or catalogue, whoever asks.
    Refused,
}

/// One host call of a run, as M1 prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename = "step")]
pub struct Step {
    /// The run: 16 hexadecimal digits.
    pub run: Arc<str>,
    /// Its place in the script.
    pub key: Arc<str>,
    /// The playbook's file name without `.rhai`.
    pub playbook: Arc<str>,
    /// The device's inventory name.
    pub device: Arc<str>,
    /// The action's name in the catalogue.
    pub action: Arc<str>,
    /// Canonical parameters.
    pub params: Map<String, Value>,
    /// The exact command lines, one argument vector each.
    pub commands: Vec<Vec<String>>,
    /// Standard input of each command, `null` where there is none.
    pub stdin: Vec<Option<String>>,
    /// Whether it may be carried out.
    pub decision: Verdict,
    /// Why.
    pub reason: String,
}

impl Step {
    /// What is asked for, for people: `block_ip duration=1h ip=203.0.113.9 on ap1`.
    #[must_use]
    pub fn sentence(&self) -> String {
        let param = |(name, value): (&String, &Value)| format!(" {name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        format!("{}{} on {}", self.action, self.params.iter().map(param).collect::<String>(), self.device)
    }
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeState {
    /// Read back from the device.
    Enforced,
    /// Partly read back.
    Partial,
    /// Undone, and its absence read back.
    Undone,
    /// Not carried out: guard, catalogue or parameters refused it.
    Refused,
    /// Tried, and the device or the way to it said no.
    Failed,
    /// Tried, and not known: settled by reading back, or shown to a person.
    Unknown,
    /// Not carried out because only a plan was allowed.
    Planned,
    /// Done by opmas itself, where there is nothing to read back.
    Done,
}

impl OutcomeState {
    /// As the ledger writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            OutcomeState::Enforced => "enforced",
            OutcomeState::Partial => "partial",
            OutcomeState::Undone => "undone",
            OutcomeState::Refused => "refused",
            OutcomeState::Failed => "failed",
            OutcomeState::Unknown => "unknown",
            OutcomeState::Planned => "planned",
            OutcomeState::Done => "done",
        }
    }
}

/// What came of a step. Texts are bounded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub state: OutcomeState,
    /// Why, or what was read back: one sentence.
    pub detail: String,
    /// When it ended.
    pub at: Time,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// For a lease: when the effect ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// What was read on the device, for an action that only reads: the SHA-256 of the copy in `evidence/`, hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Arc<str>>,
}

impl Outcome {
    /// An outcome without effect, time and evidence.
    #[must_use]
    pub fn new(state: OutcomeState, detail: impl Into<String>, at: Time) -> Outcome {
        Outcome { state, detail: detail.into(), at, took_ms: 0, until: None, evidence: None }
    }
}

/// A step that has ended, as the script's next evaluation is answered from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The step's key.
    pub key: Arc<str>,
    /// The device's inventory name.
    pub device: Arc<str>,
    /// The action.
    pub action: Arc<str>,
    /// What came of it.
    pub outcome: Outcome,
}
