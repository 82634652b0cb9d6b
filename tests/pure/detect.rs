//! See the room of this name in `src`: which rules hold for an event, by the Sigma specification, case by case.

mod network;
mod pipeline;

use opmas::detect::{Detector, LogsourceMode};
use opmas::diag::SourceFile;
use opmas::model::{Event, LogSource, RecordId, Time, Trust};
use opmas::sigma::{RuleSet, load};
use proptest::prelude::*;
use serde_json::{Value, json};

pub fn event(fields: Value) -> Event {
    let Value::Object(fields) = fields else { panic!("an event is an object") };
    Event {
        seq: 0,
        id: RecordId::File { file: "f".into(), offset: 0 },
        time: Time(0),
        time_from_arrival: false,
        source: "s".into(),
        stream: "s".into(),
        trust: Trust::Open,
        logsource: LogSource::default(),
        fields,
        raw: "".into(),
    }
}

/// Those of the rules that load, each from a file of its own.
fn rules(texts: &[String]) -> RuleSet {
    let files: Vec<SourceFile> = texts.iter().zip(0..).map(|(text, i)| SourceFile { name: format!("{i}.yml").into(), text: text.as_str().into() }).collect();
    load(&files).set
}

fn detector(text: &str) -> Detector {
    let loaded = load(&[SourceFile { name: "r.yml".into(), text: text.into() }]);
    assert_eq!(loaded.diagnostics, [], "{text}");
    Detector::new(&loaded.set)
}

/// Whether a rule with these searches and this condition holds for the event.
fn holds(searches: &str, condition: &str, fields: &Value) -> bool {
    let text = format!("title: t\nlogsource: {{}}\ndetection:\n{searches}\n  condition: {condition}\n");
    !detector(&text).matches(&event(fields.clone()), LogsourceMode::Any).is_empty()
}

/// Each line: an item of a search, an event, and whether the one holds for the other.
#[track_caller]
fn table(lines: &[(&str, Value, bool)]) {
    for (item, fields, expected) in lines {
        assert_eq!(holds(&format!("  s:\n    {item}"), "s", fields), *expected, "{item} on {fields}");
    }
}

#[test]
fn text_is_compared_without_regard_to_case() {
    table(&[
        ("f: Foo", json!({"f": "fOO"}), true),
        ("f: Foo", json!({"f": "foo "}), false),
        ("f: Foo", json!({"F": "foo"}), false),
        ("f|cased: Foo", json!({"f": "Foo"}), true),
        ("f|cased: Foo", json!({"f": "foo"}), false),
        ("f: GRÖSSE", json!({"f": "größe"}), false),
        ("f: GRÖßE", json!({"f": "größe"}), true),
        ("f: ΣΊΣΥΦΟΣ", json!({"f": "σίσυφος"}), true),
        ("f: Kelvin", json!({"f": "\u{212a}elvin"}), true),
        ("f: ı", json!({"f": "i"}), false),
        ("f|contains: 'Ä?ö'", json!({"f": "xäÜÖx"}), true),
        ("f: ''", json!({"f": ""}), true),
        ("f: ''", json!({"f": "x"}), false),
        ("f: ''", json!({}), false),
    ]);
}

#[test]
fn wildcards_also_cross_lines() {
    table(&[
        ("f: a*c", json!({"f": "a\nb\r\nc"}), true),
        ("f: a*c", json!({"f": "ac"}), true),
        ("f: a?c", json!({"f": "a\nc"}), true),
        ("f: a?c", json!({"f": "ac"}), false),
        ("f: 'a??'", json!({"f": "aäö"}), true),
        ("f: '*a*b*'", json!({"f": "xxaxxbxx"}), true),
        ("f: '*a*b*'", json!({"f": "xxbxxa"}), false),
        ("f: '*ab'", json!({"f": "aab"}), true),
        ("f: '*aab'", json!({"f": "aaab"}), true),
        ("f: '*'", json!({"f": ""}), true),
        ("f: '*'", json!({"f": null}), false),
        ("f: '*'", json!({}), false),
        (r"f: 'a\*c'", json!({"f": "a*c"}), true),
        (r"f: 'a\*c'", json!({"f": "abc"}), false),
        (r"f: 'C:\\*'", json!({"f": "c:\\x"}), true),
        (r"f|contains: '\\*'", json!({"f": "a\\b"}), true),
        ("f|contains: b", json!({"f": "a\nb\nc"}), true),
        ("f|startswith: a", json!({"f": "ab"}), true),
        ("f|startswith: b", json!({"f": "ab"}), false),
        ("f|endswith: B", json!({"f": "ab"}), true),
        ("f|endswith: a", json!({"f": "ab"}), false),
    ]);
}

