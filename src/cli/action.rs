//! `opmas action`: the catalogue, and how far each action may go.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::rows::{self, word};
use super::{Done, Exit, Failure};
use crate::action::{Action, Mode, Op, Param, Risk};
use crate::config::Setup;
use crate::model::{Platform, Span};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the actions of the configuration.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one action: its parameters, its commands on each platform, how it is read back and undone.
    Show {
        /// The action's name.
        name: String,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// An action as it is told of.
#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    title: &'a str,
    description: &'a str,
    risk: Risk,
    /// How far it may go, as `[actions]` says.
    ceiling: Mode,
    params: Vec<ParamRow<'a>>,
    platforms: Vec<PlatformRow>,
    /// The parameters that make two calls one effect.
    idempotence: &'a [String],
    /// The parameter that is the effect's lifetime.
    lease: Option<&'a str>,
    renew: Option<Span>,
    /// The action whose effect it ends.
    ends: Option<&'a str>,
    time: Span,
    output_bytes: usize,
    settle: Span,
}

#[derive(Serialize)]
struct ParamRow<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    wanted: String,
    default: Option<serde_json::Value>,
    guarded: bool,
    description: &'a str,
}

#[derive(Serialize)]
struct PlatformRow {
    platform: &'static str,
    apply: Vec<String>,
    verify: Vec<String>,
    confirm: Vec<String>,
    undo: Option<Vec<String>>,
    no_undo: Option<String>,
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    let setup = Setup::load_or_default(config).map_err(|error| Failure::new(Exit::Invalid, error))?;
    setup.content.diagnostics().filter(|wrong| wrong.file.contains("/actions/")).for_each(|wrong| eprintln!("opmas: {wrong}"));
    let catalogue = &setup.content.catalogue;
    let row = |action| row(action, setup.settings.actions.of(&action.name));
    match command {
        Command::List { json } => {
            let found: Vec<Row> = catalogue.iter().map(row).collect();
            rows::list(&found, false, *json, ["NAME", "PARAMETERS", "RISK", "CEILING", "UNDO", "PLATFORMS", "TITLE"], cells)
        }
        Command::Show { name, json } => {
            let unknown = || {
                let help = catalogue.nearest(name).map_or_else(|| "see `opmas action list`".to_owned(), |near| format!("did you mean `{near}`?"));
                Failure::new(Exit::Usage, format!("there is no action `{}`; {help}", name.escape_debug()))
            };
            let row = row(catalogue.get(name).ok_or_else(unknown)?);
            if *json { rows::json(&[row]) } else { rows::show(&shown(&row)) }
        }
    }
}

fn row(action: &Action, ceiling: Mode) -> Row<'_> {
    Row {
        name: &action.name,
        title: &action.title,
        description: &action.description,
        risk: action.risk,
        ceiling,
        params: action.params.iter().map(param).collect(),
        platforms: action.platforms().map(|platform| commands(action, platform)).collect(),
        idempotence: &action.idempotence,
        lease: action.lease.as_deref(),
        renew: action.renew,
        ends: action.ends.as_deref(),
        time: action.limits.time,
        output_bytes: action.limits.output_bytes,
        settle: action.limits.settle,
    }
}

fn param(param: &Param) -> ParamRow<'_> {
    ParamRow {
        name: &param.name,
        kind: param.grammar.word(),
        wanted: param.grammar.to_string(),
        default: param.default.as_ref().map(|default| default.to_json()),
        guarded: param.guarded,
        description: &param.description,
    }
}

fn commands(action: &Action, platform: Platform) -> PlatformRow {
    let of = |op| action.written(op, platform);
    let (undo, no_undo) = match of(Op::Undo) {
        Ok(commands) => (Some(commands), None),
        Err(why) => (None, Some(why)),
    };
    let [apply, verify, confirm] = [Op::Apply, Op::Verify, Op::Confirm].map(|op| of(op).unwrap_or_default());
    PlatformRow { platform: platform.word(), apply, verify, confirm, undo, no_undo }
}

fn cells(row: &Row<'_>) -> [String; 7] {
    let optional = |param: &ParamRow| if param.default.is_some() { format!("[{}]", param.name) } else { param.name.to_owned() };
    let params: Vec<String> = row.params.iter().map(optional).collect();
    let platforms: Vec<&str> = row.platforms.iter().map(|one| one.platform).collect();
    let reads = row.platforms.iter().all(|one| one.apply.is_empty());
    let undo = match (row.lease, row.platforms.iter().any(|one| one.undo.is_some())) {
        (Some(_), true) => "at its end",
        (None, true) => "yes",
        (_, false) if reads => "only reads",
        (_, false) => "no",
    };
    [row.name.to_owned(), params.join(" "), word(row.risk), row.ceiling.word().to_owned(), undo.to_owned(), platforms.join(" "), row.title.to_owned()]
}

fn shown(row: &Row<'_>) -> String {
    let mut out = format!("{}: {}\n", row.name, row.title);
    if !row.description.is_empty() {
        let _ = writeln!(out, "{}", row.description);
    }
    let _ = writeln!(out, "risk {}, may go as far as {} ([actions] {})", word(row.risk), row.ceiling.word(), row.name);
    for param in &row.params {
        let default = param.default.as_ref().map_or(String::new(), |default| format!("; {default} unless given"));
        let guarded = if param.guarded { "; guarded" } else { "" };
        let _ = writeln!(out, "  {}: {}: {}{default}{guarded}", param.name, param.description, param.wanted);
    }
    if !row.idempotence.is_empty() {
        let _ = writeln!(out, "one effect for each {}", row.idempotence.join(", "));
    }
    if let Some(lease) = row.lease {
        let renewed = row.renew.map_or(String::new(), |renew| format!(", made anew every {renew}"));
        let _ = writeln!(out, "lasts as long as {lease} says{renewed}");
    }
    if let Some(ends) = row.ends {
        let _ = writeln!(out, "ends what {ends} does");
    }
    let settle = if row.settle > Span::ZERO { format!("; read back for up to {}", row.settle) } else { String::new() };
    let _ = writeln!(out, "each command may take {} and print {} bytes{settle}", row.time, row.output_bytes);
    for platform in &row.platforms {
        let _ = writeln!(out, "on {}", platform.platform);
        let parts = [
            ("does", Some(&platform.apply)),
            ("reads back", Some(&platform.verify)),
            ("confirms", Some(&platform.confirm)),
            ("undoes", platform.undo.as_ref()),
        ];
        for (what, commands) in parts.into_iter().filter_map(|(what, commands)| Some((what, commands.filter(|all| !all.is_empty())?))) {
            let _ = writeln!(out, "  {what}");
            for line in commands.iter().flat_map(|command| command.lines()) {
                let _ = writeln!(out, "    {line}");
            }
        }
        if let Some(why) = &platform.no_undo {
            let _ = writeln!(out, "  is not undone: {why}");
        }
    }
    out
}
