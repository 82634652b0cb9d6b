//! O7 for deliveries: whatever goes wrong and whenever the process dies, a webhook is not lost, a mail is not sent twice,
//! and what is not known is shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use opmas::alert::{
    Alerts, Answer, Due, Failure, IN_ORDER_TRIES, Illegal, MAX_AGE, MAX_RETRY_AFTER, MAX_WAITING, Outbox, SendError, Standing, backoff, intend,
};
use opmas::model::{Decided, DeliveryState, FindingId, Span, Time};
use opmas::triage::{Routed, Routing, Terms};
use proptest::prelude::*;

use super::{MAIL, channels, finding, load};

const START: Time = Time(1_800_000_000_000_000_000);

fn intent(id: &str, channel: &str, at: Time) -> Decided {
    Decided::Delivery { delivery: id.into(), route: "r".into(), channel: channel.into(), findings: vec![FindingId(id.into())], at, of: None }
}

fn attempt(id: &str, attempt: u32) -> Decided {
    Decided::DeliveryAttempt { delivery: id.into(), attempt, at: START }
}

fn outcome(id: &str, state: DeliveryState, next: Option<Time>) -> Decided {
    Decided::DeliveryOutcome { delivery: id.into(), state, detail: String::new(), at: START, next, receipt: None }
}

fn outbox(records: &[Decided]) -> Outbox {
    let mut outbox = Outbox::new(&channels());
    records.iter().for_each(|record| outbox.apply(record).unwrap());
    outbox
}

fn refused(kind: Failure) -> Result<Answer, SendError> {
    Err(SendError { kind, detail: "451 not now".into() })
}

fn ids(due: &[Due]) -> Vec<&str> {
    due.iter().map(|due| &*due.delivery).collect()
}

#[test]
fn deliveries_of_a_channel_go_one_by_one_in_order() {
    let mut outbox = outbox(&[intent("m1", "mail", START), intent("m2", "mail", START), intent("h1", "hook", START)]);
    assert_eq!(ids(&outbox.due(START)), ["h1", "m1"]);
    outbox.claim(&"m1".into());
    assert_eq!(ids(&outbox.due(START)), ["h1"], "a claimed one is not due again");
    outbox.apply(&attempt("m1", 1)).unwrap();
    assert_eq!(ids(&outbox.due(START)), ["h1"], "an open one holds its channel");
    outbox.apply(&outcome("m1", DeliveryState::Sent, None)).unwrap();
    assert_eq!(ids(&outbox.due(START)), ["h1", "m2"]);
    outbox.claim(&"m2".into());
    outbox.release("m2");
    assert_eq!(ids(&outbox.due(START)), ["h1", "m2"]);
    // Also when the ledger alone tells of the attempt.
    let read = self::outbox(&[intent("m1", "mail", START), intent("m2", "mail", START), attempt("m1", 1)]);
    assert_eq!((read.due(START), read.next_wake(START)), (vec![], None));
}

#[test]
fn a_dead_channel_delays_no_other() {
    let later = START.plus(Span::secs(60));
    let outbox =
        outbox(&[intent("h1", "hook", START), intent("m1", "mail", START), outcome("h1", DeliveryState::Retry, Some(later)), intent("h2", "hook", START)]);
    assert_eq!(ids(&outbox.due(START)), ["m1"]);
    assert_eq!(outbox.next_wake(START), Some(START));
    assert_eq!(ids(&outbox.due(later)), ["h1", "m1"]);
}

#[test]
fn one_that_the_other_side_cannot_take_steps_aside() {
    let mut outbox = outbox(&[intent("h1", "hook", START), intent("h2", "hook", START)]);
    let later = START.plus(Span::secs(300));
    for _ in 0..IN_ORDER_TRIES {
        assert_eq!(ids(&outbox.due(later)), ["h1"]);
        outbox.apply(&outcome("h1", DeliveryState::Retry, Some(later))).unwrap();
    }
    assert_eq!(ids(&outbox.due(START)), ["h2"]);
    assert_eq!(ids(&outbox.due(later)), ["h1"], "in order again when both are due");
    assert_eq!(outbox.next_wake(START), Some(START));
}

#[test]
fn o7_an_attempt_without_an_outcome_is_repeated_by_key_or_unknown() {
    let mut outbox = outbox(&[intent("m1", "mail", START), intent("h1", "hook", START), attempt("m1", 1), attempt("h1", 1)]);
    assert_eq!(outbox.due(START), []);
    let settled = outbox.settle(START);
    settled.iter().for_each(|record| outbox.apply(record).unwrap());
    assert_eq!(ids(&outbox.due(START)), ["h1"]);
    assert_eq!(outbox.due(START)[0].attempt, 2);
    assert_eq!(outbox.standing("m1"), Some(&Standing::Settled(DeliveryState::Unknown)));
    assert_eq!(outbox.unknown().map(|due| &*due.delivery).collect::<Vec<_>>(), ["m1"]);
    assert_eq!(outbox.settle(START), []);
}