#[test]
fn numbers_equal_their_text() {
    table(&[
        ("f: 5", json!({"f": 5}), true),
        ("f: 5", json!({"f": "5"}), true),
        ("f: 5", json!({"f": 5.0}), true),
        ("f: 5", json!({"f": "5.0"}), false),
        ("f: '5'", json!({"f": 5}), true),
        ("f: 18446744073709551615", json!({"f": u64::MAX}), true),
        ("f: 18446744073709551615", json!({"f": u64::MAX - 1}), false),
        ("f: 1.5", json!({"f": "1.5"}), true),
        ("f: '46*'", json!({"f": 4625}), true),
        ("f|startswith: 46", json!({"f": 4625}), true),
        ("f: true", json!({"f": true}), true),
        ("f: true", json!({"f": "True"}), true),
        ("f: 'TRUE'", json!({"f": true}), true),
        ("f: true", json!({"f": 1}), false),
        ("f|re: '^46'", json!({"f": 4625}), true),
    ]);
}

#[test]
fn numbers_are_compared() {
    table(&[
        ("f|gt: 5", json!({"f": 6}), true),
        ("f|gt: 5", json!({"f": 5}), false),
        ("f|gte: 5", json!({"f": "5"}), true),
        ("f|lt: -0.5", json!({"f": -1}), true),
        ("f|lte: 5", json!({"f": 5.01}), false),
        ("f|gt: 5", json!({"f": "many"}), false),
        ("f|gt: 5", json!({"f": "inf"}), false),
        ("f|lt: 5", json!({"f": "NaN"}), false),
        ("f|lt: 5", json!({}), false),
        ("f|gt: 5", json!({"f": [1, 9]}), true),
        ("f|neq: 5", json!({"f": 5}), false),
        ("f|neq: 5", json!({"f": 6}), true),
        ("f|neq: [a, b]", json!({"f": "B"}), false),
        ("f|neq: [a, b]", json!({"f": "c"}), true),
        ("f|neq: a", json!({}), true),
    ]);
}

#[test]
fn presence_and_null() {
    table(&[
        ("f|exists: true", json!({"f": null}), true),
        ("f|exists: true", json!({"f": []}), true),
        ("f|exists: true", json!({"f": ""}), true),
        ("f|exists: true", json!({}), false),
        ("f|exists: false", json!({}), true),
        ("f|exists: false", json!({"f": null}), false),
        ("a.b|exists: true", json!({"a": {"b": {}}}), true),
        ("a.b|exists: true", json!({"a": {"c": 1}}), false),
        ("f: null", json!({"f": null}), true),
        ("f: null", json!({}), true),
        ("f: null", json!({"f": ""}), false),
        ("f: null", json!({"f": [1, null]}), true),
        ("f: null", json!({"f": []}), false),
        ("f: [null, a]", json!({"f": "a"}), true),
        ("a.b: null", json!({"a": {}}), true),
    ]);
}

