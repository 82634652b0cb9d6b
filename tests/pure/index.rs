//! The index as its users meet it: the same answers as the ledger gives, whatever happens to its files.

mod command;
mod damage;

use std::path::Path;

use opmas::index::{Answer, Filter, Index, KEEP_FINDINGS, MAX_ROWS, Opened, Query, Rows, Standing};
use opmas::model::{
    AlertChange, AlertState, Decided, DeliveryState, Finding, FindingId, LeaseChange, OfAlert, OpenAlert, Outcome, OutcomeState, RunState, Severity, Span,
    Step, Time, Verdict,
};
use proptest::prelude::*;

fn at(second: u64) -> Time {
    Time(1_800_000_000_000_000_000 + i64::try_from(second).unwrap() * 1_000_000_000)
}

fn finding(n: u64) -> Finding {
    let mut finding: Finding = serde_json::from_str(include_str!("../data/finding.json")).unwrap();
    finding.id = FindingId::new(&["test", &n.to_string()]);
    finding.time = at(n);
    finding.device = Some(format!("ap{}", n % 3).into());
    finding.severity = Severity::try_from(u8::try_from(n % 5).unwrap() + 1).unwrap();
    finding
}

fn step(run: u64, key: u64) -> Step {
    Step {
        run: format!("{run:016x}").into(),
        key: key.to_string().into(),
        playbook: "block_source".into(),
        device: "ap1".into(),
        action: "block_ip".into(),
        params: params(run, "1h"),
        commands: vec![vec!["nft".to_owned(), "-f".to_owned(), "-".to_owned()]],
        stdin: vec![Some("add element inet opmas v4 { 203.0.113.9 }\n".to_owned())],
        decision: Verdict::Auto,
        reason: "posture armed".to_owned(),
    }
}

fn params(n: u64, duration: &str) -> serde_json::Map<String, serde_json::Value> {
    [("ip", format!("203.0.113.{n}")), ("duration", duration.to_owned())].into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect()
}

fn lease(run: u64, change: LeaseChange, duration: &str, until: u64) -> Decided {
    Decided::Lease {
        run: format!("{run:016x}").into(),
        key: "1".into(),
        device: "ap1".into(),
        action: "block_ip".into(),
        params: params(run % 4, duration),
        change,
        until: at(until),
        at: at(5),
        detail: "read back".to_owned(),
    }
}

fn outcome(run: u64, state: OutcomeState) -> Decided {
    let outcome = Outcome { state, detail: "read back".to_owned(), at: at(9), took_ms: 12, until: Some(at(3_609)), evidence: None };
    Decided::Outcome { run: format!("{run:016x}").into(), key: "1".into(), outcome }
}

fn begun(run: u64) -> Decided {
    Decided::Run {
        run: format!("{run:016x}").into(),
        playbook: "block_source".into(),
        revision: "ab".repeat(32).into(),
        finding: finding(run).id,
        about: None,
        after: Vec::new(),
        at: at(run),
        by_hand: None,
    }
}

fn moved(run: u64, state: RunState) -> Decided {
    Decided::RunMoved { run: format!("{run:016x}").into(), state, reason: "the script has ended".to_owned(), at: at(run + 2) }
}

fn delivery(n: u64) -> Decided {
    Decided::Delivery {
        delivery: format!("{n:032x}").into(),
        route: "urgent".into(),
        channel: "email".into(),
        findings: vec![finding(n).id, finding(n + 1).id],
        at: at(n),
        of: None,
    }
}

fn answered(n: u64, state: DeliveryState) -> Decided {
    let next = (state == DeliveryState::Retry).then(|| at(n + 60));
    Decided::DeliveryOutcome { delivery: format!("{n:032x}").into(), state, detail: "451 later".to_owned(), at: at(n + 1), next, receipt: None }
}

fn alert(n: u64, change: AlertChange, count: u64) -> Decided {
    let open = OpenAlert {
        id: format!("{n:032x}").into(),
        route: "urgent".into(),
        channel: "slack".into(),
        group: [("rule".to_owned(), "login".into()), ("src_ip".to_owned(), format!("203.0.113.{n}").into())].into(),
        findings: vec![finding(n).id],
        count,
        since: at(n),
        last: at(n),
        until: n.is_multiple_of(2).then(|| at(n + 3_600)),
        repeat: Some(Span::secs(5)),
    };
    Decided::Alert { change, alert: Box::new(open), reason: String::new(), at: at(n) }
}

