//! `opmas lease`: what holds on devices, and for how long.

use std::path::Path;

use super::hand::{self, Why};
use super::rows;
use super::{Done, Exit};
use crate::api::control::{Answer, Request};
use crate::engine::LeaseOrder;
use crate::index::{LeaseRow, Query, Rows};
use crate::model::Span;

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List the effects that have not ended, and when they do.
    List {
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Undo effects at once, and read back that they are gone.
    End {
        #[command(flatten)]
        which: Which,
    },
    /// Have effects hold longer than they would.
    Extend {
        #[command(flatten)]
        which: Which,
        /// By how much, such as `1h`.
        #[arg(long = "for", value_name = "SPAN")]
        longer: Span,
    },
}

/// Which effects, and why.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["lease", "device"])))]
pub(super) struct Which {
    /// One, as `opmas lease list` names it, or the beginning of that.
    lease: Option<String>,
    /// All on this device.
    #[arg(long)]
    device: Option<String>,
    #[command(flatten)]
    why: Why,
}

pub(super) fn run(config: Option<&Path>, command: &Command) -> Done {
    let json = match command {
        Command::List { json } => json,
        Command::End { which } => return change(config, which, None),
        Command::Extend { which, longer } => return change(config, which, Some(*longer)),
    };
    let answer = rows::ask(config, &Query::Leases)?;
    let Rows::Leases(found) = &answer.rows else { return Err(rows::not_one(&answer.rows)) };
    rows::list(found, answer.more, *json, ["DEVICE", "ACTION", "PARAMETERS", "STATE", "UNTIL", "LEASE", "DETAIL"], |lease: &LeaseRow| {
        let state = match &lease.unverified {
            Some(unverified) => format!("not verified since {}", unverified.since.brief()),
            None => if lease.held { "held" } else { "lost" }.to_owned(),
        };
        let params = params(&lease.params);
        [
            lease.device.to_string(),
            lease.action.to_string(),
            params,
            state,
            lease.until.to_string(),
            lease.lease.clone(),
            lease.unverified.as_ref().map_or(&lease.detail, |unverified| &unverified.why).clone(),
        ]
    })
}

fn change(config: Option<&Path>, which: &Which, longer: Option<Span>) -> Done {
    let order = LeaseOrder { lease: which.lease.clone(), device: which.device.clone(), longer, because: which.why.because.clone() };
    match hand::tell(config, &Request::Leases { order })? {
        Answer::Leases { told } => {
            rows::show(&told.iter().map(|one| crate::alert::visible(&one.text, 1_000) + "\n").collect::<String>())?;
            Ok(if told.iter().all(|one| one.done) { Exit::Done } else { Exit::Unreachable })
        }
        other => Err(hand::unexpected(&other)),
    }
}

/// `duration=1h ip=203.0.113.9`
pub(super) fn params(params: &serde_json::Map<String, serde_json::Value>) -> String {
    let one = |(name, value): (&String, &serde_json::Value)| format!("{name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    params.iter().map(one).collect::<Vec<_>>().join(" ")
}
