//! `opmas playbook`: which there are, what they did, and what they are to do.

use std::fmt::Write as _;
use std::path::Path;

use super::hand::{self, OneRun, Why};
use super::rows::{self, short, word};
use super::{Done, Exit, Failure, lease, show};
use crate::action;
use crate::alert::visible;
use crate::api::control::{Answer, Request};
use crate::config::{Content, Setup};
use crate::engine::Wish;
use crate::engine::replay::{self, Told};
use crate::index::{Query, Rows, RunRow, RunStory, StepRow};
use crate::model::{Posture, RunState, Step};
use crate::playbook::{Playbook, functions};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the playbooks of the configuration.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// List what scripts may call, beside the actions of the catalogue.
    Functions {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Run a playbook for a finding now, whatever started it before.
    Run {
        /// The playbook's name.
        playbook: String,
        /// The finding's id, or the beginning of it.
        #[arg(long)]
        finding: String,
        /// Only show the steps, with their exact commands and how they would be undone.
        #[arg(long)]
        dry_run: bool,
        /// With --dry-run: as if this posture were in effect; without it the configured one.
        #[arg(long, requires = "dry_run", value_parser = posture)]
        posture: Option<Posture>,
        #[command(flatten)]
        why: Why,
    },
    /// Run one that has ended anew, with the playbook as it is now.
    Rerun {
        #[command(flatten)]
        one: OneRun,
        /// Those before this step are not taken again: its key as `playbook show` prints it, or the part before `-`.
        #[arg(long, value_name = "STEP")]
        from: Option<String>,
    },
    /// Have a run take no further step until it is resumed.
    Pause(OneRun),
    /// Have a run go on; an effect that is not known is read back once more, or a person says what became of it.
    Resume {
        #[command(flatten)]
        one: OneRun,
        /// You have looked: the step that it waits for was done. It counts as that and the run goes on.
        #[arg(long, conflicts_with = "again")]
        done: bool,
        /// The step that it waits for is attempted once more; you have looked, and it was not done, or may be done twice.
        #[arg(long)]
        again: bool,
    },
    /// End a run: what was not begun is not carried out.
    Cancel(OneRun),
    /// List runs, the newest first.
    Runs {
        /// Only those that stand there: running, waiting, paused, done, failed, diverged, cancelled.
        #[arg(long, value_parser = state)]
        state: Option<RunState>,
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
        Command::Functions { json } => {
            rows::list(&functions(), false, *json, ["CALL", "WHAT IT IS"], |function| [function.call.to_string(), function.text.to_owned()])
        }
        Command::Run { playbook, finding, dry_run: true, posture, .. } => dry_run(config, playbook, finding, *posture),
        Command::Rerun { one, from } => begun(config, &Request::Rerun { run: one.run.clone(), from: from.clone(), because: one.why.because.clone() }),
        Command::Run { playbook, finding, why, .. } => begin(config, playbook, finding, why),
        Command::Pause(one) => hand::order(config, one, Wish::Pause, "takes no further step"),
        Command::Resume { one, done: true, .. } => hand::order(config, one, Wish::Done, "goes on; the step counts as done"),
        Command::Resume { one, again: true, .. } => hand::order(config, one, Wish::Again, "goes on; the step is attempted once more"),
        Command::Resume { one, .. } => hand::order(config, one, Wish::Resume, "goes on"),
        Command::Cancel(one) => hand::order(config, one, Wish::Cancel, "takes no further step and ends"),
        Command::Runs { state, limit, json } => runs(config, *state, *limit, *json),
        Command::Show { run, json } => match rows::ask(config, &Query::Run { id: run.clone() })?.rows {
            Rows::Run(found) if *json => rows::json(&[found]),
            Rows::Run(found) => rows::show(&story(&found)),
            other => Err(rows::not_one(&other)),
        },
    }
}

fn state(text: &str) -> Result<RunState, String> {
    serde_json::from_value(text.into()).map_err(|_| "it is one of running, waiting, paused, done, failed, diverged, cancelled".to_owned())
}

fn posture(word: &str) -> Result<Posture, String> {
    let all = [Posture::Observe, Posture::Guarded, Posture::Armed];
    all.into_iter().find(|posture| posture.word() == word).ok_or_else(|| "it is one of observe, guarded, armed".to_owned())
}

fn begin(config: Option<&Path>, playbook: &str, finding: &str, why: &Why) -> Done {
    begun(config, &Request::Begin { playbook: playbook.to_owned(), finding: finding.to_owned(), because: why.because.clone() })
}

