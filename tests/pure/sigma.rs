//! See the room of this name in `src`: what loads, what is refused with which words, how rules refer to each other.

mod collection;
mod hostile;
mod pipelines;
mod references;
mod refused;
mod values;

use opmas::diag::SourceFile;
use opmas::model::Severity;
use opmas::sigma::{Body, Comparison, CorrelationType, Loaded, Refire, load};

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
    assert_eq!(
        names(&loaded),
        ["openwrt_ssh_login_failed", "openwrt_ssh_login", "openwrt_ssh_bruteforce", "openwrt_ssh_login_after_failures", "openwrt_ssh_bruteforce_distributed"]
    );
    assert_eq!(set.order(), [2, 3, 4]);
    let silent: Vec<bool> = (0..5).map(|rule| set.is_silent(rule)).collect();
    assert_eq!(silent, [true, true, false, false, false], "guessing is reported, single logins are not");
    assert_eq!((set.inputs(0), set.inputs(2), set.inputs(3)), (&[][..], &[0][..], &[2, 1][..]));
    let levels: Vec<Severity> = set.rules.iter().map(|rule| rule.level.unwrap()).collect();
    assert_eq!(levels, [Severity::Low, Severity::Info, Severity::Medium, Severity::Critical, Severity::High]);
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
fn top_level_and_logsource_are_open() {
    let text = "title: t\nauthor: me\nx_own: {a: [1]}\nlogsource: {product: p, definition: d, own: 1}\ndetection: {s: {a: 1}, condition: s}\n";
    assert_eq!(said(&loaded(text)), [""; 0]);
    assert_eq!(said(&loaded("---\n---\n# nothing\n")), [""; 0]);
    assert_eq!(said(&loaded("")), [""; 0]);
}

#[test]
fn case_files_are_no_rules() {
    let loaded = load(&files(&[("a.yml", &rule("a")), ("a.cases.yml", "cases: []\n")]));
    assert_eq!(said(&loaded), [""; 0]);
    assert_eq!(names(&loaded), ["a"]);
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
