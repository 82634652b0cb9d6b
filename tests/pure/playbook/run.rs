//! The run's state machine: every record in every state, and what is next after a crash.

use opmas::model::{Covered, Decided, FindingId, RunState, Span, Step, Verdict};
use opmas::playbook::{NextMove, RUN_MOVES, Run, STEP_MOVES, StepMove, StepState};

use super::*;

const RUN_STATES: [RunState; 7] =
    [RunState::Running, RunState::Done, RunState::Failed, RunState::Diverged, RunState::Waiting, RunState::Paused, RunState::Cancelled];
const OUTCOMES: [OutcomeState; 8] = [
    OutcomeState::Enforced,
    OutcomeState::Partial,
    OutcomeState::Undone,
    OutcomeState::Refused,
    OutcomeState::Failed,
    OutcomeState::Unknown,
    OutcomeState::Planned,
    OutcomeState::Done,
];

fn begin() -> Decided {
    Decided::Run {
        run: "r".into(),
        playbook: "p".into(),
        revision: "0".into(),
        finding: FindingId("f".into()),
        about: None,
        after: Vec::new(),
        at: Time(0),
        by_hand: None,
    }
}

fn intent(key: &str, decision: Verdict) -> Decided {
    Decided::Intent { step: Box::new(step(key, decision)), at: Time(0) }
}

fn step(key: &str, decision: Verdict) -> Step {
    Step {
        run: "r".into(),
        key: key.into(),
        playbook: "p".into(),
        device: "gate".into(),
        action: "block_ip".into(),
        params: Default::default(),
        commands: Vec::new(),
        stdin: Vec::new(),
        decision,
        reason: "because".into(),
    }
}

fn asked(plan: &[Step]) -> Decided {
    Decided::Asked { run: "r".into(), plan: plan.to_vec(), until: Time(9), at: Time(0) }
}

fn answered(approved: bool, plan: &[Step]) -> Decided {
    let plan = plan.iter().map(Covered::of).collect();
    Decided::Answered { run: "r".into(), playbook: "p".into(), approved, by: "root".into(), because: String::new(), plan, at: Time(0) }
}

fn attempt(key: &str, attempt: u32) -> Decided {
    Decided::Attempt { run: "r".into(), key: key.into(), attempt, at: Time(0) }
}

fn tried(key: &str, attempt: u32) -> Decided {
    Decided::Tried { run: "r".into(), key: key.into(), attempt, detail: "refused".into(), at: Time(0) }
}

fn end(key: &str, state: OutcomeState) -> Decided {
    Decided::Outcome { run: "r".into(), key: key.into(), outcome: outcome(state) }
}

fn moved(state: RunState) -> Decided {
    Decided::RunMoved { run: "r".into(), state, reason: "so".into(), at: Time(0) }
}

fn after(records: &[Decided]) -> Run {
    let mut run = Run::begin(&begin()).unwrap();
    for record in records {
        run.apply(record).unwrap();
    }
    run
}

fn next(records: &[Decided]) -> NextMove {
    after(records).next()
}

/// Runs in every combination of the run's state and its one step's state that can be reached, with what leads there.
fn reachable() -> Vec<(RunState, StepState, Vec<Decided>)> {
    let steps = [
        (StepState::Absent, vec![]),
        (StepState::Intended, vec![intent("1", Verdict::Auto)]),
        (StepState::Attempted, vec![intent("1", Verdict::Auto), attempt("1", 1)]),
        (StepState::Tried, vec![intent("1", Verdict::Auto), attempt("1", 1), tried("1", 1)]),
        (StepState::Unknown, vec![intent("1", Verdict::Auto), attempt("1", 1), end("1", OutcomeState::Unknown)]),
        (StepState::Ended, vec![intent("1", Verdict::Auto), attempt("1", 1), end("1", OutcomeState::Enforced)]),
    ];
    let mut found = Vec::new();
    for (step, records) in steps {
        for state in RUN_STATES {
            let mut records = records.clone();
            records.extend((state != RunState::Running).then(|| moved(state)));
            let mut run = Run::begin(&begin()).unwrap();
            if records.iter().all(|record| run.apply(record).is_ok()) {
                found.push((state, step, records));
            }
        }
    }
    found
}

