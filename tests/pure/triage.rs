//! Routes: which channels hear of a finding, and why.

use std::collections::BTreeSet;
use std::sync::Arc;

use opmas::diag::SourceFile;
use opmas::model::{Finding, Severity, Span};
use opmas::triage::{RESOLVE_AFTER, Routes, Routing, Terms};
use proptest::prelude::*;

fn finding(severity: u8) -> Finding {
    let mut finding: Finding = serde_json::from_str(include_str!("../data/finding.json")).unwrap();
    finding.severity = Severity::try_from(severity).unwrap();
    finding
}

fn load(text: &str) -> Result<Routes, Vec<String>> {
    let channels: Vec<Arc<str>> = ["email", "pager", "pagerduty", "slack", "webhook"].map(Arc::from).to_vec();
    let file = SourceFile { name: "notifiers/routes.toml".into(), text: text.into() };
    Routes::load(&file, &channels).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

/// `route>channel` in order.
fn ends(routing: &Routing) -> Vec<String> {
    routing.to.iter().map(|routed| format!("{}>{}", routed.route, routed.channel)).collect()
}

fn route(text: &str, finding: &Finding) -> Vec<String> {
    ends(&load(text).unwrap().route(finding))
}

#[test]
fn the_shipped_routes_send_by_severity() {
    let shipped = include_str!("../../notifiers/routes.toml");
    let urgent: &[&str] = &["urgent>email", "urgent>pagerduty", "urgent>slack", "urgent>webhook"];
    let expected: [(u8, &[&str]); 5] = [(1, &[]), (2, &[]), (3, &["notable>slack", "notable>webhook"]), (4, urgent), (5, urgent)];
    for (severity, ends) in expected {
        assert_eq!(route(shipped, &finding(severity)), ends, "severity {severity}");
    }
}

#[test]
fn every_decision_says_why() {
    let routes = load("[[route]]\nname = 'a'\nmatch = { severity = '>=high', rule = 'openwrt_*', site = ['home', 'lab'] }\nchannels = ['email']").unwrap();
    let routing = routes.route(&finding(5));
    assert_eq!(routing.to[0].reason, "severity 5 is >=4, rule is openwrt_ssh_login_after_failures, site is home");
    assert_eq!(routing.reason, format!("to email by route a ({})", routing.to[0].reason));
    assert_eq!(routes.route(&finding(3)).reason, "no route matches severity 3 of rule openwrt_ssh_login_after_failures");
    let muted = load("[[route]]\nname = 'mute'\nmatch = { device = 'router1' }\nchannels = []").unwrap().route(&finding(5));
    assert_eq!((muted.to.len(), muted.reason.as_str()), (0, "route mute names no channel (device is router1)"));
}

#[test]
fn conditions() {
    let holds = |condition: &str| !route(&format!("[[route]]\nname = 'r'\nchannels = ['email']\nmatch = {{ {condition} }}"), &finding(4)).is_empty();
    let yes = ["", "severity = 4", "severity = '4'", "severity = '=high'", "severity = '>3'", "severity = '<=4'", "severity = '< critical'"];
    let yes_too = ["tag = 'ATTACK.T1110'", "tag = ['x', 'attack.*']", "rule = '7a6a8f0e-53a5-4f7e-8d6b-2f1f4c7d9e10'", "device = 'Router1', site = 'home'"];
    for condition in yes.iter().chain(&yes_too) {
        assert!(holds(condition), "{condition}");
    }
    let no = ["severity = 5", "severity = '>4'", "severity = '<4'", "severity = '<=medium'"];
    let no_too = ["tag = 'attack'", "rule = 'openwrt'", "device = ['router2', 'router11']", "device = 'router1', site = 'lab'", "tag = 'é*'"];
    for condition in no.iter().chain(&no_too) {
        assert!(!holds(condition), "{condition}");
    }
}

#[test]
fn a_finding_without_device_matches_no_device_condition() {
    let mut nowhere = finding(5);
    nowhere.device = None;
    assert!(route("[[route]]\nname = 'r'\nchannels = ['email']\nmatch = { device = '*' }", &nowhere).is_empty());
}

#[test]
fn the_first_match_ends_it_unless_it_continues() {
    let tree = |first: bool| {
        format!(
            "[[route]]\nname = 'a'\nchannels = ['email']\ncontinue = {first}\n[[route]]\nname = 'b'\nchannels = ['pager', 'email']\n[[route]]\nname = 'c'\nchannels = ['webhook']"
        )
    };
    assert_eq!(route(&tree(false), &finding(5)), ["a>email"]);
    // A channel is told once, by the first route that names it.
    assert_eq!(route(&tree(true), &finding(5)), ["a>email", "b>pager"]);
}

#[test]
fn nested_routes_inherit_channels_and_fall_back_to_their_parent() {
    let tree = "
[[route]]
name = 'home'
match = { site = 'home' }
channels = ['email']
[[route.route]]
name = 'home-critical'
match = { severity = '=5' }
channels = ['pager']
continue = true
[[route.route]]
name = 'home-logins'
match = { tag = 'attack.t1110', severity = '>=4' }
[[route]]
name = 'rest'
channels = ['webhook']
";
    assert_eq!(route(tree, &finding(5)), ["home-critical>pager", "home-logins>email"]);
    assert_eq!(route(tree, &finding(4)), ["home-logins>email"]);
    assert_eq!(route(tree, &finding(3)), ["home>email"]);
    let mut elsewhere = finding(5);
    elsewhere.site = None;
    assert_eq!(route(tree, &elsewhere), ["rest>webhook"]);
}

#[test]
fn faults_name_their_place_and_the_nearest_name() {
    let cases = [
        ("[[route]]\nname = 'a'\nchannels = ['emial']", "notifiers/routes.toml:3:13: no channel is named `emial`; did you mean `email`?"),
        ("[[route]]\nname = 'a'\nchanels = ['email']", "notifiers/routes.toml:3:1: unknown key `chanels`; did you mean `channels`?"),
        ("[[route]]\nname = 'a'\nmatch = { severty = 4 }\nchannels = []", "notifiers/routes.toml:3:11: unknown key `severty`; did you mean `severity`?"),
        (
            "[[route]]\nname = 'a'\nmatch = { severity = '>=6' }\nchannels = []",
            "notifiers/routes.toml:3:22: severity 6 is not one of 1 (info) to 5 (critical); write it as `\">=4\"` or `\">=high\"`",
        ),
        ("[[route]]\nname = 'A b'\nchannels = []", "notifiers/routes.toml:2:8: `A b` is no name for a route; use 1 to 64 of a-z 0-9 . _ -"),
        ("[[route]]\nname = 'a'", "notifiers/routes.toml:2:8: route `a` names no channels; write `channels = [\"…\"]`, or `[]` for nobody"),
        (
            "[[route]]\nname = 'a'\nchannels = []\n[[route]]\nname = 'a'\nchannels = []",
            "notifiers/routes.toml:5:8: a second route is named `a`; give each route a name of its own",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(load(text).unwrap_err(), [expected]);
    }
    assert_eq!(load("[[route]]\nname = 'a'\nchannels = ['x', 'y']\n[[route]]\nname = ''\nchannels = []").unwrap_err().len(), 3, "all faults are told at once");
}

#[test]
fn terms_are_inherited_and_bounded() {
    let tree = "
[[route]]
name = 'a'
match = { severity = '>=4' }
channels = ['email']
resolve_after = '30m'
[[route.route]]
name = 'b'
match = { severity = '=5' }
repeat_interval = '2h'
resolve_after = 'never'
[[route]]
name = 'c'
channels = ['email']
";
    let terms = |severity| load(tree).unwrap().route(&finding(severity)).to[0].terms;
    let (half, two) = (Some(Span::secs(1_800)), Some(Span::secs(7_200)));
    assert_eq!(terms(5), Terms { resolve_after: None, repeat_interval: two });
    assert_eq!(terms(4), Terms { resolve_after: half, repeat_interval: None });
    assert_eq!(terms(3), Terms { resolve_after: Some(RESOLVE_AFTER), repeat_interval: None });
    for wrong in
        ["resolve_after = '999ms'", "resolve_after = '31d'", "repeat_interval = ''", "repeat_interval = 'Never'", "resolve_after = '9999999999999999h'"]
    {
        let said = load(&format!("[[route]]\nname = 'a'\nchannels = []\n{wrong}")).unwrap_err();
        let place = if wrong.starts_with("res") { 17 } else { 19 };
        assert!(said[0].starts_with(&format!("notifiers/routes.toml:4:{place}: `")) && said[0].contains("write a time from 1s to 30d"), "{said:?}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let mut text = String::new();
    for depth in 1..=12 {
        let table = vec!["route"; depth].join(".");
        text.push_str(&format!("[[{table}]]\nname = 'r{depth}'\nchannels = []\n"));
    }
    assert!(load(&text).unwrap_err()[0].contains("nested deeper than 8"));
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "(\\[\\[route\\]\\]\n)?(name|match|channels|continue)? ?= ?[^\u{0}]{0,60}") {
        let _ = load(&text);
    }

    /// Without nesting: the first match and, while it continues, the next; a channel is told once.
    #[test]
    fn flat_routes_are_taken_in_order(routes in proptest::collection::vec((1u8..=5, any::<bool>()), 1..8), severity in 1u8..=5) {
        let channel = |i: usize| ["email", "pager", "pagerduty", "slack", "webhook"][i % 3];
        let mut text = String::new();
        let (mut expected, mut told, mut ended) = (Vec::new(), BTreeSet::new(), false);
        for (i, (least, goes_on)) in routes.iter().enumerate() {
            let channel = channel(i);
            text.push_str(&format!("[[route]]\nname = 'r{i}'\nmatch = {{ severity = '>={least}' }}\nchannels = ['{channel}']\ncontinue = {goes_on}\n"));
            if !ended && severity >= *least {
                if told.insert(channel) {
                    expected.push(format!("r{i}>{channel}"));
                }
                ended = !goes_on;
            }
        }
        prop_assert_eq!(route(&text, &finding(severity)), expected);
    }
}
