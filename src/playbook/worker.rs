//! The worker process: runs playbook scripts without files, network and processes, one at a time.

use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Evaluate, evaluate};
use crate::process::{self, Attempt, Channel, Confinement};

/// Processor time for one evaluation; the kernel ends the process beyond it. Operations bound what scripts do long before.
const CPU: Duration = Duration::from_secs(3);

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

/// The process's main: says [`Hello`], then answers each [`Evaluate`] with an [`super::Evaluation`], until the engine closes the connection.
///
/// A script that uses up the memory, the stack or the processor time ends the process; the engine takes that as the answer,
/// and starts another.
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
    while let Some(request) = channel.read::<Evaluate>()? {
        process::allow_cpu(CPU)?;
        channel.write(&evaluate(&request))?;
    }
    Ok(())
}