/// Written down a second time, from the meaning: what may follow what.
fn expected(run: RunState, step: StepState, record: &Decided) -> bool {
    use OutcomeState as O;
    use StepState as S;
    let running = run == RunState::Running;
    match record {
        Decided::Intent { .. } => running && step == S::Absent,
        Decided::Attempt { .. } => running && matches!(step, S::Intended | S::Attempted | S::Tried | S::Unknown),
        Decided::Tried { .. } => matches!(run, RunState::Running | RunState::Waiting | RunState::Paused) && matches!(step, S::Attempted | S::Unknown),
        Decided::Asked { .. } => running,
        // Nothing was asked.
        Decided::Answered { .. } => false,
        Decided::Outcome { outcome, .. } if running || matches!(run, RunState::Waiting | RunState::Paused) => match (step, outcome.state) {
            (S::Intended, O::Planned | O::Refused) => true,
            (S::Tried, O::Failed | O::Refused) => true,
            (S::Attempted, state) => state != O::Planned,
            (S::Unknown, state) => state != O::Planned,
            _ => false,
        },
        Decided::RunMoved { state, .. } => match (run, state) {
            (RunState::Running, RunState::Done) => matches!(step, S::Absent | S::Ended),
            (RunState::Running, RunState::Diverged) | (RunState::Running | RunState::Waiting, RunState::Failed) => step != S::Attempted,
            (RunState::Running | RunState::Waiting | RunState::Paused, RunState::Cancelled) => step != S::Attempted,
            (RunState::Running, RunState::Waiting | RunState::Paused) | (RunState::Waiting | RunState::Paused, RunState::Running) => true,
            _ => false,
        },
        _ => false,
    }
}

#[test]
fn every_record_in_every_state_is_taken_or_refused_as_it_means() {
    let reachable = reachable();
    assert_eq!(reachable.len(), 7 + 6 + 3 + 6 + 6 + 7, "{:?}", reachable.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>());
    let (mut taken, mut refused) = (0, 0);
    for (state, step, records) in reachable {
        let attempts = records.iter().filter(|record| matches!(record, Decided::Attempt { .. })).count();
        let mut candidates = vec![begin(), intent("1", Verdict::Auto), attempt("1", u32::try_from(attempts).unwrap() + 1)];
        candidates.push(tried("1", u32::try_from(attempts).unwrap()));
        candidates.extend(OUTCOMES.map(|outcome| end("1", outcome)));
        candidates.extend(RUN_STATES.map(moved));
        candidates.extend([asked(&[step_of("1")]), answered(true, &[step_of("1")]), answered(false, &[])]);
        candidates.push(Decided::Note { text: "x".into(), at: Time(0) });
        for record in candidates {
            let mut run = after(&records);
            let before = run.clone();
            let result = run.apply(&record);
            assert_eq!(result.is_ok(), expected(state, step, &record), "{state:?} {step:?} {record:?}: {result:?}");
            if result.is_err() {
                assert_eq!(run, before, "a refused record changed something");
                refused += 1;
            } else {
                taken += 1;
            }
        }
    }
    assert!(taken > 40 && refused > 200, "{taken} {refused}");
}

#[test]
fn the_tables_have_no_move_twice_and_leave_nothing_that_has_ended() {
    for (index, (from, by, _)) in STEP_MOVES.iter().enumerate() {
        assert!(!STEP_MOVES[..index].iter().any(|(f, b, _)| (f, b) == (from, by)));
        assert!(*from != StepState::Ended && (*from == StepState::Absent) == (*by == StepMove::Intend));
    }
    assert!(RUN_MOVES.iter().all(|(from, to)| from != to && !from.is_end()));
}

#[test]
fn records_of_another_run_and_uncounted_attempts_are_refused() {
    let mut other = Run::begin(&Decided::Run {
        run: "q".into(),
        playbook: "p".into(),
        revision: "0".into(),
        finding: FindingId("f".into()),
        about: None,
        after: Vec::new(),
        at: Time(0),
        by_hand: None,
    })
    .unwrap();
    for record in [intent("1", Verdict::Auto), attempt("1", 1), end("1", OutcomeState::Enforced), moved(RunState::Done), begin()] {
        assert_eq!(other.apply(&record).unwrap_err().to_string(), "a record that is not about run q was applied to it");
    }
    let mut run = after(&[intent("1", Verdict::Auto)]);
    assert!(run.apply(&attempt("1", 2)).is_err() && run.apply(&attempt("2", 1)).is_err());
    run.apply(&attempt("1", 1)).unwrap();
    assert!(run.apply(&attempt("1", 1)).is_err());
    assert!(Run::begin(&moved(RunState::Done)).is_err());
}

