//! The engine's side: keeps an executor process running and brings requests to it and answers back.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::paths::Paths;
use super::protocol::{Asked, Reply, Request, Said};
use crate::clock;
use crate::model::{Outcome, OutcomeState};
use crate::process::{Child, Peer, PeerRx, PeerTx, Role};

/// Requests that wait to be sent.
const MAX_WAITING: usize = 256;
/// How long a new process may take to read its files and confine itself.
const START: Duration = Duration::from_secs(15);
/// The pause before the second start; doubled at each further one up to [`MAX_BACK_OFF`].
const BACK_OFF: Duration = Duration::from_millis(100);
/// See [`BACK_OFF`].
const MAX_BACK_OFF: Duration = Duration::from_secs(10);
/// A process that lived this long was well: the pauses begin anew.
const WELL: Duration = Duration::from_secs(60);
/// How long the process may take to end when it is asked to.
const END: Duration = Duration::from_secs(3);

/// How the process is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program; `/proc/self/exe` unless another one brings it up, in a namespace for instance.
    pub program: PathBuf,
    /// Arguments, which end with [`Paths::to_args`].
    pub args: Vec<String>,
}

impl Launch {
    /// This very binary, with these paths.
    #[must_use]
    pub fn own(paths: &Paths) -> Launch {
        Launch { program: "/proc/self/exe".into(), args: paths.to_args() }
    }
}

/// How the process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it takes requests.
    pub ready: bool,
    /// What this kernel cannot enforce, a sentence each.
    pub weaknesses: Vec<String>,
    /// Why it is not ready, one sentence with the remedy.
    pub error: Option<String>,
    /// How often it has been started again.
    pub restarts: u64,
    /// Its process id.
    pub process: Option<u32>,
}

/// A request with the place for its answer.
#[derive(Debug)]
struct Pending {
    request: Request,
    answer: oneshot::Sender<Reply>,
}

/// Speaks to the executor. Cheap to clone; the process ends with [`Client::shutdown`] or with the last clone.
#[derive(Clone, Debug)]
pub struct Client {
    requests: mpsc::Sender<Pending>,
    status: watch::Receiver<Status>,
    task: Arc<Keeper>,
}

#[derive(Debug)]
struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        // The task owns the process, which is killed when dropped.
        self.0.abort();
    }
}

impl Client {
    /// Starts the process, and again whenever it dies. Returns at once; [`Client::ready`] waits for it.
    /// To be called within a tokio runtime.
    #[must_use]
    pub fn start(launch: Launch) -> Client {
        let (requests, received) = mpsc::channel(MAX_WAITING);
        let (tell, status) = watch::channel(Status::default());
        let task = tokio::spawn(keep(launch, received, tell));
        Client { requests, status, task: Arc::new(Keeper(task)) }
    }

    /// Waits until the process takes requests.
    ///
    /// # Errors
    /// It could not start; the text says why, with the remedy. It goes on being tried.
    pub async fn ready(&self) -> Result<Status, String> {
        let mut status = self.status.clone();
        match status.wait_for(|status| status.ready || status.error.is_some()).await {
            Ok(status) if status.ready => Ok(status.clone()),
            Ok(status) => Err(status.error.clone().unwrap_or_default()),
            Err(_) => Err("the executor was shut down".to_owned()),
        }
    }

    /// How it is now, and a way to wait for changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Has a request carried out and waits for its end. When the process dies meanwhile the answer is `unknown`; when it cannot be
    /// started, `failed`: nothing was sent.
    pub async fn perform(&self, request: Request) -> Reply {
        let started = Instant::now();
        let action = request.action().to_owned();
        let reply = self.exchange(request).await;
        let state = reply.outcome.state.word();
        metrics::counter!("opmas_executor_requests_total", "action" => action.clone(), "state" => state).increment(1);
        if reply.with.is_some() {
            metrics::counter!("opmas_executor_coalesced_total", "action" => action.clone()).increment(1);
        }
        metrics::histogram!("opmas_executor_request_seconds", "action" => action).record(started.elapsed().as_secs_f64());
        reply
    }

    async fn exchange(&self, request: Request) -> Reply {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Pending { request, answer }).await.is_err() {
            return reply(OutcomeState::Failed, "the executor was shut down");
        }
        answered.await.unwrap_or_else(|_| reply(OutcomeState::Unknown, "the executor was shut down while this was under way"))
    }

    /// Ends the process, for all clones; what is under way is answered as `unknown`.
    pub async fn shutdown(self) {
        let Client { requests, mut status, task } = self;
        drop(requests);
        // Without another clone the task ends by itself, once the process has been waited for.
        let _ = tokio::time::timeout(END, async { while status.changed().await.is_ok() {} }).await;
        task.0.abort();
    }
}

