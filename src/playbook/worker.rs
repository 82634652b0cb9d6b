//! The worker process: runs playbook scripts without files, network and processes, one at a time.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::process::{self, Attempt, Channel, Confinement};

/// The worker's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// A sentence for each thing that this kernel cannot enforce on the worker.
    pub cannot_enforce: Vec<String>,
}

/// The answer to a [`Confinement`] when started with the argument `probe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// A sentence for each thing that this kernel cannot enforce.
    pub cannot_enforce: Vec<String>,
    /// What was tried under the confinement.
    pub attempts: Vec<Attempt>,
}

/// The process's main. It ends when the engine closes the connection.
///
/// With the argument `probe` it puts on the [`Confinement`] that it is sent, tries to break out, answers [`Probed`] and ends.
#[must_use]
pub fn main(args: &[String]) -> ExitCode {
    let done = match args.first().map(String::as_str) {
        Some("probe") => probe(),
        _ => serve(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("opmas-worker: {error}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn probe() -> Done {
    let mut channel = Channel::from_stdin()?;
    let Some(confinement) = channel.read::<Confinement>()? else { return Ok(()) };
    let cannot_enforce = process::confine(&confinement)?;
    Ok(channel.write(&Probed { cannot_enforce, attempts: process::probe() })?)
}

fn serve() -> Done {
    let mut channel = Channel::from_stdin()?;
    let cannot_enforce = process::confine(&Confinement::worker())?;
    channel.write(&Hello { cannot_enforce })?;
    while channel.read::<serde_json::Value>()?.is_some() {}
    Ok(())
}
