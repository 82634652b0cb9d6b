//! See the room of this name in `src`: what loads, what is refused with which words, how rules refer to each other.

use std::fmt::Write as _;

use opmas::diag::SourceFile;
use opmas::model::Severity;
use opmas::sigma::{Body, Comparison, Condition, CorrelationType, Loaded, Piece, Refire, Search, Test, load};
use proptest::prelude::*;

const SHIPPED: &str = include_str!("../../rules/openwrt/ssh.yml");

fn files(texts: &[(&str, &str)]) -> Vec<SourceFile> {
    texts.iter().map(|(name, text)| SourceFile { name: (*name).into(), text: (*text).into() }).collect()
}

fn loaded(text: &str) -> Loaded {
    load(&files(&[("r.yml", text)]))
}

fn said(loaded: &Loaded) -> Vec<String> {
    loaded.diagnostics.iter().map(ToString::to_string).collect()
}

/// A detection whose section is given, indented by two; its first line is line 4.
fn detection(section: &str) -> String {
    format!("title: t\nlogsource: {{product: openwrt}}\ndetection:\n{section}\n")
}

/// A detection with one search, whose item is given, on line 5.
fn item(item: &str) -> String {
    detection(&format!("  s:\n    {item}\n  condition: s"))
}

fn rule(name: &str) -> String {
    format!("title: {name}\nname: {name}\nlogsource: {{}}\ndetection: {{s: {{a: 1}}, condition: s}}\n")
}

fn count(name: &str, of: &str, more: &str) -> String {
    format!("title: {name}\nname: {name}\ncorrelation:\n  type: event_count\n  rules: [{of}]\n  timespan: 1m\n  condition: {{gte: 2}}\n{more}")
}

fn names(loaded: &Loaded) -> Vec<&str> {
    loaded.set.rules.iter().map(|rule| &**rule.name.as_ref().unwrap()).collect()
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let loaded = loaded(text);
    assert_eq!(said(&loaded), expected, "{text}");
    assert!(loaded.set.rules.is_empty(), "a file with a mistake is refused whole");
}

#[test]
fn the_shipped_rules_load() {
    let loaded = loaded(SHIPPED);
    assert_eq!(said(&loaded), [""; 0]);
    let set = &loaded.set;
    assert_eq!(names(&loaded), ["openwrt_ssh_login_failed", "openwrt_ssh_login", "openwrt_ssh_bruteforce", "openwrt_ssh_login_after_failures"]);
    assert_eq!(set.order(), [2, 3]);
    assert_eq!((set.inputs(0), set.inputs(2), set.inputs(3)), (&[][..], &[0][..], &[2, 1][..]));
    let levels: Vec<Severity> = set.rules.iter().map(|rule| rule.level.unwrap()).collect();
    assert_eq!(levels, [Severity::Low, Severity::Info, Severity::Medium, Severity::Critical]);
    let Body::Correlation(guessing) = &set.rules[2].body else { panic!() };
    assert_eq!((guessing.kind, guessing.timespan.to_string().as_str()), (CorrelationType::EventCount, "10m"));
    assert_eq!(guessing.condition, [(Comparison::Gte, 6.0)]);
    assert_eq!(guessing.group_by, ["src_ip".into()]);
    let Body::Correlation(after) = &set.rules[3].body else { panic!() };
    assert_eq!((after.kind, after.condition.len()), (CorrelationType::TemporalOrdered, 0));
    assert_eq!(&*set.rules[3].opmas.entities["source"], "src_ip");
    assert!(set.rules[3].opmas.remediation.is_some());
}

#[test]
fn everything_of_our_attributes_is_read() {
    let more = "opmas: {refire: every, cooldown: 10m, min_events: 5, lateness: 1m, entities: {source: ip}, remediation: do it}\n";
    let loaded = loaded(&format!("{}---\n{}", rule("a"), count("c", "a", more)));
    assert_eq!(said(&loaded), [""; 0]);
    let opmas = &loaded.set.rules[1].opmas;
    assert_eq!((opmas.refire, opmas.min_events), (Some(Refire::Every), Some(5)));
    assert_eq!((opmas.cooldown.unwrap().to_string().as_str(), opmas.lateness.unwrap().to_string().as_str()), ("10m", "1m"));
    assert_eq!(opmas.remediation.as_deref(), Some("do it"));
}

