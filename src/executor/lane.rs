//! One device's serial queue: its connection, kept warm, and the requests that wait for it. A dead device holds up no other.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use super::master::{ConnectError, Master, socket_name};
use super::perform;
use super::protocol::{Asked, Reach, Reply, Request, Said};
use super::remote::{self, RunError};
use super::report;
use super::setup::Setup;
use crate::action::{FactsError, GuardFacts, Op};
use crate::clock;
use crate::model::{Device, OutcomeState, Platform, Span, Time};

/// Requests that wait for one device; more are answered at once as failed. A playbook's budget is far below it.
pub(super) const MAX_QUEUE: usize = 64;
/// Live connections. Each is an ssh process of some megabytes; the longest idle one makes room.
pub(super) const MAX_MASTERS: usize = 48;
/// An unused connection is closed after this.
const IDLE: Duration = Duration::from_secs(600);
/// How long a request waits for one of [`MAX_MASTERS`].
const ROOM: Duration = Duration::from_secs(30);
/// After a failed connection further requests are answered alike for this long, doubled at each failure up to [`MAX_PAUSE`], less up to
/// half of it by chance: devices that went away together are not tried together.
const PAUSE: Duration = Duration::from_secs(1);
/// See [`PAUSE`].
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Devices that are tried at once after they could not be connected to; the other places for connections are for those that answer.
pub(super) const MAX_TRIED: usize = 8;
/// Before an action is carried out, what the guard knows of the device is read again when it is older: one way there and back.
const FACTS_AGE: Duration = Duration::from_secs(3);

/// What all lanes share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Files, as they were read at the start.
    pub setup: Setup,
    /// Where answers go.
    pub answers: mpsc::Sender<Said>,
    /// Places for masters.
    pub masters: Arc<Semaphore>,
    /// [`MAX_TRIED`]
    pub tried: Semaphore,
    /// Lanes that wait for a place: one that has nothing to do gives up its own.
    pub waiting: AtomicUsize,
    /// Another one waits.
    pub wanted: Notify,
}

/// One of [`Shared::waiting`] for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A live connection with what is known of the device.
#[derive(Debug)]
pub(super) struct Connection {
    pub master: Master,
    pub facts: GuardFacts,
    /// When they were read.
    read: Instant,
    _place: OwnedSemaphorePermit,
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{0} did not say what the guard must know: {1}")]
    Facts(Arc<str>, String),
    #[error("the key of opmas does not run its commands on {0}: {1}; {remedy}", remedy = enroll_again(.0))]
    Refused(Arc<str>, String),
    #[error("{MAX_MASTERS} devices are being worked on, and none became free within {} s", ROOM.as_secs())]
    Room,
    #[error("{error}; it failed {ago} s ago and is tried again in {again} s")]
    Pause { error: Box<OpenError>, ago: u64, again: u64 },
}

/// What helps where the key of opmas does not run what it should.
pub(super) fn enroll_again(name: &str) -> String {
    format!("run `opmas device enroll {name} --identity FILE` with a private key of yours that opens a shell there")
}

/// A failed attempt, and until when it answers for the next ones.
#[derive(Debug)]
struct Failed {
    error: OpenError,
    at: Instant,
    /// [`PAUSE`], before chance has its part in it.
    longest: Duration,
    pause: Duration,
    /// When it is over.
    again: Time,
}

/// A device's requests in their order.
#[derive(Debug)]
struct Jobs {
    received: mpsc::Receiver<Asked>,
    /// The next one, when it was looked at.
    ahead: Option<Asked>,
}

impl Jobs {
    async fn next(&mut self) -> Option<Asked> {
        match self.ahead.take() {
            Some(next) => Some(next),
            None => self.received.recv().await,
        }
    }

    /// Takes what comes next, as far as it is done by doing this. Nothing is passed over: what lies in between may undo it.
    fn take_like(&mut self, setup: &Setup, platform: Platform, first: &Request) -> Vec<Asked> {
        let mut like = Vec::new();
        while like.len() < MAX_QUEUE
            && let Some(next) = self.ahead.take().or_else(|| self.received.try_recv().ok())
        {
            if !serves(setup, platform, first, &next.request) {
                self.ahead = Some(next);
                break;
            }
            like.push(next);
        }
        like
    }
}

