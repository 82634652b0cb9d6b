//! Fuzz targets: rule text, condition, JSON event, log line. Each input of the corpus in `tests/data/fuzz`, and mutations of it, is held to what
//! must be true of any. `OPMAS_FUZZ_SECONDS=600 cargo test --test pure fuzz` goes on for so long with each.
//!
//! A mutation that has an outcome which none before it had is mutated further.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use opmas::config::shipped_extractors;
use opmas::detect::{Detector, LogsourceMode, Scan};
use opmas::diag::SourceFile;
use opmas::model::{Event, Inventory, Payload, Record, Time, Trust};
use opmas::normalise::{Extractors, Normaliser, Options};
use opmas::sigma::{RuleSet, load};

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/fuzz").join(name);
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 6);
    files.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Mutations of each target in an ordinary run.
const ROUNDS: usize = 400;
/// Most inputs that are mutated further.
const MAX_POOL: usize = 5_000;
/// What is put in.
const WORDS: &[&str] = &[
    "|all",
    "|re",
    "|expand",
    "|base64offset",
    "|cidr",
    "|exists",
    "|fieldref",
    "|gt",
    "|neq",
    "%x%",
    "${n}",
    "\\*",
    "*",
    "?",
    "1 of ",
    "all of ",
    "them",
    "not ",
    " and ",
    " or ",
    "(",
    ")",
    "\n",
    "\n---\n",
    "  ",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "&a ",
    "*a",
    "!!str ",
    "null",
    "true",
    "1e308",
    "-0.0",
    "0x10",
    "18446744073709551615",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\u{212a}",
    "\u{0}",
    "<34>1 ",
    "Nov 31 25:61:61 ",
    "2026-11-21T13:08:05+14:00",
    " [x@1 a=\"b\"] ",
    "::ffff:10.1.2.3",
    "action: repeat\n",
    "correlation: {type: missing, rules: [n], timespan: 5m}\n",
    "filter: {rules: any, s: {a: 1}, condition: not s}\n",
    "opmas: {params: {n: 1}}\n",
    "timespan: 99999999999M",
];

/// Shows the input that a test failed on.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed on: {}", self.0.escape_ascii());
        }
    }
}

/// xorshift64: the same mutations in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound.max(1) as u64).unwrap()
    }

    fn range(&mut self, of: &[u8]) -> std::ops::Range<usize> {
        let from = self.below(of.len() + 1);
        from..from + self.below((of.len() - from).min(64) + 1)
    }

    fn mutated(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = pool[self.below(pool.len())].clone();
        for _ in 0..=self.below(4) {
            let range = self.range(&input);
            let new = match self.below(6) {
                0 => Vec::new(),
                1 => vec![u8::try_from(self.below(256)).unwrap()],
                2 => input[range.clone()].repeat(2),
                3 => {
                    let other = &pool[self.below(pool.len())];
                    other[self.range(other)].to_vec()
                }
                _ => WORDS[self.below(WORDS.len())].as_bytes().to_vec(),
            };
            let range = if self.below(2) == 0 { range.start..range.start } else { range };
            input.splice(range, new);
        }
        input.truncate(1 << 16);
        input
    }
}

/// Holds the corpus and mutations of it to `check`, which gives the outcome.
fn fuzz<O: Hash>(name: &str, check: impl Fn(&[u8]) -> O) {
    let mut pool = corpus(name);
    let mut seen = HashSet::new();
    let mut outcome = |input: &[u8]| {
        let _shown = Shown(input);
        let mut hasher = DefaultHasher::new();
        check(input).hash(&mut hasher);
        seen.insert(hasher.finish())
    };
    pool.iter().for_each(|input| _ = outcome(input));
    let seconds = std::env::var("OPMAS_FUZZ_SECONDS").ok().map(|seconds| Duration::from_secs(seconds.parse().unwrap()));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (begun, mut rounds) = (Instant::now(), 0_u64);
    while seconds.map_or(rounds < ROUNDS as u64, |seconds| begun.elapsed() < seconds) {
        let input = random.mutated(&pool);
        if outcome(&input) && pool.len() < MAX_POOL {
            pool.push(input);
        }
        rounds += 1;
    }
    println!("{name}: {rounds} inputs, {} outcomes", seen.len());
}

