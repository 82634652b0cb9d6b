//! Leases: verified, asserted again, ended once.

use std::sync::Arc;

use opmas::action::{Guard, GuardConfig, LeaseId, LeaseOp, LeaseState, LeaseWork, Leases, MAX_WORK, Protected};
use opmas::model::{Decided, Inventory, LeaseChange, Outcome, OutcomeState, Span, Step, Time, Verdict};
use proptest::prelude::*;
use serde_json::json;

use super::{all, map, shipped};

const EVERY: Span = Span::secs(60);

fn at(seconds: i64) -> Time {
    Time(1_800_000_000_000_000_000).plus(Span::secs(seconds))
}

fn empty() -> Leases {
    Leases::new(Arc::new(shipped()), EVERY)
}

fn outcome(state: OutcomeState, seconds: i64, detail: &str) -> Outcome {
    Outcome { state, detail: detail.into(), at: at(seconds), took_ms: 5, until: None, evidence: None }
}

fn step(run: &str, device: &str, ip: &str, duration: &str) -> Step {
    Step {
        run: run.into(),
        key: "0".into(),
        playbook: "block_source".into(),
        device: device.into(),
        action: "block_ip".into(),
        params: map(json!({"ip": ip, "duration": duration})),
        commands: Vec::new(),
        stdin: Vec::new(),
        decision: Verdict::Auto,
        reason: String::new(),
    }
}

/// Grants as the engine does: by the record of a step that was carried out.
fn grant(leases: &mut Leases, step: &Step, seconds: i64) -> LeaseId {
    let record = leases.granted(step, &outcome(OutcomeState::Enforced, seconds, "there")).unwrap();
    leases.apply(&record).unwrap();
    leases.id(&step.device, &step.action, &step.params)
}

/// Hands the outcome in, and applies the record that comes of it.
fn settle(leases: &mut Leases, id: &LeaseId, state: OutcomeState, seconds: i64, detail: &str) -> Option<LeaseChange> {
    let record = leases.done(id, at(seconds), &outcome(state, seconds, detail))?;
    leases.apply(&record).unwrap();
    match record {
        Decided::Lease { change, .. } => Some(change),
        other => panic!("{other:?}"),
    }
}

fn ops(work: &[LeaseWork]) -> Vec<LeaseOp> {
    work.iter().map(|w| w.op).collect()
}

#[test]
fn a_held_lease_is_verified_every_minute_and_ended_at_its_end() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "150s"), 0);
    assert_eq!(leases.wakes(at(0)), Some(at(60)));
    assert!(leases.due(at(59)).is_empty());
    for minute in [60, 120] {
        let work = leases.due(at(minute));
        assert_eq!(ops(&work), [LeaseOp::Verify]);
        assert_eq!(work[0].params["duration"], json!(Span::secs(150 - minute).to_string()), "the time that is left");
        assert!(leases.due(at(minute)).is_empty(), "handed out once");
        assert_eq!(settle(&mut leases, &id, OutcomeState::Enforced, minute, "there"), None, "nothing new for the ledger");
    }
    assert_eq!(leases.wakes(at(120)), Some(at(150)));
    assert!(leases.due(at(149)).is_empty());
    let work = leases.due(at(150));
    assert_eq!(ops(&work), [LeaseOp::End]);
    assert_eq!(work[0].params["duration"], "150s", "undone with the parameters it was asked for with");
    assert_eq!(settle(&mut leases, &id, OutcomeState::Undone, 151, "gone"), Some(LeaseChange::Ended));
    assert_eq!((leases.active().count(), leases.wakes(at(151))), (0, None));
}

#[test]
fn an_effect_that_is_gone_is_asserted_again_for_the_time_that_is_left() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1h"), 0);
    for (state, detail) in [(OutcomeState::Undone, "no table"), (OutcomeState::Partial, "chain input is missing")] {
        let start = leases.wakes(at(0)).unwrap().since(at(0)).as_secs();
        assert_eq!(ops(&leases.due(at(start))), [LeaseOp::Verify]);
        assert_eq!(settle(&mut leases, &id, state, start, detail), None);
        let work = leases.due(at(start));
        assert_eq!(ops(&work), [LeaseOp::Reassert], "at once");
        assert_eq!(work[0].params["duration"], json!(Span::secs(3600 - start).to_string()));
        assert_eq!(settle(&mut leases, &id, OutcomeState::Enforced, start + 1, "there"), Some(LeaseChange::Reasserted));
        assert!(leases.due(at(start + 2)).is_empty());
    }
}

