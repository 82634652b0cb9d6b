//! Building the topology, part by part, from left to right.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::again;
use super::dead::Dead;
use super::decide::Decider;
use super::detection::{CaughtUp, Detection};
use super::effects::{Effects, lock};
use super::flight::Flight;
use super::hand::{Hand, MAX_ORDERS, Ordered};
use super::handle::{Engine, Stop, addresses};
use super::hands::Hands;
use super::index;
use super::intake::{self, Streams};
use super::place::Places;
use super::policy::{self, Policy};
use super::recover;
use super::reload::{self, Reloader};
use super::runs::{self, Runner};
use super::status::{Gravity, Status};
use super::worker::Worker;
use super::{deliveries, devices, leases, posture, publish, retain};
use crate::clock;
use crate::config::{Content, Setup};
use crate::executor::{self, Launch};
use crate::journal::{Checkpoints, DataDir, OpenError, ReadError, Revisions, SpoolHandle, SpoolReader};
use crate::model::{Decided, Entry, NodeId, Posture};
use crate::playbook::{Begun, Run};
use crate::source::{self, Batch, BindError, Bound, Context};

/// Findings and checkpoints between the detection thread and the decider.
const MAX_DETECTED: usize = 1_024;
/// Batches of entries between the spool and the detection thread: what is in them is computed again after a crash.
const MAX_BATCHES: usize = 16;
/// Runs between the decider and the runs.
const MAX_BEGUN: usize = 1_024;

/// Why opmas cannot start: each is one sentence with the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The ledger or the spool cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A source.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system.
    #[error("{doing}: {cause}")]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// Something of ours that does not fit.
    #[error("{0}")]
    Internal(String),
}

impl StartError {
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> StartError {
        move |cause| StartError::Io { doing, cause }
    }
}

/// Starts everything on the opened data folder. When it returns, input is accepted and what the spool held has been caught up with.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub async fn start(setup: Setup, data: DataDir, status: Status) -> Result<Engine, StartError> {
    reload::show(&setup.content, &status);
    let sources = bind(&setup, &data)?;
    status.set("start", Gravity::NotReady, "catching up with what the spool holds");
    let mut store = recover::open(&data, &setup, &status).await?;
    let (detected_in, detected) = mpsc::channel(MAX_DETECTED);
    let tell = detected_in.downgrade();
    let (detection, checkpoints) = recover::detection(&data, &mut store, detected_in, &status).await?;
    let (flight, died) = Flight::open(&data);
    store.effects.record(died.into_iter().map(note).collect()).await;
    let detection = detection.watched(flight);
    let recorded = recover::recorded(&mut store, &detection).await?;
    let (entries_in, entries) = mpsc::channel(MAX_BATCHES);
    let spool = store.spool.start(entries_in)?;
    let feed = index::start(data.clone(), store.effects.head().0, status.clone()).map_err(StartError::io("start the index's thread"))?;
    // It is empty until now.
    let _ = store.effects.index.set(feed);
    let mut acting = Acting::start(&setup, &data, store.effects, store.runs, &status).await?;
    let dead = Dead::new(store.dead, status.clone(), acting.effects.ending());
    acting.tasks.push(tokio::spawn(dead.clone().watch(acting.stop.clone())));
    acting.tasks.push(tokio::spawn(posture::run(acting.effects.clone(), tell, status.clone(), acting.stop.clone())));
    let decider = tokio::spawn(acting.decider(checkpoints, dead, store.begun).run(detected));
    let caught_up = catch_up(detection, recorded, entries, spool.moved()).await?;
    acting.effects.record(caught_up.damage.iter().map(|error| note(format!("passed over while catching up: {error}"))).collect()).await;
    let settings = setup.settings.clone();
    let mut reloader = acting.reloader(setup, &caught_up, spool.clone());
    reloader.begin().await;
    lock(&acting.spool).replace(spool.clone());
    if let Err(why) = again::finish(&data, &spool).await {
        tracing::error!("dead letters that were to be put into the spool again are not: {why}");
    }
    acting.tasks.extend(publish::Forward::start(&settings, &data, &acting.effects, (&acting.spool, &caught_up.live), &acting.stop)?);
    let engine = acting.listen(sources, spool, decider, &caught_up, reloader);
    status.clear("start");
    Ok(engine)
}

/// Something a person should know; before anybody can watch decisions, the log tells it.
pub(super) fn note(text: String) -> Decided {
    tracing::warn!("{text}");
    Decided::Note { text, at: clock::now() }
}

