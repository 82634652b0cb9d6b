//! T3 and T4 by themselves, bounds, findings, and rules that are replaced.

use std::sync::Arc;

use opmas::correlate::{self, Limits, MAX_PENDING, Timekeeper};
use opmas::diag::SourceFile;
use opmas::engine::pipeline::{Found, RestoreError, Settings};
use opmas::model::{EntityKind, Entry, EntryBody, Severity, Span, Tick, Trust};
use opmas::sigma::RuleSet;
use proptest::prelude::*;
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
    let (_, judged) = time.judge(&stream, 0, (at(0.0), true), None);
    assert!(judged.pending && judged.believed.is_empty(), "the first record is a jump from nothing");
    let (_, judged) = time.judge(&stream, 1, (at(3600.0), true), None);
    assert!(judged.pending, "an hour ahead of what is believed now");
    assert_eq!(judged.believed, [(0, at(0.0))]);
    assert_eq!(time.judge(&stream, 2, (at(3100.0), true), None).1.believed, [(1, at(3600.0)), (2, at(3100.0))], "within 10 minutes confirms");
}

#[test]
fn t3_too_many_that_wait_lose_the_one_furthest_ahead() {
    let stream: Arc<str> = "s".into();
    let mut time = Timekeeper::new(Span::secs(5));
    for seq in 0..MAX_PENDING as u64 {
        assert_eq!(time.judge(&stream, seq, (at(1e6 - seq as f64 * 700.0), true), None).1.given_up, None);
    }
    assert_eq!(time.judge(&stream, 99, (at(0.0), true), None).1.given_up, Some(0));
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
    let tick = |at, idle: &[&str]| Entry { seq: 3, body: EntryBody::Tick(Tick { at, idle: idle.iter().map(|s| Arc::from(*s)).collect(), ..Tick::default() }) };
    pipeline.entry(&tick(at(61.0), &["q"]));
    assert_eq!(pipeline.watermark(), at(55.0));
    pipeline.entry(&tick(at(100.0), &["p", "q"]));
    assert_eq!(pipeline.watermark(), at(95.0), "when all are idle it runs on with the tick");
}

#[test]
fn c1_an_event_without_a_host_goes_by_the_time_of_its_stream() {
    let rules = rule_set(&[&format!("{PRELUDE}{THREE}")]);
    let mut pipeline = pipeline(&rules, Settings::default());
    let of = |seq, stream: &str, seconds: f64, kind: &str| {
        let raw = format!("{{\"time\":\"{}\",\"k\":\"{kind}\",\"src\":\"x\"}}", at(seconds));
        entry(seq, record(stream, Some(at(10_000.0)), &raw))
    };
    let idle = Entry { seq: 2, body: EntryBody::Tick(Tick { at: at(10_000.0), idle: vec!["file".into()], ..Tick::default() }) };
    let before = [of(0, "file", 0.0, "z"), of(1, "syslog", 3_600.0, "z"), idle, of(3, "file", 20.0, "a"), of(4, "file", 25.0, "a")];
    assert!(before.iter().all(|entry| pipeline.entry(entry).is_empty()));
    assert_eq!(pipeline.watermark(), at(3_595.0), "the file was left out of it");
    let found = pipeline.entry(&of(5, "file", 29.0, "a"));
    assert_eq!(found.iter().map(|found| found.count).collect::<Vec<_>>(), [3], "what the file brings is one window all the same");
}