#[test]
fn what_was_never_more_than_partial_is_not_asserted_every_minute() {
    let mut leases = empty();
    let step = step("r1", "gw", "203.0.113.9", "1h");
    let record = leases.granted(&step, &outcome(OutcomeState::Partial, 0, "flow offloading is on")).unwrap();
    leases.apply(&record).unwrap();
    let id = leases.id(&step.device, &step.action, &step.params);
    assert_eq!(ops(&leases.due(at(60))), [LeaseOp::Verify]);
    assert_eq!(settle(&mut leases, &id, OutcomeState::Partial, 60, "flow offloading is on"), None);
    assert_eq!(ops(&leases.due(at(120))), [LeaseOp::Verify]);
    assert_eq!(settle(&mut leases, &id, OutcomeState::Partial, 120, "chain forward is missing"), None);
    assert_eq!(ops(&leases.due(at(120))), [LeaseOp::Reassert], "this is something else");
}

#[test]
fn an_unreachable_device_is_tried_less_and_less_often_and_named_lost_once() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1d"), 0);
    leases.due(at(60));
    settle(&mut leases, &id, OutcomeState::Undone, 60, "no table");
    let (mut now, mut lost, mut waits) = (60, 0, Vec::new());
    for _ in 0..9 {
        assert_eq!(ops(&leases.due(at(now))), [LeaseOp::Reassert]);
        lost += usize::from(settle(&mut leases, &id, OutcomeState::Failed, now, "no route to host") == Some(LeaseChange::Lost));
        assert_eq!(leases.get(&id).unwrap().state, LeaseState::Lost);
        assert_eq!(leases.get(&id).unwrap().trouble.as_deref(), Some("no route to host"));
        let next = leases.wakes(at(now)).unwrap().since(at(0)).as_secs();
        waits.push(next - now);
        now = next;
    }
    assert_eq!((lost, waits), (1, vec![5, 10, 20, 40, 80, 160, 300, 300, 300]));
    leases.due(at(now));
    assert_eq!(settle(&mut leases, &id, OutcomeState::Enforced, now, "there"), Some(LeaseChange::Reasserted));
    assert_eq!(leases.get(&id).unwrap().state, LeaseState::Held);
}

#[test]
fn an_unknown_outcome_is_settled_by_reading_back() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1h"), 0);
    leases.due(at(60));
    settle(&mut leases, &id, OutcomeState::Undone, 60, "no table");
    leases.due(at(60));
    assert_eq!(settle(&mut leases, &id, OutcomeState::Unknown, 60, "session lost"), None);
    assert_eq!(ops(&leases.due(at(65))), [LeaseOp::Verify]);
}

#[test]
fn two_runs_that_ask_for_the_same_effect_share_it_until_the_later_end() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1h"), 0);
    assert_eq!(grant(&mut leases, &step("r2", "gw", "203.0.113.9", "2h"), 10), id);
    let other = grant(&mut leases, &step("r2", "ap", "203.0.113.9", "30s"), 10);
    assert_ne!(other, id);
    let lease = leases.get(&id).unwrap();
    assert_eq!((lease.until, lease.owners.len(), &*lease.run), (at(7210), 2, "r1"));

    // A shorter one afterwards has shortened the router's own time: that is mended at once.
    grant(&mut leases, &step("r3", "gw", "203.0.113.9", "1m"), 20);
    assert_eq!(leases.get(&id).unwrap().until, at(7210));
    let work = leases.due(at(20));
    assert_eq!((ops(&work), &work[0].params["duration"]), (vec![LeaseOp::Reassert], &json!("7190s")));
    settle(&mut leases, &id, OutcomeState::Enforced, 21, "there");

    let ends: Vec<LeaseWork> = leases.due(at(7210)).into_iter().filter(|w| w.op == LeaseOp::End).collect();
    assert_eq!(ends.len(), 2);
    assert_eq!(settle(&mut leases, &id, OutcomeState::Undone, 7211, "gone"), Some(LeaseChange::Ended));
    assert_eq!(leases.done(&id, at(7212), &outcome(OutcomeState::Undone, 7212, "gone")), None);
}

