//! External findings (M2, M3): what they are to rules, and what is none.

use std::io::Write as _;
use std::process::{Command, Stdio};

use opmas::engine::pipeline::{Pipeline, Settings};
use opmas::model::{Device, Entry, EntryBody, Event, Inventory, Payload, Record};
use opmas::normalise::{Extractors, Normaliser, Options, Refusal};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::correlate::{BASE, at, pipeline, record, rule_set};

/// Everything, and what has to do with findings.
const RULES: &str = "title: Any\nname: any\nlogsource: {category: null}\ndetection: {one: {timestamp|exists: true}, condition: one}\n---\n\
    title: Finding\nname: finding\nlogsource: {product: opmas, service: finding}\ndetection: {one: {agent|exists: true}, condition: one}\n";

fn inventory() -> Inventory {
    let device = Device { site: Some("hall".into()), ..Device::new("ap1", "192.0.2.1") };
    Inventory { devices: vec![device] }
}

fn finding(raw: impl AsRef<[u8]>) -> Record {
    Record { payload: Payload::Finding, raw: raw.as_ref().to_vec(), peer: Some("192.0.2.1".parse().unwrap()), ..record("s", Some(BASE), "") }
}

fn read(record: &Record) -> (Event, Option<Refusal>) {
    let mut normaliser = Normaliser::new(Extractors::default().into(), Options::at(BASE));
    normaliser.read(1, record, &inventory())
}

fn fields(value: &Value) -> Value {
    let (event, refusal) = read(&finding(value.to_string()));
    assert_eq!(refusal, None, "{value}");
    assert_eq!((event.logsource.product.as_deref(), event.logsource.service.as_deref()), (Some("opmas"), Some("finding")));
    Value::Object(event.fields)
}

fn reason(raw: impl AsRef<[u8]>) -> &'static str {
    let (event, refusal) = read(&finding(&raw));
    let text = String::from_utf8_lossy(raw.as_ref()).into_owned();
    assert_eq!(event.logsource.service.as_deref(), Some("dead_letter"));
    assert_eq!(event.fields.keys().collect::<Vec<_>>(), ["message", "timestamp"], "{text}");
    let refusal = refusal.unwrap_or_else(|| panic!("{text} is a finding"));
    assert!(refusal.detail.len() < 250, "{}", refusal.detail);
    refusal.reason.word()
}

fn with(more: Value) -> Value {
    let mut all = json!({"title": "Many retries", "agent": "WiFiAgent", "severity": 3});
    more.as_object().unwrap().iter().for_each(|(key, value)| all[key] = value.clone());
    all
}

#[test]
fn m2_a_finding_keeps_its_fields_and_says_opmas_finding_whatever_it_says_itself() {
    let all = with(json!({"product": "other", "category": "wifi", "radio": {"channel": 36}, "time": "2026-11-21T13:00:00Z", "id": "f-1"}));
    let fields = fields(&all);
    for (key, value) in all.as_object().unwrap() {
        assert_eq!(&fields[key], value, "{key}");
    }
    let (event, _) = read(&finding(all.to_string()));
    assert_eq!((event.time.to_string().as_str(), event.time_from_arrival), ("2026-11-21T13:00:00Z", false));
    let (event, _) = read(&finding(format!("\u{feff}\n {}\r\n", with(json!({})))));
    assert_eq!((event.time, event.time_from_arrival), (BASE, true), "blanks around it are nothing; without a time, arrival");
}

#[test]
fn m3_severity_and_level_are_both_there() {
    for (number, level) in [(1, "informational"), (2, "low"), (3, "medium"), (4, "high"), (5, "critical")] {
        for given in [json!({"severity": number}), json!({"severity": null, "level": level}), json!({"severity": number, "level": level.to_uppercase()})] {
            let fields = fields(&with(given));
            assert_eq!((&fields["severity"], &fields["level"]), (&json!(number), &json!(level)));
        }
    }
}

#[test]
fn m2_what_is_no_finding_has_one_reason_of_a_closed_set() {
    for (raw, expected) in [("", "not_json"), ("severity 9", "not_json"), ("{\"title\":", "not_json"), ("[1]", "not_an_object"), ("null", "not_an_object")] {
        assert_eq!(reason(raw), expected, "{raw}");
    }
    assert_eq!(reason(b"\xff\xfe"), "not_json");
    assert_eq!(reason("[".repeat(1 << 16)), "not_json");
    for (more, expected) in [
        (json!({"title": null}), "no_title"),
        (json!({"title": "  "}), "no_title"),
        (json!({"title": ["x"]}), "no_title"),
        (json!({"agent": 7}), "no_agent"),
        (json!({"agent": ""}), "no_agent"),
        (json!({"severity": null}), "no_severity"),
        (json!({"severity": 9}), "bad_severity"),
        (json!({"severity": 0}), "bad_severity"),
        (json!({"severity": -3}), "bad_severity"),
        (json!({"severity": 3.5}), "bad_severity"),
        (json!({"severity": 259}), "bad_severity"),
        (json!({"severity": "high"}), "bad_severity"),
        (json!({"severity": "\u{1b}[2J".repeat(10_000)}), "bad_severity"),
        (json!({"level": "urgent"}), "bad_level"),
        (json!({"level": 3}), "bad_level"),
        (json!({"severity": 3, "level": "high"}), "contradiction"),
    ] {
        assert_eq!(reason(with(more.clone()).to_string()), expected, "{more}");
    }
}

