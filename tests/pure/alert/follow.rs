//! Alerts: what is told once, again, and as over; whatever comes in whatever order, and whenever the process dies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use opmas::alert::{
    Alerts, Answer, Channels, Failure, Intended, MAX_ALERTS, MAX_NAMED, MAX_WAITING, Notice, Outbox, SendError, delivery_id, group, intend, render_text,
    subject,
};
use opmas::model::{AlertChange, AlertState, Decided, DeliveryState, Entity, EntityKind, Finding, FindingId, OfAlert, OpenAlert, Span, Time};
use opmas::triage::{RESOLVE_AFTER, Routed, Routing, Terms};
use proptest::prelude::*;

use super::{HOOK, MAIL, finding, load};

const START: Time = Time(1_800_000_000_000_000_000);
const SLACK: &str = "integration = 'slack'\nchannel = '#alerts'\ntoken_file = 'token'\nurl = 'http://127.0.0.1:9/'";
const DUTY: &str = "integration = 'pagerduty'\nrouting_key_file = 'key'\nurl = 'http://127.0.0.1:9/'";

fn after(seconds: i64) -> Time {
    START.plus(Span::secs(seconds))
}

fn channels() -> Channels {
    let told = format!("{MAIL}\nresolved = true");
    let loaded = load(&[("mail", MAIL), ("told", &told), ("hook", HOOK), ("slack", SLACK), ("duty", DUTY)]);
    assert_eq!(loaded.diagnostics, []);
    loaded.channels
}

/// The n-th finding about an address.
fn found(address: u64, n: u64) -> Finding {
    let mut finding = finding();
    finding.id = FindingId::new(&["test", &address.to_string(), &n.to_string()]);
    finding.group = [("src_ip".to_owned(), format!("203.0.113.{address}").into())].into();
    finding
}

/// What one opmas knows.
struct World {
    channels: Channels,
    terms: Terms,
    ledger: Vec<Decided>,
    alerts: Alerts,
    outbox: Outbox,
}

impl World {
    fn new(terms: Terms) -> World {
        let channels = channels();
        let outbox = Outbox::new(&channels);
        World { channels, terms, ledger: Vec::new(), alerts: Alerts::default(), outbox }
    }

    fn record(&mut self, records: Vec<Decided>) {
        for record in records {
            self.alerts.apply(&record);
            self.outbox.apply(&record).unwrap();
            self.ledger.push(record);
        }
    }

    fn find(&mut self, finding: &Finding, to: &[&str], at: Time) -> Intended {
        let to = to.iter().map(|channel| Routed { route: "urgent".into(), channel: (*channel).into(), reason: "x".into(), terms: self.terms }).collect();
        let routing = Routing { to, reason: "to all".into() };
        let intended = intend(&self.outbox, &self.alerts, &self.channels, finding, &routing, at);
        self.record(intended.records.clone());
        intended
    }

    /// Everything that is due at a time, as the engine records it.
    fn look(&mut self, now: Time) {
        loop {
            let due = self.alerts.due(&self.outbox, &self.channels, now);
            if due.is_empty() {
                return;
            }
            self.record(due);
        }
    }

    /// Every delivery that waits is accepted; messages get names.
    fn deliver(&mut self, now: Time) {
        loop {
            let due = self.outbox.due(now);
            if due.is_empty() {
                return;
            }
            for due in due {
                let attempt = self.outbox.attempt(&due.delivery, now).unwrap();
                self.record(vec![attempt]);
                let receipt = due.of.as_ref().and_then(|of| of.receipt.clone()).unwrap_or_else(|| format!("C1/{}", due.delivery).into());
                let mut answer = Answer::new("ok");
                answer.receipt = (&*due.channel == "slack").then_some(receipt);
                let outcome = self.outbox.outcome(&due.delivery, &Ok(answer), now).unwrap();
                self.record(vec![outcome]);
            }
        }
    }

    /// `CHANNEL firing 3` for each delivery, with `=` where it changes a message.
    fn told(&self) -> Vec<String> {
        let one = |decided: &Decided| match decided {
            Decided::Delivery { channel, of: Some(of), .. } => {
                let state = if of.state == AlertState::Firing { "firing" } else { "over" };
                Some(format!("{channel} {state} {}{}", of.count, if of.receipt.is_some() { " =" } else { "" }))
            }
            _ => None,
        };
        self.ledger.iter().filter_map(one).collect()
    }