#[test]
fn a_new_grant_while_it_is_being_ended_is_not_lost() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1m"), 0);
    assert_eq!(ops(&leases.due(at(60))), [LeaseOp::End]);
    grant(&mut leases, &step("r2", "gw", "203.0.113.9", "1h"), 61);
    assert_eq!(settle(&mut leases, &id, OutcomeState::Undone, 62, "gone"), None);
    assert_eq!(ops(&leases.due(at(62))), [LeaseOp::Reassert]);
}

#[test]
fn after_downtime_the_records_alone_say_what_is_due() {
    let mut leases = empty();
    let mut records = Vec::new();
    for (run, ip, duration) in [("r1", "203.0.113.9", "1h"), ("r2", "203.0.113.10", "1d")] {
        records.push(leases.granted(&step(run, "gw", ip, duration), &outcome(OutcomeState::Enforced, 0, "there")).unwrap());
    }
    records.push(Decided::Note { text: "not about leases".into(), at: at(1) });
    for record in &records {
        leases.apply(record).unwrap();
    }
    assert_eq!(ops(&leases.due(at(7200))), [LeaseOp::End, LeaseOp::Verify], "the one that has expired is only ended");
}

#[test]
fn moves_that_the_table_does_not_have_are_refused() {
    for change in [LeaseChange::Reasserted, LeaseChange::Lost, LeaseChange::Ended, LeaseChange::Extended, LeaseChange::Revoked] {
        let mut leases = empty();
        let step = step("r1", "gw", "203.0.113.9", "1h");
        let Some(Decided::Lease { run, key, device, action, params, until, at, detail, .. }) =
            leases.granted(&step, &outcome(OutcomeState::Enforced, 0, "there"))
        else {
            panic!("a lease");
        };
        let record = Decided::Lease { run, key, device, action, params, change, until, at, detail };
        let error = leases.apply(&record).unwrap_err();
        assert!(error.to_string().contains("the lease of block_ip on gw (ip=203.0.113.9) cannot be"), "{error}");
        assert_eq!(leases.active().count(), 0);
        // Granted first, each of them is legal; and an end ends once.
        grant(&mut leases, &step, 0);
        leases.apply(&record).unwrap();
        assert_eq!(leases.apply(&record).is_err(), change == LeaseChange::Ended);
    }
}

fn by_hand(leases: &mut Leases, id: &LeaseId, change: LeaseChange, until: i64, now: i64) {
    let record = leases.get(id).unwrap().changed(change, at(until), at(now), "by root");
    leases.apply(&record).unwrap();
}

#[test]
fn a_lease_that_is_extended_is_asserted_again_at_once_for_the_time_that_it_has_now() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1h"), 0);
    by_hand(&mut leases, &id, LeaseChange::Extended, 7_200, 100);
    let due = leases.due(at(100));
    assert_eq!((ops(&due), &due[0].params["duration"]), (vec![LeaseOp::Reassert], &json!("7100s")));
    assert!(!leases.get(&id).unwrap().is_settled(at(100)));
    assert_eq!(settle(&mut leases, &id, OutcomeState::Enforced, 101, "there"), Some(LeaseChange::Reasserted));
    assert!(leases.get(&id).unwrap().is_settled(at(101)));
    assert_eq!(ops(&leases.due(at(3_601))), [LeaseOp::Verify], "its first end is not its end");
    assert_eq!(leases.longest("block_ip"), Some(Span::secs(30 * 86_400)));
}

#[test]
fn a_lease_that_is_revoked_is_undone_at_once_and_until_it_is_gone() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1h"), 0);
    // Also while it is being looked at.
    assert_eq!(ops(&leases.due(at(60))), [LeaseOp::Verify]);
    by_hand(&mut leases, &id, LeaseChange::Revoked, 61, 61);
    assert_eq!(settle(&mut leases, &id, OutcomeState::Undone, 61, "gone"), None);
    assert_eq!(ops(&leases.due(at(61))), [LeaseOp::End]);
    assert_eq!(settle(&mut leases, &id, OutcomeState::Failed, 62, "no route"), None);
    assert_eq!(ops(&leases.due(at(67))), [LeaseOp::End], "never put back");
    assert_eq!(settle(&mut leases, &id, OutcomeState::Undone, 68, "gone"), Some(LeaseChange::Ended));
    assert_eq!(leases.active().count(), 0);
}

