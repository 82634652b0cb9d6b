//! What correlation costs with many groups and with long windows: memory, CPU time an event, and how long a checkpoint keeps the
//! detecting thread. CPU time of the thread, so that other work on the machine counts little. `cargo bench --bench groups [-- GROUPS]`, a million at most.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use opmas::correlate::{self, Limits};
use opmas::diag::SourceFile;
use opmas::engine::pipeline::{Pipeline, Settings};
use opmas::model::{Entry, EntryBody, Inventory, Payload, Record, RecordId, Time, Trust};
use opmas::normalise::{Extractors, Normaliser, Options};

const BEGIN: Time = Time(1_795_219_200_000_000_000);
const DETECTION: &str = "title: a\nname: a\nlogsource: {product: test}\ndetection: {s: {k: a}, condition: s}\n---\ntitle: c\ncorrelation:\n  rules: [a]\n";

fn pipeline(correlation: &str) -> Pipeline {
    let text = format!("{DETECTION}  {}\n", correlation.replace('\n', "\n  "));
    let loaded = correlate::load(&[SourceFile { name: "bench.yml".into(), text: text.into() }]);
    assert!(loaded.diagnostics.is_empty(), "{:?}", loaded.diagnostics);
    let limits = Limits { groups_per_rule: 2_000_000, groups: 2_000_000, entries_per_group: 200_000, ..Limits::default() };
    let normaliser = Normaliser::new(Arc::new(Extractors::default()), Options::at(BEGIN));
    Pipeline::new(Arc::new(loaded.set), normaliser, Arc::new(Inventory::default()), Settings { limits, ..Settings::default() }).unwrap()
}

/// The event `seq` of `count` within `seconds`; live, so that no stamp waits.
fn entry(seq: u64, count: u64, seconds: u64, fields: &str) -> Entry {
    let time = Time(BEGIN.0 + (u128::from(seq) * u128::from(seconds) * 1_000_000_000 / u128::from(count)) as i64);
    let record = Record {
        id: Some(RecordId::File { file: "bench".into(), offset: seq }),
        source: "bench".into(),
        stream: "bench/stdin".into(),
        arrival: Some(time),
        peer: None,
        trust: Trust::Verified,
        raw: format!("{{\"time\":\"{time}\",\"k\":\"a\",\"host\":\"ap1\",{fields}}}").into_bytes(),
        payload: Payload::Log,
        subject: None,
    };
    Entry { seq, body: EntryBody::Record(record) }
}

/// Microseconds that this thread has computed for.
fn spent() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e3
}

/// Resident MiB, now (`VmRSS`) or at most (`VmHWM`).
fn resident(which: &str) -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<f64>().unwrap() / 1024.0
}

fn groups() {
    println!("event_count over 5 minutes, two events a group:");
    let mut first = None;
    let most = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1_000_000);
    for count in [1_000u64, 10_000, 100_000, 1_000_000].into_iter().filter(|count| *count <= most) {
        let mut pipeline = pipeline("type: event_count\ngroup-by: [src]\ntimespan: 5m\ncondition: {gte: 5}");
        let before = resident("VmRSS");
        let mut cost = 0.0;
        // Small numbers of groups are gone through several times, so that there is something to measure.
        let rounds = (200_000 / count).max(2);
        for seq in 0..rounds * count {
            let src = seq % count;
            let entry = entry(seq % (2 * count), 2 * count, 200, &format!("\"src\":\"10.{}.{}.{}\"", src >> 16, (src >> 8) & 255, src & 255));
            let begin = spent();
            pipeline.entry(&entry);
            cost += spent() - begin;
        }
        let each = cost / (rounds * count) as f64;
        let memory = resident("VmRSS") - before;
        let (begin, cpu) = (Instant::now(), spent());
        let snapshot = pipeline.snapshot();
        let (pause, cpu) = (begin.elapsed().as_secs_f64() * 1e3, (spent() - cpu) / 1e3);
        // From here on, the most is that of the checkpoint.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let bytes = snapshot.encode().unwrap().len();
        let peak = resident("VmHWM") - before;
        println!(
            "{count:9} groups ({}): {each:6.2} µs an event, {:4.2} of the first; {memory:7.1} MiB, {peak:7.1} with a checkpoint; pause {pause:7.1} ms ({cpu:.1} ms CPU), {:.1} MiB",
            pipeline.groups(),
            each / *first.get_or_insert(each),
            bytes as f64 / f64::from(1 << 20)
        );
    }
}

fn windows(name: &str, correlation: &str, value: impl Fn(u64) -> String) {
    let cost = |window: u64| {
        let mut pipeline = pipeline(correlation);
        let mut cost = 0.0;
        let count = window + 20_000;
        for seq in 0..count {
            // So many events are in a window of an hour.
            let entry = entry(seq, window, 3_600, &format!("\"v\":{}", value(seq)));
            let begin = spent();
            pipeline.entry(&entry);
            if seq >= window {
                cost += spent() - begin;
            }
        }
        cost / 20_000.0
    };
    let (small, large) = (cost(1_000), cost(100_000));
    println!("{name}: {small:6.2} µs an event with 1,000 entries in the window, {large:6.2} with 100,000: {:4.2} times", large / small);
}

fn main() {
    // First, as what the others give back is not given back to the machine.
    groups();
    let hashed = |seq: u64| seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    windows("value_count", "type: value_count\ntimespan: 1h\ncondition: {field: v, gte: 900000}", |seq| format!("\"{}\"", hashed(seq)));
    windows("value_percentile", "type: value_percentile\ntimespan: 1h\ncondition: {field: v, percentile: 95, gte: 1e12}", |seq| hashed(seq).to_string());
}
