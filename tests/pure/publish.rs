//! What goes out: the tables of the configuration, and the place that is kept.

use std::fs;
use std::path::Path;
use std::process::Command;

use opmas::config::Settings;
use opmas::model::{Revision, RevisionKind};
use opmas::publish::{Cursor, Found};

const BROKERS: &str = "[broker.bus]\ntype = 'nats'\nservers = ['nats://127.0.0.1:4222']\n[broker.log]\ntype = 'kafka'\nservers = ['127.0.0.1:9092']\n";
const SOURCES: &str = "[source.routers]\ntype = 'syslog'\n[source.api]\ntype = 'http'\ntoken_file = 't'\n[source.archive]\ntype = 'file'\npath = 'x'\n[source.in]\ntype = 'nats'\n";

fn parse(text: &str) -> Result<Settings, String> {
    Settings::parse("opmas.toml", text, Path::new("/site")).map_err(|wrong| wrong.to_string())
}

fn refused(table: &str) -> String {
    parse(&format!("{BROKERS}{SOURCES}{table}")).unwrap_err()
}

#[test]
fn defaults_are_those_of_the_documents() {
    let settings = parse("[broker.bus]\ntype = 'nats'\nservers = ['a']\n[publish.site]\n[forward]\n").unwrap();
    let publish = &settings.publish["site"];
    assert_eq!((publish.findings.as_str(), publish.audit.as_str()), ("findings.correlated", "findings.audit"));
    assert_eq!(publish.check(&settings.broker).unwrap().0, "bus");
    let forward = settings.forward.as_ref().unwrap();
    let (broker, _, sources) = forward.check(&settings.broker, &settings.origins()).unwrap();
    assert_eq!((broker, sources, forward.subject("syslog").as_str()), ("bus", vec!["syslog"], "logs.syslog"));
    assert!(parse("").unwrap().forward.is_none() && parse("").unwrap().publish.is_empty(), "nothing goes out that nobody asked for");
}

