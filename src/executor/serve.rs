//! The executor process: prepares, then answers requests until the engine closes the connection.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc};

use super::lane::{self, MAX_MASTERS, MAX_QUEUE, MAX_TRIED, Shared};
use super::perform::{End, outcome};
use super::protocol::{Asked, Reply, Said};
use super::setup::Setup;
use crate::diag::SourceFile;
use crate::model::OutcomeState;
use crate::process::{Channel, FrameError, PeerRx, PeerTx};

/// Answers that wait to be written; lanes wait when the engine does not read.
const MAX_ANSWERS: usize = 256;

/// The main function of `opmas-executor`: `args` as [`super::Paths::to_args`] makes them, and the actions that the binary brings
/// along, for when the user has none. Ends when the engine closes the connection, and with it every ssh that it started.
///
/// Exit code 0, or 3 when it could not start or lost its footing; the engine has been told why.
#[must_use]
pub fn main(args: &[String], shipped: &[SourceFile]) -> ExitCode {
    let mut channel = match Channel::from_stdin() {
        Ok(channel) => channel,
        Err(error) => {
            eprintln!("opmas-executor: {error}");
            return ExitCode::from(2);
        }
    };
    let (setup, weaknesses) = match Setup::prepare(args, shipped) {
        Ok(prepared) => prepared,
        Err(error) => {
            // When the engine is gone there is nobody to tell.
            let _ = channel.write(&Said::Cannot { message: error.to_string() });
            return ExitCode::from(3);
        }
    };
    let control = setup.paths.control(std::process::id());
    // One thread, the main one: what it starts has it as the parent whose death ends them.
    let served = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(FrameError::Io).and_then(|runtime| {
        let served = runtime.block_on(serve(channel, setup, weaknesses));
        // Drops the lanes, which kill their ssh.
        drop(runtime);
        served
    });
    let _ = std::fs::remove_dir_all(control);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("opmas-executor: {error}");
            ExitCode::from(3)
        }
    }
}

async fn serve(channel: Channel, setup: Setup, weaknesses: Vec<String>) -> Result<(), FrameError> {
    let (mut tx, rx) = channel.into_tokio()?;
    tx.send(&Said::Ready { weaknesses }).await?;
    let (answers, said) = mpsc::channel(MAX_ANSWERS);
    let shared = Arc::new(Shared {
        setup,
        answers,
        masters: Arc::new(Semaphore::new(MAX_MASTERS)),
        tried: Semaphore::new(MAX_TRIED),
        waiting: AtomicUsize::new(0),
        wanted: Notify::new(),
    });
    tokio::select! {
        end = listen(rx, &shared) => end,
        end = speak(tx, said) => end,
    }
}

async fn speak(mut tx: PeerTx, mut said: mpsc::Receiver<Said>) -> Result<(), FrameError> {
    while let Some(answer) = said.recv().await {
        tx.send(&answer).await?;
    }
    Ok(())
}

async fn listen(mut rx: PeerRx, shared: &Arc<Shared>) -> Result<(), FrameError> {
    let mut lanes: BTreeMap<Arc<str>, mpsc::Sender<Asked>> = BTreeMap::new();
    while let Some(asked) = rx.recv::<Asked>().await? {
        let name = asked.request.device().clone();
        let Some(device) = shared.setup.inventory.by_name(&name) else {
            let why = format!("there is no device `{}` in {}", name.escape_default(), shared.setup.paths.devices.display());
            answer(shared, asked.n, OutcomeState::Refused, why).await;
            continue;
        };
        let sender = lanes.entry(name).or_insert_with(|| lane::start(shared.clone(), device.clone()));
        if let Err(mpsc::error::TrySendError::Full(asked) | mpsc::error::TrySendError::Closed(asked)) = sender.try_send(asked) {
            answer(shared, asked.n, OutcomeState::Failed, format!("{MAX_QUEUE} requests are waiting for this device already")).await;
        }
    }
    Ok(())
}

async fn answer(shared: &Shared, n: u64, state: OutcomeState, why: String) {
    let reply = Box::new(Reply::plain(outcome(End::new(state, why), Duration::ZERO)));
    // Without a reader the process is about to end.
    let _ = shared.answers.send(Said::Answer { n, reply }).await;
}
