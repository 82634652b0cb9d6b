//! `opmas store replay-dead`: records that could not be used are taken in again, once what was in their way is corrected.

use std::path::Path;

use crate::api::control::{Answer, Request};
use crate::cli::{Done, hand, rows};
use crate::engine::{Again, Which};

/// Arguments of `opmas store replay-dead`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["letters", "all"])))]
pub(in crate::cli) struct Arguments {
    /// The letters, by SEQ as `opmas store dead` lists them.
    #[arg(value_name = "SEQ")]
    letters: Vec<u64>,
    /// All that are kept, but for those on which opmas has died: those must be named.
    #[arg(long)]
    all: bool,
    /// Only those of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> Done {
    let which = Which { letters: arguments.letters.iter().copied().collect(), source: arguments.source.clone() };
    match hand::tell(config, &Request::ReplayDead { which })? {
        Answer::Again { again: Again { put, before, cut } } => {
            let cut = if cut > 0 { format!("; {cut} left out, as only their beginning is kept") } else { String::new() };
            rows::show(&format!("{put} records taken in again, {before} had been before{cut}\n"))
        }
        other => Err(hand::unexpected(&other)),
    }
}
