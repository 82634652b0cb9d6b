//! `opmas run`

use std::path::Path;
use std::sync::Arc;

use super::{Done, Exit, Failure, service, show};
use crate::config::Setup;
use crate::engine::Engine;

/// Arguments of `opmas run`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Do not start when a file does not load.
    #[arg(long)]
    strict: bool,
    /// Log one JSON object a line.
    #[arg(long)]
    log_json: bool,
}

pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> Done {
    service::log(arguments.log_json);
    let setup = Setup::load(config).map_err(|error| Failure::new(Exit::Invalid, error))?;
    for sentence in setup.paths.shipped() {
        tracing::info!("{sentence}");
    }
    for wrong in setup.unbound() {
        tracing::warn!("{wrong}");
    }
    if arguments.strict {
        super::check::strict(&setup)?;
    }
    service::serve(setup, follow)
}

/// Logs what is decided.
async fn follow(engine: Arc<Engine>) {
    let mut feed = engine.feed();
    for (source, address) in engine.addresses() {
        tracing::info!(source, address, "listening");
    }
    drop(engine);
    tracing::info!("ready");
    while let Some(decided) = show::next(&mut feed).await {
        show::log(&decided);
    }
}