#[test]
fn what_comes_to_be_protected_is_revoked_and_only_that() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1h"), 0);
    grant(&mut leases, &step("r2", "gw", "198.51.100.7", "1h"), 0);
    let guard = |protect: &[&str]| {
        let protect = protect.iter().map(|net| Protected::parse(net).unwrap()).collect();
        Guard::new(&GuardConfig { protect }, &Inventory::default(), [])
    };
    assert_eq!(leases.protected(&guard(&["10.0.0.0/8"]), at(1)), []);
    let over = leases.protected(&guard(&["203.0.113.0/24"]), at(1));
    let [record @ Decided::Lease { change: LeaseChange::Revoked, detail, .. }] = &over[..] else { panic!("{over:?}") };
    assert!(detail.contains("203.0.113.9 must not be blocked: it is protected by `203.0.113.0/24`"), "{detail}");
    leases.apply(record).unwrap();
    assert_eq!(leases.protected(&guard(&["203.0.113.0/24"]), at(2)), [], "once");
    assert_eq!(leases.due(at(2)).iter().map(|work| (work.id.clone(), work.op)).collect::<Vec<_>>(), [(id, LeaseOp::End)]);
}

#[test]
fn only_an_effect_makes_a_lease() {
    let leases = empty();
    let step = step("r1", "gw", "203.0.113.9", "1h");
    for state in [OutcomeState::Failed, OutcomeState::Refused, OutcomeState::Unknown, OutcomeState::Planned, OutcomeState::Undone] {
        assert_eq!(leases.granted(&step, &outcome(state, 0, "")), None, "{state:?}");
    }
}

#[test]
fn work_is_handed_out_in_bounded_portions_ends_first() {
    let mut leases = empty();
    for n in 0..100 {
        grant(&mut leases, &step("r1", "gw", &format!("203.0.113.{n}"), if n % 2 == 0 { "1h" } else { "2h" }), 0);
    }
    let first = leases.due(at(3600));
    assert_eq!(first.len(), MAX_WORK);
    assert_eq!(first.iter().filter(|w| w.op == LeaseOp::End).count(), 50);
    assert_eq!(leases.due(at(3600)).len(), 100 - MAX_WORK);
    assert!(leases.has_room());
}

/// A device that the leases are run against: whether the effect is there, and until when the kernel keeps it.
#[derive(Default)]
struct Router {
    there_until: Option<Time>,
}

