//! The network is held to the plain scan: on generated rules and events, on recorded ones, and on the benchmark's kind of events.

use opmas::detect::{Detector, LogsourceMode, Room, Scan};
use opmas::model::LogSource;
use opmas::sigma::RuleSet;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::{Union, ValueTree as _};
use serde_json::{Value, json};

use super::{event, rules};

const FIELDS: &[&str] = &["f", "g", "h", "a.b", "a.b.c", "x y", "xy", "timestamp"];
/// Short words over a small alphabet, so that much of it hits: cases, folding, wildcards, escapes, dashes.
const WORD: &str = "[abAB\\-/]{0,3}|[aAkK\u{212a}ſsß.]{1,3}|foo|FOO bar|-e|5|5\\.0|10\\.1\\.2\\.3|true|a\\\\b";

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn value(pattern: &str) -> BoxedStrategy<String> {
    proptest::string::string_regex(pattern).unwrap().prop_map(|text| quoted(&text)).boxed()
}

/// An item's modifiers and a value for them.
fn test() -> impl Strategy<Value = (String, Vec<String>)> {
    let texts = || value(&format!("({WORD}|\\*|\\?){{1,3}}"));
    let regex = || value("(a|b|[ab]+|\\.|foo|\\^a|b\\$|\\(ab\\|c\\)|a\\?|\\\\d\\+|F|-){1,4}");
    let net = || Union::new(["10.0.0.0/8", "10.1.2.3", "10.1.0.0/16", "fd00::/8", "::/0", "::ffff:0:0/96"].map(|net| Just(quoted(net)))).boxed();
    let number = || prop_oneof![(-6i64..7).prop_map(|n| n.to_string()), Just("5.0".to_owned()), Just("0.5".to_owned()), Just("1e3".to_owned())].boxed();
    let field = || Union::new(FIELDS.iter().map(|field| Just(quoted(field)))).boxed();
    let plain = || prop_oneof![4 => texts(), 2 => number(), 1 => Just("true".to_owned()), 1 => Just("null".to_owned())].boxed();
    let kinds: Vec<(&str, BoxedStrategy<String>)> = vec![
        ("", plain()),
        ("|contains", texts()),
        ("|startswith", texts()),
        ("|endswith", texts()),
        ("|contains|all", texts()),
        ("|cased", texts()),
        ("|contains|cased", texts()),
        ("|windash|contains", texts()),
        ("|endswith|windash", texts()),
        ("|base64offset|contains", value("[a-c]{3,5}")),
        ("|re", regex()),
        ("|re|i", regex()),
        ("|cidr", net()),
        ("|neq", plain()),
        ("|contains|all|neq", texts()),
        ("|lt", number()),
        ("|lte", number()),
        ("|gt", number()),
        ("|gte", number()),
        ("|fieldref", field()),
        ("|exists", Union::new(["true", "false"].map(|word| Just(word.to_owned()))).boxed()),
    ];
    Union::new(kinds.into_iter().map(|(modifiers, value)| (Just(modifiers.to_owned()), vec(value, 1..4)).boxed()))
}

fn search() -> impl Strategy<Value = String> {
    let item = (proptest::sample::select(FIELDS), test()).prop_map(|(field, (modifiers, values))| (format!("{field}{modifiers}"), values));
    let map = vec(item, 1..4).prop_map(|mut items| {
        items.sort();
        items.dedup_by(|a, b| a.0 == b.0);
        let lines: Vec<String> = items.iter().map(|(key, values)| format!("{}: [{}]", quoted(key), values.join(", "))).collect();
        format!("{{{}}}", lines.join(", "))
    });
    let words = vec(value(&format!("({WORD}|\\*){{1,2}}")), 1..3).prop_map(|words| format!("[{}]", words.join(", ")));
    let map = map.boxed();
    let maps = vec(map.clone(), 2..4).prop_map(|maps| format!("[{}]", maps.join(", ")));
    let keys = (proptest::sample::select(&["|all", "|re", "|cased", "|lt"][..]), vec(value("[ab]{1,2}|5"), 1..3));
    let modified = keys.prop_map(|(key, words)| if key == "|lt" { "{'|lt': 5}".to_owned() } else { format!("{{'{key}': [{}]}}", words.join(", ")) });
    prop_oneof![6 => map, 2 => maps, 1 => words, 1 => modified]
}

const CONDITIONS: &[&str] =
    &["s1", "s1 and s2", "s1 and not s2", "s1 or s2", "not s1", "1 of s*", "all of them", "s1 and (s2 or not s3)", "not (s1 and s2)", "s1 and not 1 of s*"];
const SOURCES: &[&str] = &["{}", "{product: windows}", "{category: registry_event}", "{product: linux, service: sshd}", "{category: registry_set}"];

