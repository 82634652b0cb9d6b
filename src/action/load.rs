//! Action files, checked and turned into the catalogue. The unit that is accepted or refused is the file.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;

use super::catalogue::{Action, ActionLimits, Catalogue, CommandTemplate, Param, Recipe};
use super::file::{ActionFile, CommandTable, LimitsTable, PlatformTable};
use super::load_check::load_check;
use super::load_param::load_param;
use super::template::{Spot, Template, TemplateError};
use super::value::Grammar;
use crate::diag::{self, Diagnostic, Place, SourceFile};
use crate::model::{Platform, Span};

/// Most action files that one catalogue takes.
pub const MAX_ACTIONS: usize = 512;
/// Most parameters of an action.
pub const MAX_PARAMS: usize = 16;
/// Most commands of one operation.
pub const MAX_COMMANDS: usize = 16;
/// The longest that one command may be allowed to take: a device's queue waits for it.
const MAX_TIME: Span = Span::secs(300);
/// The most that one command may be allowed to print.
const MAX_OUTPUT: usize = 4 * 1024 * 1024;
/// Programs that read an argument as code; free text is not given to them.
const INTERPRETERS: &[&str] = &[
    "sh",
    "ash",
    "bash",
    "dash",
    "hush",
    "busybox",
    "eval",
    "awk",
    "gawk",
    "sed",
    "lua",
    "ucode",
    "python",
    "python3",
    "perl",
    "env",
    "xargs",
    "su",
    "sudo",
    "find",
    "time",
    "timeout",
    "nohup",
    "nice",
    "setsid",
    "flock",
    "start-stop-daemon",
    "nft",
    "ssh",
    "jsonfilter",
];

/// The text that places in diagnostics are taken from.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    file: &'a SourceFile,
}

impl Text<'_> {
    pub(super) fn wrong(&self, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.file.name.clone(), Place::of_offset(&self.file.text, span.start), message)
    }

    /// The place of `needle` inside a span (a variable in a script), else of the span.
    fn within(&self, span: Range<usize>, needle: &str) -> Range<usize> {
        let inside = self.file.text.get(span.clone()).and_then(|text| text.find(needle)).unwrap_or(0);
        span.start + inside..span.end
    }
}

impl Catalogue {
    /// Loads action files. Each is named as its file is, without folder and `.toml`; a later file replaces an earlier one of the
    /// same name. A file with anything wrong in it is left out, and the diagnostics say what and where.
    #[must_use]
    pub fn load(files: &[SourceFile]) -> (Catalogue, Vec<Diagnostic>) {
        let mut catalogue = Catalogue::default();
        let mut diagnostics = Vec::new();
        for file in files {
            match load_file(file) {
                Ok(action) if catalogue.actions.len() < MAX_ACTIONS || catalogue.actions.contains_key(&action.name) => {
                    catalogue.actions.insert(action.name.clone(), action);
                }
                Ok(_) => diagnostics.push(Text { file }.wrong(0..0, format!("more than {MAX_ACTIONS} actions"))),
                Err(wrong) => diagnostics.push(wrong),
            }
        }
        (catalogue, diagnostics)
    }
}

fn load_file(file: &SourceFile) -> Result<Action, Diagnostic> {
    let text = Text { file };
    let written: ActionFile = diag::from_toml(&file.name, &file.text)?;
    let params = load_params(text, &written)?;
    let recipes = load_recipes(text, &written.platform, &params)?;
    let lease = written.lease.as_ref().map(|lease| named(text, lease, &params)).transpose()?;
    if let (Some(span), Some(param)) = (written.lease.as_ref().map(Spanned::span), lease)
        && !matches!(param.grammar, Grammar::Duration { .. })
    {
        return Err(text.wrong(span, format!("the lease parameter `{}` is not of type duration", param.name)));
    }
    if let (Some(span), Some(lease)) = (written.lease.as_ref().map(Spanned::span), lease)
        && written.idempotence.iter().any(|name| *name.get_ref() == lease.name)
    {
        return Err(text.wrong(span, "the lifetime cannot identify the effect").help("leave it out of `idempotence`"));
    }
    let idempotence = written.idempotence.iter().map(|name| Ok(named(text, name, &params)?.name.clone())).collect::<Result<_, Diagnostic>>()?;
    Ok(Action {
        name: action_name(text)?,
        lease: lease.map(|param| param.name.clone()),
        renew: load_renew(text, &written)?,
        ends: written.ends.as_deref().map(Into::into),
        idempotence,
        limits: load_limits(text, &written.limits)?,
        title: written.title,
        description: written.description.trim().to_owned(),
        risk: written.risk,
        assumed: written.assumed,
        params,
        recipes,
    })
}