#[test]
fn yaml_that_is_none_is_refused_with_its_place() {
    refused("title: t\ntitle: u\n", &["r.yml:2:1: the key `title` stands twice in this map; keep one of them, or write their values as one list"]);
    refused("? [a]\n: b\n", &["r.yml:1:3: a key must be text, not a list or a map; write the key as text"]);
    refused("a: !x b\n", &["r.yml:1:4: the tag `!x` has no meaning here; leave the tag away"]);
    refused("- a\n", &["r.yml:1:1: a rule must be a map, but this document is a list; begin with `title: …`"]);
    refused("a: &x [*x]\n", &["r.yml:1:8: this alias stands inside the node that it refers to; write the value out"]);
    let broken = said(&loaded("title: 'a\n"));
    assert!(broken.len() == 1 && broken[0].starts_with("r.yml:") && broken[0].contains(": not YAML: "), "{broken:?}");
}

#[test]
fn the_sections_of_a_document() {
    refused("title: t\nlevel: low\n", &["r.yml:1:1: this document has no `detection`, `correlation` or `filter`; add one of them"]);
    refused("title: t\ndetections: {}\n", &["r.yml:2:1: unknown section `detections`; did you mean `detection`?"]);
    refused("title: t\ndetection: {}\nfilter: {}\n", &["r.yml:3:1: a document cannot have both `detection` and `filter`; split it with a line `---`"]);
    refused("action: global\ntitle: t\n", &["r.yml:1:1: `action` documents are not read by this version; write the shared part into each rule"]);
    refused(
        "detection: {s: {a: 1}, condition: s}\n",
        &["r.yml:1:1: this document has no `title`; add one", "r.yml:1:1: this document has no `logsource`; add one with `product`, `category` or `service`"],
    );
    let level = format!("level: hihg\n{}", rule("a"));
    refused(&level, &["r.yml:1:8: unknown level `hihg`; did you mean `high`?"]);
    refused(&format!("generate: maybe\n{}", rule("a")), &["r.yml:1:11: `generate` must be true or false; write `true` or `false` without quotes"]);
    refused("title: [a]\nlogsource: {}\ndetection: {s: {a: 1}, condition: s}\n", &["r.yml:1:8: `title` must be text, but is a list; write one value"]);
}

#[test]
fn top_level_and_logsource_are_open() {
    let text = "title: t\nauthor: me\nx_own: {a: [1]}\nlogsource: {product: p, definition: d, own: 1}\ndetection: {s: {a: 1}, condition: s}\n";
    assert_eq!(said(&loaded(text)), [""; 0]);
    assert_eq!(said(&loaded("---\n---\n# nothing\n")), [""; 0]);
    assert_eq!(said(&loaded("")), [""; 0]);
}

#[test]
fn modifiers_are_a_closed_set() {
    let table = [
        ("f|containz: a", "5:7: unknown modifier `containz`; did you mean `contains`?"),
        ("f|contains|startswith: a", "5:16: the modifier `startswith` cannot be combined with `contains`; use two searches joined by the condition"),
        ("f|contains|contains: a", "5:16: the modifier `contains` stands twice; keep one of them"),
        ("f|i: a", "5:7: the modifier `i` is a flag of `re`; write it behind `re`"),
        ("f|re|contains: a", "5:10: the modifier `contains` cannot be combined with `re`; use two searches joined by the condition"),
        ("f|contains|base64: a", "5:16: the modifier `base64` changes the value and must stand before `contains`; swap them"),
        ("f|expand: '%a%'", "5:7: the modifier `expand` is not evaluated by this version; write the values out"),
        ("f|exists|all: true", "5:14: the modifier `all` cannot be combined with `exists`; use two searches joined by the condition"),
        ("f|exists: yes please", "5:15: the value of `exists` must be true or false; write `true` or `false` without quotes"),
        ("f|gte: many", "5:12: the value to compare with: `many` is not a number; write a whole number or a decimal such as `0.5`"),
        ("f|cidr: 10.0.0.0/99", "5:13: `10.0.0.0/99` is not a network; write one such as `192.168.0.0/16` or `fd00::/8`"),
        ("f|contains: null", "5:17: null cannot be modified; write a value, or `''` for empty text"),
        ("f: {a: b}", "5:8: a value cannot be a map; write text, a number, true, false or null"),
        ("f: []", "5:8: `f` has no values; list at least one"),
        ("f|base64: 'a*'", "5:15: a value with wildcards cannot be encoded in base64; escape them as `\\*` and `\\?`, or split the value"),
        ("f|utf16: abc", "5:14: encoded like this the value is no text; encode it in base64 after this"),
        ("f|windash|base64: '-----'", "5:23: the value has more than 1000 writings; use fewer dashes, or leave `windash` away"),
        ("f|base64offset: a", "5:21: the value is too short to be recognised inside base64; use three characters or more"),
        (
            "f|re: '(?=a)'",
            "5:11: not a regular expression: look-around, including look-ahead and look-behind, is not supported; escape the character, or write it without look-around and back-references",
        ),
        ("f|re: '(a{1000}){1000}'", "5:11: this regular expression needs more than 4096 KiB; use smaller repetitions"),
        ("'|exists': true", "5:16: `exists` needs a field; write the field in front of it"),
        ("'|fieldref': a", "5:18: `fieldref` needs a field; write the field in front of it"),
    ];
    for (written, expected) in table {
        refused(&item(written), &[&format!("r.yml:{expected}")]);
    }
}

