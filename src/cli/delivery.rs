//! `opmas delivery`: who was told, and what they answered.

use std::path::Path;

use super::Done;
use super::rows::{self, short, word};
use crate::index::{DeliveryRow, Query, Rows, Standing};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List deliveries, the newest first.
    List {
        /// Only those that stand there: waiting, trying, retry, sent, failed, unknown.
        #[arg(long, value_parser = standing)]
        state: Option<Standing>,
        /// At most so many, and 1000.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

fn standing(text: &str) -> Result<Standing, String> {
    serde_json::from_value(text.into()).map_err(|_| "it is one of waiting, trying, retry, sent, failed, unknown".to_owned())
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    let Command::List { state, limit, json } = command;
    let answer = rows::ask(config, &Query::Deliveries { state: *state, limit: *limit })?;
    let Rows::Deliveries(found) = &answer.rows else { return Err(rows::not_one(&answer.rows)) };
    rows::list(found, answer.more, *json, ["ID", "CHANNEL", "TELLS", "STATE", "ATTEMPTS", "AT", "NEXT", "FINDING", "REASON"], |row: &DeliveryRow| {
        let next = row.next.map_or_else(|| "-".to_owned(), |next| next.to_string());
        let finding = row.findings.last().map_or_else(String::new, |finding| short(&finding.0));
        let (tells, state, attempts) = (word(row.tells), word(row.state), row.attempts.to_string());
        [short(&row.delivery), row.channel.to_string(), tells, state, attempts, row.moved.to_string(), next, finding, row.reason.clone()]
    })
}
