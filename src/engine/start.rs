//! Building the topology, part by part, and taking it down.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::bundle;
use super::decide::{Decider, Detected};
use super::detection::{Detection, Live, kind_key};
use super::effects::{Effects, lock};
use super::hands::Hands;
use super::intake::{self, Streams};
use super::policy::Policy;
use super::recover::{self, Recovered};
use super::runs::{self, Runner};
use super::status::{Gravity, Status};
use super::worker::Worker;
use super::{deliveries, leases};
use crate::action::{Leases, Posture};
use crate::alert::{Channels, Outbox, SendError};
use crate::clock;
use crate::config::Setup;
use crate::executor::{self, Launch, Reply, Request};
use crate::journal::{Checkpoints, DataDir, Ledger, LedgerHash, OpenError, ReadError, Revisions, Spool, SpoolHandle, SpoolReader};
use crate::model::{Decided, EntryBody, Inventory, Revision, RevisionKind};
use crate::playbook::signatures;
use crate::source::{self, Batch, BindError, Bound};

/// Findings and checkpoints between the detection thread and the decider.
const MAX_DETECTED: usize = 1_024;
/// Batches of entries between the spool and the detection thread.
const MAX_BATCHES: usize = 64;
/// Runs between the decider and the runs.
const MAX_BEGUN: usize = 1_024;
/// How long what is under way on devices and channels may take to end when opmas ends; then it is settled at the next start.
const PATIENCE: Duration = Duration::from_secs(15);

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

/// The running system.
pub struct Engine {
    status: Status,
    effects: Arc<Effects>,
    hands: Arc<Hands>,
    channels: Arc<Channels>,
    revisions: Revisions,
    inventory: watch::Sender<Arc<Inventory>>,
    verified: watch::Sender<Arc<HashSet<IpAddr>>>,
    spool: Arc<Mutex<Option<SpoolHandle>>>,
    batches: mpsc::Sender<Batch>,
    addresses: Vec<(String, String)>,
    stop_sources: watch::Sender<bool>,
    /// Ends ticks.
    stop_ticks: CancellationToken,
    /// Ends runs, leases and deliveries.
    stop_effects: CancellationToken,
    before_decider: Vec<JoinHandle<()>>,
    decider: JoinHandle<()>,
    after_decider: Vec<JoinHandle<()>>,
}

