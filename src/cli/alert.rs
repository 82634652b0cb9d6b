//! `opmas alert`: what was told and is not over.

use std::path::Path;

use super::Done;
use super::lease::params;
use super::rows::{self, short};
use crate::index::{AlertRow, Query, Rows};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the alerts that are not over, the newest first, and when they will be unless there is a further finding.
    List {
        /// At most so many, and 1000.
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    let Command::List { limit, json } = command;
    let answer = rows::ask(config, &Query::Alerts { limit: *limit })?;
    let Rows::Alerts(found) = &answer.rows else { return Err(rows::not_one(&answer.rows)) };
    rows::list(found, answer.more, *json, ["ID", "ROUTE", "CHANNEL", "SINCE", "FINDINGS", "RESOLVES", "GROUP"], |AlertRow { alert, .. }: &AlertRow| {
        let resolves = alert.until.map_or_else(|| "never".to_owned(), |until| until.to_string());
        let group = params(&alert.group.clone().into_iter().collect());
        let (route, channel) = (alert.route.to_string(), alert.channel.to_string());
        [short(&alert.id), route, channel, alert.since.to_string(), alert.count.to_string(), resolves, group]
    })
}