fn reply(state: OutcomeState, detail: &str) -> Reply {
    Reply::plain(Outcome::new(state, detail, clock::now()))
}

/// Runs one process after the other until nobody can ask any more.
async fn keep(launch: Launch, mut requests: mpsc::Receiver<Pending>, tell: watch::Sender<Status>) {
    let mut pause = BACK_OFF;
    loop {
        let started = Instant::now();
        let why = match launched(&launch, &tell).await {
            Ok((tx, rx, child)) => match attend(tx, rx, child, &mut requests).await {
                Some(why) => why,
                None => return,
            },
            Err(why) => why,
        };
        if started.elapsed() > WELL {
            pause = BACK_OFF;
        }
        tracing::error!(reason = %why, pause_ms = pause.as_millis(), "the executor is not running");
        metrics::counter!("opmas_executor_restarts_total").increment(1);
        tell.send_modify(|status| {
            *status = Status { error: Some(why.clone()), restarts: status.restarts + 1, ..Status::default() };
        });
        if !refuse(&mut requests, pause, &why).await {
            return;
        }
        pause = (pause * 2).min(MAX_BACK_OFF);
    }
}

/// Starts the process and waits for its first words.
async fn launched(launch: &Launch, tell: &watch::Sender<Status>) -> Result<(PeerTx, PeerRx, Child), String> {
    let peer = Peer::spawn_program(&launch.program, Role::Executor, &launch.args).map_err(|e| format!("the executor cannot be started: {e}"))?;
    let (tx, mut rx, child) = peer.split();
    match tokio::time::timeout(START, rx.recv::<Said>()).await {
        Ok(Ok(Some(Said::Ready { weaknesses }))) => {
            tell.send_modify(|status| *status = Status { ready: true, weaknesses, error: None, restarts: status.restarts, process: child.id() });
            Ok((tx, rx, child))
        }
        Ok(Ok(Some(Said::Cannot { message }))) => Err(format!("the executor cannot start: {message}")),
        Ok(Ok(Some(Said::Answer { .. }) | None)) => Err("the executor ended before it was ready".to_owned()),
        Ok(Err(error)) => Err(format!("the executor cannot start: {error}")),
        Err(_) => Err(format!("the executor was not ready within {} s", START.as_secs())),
    }
}

/// Brings requests and answers until the process ends (why) or nobody can ask any more (`None`).
async fn attend(mut tx: PeerTx, mut rx: PeerRx, mut child: Child, requests: &mut mpsc::Receiver<Pending>) -> Option<String> {
    let mut pending: HashMap<u64, oneshot::Sender<Reply>> = HashMap::new();
    let mut n = 0;
    let why = loop {
        metrics::gauge!("opmas_executor_pending").set(u32::try_from(pending.len()).unwrap_or(u32::MAX));
        tokio::select! {
            said = rx.recv::<Said>() => match said {
                Ok(Some(Said::Answer { n, reply })) => {
                    // Whoever asked may have gone.
                    if let Some(answer) = pending.remove(&n) {
                        let _ = answer.send(*reply);
                    }
                }
                Ok(Some(Said::Ready { .. } | Said::Cannot { .. })) => break Some("the executor spoke out of turn".to_owned()),
                Ok(None) => break Some("the executor ended".to_owned()),
                Err(error) => break Some(format!("the executor ended: {error}")),
            },
            asked = requests.recv() => {
                let Some(Pending { request, answer }) = asked else { break None };
                n += 1;
                pending.insert(n, answer);
                if let Err(error) = tx.send(&Asked { n, request }).await {
                    break Some(format!("the executor ended: {error}"));
                }
            }
        }
    };
    for (_, answer) in pending {
        let _ = answer.send(reply(OutcomeState::Unknown, "the executor ended while this was under way"));
    }
    // Closing the connection ends the process; one that does not see it is killed with its handle.
    drop((tx, rx));
    let _ = tokio::time::timeout(END, child.wait()).await;
    why
}

/// Answers what comes in during a pause; false when nobody can ask any more.
async fn refuse(requests: &mut mpsc::Receiver<Pending>, pause: Duration, why: &str) -> bool {
    let over = tokio::time::Instant::now() + pause;
    loop {
        match tokio::time::timeout_at(over, requests.recv()).await {
            Err(_) => return true,
            Ok(None) => return false,
            Ok(Some(pending)) => {
                let _ = pending.answer.send(reply(OutcomeState::Failed, why));
            }
        }
    }
}
