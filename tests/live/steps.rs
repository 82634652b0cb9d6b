//! The shipped playbooks on a real router, held at each of their steps in turn while engine, worker, executor or ssh is killed there.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use opmas::journal::{Content, LedgerReader};
use opmas::model::{Decided, OutcomeState, RunState};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::router::{ROUTER, eventually};
use crate::site::Site;
use crate::whole::{lines, random};

const SOON: Duration = Duration::from_secs(30);
/// How long a command of block_ip may take: what lost its connection is ended on the device then, if not before.
const LIMIT: Duration = Duration::from_secs(10);
/// Who is killed. The first brings the others down with it, which are found by a word of their command lines.
const VICTIMS: [&str; 4] = ["engine", "opmas-worker", "opmas-executor", "-M"];

/// The router once more, as another device of the same site.
const PORT: u16 = 2223;

/// A shipped playbook.
#[derive(Debug)]
struct Play {
    name: &'static str,
    /// What the router logs of an address for it to run.
    log: fn(&str) -> String,
    /// It asks a person before it acts.
    asks: bool,
    /// On how many devices of the site it acts.
    devices: usize,
}

const PLAYS: [Play; 3] = [
    Play { name: "block_source", log: lines, asks: false, devices: 1 },
    Play { name: "block_scanner", log: scan, asks: true, devices: 1 },
    Play { name: "block_luci_guesser", log: guesses, asks: true, devices: 2 },
];

fn scan(address: &str) -> String {
    let line = |port| {
        format!(
            "<4>Nov 21 13:08:12 ap1 kernel: [ 1000.000000] reject wan in: IN=eth1 OUT= MAC= SRC={address} DST=198.51.100.2 LEN=44 PROTO=TCP SPT=40000 DPT={port}\n"
        )
    };
    (20..40).map(line).collect()
}

fn guesses(address: &str) -> String {
    format!("<27>Nov 21 13:08:12 ap1 uhttpd[1825]: [info] luci: failed login on / for root from {address}\n").repeat(5)
}

/// How far a run has come, as the ledger has it.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Recorded {
    Begun,
    Intended,
    Asked,
    Attempted,
    ReadBack,
    Done,
}

/// Where a run is held, in the order of its way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// The worker has the script and does not answer.
    Evaluated,
    /// It waits for a person to approve it.
    Waiting,
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

