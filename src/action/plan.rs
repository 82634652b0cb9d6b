//! What a call would do, to be shown before anything is done.

use super::catalogue::{Action, CommandsError, Op};
use super::params::Params;
use crate::model::{Command, Platform};

/// The exact commands of a call (semantics M1: `commands` and `stdin` of a step).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// One argument vector for each command.
    pub commands: Vec<Vec<String>>,
    /// Each command's standard input.
    pub stdin: Vec<Option<String>>,
    /// How it would be undone, or why it cannot be.
    pub undo: Result<Vec<Command>, String>,
}

/// The commands of a call, and of its undoing.
///
/// # Errors
/// The action has no commands for the platform.
pub fn plan(action: &Action, platform: Platform, params: &Params) -> Result<Plan, CommandsError> {
    let op = if action.only_reads(platform)? { Op::Verify } else { Op::Apply };
    let sent = [action.commands(op, platform, params)?, action.commands(Op::Confirm, platform, params)?].concat();
    let (commands, stdin) = sent.into_iter().map(|command| (command.argv, command.stdin)).unzip();
    let undo = match action.commands(Op::Undo, platform, params) {
        Ok(commands) => Ok(commands),
        Err(CommandsError::NoUndo { why, .. }) => Err(why),
        Err(error) => return Err(error),
    };
    Ok(Plan { commands, stdin, undo })
}
