//! The corpus of the fuzz targets in `fuzz/`: seeds, and what they have found. Each input is held to what its target asks of it.

use std::path::Path;

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

fn rules(text: &str) -> RuleSet {
    let loaded = load(&[SourceFile { name: "r.yml".into(), text: text.into() }]);
    let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
    assert!(loaded.diagnostics.iter().all(|wrong| wrong.place.line as usize <= lines), "{:?}", loaded.diagnostics);
    loaded.set
}

fn event(line: &[u8]) -> Event {
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
    let extractors = Extractors::load(&shipped_extractors()).0;
    Normaliser::new(extractors.into(), Options::at(Time(0))).normalise(0, &record, &Inventory::default())
}

fn agree(set: &RuleSet, event: &Event) {
    for mode in [LogsourceMode::Derived, LogsourceMode::Event, LogsourceMode::Any] {
        assert_eq!(Detector::new(set).matches(event, mode), Scan::new(set).matches(event, mode), "{}", event.raw);
    }
}

#[test]
fn rules_load_or_are_refused_with_places() {
    let event = event(br#"{"a":"b","CommandLine":"cmd /c whoami","n":5,"t":"2026-11-21T13:08:05Z"}"#);
    for text in corpus("rule") {
        agree(&rules(&String::from_utf8_lossy(&text)), &event);
    }
}

#[test]
fn conditions_mean_the_same_to_network_and_scan() {
    for text in corpus("condition") {
        let condition = serde_json::to_string(&String::from_utf8_lossy(&text)).unwrap();
        let searches = "  sel_a: {a: 1}\n  sel_b: {b: '*x'}\n  _own: {c: null}\n";
        let set = rules(&format!("title: t\nlogsource: {{}}\ndetection:\n{searches}  condition: {condition}\n"));
        ["{}", r#"{"a":1}"#, r#"{"a":1,"b":"x","c":2}"#].map(|line| agree(&set, &event(line.as_bytes())));
    }
}

#[test]
fn events_mean_the_same_to_network_and_scan() {
    let set = rules(include_str!("../../fuzz/rules.yml"));
    assert_eq!(set.rules.len(), 4);
    for bytes in corpus("event") {
        agree(&set, &event(&bytes));
    }
}

#[test]
fn lines_become_events_that_can_be_written_and_read_again() {
    for bytes in corpus("syslog") {
        let event = event(&bytes);
        let written = serde_json::to_string(&event.fields).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Map<_, _>>(&written).unwrap(), event.fields);
    }
}