pub(super) fn rule() -> impl Strategy<Value = String> {
    let parts = (search(), search(), search(), proptest::sample::select(CONDITIONS), proptest::sample::select(SOURCES));
    parts.prop_map(|(a, b, c, condition, source)| {
        format!("title: t\nlogsource: {source}\ndetection:\n  s1: {a}\n  s2: {b}\n  s3: {c}\n  condition: {condition}\n")
    })
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => proptest::string::string_regex(&format!("({WORD}){{0,3}}")).unwrap().prop_map(Value::from),
        1 => Union::new(["fe80::1%eth0", "::ffff:10.1.2.3", "fd00::1", "YWJj", "xxYWJjxx"].map(|text| Just(json!(text)))),
        2 => (-6i64..7).prop_map(Value::from),
        1 => Union::new([json!(5.0), json!(0.5), json!(-0.0), json!(u64::MAX), json!(1000.0)].map(Just)),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

pub(super) fn fields() -> impl Strategy<Value = Value> {
    let value = scalar().prop_recursive(2, 6, 3, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("b|c|b\\.c|x y", inner, 0..3).prop_map(|map| map.into_iter().collect())
        ]
    });
    let name = prop_oneof![8 => proptest::sample::select(FIELDS).prop_map(str::to_owned), 2 => Just("a".to_owned()), 1 => Just("other".to_owned())];
    proptest::collection::btree_map(name, value, 0..6).prop_map(|map| map.into_iter().collect())
}

fn source() -> impl Strategy<Value = LogSource> {
    let word = |words: &'static [&'static str]| proptest::option::of(proptest::sample::select(words).prop_map(std::sync::Arc::from));
    (word(&["windows", "Linux", "zeek"]), word(&["registry_set", "Registry_Event", "registry_zzz", "dns"]), word(&["sshd", "other"]))
        .prop_map(|(product, category, service)| LogSource { product, category, service })
}

#[track_caller]
fn agree(set: &RuleSet, network: &Detector, scan: &Scan, fields: &Value, source: &LogSource) -> usize {
    let mut event = event(fields.clone());
    event.logsource = source.clone();
    for mode in [LogsourceMode::Any, LogsourceMode::Derived, LogsourceMode::Event] {
        let (found, plain) = (network.matches(&event, mode), scan.matches(&event, mode));
        let named = |found: &[usize]| found.iter().map(|index| format!("{:?}", set.rules[*index].body)).collect::<Vec<_>>().join("\n");
        assert_eq!(found, plain, "{mode:?} {source:?}\n{fields}\nnetwork: {}\nscan: {}", named(&found), named(&plain));
    }
    scan.matches(&event, LogsourceMode::Any).len()
}

pub(super) fn cases() -> u32 {
    if std::env::var_os("OPMAS_LONG").is_some_and(|long| long == "1") { 250 } else { 25 }
}

proptest! {
    // 20 rules on 20 events: 10,000 pairs, in the long run 100,000.
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn it_agrees_with_the_scan_on_generated_pairs(texts in vec(rule(), 20), events in vec((fields(), source()), 20)) {
        let set = rules(&texts);
        let (network, scan) = (Detector::new(&set), Scan::new(&set));
        for (fields, source) in &events {
            agree(&set, &network, &scan, fields, source);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]
    /// A value of which the network says that it changes nothing changes nothing for the scan.
    #[test]
    fn what_is_inert_changes_nothing(texts in vec(rule(), 20), events in vec((fields(), source()), 20), number in prop_oneof![Just(Value::from(5)), (-9..99).prop_map(Value::from), Just(Value::from(0.5))]) {
        let set = rules(&texts);
        let (network, scan) = (Detector::new(&set), Scan::new(&set));
        for (fields, source) in &events {
            let mut event = event(fields.clone());
            event.logsource = source.clone();
            for field in FIELDS.iter().filter(|field| !fields.as_object().unwrap().contains_key(**field)) {
                let before = scan.matches(&event, LogsourceMode::Any);
                let mut with = event.clone();
                with.fields.insert((*field).to_owned(), number.clone());
                let inert = network.is_inert(field, &number, &mut Room::default());
                prop_assert!(!inert || scan.matches(&with, LogsourceMode::Any) == before, "{field}: {number}\n{fields}");
            }
        }
    }
}

#[test]
fn a_number_is_inert_when_no_predicate_of_its_field_asks_for_it() {
    let inert = |tests: &str, number: i64| {
        let rule = format!("title: T\nlogsource: {{}}\ndetection: {{s: {tests}, condition: s}}\n");
        Detector::new(&rules(&[rule])).is_inert("f", &json!(number), &mut Room::default())
    };
    assert!(inert("{f|gt: 5}", 5) && !inert("{f|gt: 5}", 6));
    assert!(inert("{f|contains: 7}", 5) && !inert("{f|contains: 7}", 171));
    assert!(!inert("{f|exists: true}", 5) && !inert("{f: null}", 5) && !inert("{g|fieldref: f}", 5));
    assert!(inert("{g: 5}", 5) && inert("['5']", 5));
    let spaced = Detector::new(&rules(&["title: T\nlogsource: {}\ndetection: {s: {xy|gte: 5}, condition: s}\n".to_owned()]));
    assert!(!spaced.is_inert("x y", &json!(5), &mut Room::default()), "`xy` is `x y`");
}

#[test]
fn generated_pairs_hold_often_enough_to_tell() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut held, mut pairs) = (0, 0);
    for _ in 0..10 {
        let texts = vec(rule(), 20).new_tree(&mut runner).unwrap().current();
        let set = rules(&texts);
        let (network, scan) = (Detector::new(&set), Scan::new(&set));
        for _ in 0..20 {
            let fields = fields().new_tree(&mut runner).unwrap().current();
            held += agree(&set, &network, &scan, &fields, &LogSource::default());
            pairs += set.rules.len();
        }
    }
    assert!(held * 20 > pairs && held * 20 < pairs * 19, "{held} of {pairs}");
}

