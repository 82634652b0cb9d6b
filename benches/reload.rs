//! Whether other rules going live hold events up: `cargo bench --bench reload`.
//!
//! The engine as `opmas run` starts it, with SigmaHQ's rules and a correlation of `OPMAS_GROUPS` (50,000) groups, takes all that it can:
//! three of four records are of the lane `win_process`, the fourth enters a group. The event path is the way from the spool through detection
//! and correlation; a pause is the time from the end of one piece to that of the next. In turns, `OPMAS_ROUNDS` (7) times, a while without
//! a reload and one in which all rules are read and compiled again and go live: the longest pause of each, by the clock and by
//! the detection thread's own processor time. At the end every record has been computed, and each detection has as many findings as the same
//! records give one by one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use opmas::clock;
use opmas::config::Setup;
use opmas::engine::pipeline::{Pipeline, Settings};
use opmas::engine::{Engine, Status};
use opmas::journal::{Content, DataDir, LedgerReader};
use opmas::model::{Decided, Entry, EntryBody, Inventory, Payload, Record, Time, Trust};
use opmas::normalise::{Extractors, Normaliser, Options};
use opmas::source::Batch;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{mpsc, oneshot};

/// Records of one batch, and batches that are not on disk yet: small, so that a piece takes little of a pause by itself.
const BATCH: usize = 64;
const UNDER_WAY: usize = 8;
/// Without a reload, and how long after one is measured on.
const QUIET: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_millis(500);

const CORRELATION: &str = "title: group\nname: group\nlogsource: {product: bench}\ndetection: {s: {k: a}, condition: s}\n---\n\
    title: groups\nname: groups\ncorrelation:\n  rules: [group]\n  type: event_count\n  group-by: [src]\n  timespan: 1h\n  condition: {gte: 1000000}\n";

/// The end of a piece.
#[derive(Clone, Copy)]
struct Step {
    at: Instant,
    /// Of the detection thread.
    spent: Duration,
    entries: u64,
}

/// Hears of each piece that the detection thread has computed.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<Step>>>);

impl CounterFn for Steps {
    fn increment(&self, entries: u64) {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        let spent = Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32);
        self.0.lock().unwrap().push(Step { at: Instant::now(), spent, entries });
    }

    fn absolute(&self, _: u64) {}
}

impl Recorder for Steps {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() == "opmas_detection_entries_total" { Counter::from_arc(Arc::new(self.clone())) } else { Counter::noop() }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Steps {
    fn entries(&self) -> u64 {
        self.0.lock().unwrap().iter().map(|step| step.entries).sum()
    }

