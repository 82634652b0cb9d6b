//! How fast rules are held against events: `cargo bench --bench detect [-- LANE …]`.
//!
//! The lanes are those of `tests/bench/gen_events.py`, `OPMAS_EVENTS` (100,000) events each; the rules are SigmaHQ's of `tests/data`, for the
//! lane `corr` those of `tests/bench/corr-rules`. For each lane: events a second through the whole pipeline with one thread and with two.
//! Then `reload`: the longest that a batch of 256 events took while all rules were compiled again and went live, beside that of as long a
//! time without. `tests/bench/vs_rsigma.sh` compares the program with another one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opmas::correlate;
use opmas::detect::LogsourceMode;
use opmas::diag::SourceFile;
use opmas::engine::Pipeline;
use opmas::engine::pipeline::{Compiled, Settings};
use opmas::model::{Entry, EntryBody, Inventory, RecordId, Time};
use opmas::normalise::{Extractors, Normaliser, Options};
use opmas::sigma::RuleSet;
use opmas::source::recording;

const LANES: [&str; 4] = ["win_process", "win_mixed", "no_match", "corr"];
const ROUNDS: usize = 3;
const BATCH: usize = 256;
const LONG_ENOUGH: Duration = Duration::from_secs(2);

fn files(folder: &Path, out: &mut Vec<SourceFile>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            out.push(SourceFile { name: path.to_string_lossy().into(), text: std::fs::read_to_string(&path).unwrap().into() });
        }
    }
}

fn rules(folder: &Path) -> Arc<RuleSet> {
    let mut found = Vec::new();
    files(folder, &mut found);
    correlate::load(&found).set.into()
}

fn pipeline(rules: impl Into<Compiled>, threads: usize) -> Pipeline {
    let normaliser = Normaliser::new(Extractors::default().into(), Options::at(Time(0)));
    let settings = Settings { threads, logsource: LogsourceMode::Event, ..Settings::default() };
    let mut pipeline = Pipeline::new(Arc::default(), normaliser, Arc::new(Inventory::default()), settings).unwrap();
    pipeline.set_rules(rules).unwrap();
    pipeline
}

fn lane(folder: &Path, name: &str, events: u64) -> Vec<Entry> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/gen_events.py");
    assert!(Command::new("python3").arg(script).arg(folder).args([name, "--events", &events.to_string()]).status().unwrap().success());
    let text = std::fs::read_to_string(folder.join(format!("{name}.ndjson"))).unwrap();
    let stream: Arc<str> = name.into();
    let record = |line: &str| recording::record(&stream, RecordId::File { file: stream.clone(), offset: 0 }, line.as_bytes().to_vec());
    (0..).zip(text.lines()).map(|(seq, line)| Entry { seq, body: EntryBody::Record(record(line)) }).collect()
}

fn rate(rules: &Arc<RuleSet>, entries: &[Entry], threads: usize) -> f64 {
    let mut pipeline = pipeline(rules.clone(), threads);
    let begun = Instant::now();
    let found: usize = entries.chunks(BATCH * 4).map(|batch| pipeline.entries(batch).len()).sum();
    std::hint::black_box(found);
    entries.len() as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Runs batches until `done`; the longest, and how many.
fn longest(pipeline: &mut Pipeline, entries: &[Entry], mut done: impl FnMut(&mut Pipeline) -> bool) -> (Duration, usize) {
    let (mut longest, mut count) = (Duration::ZERO, 0);
    for batch in entries.chunks_exact(BATCH).cycle() {
        let begun = Instant::now();
        let done = done(pipeline);
        std::hint::black_box(pipeline.entries(batch).len());
        longest = longest.max(begun.elapsed());
        count += 1;
        if done {
            break;
        }
    }
    (longest, count)
}

fn reload(folder: &Path, entries: &[Entry]) {
    let mut pipeline = pipeline(rules(folder), 1);
    let mut measure = |name: &str, mut done: Box<dyn FnMut(&mut Pipeline) -> bool>| {
        let begun = Instant::now();
        let (longest, batches) = longest(&mut pipeline, entries, |pipeline| done(pipeline) && begun.elapsed() > LONG_ENOUGH);
        println!("reload       {name:12} longest of {batches} batches {longest:.1?}");
    };
    measure("(warming up)", Box::new(|_| true));
    measure("without one", Box::new(|_| true));
    let folder = folder.to_owned();
    let mut compiling = Some(std::thread::spawn(move || Compiled::from(rules(&folder))));
    let mut replaced = None;
    measure(
        "with one",
        Box::new(move |pipeline| {
            if let Some(compiled) = compiling.take_if(|compiling| compiling.is_finished()) {
                replaced = pipeline.set_rules(compiled.join().unwrap()).ok();
            }
            replaced.is_some()
        }),
    );
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let events = std::env::var("OPMAS_EVENTS").map_or(100_000, |text| text.parse().expect("OPMAS_EVENTS is a number"));
    let dir = tempfile::tempdir().unwrap();
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
    assert!(Command::new("tar").arg("-xJf").arg(tests.join("data/sigma-rules.tar.xz")).arg("-C").arg(dir.path()).status().unwrap().success());
    let sigmahq = dir.path().join("rules");
    let begun = Instant::now();
    let set = rules(&sigmahq);
    let read = begun.elapsed();
    let compiled = Compiled::from(set.clone());
    println!("{} rules: read in {read:.1?}, compiled in {:.1?}", set.rules.len(), begun.elapsed() - read);
    drop(compiled);
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    for name in LANES.into_iter().filter(|name| is_wanted(name)) {
        let set = if name == "corr" { rules(&tests.join("bench/corr-rules")) } else { set.clone() };
        let entries = lane(dir.path(), name, events);
        let one = median((0..ROUNDS).map(|_| rate(&set, &entries, 1)).collect());
        let two = median((0..ROUNDS).map(|_| rate(&set, &entries, 2)).collect());
        println!("{name:12} one thread {one:10.0} events/s, two {two:10.0} ({:.2} times)", two / one);
    }
    if is_wanted("reload") {
        reload(&sigmahq, &lane(dir.path(), "win_process", events));
    }
}