/// What happens with one finding, in the order of the ledger.
fn story(n: u64) -> Vec<Decided> {
    vec![
        Decided::Finding { finding: Box::new(finding(n)) },
        begun(n),
        delivery(n),
        Decided::Triaged { finding: finding(n).id, reason: "block_source; urgent: email".to_owned() },
        Decided::Intent { step: Box::new(step(n, 1)), at: at(n) },
        Decided::Attempt { run: format!("{n:016x}").into(), key: "1".into(), attempt: 1, at: at(n) },
        Decided::DeliveryAttempt { delivery: format!("{n:032x}").into(), attempt: 1, at: at(n) },
        outcome(n, OutcomeState::Enforced),
        lease(n, LeaseChange::Granted, "1h", n + 3_600),
        moved(n, RunState::Done),
        answered(n, DeliveryState::Sent),
        alert(n, AlertChange::Opened, 1),
    ]
}

fn stories(count: u64) -> Vec<Decided> {
    (0..count).flat_map(story).collect()
}

/// A hash that stands for the ledger's chain up to an entry.
fn hash(seq: u64) -> [u8; 32] {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&seq.to_be_bytes());
    hash
}

/// Applies what the index does not have yet, so many entries at a time.
fn catch_up(index: &mut Index, ledger: &[Decided], batch: usize) {
    let from = usize::try_from(index.position().0).unwrap();
    for (at, chunk) in (from..).step_by(batch).zip(ledger[from..].chunks(batch)) {
        let first = at as u64 + 1;
        let entries: Vec<_> = (first..).zip(chunk.iter().map(Some)).collect();
        index.apply(&entries, hash(at as u64 + chunk.len() as u64)).unwrap();
    }
}

fn fresh(path: &Path, ledger: &[Decided], batch: usize) -> Index {
    let (mut index, opened) = Index::open(path).unwrap();
    assert_eq!(opened, Opened::Rebuilt { why: "there was none".to_owned() });
    catch_up(&mut index, ledger, batch);
    index
}

fn findings(index: &Index) -> Vec<Finding> {
    match index.query(&Query::Findings { filter: Filter::default(), limit: MAX_ROWS }).unwrap().rows {
        Rows::Findings(found) => found,
        other => panic!("{other:?}"),
    }
}

/// Everything that can be asked.
fn answers(index: &Index) -> Vec<Answer> {
    let mut queries = vec![
        Query::Runs { state: None, limit: MAX_ROWS },
        Query::Leases,
        Query::Alerts { limit: MAX_ROWS },
        Query::Deliveries { state: None, limit: MAX_ROWS },
    ];
    queries.extend(findings(index).into_iter().map(|finding| Query::Finding { id: finding.id.0.to_string() }));
    queries.iter().map(|query| index.query(query).unwrap()).collect()
}