    /// The newest delivery of a channel.
    fn newest(&self, to: &str) -> (Arc<str>, Vec<FindingId>, OfAlert) {
        let newest = self.ledger.iter().rev().find_map(|decided| match decided {
            Decided::Delivery { delivery, channel, findings, of: Some(of), .. } if **channel == *to => {
                Some((delivery.clone(), findings.clone(), (**of).clone()))
            }
            _ => None,
        });
        newest.unwrap()
    }
}

#[test]
fn a_message_each_or_one_that_changes_and_an_end() {
    let all = ["mail", "told", "hook", "slack", "duty"];
    let mut world = World::new(Terms::default());
    let intended = world.find(&found(1, 0), &all, START);
    assert_eq!((intended.records.len(), intended.reason.as_str()), (10, "to all"));
    world.deliver(START);
    let fired = ["mail firing 1", "told firing 1", "hook firing 1", "slack firing 1", "duty firing 1"];
    assert_eq!(world.told(), fired);
    for n in 1..=3 {
        let intended = world.find(&found(1, n), &all, after(n as i64));
        let id = delivery_id(&found(1, 0).id, "urgent", "slack");
        let ordinal = ["2nd", "3rd", "4th"][n as usize - 1];
        assert!(intended.reason.contains(&format!("; slack: {ordinal} finding of alert {}", &id[..12])), "{}", intended.reason);
    }
    world.deliver(after(3));
    world.look(after(4));
    assert_eq!(world.told().len(), 5 + 9, "mails and webhooks at once, the others not yet");
    world.look(after(5));
    world.deliver(after(5));
    assert_eq!(
        world.told()[14..],
        ["slack firing 4 =", "duty firing 4"].map(str::to_owned).into_iter().collect::<BTreeSet<_>>().into_iter().rev().collect::<Vec<_>>()[..]
    );
    world.look(after(3 + 3_599));
    assert_eq!(world.told().len(), 16);
    world.look(after(3 + 3_600));
    world.deliver(after(3 + 3_600));
    let over: BTreeSet<String> = world.told()[16..].iter().cloned().collect();
    assert_eq!(over, ["told over 4", "hook over 4", "slack over 4 =", "duty over 4"].map(str::to_owned).into());
    assert_eq!((world.alerts.count(), world.alerts.next_wake()), (0, None));
    // The next is another alert.
    world.find(&found(1, 9), &all, after(9_000));
    assert_eq!(world.told().iter().filter(|told| told.ends_with("firing 1")).count(), 10);
}