/// Whether doing one does the other, too: the same action with the same parameters, and an effect that lasts as long at least; or the same is read.
fn serves(setup: &Setup, platform: Platform, one: &Request, other: &Request) -> bool {
    let (Some(task), Some(like)) = (one.task(), other.task()) else { return false };
    let Some(action) = setup.catalogue.get(&task.action).filter(|_| task.action == like.action && task.verdict == like.verdict) else { return false };
    let Some((params, like)) = action.params(&task.params).ok().zip(action.params(&like.params).ok()) else { return false };
    let reads = |params| action.commands(Op::Verify, platform, params).ok();
    match (one, other) {
        (Request::Apply(_), Request::Apply(_)) => action.covers(&params, &like),
        (Request::Verify(_), Request::Verify(_)) => reads(&params).is_some_and(|read| reads(&like) == Some(read)),
        _ => false,
    }
}

/// The lane of one device.
#[derive(Debug)]
pub(super) struct Lane {
    pub shared: Arc<Shared>,
    pub device: Device,
    pub connection: Option<Connection>,
    failed: Option<Failed>,
}

/// 0 to 255; without randomness, no chance.
fn chance() -> u8 {
    clock::random::<1>().map_or(0, |[chance]| chance)
}

/// Starts a device's lane; it ends when the sender is dropped.
pub(super) fn start(shared: Arc<Shared>, device: Device) -> mpsc::Sender<Asked> {
    let (sender, received) = mpsc::channel(MAX_QUEUE);
    let lane = Lane { shared, device, connection: None, failed: None };
    tokio::spawn(lane.run(Jobs { received, ahead: None }));
    sender
}

