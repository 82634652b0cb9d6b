//! `opmas demo`: the whole loop on a recorded attack, with nothing to configure.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Done, Exit, Failure, service, show};
use crate::alert::{Notice, render_text, visible};
use crate::clock;
use crate::config::{Paths, Setup};
use crate::engine::Engine;
use crate::model::{Decided, Finding, FindingId, Payload, Record, Trust};
use crate::source::Batch;
use crate::triage::Routes;

/// Four minutes of a router's log, with an attack in it.
const RECORDING: &str = include_str!("recording.log");
/// The pause between two lines of the recording: fast enough to wait for, slow enough to read.
const PACE: Duration = Duration::from_millis(120);
/// How long the last line's findings may take before the demo goes on to say what to do next.
const QUIET: Duration = Duration::from_millis(900);

const SETTINGS: &str = "# Made by `opmas demo`.\nposture = \"observe\"\n\n[source.syslog]\ntype = \"syslog\"\nlisten = \"127.0.0.1:1514\"\n";
const DEVICES: &str = "# Made by `opmas demo`: a device that is not there.\n[[device]]\nname = \"ap1\"\nhost = \"192.168.1.1\"\n";

pub(super) fn run() -> Done {
    let dir = folder()?;
    println!("opmas demo: nothing is changed on any device; everything is kept in {}", dir.display());
    let invalid = |error: &dyn std::fmt::Display| Failure::new(Exit::Invalid, error);
    let setup = Setup::from_text(Paths::new(Some(&dir.join("opmas.toml"))), SETTINGS).map_err(|error| invalid(&error))?;
    let routes = setup.content.routes.clone();
    service::serve(setup, |engine| play(engine, routes, dir))
}

/// A fresh folder with the demo's configuration.
fn folder() -> Result<PathBuf, Failure> {
    let failed =
        |error: std::io::Error| Failure::new(Exit::Invalid, format!("cannot make a folder for the demo in {}: {error}", std::env::temp_dir().display()));
    let dir = std::env::temp_dir().join(format!("opmas-demo-{}", clock::random_hex::<4>().map_err(failed)?));
    fs::DirBuilder::new().mode(0o700).create(&dir).map_err(failed)?;
    for (name, text) in [("opmas.toml", SETTINGS), ("devices.toml", DEVICES)] {
        fs::write(dir.join(name), text).map_err(failed)?;
    }
    Ok(dir)
}

/// Plays the recording, then says how to go on, and goes on showing what is decided.
async fn play(engine: Arc<Engine>, routes: Arc<Routes>, dir: PathBuf) {
    let mut feed = engine.feed();
    let input = engine.input();
    // Whoever holds the engine holds its end back.
    drop(engine);
    let mut screen = Screen { routes, findings: Vec::new(), done: Vec::new() };
    println!("\n── what the router ap1 logged, played again ──");
    for line in RECORDING.lines() {
        println!("{}", visible(line, 200));
        if replay(&input, line).await.is_none() {
            return;
        }
        screen.show_for(&mut feed, PACE).await;
    }
    drop(input);
    screen.show_for(&mut feed, QUIET).await;
    how_to_go_on(&dir);
    if super::OUTPUT.get().is_some() {
        // Nobody sees it any more.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    }
    while let Some(decided) = show::next(&mut feed).await {
        screen.show(&decided);
    }
}

/// One line as a source would bring it; `None` when opmas is ending.
async fn replay(input: &mpsc::Sender<Batch>, line: &str) -> Option<()> {
    let record = Record {
        id: None,
        source: "recording".into(),
        stream: "recording".into(),
        arrival: Some(clock::now()),
        peer: None,
        trust: Trust::Open,
        raw: line.as_bytes().to_vec(),
        payload: Payload::Log,
        subject: None,
    };
    let (done, stored) = oneshot::channel();
    input.send(Batch { records: vec![record], done: Some(done) }).await.ok()?;
    stored.await.ok()
}

fn how_to_go_on(dir: &Path) {
    println!("\n── now it is your turn ──");
    println!("opmas listens on 127.0.0.1:1514 (syslog) and http://127.0.0.1:9320/readyz. In another terminal:\n");
    println!("  for i in 1 2 3 4 5 6; do");
    println!("    logger -n 127.0.0.1 -P 1514 -d -t dropbear \"Bad password attempt for 'root' from 203.0.113.9:48629\"");
    println!("  done");
    println!("  logger -n 127.0.0.1 -P 1514 -d -t dropbear \"Password auth succeeded for 'root' from 203.0.113.9:48630\"\n");
    println!("For your own routers: opmas init my-network && cd my-network && opmas run");
    println!("Ctrl-C ends the demo; what it kept is in {}\n", dir.display());
}

/// What the person sees.
struct Screen {
    routes: Arc<Routes>,
    /// Findings whose message is still to be shown.
    findings: Vec<Finding>,
    /// What was said of their steps.
    done: Vec<String>,
}

/// Findings that wait for their steps; more than a demo ever has.
const MAX_FINDINGS: usize = 64;

impl Screen {
    async fn show_for(&mut self, feed: &mut broadcast::Receiver<Arc<Decided>>, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while let Ok(Some(decided)) = tokio::time::timeout_at(until, show::next(feed)).await {
            self.show(&decided);
        }
    }

    fn show(&mut self, decided: &Decided) {
        match decided {
            Decided::Finding { finding } => {
                let kind = if finding.severity >= crate::model::Severity::Medium { "CORRELATED FINDING" } else { "FINDING" };
                println!("\n▶ {kind}  {}", show::finding(finding));
                if self.findings.len() < MAX_FINDINGS {
                    self.findings.push((**finding).clone());
                }
            }
            Decided::Intent { step, .. } => {
                println!("▶ PLAN  {}", show::step(step));
                self.done.push(format!("{} on {}: {}", step.action, step.device, step.reason));
            }
            Decided::RunMoved { reason, .. } => {
                if self.done.is_empty() {
                    println!("▶ NO PLAN  {}\n", visible(reason, 400));
                    self.done.push(reason.clone());
                }
                self.messages(None);
            }
            Decided::Triaged { finding, reason } if reason.starts_with("no playbook") => self.messages(Some(finding)),
            _ => {}
        }
    }

    /// Shows the messages of one finding, or of all.
    fn messages(&mut self, only: Option<&FindingId>) {
        let (told, waiting) = std::mem::take(&mut self.findings).into_iter().partition(|finding| only.is_none_or(|id| finding.id == *id));
        self.findings = waiting;
        let told: Vec<Finding> = told;
        for finding in told {
            let to = self.routes.route(&finding).to;
            let Some(first) = to.first() else { continue };
            let channels: Vec<&str> = to.iter().map(|routed| &*routed.channel).collect();
            let notice = Notice::of_findings(vec![Arc::new(finding)], &first.route, &first.channel, clock::now(), self.done.clone());
            println!("▶ MESSAGE that would go to {} (enable them in notifiers/)", channels.join(" and "));
            for line in render_text(&notice, "demo").lines() {
                println!("  │ {line}");
            }
            println!("");
        }
        if only.is_none() {
            self.done.clear();
        }
    }
}
