//! T3 and T4 by themselves, bounds, findings, and rules that are replaced.

use std::sync::Arc;

use opmas::correlate::{self, Limits, MAX_PENDING, Timekeeper};
use opmas::diag::SourceFile;
use opmas::engine::pipeline::{RestoreError, Settings};
use opmas::model::{EntityKind, Entry, EntryBody, Severity, Span, Tick, Trust};
use serde_json::json;

use super::{PRELUDE, at, entry, line, pipeline, record, rule_set};

fn sent(seq: u64, seconds: f64, fields: &str) -> Entry {
    entry(seq, record("file", Some(at(10_000.0)), &format!("{{\"time\":\"{}\",{fields}}}", at(seconds))))
}

const THREE: &str = "---\ntitle: three\nname: three\ncorrelation: {type: event_count, rules: [a], group-by: [src], timespan: 10s, condition: {gte: 3}}\n";

#[test]
fn t3_the_lesser_is_believed_and_the_other_judged_anew() {
    let stream: Arc<str> = "s".into();
    let mut time = Timekeeper::new(Span::secs(5));
    let judged = time.judge(&stream, 0, at(0.0), None);
    assert!(judged.pending && judged.believed.is_empty(), "the first record is a jump from nothing");
    let judged = time.judge(&stream, 1, at(3600.0), None);
    assert!(judged.pending, "an hour ahead of what is believed now");
    assert_eq!(judged.believed, [(0, at(0.0))]);
    assert_eq!(time.judge(&stream, 2, at(3100.0), None).believed, [(1, at(3600.0)), (2, at(3100.0))], "within 10 minutes confirms");
}

#[test]
fn t3_too_many_that_wait_lose_the_one_furthest_ahead() {
    let stream: Arc<str> = "s".into();
    let mut time = Timekeeper::new(Span::secs(5));
    for seq in 0..MAX_PENDING as u64 {
        assert_eq!(time.judge(&stream, seq, at(1e6 - seq as f64 * 700.0), None).given_up, None);
    }
    assert_eq!(time.judge(&stream, 99, at(0.0), None).given_up, Some(0));
}

#[test]
fn t3_the_watermark_is_the_least_of_the_streams_that_are_not_idle() {
    let rules = rule_set(&[PRELUDE]);
    let mut pipeline = pipeline(&rules, Settings::default());
    let mut send = |seq, stream: &str, seconds: f64| {
        pipeline.entry(&entry(seq, record(stream, Some(at(seconds)), &format!("{{\"time\":\"{}\"}}", at(seconds)))));
        pipeline.watermark()
    };
    assert_eq!(send(0, "p", 10.0), at(5.0));
    assert_eq!(send(1, "q", 7.0), at(5.0), "it never goes back");
    assert_eq!(send(2, "p", 60.0), at(5.0), "q holds it");
    let tick = |at, idle: &[&str]| Entry { seq: 3, body: EntryBody::Tick(Tick { at, idle: idle.iter().map(|s| Arc::from(*s)).collect() }) };
    pipeline.entry(&tick(at(61.0), &["q"]));
    assert_eq!(pipeline.watermark(), at(55.0));
    pipeline.entry(&tick(at(100.0), &["p", "q"]));
    assert_eq!(pipeline.watermark(), at(95.0), "when all are idle it runs on with the tick");
}

#[test]
fn t4_the_watermark_frees_groups() {
    let rules = rule_set(&[&format!("{PRELUDE}{THREE}")]);
    let mut pipeline = pipeline(&rules, Settings::default());
    for n in 0..100 {
        pipeline.entry(&sent(n, 0.0, &format!("\"k\":\"a\",\"src\":\"{n}\"")));
    }
    assert_eq!(pipeline.groups(), 100);
    pipeline.entry(&sent(100, 60.0, "\"k\":\"b\""));
    assert_eq!(pipeline.groups(), 0);
}

#[test]
fn c12_groups_and_entries_are_bounded_and_counted() {
    let rules = rule_set(&[&format!(
        "{PRELUDE}{THREE}---\ntitle: all\nname: all\ncorrelation: {{type: event_count, rules: [a], timespan: 1h, condition: {{gte: 20}}}}\n"
    )]);
    let limits = Limits { groups_per_rule: 10, entries_per_group: 5, ..Limits::default() };
    let mut pipeline = pipeline(&rules, Settings { limits, ..Settings::default() });
    let mut found = Vec::new();
    for n in 0..30u64 {
        found.extend(pipeline.entry(&sent(n, n as f64 / 10.0, &format!("\"k\":\"a\",\"src\":\"{n}\""))));
    }
    assert_eq!(pipeline.groups(), 11);
    assert_eq!(pipeline.counters().groups_evicted, 20);
    assert_eq!(pipeline.counters().entries_dropped, 9, "a rule keeps one more than its threshold, whatever the bound");
    assert_eq!(found.iter().map(|found| line(found, &rules)).collect::<Vec<_>>(), ["all x=19 t=1.9 value=20"]);
    // The groups that went were those idle longest.
    for n in 30..32 {
        found.extend(pipeline.entry(&sent(n, 3.0, "\"k\":\"a\",\"src\":\"29\"")));
    }
    assert_eq!(found.len(), 2);
}

