//! A shipped playbook on a real router, held at each of its steps in turn while engine, worker, executor or ssh is killed there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use opmas::journal::{Content, LedgerReader};
use opmas::model::{Decided, OutcomeState, RunState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::router::eventually;
use crate::site::Site;
use crate::whole::lines;

const SOON: Duration = Duration::from_secs(30);
/// How long a command of block_ip may take: what lost its connection is ended on the device then, if not before.
const LIMIT: Duration = Duration::from_secs(10);
/// Who is killed. The first brings the others down with it, which are found by a word of their command lines.
const VICTIMS: [&str; 4] = ["engine", "opmas-worker", "opmas-executor", "-M"];

/// How far a run has come, as the ledger has it.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Recorded {
    Begun,
    Intended,
    Attempted,
    ReadBack,
    Done,
}

/// Where a run is held, in the order of its way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// The worker has the script and does not answer.
    Evaluated,
    /// The executor has the request and does nothing.
    Asked,
    /// The device is about to make the change.
    BeforeChange,
    /// The device has made it, and does not say so.
    AfterChange,
    /// The device is about to read back.
    BeforeRead,
    /// What was read back is recorded; the worker does not answer what comes next.
    ReadBack,
    /// Everything is recorded.
    Done,
}

const STEPS: [Step; 7] = [Step::Evaluated, Step::Asked, Step::BeforeChange, Step::AfterChange, Step::BeforeRead, Step::ReadBack, Step::Done];

/// In the place of nft: holds on while a file names an address that it is about, and notes each block that it has made.
const NFT: &str = r#"#!/bin/sh
hold() {
  while at=$(cat "/tmp/hold-$1" 2>/dev/null); do
    case $2 in *"{ $at timeout "*) touch /tmp/held; sleep 1 ;; *) return ;; esac
  done
}
case $* in
'-f -')
  text=$(cat)
  hold before "$text"
  echo "$text" | nft.real -f - || exit
  echo "$text" | grep '^add element' | tail -n 1 >>/tmp/made
  hold after "$text" ;;
*' list table inet opmas')
  hold read "$(tail -n 1 /tmp/made 2>/dev/null)"
  exec nft.real "$@" ;;
*) exec nft.real "$@" ;;
esac
"#;

struct Held {
    site: Site,
}

impl Held {
    fn new() -> Held {
        let mut site = Site::new("[source.archive]\ntype = 'file'\npath = 'router.log'", "1h");
        // What is done on the router is done for the run.
        let settings = fs::read_to_string(site.dir.join("opmas.toml")).unwrap().replace("'1s'", "'10m'");
        fs::write(site.dir.join("opmas.toml"), settings).unwrap();
        let nft = site.router.root().join("usr/sbin/nft");
        fs::rename(&nft, nft.with_extension("real")).unwrap();
        fs::write(&nft, NFT).unwrap();
        fs::set_permissions(&nft, fs::Permissions::from_mode(0o755)).unwrap();
        site.start();
        Held { site }
    }

    /// Whether worker, executor and ssh run.
    fn all_run(&self) -> bool {
        VICTIMS[1..].iter().all(|word| self.site.router.runs("mg", word))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.site.router.root().join("tmp").join(name)
    }

    fn attack(&self, address: &str) {
        let mut log = fs::OpenOptions::new().create(true).append(true).open(self.site.dir.join("router.log")).unwrap();
        log.write_all(lines(address).as_bytes()).unwrap();
    }

    fn signal(&self, word: &str, signal: Signal) {
        let of = |process: &&crate::router::Process| process.words.iter().any(|w| w == word);
        let found = self.site.router.processes("mg");
        let pids: Vec<i32> = found.iter().filter(of).map(|process| process.pid).collect();
        assert_eq!(pids.len(), 1, "{word}: {found:?}");
        kill_process(Pid::from_raw(pids[0]).unwrap(), signal).unwrap();
    }

    /// How far the run about an address is.
    fn recorded(&self, address: &str) -> Option<Recorded> {
        let (mut about, mut found) = (BTreeMap::new(), BTreeMap::new());
        for entry in LedgerReader::open(&self.site.dir.join("opmas-data/ledger"), 0).unwrap().map_while(Result::ok) {
            let Content::Decided(decided) = entry.content else { continue };
            match *decided {
                Decided::Finding { finding } => _ = about.insert(finding.id.clone(), finding.group.get("src_ip").cloned()),
                Decided::Run { run, finding, .. } if about[&finding].as_ref().is_some_and(|ip| ip == address) => _ = found.insert(run, Recorded::Begun),
                Decided::Intent { step, .. } => _ = found.entry(step.run.clone()).and_modify(|at| *at = Recorded::Intended),
                Decided::Attempt { run, .. } => _ = found.entry(run).and_modify(|at| *at = Recorded::Attempted),
                Decided::Outcome { run, outcome, .. } if outcome.state == OutcomeState::Enforced => {
                    _ = found.entry(run).and_modify(|at| *at = Recorded::ReadBack)
                }
                Decided::RunMoved { run, state: RunState::Done, .. } => _ = found.entry(run).and_modify(|at| *at = Recorded::Done),
                _ => {}
            }
        }
        assert!(found.len() <= 1, "one run about {address}: {found:?}");
        found.into_values().next()
    }