/// The name that a channel gave its message is in the ledger, so that a later notice finds it after a restart too.
#[test]
fn a_receipt_survives_a_restart() {
    let mut answer = Answer::new("ok");
    answer.receipt = Some("C1/1.2".into());
    let mut ledger = vec![intent("m1", "mail", START), intent("h1", "hook", START), attempt("m1", 1), attempt("h1", 1)];
    let outbox = outbox(&ledger);
    ledger.push(outbox.outcome(&"m1".into(), &Ok(answer), START).unwrap());
    ledger.push(outbox.outcome(&"h1".into(), &Ok(Answer::new("ok")), START).unwrap());
    let written = serde_json::to_string(&ledger).unwrap();
    assert_eq!(written.matches("receipt").count(), 1, "only where there is one: {written}");
    let read = self::outbox(&serde_json::from_str::<Vec<Decided>>(&written).unwrap());
    assert_eq!((read.receipt("m1").as_deref(), read.receipt("h1"), read.receipt("x")), (Some("C1/1.2"), None, None));
}

#[test]
fn o7_a_channel_that_is_gone_is_not_repeated() {
    let mut outbox = outbox(&[intent("h1", "hook", START), attempt("h1", 1)]);
    outbox.configure(&load(&[("mail", MAIL)]).channels);
    assert!(matches!(&outbox.settle(START)[..], [Decided::DeliveryOutcome { state: DeliveryState::Unknown, .. }]));
}

#[test]
fn what_an_answer_means() {
    let mut outbox = outbox(&[intent("m1", "mail", START), intent("h1", "hook", START), attempt("m1", 1), attempt("h1", 1)]);
    let state = |outbox: &Outbox, id: &str, answer| match outbox.outcome(&id.into(), &answer, START) {
        Some(Decided::DeliveryOutcome { state, next, .. }) => (state, next.map(|next| next.since(START))),
        other => panic!("{other:?}"),
    };
    assert_eq!(state(&outbox, "m1", refused(Failure::Permanent)), (DeliveryState::Failed, None));
    assert_eq!(state(&outbox, "m1", refused(Failure::Ambiguous)), (DeliveryState::Unknown, None));
    assert_eq!(state(&outbox, "h1", refused(Failure::Ambiguous)), (DeliveryState::Retry, Some(backoff("h1", 1))));
    let after = |after| refused(Failure::Retryable { after: Some(after) });
    assert_eq!(state(&outbox, "h1", after(Span::secs(90))), (DeliveryState::Retry, Some(Span::secs(90))), "Retry-After is honoured");
    assert_eq!(state(&outbox, "h1", after(Span::ZERO)), (DeliveryState::Retry, Some(backoff("h1", 1))), "and never shortens");
    assert_eq!(state(&outbox, "h1", after(Span::secs(99_999))), (DeliveryState::Retry, Some(MAX_RETRY_AFTER)), "and is bounded");
    outbox.apply(&outcome("m1", DeliveryState::Sent, None)).unwrap();
    assert_eq!(outbox.outcome(&"m1".into(), &refused(Failure::Permanent), START), None, "a settled one stays settled");
    assert_eq!(outbox.attempt(&"m1".into(), START), None);
}

#[test]
fn a_day_of_failures_is_enough() {
    let mut outbox = outbox(&[intent("h1", "hook", START)]);
    let mut now = START;
    loop {
        let due = outbox.due(now);
        outbox.apply(&outbox.attempt(&due[0].delivery, now).unwrap()).unwrap();
        let record = outbox.outcome(&due[0].delivery, &refused(Failure::Retryable { after: None }), now).unwrap();
        outbox.apply(&record).unwrap();
        match outbox.next_wake(now) {
            Some(next) => now = next,
            None => {
                let Decided::DeliveryOutcome { state, detail, .. } = record else { unreachable!() };
                assert_eq!(state, DeliveryState::Failed);
                assert!(detail.starts_with("given up after ") && detail.ends_with("the last: 451 not now"), "{detail}");
                break;
            }
        }
    }
    let lived = now.since(START);
    assert!(lived <= MAX_AGE && lived.as_secs() > MAX_AGE.as_secs() - 600, "{lived:?}");
}

