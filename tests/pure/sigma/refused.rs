//! Every mistake has its place, its sentence and its remedy.

use opmas::sigma::{Body, Comparison};

use super::*;

#[test]
fn yaml_that_is_none_is_refused_with_its_place() {
    refused("title: t\ntitle: u\n", &["r.yml:2:1: the key `title` stands twice in this map; keep one of them, or write their values as one list"]);
    refused("? [a]\n: b\n", &["r.yml:1:3: a key must be text, not a list or a map; write the key as text"]);
    refused("a: !x b\n", &["r.yml:1:4: the tag `!x` has no meaning here; leave the tag away"]);
    refused("- a\n", &["r.yml:1:1: a rule must be a map, but this document is a list; begin with `title: …`"]);
    refused("a: &x [*x]\n", &["r.yml:1:8: this alias stands inside the node that it refers to; write the value out"]);
    refused(
        "a: &x [b]\n---\na: *x\n",
        &["r.yml:3:4: this alias refers to a node of another document; anchors hold within one document: write the value out, or share it by `action: global`"],
    );
    let broken = said(&loaded("title: 'a\n"));
    assert!(broken.len() == 1 && broken[0].starts_with("r.yml:") && broken[0].contains(": not YAML: "), "{broken:?}");
}

#[test]
fn the_sections_of_a_document() {
    refused("title: t\nlevel: low\n", &["r.yml:1:1: this document has no `detection`, `correlation` or `filter`; add one of them"]);
    refused("title: t\ndetections: {}\n", &["r.yml:2:1: unknown section `detections`; did you mean `detection`?"]);
    refused("title: t\ndetection: {}\nfilter: {}\n", &["r.yml:3:1: a document cannot have both `detection` and `filter`; split it with a line `---`"]);
    refused(
        "action: globl\ntitle: t\n",
        &[
            "r.yml:1:1: this document has no `detection`, `correlation` or `filter`; add one of them",
            "r.yml:1:9: unknown action `globl`; did you mean `global`?",
        ],
    );
    refused("action: repeat\ntitle: t\n", &["r.yml:1:1: `action: repeat` stands before any document that it could repeat; put it behind one"]);
    let reset = format!("action: reset\n{}", rule("a"));
    refused(&reset, &["r.yml:1:1: a document with `action: reset` is no rule, and this one holds one; put the rule in a document behind it"]);
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
fn modifiers_are_a_closed_set() {
    let table = [
        ("f|containz: a", "5:7: unknown modifier `containz`; did you mean `contains`?"),
        ("f|: a", "5:7: a modifier is missing behind `|`; write one, such as `contains`, or leave the `|` away"),
        ("f|contains|startswith: a", "5:16: the modifier `startswith` cannot be combined with `contains`; use two searches joined by the condition"),
        ("f|contains|contains: a", "5:16: the modifier `contains` stands twice; keep one of them"),
        ("f|i: a", "5:7: the modifier `i` is a flag of `re`; write it behind `re`"),
        ("f|re|gt: a", "5:10: the modifier `gt` cannot be combined with `re`; use two searches joined by the condition"),
        ("f|contains|base64: a", "5:16: the modifier `base64` changes the value and must stand before `contains`; swap them"),
        (
            "f|expand: 'x%a-b%'",
            "5:17: nothing is known to put in the place of `%a-b%`; list its values as `a-b` below [sigma.placeholders] in opmas.toml or below `vars` of a pipeline, or write them out in the rule",
        ),
        ("f|hour|contains: 5", "5:12: the modifier `contains` cannot be combined with `hour`; use two searches joined by the condition"),
        ("f|hour: noon", "5:13: the value to compare with: `noon` is not a number; write a whole number or a decimal such as `0.5`"),
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

#[test]
fn correlations_are_a_closed_table() {
    let table = [
        ("type: event_cuont", "4:9: unknown correlation type `event_cuont`; did you mean `event_count`?"),
        ("type: value_sum", "7:14: the condition of `value_sum` has no `field`; name the field whose values it takes"),
        ("type: missing", "7:14: `missing` takes no condition; leave it away: it fires when nothing has matched for the timespan"),
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
    let with = |condition: &str| [count("c", "a", "").replace("{gte: 2}", condition), rule("a")].join("---\n");
    let table = [
        ("{gtee: 2}", "7:15: unknown key `gtee`; did you mean `gte`?"),
        ("{gte: two}", "7:20: `gte`: `two` is not a number; write a whole number or a decimal such as `0.5`"),
        ("{gte: .inf}", "7:20: `gte`: `.inf` is not a number; write a whole number or a decimal such as `0.5`"),
        ("{}", "7:14: the correlation's `condition` compares nothing; add a comparison, such as `gte: 5`"),
        ("a and b", "7:14: the correlation's `condition` must be a map, but is a scalar; write `key: value` lines below it"),
        ("{field: u, gte: 2}", "7:15: `event_count` compares no field's values; leave `field` away, or take a value_* type"),
        ("{percentile: 5, gte: 2}", "7:15: `event_count` has no percentile to choose; leave it away, or take `value_percentile`"),
    ];
    for (written, expected) in table {
        let loaded = loaded(&with(written));
        assert_eq!(said(&loaded)[0], format!("r.yml:{expected}"));
    }
    for (kind, written, expected) in [
        ("value_sum", "{field: [a, b], gte: 2}", "7:15: `value_sum` takes the values of one field; name one field"),
        ("value_median", "{field: b, percentile: 5, gte: 2}", "7:25: `value_median` has no percentile to choose; leave it away, or take `value_percentile`"),
        ("value_percentile", "{field: b, percentile: 101, gte: 2}", "7:37: `percentile`: 101 is not from 0 to 100; write a number such as `95`"),
        ("temporal", "a and", "7:19: the condition ends where a rule should stand; name a rule"),
        ("temporal", "a and b", "7:20: there is no rule `b`; did you mean `a`?"),
        ("temporal", "not a", "7:14: nothing opens the window of this condition: every rule in it stands under `not`; name a rule without `not`"),
    ] {
        assert_eq!(said(&loaded(&with(written).replace("event_count", kind))), [format!("r.yml:{expected}")]);
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
        let loaded = loaded(&[count("c", "a", &format!("opmas: {written}\n")), rule("a")].join("---\n"));
        assert_eq!(said(&loaded), [format!("r.yml:{expected}")]);
    }
}