#[test]
fn m2_the_device_is_what_the_finding_names_and_not_who_sent_it() {
    let place = |more: Value| {
        let fields = fields(&with(more));
        ["device", "host", "site"].map(|key| fields.get(key).and_then(Value::as_str).unwrap_or("-").to_owned())
    };
    assert_eq!(place(json!({})), ["-", "-", "-"], "its sender's address is ap1's");
    assert_eq!(place(json!({"device": "ap1"})), ["ap1", "ap1", "hall"]);
    assert_eq!(place(json!({"device": "ap7"})), ["ap7", "ap7", "-"]);
    assert_eq!(place(json!({"host": "192.0.2.1"})), ["ap1", "192.0.2.1", "hall"]);
    assert_eq!(place(json!({"entities": {"device": {"kind": "device", "value": "AP1"}}})), ["ap1", "ap1", "hall"]);
    assert_eq!(place(json!({"device": "ap2", "entities": {"device": {"value": "ap1"}}, "site": "roof"})), ["ap2", "ap2", "roof"]);
    assert_eq!(place(json!({"device": {"not": "text"}, "entities": [1]})), ["-", "-", "-"].map(str::to_owned));
}

fn entry(seq: u64, record: Record) -> Entry {
    Entry { seq, body: EntryBody::Record(record) }
}

#[test]
fn m2_what_is_no_finding_is_no_event_for_any_rule_and_moves_time_on() {
    let rules = rule_set(&[RULES]);
    let records: Vec<Entry> = (1..)
        .zip([with(json!({})).to_string(), "{}".to_owned(), "not JSON".to_owned(), with(json!({"severity": 9, "time": "2099-01-01T00:00:00Z"})).to_string()])
        .map(|(seq, raw)| entry(seq, Record { arrival: Some(at(seq as f64)), ..finding(raw) }))
        .collect();
    for threads in [1, 3] {
        let mut pipeline: Pipeline = pipeline(&rules, Settings { threads, ..Settings::default() });
        let found: Vec<(u64, usize)> = pipeline.entries(&records).iter().map(|found| (found.place.seq, found.rule)).collect();
        assert_eq!(found, [(1, 0), (1, 1)], "{threads} threads");
        let refused: Vec<(u64, &str)> = pipeline.refused().iter().map(|(seq, refusal)| (*seq, refusal.reason.word())).collect();
        assert_eq!(refused, [(2, "no_title"), (3, "not_json"), (4, "bad_severity")]);
        assert_eq!(pipeline.watermark(), at(4.0 - 5.0), "by arrival: what it says of time itself is not believed");
        pipeline.entry(&entry(9, finding(with(json!({})).to_string())));
        assert!(pipeline.refused().is_empty(), "only of the last call");
    }
}

#[test]
fn x3_a_json_event_that_says_opmas_finding_counts_as_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("r.yml"), "title: Grave\nname: grave\nlogsource: {product: opmas, service: finding}\ndetection: {one: {agent: A, severity|gte: 4, device: ap1}, condition: one}\n").unwrap();
    let lines = [
        json!({"product": "opmas", "service": "finding", "agent": "A", "level": "high", "entities": {"device": {"value": "ap1"}}}),
        json!({"product": "opmas", "service": "finding", "agent": "A", "level": "low", "device": "ap1"}),
        json!({"product": "opmas", "service": "other", "agent": "A", "severity": 5, "device": "ap1"}),
        json!({"product": "OPMAS", "service": "Finding", "agent": "A", "severity": 5, "host": "ap1"}),
    ];
    let input: String = lines.iter().map(|line| format!("{line}\n")).collect();
    for mode in ["derived", "event"] {
        let mut eval = Command::new(env!("CARGO_BIN_EXE_opmas"));
        let mut eval = eval.args(["eval", "--logsource", mode, "--rules"]).arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        eval.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = String::from_utf8(eval.wait_with_output().unwrap().stdout).unwrap();
        let seqs: Vec<u64> = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, [0, 3], "{mode}: {output}");
    }
}

proptest! {
    #[test]
    fn m2_any_bytes_are_one_event_and_the_same_again(raw: Vec<u8>) {
        let record = finding(&raw);
        let (event, refusal) = read(&record);
        prop_assert_eq!(event.time, BASE);
        prop_assert_eq!(opmas::normalise::check_finding(&raw).is_err(), refusal.is_some());
        prop_assert_eq!(read(&record), (event, refusal));
    }

    #[test]
    fn m2_with_its_keys_it_is_a_finding_whatever_else_it_has(title in "\\PC*[a-z]", agent in "[A-Za-z]{1,9}", severity in 1u8..=5, key in "[a-z_.]{1,8}", text: String) {
        prop_assume!(!["title", "agent", "severity", "level"].contains(&key.as_str()));
        let mut value = json!({"title": title, "agent": agent, "severity": severity});
        value[&key] = Value::from(text.clone());
        let (event, refusal) = read(&finding(value.to_string()));
        prop_assert_eq!(refusal, None);
        prop_assert_eq!(event.text(&key), Some(text.as_str()));
    }
}