const STEPS: [Step; 8] = [Step::Evaluated, Step::Waiting, Step::Asked, Step::BeforeChange, Step::AfterChange, Step::BeforeRead, Step::ReadBack, Step::Done];

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
        for play in &PLAYS {
            // More of them than may run in an hour.
            let file = site.dir.join(format!("playbooks/{}.rhai", play.name));
            let of_budget =
                |line: &str| if line.starts_with("budget ") { "budget = { devices = 50, per_hour = 1000 }\n".to_owned() } else { format!("{line}\n") };
            let script: String = fs::read_to_string(&file).unwrap().lines().map(of_budget).collect();
            fs::write(file, script).unwrap();
        }
        site.router.sh(
            "rt",
            &format!(
                "nft add table ip u; nft add chain ip u p '{{ type nat hook prerouting priority -100; }}'; nft add rule ip u p tcp dport {PORT} redirect to :22"
            ),
        );
        let known = site.dir.join("opmas-data/keys/known_hosts");
        let key = fs::read_to_string(&known).unwrap();
        fs::write(&known, format!("{key}[{ROUTER}]:{PORT} {}\n", key.trim().split_once(' ').unwrap().1)).unwrap();
        let device = |name: &str, port: u16| format!("[[device]]\nname = '{name}'\nhost = '{ROUTER}'\nport = {port}\nsite = 'home'\n");
        fs::write(site.dir.join("devices.toml"), [device("ap1", 22), device("ap2", PORT)].concat()).unwrap();
        let nft = site.router.root().join("usr/sbin/nft");
        fs::rename(&nft, nft.with_extension("real")).unwrap();
        fs::write(&nft, NFT).unwrap();
        fs::set_permissions(&nft, fs::Permissions::from_mode(0o755)).unwrap();
        site.start();
        Held { site }
    }

    /// Whether worker, executor and ssh run.
    fn all_run(&self) -> bool {
        VICTIMS[1..].iter().all(|word| !self.processes(word).is_empty())
    }

    /// Those with a word among their arguments; of ssh, the one to the device where it happened.
    fn processes(&self, word: &str) -> Vec<i32> {
        let has = |process: &crate::router::Process, word: &str| process.words.iter().any(|w| w == word);
        let of = |process: &crate::router::Process| has(process, word) && (word != VICTIMS[3] || has(process, "22"));
        self.site.router.processes("mg").into_iter().filter(of).map(|process| process.pid).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.site.router.root().join("tmp").join(name)
    }

    fn attack(&self, play: &Play, address: &str) {
        let mut log = fs::OpenOptions::new().create(true).append(true).open(self.site.dir.join("router.log")).unwrap();
        log.write_all((play.log)(address).as_bytes()).unwrap();
    }

    fn signal(&self, word: &str, signal: Signal) {
        let pids = self.processes(word);
        assert_eq!(pids.len(), 1, "{word}: {:?}", self.site.router.processes("mg"));
        kill_process(Pid::from_raw(pids[0]).unwrap(), signal).unwrap();
    }

    /// The run about an address, and how far it is.
    fn recorded(&self, address: &str) -> Option<(Arc<str>, Recorded)> {
        let (mut about, mut found) = (BTreeMap::new(), BTreeMap::new());
        for entry in LedgerReader::open(&self.site.dir.join("opmas-data/ledger"), 0).unwrap().map_while(Result::ok) {
            let Content::Decided(decided) = entry.content else { continue };
            match *decided {
                Decided::Finding { finding } => _ = about.insert(finding.id.clone(), finding.group.get("src_ip").cloned()),
                Decided::Run { run, finding, .. } if about[&finding].as_ref().is_some_and(|ip| ip == address) => _ = found.insert(run, Recorded::Begun),
                Decided::Intent { step, .. } => _ = found.entry(step.run.clone()).and_modify(|at| *at = Recorded::Intended),
                Decided::Asked { run, .. } => _ = found.entry(run).and_modify(|at| *at = Recorded::Asked),
                Decided::Answered { run, .. } => _ = found.entry(run).and_modify(|at| *at = Recorded::Intended),
                Decided::Attempt { run, .. } => _ = found.entry(run).and_modify(|at| *at = Recorded::Attempted),
                Decided::Outcome { run, outcome, .. } if outcome.state == OutcomeState::Enforced => {
                    _ = found.entry(run).and_modify(|at| *at = Recorded::ReadBack)
                }
                Decided::RunMoved { run, state: RunState::Done, .. } => _ = found.entry(run).and_modify(|at| *at = Recorded::Done),
                _ => {}
            }
        }
        assert!(found.len() <= 1, "one run about {address}: {found:?}");
        found.into_iter().next()
    }

    /// A person approves it on its way there.
    fn comes_to(&self, address: &str, recorded: Recorded) {
        eventually(SOON, &format!("the run about {address} does not come to {recorded:?}"), || match self.recorded(address) {
            Some((run, Recorded::Asked)) if recorded > Recorded::Asked => {
                self.approve(&run);
                false
            }
            found => found.is_some_and(|(_, at)| at == recorded),
        });
    }

    fn approve(&self, run: &str) {
        let (code, said) = self.site.run(&["approve", run]);
        assert_eq!(code, Some(0), "{said}");
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
    fn stay(&self, play: &Play, step: Step, address: &str) -> Option<&'static str> {
        let on_device = match step {
            Step::BeforeChange | Step::ReadBack => Some("before"),
            Step::AfterChange => Some("after"),
            Step::BeforeRead => Some("read"),
            Step::Evaluated | Step::Waiting | Step::Asked | Step::Done => None,
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
        self.attack(play, address);
        if on_device.is_some() {
            self.comes_to(address, Recorded::Attempted);
            self.is_held();
        }
        match step {
            Step::Evaluated => self.comes_to(address, Recorded::Begun),
            Step::Waiting => self.comes_to(address, Recorded::Asked),
            Step::Asked | Step::BeforeChange | Step::AfterChange | Step::BeforeRead => self.comes_to(address, Recorded::Attempted),
            Step::ReadBack => {
                self.signal("opmas-worker", Signal::STOP);
                self.release();
                self.comes_to(address, Recorded::ReadBack);
            }
            Step::Done => self.comes_to(address, Recorded::Done),
        }
        let made = match step {
            Step::Evaluated | Step::Waiting | Step::Asked | Step::BeforeChange => 0,
            Step::AfterChange | Step::BeforeRead | Step::ReadBack => 1,
            Step::Done => play.devices,
        };
        assert_eq!(self.made(address), made, "{step:?}");
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

/// Each step of one playbook with each who is killed; of the others each step with one of them by chance, or with each when there is time.
fn cases() -> Vec<(&'static Play, Step, &'static str)> {
    let seed = std::env::var("OPMAS_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("OPMAS_SEED={seed}");
    let all = std::env::var("OPMAS_LONG").as_deref() == Ok("1");
    let mut cases = Vec::new();
    for (n, play) in PLAYS.iter().enumerate() {
        for step in STEPS.into_iter().filter(|step| play.asks || *step != Step::Waiting) {
            let one = VICTIMS[random(&mut seed) as usize % VICTIMS.len()];
            cases.extend(VICTIMS.into_iter().filter(|victim| n == 0 || all || *victim == one).map(|victim| (play, step, victim)));
        }
    }
    cases
}

#[test]
fn o7_whoever_is_killed_at_whatever_step_it_is_done_once_and_ends_well() {
    let shipped = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/playbooks")).unwrap().flatten();
    let mut shipped: Vec<String> = shipped.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".rhai")?.to_owned())).collect();
    let mut known: Vec<&str> = PLAYS.iter().map(|play| play.name).collect();
    shipped.sort();
    known.sort_unstable();
    assert_eq!(shipped, known, "each shipped playbook is played here");

    let mut held = Held::new();
    let mut done: Vec<(String, &Play)> = Vec::new();
    for (play, step, victim) in cases() {
        if !held.all_run() {
            // A run has them started.
            let address = format!("203.0.113.{}", done.len() + 1);
            held.attack(&PLAYS[0], &address);
            held.comes_to(&address, Recorded::Done);
            done.push((address, &PLAYS[0]));
            eventually(SOON, "not all of them run", || held.all_run());
        }
        let address = format!("203.0.113.{}", done.len() + 1);
        eprintln!("{}: {victim} is killed at {step:?}, about {address}", play.name);
        let stopped = held.stay(play, step, &address);
        held.kill(victim, stopped);
        held.comes_to(&address, Recorded::Done);
        assert_eq!(held.made(&address), play.devices, "{}: {victim} killed at {step:?}", play.name);
        done.push((address, play));
    }
    let site = &mut held.site;
    let mut expected: Vec<&str> = done.iter().map(|(address, _)| address.as_str()).collect();
    expected.sort_unstable();
    assert_eq!(site.blocked(), expected);
    let rows = |args: &[&str]| -> Vec<Value> { site.run(args).1.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let runs = rows(&["playbook", "runs", "--limit", "1000", "--json"]);
    assert!(runs.len() == done.len() && runs.iter().all(|run| run["state"] == "done"), "{runs:?}");
    assert_eq!(rows(&["lease", "list", "--json"]).len(), done.iter().map(|(_, play)| play.devices).sum::<usize>(), "a lease for each");
    for run in runs {
        let play = PLAYS.iter().find(|play| run["playbook"] == play.name).unwrap();
        let (_, story) = site.run(&["playbook", "show", run["run"].as_str().unwrap()]);
        assert_eq!(story.matches("enforced at").count(), play.devices, "{story}");
    }
    site.terminate();
    for verify in [["store", "verify"], ["audit", "verify"]] {
        let (code, said) = site.run(&verify);
        assert_eq!(code, Some(0), "{said}");
    }
}