#[test]
fn c6_what_another_opmas_reads_is_not_missing() {
    let missing = "---\ntitle: gone\ncorrelation: {type: missing, rules: [a], group-by: [src], timespan: 10s}\n";
    let rules = rule_set(&[&format!("{PRELUDE}{missing}")]);
    let of = |seq, stream: &str, seconds: f64, kind: &str| {
        let raw = format!("{{\"time\":\"{}\",\"k\":\"{kind}\",\"src\":\"{stream}\"}}", at(seconds));
        entry(seq, record(stream, Some(at(10_000.0)), &raw))
    };
    let tick = |elsewhere: &[&str]| {
        let [idle, elsewhere] = [&["k/kafka/t/0", "kk/kafka/t/0"], elsewhere].map(|names| names.iter().map(|name| Arc::from(*name)).collect());
        Entry { seq: 2, body: EntryBody::Tick(Tick { at: at(10_000.0), idle, elsewhere }) }
    };
    let gone = |elsewhere: &[&str]| {
        let mut pipeline = pipeline(&rules, Settings::default());
        let entries = [of(0, "k/kafka/t/0", 0.0, "a"), of(1, "kk/kafka/t/0", 0.0, "a"), tick(elsewhere), of(3, "s/udp", 60.0, "z")];
        let found: Vec<_> = entries.iter().flat_map(|entry| pipeline.entry(entry)).collect();
        let bytes = pipeline.snapshot().encode().unwrap();
        pipeline.restore(&bytes).unwrap();
        assert_eq!(pipeline.groups(), 0);
        found.iter().map(|found| found.group_text.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(gone(&[]).len(), 2);
    let left = gone(&["k"]);
    assert!(left.len() == 1 && left[0].contains("kk/"), "{left:?}");
    assert!(gone(&["k", "kk"]).is_empty());
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
fn c14_values_are_bounded_and_a_warm_up_says_so() {
    let text = "---\ntitle: new\ncorrelation: {type: new_value, rules: [a], timespan: 1h, condition: {field: v}}\nopmas: {warmup: 10s}\n";
    let rules = rule_set(&[&format!("{PRELUDE}{text}")]);
    let limits = Limits { entries_per_group: 3, ..Limits::default() };
    let mut pipeline = pipeline(&rules, Settings { limits, ..Settings::default() });
    let mut learning = Vec::new();
    let mut found = Vec::new();
    for (n, (seconds, v)) in [(0.0, "o"), (14.0, "p"), (15.0, "q"), (16.0, "o"), (17.0, "r"), (18.0, "p")].into_iter().enumerate() {
        found.extend(pipeline.entry(&sent(n as u64, seconds, &format!("\"k\":\"a\",\"v\":\"{v}\""))));
        learning.push(pipeline.learning());
    }
    assert_eq!(learning[1], ["new until 2026-11-21 00:00:10 UTC"]);
    assert_eq!(learning[2], [""; 0], "the watermark has reached it");
    // `p` was the oldest of four.
    assert_eq!(found.iter().map(|found| found.place.seq).collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert_eq!(pipeline.counters().entries_dropped, 2);
    assert_eq!(
        pipeline.finding(&found[0]).unwrap().text,
        "v p was not seen before in a within 1h (first 2026-11-21 00:00:14 UTC, last 2026-11-21 00:00:14 UTC)"
    );
}

#[test]
fn c14_attributes_that_say_nothing_are_refused() {
    let load = |text: &str| {
        let text = format!("{PRELUDE}---\ntitle: t\n{text}\n");
        let loaded = correlate::load(&[SourceFile { name: "r.yml".into(), text: text.into() }]);
        loaded.diagnostics.iter().map(|d| d.message.to_string()).collect::<Vec<_>>()
    };
    let new = "correlation: {type: new_value, rules: [a], timespan: 1h, condition: {field: v}}";
    assert_eq!(load(new), [""; 0]);
    assert_eq!(load(&new.replace("field: v", "field: v, gte: 2")), ["unknown key `gte`"]);
    assert_eq!(load(&new.replace("field: v", "")), ["the condition of `new_value` has no `field`"]);
    assert_eq!(load(&format!("{new}\nopmas: {{min_events: 2}}")), ["`min_events` says nothing about `new_value`"]);
    assert_eq!(
        load(&format!("{}\nopmas: {{warmup: 2h}}", THREE.split_once("correlation").map(|(_, c)| format!("correlation{c}")).unwrap())),
        ["`warmup` is for `new_value` alone"]
    );
}

#[test]
fn c9_whole_numbers_beyond_64_bits_are_as_many_as_are_written() {
    let counted = "---\ntitle: values\ncorrelation: {type: value_count, rules: [a], timespan: 10s, condition: {field: src, gte: 4}}\n";
    let rules = rule_set(&[&format!("{PRELUDE}{THREE}{counted}")]);
    let mut pipeline = pipeline(&rules, Settings::default());
    let found: Vec<String> = [
        "18446744073709551616",
        "18446744073709551617",
        "18446744073709551615",
        // What stands twice is read another way.
        "18446744073709551616,\"z\":[-9223372036854775809,\"1\\\"2\"],\"z\":1",
        "\"18446744073709551616\"",
        "-9223372036854775809",
        "1.8446744073709551616e19",
    ]
    .iter()
    .enumerate()
    .flat_map(|(n, src)| pipeline.entry(&sent(n as u64, n as f64 / 10.0, &format!("\"k\":\"a\",\"src\":{src}"))))
    .map(|found| line(&found, &rules))
    .collect();
    assert_eq!(found, ["three x=4 t=0.4 src=18446744073709551616 value=3", "values x=5 t=0.5 value=4"]);
}

#[test]
fn c15_what_is_learned_survives_a_checkpoint_and_other_rules() {
    let rules = |span: &str| {
        let who = "title: w\nname: w\nlogsource: {category: test}\ndetection: {s: {k: w}, condition: s}\nopmas: {entities: {who: ip}}\n";
        rule_set(&[&format!(
            "{who}---\ntitle: one\ncorrelation: {{type: event_count, rules: [w], group-by: [entity.who], timespan: {span}, condition: {{gte: 1}}}}\n"
        )])
    };
    let mut first = pipeline(&rules("5s"), Settings::default());
    first.entry(&sent(0, 0.0, r#""action":"dhcp_ack","client_ip":"10.0.0.5","mac":"aa:bb:cc:00:11:22""#));
    let mut second = pipeline(&rules("5s"), Settings::default());
    second.restore(&first.snapshot().encode().unwrap()).unwrap();
    second.set_rules(Arc::new(rules("6s"))).unwrap();
    let found = second.entry(&sent(1, 1.0, r#""k":"w","ip":"10.0.0.5""#));
    assert_eq!(found.iter().map(|found| line(found, second.rules())).collect::<Vec<_>>(), ["one x=1 t=1 entity.who=aa:bb:cc:00:11:22 value=1"]);
}

#[test]
fn c15_roles_that_no_rule_names_are_refused() {
    for (name, expected) in [
        ("entity.source", "`entity.source`: the rule `a` names no entity `source`"),
        ("entity.source.colour", "`entity.source.colour`: `colour` is nothing that is known of an entity"),
    ] {
        let text = format!("{PRELUDE}---\ntitle: t\ncorrelation: {{type: event_count, rules: [a], group-by: [{name}], timespan: 1h, condition: {{gte: 2}}}}\n");
        let loaded = correlate::load(&[SourceFile { name: "r.yml".into(), text: text.into() }]);
        assert_eq!(loaded.diagnostics.iter().map(|d| &*d.message).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn a_damaged_snapshot_is_refused_and_changes_nothing() {
    let rules = rule_set(&[&format!("{PRELUDE}{THREE}")]);
    let mut first = pipeline(&rules, Settings::default());
    (0..2).for_each(|n| drop(first.entry(&sent(n, n as f64, "\"k\":\"a\",\"src\":\"x\""))));
    let bytes = first.snapshot().encode().unwrap();
    assert!(matches!(first.restore(b"something else"), Err(RestoreError::NotASnapshot)));
    let mut newer = bytes.clone();
    newer[12] = 9;
    assert!(matches!(first.restore(&newer), Err(RestoreError::Version(9))));
    for cut in 13..bytes.len() {
        assert!(matches!(first.restore(&bytes[..cut]), Err(RestoreError::Damaged(_))), "cut at {cut}");
    }
    assert_eq!(first.entry(&sent(2, 2.0, "\"k\":\"a\",\"src\":\"x\"")).len(), 1);
}

#[test]
fn c12_a_flood_of_groups_from_one_source_costs_the_others_nothing() {
    let rules = rule_set(&[&format!("{PRELUDE}{THREE}")]);
    let limits = Limits { groups_per_rule: 10, ..Limits::default() };
    let mut pipeline = pipeline(&rules, Settings { limits, ..Settings::default() });
    let of = |stream: &str, seq: u64, src: &str| {
        entry(seq, record(stream, Some(at(10_000.0)), &format!("{{\"time\":\"{}\",\"k\":\"a\",\"src\":\"{src}\"}}", at(seq as f64 / 100.0))))
    };
    // Five groups of p, idle ever since, and two hundred of q; then p's third matches.
    let mut found = Vec::new();
    for n in 0..5 {
        (0..2).for_each(|twice| drop(pipeline.entry(&of("p", n * 2 + twice, &format!("p{n}")))));
    }
    (10..210).for_each(|n| drop(pipeline.entry(&of("q", n, &format!("q{n}")))));
    assert_eq!((pipeline.groups(), pipeline.counters().groups_evicted), (10, 195));
    for n in 0..5 {
        found.extend(pipeline.entry(&of("p", 300 + n, &format!("p{n}"))));
    }
    assert_eq!(found.len(), 5);
    // A snapshot keeps who has which share.
    let bytes = pipeline.snapshot().encode().unwrap();
    let mut after = self::pipeline(&rules, Settings { limits, ..Settings::default() });
    after.restore(&bytes).unwrap();
    (400..500).for_each(|n| drop(after.entry(&of("q", n, &format!("q{n}")))));
    assert_eq!((after.groups(), after.counters().groups_evicted), (10, 295));
    assert_eq!((0..5).map(|n| after.entry(&of("p", 600 + n, &format!("p{n}"))).len()).sum::<usize>(), 0, "still there and disarmed: they fired above");
}

#[test]
fn c12_a_source_alone_has_all_groups_and_gives_back_what_is_over_its_share() {
    let rules = rule_set(&[&format!("{PRELUDE}{THREE}")]);
    let limits = Limits { groups_per_rule: 10, ..Limits::default() };
    let mut pipeline = pipeline(&rules, Settings { limits, ..Settings::default() });
    let mut send = |stream: &str, seq: u64| {
        let text = format!("{{\"time\":\"{}\",\"k\":\"a\",\"src\":\"{seq}\"}}", at(seq as f64 / 100.0));
        pipeline.entry(&entry(seq, record(stream, Some(at(10_000.0)), &text)));
        (pipeline.groups(), pipeline.counters().groups_evicted)
    };
    (0..9).for_each(|n| _ = send("p", n));
    assert_eq!(send("p", 9), (10, 0));
    (10..14).for_each(|n| _ = send("q", n));
    assert_eq!(send("q", 14), (10, 5), "those of p, which are idle longest in the larger share");
}

const FEW: &str = "---\ntitle: few\nname: few\ncorrelation: {type: temporal, rules: [a, b], group-by: [src], timespan: 10s, condition: a and not b}\n";

#[test]
fn c12_groups_with_an_open_timer_are_evicted_last() {
    let rules = rule_set(&[&format!("{PRELUDE}{FEW}")]);
    let limits = Limits { groups_per_rule: 3, ..Limits::default() };
    let mut pipeline = pipeline(&rules, Settings { limits, ..Settings::default() });
    let mut found = Vec::new();
    // The first waits for its end; of the others, with only a `b`, three times two are too many.
    for (n, letter) in ["a", "b", "b", "b", "b", "a", "a", "a"].into_iter().enumerate() {
        found.extend(pipeline.entry(&sent(n as u64, n as f64 / 10.0, &format!("\"k\":\"{letter}\",\"src\":\"{n}\""))));
    }
    assert_eq!(pipeline.counters().groups_evicted, 5);
    found.extend(pipeline.finish());
    // Four timers had no room: the one idle longest went, and is not decided.
    assert_eq!(found.iter().map(|found| line(found, &rules)).collect::<Vec<_>>(), ["few x=5 t=10.5 src=5", "few x=6 t=10.6 src=6", "few x=7 t=10.7 src=7"]);
}

#[test]
fn o6_ids_of_timers_hash_the_starter_and_the_deadline() {
    let id = |span: &str, first: u64| {
        let rules = rule_set(&[&format!("{PRELUDE}{}", FEW.replace("10s", span))]);
        let mut pipeline = pipeline(&rules, Settings::default());
        pipeline.entry(&sent(first, 1.0, "\"k\":\"a\",\"src\":\"x\""));
        let found = pipeline.finish();
        assert_eq!(found.len(), 1);
        assert!(found[0].end);
        let finding = pipeline.finding(&found[0]).unwrap();
        assert_eq!((finding.time, finding.window.from, finding.evidence[0].seq), (found[0].place.time, at(1.0), first));
        assert_eq!(finding.id, found[0].id());
        finding.id
    };
    assert_eq!(id("10s", 0), id("10s", 0));
    assert_ne!(id("10s", 0), id("11s", 0), "the deadline");
    assert_ne!(id("10s", 0), id("10s", 1), "the starter");
}

#[test]
fn c10_a_full_group_forgets_the_values_of_what_it_drops() {
    let text =
        "---\ntitle: sum\nname: sum\ncorrelation: {type: value_sum, rules: [a], timespan: 1h, condition: {field: n, gte: 100}}\nopmas: {refire: every}\n";
    let rules = rule_set(&[&format!("{PRELUDE}{text}")]);
    let limits = Limits { entries_per_group: 3, ..Limits::default() };
    let mut pipeline = pipeline(&rules, Settings { limits, ..Settings::default() });
    let values = [90, 1, 2, 3, 95];
    let found: Vec<_> = values.iter().enumerate().flat_map(|(n, v)| pipeline.entry(&sent(n as u64, n as f64, &format!("\"k\":\"a\",\"n\":{v}")))).collect();
    assert_eq!(found.iter().map(|found| line(found, &rules)).collect::<Vec<_>>(), ["sum x=4 t=4 value=100"]);
    assert_eq!(pipeline.counters().entries_dropped, 2);
}

#[test]
fn c6_a_match_that_another_follows_in_time_costs_no_entry_and_still_counts_for_what_comes_late() {
    let text = "---\ntitle: gone\nname: gone\ncorrelation: {type: missing, rules: [a], group-by: [src], timespan: 10s}\n";
    let rules = rule_set(&[&format!("{PRELUDE}{text}")]);
    let limits = Limits { entries_per_group: 3, lateness: Span::secs(200), ..Limits::default() };
    let mut pipeline = pipeline(&rules, Settings { limits, lateness: Span::secs(200), ..Settings::default() });
    // 0, 9, 18 … 90 without 45, then 120, 129 … 201; the late ones: within the first row, before it, and in the gap that 45 left.
    let row = |from: i64, to: i64| (from..=to).step_by(9).filter(|secs| *secs != 45).map(|secs| secs as f64);
    let late = [20.0, -5.0, 50.0];
    let times: Vec<f64> = row(0, 90).chain(row(120, 201)).chain(late).collect();
    let mut found: Vec<_> =
        times.iter().enumerate().flat_map(|(n, secs)| pipeline.entry(&sent(n as u64, secs + 1000.0, "\"k\":\"a\",\"src\":\"x\""))).collect();
    found.extend(pipeline.finish());
    let told: Vec<_> = found.iter().filter(|found| found.group.is_some()).map(|found| line(found, &rules)).collect();
    assert_eq!(told, ["gone x=4 t=1046 src=x", "gone x=9 t=1100 src=x", "gone x=19 t=1211 src=x"]);
    assert_eq!(pipeline.counters().entries_dropped, 0);
}

#[test]
fn c13_a_threshold_that_becomes_an_upper_bound_opens_a_timer_over_what_is_kept() {
    let text = |condition: &str| format!("{PRELUDE}{}", THREE.replace("gte: 3", condition));
    let mut pipeline = pipeline(&rule_set(&[&text("gte: 9")]), Settings::default());
    (0..2).for_each(|n| drop(pipeline.entry(&sent(n, n as f64, "\"k\":\"a\",\"src\":\"x\""))));
    pipeline.set_rules(Arc::new(rule_set(&[&text("lt: 3")]))).unwrap();
    let found: Vec<_> = pipeline.entry(&sent(2, 15.0, "\"k\":\"b\""));
    let timers = found.iter().filter(|found| found.group.is_some());
    assert_eq!(timers.map(|found| (found.place.seq, found.place.time)).collect::<Vec<_>>(), [(0, at(10.0))]);
}

const SIX: [&str; 6] = [
    "title: many\nname: many\ncorrelation: {type: event_count, rules: [a], group-by: [src], timespan: 10s, condition: {gte: 3}}\n",
    "title: few\nname: few\ncorrelation: {type: event_count, rules: [a], group-by: [src], timespan: 6s, condition: {lt: 2}}\n",
    "title: gone\nname: gone\ncorrelation: {type: missing, rules: [b], group-by: [src], timespan: 8s}\n",
    "title: unless\nname: unless\ncorrelation: {type: temporal, rules: [a, b], group-by: [src], timespan: 7s, condition: a and not b}\n",
    "title: order\nname: order\ncorrelation: {type: temporal_ordered, rules: [a, b, c], timespan: 20s}\n",
    "title: values\nname: values\ncorrelation: {type: value_count, rules: [a], timespan: 15s, condition: {field: src, gte: 3}}\n",
];

fn joined(texts: &[impl AsRef<str>]) -> RuleSet {
    let texts: Vec<String> = std::iter::once(PRELUDE.to_owned()).chain(texts.iter().map(|text| format!("---\n{}", text.as_ref()))).collect();
    rule_set(&[&texts.concat()])
}

/// The six as another edit has left them.
fn edited(edit: usize) -> RuleSet {
    let mut texts = SIX.map(str::to_owned).to_vec();
    match edit {
        0 => texts.iter_mut().for_each(|text| *text = text.replacen("title: ", "title: the ", 1)),
        1 => texts[0] = texts[0].replace("gte: 3", "gte: 2"),
        2 => texts[1] = texts[1].replace("lt: 2", "lt: 3"),
        3 => texts[1] = texts[1].replace("lt: 2", "gte: 2"),
        4 => drop(texts.remove(2)),
        5 => texts.insert(0, SIX[1].replace("few", "new")),
        6 => texts.reverse(),
        7 => texts[3] = texts[3].replace("7s", "9s"),
        8 => texts.iter_mut().for_each(|text| text.push_str("opmas: {lateness: 1m}\n")),
        _ => texts.truncate(0),
    }
    joined(&texts)
}

proptest! {
    /// What is taken over as it is decides as what is written and read again.
    #[test]
    fn c13_windows_that_go_over_are_those_of_a_snapshot(
        events in prop::collection::vec((0..3usize, 0..4u8, 0..40u32), 1..60), before in 0..60usize, edits in prop::collection::vec(0..10usize, 1..3)
    ) {
        let mut moved = pipeline(&joined(&SIX), Settings::default());
        let mut now = 0.0;
        let entries: Vec<Entry> = (0..).zip(&events).map(|(seq, (letter, src, step))| {
            now += f64::from(*step) / 10.0;
            sent(seq, now - f64::from(*step % 7), &format!("\"k\":\"{}\",\"src\":\"{src}\"", ["a", "b", "c"][*letter]))
        }).collect();
        let (early, late) = entries.split_at(before.min(entries.len()));
        early.iter().for_each(|entry| drop(moved.entry(entry)));
        let (last, edits) = edits.split_last().unwrap();
        edits.iter().for_each(|edit| moved.set_rules(edited(*edit).into()).unwrap());
        let rules = edited(*last);
        let mut read = pipeline(&rules, Settings::default());
        read.restore(&moved.snapshot().encode().unwrap()).unwrap();
        moved.set_rules(rules.clone().into()).unwrap();
        let lines = |found: Vec<Found>| found.iter().map(|found| line(found, &rules)).collect::<Vec<_>>();
        for entry in late {
            prop_assert_eq!(moved.groups(), read.groups());
            prop_assert_eq!(lines(moved.entry(entry)), lines(read.entry(entry)));
        }
        prop_assert_eq!(lines(moved.finish()), lines(read.finish()));
    }
}