/// Starts everything. When it returns, input is accepted and what the spool held has been caught up with.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub async fn start(setup: Setup, status: Status) -> Result<Engine, StartError> {
    let data = DataDir::open(&setup.settings.data_dir)?;
    let sources = bind(&setup, &data)?;
    status.set("start", Gravity::NotReady, "catching up with what the spool holds");
    let (ledger, recovery) = Ledger::open(&data)?;
    let catalogue = Arc::new(setup.catalogue);
    let effects =
        Arc::new(Effects::new(ledger, Outbox::new(&setup.channels), Leases::new(catalogue.clone(), setup.settings.lease.verify_every), status.clone()));
    let mut recovered = recover::read(&data, &effects)?;
    let (mut spool, spool_recovery) = Spool::open(&data, setup.settings.spool.clone())?;
    let notes: Vec<Decided> = recovery.torn.iter().chain(&spool_recovery.torn).map(|torn| note(torn.to_string())).collect();
    effects.record(notes).await;

    let revisions = Revisions::new(&data);
    let (detected_in, detected) = mpsc::channel(MAX_DETECTED);
    let checkpoints = Checkpoints::new(&data);
    let (detection, checkpoints) = detection(&data, &revisions, checkpoints, &mut recovered, detected_in, &status)?;
    let recorded = if spool.last() >= detection.next() { Some(open_spool(&spool, detection.next())?) } else { None };
    // The checkpoint may be newer than a spool that lost its tail: no place is given twice.
    spool.skip_to(detection.next() - 1).map_err(|error| StartError::Internal(error.to_string()))?;
    let (entries_in, entries) = mpsc::channel(MAX_BATCHES);
    let spool = spool.start(entries_in)?;
    let shared_spool = Arc::new(Mutex::new(Some(spool.clone())));

    let (inventory, watch_inventory) = watch::channel(Arc::new(setup.inventory));
    let paths =
        executor::Paths::new(&setup.paths.file, &setup.settings.data_dir).map_err(|cause| StartError::Io { doing: "find the current folder", cause })?;
    let hands = Arc::new(Hands::new(Launch::own(&paths), status.clone()));
    // Otherwise the first request starts it; what is wrong with it should be known before it is needed.
    if setup.settings.posture != Posture::Observe && !watch_inventory.borrow().devices.is_empty() {
        hands.start().await;
    }
    let channels = Arc::new(setup.channels);
    let playbooks = Arc::new(setup.playbooks);
    let (runs_in, begun) = mpsc::channel(MAX_BEGUN);
    let stop_effects = CancellationToken::new();
    let decider = Decider {
        effects: effects.clone(),
        routes: Arc::new(setup.routes),
        channels: channels.clone(),
        playbooks: playbooks.clone(),
        checkpoints,
        spool: shared_spool.clone(),
        runs: runs_in,
    };
    let policy = Policy {
        catalogue: catalogue.clone(),
        posture: setup.settings.posture,
        ceilings: setup.settings.actions.clone(),
        guard: setup.settings.guard.clone(),
        inventory: watch_inventory.clone(),
    };
    keep_scripts(&revisions, &playbooks).map_err(|cause| StartError::Io { doing: "keep the playbooks' revisions", cause })?;
    let runner = Arc::new(Runner {
        effects: effects.clone(),
        policy,
        playbooks,
        signatures: signatures(&catalogue),
        inventory: watch_inventory,
        worker: Worker::start(status.clone()),
        hands: hands.clone(),
        revisions: revisions.clone(),
        stop: stop_effects.clone(),
    });
    let open_runs = recovered.runs.into_values().collect();
    let decider = tokio::spawn(decider.run(detected));
    let after_decider = vec![
        tokio::spawn(runs::run(runner, open_runs, begun)),
        tokio::spawn(leases::run(effects.clone(), hands.clone(), setup.settings.posture, status.clone(), stop_effects.clone())),
        tokio::spawn(deliveries::run(effects.clone(), channels.clone(), stop_effects.clone())),
    ];
    let (tell, caught_up) = oneshot::channel();
    let thread = std::thread::Builder::new().name("detection".to_owned()).spawn(move || detection.run(recorded, tell, entries));
    thread.map_err(|cause| StartError::Io { doing: "start the detection thread", cause })?;
    let caught_up = caught_up.await.map_err(|_| StartError::Internal("the detection thread ended while it caught up".to_owned()))?;
    effects.record(caught_up.damage.iter().map(|error| note(format!("passed over while catching up: {error}"))).collect()).await;
    tracing::info!(entries = caught_up.entries, "caught up with the spool");
    let now = inventory.borrow().clone();
    let configured = Configured { rules: &setup.rules, extractors: &setup.extractors, inventory: &now };
    configured.go_live(&spool, &revisions, &caught_up.live, &status).await?;

    let (batches, from_sources) = mpsc::channel(intake::MAX_WAITING);
    let (stop_sources, sources_stop) = watch::channel(false);
    let verified = watch::Sender::new(Arc::new(addresses(&inventory.borrow())));
    let streams = Streams::default();
    let stop_ticks = CancellationToken::new();
    let mut before_decider = vec![
        tokio::spawn(intake::run(from_sources, spool.clone(), streams.clone(), status.clone())),
        tokio::spawn(intake::tick(spool, streams, status.clone(), stop_ticks.clone())),
    ];
    let listening = sources.iter().flat_map(listening).collect();
    before_decider.extend(sources.into_iter().map(|source| tokio::spawn(source.run(batches.clone(), verified.subscribe(), sources_stop.clone()))));
    status.clear("start");
    Ok(Engine {
        status,
        effects,
        hands,
        channels,
        revisions,
        inventory,
        verified,
        spool: shared_spool,
        batches,
        addresses: listening,
        stop_sources,
        stop_ticks,
        stop_effects,
        before_decider,
        decider,
        after_decider,
    })
}

/// Takes what each source needs, before anything starts.
fn bind(setup: &Setup, data: &DataDir) -> Result<Vec<Bound>, BindError> {
    let positions = data.path().join("positions");
    setup.settings.source.iter().map(|(name, config)| source::bind(name, config, &positions)).collect()
}

fn listening(source: &Bound) -> Vec<(String, String)> {
    let (udp, tcp) = source.addresses();
    let named = |protocol: &str, address: Option<std::net::SocketAddr>| address.map(|address| (source.name().to_owned(), format!("{protocol} {address}")));
    named("udp", udp).into_iter().chain(named("tcp", tcp)).collect()
}

fn open_spool(spool: &Spool, from: u64) -> Result<SpoolReader, ReadError> {
    match spool.read(from) {
        // Retention has passed, or the state is gone: what is left is computed from its beginning.
        Err(ReadError::Gone { oldest, .. }) => spool.read(oldest),
        other => other,
    }
}

