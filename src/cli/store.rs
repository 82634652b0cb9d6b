//! `opmas store` and `opmas audit`

use std::path::Path;

use super::{Done, Exit};

/// What to do with the data folder.
#[derive(clap::Subcommand)]
pub(super) enum StoreCommand {
    /// Read every file of the data folder and say what does not verify.
    Verify,
}

/// What to prove.
#[derive(clap::Subcommand)]
pub(super) enum AuditCommand {
    /// Recompute the ledger's chain.
    Verify,
}

pub(super) fn run(_config: Option<&Path>, _command: &StoreCommand) -> Done {
    Ok(Exit::Done)
}

pub(super) fn audit(_config: Option<&Path>, _command: &AuditCommand) -> Done {
    Ok(Exit::Done)
}