#[test]
fn what_was_not_allowed_is_never_attempted() {
    for verdict in [Verdict::Observe, Verdict::Refused, Verdict::Approve] {
        let mut run = after(&[intent("1", verdict)]);
        assert!(run.apply(&attempt("1", 1)).is_err(), "{verdict:?}");
    }
    // The way back from waiting is no approval.
    let resumed = [intent("1", Verdict::Approve), moved(RunState::Waiting), moved(RunState::Running)];
    assert_eq!(next(&resumed), NextMove::Ask { key: "1".into() });
}

fn step_of(key: &str) -> Step {
    step(key, Verdict::Approve)
}

#[test]
fn an_approval_covers_exactly_its_plan_and_a_step_outside_it_asks_again() {
    let plan = [step_of("1"), step_of("2"), step("3", Verdict::Refused)];
    let waiting = vec![intent("1", Verdict::Approve), asked(&plan), moved(RunState::Waiting)];
    let with = |more: &[Decided]| after(&[waiting.as_slice(), more].concat());
    assert_eq!(with(&[]).next(), NextMove::Wait);
    let approved = [answered(true, &plan[..2]), moved(RunState::Running)];
    assert_eq!(with(&approved).next(), NextMove::Attempt { key: "1".into(), attempt: 1 });
    // What comes later needs no second word when it is the same to the letter.
    let mut run = with(&[approved.as_slice(), &[attempt("1", 1), end("1", OutcomeState::Enforced)]].concat());
    run.apply(&intent("2", Verdict::Approve)).unwrap();
    assert_eq!(run.next(), NextMove::Attempt { key: "2".into(), attempt: 1 });
    for other in [
        Step { key: "2b".into(), ..step_of("2") },
        Step { device: "attic".into(), ..step_of("2") },
        Step { action: "reboot".into(), ..step_of("2") },
        Step { params: [("ip".to_owned(), "192.0.2.9".into())].into_iter().collect(), ..step_of("2") },
    ] {
        let mut run = with(&[approved.as_slice(), &[attempt("1", 1), end("1", OutcomeState::Enforced)]].concat());
        let key = other.key.clone();
        run.apply(&Decided::Intent { step: Box::new(other), at: Time(0) }).unwrap();
        assert_eq!(run.next(), NextMove::Ask { key: key.clone() });
        assert!(run.apply(&attempt(&key, 1)).is_err());
    }
    // An answer covers nothing that was not asked or that was refused, is given once, and a no allows nothing.
    for wrong in [answered(true, &plan), answered(true, &[step_of("4")])] {
        assert!(with(&[]).apply(&wrong).is_err());
    }
    assert!(with(&approved).apply(&answered(true, &plan[..2])).is_err());
    let denied = [answered(false, &plan[..2]), end("1", OutcomeState::Refused), moved(RunState::Cancelled)];
    assert_eq!(with(&denied).next(), NextMove::Finished);
    assert_eq!(with(&[answered(false, &plan[..2]), moved(RunState::Running)]).next(), NextMove::Ask { key: "1".into() });
}

#[test]
fn time_that_a_run_waits_for_a_person_does_not_count() {
    let at = |state, secs| Decided::RunMoved { run: "r".into(), state, reason: String::new(), at: Time(secs) };
    assert_eq!(after(&[]).counts_from(), Time(0));
    let run = after(&[at(RunState::Paused, 5), at(RunState::Running, 30), at(RunState::Waiting, 40), at(RunState::Running, 45)]);
    assert_eq!(run.counts_from(), Time(0).plus(Span(30)));
}

#[test]
fn what_is_not_known_is_looked_at_once_more_when_a_person_resumes_it() {
    let unknown = [intent("1", Verdict::Auto), attempt("1", 1), end("1", OutcomeState::Unknown), moved(RunState::Waiting), moved(RunState::Running)];
    assert_eq!(next(&unknown), NextMove::Settle { key: "1".into(), attempt: 1 });
    let still = [unknown.as_slice(), &[end("1", OutcomeState::Unknown)]].concat();
    assert!(matches!(next(&still), NextMove::Hold { .. }));
}

