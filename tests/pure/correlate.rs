//! Matches to findings, through the whole pipeline: text cases, a second implementation, snapshots.
//!
//! `OPMAS_REGENERATE=1 cargo test --test pure correlate` writes the findings of the text cases anew; read the difference.

mod cases;
mod model;
mod oracle;
mod time;

use std::sync::{Arc, OnceLock};

use opmas::correlate;
use opmas::diag::SourceFile;
use opmas::engine::pipeline::{Found, Pipeline, Settings};
use opmas::model::{Entry, EntryBody, Inventory, Payload, Record, RecordId, Time, Trust};
use opmas::normalise::{Extractors, Normaliser, Options};
use opmas::sigma::RuleSet;

/// Where the events of these tests are in time: 2026-11-21T00:00:00Z.
pub(crate) const BASE: Time = Time(1_795_219_200_000_000_000);
/// Detections `a`, `b` and `c`, which match events whose `k` is or holds that letter.
pub(crate) const PRELUDE: &str = include_str!("../data/correlate/prelude.yml");

pub(crate) fn at(seconds: f64) -> Time {
    Time(BASE.0 + (seconds * 1e9) as i64)
}

pub(crate) fn seconds(time: Time) -> f64 {
    time.since(BASE).0 as f64 / 1e9
}

pub(crate) fn rule_set(texts: &[&str]) -> RuleSet {
    let files: Vec<SourceFile> = texts.iter().enumerate().map(|(at, text)| SourceFile { name: format!("{at}.yml").into(), text: (*text).into() }).collect();
    let loaded = correlate::load(&files);
    let wrong: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    loaded.set
}

pub(crate) fn pipeline(rules: &RuleSet, settings: Settings) -> Pipeline {
    static EXTRACTORS: OnceLock<Arc<Extractors>> = OnceLock::new();
    let extractors = EXTRACTORS.get_or_init(|| Arc::new(Extractors::load(&opmas::config::shipped_extractors()).0));
    let normaliser = Normaliser::new(Arc::clone(extractors), Options::at(BASE));
    Pipeline::new(Arc::new(rules.clone()), normaliser, Arc::new(Inventory::default()), settings).unwrap()
}

pub(crate) fn record(stream: &str, arrival: Option<Time>, raw: &str) -> Record {
    Record {
        id: None,
        source: "test".into(),
        stream: stream.into(),
        arrival,
        peer: None,
        trust: Trust::Verified,
        raw: raw.into(),
        payload: Payload::Log,
        subject: None,
    }
}

pub(crate) fn entry(seq: u64, mut record: Record) -> Entry {
    record.id = Some(RecordId::File { file: "test".into(), offset: seq });
    Entry { seq, body: EntryBody::Record(record) }
}

/// `rule x=SEQ t=SECONDS group value`
pub(crate) fn line(found: &Found, rules: &RuleSet) -> String {
    let group: Vec<String> =
        found.group.iter().flatten().map(|(name, value)| format!(" {name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned))).collect();
    let value = found.value.as_ref().map(|value| format!(" value={value}")).unwrap_or_default();
    format!("{} x={} t={}{}{value}", rules.rules[found.rule].title, found.place.seq, seconds(found.place.time), group.concat())
}
