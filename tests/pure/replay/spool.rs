//! What a spool holds, replayed (X5, O2, O6).

use std::path::Path;
use std::sync::Arc;

use opmas::config::shipped_extractors;
use opmas::correlate;
use opmas::engine::Pipeline;
use opmas::engine::pipeline::Settings;
use opmas::journal::{DataDir, Revisions, Spool, SpoolConfig, SpoolReader};
use opmas::model::{Entry, EntryBody, Inventory, Payload, Record, Revision, RevisionKind, Tick, Time, Trust};
use opmas::normalise::{Extractors, Normaliser, Options};
use serde_json::Value;

use super::{Site, attack, everything, of_type, rules};

const RULES: &str = "title: Hit\nname: hit\nlogsource: {product: shop}\ndetection: {s: {kind: KIND}, condition: s}\nlevel: high\n---\n\
    title: Quiet\nname: quiet\ncorrelation: {type: missing, rules: [hit], group-by: [shop], timespan: 1m}\nlevel: medium\ngenerate: true\n";

fn hit(kind: &str) -> String {
    RULES.replace("KIND", kind)
}

const ARRIVAL: Time = Time(1_790_000_000_000_000_000);

/// As syslog brings it, `second` after the first.
fn record(second: i64, raw: &str) -> EntryBody {
    EntryBody::Record(Record {
        id: None,
        source: "routers".into(),
        stream: "routers/udp:192.0.2.1".into(),
        arrival: Some(Time(ARRIVAL.0 + second * 1_000_000_000)),
        peer: Some("192.0.2.1".parse().unwrap()),
        trust: Trust::Open,
        raw: raw.as_bytes().to_vec(),
        payload: Payload::Log,
        subject: None,
    })
}

fn event(second: i64, kind: &str) -> EntryBody {
    record(second, &format!("{{\"product\":\"shop\",\"kind\":\"{kind}\",\"shop\":\"one\"}}"))
}

fn tick(second: i64) -> EntryBody {
    EntryBody::Tick(Tick { at: Time(ARRIVAL.0 + second * 1_000_000_000), idle: vec!["routers/udp:192.0.2.1".into()], ..Tick::default() })
}

/// A spool that begins with the place behind `skip`.
fn filled(path: &Path, skip: u64, bodies: impl FnOnce(&Revisions) -> Vec<EntryBody>) -> DataDir {
    let data = DataDir::open(path).unwrap();
    let bodies = bodies(&Revisions::new(&data));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (mut spool, _) = Spool::open(&data, SpoolConfig::default()).unwrap();
        if skip > 0 {
            spool.skip_to(skip).unwrap();
        }
        let spool = spool.start(tokio::sync::mpsc::channel(1).0).unwrap();
        for part in bodies.chunks(100) {
            spool.append(part.to_vec()).await.unwrap();
        }
        spool.close().await;
    });
    DataDir::open_read_only(path).unwrap()
}

fn rules_revision(kept: &Revisions, text: &str) -> EntryBody {
    let content = serde_json::to_vec(&[("rules/shop.yml", text)]).unwrap();
    EntryBody::Revision(Revision { kind: RevisionKind::Rules, hash: kept.keep(&content).unwrap().into() })
}

/// The findings of the engine's pipeline over a spool, with one set of rules from its beginning to its end.
fn live(data: &DataDir, rules: &str) -> Vec<String> {
    let rules = correlate::load(&[opmas::diag::SourceFile { name: "rules/shop.yml".into(), text: rules.into() }]).set;
    let options = Options { node: data.node().clone(), ..Options::at(Time(0)) };
    let extractors = Extractors::load(&shipped_extractors()).0;
    let normaliser = Normaliser::new(Arc::new(extractors), options);
    let mut pipeline = Pipeline::new(Arc::new(rules), normaliser, Arc::new(Inventory::default()), Settings::default()).unwrap();
    let entries: Vec<Entry> = SpoolReader::open(&data.spool(), 0).unwrap().map(Result::unwrap).collect();
    entries.iter().flat_map(|entry| pipeline.entry(entry)).map(|found| found.id().0.to_string()).collect()
}

