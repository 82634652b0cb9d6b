//! An action file as it is written: closed TOML tables.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::catalogue::{Assumed, Risk};
use crate::model::{Platform, Span};

/// Time that a command may take when the file does not say.
const DEFAULT_TIME: Span = Span::secs(10);
/// Bytes that a command may print when the file does not say.
const DEFAULT_OUTPUT: usize = 64 * 1024;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionFile {
    pub(super) title: String,
    #[serde(default)]
    pub(super) description: String,
    pub(super) risk: Risk,
    pub(super) assumed: Assumed,
    #[serde(default)]
    pub(super) params: BTreeMap<Spanned<String>, ParamTable>,
    pub(super) idempotence: Vec<Spanned<String>>,
    pub(super) lease: Option<Spanned<String>>,
    pub(super) renew: Option<Span>,
    pub(super) ends: Option<String>,
    #[serde(default)]
    pub(super) limits: LimitsTable,
    pub(super) platform: Spanned<BTreeMap<Platform, PlatformTable>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Ip,
    Prefix,
    Mac,
    Interface,
    Duration,
    Int,
    Enum,
    Word,
    Text,
}

/// One table for every type, so that a wrong key has its place; `load` refuses keys that the type does not have.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamTable {
    #[serde(rename = "type")]
    pub(super) kind: Spanned<Kind>,
    #[serde(default)]
    pub(super) description: String,
    pub(super) default: Option<Spanned<toml::Value>>,
    pub(super) min: Option<Spanned<toml::Value>>,
    pub(super) max: Option<Spanned<toml::Value>>,
    pub(super) values: Option<Spanned<Vec<String>>>,
    pub(super) guarded: Option<Spanned<bool>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    #[serde(default = "default_time")]
    pub(super) time: Span,
    #[serde(default = "default_output")]
    pub(super) output_bytes: usize,
    #[serde(default)]
    pub(super) settle: Span,
}

impl Default for LimitsTable {
    fn default() -> Self {
        LimitsTable { time: DEFAULT_TIME, output_bytes: DEFAULT_OUTPUT, settle: Span::ZERO }
    }
}

fn default_time() -> Span {
    DEFAULT_TIME
}

fn default_output() -> usize {
    DEFAULT_OUTPUT
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlatformTable {
    #[serde(default)]
    pub(super) also: Vec<Platform>,
    pub(super) check: Spanned<CheckTable>,
    #[serde(default)]
    pub(super) changes: bool,
    #[serde(default)]
    pub(super) apply: Vec<CommandTable>,
    pub(super) verify: Spanned<Vec<CommandTable>>,
    #[serde(default)]
    pub(super) confirm: Vec<CommandTable>,
    pub(super) undo: Option<Spanned<Vec<CommandTable>>>,
    pub(super) no_undo: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum CheckTable {
    NftSet(Box<NftSetTable>),
    Ipset(Box<NftSetTable>),
    Prints(Vec<Spanned<String>>),
    Json(Vec<JsonTable>),
    Output,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NftSetTable {
    pub(super) set: Spanned<String>,
    pub(super) element: Spanned<String>,
    pub(super) lifetime: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) absent: bool,
    #[serde(default)]
    pub(super) rules: BTreeMap<Spanned<String>, Vec<Spanned<String>>>,
}

/// One of `is`, `has`, `lacks`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonTable {
    #[serde(default)]
    pub(super) of: usize,
    pub(super) path: Spanned<String>,
    pub(super) is: Option<Spanned<String>>,
    pub(super) has: Option<Spanned<String>>,
    pub(super) lacks: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandTable {
    pub(super) argv: Spanned<Vec<Spanned<String>>>,
    pub(super) stdin: Option<Spanned<String>>,
}