#[test]
fn names_are_literal_first_and_then_paths() {
    table(&[
        ("a.b: x", json!({"a": {"b": "x"}}), true),
        ("a.b: x", json!({"a.b": "x"}), true),
        ("a.b: x", json!({"a.b": "y", "a": {"b": "x"}}), false),
        ("a.b.c: x", json!({"a.b": {"c": "x"}}), true),
        ("a.b.c: x", json!({"a": {"b.c": "x"}}), true),
        ("a.b.c: x", json!({"a": {"b": {"c": "x"}}}), true),
        ("a.b: x", json!({"a": [{"b": "y"}, {"b": "x"}]}), true),
        ("a.b: x", json!({"a": "x"}), false),
        ("a.b: x", json!({"a": {"b": {"c": "x"}}}), false),
        // Spaces in a log's names are left away in rules.
        ("ThreatName: x", json!({"Threat Name": "x"}), true),
        ("a.ThreatName: x", json!({"a": {"Threat Name": "x"}}), true),
        ("ThreatName: x", json!({"Threat Name": "x", "ThreatName": "y"}), false),
        ("'Threat Name': x", json!({"Threat Name": "x"}), true),
    ]);
}

#[test]
fn a_list_matches_if_any_member_does() {
    table(&[
        ("f: x", json!({"f": ["a", "X"]}), true),
        ("f: x", json!({"f": [["a"], ["x"]]}), true),
        ("f: x", json!({"f": [{"f": "x"}]}), false),
        ("f: x", json!({"f": []}), false),
        ("f: 5", json!({"f": ["4", "5"]}), true),
        ("f: [x, y]", json!({"f": "y"}), true),
        // `all` may be met by different members.
        ("f|contains|all: [x, y]", json!({"f": ["ax", "by"]}), true),
        ("f|contains|all: [x, y]", json!({"f": "yx"}), true),
        ("f|contains|all: [x, y]", json!({"f": ["ax", "bx"]}), false),
    ]);
    // NOT negates the whole: one member that fits is enough against it.
    assert!(!holds("  s: {f: x}", "not s", &json!({"f": ["a", "x"]})));
    assert!(holds("  s: {f: x}", "not s", &json!({"f": ["a", "b"]})));
    assert!(holds("  s: {f: x}", "not s", &json!({})));
}

#[test]
fn regular_expressions() {
    table(&[
        ("f|re: 'b+'", json!({"f": "abbc"}), true),
        ("f|re: 'B+'", json!({"f": "abbc"}), false),
        ("f|re|i: 'B+'", json!({"f": "abbc"}), true),
        ("f|re: '^b$'", json!({"f": "a\nb"}), false),
        ("f|re|m: '^b$'", json!({"f": "a\nb"}), true),
        ("f|re: 'a.b'", json!({"f": "a\nb"}), false),
        ("f|re|s: 'a.b'", json!({"f": "a\nb"}), true),
        ("f|re|i|s: 'A.B'", json!({"f": "a\nb"}), true),
        ("f|re: ['x', 'b']", json!({"f": "b"}), true),
        ("f|re|all: ['x', 'b']", json!({"f": "b"}), false),
        (r"f|re: 'a\\b'", json!({"f": "a\\b"}), true),
        ("f|re|ignorecase|dotall: 'A.B'", json!({"f": "a\nb"}), true),
        ("f|re|contains: 'b'", json!({"f": "abc"}), true),
        ("f|re|startswith: 'b|c'", json!({"f": "abc"}), false),
        ("f|re|startswith: 'a|c'", json!({"f": "abc"}), true),
        ("f|endswith|re: 'a|c'", json!({"f": "abc"}), true),
        ("f|re|endswith|m: 'b'", json!({"f": "b\nc"}), false),
    ]);
}

#[test]
fn networks() {
    table(&[
        ("ip|cidr: 10.0.0.0/8", json!({"ip": "10.1.2.3"}), true),
        ("ip|cidr: 10.0.0.0/8", json!({"ip": "11.1.2.3"}), false),
        ("ip|cidr: 10.0.0.0/8", json!({"ip": "::ffff:10.1.2.3"}), true),
        ("ip|cidr: 10.0.0.0/8", json!({"ip": "10.1.2"}), false),
        ("ip|cidr: 10.0.0.0/8", json!({"ip": "10.1.2.3:22"}), false),
        ("ip|cidr: fe80::/10", json!({"ip": "fe80::1%eth0"}), true),
        ("ip|cidr: [10.0.0.0/8, 192.168.0.0/16]", json!({"ip": ["1.1.1.1", "192.168.9.1"]}), true),
        ("ip|cidr: 192.168.1.1", json!({"ip": "192.168.1.1"}), true),
    ]);
}

