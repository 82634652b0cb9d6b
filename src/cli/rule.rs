//! `opmas rule lint|list|fields`: rules as files, without running them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use super::eval::{Pipelines, Rules};
use super::{Done, Exit, Failure, rows};
use crate::api::control;
use crate::config::Setup;
use crate::diag::Diagnostic;
use crate::model::{LogSource, Severity};
use crate::sigma::{self, Body, Loaded, Rule, RuleSet, Weight};

/// `opmas rule`
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Say what is wrong with rules by the specification, by SigmaHQ's conventions, and where they may not do what was meant.
    Lint(Arguments),
    /// List rules, and what each does in the running opmas.
    List(List),
    /// List the fields that rules ask for, those that most rules ask for first.
    Fields(Arguments),
}

/// Which rules, and how they are shown.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A Sigma rule file, or a folder with *.yml and *.yaml, also in folders below; without it those of the configuration.
    #[arg(long, value_name = "PATH")]
    rules: Option<PathBuf>,
    #[command(flatten)]
    pipelines: Pipelines,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Arguments of `opmas rule list`.
#[derive(clap::Args)]
pub(super) struct List {
    /// Those that are live in the running opmas: how often and when they matched, what they cost alone on an event, what is wrong with their file.
    #[arg(long, conflicts_with_all = ["rules", "named"])]
    running: bool,
    #[command(flatten)]
    which: Arguments,
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    match command {
        Command::Lint(arguments) => lint(config, arguments),
        Command::List(List { running: true, which }) => running(config, which.json),
        Command::List(List { which, .. }) => list(config, which),
        Command::Fields(arguments) => fields(config, arguments),
    }
}

impl Arguments {
    /// The files, and what comes of them.
    fn load(&self, config: Option<&Path>) -> Result<(Rules, Loaded), Failure> {
        let mut rules = self.pipelines.rules(config, self.rules.as_deref())?;
        let loaded = rules.load();
        Ok((rules, loaded))
    }

    /// The rules that load; the others are named on standard error.
    fn set(&self, config: Option<&Path>) -> Result<RuleSet, Failure> {
        let (rules, loaded) = self.load(config)?;
        rules.whole(&loaded.diagnostics)?;
        if loaded.set.rules.is_empty() { Err(Failure::new(Exit::Invalid, "no rule loaded")) } else { Ok(loaded.set) }
    }
}

#[derive(Serialize)]
struct Remark<'a> {
    severity: Weight,
    file: &'a str,
    line: u32,
    column: u32,
    message: &'a str,
    help: Option<&'a str>,
}

/// Errors are something wrong (X1); warnings and hints are not.
fn lint(config: Option<&Path>, arguments: &Arguments) -> Done {
    let (rules, loaded) = arguments.load(config)?;
    let errors = loaded.diagnostics.into_iter().map(|wrong| (Weight::Error, wrong));
    let said: Vec<(Weight, Diagnostic)> = errors.chain(sigma::lint(&rules.found.files, &loaded.set)).collect();
    if arguments.json {
        let remark = |(severity, said): &(Weight, Diagnostic)| {
            serde_json::to_value(Remark {
                severity: *severity,
                file: &said.file,
                line: said.place.line,
                column: said.place.column,
                message: &said.message,
                help: said.help.as_deref(),
            })
        };
        rows::json(&said.iter().map(remark).collect::<Result<Vec<_>, _>>().map_err(|error| Failure::new(Exit::Invalid, error))?)?;
    } else {
        let mut text: String = said.iter().map(|(weight, said)| format!("{}: {said}\n", rows::word(weight))).collect();
        let count = |weight| said.iter().filter(|(own, _)| *own == weight).count();
        let (errors, warnings, hints) = (count(Weight::Error), count(Weight::Warning), count(Weight::Hint));
        text.push_str(&format!("{} rules: {errors} errors, {warnings} warnings, {hints} hints\n", loaded.set.rules.len()));
        rows::show(&text)?;
    }
    Ok(if said.iter().any(|(weight, _)| *weight == Weight::Error) { Exit::Wrong } else { Exit::Done })
}

#[derive(Serialize)]
struct Row<'a> {
    rule: &'a str,
    id: Option<&'a str>,
    name: Option<&'a str>,
    title: &'a str,
    level: Option<&'static str>,
    kind: &'static str,
    logsource: Option<&'a LogSource>,
    fields: Vec<Arc<str>>,
    /// Whether it reports nothing of its own (C11).
    silent: bool,
    file: &'a str,
    line: u32,
}

fn row<'a>(set: &'a RuleSet, index: usize, rule: &'a Rule) -> Row<'a> {
    let (kind, logsource) = match &rule.body {
        Body::Detection(detection) => ("detection", Some(&detection.logsource)),
        Body::Correlation(_) => ("correlation", None),
    };
    Row {
        rule: rule.key(),
        id: rule.id.as_deref(),
        name: rule.name.as_deref(),
        title: &rule.title,
        level: rule.level.map(Severity::level),
        kind,
        logsource,
        fields: sigma::fields(rule).into_iter().collect(),
        silent: set.is_silent(index),
        file: &rule.file,
        line: rule.place.line,
    }
}

fn list(config: Option<&Path>, arguments: &Arguments) -> Done {
    let set = arguments.set(config)?;
    let found: Vec<Row> = set.rules.iter().enumerate().map(|(index, rule)| row(&set, index, rule)).collect();
    rows::list(&found, false, arguments.json, ["RULE", "KIND", "LEVEL", "FILE", "TITLE"], |row| {
        [row.rule, row.kind, row.level.unwrap_or("-"), row.file, row.title].map(str::to_owned)
    })
}

fn running(config: Option<&Path>, json: bool) -> Done {
    let data = Setup::settings(config).map_err(|error| Failure::new(Exit::Invalid, error))?.1.data_dir;
    let unreachable = |why: String| Failure::new(Exit::Unreachable, why);
    let found = match control::ask(&data, &control::Request::Rules) {
        Ok(Some(control::Answer::Rules { rules })) => rules,
        Ok(None) => return Err(unreachable(format!("no opmas runs on {}; leave --running away to list the rules on disk", data.display()))),
        Ok(Some(_)) => return Err(unreachable("the running opmas is of another version".to_owned())),
        Err(error) => return Err(unreachable(format!("the running opmas does not answer: {error}"))),
    };
    rows::list(&found, false, json, ["RULE", "MATCHES", "LAST", "COST", "ERROR"], |row| {
        let last = row.last_match.map_or_else(|| "-".to_owned(), |time| time.to_string());
        let cost = row.cost.map_or_else(|| "-".to_owned(), |cost| format!("{cost:.2} µs"));
        [row.rule.to_string(), row.matches.to_string(), last, cost, row.error.clone().unwrap_or_default()]
    })
}

#[derive(Serialize)]
struct Field {
    field: Arc<str>,
    rules: usize,
}

fn fields(config: Option<&Path>, arguments: &Arguments) -> Done {
    let mut counted: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    for field in arguments.set(config)?.rules.iter().flat_map(sigma::fields) {
        *counted.entry(field).or_default() += 1;
    }
    let mut found: Vec<Field> = counted.into_iter().map(|(field, rules)| Field { field, rules }).collect();
    found.sort_by_key(|field| std::cmp::Reverse(field.rules));
    rows::list(&found, false, arguments.json, ["RULES", "FIELD"], |row| [row.rules.to_string(), row.field.to_string()])
}
