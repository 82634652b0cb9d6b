//! Actions as the catalogue knows them: typed parameters, and commands per platform.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::Check;
use super::params::Params;
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
    /// Whether the guard looks at it (addresses: yes unless the file says `guarded = false`).
    pub guarded: bool,
}

/// Bounds of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActionLimits {
    /// The longest that one command may take.
    pub time: Span,
    /// The most bytes that one command may print.
    pub output_bytes: usize,
}

/// How an action is carried out on a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recipe {
    pub(super) check: Check,
    pub(super) apply: Vec<CommandTemplate>,
    pub(super) verify: Vec<CommandTemplate>,
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

    /// The commands of an operation, in their order, with the values put in.
    ///
    /// # Errors
    /// The platform is not supported, or the action has no undo.
    pub fn commands(&self, op: Op, platform: Platform, params: &Params) -> Result<Vec<Command>, CommandsError> {
        let recipe = self.recipe(platform)?;
        let templates = match op {
            Op::Apply => &recipe.apply,
            Op::Verify => &recipe.verify,
            Op::Undo => recipe.undo.as_ref().map_err(|why| CommandsError::NoUndo { action: self.name.clone(), why: why.clone() })?,
        };
        Ok(templates.iter().map(|template| template.render(params)).collect())
    }

    pub(super) fn recipe(&self, platform: Platform) -> Result<&Recipe, CommandsError> {
        let unsupported = || CommandsError::Platform { action: self.name.clone(), platform: platform_word(platform) };
        self.recipes.get(&platform).ok_or_else(unsupported)
    }
}

impl CommandTemplate {
    fn render(&self, params: &Params) -> Command {
        Command { argv: self.argv.iter().map(|argument| argument.render(params)).collect(), stdin: self.stdin.as_ref().map(|script| script.render(params)) }
    }
}

/// A platform as files write it.
#[must_use]
pub(super) fn platform_word(platform: Platform) -> &'static str {
    match platform {
        Platform::OpenwrtFw4 => "openwrt-fw4",
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