fn load_renew(text: Text<'_>, written: &ActionFile) -> Result<Option<Span>, Diagnostic> {
    match written.renew {
        Some(renew) if written.lease.is_none() || renew < Span::secs(1) => {
            let place = text.within(0..text.file.text.len(), "renew");
            Err(text.wrong(place, "`renew` is a time of at least 1s, in an action with a `lease`"))
        }
        renew => Ok(renew),
    }
}

fn action_name(text: Text<'_>) -> Result<Arc<str>, Diagnostic> {
    let base = text.file.name.rsplit('/').next().unwrap_or_default();
    let name = base.strip_suffix(".toml").unwrap_or(base);
    if !is_name(name) {
        return Err(text.wrong(0..0, "an action's file name is lower-case letters, digits and `_`, then `.toml`"));
    }
    Ok(name.into())
}

pub(super) fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    name.len() <= 64 && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) && name.bytes().all(plain)
}

fn load_params(text: Text<'_>, written: &ActionFile) -> Result<Vec<Param>, Diagnostic> {
    let mut tables: Vec<_> = written.params.iter().collect();
    // The file's order is the order of a playbook's arguments.
    tables.sort_by_key(|(name, _)| name.span().start);
    if let Some((name, _)) = tables.get(MAX_PARAMS) {
        return Err(text.wrong(name.span(), format!("an action has at most {MAX_PARAMS} parameters")));
    }
    tables.into_iter().map(|(name, table)| load_param(text, name, table)).collect()
}

pub(super) fn named<'a>(text: Text<'_>, name: &Spanned<String>, params: &'a [Param]) -> Result<&'a Param, Diagnostic> {
    let found = params.iter().find(|param| param.name == *name.get_ref());
    found.ok_or_else(|| unknown_param(text, name.span(), name.get_ref(), params))
}

fn unknown_param(text: Text<'_>, span: Range<usize>, written: &str, params: &[Param]) -> Diagnostic {
    let known = || params.iter().map(|param| param.name.as_str());
    let wrong = text.wrong(span, format!("unknown parameter `{written}`"));
    match diag::nearest(written, known()) {
        Some(word) => wrong.help(format!("did you mean `{word}`?")),
        None => wrong.help(format!("known: {}", known().collect::<Vec<_>>().join(", "))),
    }
}

fn load_limits(text: Text<'_>, written: &LimitsTable) -> Result<ActionLimits, Diagnostic> {
    let header = text.within(0..text.file.text.len(), "[limits]");
    if written.time <= Span::ZERO || written.time > MAX_TIME {
        return Err(text.wrong(header, format!("`time` must be between 1ms and {MAX_TIME}")));
    }
    if written.output_bytes == 0 || written.output_bytes > MAX_OUTPUT {
        return Err(text.wrong(header, format!("`output_bytes` must be between 1 and {MAX_OUTPUT}")));
    }
    if written.settle < Span::ZERO || written.settle > MAX_TIME {
        return Err(text.wrong(header, format!("`settle` must not be above {MAX_TIME}")));
    }
    Ok(ActionLimits { time: written.time, output_bytes: written.output_bytes, settle: written.settle })
}