#[test]
fn o7_an_attempt_without_an_outcome_is_settled_first() {
    let key = || "1".into();
    assert_eq!(next(&[]), NextMove::Evaluate);
    assert_eq!(next(&[intent("1", Verdict::Auto)]), NextMove::Attempt { key: key(), attempt: 1 });
    let attempted = vec![intent("1", Verdict::Auto), attempt("1", 1)];
    assert_eq!(next(&attempted), NextMove::Settle { key: key(), attempt: 1 });
    let with = |more: &[Decided]| next(&[attempted.as_slice(), more].concat());
    assert_eq!(with(&[attempt("1", 2)]), NextMove::Settle { key: key(), attempt: 2 });
    assert_eq!(with(&[end("1", OutcomeState::Enforced)]), NextMove::Evaluate);
    assert_eq!(with(&[end("1", OutcomeState::Failed)]), NextMove::Evaluate);
    assert!(matches!(with(&[end("1", OutcomeState::Unknown)]), NextMove::Hold { .. }));
    assert_eq!(with(&[end("1", OutcomeState::Unknown), moved(RunState::Waiting)]), NextMove::Wait);
    assert_eq!(
        with(&[end("1", OutcomeState::Unknown), moved(RunState::Waiting), end("1", OutcomeState::Enforced), moved(RunState::Running)]),
        NextMove::Evaluate
    );
    assert_eq!(with(&[end("1", OutcomeState::Enforced), moved(RunState::Done)]), NextMove::Finished);
}

#[test]
fn o7_an_attempt_that_came_to_nothing_is_followed_by_the_next_one_and_counted() {
    let mut records = vec![intent("1", Verdict::Auto)];
    for number in 1..=3 {
        records.extend([attempt("1", number), tried("1", number)]);
        assert_eq!(next(&records), NextMove::Attempt { key: "1".into(), attempt: number + 1 });
        assert_eq!(after(&records).step("1").unwrap().tried, (number, "refused".to_owned()));
    }
    assert!(after(&records).apply(&tried("1", 3)).is_err(), "once each");
    let paused = [records.as_slice(), &[moved(RunState::Paused), moved(RunState::Running)]].concat();
    assert_eq!(next(&paused), NextMove::Attempt { key: "1".into(), attempt: 4 });
    // Under way when opmas ended: nobody knows, whatever became of those before.
    records.push(attempt("1", 4));
    assert_eq!(next(&records), NextMove::Settle { key: "1".into(), attempt: 4 });
    assert!(after(&records).apply(&tried("1", 3)).is_err(), "that one is accounted for");
}

#[test]
fn what_cannot_be_asked_waits_with_its_reason_until_a_person_says_what_became_of_it() {
    let Decided::Intent { mut step, at } = intent("1", Verdict::Auto) else { unreachable!() };
    let params = serde_json::json!({"to": "ipam", "values": {}});
    (step.device, step.action, step.params) = (opmas::playbook::OPMAS.into(), "http_request".into(), params.as_object().unwrap().clone());
    let request = Decided::Intent { step, at };
    let waits = [request, attempt("1", 1), end("1", OutcomeState::Unknown), moved(RunState::Waiting)];
    let run = after(&waits);
    assert!(run.unknown().is_some_and(|step| &*step.step.key == "1" && !step.can_be_asked()));
    let resumed = next(&[waits.as_slice(), &[moved(RunState::Running)]].concat());
    assert!(matches!(&resumed, NextMove::Hold { reason, .. } if reason.contains(&outcome(OutcomeState::Unknown).detail)), "{resumed:?}");
    assert_eq!(next(&[waits.as_slice(), &[end("1", OutcomeState::Done), moved(RunState::Running)]].concat()), NextMove::Evaluate);
    let again = [waits.as_slice(), &[tried("1", 1), moved(RunState::Running)]].concat();
    assert_eq!(next(&again), NextMove::Attempt { key: "1".into(), attempt: 2 });
    assert_eq!(after(&again).step("1").unwrap().tried.0, 0, "tries begin anew");
}

#[test]
fn what_is_not_carried_out_is_answered_or_held() {
    let key = || "1".into();
    assert_eq!(next(&[intent("1", Verdict::Observe)]), NextMove::Answer { key: key(), state: OutcomeState::Planned });
    assert_eq!(next(&[intent("1", Verdict::Refused)]), NextMove::Answer { key: key(), state: OutcomeState::Refused });
    assert_eq!(next(&[intent("1", Verdict::Approve)]), NextMove::Ask { key: key() });
}

/// A script and the run together, the engine's part played with every verdict, crashing (forgetting all but the ledger) after each record.
#[test]
fn a_run_that_is_rebuilt_from_the_ledger_after_every_record_takes_each_step_once() {
    for (verdict, asks) in [(Verdict::Auto, 0), (Verdict::Approve, 1)] {
        rebuilt_after_every_record(verdict, asks);
    }
}

