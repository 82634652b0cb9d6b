//! `opmas finding`: what was found, and what was done about it.

use std::fmt::Write as _;
use std::path::Path;

use super::rows::{self, short, word};
use super::{Done, show};
use crate::alert::visible;
use crate::clock;
use crate::index::{DeliveryRow, Filter, FindingStory, Query, Rows};
use crate::model::{Finding, Severity, Span};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List findings, the newest first.
    List(List),
    /// Show one with its evidence, runs and deliveries.
    Show {
        /// Its id, or the beginning of it.
        id: String,
        /// As one JSON object.
        #[arg(long)]
        json: bool,
    },
}

/// Arguments of `opmas finding list`.
#[derive(clap::Args)]
pub(super) struct List {
    /// At least this severity, 1 (info) to 5 (critical).
    #[arg(long, value_name = "1-5", value_parser = severity)]
    severity: Option<Severity>,
    /// Only of this rule, by its id or name.
    #[arg(long)]
    rule: Option<String>,
    /// Only on this device.
    #[arg(long)]
    device: Option<String>,
    /// Only those of the last time, such as `1h` or `7d`.
    #[arg(long, value_name = "SPAN")]
    since: Option<Span>,
    /// At most so many, and 1000.
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

fn severity(text: &str) -> Result<Severity, String> {
    text.parse::<u8>().map_err(|_| "not a number".to_owned()).and_then(Severity::try_from)
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    match command {
        Command::List(arguments) => list(config, arguments),
        Command::Show { id, json } => match rows::ask(config, &Query::Finding { id: id.clone() })?.rows {
            Rows::Finding(story) if *json => rows::json(&[story]),
            Rows::Finding(story) => rows::show(&text(&story)),
            other => Err(rows::not_one(&other)),
        },
    }
}

fn list(config: Option<&Path>, arguments: &List) -> Done {
    let since = arguments.since.map(|span| clock::now().minus(span));
    let filter = Filter { rule: arguments.rule.clone(), severity: arguments.severity, device: arguments.device.clone(), since };
    let answer = rows::ask(config, &Query::Findings { filter, limit: arguments.limit })?;
    let Rows::Findings(found) = &answer.rows else { return Err(rows::not_one(&answer.rows)) };
    rows::list(found, answer.more, arguments.json, ["ID", "TIME", "SEVERITY", "DEVICE", "TITLE", "TEXT"], |finding: &Finding| {
        let severity = format!("{} {}", u8::from(finding.severity), finding.level);
        let device = finding.device.as_deref().unwrap_or("-").to_owned();
        [short(&finding.id.0), finding.time.to_string(), severity, device, finding.title.to_string(), finding.text.clone()]
    })
}

fn text(story: &FindingStory) -> String {
    let finding = &story.finding;
    let device = finding.device.as_deref().unwrap_or("-");
    let mut out = format!("finding {}\nat {} on {}  rule {}\n", finding.id, finding.time, visible(device, 100), visible(&finding.rule.id, 100));
    out.push_str(&show::finding(finding));
    for (role, entity) in &finding.entities {
        let _ = writeln!(out, "  {}: {}", visible(role, 100), visible(&entity.value, 200));
    }
    if let Some(todo) = &finding.remediation {
        let _ = writeln!(out, "what to do: {}", visible(todo, 1_000));
    }
    let _ = writeln!(out, "triage: {}", story.triage.as_deref().map_or_else(|| "not yet".to_owned(), |reason| visible(reason, 1_000)));
    story.runs.iter().for_each(|run| out.push_str(&super::playbook::story(run)));
    story.deliveries.iter().for_each(|delivery| out.push_str(&told(delivery)));
    out
}

fn told(delivery: &DeliveryRow) -> String {
    let next = delivery.next.map_or_else(String::new, |next| format!(", tried again at {next}"));
    let (state, reason) = (word(delivery.state), visible(&delivery.reason, 1_000));
    format!("delivery {} to {}: {state} at {}, {} attempts{next}  {reason}\n", short(&delivery.delivery), delivery.channel, delivery.moved, delivery.attempts)
}
