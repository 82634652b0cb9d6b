//! `opmas playbook`: which there are, and what they did.

use std::fmt::Write as _;
use std::path::Path;

use super::rows::{self, short, word};
use super::{Done, Exit, Failure, lease, show};
use crate::alert::visible;
use crate::config::Setup;
use crate::index::{Query, Rows, RunRow, RunStory, StepRow};
use crate::playbook::Playbook;

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the playbooks of the configuration.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// List runs, the newest first.
    Runs {
        /// At most so many, and 1000.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show a run with its steps and what came of them.
    Show {
        /// Its id, or the beginning of it.
        run: String,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    match command {
        Command::List { json } => list(config, *json),
        Command::Runs { limit, json } => runs(config, *limit, *json),
        Command::Show { run, json } => match rows::ask(config, &Query::Run { id: run.clone() })?.rows {
            Rows::Run(found) if *json => rows::json(&[found]),
            Rows::Run(found) => rows::show(&story(&found)),
            other => Err(rows::not_one(&other)),
        },
    }
}

fn list(config: Option<&Path>, json: bool) -> Done {
    let setup = Setup::load_or_default(config).map_err(|error| Failure::new(Exit::Invalid, error))?;
    setup.content.diagnostics().filter(|wrong| wrong.file.ends_with(".rhai")).for_each(|wrong| eprintln!("opmas: {wrong}"));
    let row = |playbook: &Playbook| {
        let actions: Vec<&str> = playbook.actions.iter().map(|action| &*action.name).collect();
        let rules: Vec<&str> = playbook.on.rules().map(|rule| &**rule).collect();
        serde_json::json!({"name": playbook.name, "mode": playbook.mode.word(), "actions": actions, "rules": rules, "title": playbook.title, "file": playbook.file})
    };
    let found: Vec<_> = setup.content.playbooks.iter().map(row).collect();
    rows::list(&found, false, json, ["NAME", "MODE", "ACTIONS", "RULES", "TITLE"], |row| {
        ["name", "mode", "actions", "rules", "title"].map(|column| match row.get(column) {
            Some(serde_json::Value::Array(words)) => words.iter().filter_map(|word| word.as_str()).collect::<Vec<_>>().join(" "),
            Some(value) => value.as_str().unwrap_or_default().to_owned(),
            None => String::new(),
        })
    })
}

fn runs(config: Option<&Path>, limit: usize, json: bool) -> Done {
    let answer = rows::ask(config, &Query::Runs { limit })?;
    let Rows::Runs(found) = &answer.rows else { return Err(rows::not_one(&answer.rows)) };
    rows::list(found, answer.more, json, ["RUN", "PLAYBOOK", "STATE", "STEPS", "BEGAN", "FINDING", "REASON"], |run: &RunRow| {
        [run.run.to_string(), run.playbook.to_string(), word(run.state), run.steps.to_string(), run.at.to_string(), short(&run.finding.0), run.reason.clone()]
    })
}

/// A run with its steps.
pub(super) fn story(story: &RunStory) -> String {
    let run = &story.run;
    let (state, reason) = (word(run.state), visible(&run.reason, 1_000));
    let mut out =
        format!("run {} of {} for finding {}, began {}\n  {state} at {}  {reason}\n", run.run, run.playbook, short(&run.finding.0), run.at, run.moved);
    for row in &story.steps {
        out.push_str(&step(row));
    }
    out
}

fn step(row: &StepRow) -> String {
    let step = &row.step;
    let what = visible(&format!("{} {} on {}", step.action, lease::params(&step.params), step.device), 1_000);
    let mut out = format!("  step {}: {what}  {} ({})\n", visible(&step.key, 100), word(step.decision), visible(&step.reason, 1_000));
    out.push_str(&show::commands(step));
    let _ = match &row.outcome {
        Some(end) => {
            writeln!(out, "    {} at {} after {} attempts, {} ms: {}", word(end.state), end.at, row.attempts, end.took_ms, visible(&end.detail, 1_000))
        }
        None => writeln!(out, "    no outcome yet, {} attempts", row.attempts),
    };
    out
}