#[test]
fn searches_and_their_names() {
    let table = [
        ("  s: {a: 1}", "4:3: there is no `condition`; add one, such as `condition: selection`"),
        ("  s: {a: 1}\n  conditions: {a: 1}", "4:3: there is no `condition`; did you mean `condition` by `conditions`?"),
        ("  s: {a: 1}\n  condition:", "5:12: the condition is empty; write one, such as `condition: selection`"),
        ("  s:\n  condition: s", "4:4: this search is empty; write fields with values, or a list of keywords"),
        ("  s: []\n  condition: s", "4:6: this search is an empty list; list keywords or maps in it"),
        ("  s: {}\n  condition: s", "4:6: this search is an empty map; write fields with values in it"),
        ("  s: [[a]]\n  condition: s", "4:7: a list inside a list of a search; write its members into the outer list"),
        ("  s: {a: 1, '|all': [b]}\n  condition: s", "4:6: keywords and fields stand in one map; give the keywords a search of their own"),
        ("  not: {a: 1}\n  condition: not", "4:3: a search cannot be called `not`, a word of the condition; rename it"),
        (
            "  s: {a: 1}\n  timeframe: 5m\n  condition: s",
            "5:3: `timeframe` belonged to aggregations, which Sigma has given up; write a correlation document with `timespan`",
        ),
        ("  s: [null]\n  condition: s", "4:7: a keyword cannot be null; write a value, or `''` for empty text"),
    ];
    for (written, expected) in table {
        refused(&detection(written), &[&format!("r.yml:{expected}")]);
    }
}

#[test]
fn conditions_are_refused_at_the_word() {
    let table = [
        ("selectoin", "14: there is no search `selectoin`; did you mean `selection`?"),
        ("selection and", "27: the condition ends where a search should stand; name a search"),
        ("selection other", "24: expected `and` or `or` before `other`; join searches with `and` or `or`"),
        ("(selection", "14: this parenthesis is not closed; add `)`"),
        ("selection)", "23: this parenthesis closes nothing; remove it, or open it before"),
        ("selection | count() > 5", "24: `|` begins an aggregation, which Sigma has given up; write a correlation document instead"),
        ("2 of them", "14: `2 of` counts nothing; write `1 of` or `all of`"),
        ("1 of", "18: the condition ends after `of`; write `them` or a pattern such as `selection*`"),
        ("1 of x*", "19: no search matches `x*`; there are: selection, other"),
        ("selection and or", "28: expected a search, but found `or`; name a search"),
    ];
    for (written, expected) in table {
        let text = detection(&format!("  selection: {{a: 1}}\n  other: {{b: 2}}\n  condition: {written}"));
        refused(&text, &[&format!("r.yml:6:{expected}")]);
    }
    let deep = format!("{}selection{}", "(".repeat(65), ")".repeat(65));
    refused(&detection(&format!("  selection: {{a: 1}}\n  condition: {deep}")), &["r.yml:5:78: nested deeper than 64 levels; nest less"]);
    let many = "1 of them or ".repeat(6_000) + "selection";
    let loaded = loaded(&detection(&format!("  selection: {{a: 1}}\n  other: {{a: 1}}\n  condition: {many}")));
    assert!(said(&loaded)[0].ends_with("the condition refers to searches more than 10000 times; simplify it"));
}

fn condition(written: &str) -> Condition {
    let text = detection(&format!("  sel_a: {{a: 1}}\n  sel_b: {{a: 2}}\n  filter: {{a: 3}}\n  _own: {{a: 4}}\n  condition: {written}"));
    let loaded = loaded(&text);
    assert_eq!(said(&loaded), [""; 0], "{written}");
    let Body::Detection(detection) = &loaded.set.rules[0].body else { panic!() };
    detection.condition.clone()
}

#[test]
fn conditions_bind_as_the_specification_says() {
    use Condition::{And, Not, Or, Search as S};
    let not = |inner| Not(Box::new(inner));
    assert_eq!(condition("sel_a or sel_b and not filter"), Or(vec![S(0), And(vec![S(1), not(S(2))])]));
    assert_eq!(condition("(sel_a OR sel_b) AND NOT filter"), And(vec![Or(vec![S(0), S(1)]), not(S(2))]));
    assert_eq!(condition("not not sel_a"), not(not(S(0))));
    assert_eq!(condition("1 of sel_*"), Or(vec![S(0), S(1)]));
    assert_eq!(condition("All Of sel_* and not 1 of filter*"), And(vec![And(vec![S(0), S(1)]), not(S(2))]));
    // Names that begin with an underscore are not meant by `them`.
    assert_eq!(condition("1 of them"), Or(vec![S(0), S(1), S(2)]));
    assert_eq!(condition("all of *"), And(vec![S(0), S(1), S(2)]));
    assert_eq!(condition("1 of _*"), S(3));
    assert_eq!(condition("1 of *_*"), Or(vec![S(0), S(1)]));
    assert_eq!(condition("1 of s*_b"), S(1));
    assert_eq!(condition("\n    - sel_a\n    - sel_b"), Or(vec![S(0), S(1)]));
    assert_eq!(condition("|\n    sel_a\n    and sel_b"), And(vec![S(0), S(1)]));
}

