//! Several calls at a time, and what opmas does itself: waiting, asking, telling.

use std::collections::BTreeMap;

use opmas::action::Catalogue;
use opmas::model::{Decided, FindingId, RunState, Span, Verdict};
use opmas::playbook::{NextMove, OPMAS, Own, Playbooks, Run, functions, plan, signatures};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn calls(evaluation: &Evaluation) -> Vec<String> {
    match &evaluation.progress {
        Progress::Ready(calls) => calls.iter().map(|call| format!("{} {} {}", call.key.split('-').next().unwrap(), call.device, call.action)).collect(),
        other => panic!("{other:?}"),
    }
}

/// Answers everything that is ready in rounds, with what `answer` says of a call; the rounds and how it ends.
fn rounds(script: &str, answer: impl Fn(&Call) -> OutcomeState) -> (Vec<Vec<String>>, Evaluation) {
    let (mut request, mut rounds) = (request(script), Vec::new());
    loop {
        let evaluation = evaluate(&request);
        let Progress::Ready(ready) = &evaluation.progress else { return (rounds, evaluation) };
        rounds.push(calls(&evaluation));
        request.history.extend(ready.iter().map(|call| recorded(call, answer(call))));
    }
}

#[test]
fn what_branches_ask_for_is_one_set_with_keys_of_their_own() {
    let script = r#"
        let ip = finding.entity("source");
        let done = parallel(devices(), |d| { d.block_ip(ip); d.collect_log().ok });
        print(`${done}`);
        finding.device.collect_log();
    "#;
    let (rounds, end) = rounds(script, |_| OutcomeState::Enforced);
    assert_eq!(
        rounds,
        [
            vec!["1.0.1 gate block_ip", "1.1.1 attic block_ip", "1.2.1 barn block_ip"],
            vec!["1.0.2 gate collect_log", "1.1.2 attic collect_log", "1.2.2 barn collect_log"],
            vec!["2 gate collect_log"]
        ]
    );
    assert_eq!((end.progress, &*end.log[0]), (Progress::Done, "[true, true, true]"));
    assert_eq!(plan(&request(script)).0.len(), 7);
}

