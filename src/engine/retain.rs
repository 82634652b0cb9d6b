//! The ledger over months: its head is published every hour (`[ledger] publish_head`), and what is older than it is kept goes, except what is alive.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, State};
use super::recover::Recovered;
use super::status::Gravity;
use crate::alert::Standing;
use crate::clock;
use crate::journal::{CheckpointRef, Content, DataDir, HeadError, LedgerConfig, LedgerKey, LedgerReader, ReadError, SignedHead};
use crate::model::{AlertChange, AlertState, Decided, DeliveryState, FindingId, OpenAlert, Span, Time};

/// Steps that playbooks were allowed within it count against their budgets.
const BUDGETED: Span = Span::secs(3_600);

/// Publishes the head and looks after retention, now and every `publish_head` until `stop`. Each head goes to `heads` too.
pub(super) async fn run(effects: Arc<Effects>, data: DataDir, config: LedgerConfig, heads: watch::Sender<Option<Arc<SignedHead>>>, stop: CancellationToken) {
    let mut published = None;
    look_back(&effects, &data).await;
    while !stop.is_cancelled() {
        retain(&effects, &data, &config).await;
        let head = effects.head();
        if published != Some(head) {
            let data = data.clone();
            match tokio::task::spawn_blocking(move || publish(&data, head)).await {
                Ok(Ok(signed)) => {
                    published = Some(head);
                    heads.send_replace(signed.map(Arc::new));
                }
                Ok(Err(error)) => tracing::warn!(%error, "the ledger's head is not published"),
                Err(error) => tracing::error!(%error, "the task that publishes the ledger's head ended"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(config.publish_head.to_std()) => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Says when the ledger is no longer the one whose head was signed last, and keeps that head as the evidence.
async fn look_back(effects: &Effects, data: &DataDir) {
    let data = data.clone();
    let said = tokio::task::spawn_blocking(move || -> Result<Option<String>, HeadError> {
        let Some(signed) = lost(&data)? else { return Ok(None) };
        let (seq, at) = (signed.seq, signed.at);
        let kept = SignedHead::path(&data).with_file_name(format!("head-{seq}.json"));
        let aside = match std::fs::rename(SignedHead::path(&data), &kept) {
            Ok(()) => format!("that head is kept in {}", kept.display()),
            Err(error) => format!("that head cannot be kept: {error}"),
        };
        Ok(Some(format!(
            "record {seq}, whose head was signed at {at}, is not in it any more: it was cut or rewritten; {aside}. Restore a backup, or go on without"
        )))
    });
    match said.await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some(why))) => {
            tracing::error!(why, "the ledger is not what it was");
            effects.status.set("ledger head", Gravity::Degraded, why);
        }
        Ok(Err(error)) => {
            tracing::error!(%error, "the ledger cannot be held against the head that was signed last");
            effects.status.set("ledger head", Gravity::Degraded, error.to_string());
        }
        Err(error) => tracing::error!(%error, "the task that looks back at the ledger's head ended"),
    }
}

/// The head that was signed last, when the ledger does not have its record.
fn lost(data: &DataDir) -> Result<Option<SignedHead>, HeadError> {
    let Some((signed, hash)) = SignedHead::published(data)? else { return Ok(None) };
    let there = match LedgerReader::open(&data.ledger(), signed.seq) {
        // Retention has dropped it.
        Err(ReadError::Gone { .. }) => return Ok(None),
        opened => opened.ok().and_then(|mut entries| entries.next()?.ok()),
    };
    let same = there.is_some_and(|entry| entry.seq == signed.seq && entry.hash == hash);
    Ok((!same).then_some(signed))
}

/// The signed head to `ledger/head.json`, the log and a metric. An empty ledger has none.
fn publish(data: &DataDir, head: (u64, crate::journal::LedgerHash)) -> Result<Option<SignedHead>, HeadError> {
    if head.0 == 0 {
        return Ok(None);
    }
    let signed = LedgerKey::open(data)?.sign(data.node(), head, clock::now());
    signed.publish(data)?;
    let SignedHead { node, seq, hash, at, key, signature } = &signed;
    tracing::info!(node, seq, hash, %at, key, signature, "ledger head");
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 records")]
    metrics::gauge!("opmas_ledger_head_seq").set(*seq as f64);
    Ok(Some(signed))
}

async fn retain(effects: &Effects, data: &DataDir, config: &LedgerConfig) {
    let (now, dir) = (clock::now(), data.ledger());
    match effects.drop_old(now.minus(config.keep), move |empty| alive(&dir, &empty, now)).await {
        Ok(0) => {}
        Ok(dropped) => {
            tracing::info!(dropped, "segments of the ledger that are older than [ledger] keep were dropped");
            metrics::counter!("opmas_ledger_segments_dropped_total").increment(dropped as u64);
        }
        Err(error) => tracing::warn!(%error, "the ledger keeps what is older than [ledger] keep; tried again later"),
    }
}

/// The records of a ledger that its state at `now` is made of, in their order.
///
/// # Errors
/// It cannot be read.
fn alive(dir: &Path, empty: &State, now: Time) -> Result<Vec<Decided>, ReadError> {
    let each = |see: &mut dyn FnMut(Decided)| -> Result<(), ReadError> {
        for entry in LedgerReader::open(dir, 0)? {
            if let Content::Decided(decided) = entry?.content {
                see(*decided);
            }
        }
        Ok(())
    };
    let mut alive = Alive::new(empty.clone(), now);
    each(&mut |decided| alive.learn(&decided, empty))?;
    let mut carried = Vec::new();
    // Behind the newest anchor, as state is.
    each(&mut |decided| match decided {
        Decided::Anchor { .. } => carried.clear(),
        _ if alive.needs(&decided) => carried.push(decided),
        _ => {}
    })?;
    Ok(carried)
}

/// What is alive, learnt from all records; then asked of each.
struct Alive {
    state: State,
    recovered: Recovered,
    /// Runs whose steps still count against a budget.
    budgeted: HashSet<Arc<str>>,
    /// Runs that are needed, from their first record on.
    runs: HashSet<Arc<str>>,
    /// Deliveries that open alerts refer to.
    told: HashSet<Arc<str>>,
    /// Alerts that are over, by the delivery on its way that says so: until it has arrived they keep its finding at hand.
    ending: HashMap<Arc<str>, Option<OpenAlert>>,
    now: Time,
}

impl Alive {
    fn new(state: State, now: Time) -> Alive {
        Alive { state, recovered: Recovered::default(), budgeted: HashSet::new(), runs: HashSet::new(), told: HashSet::new(), ending: HashMap::new(), now }
    }

    fn learn(&mut self, decided: &Decided, empty: &State) {
        self.recovered.apply(decided);
        match decided {
            Decided::Anchor { .. } => self.state = empty.clone(),
            Decided::Intent { step, at } if self.now.since(*at) < BUDGETED => _ = self.budgeted.insert(step.run.clone()),
            Decided::Answered { run, at, .. } if self.now.since(*at) < BUDGETED => _ = self.budgeted.insert(run.clone()),
            Decided::Delivery { delivery, of: Some(of), .. } if of.state == AlertState::Resolved => _ = self.ending.insert(delivery.clone(), None),
            // It comes after its delivery.
            Decided::Alert { change: AlertChange::Resolved, alert, .. } => {
                let told = self.state.alerts.newest_delivery(&alert.id).and_then(|delivery| self.ending.get_mut(delivery));
                told.into_iter().for_each(|ended| *ended = Some((**alert).clone()));
            }
            Decided::DeliveryOutcome { delivery, state, .. } if *state != DeliveryState::Retry => _ = self.ending.remove(delivery),
            _ => {}
        }
        self.state.apply(decided);
    }

    /// Whether it is of an alert that has ended while the delivery that says so is on its way.
    fn is_ending(&self, change: AlertChange, alert: &OpenAlert) -> bool {
        self.ending.values().flatten().any(|ended| ended.id == alert.id && (change == AlertChange::Opened || *ended == *alert))
    }

    fn finding(&self, id: &FindingId) -> bool {
        self.state.open.get(id).is_some() || self.recovered.announced.later.contains_key(id)
    }

    fn delivery(&self, id: &str) -> bool {
        !matches!(self.state.outbox.standing(id), None | Some(Standing::Settled(DeliveryState::Sent | DeliveryState::Failed | DeliveryState::Retry)))
    }

    /// Whether state is made of this record; to be asked in their order.
    fn needs(&mut self, decided: &Decided) -> bool {
        match decided {
            Decided::Finding { finding } => self.finding(&finding.id),
            Decided::Triaged { finding, .. } => self.finding(finding),
            Decided::Run { run, finding, .. } => {
                let needed = self.finding(finding)
                    || self.recovered.runs.contains_key(run)
                    || self.budgeted.contains(run)
                    || self.recovered.begun.needs(decided, self.now);
                if needed {
                    self.runs.insert(run.clone());
                }
                needed
            }
            Decided::Intent { step, .. } => self.runs.contains(&step.run),
            Decided::Attempt { run, .. }
            | Decided::Tried { run, .. }
            | Decided::Outcome { run, .. }
            | Decided::RunMoved { run, .. }
            | Decided::Asked { run, .. }
            | Decided::Answered { run, .. } => self.runs.contains(run),
            Decided::Posture { at, .. } => self.state.posture.last.as_ref().is_some_and(|last| last.at == *at),
            Decided::Lease { device, action, params, .. } => {
                let leases = &self.state.leases;
                leases.get(&leases.id(device, action, params)).is_some()
            }
            Decided::Delivery { delivery, .. } => {
                if self.state.alerts.needs(decided) {
                    self.told.insert(delivery.clone());
                }
                self.delivery(delivery) || self.told.contains(delivery)
            }
            Decided::DeliveryAttempt { delivery, .. } | Decided::DeliveryOutcome { delivery, .. } => self.delivery(delivery) || self.told.contains(delivery),
            Decided::Alert { change, alert, .. } => self.state.alerts.needs(decided) || self.is_ending(*change, alert),
            Decided::Checkpoint { .. } => CheckpointRef::of(decided).is_some_and(|checkpoint| self.recovered.checkpoints.contains(&checkpoint)),
            Decided::Note { .. } | Decided::Message { .. } | Decided::Anchor { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::action::{Catalogue, Leases, VERIFY_EVERY};
    use crate::alert::{Channels, Outbox};
    use crate::model::{Covered, LeaseChange, OfAlert, Outcome, OutcomeState, Posture, RunState, SetPosture, Step, Verdict};

    fn empty() -> State {
        State::new(Outbox::new(&Channels::default()), Leases::new(Arc::new(Catalogue::default()), VERIFY_EVERY), Posture::Observe)
    }

    fn id(n: u8) -> FindingId {
        FindingId::new(&[&n.to_string()])
    }

    fn run_of(n: u8) -> Arc<str> {
        format!("run{n}").into()
    }

    fn step(n: u8, key: u8) -> Step {
        let params = [("ip".to_owned(), format!("192.0.2.{n}").into())].into_iter().collect();
        Step {
            run: run_of(n),
            key: key.to_string().into(),
            playbook: "block".into(),
            device: format!("ap{}", key % 2).into(),
            action: "block_ip".into(),
            params,
            commands: Vec::new(),
            stdin: Vec::new(),
            decision: Verdict::Auto,
            reason: String::new(),
        }
    }

    fn finding(n: u8) -> Decided {
        let text = include_str!("../../tests/data/finding.json");
        let mut finding: crate::model::Finding = serde_json::from_str(text).unwrap();
        finding.id = id(n);
        Decided::Finding { finding: Box::new(finding) }
    }

    /// The alert of a finding, after so many findings of its group.
    fn alert(n: u8, count: u64, at: Time) -> OpenAlert {
        OpenAlert {
            id: format!("delivery{n}").into(),
            route: "urgent".into(),
            channel: "mail".into(),
            group: [("rule".to_owned(), n.into())].into(),
            findings: [id(n), id(n + 100)].into_iter().take(usize::try_from(count).unwrap()).collect(),
            count,
            since: at,
            last: at,
            until: Some(at.plus(Span::secs(3_600))),
            repeat: Some(Span::secs(5)),
        }
    }

    fn alerted(change: AlertChange, alert: OpenAlert) -> Decided {
        Decided::Alert { change, at: alert.last, alert: Box::new(alert), reason: String::new() }
    }

    fn told(delivery: &str, alert: &OpenAlert, state: AlertState) -> Decided {
        let OpenAlert { id, route, channel, group, findings, count, since, last, .. } = alert.clone();
        let of = OfAlert { id, group, state, since, count, reason: String::new(), receipt: None };
        Decided::Delivery { delivery: delivery.into(), route, channel, findings, at: last, of: Some(Box::new(of)) }
    }

    /// A delivery that was answered at the first try.
    fn answered_at_once(delivery: &str, state: DeliveryState, at: Time) -> [Decided; 2] {
        let delivery: Arc<str> = delivery.into();
        let receipt = Some("C1/1.2".into());
        [
            Decided::DeliveryAttempt { delivery: delivery.clone(), attempt: 1, at },
            Decided::DeliveryOutcome { delivery, state, detail: String::new(), at, next: None, receipt },
        ]
    }

    /// A further finding of the alert, told, and for most the end.
    fn afterlife(n: u8, at: Time) -> Vec<Decided> {
        let (again, over) = (format!("again{n}"), format!("over{n}"));
        let alert = alert(n, 2, at);
        let mut further = finding(n);
        if let Decided::Finding { finding } = &mut further {
            finding.id = id(n + 100);
        }
        let triaged = Decided::Triaged { finding: id(n + 100), reason: String::new() };
        let state = [DeliveryState::Sent, DeliveryState::Failed, DeliveryState::Unknown][usize::from(n % 3)];
        let mut all = vec![further, alerted(AlertChange::Updated, alert.clone()), triaged, told(&again, &alert, AlertState::Firing)];
        all.extend(answered_at_once(&again, state, at));
        if n % 3 != 2 {
            all.extend([told(&over, &alert, AlertState::Resolved), alerted(AlertChange::Resolved, alert)]);
            all.extend(answered_at_once(&over, DeliveryState::Sent, at));
        }
        all
    }

    /// What befalls one finding and what it causes, in the order in which it can.
    fn life(n: u8) -> Vec<Decided> {
        let (run, at, finding_id) = (run_of(n), Time(i64::from(n) * 1_000_000_000_000), id(n));
        let delivery: Arc<str> = format!("delivery{n}").into();
        let lease = |change| Decided::Lease {
            run: run.clone(),
            key: "0".into(),
            device: "ap0".into(),
            action: "block_ip".into(),
            params: step(n, 0).params,
            change,
            until: at.plus(Span::secs(600)),
            at,
            detail: String::new(),
        };
        let outcome = |key: &str| Decided::Outcome {
            run: run.clone(),
            key: key.into(),
            outcome: Outcome { state: OutcomeState::Enforced, detail: "read back".into(), at, took_ms: 1, until: None, evidence: None },
        };
        let asked = Step { decision: Verdict::Approve, ..step(n, 1) };
        let moved = |state| Decided::RunMoved { run: run.clone(), state, reason: String::new(), at };
        let (playbook, by, plan) = ("block".into(), "root".into(), vec![Covered::of(&asked)]);
        let answer = Decided::Answered { run: run.clone(), playbook, approved: true, by, because: String::new(), plan, at };
        let attempt = |attempt| Decided::DeliveryAttempt { delivery: delivery.clone(), attempt, at };
        let answered = |state| Decided::DeliveryOutcome { delivery: delivery.clone(), state, detail: String::new(), at, receipt: None, next: Some(at) };
        let life = vec![
            finding(n),
            Decided::Run {
                run: run.clone(),
                playbook: "block".into(),
                revision: "r".into(),
                finding: finding_id.clone(),
                about: None,
                after: Vec::new(),
                at,
                by_hand: None,
            },
            alerted(AlertChange::Opened, alert(n, 1, at)),
            told(&delivery, &alert(n, 1, at), AlertState::Firing),
            Decided::Triaged { finding: finding_id, reason: String::new() },
            Decided::Intent { step: Box::new(step(n, 0)), at },
            Decided::Attempt { run: run.clone(), key: "0".into(), attempt: 1, at },
            attempt(1),
            outcome("0"),
            lease(LeaseChange::Granted),
            answered(DeliveryState::Retry),
            Decided::Intent { step: Box::new(asked.clone()), at },
            Decided::Asked { run: run.clone(), plan: vec![asked.clone()], until: at.plus(Span::secs(60)), at },
            moved(RunState::Waiting),
            answer,
            moved(RunState::Running),
            lease(LeaseChange::Lost),
            attempt(2),
            lease(LeaseChange::Reasserted),
            Decided::Attempt { run: run.clone(), key: "1".into(), attempt: 1, at },
            outcome("1"),
            moved(RunState::Done),
            answered(if n.is_multiple_of(3) { DeliveryState::Unknown } else { DeliveryState::Sent }),
            lease(LeaseChange::Ended),
        ];
        [life, afterlife(n, at)].concat()
    }

    fn checkpoint(seq: u64, ahead: u64) -> Decided {
        Decided::Checkpoint { name: format!("{seq}.checkpoint").into(), hash: "h".into(), seq, at: Time(0), ahead }
    }

    /// A posture set by hand, for a while or not.
    fn posture(seq: u64) -> Decided {
        let until = seq.is_multiple_of(2).then_some(Time(5_000_000_000_000));
        let set = (!seq.is_multiple_of(5)).then_some(SetPosture { posture: Posture::Guarded, until });
        Decided::Posture { set, by: "root".into(), because: String::new(), at: Time(i64::try_from(seq).unwrap()) }
    }

    /// Several lives, each as far as it has come, shuffled into each other; a checkpoint now and then.
    fn history() -> impl Strategy<Value = Vec<Decided>> {
        let picks = proptest::collection::vec((0..6_u8, 0..9_u8), 0..260);
        picks.prop_map(|picks| {
            let mut lives: Vec<_> = (0..6).map(|n| life(n).into_iter()).collect();
            let (mut all, mut since) = (Vec::new(), 0);
            for (seq, (n, other)) in (1..).zip(picks) {
                let next = match other {
                    // No finding overtakes a checkpoint and the one before it.
                    0 => Some(checkpoint(seq, std::mem::take(&mut since).min(u64::from(n)))),
                    1 => Some(posture(seq)),
                    _ => lives[usize::from(n)].next(),
                };
                since += u64::from(matches!(next, Some(Decided::Finding { .. })));
                all.extend(next);
            }
            all
        })
    }

    /// Everything that the running system keeps, as text; `now` is when budgets are asked.
    fn shown(records: &[Decided], now: Time) -> String {
        let (mut state, mut recovered) = (empty(), Recovered::default());
        for one in records {
            state.apply(one);
            recovered.apply(one);
        }
        let deliveries = (0..6).flat_map(|n| ["delivery", "again", "over"].map(|which| format!("{which}{n}"))).map(|id| state.outbox.standing(&id).cloned());
        let unsettled: Vec<_> =
            deliveries.map(|standing| standing.filter(|s| !matches!(s, Standing::Settled(DeliveryState::Sent | DeliveryState::Failed)))).collect();
        let mut later: Vec<_> = recovered.announced.later.keys().map(|id| id.0.clone()).collect();
        later.sort();
        let leases: Vec<_> = state.leases.active().collect();
        let budget = crate::action::Budget { devices: 1, per_hour: 4 };
        let room: Vec<_> = (0..7).map(|n| state.budgets.check(&step(n, 1), budget, now)).collect();
        let runs: Vec<_> = recovered.runs.values().map(|run| (run.id(), run.next(), run.history(), run.asked(), run.counts_from())).collect();
        let (until, checkpoints) = (recovered.announced.until, &recovered.checkpoints);
        format!("{unsettled:?}\n{:?}\n{leases:?}\n{room:?}\n{runs:?}\n{until} {later:?} {checkpoints:?}\n{:?}\n{:?}", state.alerts, state.open, state.posture)
    }

    fn carried(records: &[Decided], now: Time) -> Vec<Decided> {
        let empty = empty();
        let mut alive = Alive::new(empty.clone(), now);
        records.iter().for_each(|one| alive.learn(one, &empty));
        records.iter().filter(|one| alive.needs(one)).cloned().collect()
    }

    proptest! {
        #[test]
        fn what_is_carried_over_gives_the_same_state_at_any_point(records in history(), cut in 0..270_usize) {
            let now = Time(6_000_000_000_000);
            let cut = cut.min(records.len());
            let (before, after) = records.split_at(cut);
            let kept = carried(before, now);
            prop_assert_eq!(shown(before, now), shown(&kept, now));
            // It goes on as if nothing had been dropped, and can be dropped again.
            let whole = [&kept[..], after].concat();
            prop_assert_eq!(shown(&records, now), shown(&whole, now));
            prop_assert_eq!(shown(&records, now), shown(&carried(&whole, now), now));
        }
    }

    #[test]
    fn what_is_over_is_left_out() {
        let all = [life(1), vec![checkpoint(9, 0)]].concat();
        assert_eq!(carried(&all, Time(i64::MAX)), [checkpoint(9, 0)]);
    }
}
