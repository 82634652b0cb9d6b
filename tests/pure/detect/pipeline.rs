//! The pipeline makes no event of most records. What it finds is held to the plain scan over events that are made whole.

use std::sync::Arc;

use opmas::correlate::MAX_SKEW;
use opmas::detect::{LogsourceMode, Scan};
use opmas::engine::Pipeline;
use opmas::engine::pipeline::Settings;
use opmas::model::{Device, Entry, EntryBody, Event, Inventory, Payload, Record, Time, Trust};
use opmas::normalise::{Extractors, Normaliser, Options};
use opmas::sigma::RuleSet;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

use super::network::{fields, rule};
use super::rules;

const NOW: Time = Time(1_790_000_000_000_000_000);

/// Rules that what is added to an event may wake, beside generated ones.
const ADDED: &[&str] = &[
    "timestamp|startswith: '2026'",
    "timestamp|re: '0Z$'",
    "timestamp: null",
    "'|re': '^20..-'",
    "host: ap1",
    "device|exists: true",
    "site: roof",
    "severity: 4",
    "stamp|exists: true",
];

fn inventory() -> Arc<Inventory> {
    let device = |name: &str, host: &str| Device { site: Some("roof".into()), ..toml::from_str(&format!("name = \"{name}\"\nhost = \"{host}\"")).unwrap() };
    Inventory { devices: vec![device("ap1", "192.0.2.1"), device("ap2", "192.0.2.2")] }.into()
}

/// What an event says of its time and place.
fn own() -> impl Strategy<Value = Vec<(String, Value)>> {
    let stamp = prop_oneof![
        Just("2026-09-21T13:33:20Z"),
        Just("2026-09-21 13:33:25.000"),
        Just("2099-01-01T00:00:00Z"),
        Just("Sep 21 13:33:20"),
        Just("no time"),
        Just("1970-01-01T00:00:00Z")
    ];
    let words = |words: &'static [&'static str]| proptest::sample::select(words).prop_map(Value::from);
    let entry = prop_oneof![
        3 => (proptest::sample::select(&["timestamp", "time", "stamp"][..]), stamp.prop_map(Value::from)),
        2 => (Just("host"), words(&["ap1", "AP2", "elsewhere", ""])),
        1 => (Just("product"), words(&["opmas", "windows", "linux"])),
        1 => (Just("service"), words(&["finding", "sshd"])),
        1 => (Just("level"), words(&["high", "no level"])),
    ];
    vec(entry.prop_map(|(name, value)| (name.to_owned(), value)), 0..4)
}

fn line() -> impl Strategy<Value = Vec<u8>> {
    let object = (fields(), own()).prop_map(|(fields, own)| {
        let mut fields = fields.as_object().unwrap().clone();
        fields.extend(own);
        serde_json::to_string(&fields).unwrap()
    });
    prop_oneof![
        8 => object.prop_map(String::into_bytes),
        1 => "Sep 21 13:33:[0-5][0-9] ap1 [a-z]{3}: (foo|a-b|5)".prop_map(String::into_bytes),
        1 => Just(b"{\"f\":\"foo\",\"f\":5}".to_vec()),
        1 => Just(b"\xef\xbb\xbf{\"f\": \"foo\"}\r\n".to_vec()),
        1 => Just(b"{\"f\": \"f\xffo\"}".to_vec()),
    ]
}

fn entry() -> impl Strategy<Value = EntryBody> {
    let arrival = proptest::option::of((0i64..60).prop_map(|second| Time(NOW.0 + second * 1_000_000_000)));
    let peer = prop_oneof![Just(None), Just(Some("192.0.2.2".parse().unwrap()))];
    (line(), arrival, peer, prop_oneof![9 => Just(Payload::Log), 1 => Just(Payload::Finding)]).prop_map(|(raw, arrival, peer, payload)| {
        let stream = if arrival.is_some() { "live".into() } else { "recorded".into() };
        EntryBody::Record(Record { id: None, source: "s".into(), stream, arrival, peer, trust: Trust::Open, raw, payload, subject: None })
    })
}

fn normaliser() -> Normaliser {
    Normaliser::new(Extractors::default().into(), Options::at(NOW))
}

/// The whole event as T3 has it.
fn whole(normaliser: &mut Normaliser, entry: &Entry, inventory: &Inventory) -> Option<Event> {
    let EntryBody::Record(record) = &entry.body else { return None };
    let (mut event, refusal) = normaliser.read(entry.seq, record, inventory);
    if let Some(arrival) = record.arrival.filter(|arrival| event.time > arrival.plus(MAX_SKEW)) {
        let before = Value::from(event.time.to_string());
        event.fields.get_mut("timestamp").into_iter().filter(|stamp| **stamp == before).for_each(|stamp| *stamp = arrival.to_string().into());
        event.time = arrival;
    }
    refusal.is_none().then_some(event)
}

fn found(set: &Arc<RuleSet>, inventory: &Arc<Inventory>, entries: &[Entry], threads: usize) -> (Vec<(u64, usize)>, Time, Vec<u8>) {
    let settings = Settings { threads, logsource: LogsourceMode::Derived, ..Settings::default() };
    let mut pipeline = Pipeline::new(set.clone(), normaliser(), inventory.clone(), settings).unwrap();
    let mut found: Vec<(u64, usize)> = pipeline.entries(entries).iter().map(|found| (found.place.seq, found.rule)).collect();
    found.sort_unstable();
    (found, pipeline.watermark(), pipeline.snapshot().encode().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::network::cases(), max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn what_it_finds_is_what_holds_for_whole_events(texts in vec(rule(), 6), added in proptest::sample::subsequence(ADDED, 0..4), bodies in vec(entry(), 1..20), joined in any::<bool>()) {
        let simple = |item: &str, condition: &str| format!("title: t\nlogsource: {{}}\ndetection:\n  s:\n    {item}\n  condition: {condition}\n");
        let mut texts: Vec<String> = texts.into_iter().chain(added.into_iter().map(|item| simple(item, "s"))).collect();
        let set = Arc::new(rules(&texts));
        let inventory = if joined { inventory() } else { Arc::default() };
        let entries: Vec<Entry> = (0..).zip(bodies).map(|(seq, body)| Entry { seq, body }).collect();
        let (scan, mut normaliser) = (Scan::new(&set), normaliser());
        let events = entries.iter().filter_map(|entry| whole(&mut normaliser, entry, &inventory));
        let mut expected: Vec<(u64, usize)> = events.flat_map(|event| scan.matches(&event, LogsourceMode::Derived).into_iter().map(move |rule| (event.seq, rule))).collect();
        expected.sort_unstable();
        let one = found(&set, &inventory, &entries, 1);
        prop_assert_eq!(&one.0, &expected);
        prop_assert_eq!(&found(&set, &inventory, &entries, 3), &one);
        // With a rule that holds for every record, an event is made of each: time goes on the same.
        texts.push(simple("nothing: is so", "not s"));
        let each = found(&Arc::new(rules(&texts)), &inventory, &entries, 1);
        prop_assert_eq!((each.1, each.2), (one.1, one.2));
    }
}