    fn comes_to(&self, address: &str, recorded: Recorded) {
        eventually(SOON, &format!("the run about {address} does not come to {recorded:?}"), || self.recorded(address) == Some(recorded));
    }

    fn hold(&self, at: &str, address: &str) {
        fs::write(self.file(&format!("hold-{at}")), address).unwrap();
    }

    fn is_held(&self) {
        eventually(SOON, "the device does not come to it", || self.file("held").exists());
    }

    /// The device goes on, and holds no more.
    fn release(&self) {
        for name in ["hold-before", "hold-after", "hold-read", "held"] {
            let _ = fs::remove_file(self.file(name));
        }
    }

    /// Has an address blocked up to a step, and stays there. What was stopped for it.
    fn stay(&self, step: Step, address: &str) -> Option<&'static str> {
        let on_device = match step {
            Step::BeforeChange | Step::ReadBack => Some("before"),
            Step::AfterChange => Some("after"),
            Step::BeforeRead => Some("read"),
            Step::Evaluated | Step::Asked | Step::Done => None,
        };
        let stopped = match step {
            Step::Evaluated | Step::ReadBack => Some("opmas-worker"),
            Step::Asked => Some("opmas-executor"),
            _ => None,
        };
        if let Some(at) = on_device {
            self.hold(at, address);
        } else if let Some(word) = stopped {
            self.signal(word, Signal::STOP);
        }
        self.attack(address);
        if on_device.is_some() {
            self.is_held();
        }
        match step {
            Step::Evaluated => self.comes_to(address, Recorded::Begun),
            Step::Asked | Step::BeforeChange | Step::AfterChange | Step::BeforeRead => self.comes_to(address, Recorded::Attempted),
            Step::ReadBack => {
                self.signal("opmas-worker", Signal::STOP);
                self.release();
                self.comes_to(address, Recorded::ReadBack);
            }
            Step::Done => self.comes_to(address, Recorded::Done),
        }
        let made = self.made(address);
        assert_eq!(made, usize::from(!matches!(step, Step::Evaluated | Step::Asked | Step::BeforeChange)), "{step:?}");
        stopped
    }

    /// How often the device has made the block.
    fn made(&self, address: &str) -> usize {
        let made = fs::read_to_string(self.file("made")).unwrap_or_default();
        made.lines().filter(|line| line.contains(&format!("{{ {address} timeout "))).count()
    }

    /// The calls of nft that run on the device.
    fn nft(&self) -> Vec<i32> {
        let is_nft = |process: &crate::router::Process| process.words.iter().any(|word| word == "/usr/sbin/nft");
        self.site.router.processes("rt").into_iter().filter(is_nft).map(|process| process.pid).collect()
    }

    /// Kills one of them; the command that the device is held in ends with the connection, and only then the device goes on.
    fn kill(&mut self, victim: &str, stopped: Option<&str>) {
        let held = self.nft();
        if victim == VICTIMS[0] {
            self.site.kill();
            eventually(SOON, "something outlives the engine", || !VICTIMS[1..].iter().any(|word| self.site.router.runs("mg", word)));
        } else {
            self.signal(victim, Signal::KILL);
        }
        if victim != "opmas-worker" && stopped.is_none() {
            // Another try may be held already.
            eventually(LIMIT, "what was held outlives its connection", || !self.nft().iter().any(|pid| held.contains(pid)));
        }
        self.release();
        if victim == VICTIMS[0] {
            self.site.start();
        } else if let Some(word) = stopped.filter(|word| *word != victim) {
            self.signal(word, Signal::CONT);
        }
    }
}

#[test]
fn o7_whoever_is_killed_at_whatever_step_it_is_done_once_and_ends_well() {
    let mut held = Held::new();
    let mut expected = Vec::new();
    for (n, step) in STEPS.into_iter().enumerate() {
        for (m, victim) in VICTIMS.into_iter().enumerate() {
            if !held.all_run() {
                // A run has them started.
                let address = format!("203.0.113.{}", 100 + expected.len());
                held.attack(&address);
                held.comes_to(&address, Recorded::Done);
                expected.push(address);
                eventually(SOON, "not all of them run", || held.all_run());
            }
            let address = format!("203.0.113.{}", n * VICTIMS.len() + m + 1);
            eprintln!("{victim} is killed at {step:?}, about {address}");
            let stopped = held.stay(step, &address);
            held.kill(victim, stopped);
            held.comes_to(&address, Recorded::Done);
            assert_eq!(held.made(&address), 1, "{victim} killed at {step:?}");
            expected.push(address);
        }
    }
    let site = &mut held.site;
    expected.sort();
    assert_eq!(site.blocked(), expected);
    let rows = |args: &[&str]| -> Vec<Value> { site.run(args).1.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let runs = rows(&["playbook", "runs", "--limit", "1000", "--json"]);
    assert!(runs.len() == expected.len() && runs.iter().all(|run| run["state"] == "done"), "{runs:?}");
    assert_eq!(rows(&["lease", "list", "--json"]).len(), expected.len(), "a lease for each");
    for run in runs {
        let (_, story) = site.run(&["playbook", "show", run["run"].as_str().unwrap()]);
        assert_eq!(story.matches("enforced at").count(), 1, "{story}");
    }
    site.terminate();
    for verify in [["store", "verify"], ["audit", "verify"]] {
        let (code, said) = site.run(&verify);
        assert_eq!(code, Some(0), "{said}");
    }
}
