//! Durable by replay: steps answer from the history, and a suspended script goes no further whatever it catches.

use opmas::playbook::plan;
use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn a_script_sees_the_finding_and_the_inventory() {
    let script = r#"
        print(`${finding.id} ${finding.time} ${finding.severity} ${finding.level} ${finding.rule} ${finding.title} ${finding.text}`);
        print(`${finding.site} ${finding.value} ${finding.count} ${finding.tags[0]} ${finding.group.src_ip}`);
        print(finding.entity("source"));
        print(finding.entity("nobody") == ());
        print(`${finding.device.name} ${finding.device.host} ${finding.device.site} ${finding.device.tags[0]}`);
        print(device("attic").name);
        print(device("nowhere") == ());
        print(devices().map(|d| d.name).reduce(|all, name| if all == () { name } else { all + " " + name }));
        print(devices(#{ site: "home", tag: "ap" }).len());
        print(finding.device == device("gate"));
    "#;
    let lines = [
        "f00d 2026-11-21T13:08:12Z 5 critical openwrt_ssh_login_after_failures Login after failures It happened",
        "home 6 7 attack.t1110 203.0.113.9",
        "203.0.113.9",
        "true",
        "gate 192.0.2.1 home router",
        "attic",
        "true",
        "gate attic barn",
        "1",
        "true",
    ];
    assert_eq!(printed(script), lines);
}

#[test]
fn a_call_that_is_not_recorded_suspends_and_a_recorded_one_answers() {
    let script = r#"let o = finding.device.block_ip("203.0.113.9", "1h"); print(`${o.state} ${o.detail} ${o.ok}`); device("barn").collect_log();"#;
    let mut request = request(script);
    let first = evaluate(&request);
    let call = ready(&first).clone();
    assert_eq!((&*call.device, &*call.action, json!(call.params)), ("gate", "block_ip", json!({"ip": "203.0.113.9", "duration": "1h"})));
    assert!(call.key.starts_with("1-") && call.key.len() == 10, "{}", call.key);
    assert_eq!(first.log, Vec::<String>::new());
    request.history.push(recorded(&call, OutcomeState::Failed));
    let second = evaluate(&request);
    assert_eq!(second.log, ["failed as told false"]);
    let call = ready(&second).clone();
    assert_eq!((&*call.device, &*call.action, call.params.len()), ("barn", "collect_log", 0));
    request.history.push(recorded(&call, OutcomeState::Enforced));
    assert_eq!(evaluate(&request).progress, Progress::Done);
}

#[test]
fn a_key_is_stable() {
    // The ledger has keys: they must be the same in every version. By another tool:
    // printf '%s' '["gate","block_ip",{"duration":"1h","ip":"203.0.113.9"}]' | sha256sum | cut -c1-8
    let key = |script: &str| ready(&run(script)).key.to_string();
    let positional = key(r#"finding.device.block_ip("203.0.113.9", "1h")"#);
    assert_eq!(positional, "1-b76ead6d");
    assert_eq!(key(r#"finding.device.block_ip(#{ duration: "1h", ip: "203.0.113.9" })"#), positional);
    assert_eq!(key(r#"block_ip(device("gate"), "203.0.113.9", "1h")"#), positional);
    assert_ne!(key(r#"finding.device.block_ip("203.0.113.9", "2h")"#), positional);
    assert_ne!(key(r#"device("barn").block_ip("203.0.113.9", "1h")"#), positional);
}

#[test]
fn a_suspended_script_does_nothing_more_whatever_it_catches() {
    let first = r#"finding.device.collect_log()"#;
    let key = ready(&run(first)).key.clone();
    for script in [
        "try { finding.device.collect_log() } catch { finding.device.block_ip(\"192.0.2.1\"); }",
        "try { finding.device.collect_log() } catch (e) { print(e); } finding.device.block_ip(\"192.0.2.1\"); throw \"x\";",
        "try { [1].map(|x| finding.device.collect_log()) } catch { } finding.device.block_ip(\"192.0.2.1\");",
        "let d = finding.device; try { [1, 2].for_each(|x| d.collect_log()) } catch (e) { print(\"caught\"); } d.block_ip(\"192.0.2.1\");",
        "let d = finding.device; fn f(d) { try { d.collect_log() } catch { } } try { [1].filter(|x| f(d)); } catch { } loop { try { d.block_ip(\"1\"); } catch { } }",
        "try { call(|| finding.device.collect_log()) } catch { } print(\"after\"); finding.device.collect_log();",
    ] {
        let evaluation = run(script);
        let calls: Vec<_> = match &evaluation.progress {
            Progress::Ready(calls) => calls.iter().map(|call| &call.key).collect(),
            other => panic!("{other:?} for {script}"),
        };
        assert_eq!(calls, [&key], "{script}");
        assert_eq!(evaluation.log, Vec::<String>::new(), "{script}");
    }
}

fn diverged(script: &str, history: Vec<Recorded>) -> String {
    match evaluate(&Evaluate { history, ..request(script) }).progress {
        Progress::Diverged { detail, .. } => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_recorded_step_that_is_not_asked_for_again_is_a_divergence() {
    let call = ready(&run(r#"finding.device.block_ip("203.0.113.9", "1h")"#)).clone();
    let history = || vec![recorded(&call, OutcomeState::Enforced)];
    let key = &call.key;
    assert_eq!(
        diverged(r#"finding.device.collect_log()"#, history()),
        format!("step {key} is recorded as block_ip on gate, and the script now asks for collect_log on gate with {{}} there (1-2e190aaa)")
    );
    for other in [r#"device("barn").block_ip("203.0.113.9", "1h")"#, r#"finding.device.block_ip("203.0.113.9", "2h")"#] {
        assert!(diverged(other, history()).contains("now asks for block_ip"), "{other}");
    }
    let gone = format!("step {key} is recorded as block_ip on gate, and the script does not ask for it any more");
    assert_eq!(diverged("print(1)", history()), gone);
    assert_eq!(diverged("throw \"x\"", history()), gone);
    let later = vec![Recorded { key: "2-00000000".into(), ..recorded(&call, OutcomeState::Enforced) }];
    assert!(diverged(r#"finding.device.block_ip("203.0.113.9", "1h")"#, later).contains("does not ask for it any more"));
    let alien = vec![Recorded { key: "x".into(), ..recorded(&call, OutcomeState::Enforced) }];
    assert!(diverged(r#"finding.device.block_ip("203.0.113.9", "1h")"#, alien).contains("a key of another form"));
}

#[test]
fn a_plan_is_what_the_script_asks_for_when_actions_answer_as_assumed() {
    let script = r#"
        for d in devices(#{ site: "home" }) {
            if d.block_ip(finding.entity("source")).ok { d.collect_log(); } else { d.block_mac("00:00:00:00:00:00"); }
        }
    "#;
    let (calls, end) = plan(&request(script));
    let told: Vec<String> = calls.iter().map(|call| format!("{} {}", call.device, call.action)).collect();
    assert_eq!((told.join(", "), end), ("gate block_ip, gate collect_log, attic block_ip, attic collect_log".into(), Progress::Done));
    let mut failing = request(script);
    failing.actions[0].assumed = OutcomeState::Failed;
    assert_eq!(plan(&failing).0[1].action, "block_mac".into());
    // A plan goes on behind a step that was only shown; the run itself sees that it was not done.
    let first = ready(&run(script)).clone();
    let shown = |plan| Evaluate { history: vec![recorded(&first, OutcomeState::Planned)], plan, ..request(script) };
    assert_eq!(&*plan(&shown(true)).0[0].action, "collect_log");
    assert_eq!(&*ready(&evaluate(&shown(false))).action, "block_mac");
}

#[test]
fn a_run_never_says_of_what_was_only_shown_that_it_was_done() {
    let script = r#"
        let all = parallel(devices(#{ site: "home" }), #{ canary: 1 }, |d| d.block_ip(finding.entity("source")));
        for one in all { print(`${one.state} ${one.ok}`); }
    "#;
    let first = ready(&run(script)).clone();
    let mut history = vec![recorded(&first, OutcomeState::Planned)];
    let second = ready(&evaluate(&Evaluate { history: history.clone(), ..request(script) })).clone();
    assert_eq!(&*second.device, "attic", "what was only shown has not failed");
    history.push(recorded(&second, OutcomeState::Planned));
    let shown = evaluate(&Evaluate { history, ..request(script) });
    assert_eq!((shown.progress, shown.log), (Progress::Done, vec!["planned false".to_owned(); 2]));
}

fn failed(script: &str, finding: Finding) -> String {
    match evaluate(&Evaluate { finding: Box::new(finding), ..request(script) }).progress {
        Progress::Failed { message, place } => place.map_or(message.clone(), |place| format!("{}:{}: {message}", place.line, place.column)),
        other => panic!("{other:?} for {script}"),
    }
}

#[test]
fn a_wrong_call_says_what_is_wrong_and_where() {
    let said = |script: &str| failed(script, finding());
    let nowhere = failed("\n finding.device.block_ip(\"192.0.2.1\")", Finding { device: None, ..finding() });
    assert_eq!(nowhere, "2:17: `block_ip` is called on (), which is no device: the finding or the inventory names none");
    assert_eq!(said("finding.device.block_ip()"), "1:16: `block_ip` needs `ip`");
    assert_eq!(said("finding.device.block_ip(finding.entity(\"x\"))"), "1:16: `ip` of `block_ip` is (), which is no value");
    assert_eq!(said("finding.device.block_ip(#{ ipp: 1 })"), "1:16: `block_ip` knows no `ipp`; did you mean `ip`?");
    assert_eq!(said("finding.device.block_ip(|| 1)"), "1:16: `ip` of `block_ip` cannot be a Fn");
    assert_eq!(said("let s = \"\"; s.pad(6000, 'x'); finding.device.block_ip(s)").split(" are ").next().unwrap(), "1:46: the arguments of `block_ip`");
    assert_eq!(said("finding.device.reboot()"), "1:16: there is no function `reboot (device)`");
    assert_eq!(said("devices(#{ sites: \"x\" })"), "1:1: `devices` knows no `sites`; did you mean `site`?");
    assert_eq!(said("throw \"no\";"), "1:1: no");
    assert_eq!(said("let f = || 1 / 0;\n[1].map(f)"), "1:14: division by zero: 1 / 0");
    // What is wrong can be caught: no step was taken.
    assert_eq!(printed("try { finding.device.block_ip() } catch (e) { print(e) }"), ["`block_ip` needs `ip`"]);
}

#[test]
fn the_log_is_bounded() {
    let lines = printed("for i in 0..5000 { print(`${i} \n\x1b${\"x\".len()}`); }");
    assert_eq!((lines.len(), &*lines[100]), (101, "the rest of the log is left out"));
    assert!(lines.iter().all(|line| !line.contains(char::is_control)));
    assert_eq!(printed("let s = \"x\"; s.pad(5000, 'x'); print(s); debug(s);").iter().map(|line| line.len()).max(), Some(500));
}

/// Steps until the end, each with the outcome that its place has.
fn drive(script: &str, states: &[OutcomeState]) -> (Vec<Call>, Progress) {
    let (mut request, mut calls) = (request(script), Vec::new());
    for state in states.iter().cycle() {
        match evaluate(&request).progress {
            Progress::Ready(next) => {
                request.history.insert(0, recorded(&next[0], *state));
                calls.extend(next);
            }
            end => return (calls, end),
        }
    }
    unreachable!("there are states")
}

const BRANCHES: &str = r#"
    let tried = 0;
    for d in devices() {
        let o = d.block_ip(finding.entity("source"), "1h");
        while !o.ok && tried < 4 { tried += 1; o = d.block_ip(finding.entity("source"), `${tried}h`); }
        if o.state == "partial" { d.collect_log(); }
        let f = || d.block_mac(`${finding.count}:${o.detail}`).ok;
        if [1, 2].all(|x| call(f)) { print(`${d.name} ${o.state}`); }
    }
"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn the_same_outcomes_give_the_same_calls_and_any_prefix_of_them_replays(choice in prop::collection::vec(0..4usize, 1..20), cut in 0..30usize) {
        let states: Vec<_> = choice.iter().map(|n| [OutcomeState::Enforced, OutcomeState::Failed, OutcomeState::Partial, OutcomeState::Refused][*n]).collect();
        let (calls, end) = drive(BRANCHES, &states);
        prop_assert_eq!(&end, &Progress::Done);
        prop_assert_eq!((&calls, &end), (&drive(BRANCHES, &states).0, &Progress::Done));
        // After a crash the history is any prefix, and the next step is the one that was taken.
        let cut = cut.min(calls.len());
        let history = calls.iter().zip(states.iter().cycle()).take(cut).map(|(call, state)| recorded(call, *state)).collect();
        match evaluate(&Evaluate { history, ..request(BRANCHES) }).progress {
            Progress::Ready(next) => prop_assert_eq!(&next[0], &calls[cut]),
            end => prop_assert_eq!((end, cut), (Progress::Done, calls.len())),
        }
    }
}