#[derive(Clone, Debug)]
enum Happening {
    Wait(i64),
    Unreachable,
    TableGone,
    LostAnswer,
    GrantAgain(i64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let one = prop_oneof![
        4 => (1i64..400).prop_map(Happening::Wait),
        1 => Just(Happening::Unreachable),
        1 => Just(Happening::TableGone),
        1 => Just(Happening::LostAnswer),
        1 => (1i64..900).prop_map(Happening::GrantAgain),
    ];
    prop::collection::vec(one, 1..60)
}

/// Carries work out on the router, as the executor would.
fn perform(router: &mut Router, work: &LeaseWork, now: i64, reachable: bool, answered: bool) -> OutcomeState {
    if !reachable {
        return OutcomeState::Failed;
    }
    let there = router.there_until.is_some_and(|until| at(now) < until);
    let state = match work.op {
        LeaseOp::Verify if there => OutcomeState::Enforced,
        LeaseOp::Verify => OutcomeState::Undone,
        LeaseOp::Reassert => {
            let left: Span = work.params["duration"].as_str().unwrap().parse().unwrap();
            router.there_until = Some(at(now).plus(left));
            OutcomeState::Enforced
        }
        LeaseOp::End => {
            router.there_until = None;
            OutcomeState::Undone
        }
    };
    if answered { state } else { OutcomeState::Unknown }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn never_applied_after_its_end_ended_once_and_the_ledger_alone_tells_the_same(script in happenings()) {
        let mut leases = empty();
        let mut router = Router::default();
        let (mut ledger, mut now, mut until, mut ended) = (Vec::new(), 0i64, Time::MIN, 0);
        let (mut reachable, mut answered) = (true, true);
        // Ten minutes without trouble at the end let everything settle.
        let calm = std::iter::repeat_n(Happening::Wait(100), 25);
        for (n, happening) in std::iter::once(Happening::GrantAgain(600)).chain(script.clone()).chain(calm).enumerate() {
            if n > script.len() {
                (reachable, answered) = (true, true);
            }
            match happening {
                Happening::Wait(seconds) => now += seconds,
                Happening::Unreachable => reachable = !reachable,
                Happening::TableGone => router.there_until = None,
                Happening::LostAnswer => answered = !answered,
                Happening::GrantAgain(seconds) => {
                    let lifetime = format!("{seconds}s");
                    let record = leases.granted(&step("r1", "gw", "203.0.113.9", &lifetime), &outcome(OutcomeState::Enforced, now, "there")).unwrap();
                    leases.apply(&record).unwrap();
                    ledger.push(record);
                    router.there_until = Some(at(now + seconds));
                    until = if leases.active().count() == 1 && ended > 0 && until < at(now) { at(now + seconds) } else { until.max(at(now + seconds)) };
                }
            }
            for _ in 0..4 {
                for work in leases.due(at(now)) {
                    prop_assert!(work.op == LeaseOp::End || at(now) < work.until, "applied or looked at after its end");
                    prop_assert!(work.op != LeaseOp::End || at(now) >= work.until, "ended before its end");
                    let state = perform(&mut router, &work, now, reachable, answered);
                    prop_assert!(router.there_until.is_none_or(|kernel| kernel <= until.plus(Span::secs(1))), "the router keeps it longer than was asked for");
                    if let Some(record) = leases.done(&work.id, at(now), &outcome(state, now, "there")) {
                        ended += usize::from(matches!(record, Decided::Lease { change: LeaseChange::Ended, .. }));
                        leases.apply(&record).unwrap();
                        ledger.push(record);
                    }
                }
            }
        }
        let grants = ledger.iter().filter(|r| matches!(r, Decided::Lease { change: LeaseChange::Granted, .. })).count();
        prop_assert_eq!(leases.active().count(), 0, "everything has ended");
        prop_assert!((1..=grants).contains(&ended));
        prop_assert!(router.there_until.is_none());
        let mut again = empty();
        for record in &ledger {
            prop_assert_eq!(again.apply(record), Ok(()));
        }
        prop_assert_eq!(again.active().count(), 0);
    }
}

#[test]
fn leases_stand_under_a_changed_catalogue_also_while_they_are_looked_at() {
    let mut leases = empty();
    let step = step("r1", "gw", "203.0.113.9", "150s");
    let old = grant(&mut leases, &step, 0);
    assert_eq!(ops(&leases.due(at(60))), [LeaseOp::Verify]);
    // The action's file is deleted; the effect is named by all parameters then.
    leases.configure(Arc::new(opmas::action::Catalogue::default()));
    let new = leases.id(&step.device, &step.action, &step.params);
    assert_ne!(old, new);
    assert_eq!(leases.done(&old, at(61), &outcome(OutcomeState::Undone, 61, "gone")), None, "an answer to what is no more");
    assert_eq!(ops(&leases.due(at(61))), [LeaseOp::Verify], "asked again");
    assert_eq!(settle(&mut leases, &new, OutcomeState::Enforced, 62, "there"), None);
    assert_eq!(ops(&leases.due(at(150))), [LeaseOp::End]);
    assert_eq!(settle(&mut leases, &new, OutcomeState::Undone, 151, "gone"), Some(LeaseChange::Ended));
}

#[test]
fn a_ban_is_made_anew_every_half_hour_also_after_a_restart() {
    let ban = Step { action: "ban_station".into(), params: map(json!({"mac": "00:11:22:aa:bb:cc", "duration": "3h"})), ..step("r1", "gw", "", "") };
    let mut leases = Leases::new(Arc::new(all()), EVERY);
    let mut ledger = vec![leases.granted(&ban, &outcome(OutcomeState::Enforced, 0, "there")).unwrap()];
    leases.apply(&ledger[0]).unwrap();
    let id = leases.id(&ban.device, &ban.action, &ban.params);
    let (mut made, mut now) = (Vec::new(), 60);
    while now < 3 * 3600 {
        if now == 2400 {
            // As opmas starts anew: the records alone.
            leases = Leases::new(Arc::new(all()), EVERY);
            ledger.iter().for_each(|record| leases.apply(record).unwrap());
        }
        while let Some(work) = leases.due(at(now)).pop() {
            if work.op == LeaseOp::Reassert {
                made.push((now, work.params["duration"].clone()));
            }
            let record = leases.done(&id, at(now), &outcome(OutcomeState::Enforced, now, "there"));
            record.iter().for_each(|record| leases.apply(record).unwrap());
            ledger.extend(record);
        }
        now += 60;
    }
    assert_eq!(made.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1800, 3600, 5400, 7200, 9000], "{made:?}");
    assert_eq!(made[0].1, json!("150m"), "the time that is left");
    assert_eq!(ops(&leases.due(at(3 * 3600))), [LeaseOp::End]);
}