fn rebuilt_after_every_record(verdict: Verdict, asks: usize) {
    let script = r#"if finding.device.block_ip("203.0.113.9").ok { device("attic").collect_log(); } device("barn").collect_log();"#;
    let mut ledger = vec![begin()];
    let mut carried_out = Vec::new();
    for _ in 0..50 {
        let mut run = Run::begin(&ledger[0]).unwrap();
        ledger[1..].iter().for_each(|record| run.apply(record).unwrap());
        let record = match run.next() {
            NextMove::Evaluate => match evaluate(&Evaluate { history: run.history(), ..request(script) }).progress {
                Progress::Ready(calls) => intent(&calls[0].key, verdict).with(&calls[0]),
                Progress::Done => moved(RunState::Done),
                other => panic!("{other:?}"),
            },
            NextMove::Attempt { key, attempt: n } => {
                carried_out.push(key.to_string());
                attempt(&key, n)
            }
            NextMove::Settle { key, .. } => end(&key, OutcomeState::Enforced),
            NextMove::Ask { .. } if run.asked().is_none() => {
                let planned = evaluate(&Evaluate { history: run.history(), plan: true, ..request(script) }).planned;
                let of = |call: &Call| match intent(&call.key, verdict).with(call) {
                    Decided::Intent { step, .. } => *step,
                    other => panic!("{other:?}"),
                };
                asked(&planned.iter().map(of).collect::<Vec<_>>())
            }
            NextMove::Ask { .. } => moved(RunState::Waiting),
            NextMove::Wait if run.asked().is_some() => answered(true, &run.asked().unwrap().plan),
            NextMove::Wait => moved(RunState::Running),
            NextMove::Finished => break,
            other => panic!("{other:?}"),
        };
        ledger.push(record);
    }
    assert_eq!(carried_out.iter().map(|key| &key[..2]).collect::<Vec<_>>(), ["1-", "2-", "3-"]);
    assert_eq!(ledger.len(), 1 + 3 * 3 + 1 + 4 * asks, "one answer covers the plan");
}

trait WithCall {
    fn with(self, call: &Call) -> Decided;
}

impl WithCall for Decided {
    fn with(self, call: &Call) -> Decided {
        let Decided::Intent { mut step, at } = self else { panic!("an intent") };
        (step.device, step.action, step.params) = (call.device.clone(), call.action.clone(), call.params.clone());
        Decided::Intent { step, at }
    }
}

#[test]
fn a_run_goes_on_from_the_steps_of_an_earlier_one() {
    let steps = ["1-aa", "2.0.1-bb", "2.1.1-cc", "3-dd"].map(|key| (step(key, Verdict::Auto), outcome(OutcomeState::Enforced)));
    let before = |from: &str| {
        let steps = steps.iter().map(|(step, outcome)| (step, Some(outcome)));
        opmas::playbook::before(steps, from).map(|steps| steps.iter().map(|step| step.key.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(before("1"), Ok(vec![]));
    assert_eq!(before("3-dd"), Ok(vec!["1-aa".into(), "2.0.1-bb".into(), "2.1.1-cc".into()]));
    assert_eq!(before("2.1.1"), Ok(vec!["1-aa".into(), "2.0.1-bb".into()]));
    for none in ["4", "2", "3-de", "", "x", "-"] {
        assert_eq!(before(none), Err(format!("it has no step `{none}`")));
    }
    let open = steps.iter().map(|(step, outcome)| (step, (&*step.key != "1-aa").then_some(outcome)));
    assert_eq!(opmas::playbook::before(open, "3").unwrap_err(), "step 1-aa comes before it and has not ended");
    // They answer the script, and nothing is attempted for them.
    let script = r#"let a = finding.device.block_ip("203.0.113.9"); print(a.state); device("barn").collect_log();"#;
    let Progress::Ready(first) = evaluate(&request(script)).progress else { panic!("a first step") };
    let Decided::Run { run, playbook, revision, finding, about, at, by_hand, .. } = begin() else { panic!("a beginning") };
    let after = vec![recorded(&first[0], OutcomeState::Failed)];
    let run = Run::begin(&Decided::Run { run, playbook, revision, finding, about, after, at, by_hand }).unwrap();
    assert_eq!((run.next(), run.steps().len(), run.failure()), (NextMove::Evaluate, 0, None));
    let evaluation = evaluate(&Evaluate { history: run.history(), ..request(script) });
    assert_eq!((&*evaluation.log[0], &*ready(&evaluation).action), ("failed", "collect_log"));
}