#[test]
fn no_more_than_the_limit_are_under_way() {
    let (one, _) = rounds("parallel(devices(), 2, |d| d.collect_log())", |_| OutcomeState::Enforced);
    assert_eq!(one, [vec!["1.0.1 gate collect_log", "1.1.1 attic collect_log"], vec!["1.2.1 barn collect_log"]]);
    let twelve = rounds("let a = []; for n in 0..12 { a.push(n); } parallel(a, |n| finding.device.block_ip(`203.0.113.${n}`))", |_| OutcomeState::Enforced).0;
    assert_eq!(twelve.iter().map(Vec::len).collect::<Vec<_>>(), [10, 2]);
    for (terms, said) in [
        ("0", "`limit` of `parallel` is 1 to 64"),
        ("65", "`limit` of `parallel` is 1 to 64"),
        ("#{ canary: -1 }", "`canary` of `parallel` is 0 to 64"),
        ("#{ limt: 1 }", "`parallel` knows no `limt`; did you mean `limit`?"),
        ("#{ limit: \"2\" }", "`limit` of `parallel` is no whole number"),
    ] {
        match run(&format!("parallel(devices(), {terms}, |d| 1)")).progress {
            Progress::Failed { message, .. } => assert_eq!(message, said),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_canary_goes_first_and_when_it_fails_no_other_is_begun() {
    let script =
        "let r = parallel(devices(), #{ canary: 1 }, |d| { let b = d.block_ip(\"203.0.113.9\"); d.collect_log(); b }); print(`${r.len()} ${r[0].state}`);";
    let (well, end) = rounds(script, |_| OutcomeState::Enforced);
    assert_eq!(well[..2], [vec!["1.0.1 gate block_ip"], vec!["1.0.2 gate collect_log"]]);
    assert_eq!(well[2], ["1.1.1 attic block_ip", "1.2.1 barn block_ip"]);
    assert_eq!(end.log, ["3 enforced"]);
    let (failed, end) = rounds(script, |call| if &*call.action == "block_ip" { OutcomeState::Failed } else { OutcomeState::Enforced });
    assert_eq!(failed, [vec!["1.0.1 gate block_ip"], vec!["1.0.2 gate collect_log"]]);
    assert_eq!((end.progress, end.log), (Progress::Done, vec!["1 failed".to_owned()]));
    // Two of them: one after the other, then the rest.
    let (two, _) = rounds("parallel([1, 2, 3, 4], #{ canary: 2 }, |n| finding.device.block_ip(`203.0.113.${n}`).ok)", |_| OutcomeState::Enforced);
    assert_eq!(two.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn branches_do_not_see_each_other_and_may_fork_again() {
    let shared = "let n = 0; let s = []; parallel(devices(), |d| { n += 1; s.push(d.name); d.block_ip(`203.0.113.${n}`); }); print(`${n} ${s.len()}`);";
    let (rounds_, end) = rounds(shared, |_| OutcomeState::Enforced);
    assert_eq!((rounds_.len(), rounds_[0].len(), end.log), (1, 3, vec!["0 0".to_owned()]));
    let nested = "parallel([1, 2], |a| parallel([1, 2], |b| finding.device.block_ip(`203.0.113.${a * 10 + b}`).ok))";
    let (rounds_, _) = rounds(nested, |_| OutcomeState::Enforced);
    assert_eq!(rounds_, [["1.0.1.0.1 gate block_ip", "1.0.1.1.1 gate block_ip", "1.1.1.0.1 gate block_ip", "1.1.1.1.1 gate block_ip"]]);
}

#[test]
fn a_branch_that_throws_is_heard_when_the_others_have_ended() {
    let script = "parallel(devices(), |d| { if d.name == \"gate\" { throw \"no\" } d.collect_log() });";
    let (rounds_, end) = rounds(script, |_| OutcomeState::Enforced);
    assert_eq!(rounds_, [["1.1.1 attic collect_log", "1.2.1 barn collect_log"]]);
    assert!(matches!(end.progress, Progress::Failed { message, .. } if message == "no"));
    assert_eq!(printed("try { parallel([1], |x| { throw \"no\" }) } catch (e) { print(e) }"), ["no"]);
}

#[test]
fn what_is_caught_in_a_branch_does_not_let_it_go_on() {
    for script in [
        "parallel(devices(), |d| { try { d.collect_log() } catch { } d.block_ip(\"192.0.2.9\"); });",
        "try { parallel(devices(), |d| { try { d.collect_log() } catch { } loop { try { d.block_ip(\"1\"); } catch { } } }); } catch { } print(\"after\");",
        "parallel(devices(), |d| [1].map(|x| { try { d.collect_log() } catch { } d.block_ip(\"192.0.2.9\") }));",
    ] {
        let evaluation = run(script);
        assert_eq!(calls(&evaluation), ["1.0.1 gate collect_log", "1.1.1 attic collect_log", "1.2.1 barn collect_log"], "{script}");
        assert_eq!(evaluation.log, Vec::<String>::new(), "{script}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// However the steps of a set end, and whichever is recorded first, the script asks for the same and ends the same.
    #[test]
    fn the_order_of_a_history_changes_nothing(states in prop::collection::vec(0..3usize, 9), limit in 1..4usize, seed in any::<u64>()) {
        let script = format!(
            "let r = parallel(devices(), {limit}, |d| {{ let o = d.block_ip(finding.entity(\"source\")); if !o.ok {{ d.collect_log(); }} d.block_mac(d.name).state }}); print(`${{r}}`);"
        );
        let state = |call: &Call| {
            let at = usize::from(call.device.len().is_multiple_of(3)) + call.action.len() % 3 * 3;
            [OutcomeState::Enforced, OutcomeState::Failed, OutcomeState::Partial][states[at]]
        };
        let (rounds_, end) = rounds(&script, state);
        prop_assert_eq!(&end.progress, &Progress::Done);
        prop_assert!(rounds_.iter().all(|round| round.len() <= limit));
        let mut request = request(&script);
        let mut n = seed;
        loop {
            let evaluation = evaluate(&request);
            let Progress::Ready(ready) = &evaluation.progress else {
                prop_assert_eq!((&evaluation.progress, &evaluation.log), (&end.progress, &end.log));
                break;
            };
            for call in ready {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(n >> 33).unwrap() % (request.history.len() + 1);
                request.history.insert(at, recorded(call, state(call)));
            }
        }
        let keys: BTreeMap<_, usize> = request.history.iter().map(|recorded| (recorded.key.clone(), 1)).collect();
        prop_assert_eq!(keys.len(), request.history.len());
    }
}

#[test]
fn what_opmas_does_itself_is_a_step_like_any_other() {
    let script = "wait(\"5m\"); approve(\"shall it?\"); print(\"after\");";
    let (rounds_, end) = rounds(script, |_| OutcomeState::Done);
    assert_eq!(rounds_, [["1 opmas itself wait"], ["2 opmas itself approve"]]);
    assert_eq!(end.log, ["after"]);
    let of = |action: &str, params: Value| Own::of(OPMAS, action, params.as_object().unwrap()).unwrap();
    assert_eq!(of("wait", json!({"for": "300s"})).unwrap(), (Own::Wait(Span::secs(300)), json!({"for": "5m"}).as_object().unwrap().clone()));
    for wrong in [json!({}), json!({"for": 5}), json!({"for": "8d"}), json!({"for": "0s"}), json!({"for": "5 m"})] {
        assert!(of("wait", wrong.clone()).unwrap_err().contains("a time between 1s and 7d"), "{wrong}");
    }
    let long = of("notify", json!({"channel": "email", "text": "a\u{1b}[2J\n".repeat(200)})).unwrap().1;
    let text = long["text"].as_str().unwrap();
    assert!(text.chars().count() == 500 && !text.contains(char::is_control), "{text}");
    assert!(Own::of("gate", "wait", &Default::default()).is_none());
    // Telling needs the header's word.
    match run("notify(\"email\", \"x\")").progress {
        Progress::Failed { message, .. } => assert!(message.starts_with("there is no function `notify"), "{message}"),
        other => panic!("{other:?}"),
    }
    for call in ["wait(time)", "approve(text)", "notify(channel, text)", "parallel(list, limit, |item| …)"] {
        assert!(functions().iter().any(|function| function.call == call), "{call}");
    }
}

#[test]
fn a_header_allows_notify_like_an_action_and_waiting_is_checked_before_anything_runs() {
    let load = |actions: &str, script: &str| {
        let text = format!("/*---\ntitle='x'\non={{severity=5}}\nmode='auto'\nactions=[{actions}]\n---*/\n{script}");
        let loaded = Playbooks::load(&[file("p.rhai", &text)], &signatures(&Catalogue::default()));
        loaded.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")
    };
    assert_eq!(load("'notify'", "notify(\"email\", finding.title); wait(\"5m\");"), "");
    assert_eq!(load("", "notify(\"email\", finding.title);"), "p.rhai:7:1: the header does not allow `notify`; add it to `actions`");
    assert_eq!(load("'notify'", "notify(\"email\");"), "p.rhai:7:1: `notify` needs `text`");
    assert!(load("", "wait(\"5 minutes\");").starts_with("p.rhai:7:6: `for` of `wait`: \"5 minutes\" is not a time between 1s and 7d"));
    assert_eq!(load("", "wait(\"5m\", 1);"), "p.rhai:7:1: `wait` takes (for), and is given 2 arguments");
    assert_eq!(load("'wait'", ""), "p.rhai:5:10: unknown action `wait`; known: notify, publish, http_request");
}

#[test]
fn a_run_that_waits_goes_on_at_its_time_and_the_wait_does_not_count_against_its_timeout() {
    let step = |verdict| {
        let params = json!({"for": "5m"}).as_object().unwrap().clone();
        let json = json!({"type": "step", "run": "r", "key": "1-0", "playbook": "p", "device": OPMAS, "action": "wait", "params": params,
            "commands": [], "stdin": [], "decision": "auto", "reason": ""});
        opmas::model::Step { decision: verdict, ..serde_json::from_value(json).unwrap() }
    };
    let begin = || {
        Run::begin(&Decided::Run {
            run: "r".into(),
            playbook: "p".into(),
            revision: "0".into(),
            finding: FindingId("f".into()),
            about: None,
            after: Vec::new(),
            at: Time(0),
            by_hand: None,
        })
    };
    let mut run = begin().unwrap();
    let at = Time(0).plus(Span::secs(10));
    run.apply(&Decided::Intent { step: Box::new(step(Verdict::Auto)), at }).unwrap();
    let until = at.plus(Span::secs(300));
    assert_eq!(run.next(), NextMove::Sleep { key: "1-0".into(), until });
    assert_eq!(run.carried_out().count(), 0);
    // Held by a person meanwhile, it goes on waiting for what is left.
    for state in [RunState::Paused, RunState::Running] {
        run.apply(&Decided::RunMoved { run: "r".into(), state, reason: String::new(), at }).unwrap();
    }
    assert_eq!(run.next(), NextMove::Sleep { key: "1-0".into(), until });
    run.apply(&Decided::Attempt { run: "r".into(), key: "1-0".into(), attempt: 1, at: until }).unwrap();
    run.apply(&Decided::Outcome { run: "r".into(), key: "1-0".into(), outcome: Outcome { at: until, ..outcome(OutcomeState::Done) } }).unwrap();
    assert_eq!((run.next(), run.counts_from()), (NextMove::Evaluate, Time(0).plus(Span::secs(300))));
    let mut run = begin().unwrap();
    run.apply(&Decided::Intent { step: Box::new(step(Verdict::Observe)), at }).unwrap();
    assert_eq!(run.next(), NextMove::Answer { key: "1-0".into(), state: OutcomeState::Planned });
}
