//! What engine and executor say to each other, in frames of JSON (`process`). Both ends are the same binary: not persisted.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Command, Outcome, Time, Verdict};

/// What the engine asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Carry the action out and read it back.
    Apply(Task),
    /// Read back whether its effect is there. Changes nothing.
    Verify(Task),
    /// Take its effect away and read back that it is gone.
    Undo(Task),
    /// Say how the device can be reached and what it is.
    Check {
        /// The device's inventory name.
        device: Arc<str>,
    },
    /// Take our table, our key and the helper away.
    Leave {
        /// The device's inventory name.
        device: Arc<str>,
    },
}

impl Request {
    /// The device's inventory name.
    #[must_use]
    pub fn device(&self) -> &Arc<str> {
        match self {
            Request::Apply(task) | Request::Verify(task) | Request::Undo(task) => &task.device,
            Request::Check { device } | Request::Leave { device } => device,
        }
    }

    /// What is to be done; nothing for a check.
    #[must_use]
    pub fn task(&self) -> Option<&Task> {
        match self {
            Request::Apply(task) | Request::Verify(task) | Request::Undo(task) => Some(task),
            Request::Check { .. } | Request::Leave { .. } => None,
        }
    }

    /// The action's name; `check` for a check. For metrics and logs.
    #[must_use]
    pub fn action(&self) -> &str {
        match self {
            Request::Apply(task) | Request::Verify(task) | Request::Undo(task) => &task.action,
            Request::Check { .. } => "check",
            Request::Leave { .. } => "leave",
        }
    }
}

/// One action on one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Run and key of the step, for logs: `6f3c…:1`.
    pub id: Arc<str>,
    /// The device's inventory name.
    pub device: Arc<str>,
    /// The action's name in the catalogue.
    pub action: Arc<str>,
    /// Its parameters; the executor parses and checks them itself.
    pub params: Map<String, Value>,
    /// What was decided. Anything but `auto` (an approved step is sent as `auto`) is refused, except for `Verify`.
    pub verdict: Verdict,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// How it ended. `Verify` answers `enforced`, `partial`, or `undone` when nothing of the effect is there. `failed` means that
    /// nothing was changed, or that the device said no; `unknown` that a command was sent and its end was not seen.
    pub outcome: Outcome,
    /// The commands that were really sent, in order, reads included.
    pub commands: Vec<Ran>,
    /// The answer to a check that got as far as the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Report>,
    /// What an action that only reads has read, bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Whether its device can be connected to.
    #[serde(default)]
    pub reach: Reach,
    /// It was done for another request ([`Task::id`]), which asked for the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub with: Option<Arc<str>>,
}

impl Reply {
    /// A reply without any command.
    pub(crate) fn plain(outcome: Outcome) -> Reply {
        Reply { outcome, commands: Vec::new(), report: None, evidence: None, reach: Reach::Unknown, with: None }
    }

    /// The same for a request that was carried out together with this one.
    pub(super) fn together(mut self, with: &Request) -> Reply {
        self.with = with.task().map(|task| task.id.clone());
        if let (Request::Apply(_), Some(id)) = (with, &self.with) {
            self.outcome.detail = format!("{}; done once, together with {id}", self.outcome.detail);
        }
        self
    }
}

/// Whether a device can be connected to, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Nothing was found out.
    #[default]
    Unknown,
    /// There is a connection.
    Open,
    /// It failed, and nothing but a check tries before a time.
    Shut {
        /// Why it failed, one sentence with the remedy.
        why: String,
        /// When a request is the next to try.
        again: Time,
    },
}

/// A command that was sent, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// The command.
    pub command: Command,
    /// Its exit code; `None` when its end was not seen, or it was ended at its limit.
    pub exit: Option<i32>,
    /// The first line of its standard error, bounded.
    pub said: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What a check finds out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What `openwrt_release` or `os-release` calls the system; `None` when it has neither.
    pub system: Option<String>,
    /// Kernel, nft, busybox and ssh, as they call themselves.
    #[serde(default)]
    pub versions: Vec<String>,
    /// Whether `nft` is there and may list tables.
    pub nft: bool,
    /// Whether the table `inet fw4` is there.
    pub fw4: bool,
    /// Whether it has firewall3.
    #[serde(default)]
    pub fw3: bool,
    /// Whether it has iptables, and `ipset` that may list sets.
    #[serde(default)]
    pub ipset: bool,
    /// The device's clock.
    pub clock: Option<Time>,
    /// The device's clock minus ours, in seconds.
    pub clock_offset_s: Option<i64>,
    /// The address that the device sees the connection come from.
    pub manager: Option<String>,
    /// The device's own addresses.
    pub addresses: Vec<String>,
    /// The device's gateways.
    pub gateways: Vec<String>,
    /// How long connecting and logging in took, in milliseconds; 0 when the connection was already there.
    pub connect_ms: u64,
    /// What keeps actions from running, one sentence each with its remedy; empty when they can run.
    pub problems: Vec<String>,
    /// What else is not as it should be.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// From the engine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    /// The number that the answer carries.
    pub n: u64,
    /// What is asked.
    pub request: Request,
}

/// From the executor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// It has read its files and confined itself; sentences for what this kernel cannot enforce.
    Ready {
        /// What is not enforced.
        weaknesses: Vec<String>,
    },
    /// It cannot start.
    Cannot {
        /// One sentence with the place and the remedy.
        message: String,
    },
    /// The answer to a request.
    Answer {
        /// The request's number.
        n: u64,
        /// The answer.
        reply: Box<Reply>,
    },
}