fn test(written: &str) -> Test {
    let loaded = loaded(&item(written));
    assert_eq!(said(&loaded), [""; 0], "{written}");
    let Body::Detection(detection) = &loaded.set.rules[0].body else { panic!() };
    match &detection.searches[0].1 {
        Search::All(items) => items[0].tests[0].clone(),
        Search::Keywords(item) => item.tests[0].clone(),
        Search::Any(_) => panic!(),
    }
}

fn text(pieces: &[Piece]) -> Test {
    Test::Text { pattern: pieces.to_vec(), cased: false }
}

fn literal(text: &str) -> Piece {
    Piece::Literal(text.to_owned())
}

#[test]
fn escapes_are_those_of_the_specification() {
    let table: &[(&str, &[Piece])] = &[
        (r"a\b", &[literal(r"a\b")]),
        (r"a\\b", &[literal(r"a\b")]),
        (r"a\*b", &[literal("a*b")]),
        (r"a\?b", &[literal("a?b")]),
        (r"a\\*b", &[literal(r"a\"), Piece::Any, literal("b")]),
        (r"a\\\*b", &[literal(r"a\*b")]),
        (r"a\\\\b", &[literal(r"a\\b")]),
        (r"a\\\b", &[literal(r"a\\b")]),
        (r"a?c*", &[literal("a"), Piece::One, literal("c"), Piece::Any]),
        (r"a\", &[literal(r"a\")]),
        ("", &[]),
    ];
    for (written, expected) in table {
        assert_eq!(test(&format!("f: '{written}'")), text(expected), "{written}");
    }
}

#[test]
fn scalars_are_what_yaml_says() {
    assert_eq!(test("f: 5"), Test::Number(5.into()));
    assert_eq!(test("f: 0x17"), Test::Number(0x17.into()));
    assert_eq!(test("f: -1.5"), Test::Number(serde_json::Number::from_f64(-1.5).unwrap()));
    assert_eq!(test("f: '5'"), text(&[literal("5")]));
    // A version number is not the number that it would be.
    assert_eq!(test("f: 1.10"), text(&[literal("1.10")]));
    assert_eq!(test("f: 007"), text(&[literal("007")]));
    assert_eq!(test("f: true"), Test::Bool(true));
    assert_eq!(test("f: 'true'"), text(&[literal("true")]));
    assert_eq!(test("f: !!str true"), text(&[literal("true")]));
    assert_eq!(test("f: null"), Test::Null);
    assert_eq!(test("f:"), Test::Null);
    assert_eq!(test("f: ''"), text(&[]));
}

#[test]
fn encodings_write_what_the_specification_shows() {
    assert_eq!(test("f|base64: foobar"), text(&[literal("Zm9vYmFy")]));
    let Test::AnyOf(offsets) = test("f|base64offset|contains: foobar") else { panic!() };
    let around = |inner: &str| text(&[Piece::Any, literal(inner), Piece::Any]);
    assert_eq!(offsets, [around("Zm9vYmFy"), around("Zvb2Jhc"), around("mb29iYX")]);
    assert_eq!(test("f|wide: cmd"), text(&[literal("c\0m\0d\0")]));
    assert_eq!(test("f|utf16le: 'c*d'"), text(&[literal("c\0"), Piece::Any, literal("d\0")]));
    assert_eq!(test("f|utf16be: cmd"), text(&[literal("\0c\0m\0d")]));
    assert_eq!(test("f|utf16|base64: cmd"), text(&[literal("//5jAG0AZAA=")]));
    assert_eq!(test("f|windash|contains: ' -a'"), text(&[Piece::Any, literal(" "), Piece::Dash, literal("a"), Piece::Any]));
    assert_eq!(test("f|contains|windash: ' /a'"), text(&[Piece::Any, literal(" "), Piece::Dash, literal("a"), Piece::Any]));
}

proptest! {
    /// Whatever stands around a value, one of its three writings is in the base64 of the whole.
    #[test]
    fn one_of_the_base64_offsets_is_found(before in proptest::collection::vec(any::<u8>(), 0..20), value in "[a-zA-Z0-9 ]{3,20}", after in proptest::collection::vec(any::<u8>(), 0..20)) {
        use base64::Engine as _;
        let whole = base64::engine::general_purpose::STANDARD.encode([&before[..], value.as_bytes(), &after[..]].concat());
        let Test::AnyOf(writings) = test(&format!("f|base64offset: '{value}'")) else { panic!() };
        let found = writings.iter().any(|writing| matches!(writing, Test::Text { pattern, .. } if matches!(&pattern[0], Piece::Literal(text) if whole.contains(text.as_str()))));
        prop_assert!(found, "{value} in {whole}");
    }
}

#[test]
fn correlations_are_a_closed_table() {
    let table = [
        ("type: event_cuont", "4:9: unknown correlation type `event_cuont`; did you mean `event_count`?"),
        ("type: value_count", "4:9: type `value_count` is not evaluated by this version; it evaluates event_count and temporal_ordered"),
        ("type: temporal", "4:9: type `temporal` is not evaluated by this version; it evaluates event_count and temporal_ordered"),
        ("type: event_count\n  timespam: 5m", "5:3: unknown key `timespam`; did you mean `timespan`?"),
        ("type: event_count\n  generate: 1", "5:13: `generate` must be true or false; write `true` or `false` without quotes"),
        ("type: event_count\n  group-by: {a: b}", "5:13: `group-by` must be text, but is a map; write one value"),
        (
            "type: event_count\n  aliases: {ip: {b: src}}",
            "5:18: the alias `ip` is for `b`, which is not one of this correlation's `rules`; write the rule as it stands in `rules`",
        ),
    ];
    for (written, expected) in table {
        let text = format!("title: t\nname: t\ncorrelation:\n  {written}\n  rules: [a]\n  timespan: 1m\n  condition: {{gte: 2}}\n---\n{}", rule("a"));
        let text = if written.contains("timespam") { text.replacen("  timespan: 1m\n", "", 1) } else { text };
        let mut expected = vec![format!("r.yml:{expected}")];
        if written.contains("timespam") {
            expected.insert(0, "r.yml:4:3: the correlation has no `timespan`; add one, such as `timespan: 10m`".to_owned());
        }
        refused(&text, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
    refused(
        "title: t\ncorrelation: {}\n",
        &[
            "r.yml:2:14: the correlation has no `type`; add one, such as `type: event_count`",
            "r.yml:2:14: the correlation has no `rules`; list the ids or names of the rules that it correlates",
            "r.yml:2:14: the correlation has no `timespan`; add one, such as `timespan: 10m`",
        ],
    );
}

#[test]
fn the_condition_of_a_correlation_is_a_closed_table() {
    let with = |condition: &str| count("c", "a", "").replace("{gte: 2}", condition) + "---\n" + rule("a").as_str();
    let table = [
        ("{gtee: 2}", "7:15: unknown key `gtee`; did you mean `gte`?"),
        ("{gte: two}", "7:20: `gte`: `two` is not a number; write a whole number or a decimal such as `0.5`"),
        ("{gte: .inf}", "7:20: `gte`: `.inf` is not a number; write a whole number or a decimal such as `0.5`"),
        ("{}", "7:14: the correlation's `condition` compares nothing; add a comparison, such as `gte: 5`"),
        ("a and b", "7:14: the correlation's `condition` must be a map, but is a scalar; write `key: value` lines below it"),
        ("{field: u, gte: 2}", "7:15: `field` belongs to the value_* types, which this version does not evaluate; leave it away"),
    ];
    for (written, expected) in table {
        let loaded = loaded(&with(written));
        assert_eq!(said(&loaded)[0], format!("r.yml:{expected}"));
    }
    refused(
        &with("{gte: 2}").replace("  condition: {gte: 2}\n", ""),
        &["r.yml:4:3: the correlation has no `condition`; add one, such as `condition: {gte: 5}`"],
    );
    refused(
        &with("{gte: 2}").replace("1m", "soon"),
        &["r.yml:6:13: `timespan`: `soon` is not a span of time above zero; write a whole number and one of s, m, h, d, w, M, y, such as `10m`"],
    );
    refused(
        &with("{gte: 2}").replace("1m", "0s"),
        &["r.yml:6:13: `timespan`: `0s` is not a span of time above zero; write a whole number and one of s, m, h, d, w, M, y, such as `10m`"],
    );
    let range = loaded(&with("{gt: -0.5, lte: 20}"));
    assert_eq!(said(&range), [""; 0]);
    let Body::Correlation(correlation) = &range.set.rules[0].body else { panic!() };
    assert_eq!(correlation.condition, [(Comparison::Gt, -0.5), (Comparison::Lte, 20.0)]);
}

#[test]
fn our_attributes_are_a_closed_table() {
    let table = [
        ("{refires: edge}", "8:9: unknown key `refires`; did you mean `refire`?"),
        ("{refire: egde}", "8:17: unknown refire `egde`; did you mean `edge`?"),
        ("{min_events: 0}", "8:21: `min_events`: `0` is not a whole number above zero; write a number such as `5`"),
        ("{cooldown: ten}", "8:19: `cooldown`: `ten` is not a span of time above zero; write a whole number and one of s, m, h, d, w, M, y, such as `10m`"),
        ("[a]", "8:8: `opmas` must be a map, but is a list; write `key: value` lines below it"),
        ("{entities: {source: [a]}}", "8:28: the entity `source` must be text, but is a list; write one value"),
        ("{params: {a-b: 1}}", "8:18: `a-b` cannot be the name of a parameter; use letters, digits and `_`"),
    ];
    for (written, expected) in table {
        let loaded = loaded(&(count("c", "a", &format!("opmas: {written}\n")) + "---\n" + rule("a").as_str()));
        assert_eq!(said(&loaded), [format!("r.yml:{expected}")]);
    }
}

#[test]
fn parameters_stand_in_scalars() {
    let text = item("f|contains: ['x${n}y', '${w}', '$${n}', '${e`Nv}']") + "opmas: {params: {n: 5, w: '*w'}}\n";
    let loaded1 = loaded(&text);
    assert_eq!(said(&loaded1), [""; 0]);
    let Body::Detection(detection) = &loaded1.set.rules[0].body else { panic!() };
    let Search::All(items) = &detection.searches[0].1 else { panic!() };
    let around = |inner: &str| text_around(inner);
    assert_eq!(items[0].tests, [around("x5y"), around("w"), around("${n}"), around("${e`Nv}")]);
    // A whole plain scalar takes the parameter's type.
    assert_eq!(test_of(&(item("f: ${n}") + "opmas: {params: {n: 5}}\n")), Test::Number(5.into()));
    refused(&(item("f: ${nn}") + "opmas: {params: {n: 5}}\n"), &["r.yml:5:8: unknown parameter `nn`; did you mean `n`?"]);
    // A document without parameters may look for such text.
    assert_eq!(test("f: '${env}'"), super::sigma::text(&[literal("${env}")]));
}

fn text_around(inner: &str) -> Test {
    text(&[Piece::Any, literal(inner), Piece::Any])
}

fn test_of(written: &str) -> Test {
    let loaded = loaded(written);
    assert_eq!(said(&loaded), [""; 0]);
    let Body::Detection(detection) = &loaded.set.rules[0].body else { panic!() };
    let Search::All(items) = &detection.searches[0].1 else { panic!() };
    items[0].tests[0].clone()
}

#[test]
fn c13_a_file_is_refused_whole_and_then_what_refers_to_its_rules() {
    let broken = rule("failed_login") + "---\ntitle: t\n";
    let loaded = load(&files(&[
        ("a.yml", &broken),
        ("b.yml", &count("guessing", "failed_login", "")),
        ("c.yml", &count("chain", "guessing", "")),
        ("d.yml", &rule("other")),
    ]));
    assert_eq!(names(&loaded), ["other"]);
    assert_eq!(
        said(&loaded),
        [
            "a.yml:6:1: this document has no `detection`, `correlation` or `filter`; add one of them",
            "b.yml:5:11: no loaded rule has the id or name `failed_login`; give its id or name, and load its file, too",
            "c.yml:5:11: no loaded rule has the id or name `guessing`; give its id or name, and load its file, too",
        ]
    );
}

#[test]
fn an_unknown_reference_is_told_the_nearest_rule() {
    let text = rule("failed_login") + "---\n" + count("guessing", "faild_login", "").as_str();
    refused(&text, &["r.yml:10:11: no loaded rule has the id or name `faild_login`; did you mean `failed_login`?"]);
}

#[test]
fn c8_rules_load_in_any_order() {
    let loaded = load(&files(&[("1.yml", &count("c", "b", "")), ("2.yml", &count("b", "a", "")), ("3.yml", &rule("a"))]));
    assert_eq!(said(&loaded), [""; 0]);
    assert_eq!(loaded.set.order(), [1, 0]);
    assert_eq!((loaded.set.inputs(0), loaded.set.inputs(1)), (&[1][..], &[2][..]));
    assert_eq!(loaded.set.find("a"), Some(2));
}

#[test]
fn c8_cycles_are_refused_with_their_path() {
    let ring = [("1.yml", count("a", "b", "")), ("2.yml", count("b", "c", "")), ("3.yml", count("c", "a", "")), ("4.yml", count("self", "self", ""))];
    let ring: Vec<(&str, &str)> = ring.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let loaded = load(&files(&ring));
    assert_eq!(names(&loaded), [""; 0]);
    let path = "these correlations refer to each other in a circle: a → b → c → a; remove one of the references";
    assert_eq!(
        said(&loaded),
        [
            format!("1.yml:5:11: {path}"),
            format!("2.yml:5:11: {path}"),
            format!("3.yml:5:11: {path}"),
            "4.yml:5:11: these correlations refer to each other in a circle: self → self; remove one of the references".to_owned(),
        ]
    );
}

#[test]
fn a_rule_may_be_reached_on_two_ways() {
    let text = [rule("a"), count("b", "a", ""), count("c", "a", ""), count("d", "b, c, b", "")].join("---\n");
    let loaded = loaded(&text);
    assert_eq!(said(&loaded), [""; 0]);
    assert_eq!(loaded.set.order(), [1, 2, 3]);
    assert_eq!(loaded.set.inputs(3), [1, 2, 1]);
}

#[test]
fn a_chain_of_many_correlations_is_no_circle() {
    let mut text = rule("r0");
    for i in 1..3_000 {
        write!(text, "---\n{}", count(&format!("r{i}"), &format!("r{}", i - 1), "")).unwrap();
    }
    let loaded = loaded(&text);
    assert_eq!(said(&loaded), [""; 0]);
    assert_eq!(loaded.set.order().len(), 2_999);
}

#[test]
fn case_files_are_no_rules() {
    let loaded = load(&files(&[("a.yml", &rule("a")), ("a.cases.yml", "cases: []\n")]));
    assert_eq!(said(&loaded), [""; 0]);
    assert_eq!(names(&loaded), ["a"]);
}

#[test]
fn ids_and_names_are_unique() {
    let loaded = load(&files(&[("1.yml", &rule("a")), ("2.yml", &rule("a"))]));
    assert_eq!(said(&loaded), ["2.yml:1:1: the id or name `a` is taken already at 1.yml:1:1; give each rule an id and a name of its own"]);
    assert_eq!(names(&loaded), ["a"]);
}

#[test]
fn c11_generate_is_read_in_both_places() {
    let inside = count("c", "a", "").replace("  timespan", "  generate: true\n  timespan");
    for (text, silent) in
        [(count("c", "a", ""), true), (count("c", "a", "generate: true\n"), false), (count("c", "a", "generate: false\n"), true), (inside, false)]
    {
        let loaded = loaded(&(rule("a") + "---\n" + text.as_str()));
        assert_eq!(said(&loaded), [""; 0]);
        assert_eq!((loaded.set.is_silent(0), loaded.set.is_silent(1)), (silent, false), "{text}");
    }
    // One of two that refer to it is enough.
    let both = [rule("a"), count("b", "a", "generate: true\n"), count("c", "a", "")].join("---\n");
    assert!(!loaded(&both).set.is_silent(0));
}

fn filter(rules: &str) -> String {
    format!("title: f\nlogsource: {{}}\nfilter:\n  rules: {rules}\n  known: {{b: 2}}\n  condition: not known\n")
}

#[test]
fn c11_filters_are_anded_to_the_rules_that_they_name() {
    let loaded = load(&files(&[("f.yml", &filter("[a]")), ("r.yml", &(rule("a") + "---\n" + rule("b").as_str()))]));
    assert_eq!(said(&loaded), [""; 0]);
    let Body::Detection(a) = &loaded.set.rules[0].body else { panic!() };
    assert_eq!(a.condition, Condition::And(vec![Condition::Search(0), Condition::Not(Box::new(Condition::Search(1)))]));
    assert_eq!(&*a.searches[1].0, "known");
    let Body::Detection(b) = &loaded.set.rules[1].body else { panic!() };
    assert_eq!((b.searches.len(), &b.condition), (1, &Condition::Search(0)));
}

#[test]
fn c11_a_filter_that_names_no_loaded_rule_is_an_error() {
    let set = [("f.yml", filter("[windows]")), ("r.yml", rule("a"))];
    let set: Vec<(&str, &str)> = set.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let loaded = load(&files(&set));
    assert_eq!(said(&loaded), ["f.yml:4:11: no loaded rule has the id or name `windows`; give its id or name, and load its file, too"]);
    assert_eq!(names(&loaded), ["a"]);
    let correlated = self::loaded(&[rule("a"), count("c", "a", ""), filter("[c]")].join("---\n"));
    assert_eq!(said(&correlated), ["r.yml:17:11: `c` is a correlation, which a filter cannot be joined to; name the detections that it refers to"]);
    refused(&filter("[]"), &["r.yml:4:3: the filter has no `rules`; list the ids or names of the rules that it is for"]);
}

#[test]
fn a_revision_is_that_of_the_documents_text() {
    let revision = |text: &str, i: usize| loaded(text).set.rules[i].revision.to_string();
    let (a, b) = (rule("a"), rule("b"));
    let both = format!("---\n{a}---\n{b}");
    assert_eq!(revision(&both, 0).len(), 12);
    assert_ne!(revision(&both, 0), revision(&both, 1));
    assert_eq!(revision(&both, 0), revision(&format!("---\n{a}---\n{}", b.replace('1', "2")), 0));
    assert_ne!(revision(&both, 1), revision(&format!("---\n{a}---\n{}", b.replace('1', "2")), 1));
}

#[test]
fn bombs_are_refused() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..9 {
        let of = vec![format!("*a{}", i - 1); 10].join(", ");
        writeln!(laughs, "a{i}: &a{i} [{of}]").unwrap();
    }
    assert!(said(&loaded(&laughs))[0].contains("larger than 500000 nodes or 16 MiB of text, aliases counted as what they stand for; split the file"));
    let long = format!("a: &a '{}'\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(100));
    assert!(said(&loaded(&long))[0].contains("larger than 500000 nodes or 16 MiB of text"));
    let mut ladder = "a0: &a0 x\n".to_owned();
    for i in 1..100 {
        writeln!(ladder, "a{i}: &a{i} [*a{}]", i - 1).unwrap();
    }
    assert!(said(&loaded(&ladder))[0].contains("nested deeper than 32 levels; nest less"));
    for deep in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), "a: &a ".to_owned() + "[".repeat(40).as_str()] {
        assert_eq!(loaded(&deep).diagnostics.len(), 1);
    }
    let stairs: String = (0..2_000).fold(String::new(), |mut text, i| {
        writeln!(text, "{}a:", " ".repeat(i)).unwrap();
        text
    });
    assert!(said(&loaded(&stairs))[0].contains("nested deeper than 32 levels"));
    refused(&"x".repeat((4 << 20) + 1), &["r.yml: the file is larger than 4 MiB; split it"]);
    let params = format!("opmas: {{params: {{a: '{}'}}}}\nb: ['{}']\ntitle: t\n", "x".repeat(10_000), "${a}".repeat(10_000));
    assert!(said(&loaded(&params)).concat().contains("the parameters make this document too large; use shorter parameters"));
}

#[test]
fn a_file_has_a_bounded_number_of_diagnostics() {
    let text = "title: t\n---\n".repeat(1_000);
    assert_eq!(loaded(&text).diagnostics.len(), 100);
}

/// Pieces that rules are made of, for texts that get past the first gate.
const WORDS: &[&str] = &[
    "title: t\n",
    "name: a\n",
    "logsource: {product: x}\n",
    "detection:\n",
    "  sel:\n",
    "    f|contains|all: [a, '*']\n",
    "    - kw\n",
    "  condition: ",
    "1 of them\n",
    "sel and not (",
    "sel\n",
    ")",
    "correlation:\n",
    "  type: event_count\n",
    "  rules: [a]\n",
    "  timespan: 5m\n",
    "  condition: {gte: 3}\n",
    "filter:\n",
    "  rules: [a]\n",
    "---\n",
    "...\n",
    "&x ",
    "*x",
    "!!str ",
    "? ",
    ": ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    "|\n",
    ">-\n",
    "\t",
    "  ",
    "'",
    "\"",
    "\\",
    "#",
    "%YAML 1.2\n",
    "%TAG ! a\n",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
    "\0",
    "\r",
    "\r\n",
    "opmas: {params: {n: 1}}\n",
    "${n}",
    "<<: ",
    "f|re: '('\n",
    "f|cidr: ::/0\n",
    "@",
    "`",
    ",",
    "~",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = loaded(&text);
    }

    #[test]
    fn no_words_panic(words in proptest::collection::vec(proptest::sample::select(WORDS), 0..60)) {
        let _ = loaded(&words.concat());
    }

    #[test]
    fn no_mutated_rule_panics(at in 0usize..SHIPPED.len(), gone in 0usize..40, word in proptest::sample::select(WORDS)) {
        let end = (at + gone).min(SHIPPED.len());
        prop_assume!(SHIPPED.is_char_boundary(at) && SHIPPED.is_char_boundary(end));
        let _ = loaded(&[&SHIPPED[..at], word, &SHIPPED[end..]].concat());
    }

    /// A refused file has a place for each mistake, inside the file.
    #[test]
    fn places_stand_in_the_file(at in 0usize..SHIPPED.len(), word in proptest::sample::select(WORDS)) {
        let text = [&SHIPPED[..at], word, &SHIPPED[at..]].concat();
        let lines = u32::try_from(text.split(['\n', '\r']).count()).unwrap();
        for diagnostic in loaded(&text).diagnostics {
            prop_assert!((1..=lines + 1).contains(&diagnostic.place.line), "{diagnostic}");
        }
    }
}