#[test]
fn c12_the_bound_of_all_groups_takes_the_longest_idle_of_any_rule() {
    let rules = rule_set(&[&format!("{PRELUDE}{THREE}{}", THREE.replace("three", "other").replace("[a]", "[b]"))]);
    let limits = Limits { groups: 3, ..Limits::default() };
    let mut pipeline = pipeline(&rules, Settings { limits, ..Settings::default() });
    for (n, letter) in ["a", "b", "a", "b", "b"].into_iter().enumerate() {
        pipeline.entry(&sent(n as u64, n as f64, &format!("\"k\":\"{letter}\",\"src\":\"{n}\"")));
    }
    assert_eq!((pipeline.groups(), pipeline.counters().groups_evicted), (3, 2));
}

#[test]
fn c13_windows_outlive_a_new_title_and_threshold_but_not_a_new_timespan() {
    let text = |title: &str, n: u32, span: &str| {
        format!(
            "{PRELUDE}---\ntitle: {title}\nid: 00000000-0000-0000-0000-000000000001\ncorrelation: {{type: event_count, rules: [a], group-by: [src], timespan: {span}, condition: {{gte: {n}}}}}\n"
        )
    };
    let found_after = |next: &str| {
        let mut pipeline = pipeline(&rule_set(&[&text("before", 9, "10s")]), Settings::default());
        (0..3).for_each(|n| drop(pipeline.entry(&sent(n, n as f64, "\"k\":\"a\",\"src\":\"x\""))));
        pipeline.set_rules(Arc::new(rule_set(&[next]))).unwrap();
        pipeline.entry(&sent(3, 3.0, "\"k\":\"a\",\"src\":\"x\"")).len()
    };
    assert_eq!(found_after(&text("after", 4, "10s")), 1);
    assert_eq!(found_after(&text("after", 4, "11s")), 0);
    assert_eq!(found_after(&text("after", 4, "10s").replace("[src]", "[k]")), 0);
    assert_eq!(found_after(&text("after", 4, "10s").replace("{k: a}", "{k: 'a'}").replace("title: a", "title: new")), 1);
    assert_eq!(found_after(&text("after", 4, "10s").replace("{k: a}", "{k: a, src: x}")), 0);
}

#[test]
fn o6_ids_hash_rule_group_and_x() {
    let rules = rule_set(&[&format!("{PRELUDE}{THREE}")]);
    let ids = |src: [&str; 3], first: u64| {
        let mut pipeline = pipeline(&rules, Settings::default());
        let found: Vec<_> = (0..3).flat_map(|n| pipeline.entry(&sent(first + n, n as f64, &format!("\"k\":\"a\",\"src\":\"{}\"", src[n as usize])))).collect();
        assert_eq!(found.len(), 1);
        found[0].id()
    };
    let plain = ids(["10.0.0.1"; 3], 0);
    assert_eq!(plain, ids(["10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"], 0), "the group's canonical text");
    assert_ne!(plain, ids(["10.0.0.2"; 3], 0));
    assert_ne!(plain, ids(["10.0.0.1"; 3], 1));
}

#[test]
fn m1_a_finding_explains_itself() {
    let text = "---\ntitle: Guessing\nid: g\nlevel: high\ntags: [attack.t1110]\ncorrelation: {type: event_count, rules: [a], group-by: [src_ip], timespan: 10m, condition: {gte: 20}}\n\
                opmas:\n  entities: {source: src_ip, device: host, station: client_mac, who: user}\n  remediation: Look.\n";
    let rules = rule_set(&[&format!("{PRELUDE}{text}")]);
    let mut pipeline = pipeline(&rules, Settings::default());
    let mut found = Vec::new();
    for n in 0..20u64 {
        let mut entry = sent(
            n,
            n as f64,
            r#""k":"a","src_ip":"::ffff:203.0.113.9","host":"ap1","client_mac":"AA-BB-CC-00-11-22","user":"root","device":"ap1","site":"home""#,
        );
        let EntryBody::Record(record) = &mut entry.body else { unreachable!() };
        record.trust = if n == 7 { Trust::Open } else { Trust::Verified };
        found.extend(pipeline.entry(&entry));
    }
    let finding = pipeline.finding(&found[0]).unwrap();
    assert_eq!(finding.severity, Severity::High);
    assert_eq!(finding.trust, Trust::Open, "the least of the evidence, also of what is not shown");
    assert_eq!(finding.evidence.iter().map(|e| e.seq).collect::<Vec<_>>(), [0, 1, 2, 15, 16, 17, 18, 19]);
    assert_eq!((finding.count, finding.value), (20, Some(json!(20))));
    assert_eq!((finding.window.from, finding.window.to), (at(0.0), at(19.0)));
    assert_eq!((finding.device.as_deref(), finding.site.as_deref()), (Some("ap1"), Some("home")));
    assert_eq!(finding.text, "20 × a from ::ffff:203.0.113.9 on ap1 within 10m (first 2026-11-21 00:00:00 UTC, last 2026-11-21 00:00:19 UTC)");
    let entity = |role: &str| finding.entities.get(role).map(|e| (e.kind, e.value.to_string())).unwrap();
    assert_eq!(entity("source"), (EntityKind::Ip, "203.0.113.9".into()));
    assert_eq!(entity("device"), (EntityKind::Host, "ap1".into()));
    assert_eq!(entity("station"), (EntityKind::Mac, "aa:bb:cc:00:11:22".into()));
    assert_eq!(entity("who"), (EntityKind::User, "root".into()));
}