/// Any record about few enough things that they meet, in any order.
fn any_record() -> impl Strategy<Value = Decided> {
    let n = || 0_u64..6;
    let run = |n: u64| -> std::sync::Arc<str> { format!("{n:016x}").into() };
    let change = prop_oneof![Just(LeaseChange::Granted), Just(LeaseChange::Reasserted), Just(LeaseChange::Lost), Just(LeaseChange::Ended)];
    let state = prop_oneof![Just(RunState::Running), Just(RunState::Waiting), Just(RunState::Done)];
    prop_oneof![
        n().prop_map(|n| Decided::Finding { finding: Box::new(finding(n)) }),
        n().prop_map(|n| Decided::Triaged { finding: finding(n).id, reason: "why".to_owned() }),
        n().prop_map(begun),
        (n(), n()).prop_map(|(n, key)| Decided::Intent { step: Box::new(step(n, key)), at: at(n) }),
        (n(), n(), 1_u32..4).prop_map(move |(n, key, attempt)| Decided::Attempt { run: run(n), key: key.to_string().into(), attempt, at: at(n) }),
        n().prop_map(|n| outcome(n, OutcomeState::Failed)),
        (n(), state).prop_map(|(n, state)| moved(n, state)),
        (n(), change, prop_oneof![Just("1h"), Just("90s")], 0_u64..9).prop_map(|(n, change, duration, until)| lease(n, change, duration, until)),
        n().prop_map(delivery),
        (n(), prop_oneof![Just(AlertChange::Opened), Just(AlertChange::Updated), Just(AlertChange::Resolved)], 1_u64..9)
            .prop_map(|(n, change, count)| alert(n, change, count)),
        (n(), 1_u32..9).prop_map(|(n, attempt)| Decided::DeliveryAttempt { delivery: format!("{n:032x}").into(), attempt, at: at(n) }),
        (n(), prop_oneof![Just(DeliveryState::Retry), Just(DeliveryState::Unknown)]).prop_map(|(n, state)| answered(n, state)),
        Just(Decided::Note { text: "a note".to_owned(), at: at(0) }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_ledger_in_any_batches_with_reopening_gives_the_same_answers(ledger in prop::collection::vec(any_record(), 1..120), batch in 1_usize..50, cut in 0_usize..120) {
        let dir = tempfile::tempdir().unwrap();
        let whole = fresh(&dir.path().join("whole"), &ledger, ledger.len());
        let path = dir.path().join("parts");
        drop(fresh(&path, &ledger[..cut.min(ledger.len())], 1));
        let (mut parts, _) = reopened(&path);
        // An entry that comes again changes nothing.
        parts.apply(&[(1, Some(&ledger[0]))], hash(1)).unwrap();
        catch_up(&mut parts, &ledger, batch);
        prop_assert_eq!(answers(&parts), answers(&whole));
        prop_assert_eq!(parts.position(), (ledger.len() as u64, hash(ledger.len() as u64)));
    }
}

/// Opens an index that this process has just closed: its threads may hold the lock a moment longer.
fn reopened(path: &Path) -> (Index, Opened) {
    for _ in 0..500 {
        match Index::open(path) {
            Err(opmas::index::OpenError::Locked(_)) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => return other.unwrap(),
        }
    }
    panic!("the index stays locked");
}

#[test]
fn a_finding_is_shown_with_everything_that_was_done_about_it() {
    let dir = tempfile::tempdir().unwrap();
    let index = fresh(&dir.path().join("index"), &stories(3), 4);
    let id = finding(1).id.0[..6].to_owned();
    let Rows::Finding(story) = index.query(&Query::Finding { id }).unwrap().rows else { panic!() };
    assert_eq!(story.finding, finding(1));
    assert_eq!(story.triage.as_deref(), Some("block_source; urgent: email"));
    let run = &story.runs[0];
    assert_eq!((run.run.state, run.run.steps, run.steps.len()), (RunState::Done, 1, 1));
    assert_eq!((run.steps[0].attempts, run.steps[0].outcome.as_ref().map(|o| o.state)), (1, Some(OutcomeState::Enforced)));
    // Finding 1 is told of by its own delivery and by the one before.
    assert_eq!(story.deliveries.iter().map(|d| (d.seq, d.state, d.attempts)).collect::<Vec<_>>(), [(15, Standing::Sent, 1)]);
}

#[test]
fn findings_are_filtered_newest_first_and_an_id_must_name_one() {
    let dir = tempfile::tempdir().unwrap();
    let index = fresh(&dir.path().join("index"), &stories(30), 64);
    let ask = |filter: Filter, limit| match index.query(&Query::Findings { filter, limit }).unwrap() {
        Answer { rows: Rows::Findings(found), more } => (found.iter().map(|f| f.time).collect::<Vec<_>>(), more),
        other => panic!("{other:?}"),
    };
    assert_eq!(ask(Filter::default(), 2), (vec![at(29), at(28)], true));
    let severe = Filter { severity: Some(Severity::Critical), device: Some("ap2".to_owned()), ..Filter::default() };
    assert_eq!(ask(severe, 50), (vec![at(29), at(14)], false));
    assert_eq!(ask(Filter { since: Some(at(28)), ..Filter::default() }, 50).0.len(), 2);
    assert_eq!(ask(Filter { rule: Some("openwrt_ssh_login_after_failures".to_owned()), ..Filter::default() }, 50).0.len(), 30);
    assert_eq!(ask(Filter { rule: Some("another".to_owned()), ..Filter::default() }, 50), (vec![], false));
    for id in ["", "zz"] {
        let rows = index.query(&Query::Finding { id: id.to_owned() }).unwrap().rows;
        assert!(matches!(&rows, Rows::NotOne(why) if why.contains("begin")), "{rows:?}");
    }
}

#[test]
fn a_lease_is_one_for_all_who_asked_and_goes_when_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let grants = [lease(1, LeaseChange::Granted, "1h", 3_600), lease(5, LeaseChange::Granted, "90s", 90), lease(2, LeaseChange::Granted, "1h", 3_600)];
    let mut index = fresh(&dir.path().join("index"), &grants, 2);
    let leases = |index: &Index| match index.query(&Query::Leases).unwrap().rows {
        Rows::Leases(rows) => rows,
        other => panic!("{other:?}"),
    };
    let rows = leases(&index);
    assert_eq!(rows.len(), 2, "run 5 asks for what run 1 has: {rows:?}");
    assert_eq!((rows[0].until, &rows[0].params["duration"]), (at(3_600), &"1h".into()));
    index.apply(&[(4, Some(&lease(1, LeaseChange::Lost, "1h", 3_600))), (5, Some(&lease(2, LeaseChange::Ended, "1h", 3_600)))], hash(5)).unwrap();
    let rows = leases(&index);
    assert_eq!((rows.len(), rows[0].held), (1, false));
}

#[test]
fn deliveries_are_listed_by_where_they_stand() {
    let dir = tempfile::tempdir().unwrap();
    let tried = Decided::DeliveryAttempt { delivery: format!("{:032x}", 2).into(), attempt: 3, at: at(3) };
    let index = fresh(&dir.path().join("index"), &[delivery(1), delivery(2), tried, answered(2, DeliveryState::Retry)], 1);
    let ask = |state| match index.query(&Query::Deliveries { state, limit: 10 }).unwrap().rows {
        Rows::Deliveries(rows) => rows,
        other => panic!("{other:?}"),
    };
    assert_eq!(ask(None).len(), 2);
    assert_eq!(ask(Some(Standing::Waiting)).len(), 1);
    let retry = &ask(Some(Standing::Retry))[0];
    assert_eq!((retry.attempts, retry.next, retry.reason.as_str()), (3, Some(at(62)), "451 later"));
    assert_eq!(ask(Some(Standing::Sent)), []);
}

#[test]
fn an_alert_is_listed_until_it_is_over_and_deliveries_say_what_they_tell() {
    let dir = tempfile::tempdir().unwrap();
    let changes =
        [(1, AlertChange::Opened, 1), (2, AlertChange::Opened, 1), (1, AlertChange::Updated, 7), (2, AlertChange::Resolved, 1), (3, AlertChange::Updated, 2)];
    let mut over = delivery(1);
    if let Decided::Delivery { of, .. } = &mut over {
        let group = [("rule".to_owned(), "login".into())].into();
        *of = Some(Box::new(OfAlert { id: "a".into(), group, state: AlertState::Resolved, since: at(1), count: 7, reason: "quiet".into(), receipt: None }));
    }
    let mut ledger: Vec<_> = changes.into_iter().map(|(n, change, count)| alert(n, change, count)).collect();
    ledger.extend([over, delivery(2)]);
    let index = fresh(&dir.path().join("index"), &ledger, 2);
    let Rows::Alerts(rows) = index.query(&Query::Alerts { limit: 10 }).unwrap().rows else { panic!() };
    assert_eq!(rows.iter().map(|row| (row.seq, row.alert.count, row.alert.until)).collect::<Vec<_>>(), [(1, 7, None)]);
    let Rows::Deliveries(rows) = index.query(&Query::Deliveries { state: None, limit: 10 }).unwrap().rows else { panic!() };
    assert_eq!(rows.iter().map(|row| (row.tells, row.alert.as_deref())).collect::<Vec<_>>(), [(AlertState::Firing, None), (AlertState::Resolved, Some("a"))]);
    // A row of an older version.
    let mut old = serde_json::to_value(&rows[0]).unwrap();
    old.as_object_mut().unwrap().retain(|key, _| key != "tells" && key != "alert");
    assert_eq!(serde_json::from_value::<opmas::index::DeliveryRow>(old).unwrap(), rows[0]);
}

#[test]
fn only_the_newest_findings_are_kept_and_an_erased_entry_only_moves_the_position() {
    let dir = tempfile::tempdir().unwrap();
    let ledger: Vec<_> = (0..KEEP_FINDINGS + 3).map(|n| Decided::Finding { finding: Box::new(finding(n)) }).collect();
    let path = dir.path().join("index");
    let mut index = fresh(&path, &ledger, 512);
    let next = ledger.len() as u64 + 1;
    index.apply(&[(next, None)], hash(next)).unwrap();
    let asked = |n: u64| index.query(&Query::Finding { id: finding(n).id.0.to_string() }).unwrap().rows;
    assert!(matches!(asked(2), Rows::NotOne(_)));
    assert!(matches!(asked(3), Rows::Finding(_)));
    drop(index);
    let (index, opened) = reopened(&path);
    assert_eq!((opened, index.position()), (Opened::Ready, (next, hash(next))));
}
