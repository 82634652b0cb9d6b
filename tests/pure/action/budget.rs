//! How much a playbook may do.

use opmas::action::{Budget, Budgets, OverBudget};
use opmas::model::{Covered, Decided, RunState, Step, Time, Verdict};

const HOUR: i64 = 3600;

fn at(seconds: i64) -> Time {
    Time(seconds * 1_000_000_000)
}

fn step(run: &str, key: &str, device: &str, decision: Verdict) -> Step {
    Step {
        run: run.into(),
        key: key.into(),
        playbook: "block_source".into(),
        device: device.into(),
        action: "block_ip".into(),
        params: serde_json::Map::new(),
        commands: Vec::new(),
        stdin: Vec::new(),
        decision,
        reason: String::new(),
    }
}

fn intent(step: &Step, seconds: i64) -> Decided {
    Decided::Intent { step: Box::new(step.clone()), at: at(seconds) }
}

#[test]
fn the_hour_slides_and_plans_cost_nothing() {
    let budget = Budget { devices: 20, per_hour: 2 };
    let mut budgets = Budgets::default();
    let steps: Vec<Step> = ["r1", "r2", "r3"].map(|run| step(run, "0", "gw", Verdict::Auto)).to_vec();
    budgets.apply(&intent(&step("r0", "0", "gw", Verdict::Observe), 0));
    budgets.apply(&intent(&steps[0], 0));
    budgets.apply(&intent(&steps[1], 10));
    assert_eq!(budgets.check(&steps[2], budget, at(11)), Err(OverBudget::PerHour { playbook: "block_source".into(), per_hour: 2 }));
    assert_eq!(budgets.check(&steps[1], budget, at(11)), Ok(()), "a step that is counted already is not counted again");
    assert!(budgets.check(&steps[2], budget, at(HOUR - 1)).is_err());
    assert_eq!(budgets.check(&steps[2], budget, at(HOUR)), Ok(()), "an hour after the first");
    let other = Step { playbook: "other".into(), ..step("r4", "0", "gw", Verdict::Auto) };
    assert_eq!(budgets.check(&other, budget, at(11)), Ok(()), "another playbook has its own");
}

#[test]
fn what_waits_for_a_person_counts_when_it_is_approved() {
    let budget = Budget { devices: 1, per_hour: 2 };
    let mut budgets = Budgets::default();
    let waits = step("r1", "0", "gw", Verdict::Approve);
    budgets.apply(&intent(&waits, 0));
    let more = [step("r1", "1", "attic", Verdict::Approve), step("r2", "0", "gw", Verdict::Auto)];
    assert_eq!(budgets.check(&more[0], budget, at(1)), Ok(()), "whoever makes steps wait uses nothing up");
    let answer = |approved| Decided::Answered {
        run: "r1".into(),
        playbook: "block_source".into(),
        approved,
        by: "root".into(),
        because: String::new(),
        plan: vec![Covered::of(&waits)],
        at: at(1),
    };
    budgets.apply(&answer(false));
    assert_eq!(budgets.check(&more[0], budget, at(1)), Ok(()));
    budgets.apply(&answer(true));
    assert!(matches!(budgets.check(&more[0], budget, at(2)), Err(OverBudget::Devices { .. })));
    assert_eq!(budgets.check(&waits, budget, at(2)), Ok(()), "the step itself is counted already");
    budgets.apply(&intent(&more[1], 2));
    assert!(matches!(budgets.check(&step("r3", "0", "gw", Verdict::Auto), budget, at(3)), Err(OverBudget::PerHour { .. })));
}

#[test]
fn an_intent_written_again_after_a_crash_is_one_step() {
    let budget = Budget { devices: 1, per_hour: 2 };
    let mut budgets = Budgets::default();
    for _ in 0..5 {
        budgets.apply(&intent(&step("r1", "0", "gw", Verdict::Auto), 0));
    }
    assert_eq!(budgets.check(&step("r1", "1", "gw", Verdict::Auto), budget, at(1)), Ok(()));
}

#[test]
fn a_run_touches_no_more_devices_than_it_may_until_it_has_ended() {
    let budget = Budget { devices: 2, per_hour: 100 };
    let mut budgets = Budgets::default();
    for (key, device) in [("0", "a"), ("1", "b"), ("2", "a")] {
        let step = step("r1", key, device, Verdict::Auto);
        assert_eq!(budgets.check(&step, budget, at(0)), Ok(()));
        budgets.apply(&intent(&step, 0));
    }
    let third = step("r1", "3", "c", Verdict::Auto);
    assert_eq!(budgets.check(&third, budget, at(0)), Err(OverBudget::Devices { playbook: "block_source".into(), devices: 2 }));
    assert_eq!(budgets.check(&step("r2", "0", "c", Verdict::Auto), budget, at(0)), Ok(()), "another run");
    budgets.apply(&Decided::RunMoved { run: "r1".into(), state: RunState::Done, reason: String::new(), at: at(1) });
    assert_eq!(budgets.check(&third, budget, at(2)), Ok(()));
}

#[test]
fn a_budget_of_nothing_allows_nothing() {
    let none = step("r1", "0", "gw", Verdict::Auto);
    assert!(Budgets::default().check(&none, Budget { devices: 0, per_hour: 9 }, at(0)).is_err());
    assert!(Budgets::default().check(&none, Budget { devices: 9, per_hour: 0 }, at(0)).is_err());
    assert_eq!(toml::from_str::<Budget>("devices = 3").unwrap(), Budget { devices: 3, per_hour: 100 });
    assert!(toml::from_str::<Budget>("device = 3").is_err());
}