#[test]
fn what_changes_names_the_same_alert_and_the_message() {
    let mut world = World::new(Terms::default());
    for n in 0..30 {
        world.find(&found(1, n), &["slack", "duty", "hook"], after(n as i64 * 10));
        world.deliver(after(n as i64 * 10));
        world.look(after(n as i64 * 10 + 9));
        world.deliver(after(n as i64 * 10 + 9));
    }
    world.look(after(9_000));
    for channel in ["slack", "duty", "hook"] {
        let (delivery, findings, of) = world.newest(channel);
        let first = delivery_id(&found(1, 0).id, "urgent", channel);
        assert_eq!((of.id.clone(), of.count, of.since, of.state), (first.clone(), 30, START, AlertState::Resolved));
        assert_eq!((findings.len(), &findings[0], &findings[MAX_NAMED - 1]), (MAX_NAMED, &found(1, 0).id, &found(1, 29).id));
        let notice = Notice::of_findings(vec![Arc::new(found(1, 29))], "urgent", channel, after(9_000), vec![]).of_alert(of.clone(), findings);
        assert_eq!(notice.alert.key(), first, "the key that the other side knows");
        assert_eq!(notice.receipt, (channel == "slack").then(|| format!("C1/{first}").into()));
        assert!(delivery != first);
        assert!(subject(&notice).starts_with("[opmas] resolved: SSH login"), "{}", subject(&notice));
        let text = render_text(&notice, &delivery);
        for said in [
            "Resolved\n  This is over since",
            ": no further finding came for 1h. It told of:",
            "30 findings\n  The newest of 30 findings since 2027-01-15 08:00:00 UTC:",
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}

#[test]
fn nothing_overtakes_and_what_was_not_heard_is_not_taken_back() {
    let mut world = World::new(Terms::default());
    world.find(&found(1, 0), &["slack", "duty"], START);
    world.look(after(9_000));
    assert_eq!((world.told().len(), world.alerts.next_wake()), (2, None), "it waits for its deliveries");
    for due in world.outbox.due(START) {
        let refused = Err(SendError::permanent("no"));
        let outcome = world.outbox.outcome(&due.delivery, &refused, after(9_000)).unwrap();
        world.record(vec![outcome]);
    }
    world.look(after(9_000));
    assert_eq!((world.told().len(), world.alerts.count()), (2, 0));
}

#[test]
fn o7_a_cut_change_is_made_again_a_cut_message_is_not() {
    let mut world = World::new(Terms::default());
    world.find(&found(1, 0), &["slack"], START);
    world.deliver(START);
    world.look(after(3_600));
    let due = world.outbox.due(after(3_600)).remove(0);
    world.record(vec![world.outbox.attempt(&due.delivery, after(3_600)).unwrap()]);
    let settled = world.outbox.settle(after(3_601));
    assert!(matches!(&settled[..], [Decided::DeliveryOutcome { state: DeliveryState::Retry, .. }]), "{settled:?}");
    // What says itself that it may have been a new message is not sent again.
    let lost = Err(SendError { kind: Failure::Ambiguous, detail: "reset".into() });
    let outcome = world.outbox.outcome(&due.delivery, &lost, after(3_601));
    assert!(matches!(&outcome, Some(Decided::DeliveryOutcome { state: DeliveryState::Unknown, .. })), "{outcome:?}");
    // The first message, cut: unknown; its end is told all the same.
    let mut world = World::new(Terms::default());
    world.find(&found(1, 0), &["slack"], START);
    let due = world.outbox.due(START).remove(0);
    world.record(vec![world.outbox.attempt(&due.delivery, START).unwrap()]);
    let settled = world.outbox.settle(after(1));
    assert!(matches!(&settled[..], [Decided::DeliveryOutcome { state: DeliveryState::Unknown, .. }]), "{settled:?}");
    world.record(settled);
    world.look(after(3_600));
    assert_eq!(world.told(), ["slack firing 1", "slack over 1"]);
}

#[test]
fn a_repeat_interval_holds_messages_back_and_never_is_never() {
    let mut world = World::new(Terms { resolve_after: None, repeat_interval: Some(Span::secs(600)) });
    for n in 0..20 {
        world.find(&found(1, n), &["mail"], after(n as i64 * 60));
        world.look(after(n as i64 * 60));
        world.deliver(after(n as i64 * 60));
    }
    assert_eq!(world.told(), ["mail firing 1", "mail firing 11"]);
    let (_, findings, _) = world.newest("mail");
    assert_eq!(findings.len(), MAX_NAMED, "the ten since then");
    world.look(after(20 * 60));
    world.deliver(after(20 * 60));
    assert_eq!(world.told().last().unwrap(), "mail firing 20");
    assert_eq!((world.newest("mail").1.len(), world.alerts.next_wake()), (9, None));
    world.look(after(1_000_000_000));
    assert_eq!((world.told().len(), world.alerts.count()), (3, 1));
}

#[test]
fn findings_belong_together_by_rule_group_and_device() {
    let key = |finding: &Finding| serde_json::to_string(&group(finding)).unwrap();
    assert_eq!(key(&found(1, 0)), r#"{"device":"router1","rule":"openwrt_ssh_login_after_failures","src_ip":"203.0.113.1"}"#);
    let mut other = found(1, 0);
    (other.device, other.group) = (None, [("rule".to_owned(), "x".into()), ("device".to_owned(), "y".into())].into());
    assert_eq!(key(&other), r#"{"device":"y","opmas.rule":"openwrt_ssh_login_after_failures","rule":"x"}"#);
    // Without a group, what it is about.
    other.group.clear();
    other.entities = [("user".to_owned(), Entity { kind: EntityKind::User, value: "é".repeat(5_000).into() })].into();
    let long = key(&other);
    assert!(long.len() < 500 && long.contains("…"), "{long}");
    other.entities = [("user".to_owned(), Entity { kind: EntityKind::User, value: "é".repeat(5_001).into() })].into();
    assert_ne!(key(&other), long, "what is cut is told apart");
}

#[test]
fn when_too_many_are_open_the_oldest_ends_and_says_why() {
    let mut world = World::new(Terms::default());
    for n in 0..MAX_ALERTS as u64 {
        world.find(&found(n, 0), &["duty"], after(n as i64));
    }
    world.deliver(after(MAX_ALERTS as i64));
    world.find(&found(0, 1), &["duty"], after(3_000));
    let intended = world.find(&found(9_999, 0), &["duty"], after(3_000));
    assert_eq!((intended.evicted, world.alerts.count()), (1, MAX_ALERTS));
    let over: Vec<_> = world
        .ledger
        .iter()
        .filter_map(|one| if let Decided::Alert { change: AlertChange::Resolved, alert, reason, .. } = one { Some((alert, reason)) } else { None })
        .collect();
    assert_eq!((&over[0].0.findings[0], over[0].1.as_str()), (&found(1, 0).id, "it is no longer followed, since more than 2000 alerts are open"));
    assert!(world.told().contains(&"duty over 1".to_owned()));
    // None can end while all are on their way: then a finding is told by itself.
    let mut world = World::new(Terms::default());
    for n in 0..MAX_ALERTS as u64 {
        world.find(&found(n, 0), &["duty"], START);
    }
    let intended = world.find(&found(9_999, 0), &["duty"], START);
    assert!(matches!(&intended.records[..], [Decided::Delivery { of: None, .. }]));
    assert!(intended.reason.ends_with("duty: by itself: too many alerts are open"), "{}", intended.reason);
}

#[test]
fn a_full_queue_drops_a_message_each_but_not_a_change_that_comes_later() {
    let mut world = World::new(Terms::default());
    world.find(&found(1, 0), &["hook", "slack"], START);
    world.deliver(START);
    for n in 0..MAX_WAITING as u64 {
        for channel in ["hook", "slack"] {
            world.record(vec![Decided::Delivery {
                delivery: format!("{channel}{n}").into(),
                route: "r".into(),
                channel: channel.into(),
                findings: vec![],
                at: START,
                of: None,
            }]);
        }
    }
    let intended = world.find(&found(1, 1), &["hook", "slack"], after(1));
    assert_eq!((intended.records.len(), intended.dropped), (2, 1), "{}", intended.reason);
    assert!(intended.reason.contains("not delivered to hook: 10000 deliveries wait"), "{}", intended.reason);
    world.look(after(9_000));
    assert_eq!((world.told().len(), world.alerts.count()), (2, 2), "an end waits for room too");
    let first = world.outbox.due(START).into_iter().find(|due| &*due.channel == "slack").unwrap();
    let refused = world.outbox.outcome(&first.delivery, &Err(SendError::permanent("no")), after(9_000)).unwrap();
    world.record(vec![refused]);
    world.look(after(9_000));
    assert_eq!(world.told()[2..], ["slack over 2 ="]);
}

#[derive(Clone, Debug)]
enum Turn {
    Find(u64),
    Wait(i64),
    /// A try of every channel: accepted, not now, lost.
    Work(u8),
    /// Before the attempt, between it and the outcome, or in between.
    Die(bool),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => (0..3_u64).prop_map(Turn::Find),
        2 => prop_oneof![1..8_i64, 3_000..4_000_i64].prop_map(Turn::Wait),
        4 => (0..4_u8).prop_map(Turn::Work),
        1 => any::<bool>().prop_map(Turn::Die),
    ]
}

/// What the other sides show: Slack's messages by name, incidents by key, each with how often it was made and whether it is over.
#[derive(Default)]
struct Others {
    messages: BTreeMap<String, (u32, bool)>,
    incidents: BTreeMap<String, bool>,
    ends: BTreeMap<(Arc<str>, Arc<str>), u32>,
}

struct Sim {
    world: World,
    others: Others,
    now: Time,
    n: u64,
}

impl Sim {
    fn turn(&mut self, turn: &Turn) {
        match turn {
            Turn::Find(address) => {
                self.n += 1;
                self.world.find(&found(*address, self.n), &["slack", "duty"], self.now);
            }
            Turn::Wait(seconds) => self.now = self.now.plus(Span::secs(*seconds)),
            Turn::Work(reply) => self.work(*reply, false),
            Turn::Die(sent) => {
                self.work(if *sent { 0 } else { 3 }, true);
                let ledger = self.world.ledger.clone();
                let mut read = World::new(self.world.terms);
                // As the ledger has it on disk.
                read.record(serde_json::from_str(&serde_json::to_string(&ledger).unwrap()).unwrap());
                assert_eq!(read.alerts, self.world.alerts, "the ledger has everything");
                let settled = read.outbox.settle(self.now);
                read.record(settled);
                self.world = read;
            }
        }
        self.world.look(self.now);
    }

    /// 0: accepted; 1: not now; 2: the answer is lost; 3: nothing arrives and nothing is known. `dies` before an outcome is recorded.
    fn work(&mut self, reply: u8, dies: bool) {
        for due in self.world.outbox.due(self.now) {
            let attempt = self.world.outbox.attempt(&due.delivery, self.now).unwrap();
            self.world.record(vec![attempt]);
            let of = due.of.clone().unwrap();
            let slack = &*due.channel == "slack";
            let name = of.receipt.clone().unwrap_or_else(|| format!("C1/{}", due.delivery).into());
            if matches!(reply, 0 | 2) {
                let over = of.state == AlertState::Resolved;
                if slack {
                    let message = self.others.messages.entry(name.to_string()).or_default();
                    message.0 += u32::from(of.receipt.is_none());
                    message.1 = over;
                } else if !over || self.others.incidents.contains_key(&*of.id) {
                    self.others.incidents.insert(of.id.to_string(), !over);
                }
                if over {
                    *self.others.ends.entry((of.id.clone(), due.delivery.clone())).or_default() += 1;
                }
            }
            if dies {
                continue;
            }
            let mut accepted = Answer::new("ok");
            accepted.receipt = slack.then_some(name);
            // As Slack's channel judges it: a change can be made again.
            let lost = if slack && of.receipt.is_some() { Failure::Retryable { after: None } } else { Failure::Ambiguous };
            let error = |kind| Err(SendError { kind, detail: "no".into() });
            let answer = match reply {
                0 => Ok(accepted),
                1 => error(Failure::Retryable { after: None }),
                _ => error(lost),
            };
            let outcome = self.world.outbox.outcome(&due.delivery, &answer, self.now).unwrap();
            self.world.record(vec![outcome]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn o7_each_alert_is_one_message_and_one_incident_and_ends_once(turns in proptest::collection::vec(turn(), 1..80)) {
        let mut sim = Sim { world: World::new(Terms::default()), others: Others::default(), now: START, n: 0 };
        turns.iter().for_each(|turn| sim.turn(turn));
        // Quiet, and everybody answers.
        for _ in 0..40 {
            sim.turn(&Turn::Work(0));
            sim.turn(&Turn::Wait(700));
        }
        prop_assert_eq!(sim.world.alerts.count(), 0);
        prop_assert!(sim.others.incidents.values().all(|open| !open), "every incident is over");
        prop_assert!(sim.others.messages.values().all(|(made, _)| *made == 1), "no message is made twice");
        let mut ends: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        for (alert, delivery) in sim.others.ends.keys() {
            ends.entry(alert.clone()).or_default().insert(delivery.clone());
        }
        prop_assert!(ends.values().all(|deliveries| deliveries.len() == 1), "one end, under one id");
        // What Slack is known to have shown is shown as over.
        let known: BTreeSet<String> = sim.world.ledger.iter().filter_map(|one| match one {
            Decided::DeliveryOutcome { receipt: Some(receipt), .. } => Some(receipt.to_string()),
            _ => None,
        }).collect();
        prop_assert!(known.iter().all(|name| sim.others.messages[name].1), "{:?}", sim.others.messages);
    }
}

#[test]
fn the_default_is_an_hour_and_older_ledgers_are_read() {
    assert_eq!(RESOLVE_AFTER, Span::secs(3_600));
    let old = r#"{"record":"delivery","delivery":"d","route":"r","channel":"mail","findings":["f"],"at":"2027-01-15T08:00:00Z"}"#;
    let read: Decided = serde_json::from_str(old).unwrap();
    assert!(matches!(&read, Decided::Delivery { of: None, .. }));
    assert_eq!(serde_json::to_string(&read).unwrap(), old, "and written as they were");
    let mut world = World::new(Terms::default());
    world.record(vec![read]);
    assert_eq!(world.alerts.count(), 0);
    let open: OpenAlert = serde_json::from_str(
        r#"{"id":"a","route":"r","channel":"c","group":{"rule":"x"},"findings":["f"],"count":1,"since":"2027-01-15T08:00:00Z","last":"2027-01-15T08:00:00Z","until":null,"repeat":"5s"}"#,
    )
    .unwrap();
    assert_eq!((open.until, open.repeat), (None, Some(Span::secs(5))));
}