#[test]
fn unblocking_ends_the_lease_of_the_block_with_the_same_address_on_the_same_device() {
    let mut leases = Leases::new(Arc::new(all()), EVERY);
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1h"), 0);
    let unblock = |device: &str, ip: &str| Step { action: "unblock_ip".into(), params: map(json!({"ip": ip})), ..step("r2", device, ip, "1h") };
    let done = outcome(OutcomeState::Enforced, 9, "it is not there");
    assert_eq!(leases.ended_by(&unblock("ap", "203.0.113.9"), &done), None);
    assert_eq!(leases.ended_by(&unblock("gw", "203.0.113.8"), &done), None);
    assert_eq!(leases.ended_by(&unblock("gw", "203.0.113.9"), &outcome(OutcomeState::Failed, 9, "no")), None);
    assert_eq!(leases.ended_by(&step("r2", "gw", "203.0.113.9", "1h"), &done), None, "a block ends nothing");
    let record = leases.ended_by(&unblock("gw", "203.0.113.9"), &done).unwrap();
    leases.apply(&record).unwrap();
    assert_eq!(ops(&leases.due(at(9))), [LeaseOp::End]);
    assert_eq!(settle(&mut leases, &id, OutcomeState::Undone, 10, "gone"), Some(LeaseChange::Ended));
}

#[test]
fn a_device_that_may_have_lost_everything_is_looked_at_at_once() {
    let mut leases = empty();
    grant(&mut leases, &step("r1", "gw", "203.0.113.9", "1h"), 0);
    grant(&mut leases, &step("r1", "ap", "203.0.113.9", "1h"), 0);
    assert!(leases.due(at(5)).is_empty());
    leases.look_at("gw", at(5));
    assert_eq!(leases.due(at(5)).iter().map(|work| &*work.id.device).collect::<Vec<_>>(), ["gw"]);
}

#[test]
fn an_end_that_was_missed_waits_for_its_next_try_or_for_the_device_to_come_back() {
    let mut leases = empty();
    let id = grant(&mut leases, &step("r1", "gw", "203.0.113.9", "2m"), 0);
    let mut now = 120;
    for wait in [5, 10, 20, 40] {
        assert_eq!(ops(&leases.due(at(now))), [LeaseOp::End]);
        assert_eq!(settle(&mut leases, &id, OutcomeState::Failed, now, "no route to host"), None);
        assert!(leases.due(at(now)).is_empty());
        assert_eq!(leases.wakes(at(now)), Some(at(now + wait)), "not in the past, though it was to be read back before its end");
        now += wait;
    }
    assert_eq!(ops(&leases.due(at(now))), [LeaseOp::End]);
    settle(&mut leases, &id, OutcomeState::Failed, now, "no route to host");
    leases.look_at("gw", at(now + 1));
    assert_eq!(ops(&leases.due(at(now + 1))), [LeaseOp::End], "the device is back");
    assert_eq!(settle(&mut leases, &id, OutcomeState::Undone, now + 2, "gone"), Some(LeaseChange::Ended));
}