#[test]
fn other_fields() {
    table(&[
        ("a|fieldref: b", json!({"a": "X", "b": "x"}), true),
        ("a|fieldref|cased: b", json!({"a": "X", "b": "x"}), false),
        ("a|fieldref: b", json!({"a": 5, "b": "5"}), true),
        ("a|fieldref: b", json!({"a": "x"}), false),
        ("a|fieldref: b", json!({"a": null, "b": null}), false),
        ("a|fieldref: b.c", json!({"a": ["x", "y"], "b": {"c": ["z", "y"]}}), true),
        ("a|fieldref|neq: b", json!({"a": "x", "b": "y"}), true),
        ("a|fieldref|neq: b", json!({"a": "x", "b": "x"}), false),
        ("a|fieldref|contains: b", json!({"a": "xBx", "b": "b"}), true),
        ("a|fieldref|startswith: b", json!({"a": "xBx", "b": "b"}), false),
        ("a|fieldref|startswith: b", json!({"a": "bx", "b": ["c", "b"]}), true),
        ("a|fieldref|endswith: b", json!({"a": "xb*", "b": "b*"}), true),
        ("a|fieldref|endswith|cased: b", json!({"a": "xB", "b": "b"}), false),
        ("a|fieldref|contains: b", json!({"a": 4625, "b": 62}), true),
    ]);
}

#[test]
fn encoded_values() {
    table(&[
        ("f|windash|contains: ' -enc'", json!({"f": "cmd /ENC x"}), true),
        ("f|windash|contains: ' -enc'", json!({"f": "cmd —enc x"}), true),
        ("f|windash|contains: ' -enc'", json!({"f": "cmd +enc x"}), false),
        ("f|base64offset|contains: /bin/bash", json!({"f": "echo eC9iaW4vYmFzaCAtaQ=="}), true),
        ("f|base64offset|contains: /bin/bash", json!({"f": "echo aGVsbG8="}), false),
        ("f|wide|base64offset|contains: cmd", json!({"f": "YwBtAGQA"}), true),
        ("f|base64|base64|contains: foobar", json!({"f": "xWm05dlltRnk="}), true),
        ("f|contains|wide: cmd", json!({"f": "xc\u{0}m\u{0}d\u{0}"}), true),
        ("f|base64offset|contains|all: [foo, bar]", json!({"f": "Zm9v"}), false),
    ]);
}

#[test]
fn keywords_look_through_all_texts() {
    let event = json!({"a": "Evil Service", "b": {"c": ["x", {"d": "deep"}]}, "n": 42});
    for (searches, expected) in [
        ("  s: [evil]", true),
        ("  s: evil", true),
        ("  s: [nothing, deep]", true),
        ("  s: ['ev*ce']", true),
        ("  s: ['evil?service']", true),
        ("  s: [evilservice]", false),
        ("  s: [42]", false),
        ("  s: {'|all': [evil, deep]}", true),
        ("  s: {'|all': [evil, nothing]}", false),
        ("  s: {'|cased': [evil]}", false),
        ("  s: {'|re': ['^de+p$']}", true),
        ("  s: {'|startswith': [service]}", false),
        // The name of a field is no text of the event.
        ("  s: [d]\n  t: {b: [zzz]}", true),
        ("  s: [zzz, {a: '*service'}]", true),
        ("  s: [zzz, {a: x}, {n: 42}]", true),
        ("  s: [zzz, {a: x}, {n: 43}]", false),
    ] {
        assert_eq!(holds(searches, "s", &event), expected, "{searches}");
    }
}

