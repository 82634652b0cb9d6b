//! Actions as the catalogue knows them: typed parameters, and commands per platform.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::Check;
use super::params::Params;
use super::quote::command_line;
use super::template::Template;
use super::value::{Grammar, ParamValue};
use crate::diag;
use crate::model::{Command, Platform, Span};

/// How much harm an action can do when it is wrong; shown to the person who approves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Reads only, or changes nothing that anyone would notice.
    Low,
    /// Takes something from somebody, and can be undone.
    Moderate,
    /// Cannot be undone, or takes a device away from everybody.
    High,
}

/// What a plan takes as the action's outcome, so that the script's next steps can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assumed {
    /// It works.
    Enforced,
    /// It works partly.
    Partial,
    /// It fails.
    Failed,
}

/// What is done with an action on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Make the effect.
    Apply,
    /// Read it back.
    Verify,
    /// Take it away.
    Undo,
    /// Say to the device, which takes the effect back by itself otherwise, that it was read back.
    Confirm,
}

/// One declared parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// As playbooks call it.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// What it may be.
    pub grammar: Grammar,
    /// Its value when it is not given.
    pub default: Option<ParamValue>,
    /// Whether the guard looks at it (addresses, of hardware too: yes unless the file says `guarded = false`).
    pub guarded: bool,
}

/// Bounds of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionLimits {
    /// The longest that one command may take.
    pub time: Span,
    /// The most bytes that one command may print.
    pub output_bytes: usize,
    /// How long it is read back again and again until it holds; the device may be away meanwhile.
    pub settle: Span,
}

/// How an action is carried out on a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) check: Check,
    /// Each command of `verify` must print something else than before.
    pub(super) changes: bool,
    /// None for an action that only reads: `verify` is all of it.
    pub(super) apply: Vec<CommandTemplate>,
    pub(super) verify: Vec<CommandTemplate>,
    pub(super) confirm: Vec<CommandTemplate>,
    /// The commands, or why there are none.
    pub(super) undo: Result<Vec<CommandTemplate>, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandTemplate {
    pub(super) argv: Vec<Template>,
    pub(super) stdin: Option<Template>,
}

/// One action of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// The file's name without `.toml`.
    pub name: Arc<str>,
    /// One line.
    pub title: String,
    /// What it does and what it does not.
    pub description: String,
    /// How much harm it can do.
    pub risk: Risk,
    /// In the order of the file, which is the order of a playbook's arguments.
    pub params: Vec<Param>,
    /// What a plan takes as its outcome.
    pub assumed: Assumed,
    /// The parameters that identify the effect.
    pub idempotence: Vec<String>,
    /// The parameter that is the effect's lifetime.
    pub lease: Option<String>,
    /// How often the effect is made anew while it lasts, for a device that keeps it for an hour at most.
    pub renew: Option<Span>,
    /// The action whose effect with the same identifying values this one ends.
    pub ends: Option<Arc<str>>,
    /// Bounds.
    pub limits: ActionLimits,
    pub(super) recipes: BTreeMap<Platform, Recipe>,
}

/// Why there are no commands.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandsError {
    /// The catalogue does not know how on this platform.
    #[error("{action} has no commands for this device's platform; its file would need a [platform.{platform}] table")]
    Platform {
        /// The action.
        action: Arc<str>,
        /// The platform's word.
        platform: &'static str,
    },
    /// It cannot be undone.
    #[error("{action} cannot be undone: {why}")]
    NoUndo {
        /// The action.
        action: Arc<str>,
        /// What its file says.
        why: String,
    },
}

impl Action {
    /// The declared parameter of this name.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|param| param.name == name)
    }

    /// The platforms that it can be carried out on.
    pub fn platforms(&self) -> impl Iterator<Item = Platform> {
        self.recipes.keys().copied()
    }

    /// Whether it changes nothing on the device: what it prints is what it is for.
    ///
    /// # Errors
    /// The platform is not supported.
    pub fn only_reads(&self, platform: Platform) -> Result<bool, CommandsError> {
        Ok(self.recipe(platform)?.apply.is_empty())
    }

    /// Whether what `verify` prints must be something else than before.
    ///
    /// # Errors
    /// The platform is not supported.
    pub fn must_change(&self, platform: Platform) -> Result<bool, CommandsError> {
        Ok(self.recipe(platform)?.changes)
    }

    /// The commands of an operation, in their order, with the values put in.
    ///
    /// # Errors
    /// The platform is not supported, or the action has no undo.
    pub fn commands(&self, op: Op, platform: Platform, params: &Params) -> Result<Vec<Command>, CommandsError> {
        Ok(self.templates(op, platform)?.iter().map(|template| template.render(params)).collect())
    }

    pub(super) fn templates(&self, op: Op, platform: Platform) -> Result<&[CommandTemplate], CommandsError> {
        let recipe = self.recipe(platform)?;
        Ok(match op {
            Op::Apply => &recipe.apply,
            Op::Verify => &recipe.verify,
            Op::Confirm => &recipe.confirm,
            Op::Undo => recipe.undo.as_ref().map_err(|why| CommandsError::NoUndo { action: self.name.clone(), why: why.clone() })?,
        })
    }

    /// The commands of an operation as the file has them, a text each.
    ///
    /// # Errors
    /// Why there are none.
    pub fn written(&self, op: Op, platform: Platform) -> Result<Vec<String>, String> {
        let text = |command: &CommandTemplate| {
            let argv = command_line(&command.argv.iter().map(ToString::to_string).collect::<Vec<_>>());
            command.stdin.as_ref().map_or(argv.clone(), |stdin| format!("{argv} <<\n{stdin}"))
        };
        self.templates(op, platform).map(|templates| templates.iter().map(text).collect()).map_err(|error| match error {
            CommandsError::NoUndo { why, .. } => why,
            other => other.to_string(),
        })
    }

    pub(super) fn recipe(&self, platform: Platform) -> Result<&Recipe, CommandsError> {
        let unsupported = || CommandsError::Platform { action: self.name.clone(), platform: platform.word() };
        self.recipes.get(&platform).ok_or_else(unsupported)
    }
}

impl CommandTemplate {
    fn render(&self, params: &Params) -> Command {
        Command { argv: self.argv.iter().map(|argument| argument.render(params)).collect(), stdin: self.stdin.as_ref().map(|script| script.render(params)) }
    }
}

/// All actions, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    pub(super) actions: BTreeMap<Arc<str>, Action>,
}

impl Catalogue {
    /// The action of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Action> {
        self.actions.get(name)
    }

    /// All actions, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Action> {
        self.actions.values()
    }

    /// The known name nearest to what was written.
    #[must_use]
    pub fn nearest(&self, written: &str) -> Option<&str> {
        diag::nearest(written, self.actions.keys().map(|name| &**name))
    }
}