/// The detection state of the newest checkpoint that can be gone on from; without one an empty state.
fn detection(
    data: &DataDir,
    revisions: &Revisions,
    mut checkpoints: Checkpoints,
    recovered: &mut Recovered,
    detected: mpsc::Sender<Detected>,
    status: &Status,
) -> Result<(Detection, Checkpoints), StartError> {
    let known = std::mem::take(&mut recovered.findings);
    let new = |known| {
        let wrong = |wrong: Vec<crate::diag::Diagnostic>| StartError::Internal(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        Detection::new(data.node(), revisions.clone(), known, detected.clone(), status.clone()).map_err(wrong)
    };
    let candidates: Vec<_> = recovered.checkpoints.iter().cloned().collect();
    let Some(loaded) = checkpoints.newest_valid(&candidates) else { return Ok((new(known)?, checkpoints)) };
    for why in &loaded.passed_over {
        tracing::warn!(why, "a checkpoint is passed over");
    }
    let mut detection = new(known.clone())?;
    match detection.restore(loaded.checkpoint.seq, &loaded.body) {
        Ok(()) => Ok((detection, checkpoints)),
        Err(why) => {
            tracing::warn!(why, checkpoint = %loaded.checkpoint.name, "a checkpoint cannot be gone on from; the spool is computed from its beginning");
            Ok((new(known)?, checkpoints))
        }
    }
}

/// Keeps the scripts of all playbooks, so that a run goes on with the one that it began with.
fn keep_scripts(revisions: &Revisions, playbooks: &crate::playbook::Playbooks) -> io::Result<()> {
    playbooks.iter().try_for_each(|playbook| revisions.keep(playbook.script.as_bytes()).map(drop))
}

/// What is configured now goes live where it differs from what the spool has.
struct Configured<'a> {
    rules: &'a [crate::diag::SourceFile],
    extractors: &'a [crate::diag::SourceFile],
    inventory: &'a Inventory,
}

impl Configured<'_> {
    fn revisions(&self, kept: &Revisions) -> io::Result<[Revision; 3]> {
        Ok([
            bundle::keep_files(kept, RevisionKind::Extractors, self.extractors)?,
            bundle::keep_inventory(kept, self.inventory)?,
            bundle::keep_files(kept, RevisionKind::Rules, self.rules)?,
        ])
    }

    async fn go_live(&self, spool: &SpoolHandle, kept: &Revisions, live: &Live, status: &Status) -> Result<(), StartError> {
        let revisions = self.revisions(kept).map_err(|cause| StartError::Io { doing: "keep the rules' revision", cause })?;
        let new = revisions.into_iter().filter(|revision| live.get(&kind_key(revision.kind)) != Some(revision));
        let bodies: Vec<EntryBody> = new.map(EntryBody::Revision).collect();
        if !bodies.is_empty() {
            intake::append(spool, bodies, status).await;
        }
        Ok(())
    }
}

fn note(text: String) -> Decided {
    Decided::Note { text, at: clock::now() }
}

/// The addresses whose TCP connections are believed: those of devices.
fn addresses(inventory: &Inventory) -> HashSet<IpAddr> {
    inventory.devices.iter().filter_map(|device| device.host.parse().ok()).collect()
}

impl Engine {
    /// How things stand.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Every decision from now on; a slow reader misses some.
    #[must_use]
    pub fn feed(&self) -> broadcast::Receiver<Arc<Decided>> {
        self.effects.feed()
    }

    /// Where it listens: source, protocol and address.
    #[must_use]
    pub fn addresses(&self) -> &[(String, String)] {
        &self.addresses
    }

    /// A way in for records, beside the configured sources. To be dropped before [`Engine::stop`].
    #[must_use]
    pub fn input(&self) -> mpsc::Sender<Batch> {
        self.batches.clone()
    }

    /// The ledger's newest record and the chain hash up to it.
    #[must_use]
    pub fn ledger_head(&self) -> (u64, LedgerHash) {
        self.effects.head()
    }

    /// Asks the executor how a device can be reached.
    pub async fn check_device(&self, name: &str) -> Reply {
        self.hands.perform(Request::Check { device: name.into() }).await
    }

    /// Sends a test message through a channel; what the other side answered. `None` when there is no such channel.
    pub async fn test_channel(&self, name: &str) -> Option<Result<String, SendError>> {
        match self.channels.get(name) {
            Some(channel) => Some(deliveries::test(channel).await),
            None => None,
        }
    }

    /// Another inventory, from the next spool entry on; the executor reads its own.
    ///
    /// # Errors
    /// It cannot be kept.
    pub async fn set_inventory(&self, inventory: Inventory) -> io::Result<()> {
        let revision = bundle::keep_inventory(&self.revisions, &inventory)?;
        let spool = lock(&self.spool).clone();
        if let Some(spool) = spool {
            intake::append(&spool, vec![EntryBody::Revision(revision)], &self.status).await;
        }
        self.verified.send_replace(Arc::new(addresses(&inventory)));
        self.inventory.send_replace(Arc::new(inventory));
        self.hands.start().await;
        Ok(())
    }

    /// Ends everything, from left to right: what was accepted is on disk and computed; what is under way on devices and channels is
    /// waited for a while, and settled at the next start otherwise.
    pub async fn stop(self) {
        self.stop_sources.send_replace(true);
        self.stop_ticks.cancel();
        drop(self.batches);
        for task in self.before_decider {
            // A task that panicked has said so.
            let _ = task.await;
        }
        lock(&self.spool).take();
        let _ = self.decider.await;
        self.stop_effects.cancel();
        for mut task in self.after_decider {
            if tokio::time::timeout(PATIENCE, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.hands.shutdown().await;
    }
}