fn load_recipes(text: Text<'_>, written: &Spanned<BTreeMap<Platform, PlatformTable>>, params: &[Param]) -> Result<BTreeMap<Platform, Recipe>, Diagnostic> {
    if written.get_ref().is_empty() {
        return Err(text.wrong(written.span(), "no platform").help(format!("write a [platform.{}] table", Platform::default().word())));
    }
    let mut recipes = BTreeMap::new();
    for (platform, table) in written.get_ref() {
        let recipe = load_recipe(text, table, params)?;
        recipes.extend(table.also.iter().map(|also| (*also, recipe.clone())));
        recipes.insert(*platform, recipe);
    }
    Ok(recipes)
}

fn load_recipe(text: Text<'_>, table: &PlatformTable, params: &[Param]) -> Result<Recipe, Diagnostic> {
    let check = load_check(text, &table.check, params)?;
    let undo = match (&table.undo, &table.no_undo) {
        (Some(commands), None) => Ok(load_commands(text, commands.get_ref(), params)?),
        (None, Some(why)) if !why.get_ref().trim().is_empty() => Err(why.get_ref().trim().to_owned()),
        _ => {
            return Err(text
                .wrong(table.check.span(), "a platform says how the action is undone or why it cannot be")
                .help("write `undo` or `no_undo = \"why\"`, one of them"));
        }
    };
    let verify = load_commands(text, table.verify.get_ref(), params)?;
    if !check.commands().contains(&verify.len()) {
        let (least, most) = (check.commands().start().to_owned(), check.commands().end().to_owned());
        let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
        return Err(text.wrong(table.verify.span(), format!("this check reads the output of {wanted} commands, and `verify` has {}", verify.len())));
    }
    let (apply, confirm) = (load_commands(text, &table.apply, params)?, load_commands(text, &table.confirm, params)?);
    Ok(Recipe { check, changes: table.changes, apply, verify, confirm, undo })
}

fn load_commands(text: Text<'_>, commands: &[CommandTable], params: &[Param]) -> Result<Vec<CommandTemplate>, Diagnostic> {
    if let Some(command) = commands.get(MAX_COMMANDS) {
        return Err(text.wrong(command.argv.span(), format!("an operation has at most {MAX_COMMANDS} commands")));
    }
    commands.iter().map(|command| load_command(text, command, params)).collect()
}

fn load_command(text: Text<'_>, command: &CommandTable, params: &[Param]) -> Result<CommandTemplate, Diagnostic> {
    let Some(program) = command.argv.get_ref().first() else {
        return Err(text.wrong(command.argv.span(), "a command without a program"));
    };
    let base = program.get_ref().rsplit('/').next().unwrap_or_default();
    let spot = if INTERPRETERS.contains(&base) { Spot::Script } else { Spot::Argument };
    let argv = command.argv.get_ref().iter().map(|argument| load_template(text, argument, spot, params)).collect::<Result<Vec<_>, _>>()?;
    if base.is_empty() || argv.first().is_some_and(Template::has_variables) {
        return Err(text.wrong(program.span(), "the program of a command is fixed").help("put values into its arguments"));
    }
    let stdin = command.stdin.as_ref().map(|script| load_template(text, script, Spot::Script, params)).transpose()?;
    Ok(CommandTemplate { argv, stdin })
}

pub(super) fn load_template(text: Text<'_>, written: &Spanned<String>, spot: Spot, params: &[Param]) -> Result<Template, Diagnostic> {
    let grammar = |name: &str| params.iter().find(|param| param.name == name).map(|param| &param.grammar);
    if written.get_ref().contains('\0') {
        return Err(text.wrong(written.span(), "a command cannot contain a NUL"));
    }
    Template::parse(written.get_ref(), spot, grammar).map_err(|error| match &error {
        TemplateError::UnknownParam(name) => unknown_param(text, text.within(written.span(), &format!("${{{name}")), name, params),
        TemplateError::UnknownProperty { param, .. } | TemplateError::FreeText(param) => {
            text.wrong(text.within(written.span(), &format!("${{{param}")), error.to_string())
        }
        TemplateError::Unclosed(from) => text.wrong(text.within(written.span(), from), error.to_string()),
    })
}