fn rules(text: &str) -> (RuleSet, Vec<String>) {
    let loaded = load(&[SourceFile { name: "r.yml".into(), text: text.into() }]);
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
    assert!(loaded.diagnostics.iter().all(|wrong| wrong.place.line as usize <= lines), "{:?}", loaded.diagnostics);
    assert!(loaded.diagnostics.is_empty() || loaded.set.rules.is_empty(), "a file with a mistake is refused whole");
    // What is quoted of the input makes no other outcome.
    let said = loaded.diagnostics.iter().map(|wrong| wrong.message.split('`').step_by(2).collect()).collect();
    (loaded.set, said)
}

fn normaliser() -> Normaliser {
    Normaliser::new(Extractors::load(&shipped_extractors()).0.into(), Options::at(Time(0)))
}

fn event(normaliser: &Normaliser, line: &[u8]) -> Event {
    let record = Record {
        id: None,
        source: "s".into(),
        stream: "s".into(),
        arrival: None,
        peer: None,
        trust: Trust::Open,
        raw: line.to_vec(),
        payload: Payload::Log,
        subject: None,
    };
    normaliser.clone().normalise(0, &record, &Inventory::default())
}

/// Network and scan find the same.
fn found(network: &Detector, scan: &Scan, event: &Event) -> [Vec<usize>; 3] {
    [LogsourceMode::Derived, LogsourceMode::Event, LogsourceMode::Any].map(|mode| {
        let found = network.matches(event, mode);
        assert_eq!(found, scan.matches(event, mode), "{}", event.raw);
        found
    })
}

#[test]
fn rules_load_or_are_refused_with_places() {
    let event = event(&normaliser(), br#"{"a":"b","CommandLine":"cmd /c whoami","n":5,"t":"2026-11-21T13:08:05Z"}"#);
    fuzz("rule", |text| {
        let (set, said) = rules(&String::from_utf8_lossy(text));
        (found(&Detector::new(&set), &Scan::new(&set), &event), set.rules.len(), said)
    });
}

#[test]
fn conditions_mean_the_same_to_network_and_scan() {
    let events = ["{}", r#"{"a":1}"#, r#"{"a":1,"b":"x","c":2}"#].map(|line| event(&normaliser(), line.as_bytes()));
    fuzz("condition", |text| {
        let condition = serde_json::to_string(&String::from_utf8_lossy(text)).unwrap();
        let searches = "  sel_a: {a: 1}\n  sel_b: {b: '*x'}\n  _own: {c: null}\n";
        let (set, said) = rules(&format!("title: t\nlogsource: {{}}\ndetection:\n{searches}  condition: {condition}\n"));
        let (network, scan) = (Detector::new(&set), Scan::new(&set));
        (events.each_ref().map(|event| found(&network, &scan, event)), said)
    });
}

#[test]
fn events_mean_the_same_to_network_and_scan() {
    let (set, said) = rules(include_str!("../data/fuzz/rules.yml"));
    assert_eq!((set.rules.len(), said.len()), (4, 0));
    let (network, scan, normaliser) = (Detector::new(&set), Scan::new(&set), normaliser());
    fuzz("event", |bytes| {
        let event = event(&normaliser, bytes);
        (found(&network, &scan, &event), event.fields.keys().cloned().collect::<Vec<_>>())
    });
}

#[test]
fn lines_become_events_that_can_be_written_and_read_again() {
    let normaliser = normaliser();
    fuzz("syslog", |bytes| {
        let event = event(&normaliser, bytes);
        let written = serde_json::to_string(&event.fields).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Map<_, _>>(&written).unwrap(), event.fields);
        event.fields.keys().cloned().collect::<Vec<_>>()
    });
}
