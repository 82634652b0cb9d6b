//! What was read back from a device, judged.

use std::ops::RangeInclusive;

use super::catalogue::{Action, CommandsError, Op};
use super::ipset;
use super::json::{self, Expected};
use super::load::MAX_COMMANDS;
use super::nft::{self, NftSet};
use super::params::Params;
use super::template::Template;
use crate::http::visible;
use crate::model::{OutcomeState, Platform, Span};

/// Longest text of a device's error that a detail repeats, in characters.
const SHOWN_ERROR: usize = 200;
/// The same of what it printed that is none of what was asked for.
const SHOWN: usize = 60;

/// What one command did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandResult {
    /// Exit status; `None` when it was ended or not run: then `stderr` says why, behind the command's name.
    pub status: Option<i32>,
    /// What it printed, as far as the bound allows.
    pub stdout: Vec<u8>,
    /// What it printed as errors, as far as the bound allows.
    pub stderr: Vec<u8>,
    /// It printed more than so many bytes, and these are the first.
    pub cut: Option<usize>,
}

impl CommandResult {
    /// Of one that has no exit status: why, such as `did not end within 8 s`.
    #[must_use]
    pub fn without_end(why: String) -> CommandResult {
        CommandResult { stderr: why.into_bytes(), ..CommandResult::default() }
    }

    /// What it printed, all of it; else what is known of how it ended, to be put behind its name.
    pub(super) fn whole(&self) -> Result<&[u8], String> {
        match (self.status, self.cut) {
            (Some(0), None) => Ok(&self.stdout),
            (Some(0), Some(most)) => Err(format!("printed more than {most} bytes")),
            (Some(status), _) => Err(format!("ended with {status} on the device and said: {}", error_line(self))),
            (None, _) if self.stderr.is_empty() => Err("did not end on the device".to_owned()),
            (None, _) => Err(error_line(self)),
        }
    }
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

/// The judges that an action file can name, such as `check = { prints = ["on"] }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// An element of a set in table `inet opmas`, and the rules that look it up.
    NftSet(Box<NftSet>),
    /// A member of an ipset, and the rules of iptables that look it up.
    Ipset(Box<NftSet>),
    /// What each command prints, without the line's end; an empty one asks only for exit status 0.
    Prints {
        /// One for each command.
        lines: Vec<Template>,
    },
    /// What commands print as JSON.
    Json(Vec<Expected>),
    /// Each command ends well: what it prints is what the action is for.
    Output,
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
            (Op::Undo, _) | (Op::Apply | Op::Confirm, ReadbackState::Absent) => OutcomeState::Failed,
            (Op::Apply | Op::Verify | Op::Confirm, ReadbackState::Enforced) => OutcomeState::Enforced,
            (Op::Apply | Op::Verify | Op::Confirm, ReadbackState::Partial) => OutcomeState::Partial,
        }
    }
}

impl Action {
    /// Judges what the `verify` commands printed, in their order. `before` is what they printed before the action was carried out.
    ///
    /// # Errors
    /// The platform is not supported.
    pub fn check(&self, platform: Platform, params: &Params, before: Option<&[CommandResult]>, results: &[CommandResult]) -> Result<Readback, CommandsError> {
        let recipe = self.recipe(platform)?;
        let readback = recipe.check.judge(params, results);
        Ok(match before {
            _ if !recipe.changes || readback.state != ReadbackState::Enforced => readback,
            None => Readback::new(ReadbackState::Unknown, "how it was before is not known"),
            Some(before) if before.iter().zip(results).all(|(before, after)| before.status == Some(0) && before.stdout != after.stdout) => readback,
            Some(_) => Readback::new(ReadbackState::Absent, "it is as it was before"),
        })
    }
}

impl Check {
    /// How many commands `verify` may have.
    pub(super) fn commands(&self) -> RangeInclusive<usize> {
        match self {
            Check::NftSet(_) => nft::LISTINGS..=nft::LISTINGS,
            Check::Ipset(set) if set.absent => ipset::LISTINGS_OF_ABSENCE..=ipset::LISTINGS_OF_ABSENCE,
            Check::Ipset(_) => ipset::LISTINGS..=ipset::LISTINGS,
            Check::Prints { lines } => lines.len()..=lines.len(),
            Check::Json(expected) => expected.iter().map(|one| one.of + 1).max().unwrap_or(1)..=MAX_COMMANDS,
            Check::Output => 1..=MAX_COMMANDS,
        }
    }

    fn judge(&self, params: &Params, results: &[CommandResult]) -> Readback {
        match self {
            Check::NftSet(set) => set.judge(params, results),
            Check::Ipset(set) => ipset::judge(set, params, results),
            Check::Prints { lines } => prints(&lines.iter().map(|line| line.render(params)).collect::<Vec<_>>(), results),
            Check::Json(expected) => json::judge(expected, params, results),
            Check::Output => output(results),
        }
    }
}

/// Whether each command ended well.
fn output(results: &[CommandResult]) -> Readback {
    let good = results.iter().filter(|result| result.status == Some(0)).count();
    let bytes: usize = results.iter().map(|result| result.stdout.len()).sum();
    let failed = results.iter().find(|result| result.status != Some(0)).and_then(|result| Some(format!("a command {}", result.whole().err()?)));
    match (good, failed) {
        (_, None) => Readback::new(ReadbackState::Enforced, format!("{bytes} bytes were read")),
        (0, Some(why)) => Readback::new(ReadbackState::Absent, why),
        (_, Some(why)) => Readback::new(ReadbackState::Partial, format!("{bytes} bytes were read, but {why}")),
    }
}

/// Whether each command ended well and printed its line.
fn prints(lines: &[String], results: &[CommandResult]) -> Readback {
    let unread = results.iter().find(|result| result.status.is_none()).and_then(|result| result.whole().err());
    if results.len() < lines.len() || unread.is_some() {
        let why = unread.map_or_else(String::new, |why| format!(": a command {why}"));
        return Readback::new(ReadbackState::Unknown, format!("not everything could be read back{why}"));
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

/// What a listing printed; else why there is none, with its name.
pub(crate) fn listed<'r>(result: &'r CommandResult, what: &str) -> Result<&'r [u8], String> {
    result.whole().map_err(|why| format!("`{what}` {why}"))
}

/// That a command printed something else than it should, and what; to be put behind its name.
pub(super) fn printed_else(printed: &[u8], wanted: &str) -> String {
    match String::from_utf8_lossy(printed).trim() {
        "" => "printed nothing".to_owned(),
        other => format!("printed something that is not {wanted}: `{}`", visible(other, SHOWN)),
    }
}

/// Says that not all listings are there.
pub(super) fn too_few(results: &[CommandResult], wanted: usize) -> String {
    format!("{} listings were read back instead of {wanted}", results.len())
}

/// The first line of what a command said as its error, bounded and without control characters.
pub(super) fn error_line(result: &CommandResult) -> String {
    let text = String::from_utf8_lossy(&result.stderr);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("nothing");
    line.chars().filter(|c| !c.is_control()).take(SHOWN_ERROR).collect()
}
