//! `opmas channel`

use std::path::Path;

use super::{Done, Exit};

/// What to do.
#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// List them.
    List,
}

pub(super) fn run(_config: Option<&Path>, _command: &Command) -> Done {
    Ok(Exit::Done)
}