#[test]
fn all_that_is_sent_to_is_forwarded_files_only_by_name_and_brokers_never() {
    let chosen = |table: &str| {
        let settings = parse(&format!("{BROKERS}{SOURCES}[forward]\nbroker = 'bus'\n{table}")).unwrap();
        let forward = settings.forward.clone().unwrap();
        forward.check(&settings.broker, &settings.origins()).unwrap().2.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(chosen(""), ["api", "routers"]);
    assert_eq!(chosen("sources = ['archive', 'api']"), ["archive", "api"]);
    let round = refused("[forward]\nbroker = 'bus'\nsources = ['in']");
    assert!(round.contains("[forward] [source.in] reads from a broker: its records would go round in circles; leave it out"), "{round}");
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_the_remedy() {
    let cases = [
        ("[publish.x]\nbroker = 'buss'", "18:1: [publish.x] there is no [broker.buss]; did you mean `bus`?"),
        ("[publish.x]\nfindings = 'f'", "17:1: [publish.x] there is more than one broker; say which with `broker`"),
        ("[publish.x]\nbroker = 'bus'\nfindings = 'a.>'", "19:1: [publish.x] `a.>` is no subject to publish to"),
        ("[publish.x]\nbroker = 'bus'\naudit = 'a..b'", "19:1: [publish.x] `a..b` is no subject"),
        ("[publish.x]\nbroker = 'log'\nfindings = 'a b'", "19:1: [publish.x] `a b` is no topic to publish to; use 1 to 249 of A-Z a-z 0-9 . _ -"),
        ("[publish.x]\nbroker = 'bus'\nfindings = ''\naudit = ''", "19:1: [publish.x] nothing is to be published"),
        ("[publish.x]\nfinding = 'a'", "unknown key `finding`; did you mean `findings`?"),
        ("[publish.'a b']\nbroker = 'bus'", "[publish.a b]: a publication's name is 1 to 64 of"),
        ("[forward]\nbroker = 'bus'\nsources = ['router']", "19:1: [forward] there is no [source.router]; did you mean `routers`?"),
        ("[forward]\nbroker = 'bus'\nsources = []", "19:1: [forward] there is no source whose records could be forwarded"),
        ("[forward]\nbroker = 'log'\nprefix = 'a/b'", "19:1: [forward] `a/b.api` is no topic"),
        ("[ledger]\npublish_head = '1ms'", "publish_head is too little; write \"1s\" or more"),
    ];
    for (table, expected) in cases {
        let said = refused(table);
        assert!(said.contains(expected), "{table}: {said}");
    }
    let none = parse("[publish.x]\n").unwrap_err();
    assert!(none.contains("1:1: [publish.x] there is no broker; write [broker.NAME] with `type` and `servers`"), "{none}");
}

#[test]
fn check_tells_what_goes_where_and_config_show_is_read_again() {
    let site = tempfile::tempdir().unwrap();
    let opmas = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).current_dir(site.path()).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let sources = "[source.routers]\ntype = 'syslog'\n[source.in]\ntype = 'nats'\n";
    let tables = "[publish.x]\nbroker = 'bus'\naudit = ''\n[forward]\nbroker = 'log'\nprefix = 'site1'\n";
    fs::write(site.path().join("opmas.toml"), format!("{BROKERS}{sources}{tables}")).unwrap();
    let said = opmas(&["check"]);
    assert!(said.contains("  publish x: findings to findings.correlated on broker bus\n"), "{said}");
    assert!(said.contains("  forward: what source routers takes in to site1.routers on broker log\n"), "{said}");
    let shown = opmas(&["config", "show"]);
    let again = parse(&shown).unwrap();
    assert_eq!((again.publish["x"].audit.as_str(), again.forward.unwrap().prefix.as_str()), ("", "site1"), "{shown}");
    assert!(shown.contains("publish_head = \"1h\""), "{shown}");
}

#[test]
fn a_playbook_may_wait_for_what_opmas_says_of_itself() {
    let site = tempfile::tempdir().unwrap();
    fs::create_dir(site.path().join("playbooks")).unwrap();
    for (rule, known) in [("opmas_correlation_evicted", true), ("opmas_deliveries_dropped", true), ("opmas_nothing", false)] {
        let script = format!("/*---\ntitle = 'x'\non = {{ rule = '{rule}' }}\nmode = 'observe'\nactions = []\n---*/\n");
        fs::write(site.path().join("playbooks/x.rhai"), script).unwrap();
        fs::write(site.path().join("opmas.toml"), "").unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_opmas")).arg("check").current_dir(site.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(!said.contains("is loaded"), known, "{rule}: {said}");
    }
}

#[test]
fn a_place_is_read_as_it_was_written_and_its_form_is_stable() {
    let dir = tempfile::tempdir().unwrap();
    let path = Cursor::path(dir.path(), "publish.x");
    assert_eq!(path, dir.path().join("published/publish.x.json"));
    assert_eq!(Cursor::read(&path), Found::Nothing);
    let ledger = Cursor::of_ledger(7, "ab".to_owned(), 3);
    ledger.write(&path).unwrap();
    assert_eq!(Cursor::read(&path), Found::Cursor(ledger));
    assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"version":1,"seq":7,"hash":"ab","gap":3,"revisions":[]}"#);
    let spool = Cursor::of_spool(9, vec![Revision { kind: RevisionKind::Extractors, hash: "cd".into() }]);
    spool.write(&path).unwrap();
    assert_eq!(Cursor::read(&path), Found::Cursor(spool));
    let text = r#"{"version":1,"seq":9,"hash":"","gap":0,"revisions":[{"kind":"extractors","hash":"cd"}]}"#;
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left aside");
}

#[test]
fn a_place_that_is_torn_or_of_another_version_is_said_not_guessed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    for text in ["", "{", "[]", "\0\0\0", r#"{"version":2,"seq":7}"#, r#"{"version":1}"#, r#"{"version":1,"seq":-1}"#, r#"{"version":1,"seq":1,"sequence":2}"#]
    {
        fs::write(&path, text).unwrap();
        assert!(matches!(Cursor::read(&path), Found::Unreadable(_)), "{text}");
    }
    fs::write(&path, "1".repeat(1 << 20)).unwrap();
    assert!(matches!(Cursor::read(&path), Found::Unreadable(_)), "it is not read whole");
}
