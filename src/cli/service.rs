//! The running system around the engine: logs, metrics, HTTP, the control socket, signals. The same for `run` and `demo`.

use std::io::{self, IsTerminal};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Done, Exit, Failure};
use crate::api::control::{self, Control};
use crate::api::http::{self, Pages};
use crate::api::ingest::Ingest;
use crate::api::runs::Runs;
use crate::config::Setup;
use crate::engine::{self, Engine, Gravity, Status};
use crate::journal::DataDir;

/// How often the metrics' recorder tidies up.
const UPKEEP: Duration = Duration::from_secs(10);
/// How long requests under way may take when opmas ends.
const LAST_REQUESTS: Duration = Duration::from_secs(12);
/// Threads for everything that waits; detection and the journal have their own.
const THREADS: usize = 2;

/// Logs go to standard error; `RUST_LOG` chooses, default `info`. What the NATS library meets, the source says in its own words.
pub(super) fn log(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,async_nats=off".into());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false);
    // A second subscriber in one process is no reason to end it.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
}

/// Runs the system until a signal ends it; `ready` is called once input is accepted, and what it returns runs beside.
pub(super) fn serve<F>(setup: Setup, ready: impl FnOnce(Arc<Engine>) -> F) -> Done
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Invalid, format!("cannot start threads: {error}")))?;
    runtime.block_on(system(setup, ready))
}

async fn system<F>(setup: Setup, ready: impl FnOnce(Arc<Engine>) -> F) -> Done
where
    F: Future<Output = ()> + Send + 'static,
{
    let invalid = |error: &dyn std::fmt::Display| Failure::new(Exit::Invalid, error);
    let metrics = recorder().map_err(|error| invalid(&error))?;
    let status = Status::default();
    name_what_is_left_out(&setup)?;
    let (listen, data_dir, health) = (setup.settings.http.listen, setup.settings.data_dir.clone(), setup.settings.health.every.to_std());
    let token = setup.token().map_err(|error| invalid(&error))?.map(|token| Pages::digest(token.expose()));
    let (doors, to_doors) = watch::channel(Vec::new());
    let ingest = Ingest::new(&setup.source_tokens().map_err(|error| invalid(&error))?, to_doors, status.clone());
    let started = Arc::new(OnceLock::new());
    let pages = Pages { status: status.clone(), metrics: metrics.clone(), token, engine: started.clone() };
    let runs = Runs::new(&setup.api_tokens().map_err(|error| invalid(&error))?, started.clone());
    // Its lock first: a second opmas on the folder says so, and not that the port is taken.
    let data = DataDir::open(&data_dir).map_err(|error| invalid(&error))?;
    let listener = http::bind(listen).await.map_err(|error| invalid(&error))?;
    // From here on it no longer ends the process.
    let hangup = signal(SignalKind::hangup()).map_err(|error| invalid(&error))?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    status.set("start", Gravity::NotReady, "starting");
    // From here on `/readyz` says why it is not ready yet.
    let mut http = tokio::spawn(http::serve(listener, pages, ingest, runs, async move { stopped.cancelled().await }));
    let mut ended = Ended::new().map_err(|error| invalid(&error))?;
    let engine = tokio::select! {
        engine = engine::start(setup, data, status) => Arc::new(engine.map_err(|error| invalid(&error))?),
        // Nothing was accepted yet; the next start catches up from where this one was.
        () = ended.wait() => return Ok(Exit::Done),
    };
    doors.send_replace(engine.doors());
    let _ = started.set(Arc::downgrade(&engine));
    if !health.is_zero() {
        let metrics = metrics.clone();
        engine.observe(health, move || metrics.render());
    }
    let socket = control::bind(&data_dir).map_err(|error| invalid(&format!("cannot make {}: {error}", control::path(&data_dir).display())))?;
    let control = tokio::spawn(control::serve(socket, Arc::new(Control { engine: engine.clone() }), stop.clone()));
    let beside = tokio::spawn(ready(engine.clone()));
    wait(&mut ended, &metrics, hangup, &engine).await;
    tracing::info!("ending: what was accepted is finished first");
    beside.abort();
    // It has nothing to lose.
    let _ = beside.await;
    stop.cancel();
    let _ = control.await;
    // Requests under way are answered; one that does not come to its end is not waited for.
    if tokio::time::timeout(LAST_REQUESTS, &mut http).await.is_err() {
        http.abort();
    }
    match Arc::try_unwrap(engine) {
        Ok(engine) => engine.stop().await,
        Err(_) => tracing::warn!("a command is still being answered; ending all the same"),
    }
    Ok(Exit::Done)
}

/// SIGTERM and SIGINT, heard from the start on.
struct Ended {
    terminate: Signal,
    interrupt: Signal,
}

impl Ended {
    fn new() -> io::Result<Ended> {
        Ok(Ended { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Waits for the end; SIGHUP has the configuration folder read at once.
async fn wait(ended: &mut Ended, metrics: &PrometheusHandle, mut hangup: Signal, engine: &Engine) {
    loop {
        tokio::select! {
            () = ended.wait() => return,
            _ = hangup.recv() => engine.reload_soon(),
            () = tokio::time::sleep(UPKEEP) => metrics.run_upkeep(),
        }
    }
}

fn recorder() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    PrometheusBuilder::new().install_recorder()
}

/// Files that do not load are named and left out; without any rule nothing is started (X1).
fn name_what_is_left_out(setup: &Setup) -> Result<(), Failure> {
    for wrong in setup.content.diagnostics() {
        eprintln!("opmas: {wrong}");
    }
    if setup.content.rules > 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Invalid, "no rule is loaded; `opmas check` says why, `opmas init` writes the shipped ones"))
}
