//! `opmas lease`: what holds on devices.

use std::path::Path;

use super::Done;
use super::rows::{self, short};
use crate::index::{LeaseRow, Query, Rows};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the effects that have not ended, and when they do.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    let Command::List { json } = command;
    let answer = rows::ask(config, &Query::Leases)?;
    let Rows::Leases(found) = &answer.rows else { return Err(rows::not_one(&answer.rows)) };
    rows::list(found, answer.more, *json, ["DEVICE", "ACTION", "PARAMETERS", "STATE", "UNTIL", "RUN", "DETAIL"], |lease: &LeaseRow| {
        let state = if lease.held { "held" } else { "lost" }.to_owned();
        let params = params(&lease.params);
        [lease.device.to_string(), lease.action.to_string(), params, state, lease.until.to_string(), short(&lease.run), lease.detail.clone()]
    })
}

/// `duration=1h ip=203.0.113.9`
pub(super) fn params(params: &serde_json::Map<String, serde_json::Value>) -> String {
    let one = |(name, value): (&String, &serde_json::Value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    params.iter().map(one).collect::<Vec<_>>().join(" ")
}
