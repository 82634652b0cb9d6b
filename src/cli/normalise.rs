//! `opmas normalise`

use super::{Done, Exit};

/// Arguments of `opmas normalise`.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Done {
    Ok(Exit::Done)
}
