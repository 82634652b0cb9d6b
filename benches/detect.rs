//! How fast rules are held against events: `cargo bench --bench detect [-- LANE …]`.
//!
//! The lanes are those of `tests/bench/gen_events.py`, `OPMAS_EVENTS` (100,000) events each; the rules are SigmaHQ's of `tests/data`, for the
//! lane `corr` those of `tests/bench/corr-rules`. For each lane: events a second through the whole pipeline with one thread and with two.
//! `tests/bench/vs_rsigma.sh` compares the program with another one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

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
const BATCH: usize = 1024;

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

fn pipeline(rules: Arc<RuleSet>, threads: usize) -> Pipeline {
    let normaliser = Normaliser::new(Extractors::default().into(), Options::at(Time(0)));
    let settings = Settings { threads, logsource: LogsourceMode::Event, ..Settings::default() };
    Pipeline::new(rules, normaliser, Arc::new(Inventory::default()), settings).unwrap()
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
    let found: usize = entries.chunks(BATCH).map(|batch| pipeline.entries(batch).len()).sum();
    std::hint::black_box(found);
    entries.len() as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
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
    let compiled = Compiled::new(set.clone(), &Settings::default()).unwrap();
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
}