fn ids(told: &[Value]) -> Vec<String> {
    of_type(told, "finding").iter().map(|finding| finding["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn x5_o6_a_spool_gives_the_ids_that_its_findings_had_live() {
    let site = Site::new();
    let bodies = |_: &Revisions| (0..3_000).map(|n| if n % 500 == 499 { tick(n + 100) } else { event(n, if n % 7 == 0 { "a" } else { "b" }) }).collect();
    let data = filled(&site.path("opmas-data"), 0, bodies);
    site.write("rules/shop.yml", hit("a")).write("devices.toml", "");
    let expected = live(&data, &hit("a"));
    assert!(expected.len() > 400, "{}", expected.len());
    let before = everything(&site.path("opmas-data"));
    assert!(ids(&site.told(&["--spool"])) == expected);
    assert_eq!(ids(&site.told(&["--spool", "opmas-data", "--threads", "2"])), expected);
    assert_eq!(everything(&site.path("opmas-data")), before, "nothing is written");
    // An opmas may run on it.
    let held = DataDir::open(&site.path("opmas-data")).unwrap();
    assert_eq!(ids(&site.told(&["--spool"])), expected);
    archive(&held);
    assert!(held.spool().join("archive/00000000000000000001.zst").exists());
    assert_eq!(ids(&site.told(&["--spool"])), expected, "archived, it is the same");
}

/// Takes in one tick behind a segment of its own, so that those before it are archived.
fn archive(data: &DataDir) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let config = SpoolConfig { segment_bytes: 0, keep_bytes: 1, ..SpoolConfig::default() };
        let spool = Spool::open(data, config).unwrap().0.start(tokio::sync::mpsc::channel(1).0).unwrap();
        spool.retain_from(u64::MAX);
        spool.append(vec![tick(0)]).await.unwrap();
        spool.close().await;
    });
}

#[test]
fn x5_what_is_open_at_the_end_of_a_spool_is_not_decided() {
    let site = Site::new();
    filled(&site.path("opmas-data"), 0, |_| vec![event(0, "a"), event(30, "b")]);
    site.write("rules/shop.yml", hit("a"));
    assert_eq!(rules(&site.told(&["--spool"])), ["hit"], "that it is quiet is decided by what comes");
}

#[test]
fn x5_a_spool_is_read_with_the_rules_of_today_or_with_those_of_its_time() {
    let site = Site::new();
    let bodies =
        |kept: &Revisions| vec![rules_revision(kept, &hit("a")), event(1, "a"), event(2, "b"), rules_revision(kept, &hit("b")), event(3, "a"), event(4, "b")];
    filled(&site.path("opmas-data"), 0, bodies);
    site.write("rules/shop.yml", hit("a"));
    let seqs = |arguments: &[&str]| {
        let told = site.told(arguments);
        of_type(&told, "finding").iter().map(|finding| finding["evidence"][0]["seq"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(seqs(&["--spool"]), [2, 5]);
    assert_eq!(seqs(&["--spool", "--recorded"]), [2, 6]);
    assert_eq!(seqs(&["--spool", "--recorded", "--threads", "2"]), [2, 6]);
}

#[test]
fn x5_a_spool_whose_beginning_is_gone_says_what_stands_in_for_the_rules_of_its_time() {
    let site = Site::new();
    let bodies = |kept: &Revisions| vec![event(1, "a"), rules_revision(kept, &hit("b")), event(2, "a"), event(3, "b")];
    filled(&site.path("opmas-data"), 40, bodies);
    site.write("rules/shop.yml", hit("a"));
    let output = site.run(&["--spool", "--recorded"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("which rules were live there"), "{said}");
    let seqs: Vec<u64> = of_type(&super::parsed(&output), "finding").iter().map(|finding| finding["evidence"][0]["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [41, 44]);
}

#[test]
fn x5_a_revision_that_is_lost_is_said() {
    let site = Site::new();
    filled(&site.path("opmas-data"), 0, |kept| vec![rules_revision(kept, &hit("a")), event(1, "a")]);
    std::fs::remove_dir_all(site.path("opmas-data/revisions")).unwrap();
    site.write("rules/shop.yml", hit("a"));
    let output = site.run(&["--spool", "--recorded"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("rules revision: the last good version stays: revision "), "{said}");
    assert_eq!(rules(&site.told(&["--spool"])), ["hit"]);
}

#[test]
fn x5_damage_in_a_spool_is_named_and_passed_over() {
    let site = Site::new();
    filled(&site.path("opmas-data"), 0, |_| attack(8, "203.0.113.9").lines().enumerate().map(|(n, line)| record(n as i64, line)).collect());
    assert_eq!(rules(&site.told(&["--spool"])), ["openwrt_ssh_bruteforce", "openwrt_ssh_login_after_failures"]);
    let segment = std::fs::read_dir(site.path("opmas-data/spool")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(3).position(|word| word == b"Bad").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let output = site.run(&["--spool"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("passed over: ") && said.contains(".spool"), "{said}");
}