#[test]
fn a_clock_set_back_does_not_stop_the_channel() {
    let outbox = outbox(&[intent("h1", "hook", START), outcome("h1", DeliveryState::Retry, Some(START.plus(Span::secs(10))))]);
    let back = START.minus(Span::secs(365 * 86_400));
    assert_eq!(outbox.next_wake(back), Some(back));
    assert_eq!(ids(&outbox.due(back)), ["h1"]);
}

#[test]
fn illegal_moves_are_refused_and_change_nothing() {
    let records = [intent("m1", "mail", START), attempt("m1", 1), outcome("m1", DeliveryState::Sent, None), intent("m2", "mail", START)];
    let mut outbox = outbox(&records);
    let before = format!("{outbox:?}");
    let illegal = [
        intent("m1", "mail", START),
        intent("m2", "mail", START),
        attempt("m1", 1),
        attempt("m1", 2),
        attempt("m2", 2),
        attempt("m3", 1),
        outcome("m1", DeliveryState::Retry, None),
        outcome("m1", DeliveryState::Sent, None),
        outcome("m2", DeliveryState::Sent, None),
        outcome("m2", DeliveryState::Unknown, None),
        outcome("m3", DeliveryState::Failed, None),
    ];
    for record in &illegal {
        outbox.apply(record).unwrap_err();
    }
    assert_eq!(format!("{outbox:?}"), before);
    assert_eq!(outbox.apply(&illegal[0]), Err(Illegal::Twice("m1".into())));
    outbox.apply(&Decided::Note { text: String::new(), at: START }).unwrap();
}

fn routing(channels: &[&str]) -> Routing {
    let to = channels.iter().map(|channel| Routed { route: "r".into(), channel: (*channel).into(), reason: "x".into(), terms: Terms::default() }).collect();
    Routing { to, reason: "to all".into() }
}

#[test]
fn what_is_not_delivered_says_why() {
    let loaded = load(&[("mail", MAIL), ("off", &format!("{MAIL}\nenabled = false")), ("bad", "?")]);
    let mut outbox = Outbox::new(&loaded.channels);
    let intended = intend(&outbox, &Alerts::default(), &loaded.channels, &finding(), &routing(&["off", "mail", "bad", "gone"]), START);
    assert_eq!(
        intended.reason,
        "to all; not delivered to off: it is disabled in notifiers/off.toml; not delivered to bad: its file does not load; not delivered to gone: it is not configured"
    );
    assert_eq!((intended.records.len(), intended.dropped), (2, 0), "an alert and its delivery");
    intended.records.iter().for_each(|record| outbox.apply(record).unwrap());
    assert_eq!(outbox.due(START)[0].findings, [finding().id]);
    for n in 1..MAX_WAITING {
        assert!(outbox.has_room("mail"));
        outbox.apply(&intent(&format!("m{n}"), "mail", START)).unwrap();
    }
    let intended = intend(&outbox, &Alerts::default(), &loaded.channels, &finding(), &routing(&["mail"]), START);
    assert_eq!((intended.reason.as_str(), intended.dropped), ("to all; not delivered to mail: 10000 deliveries wait for it already", 1));
}

/// One turn of the engine's worker.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// A new alert for the mail (or the webhook) channel.
    Intend(bool),
    /// Whatever is due is worked on; so the other side answers, and so far the process gets.
    Work(Reply, Death),
    /// So many seconds pass.
    Wait(i64),
    /// The process dies between two works.
    Die,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reply {
    /// The way to it is broken before the attempt.
    Unreachable,
    /// It says no for now, and has not kept the message.
    NotNow,
    /// It has kept the message and says so.
    Accepted,
    /// It has kept the message, and its answer is lost.
    Lost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    Never,
    BeforeAttempt,
    BeforeSending,
    BeforeOutcome,
}

fn turn() -> impl Strategy<Value = Turn> {
    let reply = prop_oneof![Just(Reply::Unreachable), Just(Reply::NotNow), Just(Reply::Accepted), Just(Reply::Lost)];
    let death = prop_oneof![4 => Just(Death::Never), 1 => Just(Death::BeforeAttempt), 1 => Just(Death::BeforeSending), 1 => Just(Death::BeforeOutcome)];
    prop_oneof![
        any::<bool>().prop_map(Turn::Intend),
        (reply, death).prop_map(|(reply, death)| Turn::Work(reply, death)),
        (0..100i64).prop_map(Turn::Wait),
        Just(Turn::Die)
    ]
}

/// The ledger, the process before it dies, and what the other sides hold.
struct World {
    ledger: Vec<Decided>,
    outbox: Outbox,
    now: Time,
    /// How often each delivery was kept by the other side.
    kept: BTreeMap<Arc<str>, u32>,
    intended: BTreeMap<Arc<str>, bool>,
}

