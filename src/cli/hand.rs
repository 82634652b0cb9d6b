//! What a person tells the running opmas to do.

use std::path::Path;

use super::{Done, Exit, Failure, rows};
use crate::api::control::{self, Answer, Request};
use crate::config::Setup;
use crate::engine::Wish;

/// Arguments of `opmas approve` and of all others that name one run.
#[derive(clap::Args)]
pub(super) struct OneRun {
    /// The run's id, or the beginning of it.
    pub(super) run: String,
    #[command(flatten)]
    pub(super) why: Why,
}

/// Why it is done.
#[derive(clap::Args)]
pub(super) struct Why {
    /// Why; the ledger keeps it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(super) because: String,
}

/// Tells the opmas that runs on the configuration's data folder; what it cannot do is said.
pub(super) fn tell(config: Option<&Path>, request: &Request) -> Result<Answer, Failure> {
    let data = Setup::settings(config).map_err(|error| Failure::new(Exit::Invalid, error))?.1.data_dir;
    match control::ask(&data, request) {
        Ok(None) => Err(Failure::new(Exit::Unreachable, format!("no opmas runs on {}", data.display()))),
        Ok(Some(Answer::Failed { why })) => Err(Failure::new(Exit::Unreachable, why)),
        Ok(Some(Answer::Refused { why })) => Err(Failure::new(Exit::Usage, why)),
        Ok(Some(answer)) => Ok(answer),
        Err(error) => Err(Failure::new(Exit::Unreachable, format!("the running opmas does not answer: {error}"))),
    }
}

/// Tells it what is wanted of a run, and says that it is so.
pub(super) fn order(config: Option<&Path>, one: &OneRun, wish: Wish, done: &str) -> Done {
    match tell(config, &Request::Order { run: one.run.clone(), wish, because: one.why.because.clone() })? {
        Answer::Done { run } => rows::show(&format!("run {run} {done}\n")),
        other => Err(unexpected(&other)),
    }
}

/// Another version's answer.
pub(super) fn unexpected(answer: &Answer) -> Failure {
    Failure::new(Exit::Unreachable, format!("the running opmas answers something else; it is of another version: {answer:?}"))
}