    /// The longest pause since the `from`th step, in milliseconds: by the clock, by processor time; and events a second.
    fn longest(&self, from: usize) -> [f64; 3] {
        let steps = self.0.lock().unwrap();
        let steps = &steps[from..];
        let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
        let longest = |pause: &dyn Fn(&Step, &Step) -> Duration| steps.windows(2).map(|pair| milliseconds(pause(&pair[0], &pair[1]))).fold(0.0, f64::max);
        let took = steps[steps.len() - 1].at - steps[0].at;
        let rate = steps.iter().skip(1).map(|step| step.entries as f64).sum::<f64>() / took.as_secs_f64();
        [longest(&|one, next| next.at - one.at), longest(&|one, next| next.spent - one.spent), rate]
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn record(n: u64, lane: &[&str], groups: usize) -> Record {
    let stream: Arc<str> = "bench/stdin".into();
    let raw = match n % 4 {
        3 => format!("{{\"product\":\"bench\",\"k\":\"a\",\"src\":\"{}\"}}", n / 4 % groups as u64).into_bytes(),
        _ => lane[n as usize % lane.len()].as_bytes().to_vec(),
    };
    let arrival = Some(clock::now());
    Record { id: None, source: "bench".into(), stream, arrival, peer: None, trust: Trust::Verified, raw, payload: Payload::Log, subject: None }
}

/// All that opmas takes, until `stop`; how many that were.
async fn load(input: mpsc::Sender<Batch>, lane: Arc<str>, groups: usize, stop: Arc<AtomicBool>, sent: Arc<AtomicU64>) {
    let lane: Vec<&str> = lane.lines().collect();
    let mut under_way = std::collections::VecDeque::new();
    while !stop.load(Ordering::Acquire) {
        let from = sent.fetch_add(BATCH as u64, Ordering::AcqRel);
        let (done, is_done) = oneshot::channel();
        let records = (from..from + BATCH as u64).map(|n| record(n, &lane, groups)).collect();
        input.send(Batch { records, done: Some(done) }).await.unwrap();
        under_way.push_back(is_done);
        if under_way.len() == UNDER_WAY {
            under_way.pop_front().unwrap().await.unwrap();
        }
    }
    for is_done in under_way {
        is_done.await.unwrap();
    }
}

fn site(folder: &Path) -> Setup {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for empty in ["rules", "playbooks", "notifiers"] {
        fs::create_dir(folder.join(empty)).unwrap();
    }
    assert!(Command::new("tar").arg("-xJf").arg(tests.join("data/sigma-rules.tar.xz")).arg("-C").arg(folder).arg("rules").status().unwrap().success());
    fs::write(folder.join("rules/groups.yml"), CORRELATION).unwrap();
    let settings = format!("data_dir = '{}'\n[spool]\nkeep_bytes = 20000000000\n", folder.join("data").display());
    fs::write(folder.join("opmas.toml"), settings).unwrap();
    assert!(Command::new("python3").arg(tests.join("bench/gen_events.py")).arg(folder).args(["win_process", "--events", "20000"]).status().unwrap().success());
    Setup::load(Some(&folder.join("opmas.toml"))).unwrap()
}

/// Findings by detection, as the records give them one by one.
fn expected(setup: &Setup, lane: &str, groups: usize, sent: u64) -> BTreeMap<String, u64> {
    let files = setup.content.good(opmas::config::Part::Rules);
    let set = opmas::correlate::load(files).set;
    let mut pipeline =
        Pipeline::new(set.into(), Normaliser::new(Extractors::default().into(), Options::at(Time(0))), Inventory::default().into(), Settings::default())
            .unwrap();
    let lane: Vec<&str> = lane.lines().collect();
    let mut found = BTreeMap::new();
    // After so many records they are the same ones again, but for the groups.
    let round = lane.len() as u64 * 4;
    for seq in 0..round.min(sent) {
        let times = (sent - seq).div_ceil(round);
        for one in pipeline.entry(&Entry { seq, body: EntryBody::Record(record(seq, &lane, groups)) }) {
            *found.entry(pipeline.rules().rules[one.rule].key().to_string()).or_default() += times;
        }
    }
    found
}

fn recorded(folder: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for entry in LedgerReader::open(&folder.join("data/ledger"), 0).unwrap() {
        let Content::Decided(decided) = entry.unwrap().content else { continue };
        if let Decided::Finding { finding } = *decided {
            *found.entry(finding.rule.id.to_string()).or_default() += 1;
        }
    }
    found
}

/// Another title of one rule: all are read, compiled and put in place.
async fn reload(engine: &Engine, folder: &Path, round: usize) {
    fs::write(folder.join("rules/groups.yml"), CORRELATION.replace("title: groups", &format!("title: groups {round}"))).unwrap();
    engine.reload().await.unwrap();
}

fn main() {
    let (groups, rounds) = (number("OPMAS_GROUPS", 50_000), number("OPMAS_ROUNDS", 7));
    let dir = tempfile::tempdir().unwrap();
    let setup = site(dir.path());
    let lane: Arc<str> = fs::read_to_string(dir.path().join("win_process.ndjson")).unwrap().into();
    let steps = Steps::default();
    metrics::set_global_recorder(steps.clone()).unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    runtime.block_on(async {
        let data = DataDir::open(&dir.path().join("data")).unwrap();
        let engine = opmas::engine::start(Setup::load(Some(&setup.paths.file)).unwrap(), data, Status::default()).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let loading = tokio::spawn(load(engine.input(), lane.clone(), groups, stop.clone(), sent.clone()));
        // Until all groups are there.
        while steps.entries() < groups as u64 * 4 + 50_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for round in 0..rounds {
            let from = steps.len();
            tokio::time::sleep(QUIET).await;
            without.push(steps.longest(from));
            let (from, begun) = (steps.len(), Instant::now());
            reload(&engine, dir.path(), round).await;
            let took = begun.elapsed();
            tokio::time::sleep(AFTER).await;
            with.push(steps.longest(from));
            let (&[clock, cpu, rate], &[clock2, cpu2, rate2]) = (&without[round], &with[round]);
            println!("without {rate:6.0} events/s, longest pause {clock:5.1} ms ({cpu:5.1} of processor)   with {rate2:6.0} events/s, {clock2:5.1} ms ({cpu2:5.1}), live after {:.2} s", took.as_secs_f64());
        }
        stop.store(true, Ordering::Release);
        loading.await.unwrap();
        engine.stop().await;
    });
    let median = |of: &[[f64; 3]], which: usize| {
        let mut all: Vec<f64> = of.iter().map(|one| one[which]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let most = |of: &[[f64; 3]], which: usize| of.iter().map(|one| one[which]).fold(0.0, f64::max);
    for (which, name) in [(0, "by the clock"), (1, "of processor")] {
        println!(
            "longest pause {name}: median without {:.1} ms, with {:.1} ms, ratio {:.2}; of all rounds {:.1} and {:.1} ms, ratio {:.2} (goal: at most 2)",
            median(&without, which),
            median(&with, which),
            median(&with, which) / median(&without, which),
            most(&without, which),
            most(&with, which),
            most(&with, which) / most(&without, which)
        );
    }
    let sent = sent.load(Ordering::Acquire);
    // Revisions and ticks are entries, too.
    assert!(steps.entries() >= sent, "{} of {sent} records were computed", steps.entries());
    let (expected, found) = (expected(&setup, &lane, groups, sent), recorded(dir.path()));
    assert_eq!(found, expected, "findings by rule");
    println!("{sent} records, {} findings of {} rules: none is missing, none is there twice", found.values().sum::<u64>(), found.len());
}
