//! What was read back from a device, judged.

use std::net::IpAddr;

use super::catalogue::{Action, CommandsError, Op};
use super::nft;
use super::params::Params;
use super::template::Template;
use super::value::{Grammar, ParamValue};
use crate::model::{OutcomeState, Platform, Span};

/// Longest text of a device's error that a detail repeats, in characters.
const SHOWN_ERROR: usize = 200;

/// What one command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandResult {
    /// Exit status; `None` when it was ended (time, output bound) or the session was lost.
    pub status: Option<i32>,
    /// What it printed, as far as the bound allows.
    pub stdout: Vec<u8>,
    /// What it printed as errors, as far as the bound allows.
    pub stderr: Vec<u8>,
}

/// How the effect stands on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadbackState {
    /// All of it is there.
    Enforced,
    /// Some of it is there, or something else on the device weakens it.
    Partial,
    /// It is not there.
    Absent,
    /// The device did not say.
    Unknown,
}

/// How the effect stands, and why that is thought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readback {
    /// How it stands.
    pub state: ReadbackState,
    /// One sentence without values that change by themselves: equal sentences are equal situations.
    pub detail: String,
    /// When the device itself ends the effect, counted from now.
    pub expires_in: Option<Span>,
}

/// The judges that an action file can name, `check = { nft_block = { address = "ip", lifetime = "duration" } }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// An address in the host sets of table `inet opmas`, and the chains and rules that drop it.
    NftBlock {
        /// The parameter that holds the address.
        address: String,
        /// The parameter that holds the lifetime.
        lifetime: Option<String>,
    },
    /// What each command prints, without the line's end; an empty one asks only for exit status 0.
    Prints {
        /// One for each command.
        lines: Vec<Template>,
    },
}

impl Readback {
    pub(super) fn new(state: ReadbackState, detail: impl Into<String>) -> Readback {
        Readback { state, detail: detail.into(), expires_in: None }
    }

    /// The outcome of the operation after which this was read. After `undo` (and for `verify`) an absent effect is `undone`;
    /// after `apply` an absent effect is a failure, as is one that is still there after `undo`.
    #[must_use]
    pub fn outcome(&self, op: Op) -> OutcomeState {
        match (op, self.state) {
            (_, ReadbackState::Unknown) => OutcomeState::Unknown,
            (Op::Undo | Op::Verify, ReadbackState::Absent) => OutcomeState::Undone,
            (Op::Undo, _) | (Op::Apply, ReadbackState::Absent) => OutcomeState::Failed,
            (Op::Apply | Op::Verify, ReadbackState::Enforced) => OutcomeState::Enforced,
            (Op::Apply | Op::Verify, ReadbackState::Partial) => OutcomeState::Partial,
        }
    }
}

impl Action {
    /// Judges what the `verify` commands printed, in their order.
    ///
    /// # Errors
    /// The platform is not supported.
    pub fn check(&self, platform: Platform, params: &Params, results: &[CommandResult]) -> Result<Readback, CommandsError> {
        Ok(self.recipe(platform)?.check.judge(params, results))
    }
}

impl Check {
    /// How many commands `verify` must have.
    pub(super) fn commands(&self) -> usize {
        match self {
            Check::NftBlock { .. } => nft::LISTINGS,
            Check::Prints { lines } => lines.len(),
        }
    }

    /// The parameters that it reads, with the type that each must have.
    pub(super) fn reads(&self) -> Vec<(&str, &'static str)> {
        match self {
            Check::NftBlock { address, lifetime } => {
                let lifetime = lifetime.iter().map(|name| (name.as_str(), "duration"));
                std::iter::once((address.as_str(), Grammar::Ip.word())).chain(lifetime).collect()
            }
            Check::Prints { .. } => Vec::new(),
        }
    }

    fn judge(&self, params: &Params, results: &[CommandResult]) -> Readback {
        match self {
            Check::NftBlock { address, lifetime } => {
                let Some(address) = params.get(address).and_then(as_ip) else {
                    return Readback::new(ReadbackState::Unknown, format!("the call has no address in `{address}`"));
                };
                nft::block(address, lifetime.as_deref().and_then(|name| params.get(name)).and_then(as_span), results)
            }
            Check::Prints { lines } => prints(&lines.iter().map(|line| line.render(params)).collect::<Vec<_>>(), results),
        }
    }
}

/// Whether each command ended well and printed its line.
fn prints(lines: &[String], results: &[CommandResult]) -> Readback {
    if results.len() < lines.len() || results.iter().any(|result| result.status.is_none()) {
        return Readback::new(ReadbackState::Unknown, "not everything could be read back");
    }
    let holds = |(line, result): &(&String, &CommandResult)| {
        let printed = String::from_utf8_lossy(&result.stdout);
        result.status == Some(0) && (line.is_empty() || printed.trim_end_matches('\n') == **line)
    };
    let held = lines.iter().zip(results).filter(holds).count();
    let wanted = lines.iter().zip(results).find(|pair| !holds(pair)).map(|(line, _)| line.as_str()).unwrap_or_default();
    match (held, wanted) {
        (held, _) if held == lines.len() => Readback::new(ReadbackState::Enforced, "everything was read back"),
        (0, _) => Readback::new(ReadbackState::Absent, "nothing of it is there"),
        (_, "") => Readback::new(ReadbackState::Partial, "what was set is not in effect yet"),
        (_, wanted) => Readback::new(ReadbackState::Partial, format!("`{wanted}` was not read back")),
    }
}

fn as_ip(value: &ParamValue) -> Option<IpAddr> {
    match value {
        ParamValue::Ip(ip) => Some(*ip),
        _ => None,
    }
}

fn as_span(value: &ParamValue) -> Option<Span> {
    match value {
        ParamValue::Duration(span) => Some(*span),
        _ => None,
    }
}

/// The first line of what a command said as its error, bounded and without control characters.
pub(super) fn error_line(result: &CommandResult) -> String {
    let text = String::from_utf8_lossy(&result.stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing");
    line.chars().filter(|c| !c.is_control()).take(SHOWN_ERROR).collect()
}