#[test]
fn m1_a_finding_of_huge_lines_is_bounded() {
    let text = "---\ntitle: Guessing\nid: g\ncorrelation: {type: event_count, rules: [a], group-by: [src], timespan: 10m, condition: {gte: 10}}\nopmas: {entities: {who: src}}\n";
    let rules = rule_set(&[&format!("{PRELUDE}{text}")]);
    let mut pipeline = pipeline(&rules, Settings::default());
    let huge = "é".repeat(400_000);
    let found: Vec<_> = (0..10u64).flat_map(|n| pipeline.entry(&sent(n, n as f64, &format!("\"k\":\"a\",\"src\":\"{huge}\"")))).collect();
    let finding = pipeline.finding(&found[0]).unwrap();
    assert_eq!((finding.count, finding.evidence.len(), finding.entities.len()), (10, 8, 0));
    assert!(serde_json::to_vec(&finding).unwrap().len() < 64 << 10, "it fits into a ledger record many times over");
}

#[test]
fn m1_trust_of_a_chain_is_the_least_of_what_stands_behind_it() {
    let text = format!("{PRELUDE}{THREE}---\ntitle: in\ncorrelation: {{type: temporal_ordered, rules: [three, b], group-by: [src], timespan: 10s}}\n");
    let rules = rule_set(&[&text]);
    let mut pipeline = pipeline(&rules, Settings::default());
    let mut found = Vec::new();
    for n in 0..4u64 {
        let mut entry = sent(n, n as f64, &format!("\"k\":\"{}\",\"src\":\"x\"", if n < 3 { "a" } else { "b" }));
        let EntryBody::Record(record) = &mut entry.body else { unreachable!() };
        record.trust = if n == 0 { Trust::Open } else { Trust::Verified };
        found.extend(pipeline.entry(&entry));
    }
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].trust, Trust::Open, "the first failure is behind the guessing, which is behind the login");
}

#[test]
fn c7_what_is_not_evaluated_is_refused_with_its_file_and_what_needs_it() {
    let file = |name: &str, text: &str| SourceFile { name: name.into(), text: text.into() };
    let loaded = correlate::load(&[
        file("a.yml", PRELUDE),
        file("b.yml", "title: few\nname: few\ncorrelation: {type: temporal_ordered, rules: [a, b], timespan: 10s, condition: {lt: 3}}\n"),
        file("c.yml", "title: up\ncorrelation: {type: event_count, rules: [few], timespan: 10s, condition: {gte: 3}}\n"),
    ]);
    assert_eq!(loaded.set.rules.len(), 3);
    let files: Vec<&str> = loaded.diagnostics.iter().map(|d| &*d.file).collect();
    assert!(files.contains(&"b.yml") && files.contains(&"c.yml"), "{files:?}");
}

#[test]
fn a_damaged_snapshot_is_refused_and_changes_nothing() {
    let rules = rule_set(&[&format!("{PRELUDE}{THREE}")]);
    let mut first = pipeline(&rules, Settings::default());
    (0..2).for_each(|n| drop(first.entry(&sent(n, n as f64, "\"k\":\"a\",\"src\":\"x\""))));
    let bytes = first.snapshot().unwrap();
    assert!(matches!(first.restore(b"something else"), Err(RestoreError::NotASnapshot)));
    let mut newer = bytes.clone();
    newer[12] = 9;
    assert!(matches!(first.restore(&newer), Err(RestoreError::Version(9))));
    for cut in 13..bytes.len() {
        assert!(matches!(first.restore(&bytes[..cut]), Err(RestoreError::Damaged(_))), "cut at {cut}");
    }
    assert_eq!(first.entry(&sent(2, 2.0, "\"k\":\"a\",\"src\":\"x\"")).len(), 1);
}