#[test]
fn maps_are_joined_by_and_and_lists_of_maps_by_or() {
    let map = "  s:\n    a: 1\n    b: [2, 3]";
    assert!(holds(map, "s", &json!({"a": 1, "b": 3})));
    assert!(!holds(map, "s", &json!({"a": 1, "b": 4})));
    let list = "  s:\n    - a: 1\n      b: 2\n    - c: 3";
    assert!(holds(list, "s", &json!({"c": 3})));
    assert!(!holds(list, "s", &json!({"a": 1})));
    let two = "  sel_a: {a: 1}\n  sel_b: {b: 2}\n  filter: {c: 3}";
    for (condition, fields, expected) in [
        ("1 of sel_*", json!({"a": 1}), true),
        ("all of sel_*", json!({"a": 1}), false),
        ("all of sel_* and not filter", json!({"a": 1, "b": 2}), true),
        ("all of sel_* and not filter", json!({"a": 1, "b": 2, "c": 3}), false),
        ("sel_a or sel_b and filter", json!({"a": 1}), true),
        ("(sel_a or sel_b) and filter", json!({"a": 1}), false),
        ("NOT (sel_a AND sel_b)", json!({"a": 1}), true),
    ] {
        assert_eq!(holds(two, condition, &fields), expected, "{condition} on {fields}");
    }
}

#[test]
fn c11_a_filter_keeps_its_rules_from_holding() {
    let rules =
        "title: a\nname: a\nlogsource: {}\ndetection: {s: {a: 1}, condition: s}\n---\ntitle: b\nname: b\nlogsource: {}\ndetection: {s: {a: 1}, condition: s}\n";
    let filter = "---\ntitle: f\nlogsource: {}\nfilter: {rules: [b], s: {user: adm}, condition: not s}\n";
    let detector = detector(&(rules.to_owned() + filter));
    assert_eq!(detector.matches(&event(json!({"a": 1, "user": "adm"})), LogsourceMode::Any), [0]);
    assert_eq!(detector.matches(&event(json!({"a": 1, "user": "eve"})), LogsourceMode::Any), [0, 1]);
}

#[test]
fn c11_a_filter_for_any_rule_is_for_those_of_its_log_source() {
    let rule = |source: &str| format!("title: t\nlogsource: {source}\ndetection: {{s: {{a: 1}}, condition: s}}\n---\n");
    let filter = "title: f\nlogsource: {product: Windows}\nfilter: {rules: any, s: {user: adm}, condition: not s}\n";
    let text = [&rule("{product: windows, category: x}"), &rule("{category: x}"), &rule("{product: linux}"), filter].concat();
    let detector = detector(&text);
    assert_eq!(detector.matches(&event(json!({"a": 1, "user": "adm"})), LogsourceMode::Any), [1, 2]);
    assert_eq!(detector.matches(&event(json!({"a": 1, "user": "eve"})), LogsourceMode::Any), [0, 1, 2]);
}

#[test]
fn x3_a_rule_is_skipped_when_a_known_log_source_differs() {
    let rule = |source: &str| format!("title: t\nlogsource: {source}\ndetection: {{s: {{a: 1}}, condition: s}}\n");
    let text = [rule("{product: openwrt, service: dropbear}"), rule("{}"), rule("{product: windows}"), rule("{product: openwrt}")].join("---\n");
    let detector = detector(&text);
    let known = LogSource { product: Some("OpenWrt".into()), category: None, service: None };
    let plain = event(json!({"a": 1}));
    let own = event(json!({"a": 1, "product": "windows"}));
    let derived = Event { logsource: known.clone(), ..plain.clone() };
    let both = Event { logsource: known, ..own.clone() };
    let service = event(json!({"a": 1, "service": "sshd"}));
    use LogsourceMode::{Any, Derived, Event as Own};
    for (event, mode, expected) in [
        (&plain, Derived, &[0, 1, 2, 3][..]),
        (&own, Derived, &[1, 2]),
        (&own, Own, &[1, 2]),
        (&own, Any, &[0, 1, 2, 3]),
        (&derived, Derived, &[0, 1, 3]),
        (&derived, Own, &[0, 1, 2, 3]),
        (&both, Derived, &[0, 1, 3]),
        (&both, Own, &[1, 2]),
        (&service, Derived, &[1, 2, 3]),
    ] {
        assert_eq!(detector.matches(event, mode), expected, "{mode:?} {:?}", event.fields);
    }
}

