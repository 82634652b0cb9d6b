//! `opmas eval`

use super::{Done, Exit};

/// Arguments of `opmas eval`.
#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Done {
    Ok(Exit::Done)
}