fn begun(config: Option<&Path>, request: &Request) -> Done {
    match hand::tell(config, request)? {
        Answer::Done { run } => rows::show(&format!("run {run} has begun; see `opmas playbook show {run}`\n")),
        other => Err(hand::unexpected(&other)),
    }
}

/// Needs no running opmas: the configuration and the index are enough.
fn dry_run(config: Option<&Path>, name: &str, finding: &str, posture: Option<Posture>) -> Done {
    let mut setup = Setup::load_or_default(config).map_err(|error| Failure::new(Exit::Invalid, error))?;
    let unknown = || Failure::new(Exit::Usage, format!("there is no playbook `{}`; see `opmas playbook list`", name.escape_debug()));
    let playbook = setup.content.playbooks.get(name).cloned().ok_or_else(unknown)?;
    let story = match rows::ask(config, &Query::Finding { id: finding.to_owned() })?.rows {
        Rows::Finding(story) => story,
        other => return Err(rows::not_one(&other)),
    };
    match posture {
        Some(posture) => setup.settings.posture = posture,
        None => eprintln!("opmas: with the configured posture, {}; --posture takes another", setup.settings.posture.word()),
    }
    let told = replay::of_playbook(&setup, &playbook, &story.finding).map_err(|error| Failure::new(Exit::Invalid, error))?;
    let mut out = String::new();
    for one in &told {
        match one {
            Told::Step(step) => [show::step(step), undo(&setup.content, step)].iter().for_each(|text| out.push_str(text)),
            Told::Note(why) => eprintln!("opmas: {}", visible(why, 1_000)),
            Told::Finding { .. } | Told::Alert(_) => {}
        }
    }
    rows::show(if told.is_empty() { "it would take no step\n" } else { &out })?;
    // The only notes here are of a script that fails.
    Ok(if told.iter().any(|one| matches!(one, Told::Note(_))) { Exit::Wrong } else { Exit::Done })
}

/// How a step would be undone.
fn undo(content: &Content, step: &Step) -> String {
    let found = content.catalogue.get(&step.action).zip(content.inventory.by_name(&step.device));
    let plan = found.and_then(|(action, device)| action::plan(action, device.platform, &action.params(&step.params).ok()?).ok());
    match plan.map(|plan| plan.undo) {
        None => String::new(),
        Some(Err(why)) => format!("  cannot be undone: {}\n", visible(&why, 1_000)),
        Some(Ok(commands)) => {
            let (commands, stdin) = commands.into_iter().map(|command| (command.argv, command.stdin)).unzip();
            format!("  undone by\n{}", show::commands(&Step { commands, stdin, ..step.clone() }))
        }
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

fn runs(config: Option<&Path>, state: Option<RunState>, limit: usize, json: bool) -> Done {
    let answer = rows::ask(config, &Query::Runs { state, limit })?;
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
    if let Some(by) = &run.by {
        let _ = writeln!(out, "  begun by {by}");
    }
    for answer in &run.answers {
        let word = if answer.approved { "approved" } else { "denied" };
        let _ = writeln!(out, "  {word} by {} at {}, {} steps  {}", answer.by, answer.at, answer.steps, visible(&answer.because, 1_000));
    }
    for row in story.steps.iter().filter(|row| row.outcome.is_some() || run.plan.iter().all(|planned| planned.key != row.step.key)) {
        out.push_str(&step(row));
    }
    if let Some(until) = run.until {
        let _ = writeln!(out, "  asks until {until} to carry out:");
        run.plan.iter().for_each(|step| out.push_str(&asked(step)));
    }
    out
}

/// What is asked for, with the exact commands and the verdict.
fn asked(step: &Step) -> String {
    let on = show::device(step).map_or_else(String::new, |device| format!(" on {device}"));
    let what = visible(&format!("{} {}{on}", step.action, lease::params(&step.params)), 1_000);
    let (verdict, reason) = (word(step.decision), visible(&step.reason, 1_000));
    format!("  step {}: {what}  {verdict} ({reason})\n{}", visible(&step.key, 100), show::commands(step))
}

fn step(row: &StepRow) -> String {
    let mut out = asked(&row.step);
    let _ = match &row.outcome {
        Some(end) => {
            let kept = end.evidence.as_ref().map_or(String::new(), |hash| format!("    what was read is kept as evidence/{hash}\n"));
            let _ = write!(out, "{kept}");
            writeln!(out, "    {} at {} after {} attempts, {} ms: {}", word(end.state), end.at, row.attempts, end.took_ms, visible(&end.detail, 1_000))
        }
        None if row.said.is_empty() => writeln!(out, "    no outcome yet, {} attempts", row.attempts),
        None => writeln!(out, "    no outcome yet, {} attempts: {}", row.attempts, visible(&row.said, 1_000)),
    };
    out
}
