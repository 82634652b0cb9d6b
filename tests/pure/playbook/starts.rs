//! When a finding begins a run: hours, posture, entities, debounce and concurrency.

use opmas::action::Catalogue;
use opmas::model::{Decided, FindingId, Posture, Span};
use opmas::playbook::{Begun, OnFailure, Playbook, Playbooks, Run, signatures};
use serde_json::json;

use super::*;

fn with(header: &str) -> Playbook {
    let text = format!("/*---\ntitle='x'\nmode='auto'\nactions=[]\n{header}\n---*/");
    let loaded = Playbooks::load(&[file("playbooks/p.rhai", &text)], &[]);
    assert_eq!(loaded.diagnostics, [], "{header}");
    loaded.playbooks.get("p").unwrap().clone()
}

fn refused(header: &str) -> String {
    let text = format!("/*---\ntitle='x'\nmode='auto'\nactions=[]\n{header}\n---*/");
    Playbooks::load(&[file("p.rhai", &text)], &[]).diagnostics[0].to_string()
}

fn at(time: &str) -> Finding {
    let mut json = finding_json();
    json["time"] = json!(time);
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_playbook_may_run_at_some_hours_only() {
    // 2026-11-21 is a Saturday.
    for (hours, time, wanted) in [
        ("08:00-18:00", "2026-11-21T08:00:00Z", true),
        ("08:00-18:00", "2026-11-21T07:59:59Z", false),
        ("08:00-18:00", "2026-11-21T18:00:00Z", false),
        ("Mon-Fri", "2026-11-21T12:00:00Z", false),
        ("Mon-Fri", "2026-11-20T12:00:00Z", true),
        ("sat", "2026-11-21T00:00:00Z", true),
        ("Fri-Mon", "2026-11-22T23:59:59Z", true),
        ("Fri-Mon", "2026-11-24T00:00:00Z", false),
        ("Fri 22:00-06:00", "2026-11-20T22:30:00Z", true),
        ("Fri 22:00-06:00", "2026-11-21T05:59:59Z", true),
        ("Fri 22:00-06:00", "2026-11-21T22:30:00Z", false),
        ("Fri 22:00-06:00", "2026-11-20T05:00:00Z", false),
        ("Thu 00:00-24:00", "1970-01-01T23:59:59Z", true),
        ("Wed", "1969-12-31T23:59:59Z", true),
    ] {
        let playbook = with(&format!("on = {{ tag = 'attack.t1110', time = '{hours}' }}"));
        assert_eq!(playbook.triggered_by(&at(time)), wanted, "{hours} {time}");
    }
    assert!(with("on = { severity = 5, time = ['Mon', 'Sat 12:00-14:00'] }").triggered_by(&finding()));
    for wrong in ["25:00-26:00", "8:00-18:00", "Mun", "Mon Tue Wed", "08:00", "24:01-03:00", "08:00-"] {
        let said = refused(&format!("on = {{ severity = 5, time = '{wrong}' }}"));
        assert!(said.contains("names no hours") && said.starts_with("p.rhai:5:"), "{said}");
    }
    assert!(refused("on = { time = 'Mon' }").contains("`on` names nothing"));
}

#[test]
fn a_playbook_may_want_an_entity_and_a_posture() {
    assert!(with("on = { entity = 'source' }").triggered_by(&finding()));
    assert!(with("on = { entity = ['station', 'source'] }").triggered_by(&finding()));
    assert!(!with("on = { severity = 5, entity = 'station' }").triggered_by(&finding()));
    let armed = with("on = { severity = 5, posture = ['armed', 'guarded'] }");
    let begins = |posture| Begun::default().begins(&armed, &finding(), posture, Time(0));
    assert_eq!(begins(Posture::Armed), Ok(()));
    assert_eq!(begins(Posture::Observe), Err("the posture is observe".to_owned()));
    assert!(refused("on = { severity = 5, posture = 'arm' }").contains("`arm` is no posture"));
}

fn run_record(n: u8, playbook: &Playbook, finding: &Finding, at: Time) -> Decided {
    Decided::Run {
        run: format!("r{n}").into(),
        playbook: playbook.name.clone(),
        revision: playbook.revision.clone(),
        finding: FindingId(format!("f{n}").as_str().into()),
        about: playbook.about(finding),
        after: Vec::new(),
        at,
        by_hand: None,
    }
}

fn from(source: &str) -> Finding {
    let mut json = finding_json();
    json["entities"]["source"]["value"] = json!(source);
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_debounced_finding_begins_no_run_for_the_same_entity() {
    let playbook = with("on = { severity = 5 }\nper = 'source'\ndebounce = '5m'");
    let (one, two) = (from("203.0.113.1"), from("203.0.113.2"));
    let mut begun = Begun::default();
    let start = Time(0).plus(Span::secs(1_000));
    let record = run_record(1, &playbook, &one, start);
    begun.apply(&record);
    let after = |secs: i64, finding: &Finding| begun.begins(&playbook, finding, Posture::Armed, start.plus(Span::secs(secs)));
    assert_eq!(after(299, &one), Err("debounced, run r1 began less than 5m ago".to_owned()));
    assert_eq!(after(300, &one), Ok(()));
    assert_eq!(after(1, &two), Ok(()));
    assert!(begun.needs(&record, start.plus(Span::secs(3_600))) && !begun.needs(&record, start.plus(Span::secs(90_000))));
    // Without `per` it counts for the playbook; what a person begins counts for nothing.
    let whole = with("on = { severity = 5 }\ndebounce = '5m'");
    let mut begun = Begun::default();
    let by_hand = opmas::model::ByHand { by: "root".into(), because: String::new(), finding: one.clone() };
    if let Decided::Run { run, playbook, revision, finding, about, after, at, .. } = run_record(1, &whole, &one, start) {
        begun.apply(&Decided::Run { run, playbook, revision, finding, about, after, at, by_hand: Some(Box::new(by_hand)) });
    }
    assert_eq!(begun.begins(&whole, &two, Posture::Armed, start), Ok(()));
    begun.apply(&run_record(2, &whole, &one, start));
    assert!(begun.begins(&whole, &two, Posture::Armed, start).is_err());
    assert!(refused("on = { severity = 5 }\ndebounce = '25h'").contains("a debounce is between 1ms and 1d"));
}

#[test]
fn what_is_remembered_of_runs_is_bounded() {
    let playbook = with("on = { severity = 5 }\nper = 'source'\ndebounce = '1d'");
    let mut begun = Begun::default();
    for n in 0..10_001_i64 {
        let mut record = run_record(0, &playbook, &from("x"), Time(n));
        if let Decided::Run { about, .. } = &mut record {
            *about = Some(n.to_string().into());
        }
        begun.apply(&record);
    }
    assert_eq!(begun.begins(&playbook, &from("0"), Posture::Armed, Time(10_001)), Ok(()));
    assert!(begun.begins(&playbook, &from("1"), Posture::Armed, Time(10_001)).is_err());
}

#[test]
fn runs_of_one_playbook_and_of_one_entity_are_counted() {
    let playbook = with("on = { severity = 5 }\nper = 'source'\nconcurrency = { runs = 2 }");
    let run = |n, source: &str| Run::begin(&run_record(n, &playbook, &from(source), Time(0))).unwrap();
    let way = |runs: &[&Run]| runs.iter().map(|run| (run.playbook().clone(), run.about().cloned())).collect::<Vec<_>>();
    let (a, b, c) = (run(1, "203.0.113.1"), run(2, "203.0.113.2"), run(3, "203.0.113.3"));
    let room = |run: &Run, under_way: &[&Run]| playbook.has_room(run.about(), way(under_way).iter());
    assert!(room(&a, &[]) && room(&b, &[&a]));
    assert!(!room(&c, &[&a, &b]), "two runs at most");
    assert!(!room(&run(4, "203.0.113.1"), &[&a]), "one for each source");
    let other = [("q".into(), a.about().cloned()), ("q".into(), None)];
    assert!(playbook.has_room(a.about(), other.iter()), "another playbook's");
    assert!(refused("on = { severity = 5 }\nconcurrency = { runs = 0 }").contains("no run would ever begin"));
    assert!(refused("on = { severity = 5 }\nconcurrency = { run = 1 }").contains("did you mean `runs`?"));
}

#[test]
fn what_becomes_of_a_failure_is_the_headers_word() {
    let on_failure = |word: &str| with(&format!("on = {{ severity = 5 }}\non_failure = '{word}'")).on_failure;
    assert_eq!([on_failure("stop"), on_failure("undo"), on_failure("continue")], [OnFailure::Stop, OnFailure::Undo, OnFailure::Continue]);
    assert_eq!(with("on = { severity = 5 }").on_failure, OnFailure::Continue);
    assert!(refused("on = { severity = 5 }\non_failure = 'halt'").contains("unknown variant `halt`"));
}

#[test]
fn arguments_that_are_written_out_are_checked_before_anything_runs() {
    let (catalogue, wrong) = Catalogue::load(&[file("playbooks/actions/block_ip.toml", include_str!("../../../playbooks/actions/block_ip.toml"))]);
    assert_eq!(wrong, []);
    let said = |script: &str| {
        let text = format!("/*---\ntitle='x'\non={{severity=5}}\nmode='auto'\nactions=['block_ip']\n---*/\n{script}");
        let loaded = Playbooks::load(&[file("p.rhai", &text)], &signatures(&catalogue));
        loaded.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let one = |script: &str| said(script).join("|");
    let time = one("finding.device.block_ip(finding.entity(\"source\"), 60)");
    assert!(time.starts_with("p.rhai:7:51: `duration` of `block_ip`: 60 is not a time between"), "{time}");
    assert!(one("finding.device.block_ip(\"router\", \"1h\")").starts_with("p.rhai:7:25: `ip` of `block_ip`: \"router\" is not one IPv4"));
    assert!(one("let x = #{ d: 1 }; finding.device.block_ip(#{ ip: \"192.0.2.1\", duration: \"1 hour\" })").contains("p.rhai:7:74: `duration` of"));
    assert_eq!(one("finding.device.block_ip(#{ ipp: \"192.0.2.1\", ip: \"192.0.2.1\" })"), "p.rhai:7:28: `block_ip` knows no `ipp`; did you mean `ip`?");
    assert_eq!(one("finding.device.block_ip()"), "p.rhai:7:16: `block_ip` needs `ip`");
    assert_eq!(one("finding.device.block_ip(#{ duration: \"1h\" })"), "p.rhai:7:16: `block_ip` needs `ip`");
    assert_eq!(one("finding.device.blok_ip(\"192.0.2.1\")"), "p.rhai:7:16: there is no action `blok_ip`; did you mean `block_ip`?");
    for right in [
        "let p = #{ ip: \"192.0.2.1\" }; finding.device.block_ip(p)",
        "finding.device.block_ip(finding.entity(\"x\"))",
        "fn blok_ip(x) { x } finding.blok_ip()",
    ] {
        assert_eq!(said(right), Vec::<String>::new(), "{right}");
    }
}
