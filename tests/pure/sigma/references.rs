//! How rules refer to each other, over all files.

use std::fmt::Write as _;

use opmas::sigma::{Body, Condition, load};

use super::*;

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
    let text = [rule("failed_login"), count("guessing", "faild_login", "")].join("---\n");
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
        let loaded = loaded(&[rule("a"), text.clone()].join("---\n"));
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
    let loaded = load(&files(&[("f.yml", &filter("[a]")), ("r.yml", &[rule("a"), rule("b")].join("---\n"))]));
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
    refused(&filter("[]"), &["r.yml:4:3: the filter has no `rules`; list the ids or names of the rules that it is for, or write `any`"]);
}