impl World {
    fn append(&mut self, record: Decided) {
        self.outbox.apply(&record).unwrap();
        self.ledger.push(record);
    }

    fn die(&mut self) {
        self.outbox = outbox(&self.ledger);
        for record in self.outbox.settle(self.now) {
            self.append(record);
        }
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Intend(mail) => {
                let id = format!("d{}", self.intended.len());
                self.intended.insert(id.as_str().into(), mail);
                self.append(intent(&id, if mail { "mail" } else { "hook" }, self.now));
            }
            Turn::Wait(seconds) => self.now = self.now.plus(Span::secs(seconds)),
            Turn::Die => self.die(),
            Turn::Work(reply, death) => {
                let due = self.outbox.due(self.now);
                assert!(due.len() <= 2 && due.iter().filter(|due| &*due.channel == "mail").count() <= 1, "one at a time for each channel");
                for due in due {
                    self.outbox.claim(&due.delivery);
                    if self.work(&due, reply, death) {
                        return self.die();
                    }
                }
            }
        }
    }

    /// True when the process died on the way.
    fn work(&mut self, due: &Due, reply: Reply, death: Death) -> bool {
        let id = &due.delivery;
        if reply != Reply::Unreachable {
            if death == Death::BeforeAttempt {
                return true;
            }
            let record = self.outbox.attempt(id, self.now).unwrap();
            assert!(matches!(record, Decided::DeliveryAttempt { attempt, .. } if attempt == due.attempt));
            self.append(record);
            if death == Death::BeforeSending {
                return true;
            }
            *self.kept.entry(id.clone()).or_default() += u32::from(reply != Reply::NotNow);
        }
        if death == Death::BeforeOutcome {
            return true;
        }
        let lost = if &*due.channel == "mail" { Failure::Ambiguous } else { Failure::Retryable { after: None } };
        let answer = match reply {
            Reply::Unreachable | Reply::NotNow => refused(Failure::Retryable { after: None }),
            Reply::Accepted => Ok(answer()),
            Reply::Lost => refused(lost),
        };
        let record = self.outbox.outcome(id, &answer, self.now).unwrap();
        self.append(record);
        false
    }
}

fn answer() -> Answer {
    Answer::new("250 accepted")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn o7_webhooks_are_not_lost_and_mails_not_sent_twice(turns in proptest::collection::vec(turn(), 1..60)) {
        let mut world = World { ledger: vec![], outbox: outbox(&[]), now: START, kept: BTreeMap::new(), intended: BTreeMap::new() };
        turns.into_iter().for_each(|turn| world.turn(turn));
        // The other sides come back, and nothing dies any more.
        while let Some(next) = world.outbox.next_wake(world.now) {
            world.now = next;
            world.turn(Turn::Work(Reply::Accepted, Death::Never));
        }
        for (id, mail) in &world.intended {
            let kept = world.kept.get(id).copied().unwrap_or(0);
            let standing = world.outbox.standing(id).unwrap();
            let unknown = world.outbox.unknown().any(|due| due.delivery == *id);
            if *mail {
                prop_assert!(kept <= 1, "mail {} arrived {} times", id, kept);
                prop_assert_eq!(unknown, *standing != Standing::Settled(DeliveryState::Sent), "not known to have been sent is shown");
                prop_assert!(unknown || kept == 1, "sent means arrived");
            } else {
                prop_assert_eq!(standing, &Standing::Settled(DeliveryState::Sent));
                prop_assert!(kept >= 1, "webhook {} was lost", id);
            }
        }
    }

    /// The ledger tells everything: what is due and when is the same for the process that wrote it and for one that read it.
    #[test]
    fn a_replayed_outbox_is_the_same(turns in proptest::collection::vec(turn(), 1..40)) {
        let mut world = World { ledger: vec![], outbox: outbox(&[]), now: START, kept: BTreeMap::new(), intended: BTreeMap::new() };
        turns.into_iter().for_each(|turn| world.turn(turn));
        let read = outbox(&world.ledger);
        prop_assert_eq!(read.due(world.now), world.outbox.due(world.now));
        prop_assert_eq!(read.next_wake(world.now), world.outbox.next_wake(world.now));
    }

    #[test]
    fn waits_grow_and_are_bounded(id in "[0-9a-f]{32}", tries in 1u32..1_000) {
        let wait = backoff(&id, tries);
        prop_assert_eq!(wait, backoff(&id, tries));
        let full = Span::secs(2i64.saturating_mul(1 << (tries - 1).min(9)).min(600));
        prop_assert!(wait.0 >= full.0 / 2 && wait <= full, "{wait:?} of {full:?}");
    }
}
