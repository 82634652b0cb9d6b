//! The playbook worker: one process, kept running; a script that ends it is answered, and the next one gets a new process.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::status::{Gravity, Status};
use crate::playbook::{Evaluate, Evaluation, worker::Hello};
use crate::process::{Peer, Role};

/// Evaluations that wait for the worker.
const MAX_WAITING: usize = 64;
/// How long a new worker may take to confine itself.
const START: Duration = Duration::from_secs(10);
/// How long an evaluation may take; the kernel's limit on processor time ends it before.
const EVALUATION: Duration = Duration::from_secs(15);
/// So many new processes must end over a script before it is taken for the cause: one may have been ended by somebody else, as by the
/// kernel when memory is short.
const DEATHS: usize = 2;

/// Why there is no evaluation.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerError {
    /// The process cannot be started: try again later.
    #[error("the playbook worker cannot be started: {0}")]
    Unavailable(String),
    /// The script ended the process, and would again.
    #[error("the script ended its process: {0}")]
    Died(String),
}

type Question = (Box<Evaluate>, oneshot::Sender<Result<Evaluation, WorkerError>>);

/// Asks the worker. Cheap to clone; the process ends with the last clone.
#[derive(Clone)]
pub(super) struct Worker {
    questions: mpsc::Sender<Question>,
}

impl Worker {
    /// Starts the task that keeps a worker process; the process starts with the first question.
    pub(super) fn start(status: Status) -> Worker {
        let (questions, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(serve(waiting, status));
        Worker { questions }
    }

    /// Evaluates a script.
    pub(super) async fn evaluate(&self, request: Evaluate) -> Result<Evaluation, WorkerError> {
        let ended = || WorkerError::Unavailable("opmas is ending".to_owned());
        let (answer, answered) = oneshot::channel();
        self.questions.send((Box::new(request), answer)).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

async fn serve(mut waiting: mpsc::Receiver<Question>, status: Status) {
    let mut peer: Option<Peer> = None;
    while let Some((request, answer)) = waiting.recv().await {
        let mut deaths = 0;
        let result = loop {
            // The kept process may have died before it was asked: only a new one tells what the script does.
            let new = peer.is_none();
            let result = attempt(&mut peer, &request, &status).await;
            deaths += usize::from(new);
            if deaths >= DEATHS || !matches!(result, Err(WorkerError::Died(_))) {
                break result;
            }
        };
        // Whoever asked may have gone.
        let _ = answer.send(result);
    }
}

async fn attempt(peer: &mut Option<Peer>, request: &Evaluate, status: &Status) -> Result<Evaluation, WorkerError> {
    let mut ready = take(peer, status).await.map_err(|why| {
        status.set("playbook worker", Gravity::Degraded, format!("no playbook runs: {why}"));
        WorkerError::Unavailable(why)
    })?;
    match ask(&mut ready, request).await {
        Ok(evaluation) => {
            *peer = Some(ready);
            Ok(evaluation)
        }
        Err(why) => {
            metrics::counter!("opmas_worker_deaths_total").increment(1);
            // It may be gone already.
            let _ = ready.kill().await;
            Err(WorkerError::Died(why))
        }
    }
}

/// The running worker, or a new one.
async fn take(peer: &mut Option<Peer>, status: &Status) -> Result<Peer, String> {
    if let Some(ready) = peer.take() {
        return Ok(ready);
    }
    let mut new = Peer::spawn(Role::Worker, &[]).map_err(|error| error.to_string())?;
    match tokio::time::timeout(START, new.recv::<Hello>()).await {
        Ok(Ok(Some(hello))) => {
            status.clear("playbook worker");
            if !hello.cannot_enforce.is_empty() {
                status.set("playbook worker sandbox", Gravity::Notice, hello.cannot_enforce.join("; "));
            }
            Ok(new)
        }
        Ok(Ok(None)) => Err("it ended before it was ready".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it was not ready within {} s", START.as_secs())),
    }
}

async fn ask(peer: &mut Peer, request: &Evaluate) -> Result<Evaluation, String> {
    let exchange = async {
        peer.send(request).await.map_err(|error| error.to_string())?;
        match peer.recv::<Evaluation>().await {
            Ok(Some(evaluation)) => Ok(evaluation),
            Ok(None) => Err("it used up its memory, its stack or its processor time".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    };
    tokio::time::timeout(EVALUATION, exchange).await.unwrap_or_else(|_| Err(format!("it took longer than {} s", EVALUATION.as_secs())))
}