#[test]
fn x3_registry_event_is_every_event_of_the_registry() {
    let rule = |source: &str| format!("title: t\nlogsource: {source}\ndetection: {{s: {{a: 1}}, condition: s}}\n");
    let detector = detector(
        &[rule("{category: registry_event}"), rule("{category: registry_set}"), rule("{category: registry_add}"), rule("{category: file_event}")].join("---\n"),
    );
    let matches = |category: &str| detector.matches(&event(json!({"a": 1, "category": category})), LogsourceMode::Derived);
    assert_eq!(matches("registry_set"), [0, 1]);
    assert_eq!(matches("registry_event"), [0, 1, 2]);
    assert_eq!(matches("file_event"), [3]);
}

#[test]
fn the_shipped_rules_hold_for_the_lines_that_they_are_for() {
    let detector = detector(include_str!("../../rules/openwrt/ssh.yml"));
    let dropbear = LogSource { product: Some("openwrt".into()), category: None, service: Some("dropbear".into()) };
    let line = |action: &str| Event { logsource: dropbear.clone(), ..event(json!({"action": action, "src_ip": "203.0.113.9"})) };
    assert_eq!(detector.matches(&line("login_failed"), LogsourceMode::Derived), [0]);
    assert_eq!(detector.matches(&line("login_ok"), LogsourceMode::Derived), [1]);
    assert_eq!(detector.matches(&line("connection_open"), LogsourceMode::Derived), [0; 0]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-cA-C*. ]{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[ab](\\.[ab]){0,2}| ", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Text patterns agree with the `regex` crate, whose case folding is Unicode's simple one.
    #[test]
    fn patterns_agree_with_regular_expressions(pattern in "[a-bA-BσςΣſS*?]{0,8}", text in "[a-bA-BσςΣſs\n]{0,10}") {
        let source = pattern.chars().map(|c| match c { '*' => ".*".to_owned(), '?' => ".".to_owned(), c => c.to_string() }).collect::<String>();
        let expected = regex::Regex::new(&format!("(?is)^(?:{source})$")).unwrap().is_match(&text);
        prop_assert_eq!(holds(&format!("  s: {{f: '{pattern}'}}"), "s", &json!({"f": text})), expected);
    }

    /// Any event is either met by a search or by its negation, and no event panics.
    #[test]
    fn an_event_meets_a_search_or_its_negation(fields in proptest::collection::btree_map("[ab](\\.[ab]){0,2}", any_json(), 0..4), item in proptest::sample::select(&["a: 1", "a.b: 'a*'", "a.b.a: null", "b|exists: true", "a|gt: 0", "a|re: 'a'", "a|fieldref: b", "a|cidr: ::/0", "'|all': [a, b]"][..])) {
        let fields = Value::Object(fields.into_iter().collect());
        let search = format!("  s:\n    {item}");
        prop_assert_ne!(holds(&search, "s", &fields), holds(&search, "not s", &fields));
    }
}

#[test]
fn parts_of_a_time_are_compared_in_utc() {
    table(&[
        ("t|hour: 23", json!({"t": "2026-11-22T01:08:05+02:00"}), true),
        ("t|hour|gte: 18", json!({"t": "2026-11-21T17:59:59Z"}), false),
        ("t|hour|gte: 18", json!({"t": "2026-11-21 18:00:00"}), true),
        ("t|minute: [7, 8]", json!({"t": "2026-11-21T13:08:05Z"}), true),
        ("t|day: 21", json!({"t": 1_795_266_485}), true),
        ("t|week: 1", json!({"t": "2026-12-31T00:00:00Z"}), false),
        ("t|week: 53", json!({"t": "2026-12-31T00:00:00Z"}), true),
        ("t|month|lt: 11", json!({"t": "2026-11-21T13:08:05Z"}), false),
        ("t|year: 2026", json!({"t": ["soon", "2026-11-21T13:08:05Z"]}), true),
        ("t|year|neq: 2026", json!({"t": "2025-11-21T13:08:05Z"}), true),
        ("t|hour: 5", json!({"t": "Nov 21 05:00:00"}), false),
        ("t|hour: 5", json!({"t": null}), false),
        ("t|hour: 5", json!({}), false),
    ]);
}

#[test]
fn a_value_without_placeholders_may_be_expanded() {
    table(&[("f|expand: 100%", json!({"f": "100%"}), true), ("f|contains|expand: '%%'", json!({"f": "a%%b"}), true)]);
}

#[test]
fn explaining_says_which_part_held_and_with_which_values() {
    let text = "title: t\nlogsource: {product: windows}\ndetection:\n  s:\n    f|contains: [oo, x]\n    g: 5\n    h|exists: true\n  n:\n    f|endswith|cased: O\n  words: [a, 'b*c']\n  condition: s and not n\n";
    let loaded = load(&[SourceFile { name: "r.yml".into(), text: text.into() }]);
    let opmas::sigma::Body::Detection(detection) = &loaded.set.rules[0].body else { panic!("a detection") };
    let said = opmas::detect::explain(detection, &event(json!({"f": ["foo", "bar"], "g": 6, "product": "linux"})), LogsourceMode::Derived);
    let expected = "- the rule does not hold
  - logsource product windows: the event is of another
  - s
    + f is [\"foo\",\"bar\"]; asked:
      + \"*oo*\"
      - \"*x*\"
    - g is 6; asked:
      - 5
    - h is absent; asked:
      - exists
  - n
    - f is [\"foo\",\"bar\"]; asked:
      - \"*O\", case counts
  + words
    + any text; asked:
      + \"*a*\"
      - \"*b*c*\"
";
    assert_eq!(said, expected);
    let held = opmas::detect::explain(detection, &event(json!({"f": "foo", "g": 5, "h": null})), LogsourceMode::Derived);
    assert!(held.starts_with("+ the rule holds\n  + logsource product windows\n  + s\n"), "{held}");
}

/// What an attacker writes into a log, or a careless author into a rule, costs a bounded amount.
#[test]
fn hostile_events_and_patterns_cost_a_bounded_amount() {
    let long = |text: &str, count: usize| text.repeat(count);
    let big = json!({"f": long("a-", 8 << 20), "g": [long("ab", 1 << 20), "NaN", "inf", "-1e999", "1e308"], "h": u64::MAX});
    table(&[
        // Exponential where engines go back.
        ("f|re: '(a|aa)+$'", json!({"f": format!("{}b", long("a", 1 << 20))}), false),
        ("f|re: '(x+x+)+y'", json!({"f": long("x", 1 << 20)}), false),
        ("f|contains: '*a*b*c*d*e'", json!({"f": long("abcd", 1 << 18)}), false),
        ("f|contains: '-a-b'", big.clone(), false),
        ("f|contains|windash: '/a'", big.clone(), true),
        ("g|gt: 1e307", big.clone(), true),
        ("g|lt: -1e308", big.clone(), false),
        ("h|gte: 18446744073709551615", big.clone(), true),
        ("h: 18446744073709551615", big.clone(), true),
        ("h: 18446744073709551614", big, false),
    ]);
    let mut deep = json!("needle");
    for level in 0..120 {
        deep = if level % 2 == 0 { json!([deep]) } else { json!({"a": deep}) };
    }
    table(&[("f|contains: needle", json!({"f": [[["a needle"]]]}), true), ("f|contains: needle", json!({"f": deep}), false)]);
    assert!(holds("  words: [need*le]", "words", &json!({"f": deep})));
}