/// SigmaHQ's rules and recorded events, and events as the benchmark makes them.
mod corpus {
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::process::Command;

    use opmas::model::{Inventory, Record, Time, Trust};
    use opmas::normalise::{Extractors, Normaliser, Options};
    use opmas::sigma::{Loaded, load};

    use super::*;

    fn here(path: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(path)
    }

    /// All rules of the archive.
    fn sigmahq() -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        assert!(Command::new("tar").arg("-xJf").arg(here("data/sigma-rules.tar.xz")).arg("-C").arg(dir.path()).status().unwrap().success());
        let mut files = Vec::new();
        let mut open = vec![dir.path().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|extension| extension == "yml") {
                    files.push(opmas::diag::SourceFile { name: path.to_string_lossy().into(), text: std::fs::read_to_string(&path).unwrap().into() });
                }
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        load(&files)
    }

    fn events(text: &str) -> Vec<opmas::model::Event> {
        let mut normaliser = Normaliser::new(Extractors::default().into(), Options::at(Time(0)));
        let record = |line: &str| Record {
            id: None,
            source: "s".into(),
            stream: "s".into(),
            arrival: None,
            peer: None,
            trust: Trust::Open,
            raw: line.as_bytes().to_vec(),
            payload: opmas::model::Payload::Log,
            subject: None,
        };
        (0..).zip(text.lines()).map(|(seq, line)| normaliser.normalise(seq, &record(line), &Inventory::default())).collect()
    }

    fn generated(lane: &str, count: usize) -> String {
        let dir = tempfile::tempdir().unwrap();
        let made = Command::new("python3").arg(here("bench/gen_events.py")).arg(dir.path()).args([lane, "--events", &count.to_string()]).status().unwrap();
        assert!(made.success());
        std::fs::read_to_string(dir.path().join(format!("{lane}.ndjson"))).unwrap()
    }

    #[test]
    fn sigmahq_rules_load_and_find_what_was_recorded_as_the_scan_does() {
        let loaded = sigmahq();
        let said: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
        assert!(said.len() == 2 && said.iter().all(|text| text.contains("nothing is known to put in the place of `%known_cdcs%`")), "{said:#?}");
        let set = loaded.set;
        assert!(set.rules.len() > 3_700, "{}", set.rules.len());
        let (network, scan) = (Detector::new(&set), Scan::new(&set));
        let recorded = events(&std::fs::read_to_string(here("data/sigma-regression.ndjson")).unwrap());
        let expected = std::fs::read_to_string(here("data/sigma-regression.expected.tsv")).unwrap();
        // A rule's recording also has the events around the one that it is for, and those it need not find.
        let (mut found, mut missed) = (BTreeSet::new(), BTreeSet::new());
        let mut lines = 0;
        for line in expected.lines() {
            let (number, id) = line.split_once('\t').unwrap();
            let held = network.matches(&recorded[number.parse::<usize>().unwrap()], LogsourceMode::Derived);
            let is_found = held.iter().any(|rule| set.rules[*rule].id.as_deref() == Some(id));
            lines += usize::from(is_found);
            if is_found {
                found.insert(id)
            } else {
                missed.insert(id)
            };
        }
        assert_eq!(missed.difference(&found).collect::<Vec<_>>(), Vec::<&&str>::new(), "rules that found nothing of theirs");
        assert_eq!(lines, 103, "of {}", expected.lines().count());
        let mut all = recorded;
        for lane in ["win_process", "win_mixed", "no_match"] {
            all.extend(events(&generated(lane, if cases() > 25 { 1_000 } else { 15 })));
        }
        for event in &all {
            assert_eq!(network.matches(event, LogsourceMode::Derived), scan.matches(event, LogsourceMode::Derived), "{}", event.raw);
        }
        for event in all.iter().take(40) {
            assert_eq!(network.matches(event, LogsourceMode::Any), scan.matches(event, LogsourceMode::Any), "{}", event.raw);
        }
    }
}