/// Takes what each source needs, before anything starts.
fn bind(setup: &Setup, data: &DataDir) -> Result<Vec<Bound>, BindError> {
    let positions = data.path().join("positions");
    setup.settings.source.iter().map(|(name, config)| source::bind(name, config, &positions, &setup.settings.broker)).collect()
}

/// Starts the detection thread, and waits until it has caught up.
async fn catch_up(
    detection: Detection,
    recorded: Option<SpoolReader>,
    entries: mpsc::Receiver<Arc<[Entry]>>,
    durable: watch::Receiver<u64>,
) -> Result<CaughtUp, StartError> {
    let (tell, caught_up) = oneshot::channel();
    let thread = std::thread::Builder::new().name("detection".to_owned());
    thread.spawn(move || detection.run(recorded, tell, entries, durable)).map_err(StartError::io("start the detection thread"))?;
    let caught_up = caught_up.await.map_err(|_| StartError::Internal("the detection thread ended while it caught up".to_owned()))?;
    tracing::info!(entries = caught_up.entries, "caught up with the spool");
    Ok(caught_up)
}

/// What is right of the ledger: runs, leases, deliveries, and what they act through.
struct Acting {
    node: NodeId,
    data: DataDir,
    effects: Arc<Effects>,
    hands: Arc<Hands>,
    revisions: Revisions,
    evidence: Revisions,
    content: watch::Sender<Arc<Content>>,
    verified: watch::Sender<Arc<HashSet<IpAddr>>>,
    begun: mpsc::Sender<Run>,
    orders: mpsc::Sender<Ordered>,
    spool: Arc<Mutex<Option<SpoolHandle>>>,
    status: Status,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Acting {
    async fn start(setup: &Setup, data: &DataDir, effects: Arc<Effects>, open_runs: Vec<Run>, status: &Status) -> Result<Acting, StartError> {
        let paths = executor::Paths::new(&setup.paths.file, data.path()).map_err(StartError::io("find the current folder"))?;
        let hands = Arc::new(Hands::new(Launch::own(&paths), status.clone()));
        // Otherwise the first request starts it; what is wrong with it should be known before it is needed.
        if effects.posture() != Posture::Observe && !setup.content.inventory.devices.is_empty() {
            hands.start().await;
        }
        let ((begun, to_runs), (orders, ordered)) = (mpsc::channel(MAX_BEGUN), mpsc::channel(MAX_ORDERS));
        let acting = Acting {
            node: data.node().clone(),
            data: data.clone(),
            effects,
            hands,
            revisions: Revisions::new(data),
            evidence: Revisions::evidence(data),
            verified: watch::Sender::new(Arc::new(addresses(&setup.content.inventory))),
            content: watch::Sender::new(Arc::new(setup.content.clone())),
            begun,
            orders,
            spool: Arc::default(),
            status: status.clone(),
            stop: CancellationToken::new(),
            tasks: Vec::new(),
        };
        acting.keep_scripts(&setup.content)?;
        let ceilings = setup.settings.actions.clone();
        let protected = leases::Protected { content: acting.content.subscribe() };
        let runner = Arc::new(acting.runner(Policy {
            content: acting.content.subscribe(),
            ceilings,
            outlets: policy::outlets(&setup.settings),
            endpoints: policy::endpoints(&setup.settings),
        }));
        let mut tasks = acting.tasks(protected);
        tasks.push(tokio::spawn(runs::run(runner, open_runs, to_runs, ordered)));
        let (to_heads, heads) = watch::channel(None);
        tasks.extend(publish::start(&setup.settings, data, &acting.effects, &heads, &acting.stop)?);
        tasks.push(tokio::spawn(retain::run(acting.effects.clone(), data.clone(), setup.settings.ledger.clone(), to_heads, acting.stop.clone())));
        Ok(Acting { tasks, ..acting })
    }

    /// Runs pin their script by its hash.
    fn keep_scripts(&self, content: &Content) -> Result<(), StartError> {
        let keep = |script: &str| self.revisions.keep(script.as_bytes()).map(drop);
        content.playbooks.iter().try_for_each(|playbook| keep(&playbook.script)).map_err(StartError::io("keep the playbooks' revisions"))
    }

    fn reloader(&self, setup: Setup, caught_up: &CaughtUp, spool: SpoolHandle) -> Reloader {
        Reloader {
            paths: setup.paths,
            text: setup.text,
            settings: setup.settings,
            content: self.content.clone(),
            live: caught_up.live.clone(),
            revisions: self.revisions.clone(),
            ahead: caught_up.ahead.clone(),
            spool,
            effects: self.effects.clone(),
            hands: self.hands.clone(),
            verified: self.verified.clone(),
            status: self.status.clone(),
        }
    }

    fn runner(&self, policy: Policy) -> Runner {
        Runner {
            effects: self.effects.clone(),
            content: self.content.subscribe(),
            worker: Worker::start(self.status.clone()),
            hands: self.hands.clone(),
            places: Arc::new(Places::new(self.content.subscribe())),
            revisions: self.revisions.clone(),
            evidence: self.evidence.clone(),
            status: self.status.clone(),
            stop: self.stop.clone(),
            policy,
        }
    }

    fn tasks(&self, protected: leases::Protected) -> Vec<JoinHandle<()>> {
        let (effects, hands, content) = (&self.effects, &self.hands, || self.content.subscribe());
        vec![
            tokio::spawn(leases::run(effects.clone(), hands.clone(), protected, self.status.clone(), self.stop.clone())),
            tokio::spawn(deliveries::run(effects.clone(), content(), self.stop.clone())),
            tokio::spawn(devices::run(effects.clone(), hands.clone(), content(), self.status.clone(), self.stop.clone())),
        ]
    }

    fn decider(&self, checkpoints: Checkpoints, dead: Dead, since: Begun) -> Decider {
        let (content, spool, runs) = (self.content.subscribe(), self.spool.clone(), self.begun.clone());
        Decider { effects: self.effects.clone(), content, checkpoints, writing: None, dead, spool, runs, begun: since, dropped: (None, 0) }
    }

    /// Lets the sources in.
    fn listen(self, sources: Vec<Bound>, spool: SpoolHandle, decider: JoinHandle<()>, caught_up: &CaughtUp, reloader: Reloader) -> Engine {
        let (batches, from_sources) = mpsc::channel(intake::MAX_WAITING);
        let (stop_sources, sources_stop) = watch::channel(false);
        let (reload, asked) = mpsc::channel(reload::MAX_ASKED);
        let streams = Streams::default();
        streams.seen(&caught_up.streams);
        let ticks = CancellationToken::new();
        let mut before_decider = vec![
            tokio::spawn(intake::run(from_sources, spool.clone(), streams.clone(), self.status.clone(), ticks.clone())),
            tokio::spawn(intake::tick(spool, streams.clone(), self.status.clone(), ticks.clone())),
            tokio::spawn(reloader.run(asked, ticks.clone())),
        ];
        let listening = sources.iter().flat_map(listening).collect();
        let context = context(&self, &batches, streams, &sources_stop);
        let doors = sources.iter().filter_map(|source| source.door(&context)).collect();
        before_decider.extend(sources.into_iter().map(|source| tokio::spawn(source.run(context.clone()))));
        let stop = Stop { sources: stop_sources, ticks, effects: self.stop, before_decider, decider, after_decider: self.tasks };
        let hand = Hand(self.orders);
        Engine {
            status: self.status,
            effects: self.effects,
            hands: self.hands,
            hand,
            reload,
            spool: self.spool,
            data: self.data.into(),
            batches,
            doors,
            listening,
            stop,
        }
    }
}

/// What sources are given.
fn context(acting: &Acting, batches: &mpsc::Sender<Batch>, streams: Streams, shutdown: &watch::Receiver<bool>) -> Context {
    let (spool, status) = (acting.spool.clone(), acting.status.clone());
    let report = move |source: &str, state: source::State| {
        let part = format!("source {source}");
        match state {
            source::State::Reads => status.clear(&part),
            source::State::Fails(why) => status.set(&part, Gravity::Degraded, why),
            source::State::Waits(other) => {
                status.set(&part, Gravity::Notice, other);
                streams.left(source);
            }
            source::State::TookOver => status.took_over(source, clock::now()),
        }
    };
    Context {
        batches: batches.clone(),
        inventory: acting.verified.subscribe(),
        shutdown: shutdown.clone(),
        node: acting.node.clone(),
        kept: Arc::new(move |log| lock(&spool).as_ref().and_then(|spool| spool.position(log))),
        report: Arc::new(report),
    }
}

/// Source, and protocol with address.
fn listening(source: &Bound) -> Vec<(String, String)> {
    let (udp, tcp) = source.addresses();
    let named = |protocol: &str, address: Option<SocketAddr>| address.map(|address| (source.name().to_owned(), format!("{protocol} {address}")));
    named("udp", udp).into_iter().chain(named("tcp", tcp)).collect()
}