impl Lane {
    async fn run(mut self, mut jobs: Jobs) {
        while let Some(next) = self.next(&mut jobs).await {
            let Some(Asked { n, request }) = next else {
                self.connection = None;
                continue;
            };
            let mut like = jobs.take_like(&self.shared.setup, self.device.platform, &request);
            let (reply, read) = perform::perform(&mut self, &request).await;
            if self.holds(&request, &reply) {
                like.extend(jobs.take_like(&self.shared.setup, self.device.platform, &request));
            }
            let together = |asked: Asked| (asked.n, perform::together(&self, (&request, &reply, read.as_deref()), &asked.request));
            let answers = like.into_iter().map(together).collect::<Vec<_>>().into_iter().chain([(n, reply)]);
            for (n, reply) in answers {
                if self.shared.answers.send(Said::Answer { n, reply: Box::new(reply) }).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Whether what was done is there now, also for those who asked for it while it was being done: it has a lifetime, and was read back.
    fn holds(&self, request: &Request, reply: &Reply) -> bool {
        let action = self.shared.setup.catalogue.get(request.action()).filter(|_| matches!(request, Request::Apply(_)));
        action.is_some_and(|action| action.lease.is_some()) && matches!(reply.outcome.state, OutcomeState::Enforced | OutcomeState::Partial)
    }

    /// The next request; `Some(None)` when the connection is to be closed, `None` at the end.
    async fn next(&self, jobs: &mut Jobs) -> Option<Option<Asked>> {
        let Some(connection) = &self.connection else { return jobs.next().await.map(Some) };
        let waited_for = self.shared.waiting.load(Ordering::Relaxed) > 0;
        tokio::select! {
            biased;
            job = jobs.next() => job.map(Some),
            () = std::future::ready(()), if waited_for => Some(None),
            _ = connection.master.gone() => Some(None),
            () = self.shared.wanted.notified() => Some(None),
            () = tokio::time::sleep(IDLE) => Some(None),
        }
    }

    /// The connection, made when there is none or when the one that was there does not say what the guard must know anew.
    /// A check tries also while others are answered with the last failure.
    pub async fn open(&mut self, request: &Request) -> Result<&Connection, OpenError> {
        if let Some(mut connection) = self.connection.take()
            && self.refresh(&mut connection, request).await.is_ok()
        {
            self.connection = Some(connection);
        }
        if self.connection.is_none() {
            if !matches!(request, Request::Check { .. }) {
                self.paused()?;
            }
            match self.connect().await {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => return Err(self.fail(error)),
            }
            self.failed = None;
        }
        self.connection.as_ref().ok_or(OpenError::Room)
    }

    async fn connect(&self) -> Result<Connection, OpenError> {
        // It is never closed.
        let _tried = if self.failed.is_some() { self.shared.tried.acquire().await.ok() } else { None };
        let place = self.place().await?;
        let socket: PathBuf = socket_name(&self.device);
        let master = Master::connect(&self.device, &self.shared.setup.paths, &socket).await?;
        let read = Instant::now();
        let facts = self.facts(&master).await?;
        Ok(Connection { master, facts, read, _place: place })
    }

    /// Reads again what is too old for the request.
    async fn refresh(&self, connection: &mut Connection, request: &Request) -> Result<(), OpenError> {
        let most = match request {
            Request::Apply(_) => FACTS_AGE,
            Request::Check { .. } => Duration::ZERO,
            Request::Verify(_) | Request::Undo(_) | Request::Leave { .. } => return Ok(()),
        };
        if connection.read.elapsed() >= most {
            let read = Instant::now();
            connection.facts = self.facts(&connection.master).await?;
            connection.read = read;
        }
        Ok(())
    }

    /// What the guard must know of the device, which learns it.
    async fn facts(&self, master: &Master) -> Result<GuardFacts, OpenError> {
        let wrong = |why: &dyn std::error::Error| OpenError::Facts(self.device.name.clone(), why.to_string());
        let answers = remote::run_all(master, &report::facts(), report::BOUNDS).await;
        let results = answers.into_iter().map(|(result, _)| result).collect::<Result<Vec<_>, _>>().map_err(|e| match e {
            RunError::Refused(why) => OpenError::Refused(self.device.name.clone(), why),
            // The connection lives, and our own watchdog would have said something.
            RunError::Silent(seconds) => {
                let what = remote::not_ours(master.enrolled);
                OpenError::Refused(self.device.name.clone(), format!("what that key runs there is {what}, or it hangs: it gave no answer within {seconds} s"))
            }
            other => wrong(&other),
        })?;
        let facts = GuardFacts::parse(&results).map_err(|e: FactsError| wrong(&e))?;
        if let Ok(mut guard) = self.shared.setup.guard.lock() {
            guard.learn(&self.device.name, facts.clone());
        }
        Ok(facts)
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, OpenError> {
        let places = self.shared.masters.clone();
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Ok(place);
        }
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.shared.waiting);
        self.shared.wanted.notify_one();
        match tokio::time::timeout(ROOM, places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(OpenError::Room),
        }
    }

    fn paused(&self) -> Result<(), OpenError> {
        let Some(failed) = &self.failed else { return Ok(()) };
        let ago = failed.at.elapsed();
        match failed.pause.checked_sub(ago) {
            Some(left) => Err(OpenError::Pause { error: Box::new(failed.error.clone()), ago: ago.as_secs(), again: left.as_secs() + 1 }),
            None => Ok(()),
        }
    }

    fn fail(&mut self, error: OpenError) -> OpenError {
        // That there was no place is no fault of the device.
        if !matches!(error, OpenError::Room) {
            let longest = self.failed.as_ref().map_or(PAUSE, |failed| (failed.longest * 2).min(MAX_PAUSE));
            let pause = longest.mul_f64(1.0 - f64::from(chance()) / 512.0);
            let again = clock::now().plus(Span(i64::try_from(pause.as_nanos()).unwrap_or(i64::MAX)));
            self.failed = Some(Failed { error: error.clone(), at: Instant::now(), longest, pause, again });
        }
        error
    }

    /// Whether the device can be connected to, as far as is known.
    pub fn reach(&self) -> Reach {
        match (&self.failed, &self.connection) {
            (Some(failed), _) => Reach::Shut { why: failed.error.to_string(), again: failed.again },
            (None, Some(_)) => Reach::Open,
            (None, None) => Reach::Unknown,
        }
    }
}
