//! The ledger: batches, chain, recovery.

use std::fs;
use std::sync::Arc;

use opmas::journal::{Content, DataDir, Ledger, LedgerHash, LedgerReader, verify_ledger};
use opmas::model::{
    AlertChange, AlertState, Covered, Decided, DeliveryState, Entity, EntityKind, Evidence, Finding, FindingId, FindingKind, LeaseChange, OfAlert, OpenAlert,
    Outcome, OutcomeState, Posture, RuleRef, RunState, SetPosture, Severity, Span, Step, Time, Trust, Verdict, Window,
};
use proptest::prelude::*;

use super::{Folder, filled_ledger, note};

fn texts(folder: &Folder, from: u64) -> Vec<(u64, String)> {
    let reader = LedgerReader::open(&folder.path().join("ledger"), from).unwrap();
    let text = |content| match content {
        Content::Decided(decided) => match *decided {
            Decided::Note { text, .. } => text,
            other => format!("{other:?}"),
        },
        Content::Erased { reason } => reason,
    };
    reader.map(|entry| entry.map(|e| (e.seq, text(e.content))).unwrap()).collect()
}

fn finding(rule: Arc<str>, raw: &str, at: Time, n: u64) -> Finding {
    Finding {
        id: FindingId::new(&[&rule]),
        time: at,
        kind: FindingKind::Correlation,
        rule: RuleRef { id: rule.clone(), name: None, title: rule.clone(), revision: "0123456789ab".into() },
        agent: "opmas".into(),
        severity: Severity::Critical,
        level: "critical".into(),
        title: rule,
        text: raw.to_owned(),
        group: [("src_ip".to_owned(), "203.0.113.9".into())].into(),
        entities: [("source".to_owned(), Entity { kind: EntityKind::Ip, value: "203.0.113.9".into() })].into(),
        device: Some("r1".into()),
        site: None,
        window: Window { from: at, to: at },
        value: Some(n.into()),
        count: n,
        evidence: vec![Evidence { seq: n, source: "router".into(), time: at, raw: raw.into() }],
        tags: vec!["attack.t1110".into()],
        trust: Trust::Verified,
        remediation: None,
    }
}

fn any_decided() -> impl Strategy<Value = Decided> {
    // The printable range of RFC 3339.
    let at = || (0..4_000_000_000_000_000_000_i64).prop_map(Time);
    let word = || "[a-z0-9._-]{1,16}".prop_map(std::sync::Arc::<str>::from);
    let params = || proptest::collection::btree_map("[a-z]{1,6}", "\\PC{0,20}", 0..3).prop_map(|m| m.into_iter().map(|(k, v)| (k, v.into())).collect());
    let id = || word().prop_map(|w| FindingId::new(&[&w]));
    prop_oneof![
        (id(), "\\PC{0,40}").prop_map(|(finding, reason)| Decided::Triaged { finding, reason }),
        (word(), word(), word(), id(), proptest::option::of(word()), at()).prop_map(|(run, playbook, revision, finding, about, at)| Decided::Run {
            run,
            playbook,
            revision,
            finding,
            about,
            after: Vec::new(),
            at,
            by_hand: None
        }),
        (word(), word(), word(), params(), at()).prop_map(|(run, key, device, params, at)| {
            let (playbook, action, reason) = ("p".into(), "block_ip".into(), "armed".to_owned());
            let (commands, stdin) = (vec![vec!["nft".to_owned(), "-f".to_owned(), "-".to_owned()]], vec![Some("add rule".to_owned())]);
            let step = Step { run, key, playbook, device, action, params, commands, stdin, decision: Verdict::Auto, reason };
            Decided::Intent { step: Box::new(step), at }
        }),
        (word(), word(), any::<u32>(), at()).prop_map(|(run, key, attempt, at)| Decided::Attempt { run, key, attempt, at }),
        (word(), word(), any::<u64>(), at()).prop_map(|(run, key, took_ms, at)| {
            let outcome = Outcome { state: OutcomeState::Enforced, detail: "read back".into(), at, took_ms, until: Some(at), evidence: None };
            Decided::Outcome { run, key, outcome }
        }),
        (word(), word(), any::<bool>(), "\\PC{0,40}", at()).prop_map(|(run, playbook, approved, because, at)| {
            let covered = Covered { key: "1-0".into(), device: "r1".into(), action: "block_ip".into(), params: Default::default() };
            Decided::Answered { run, playbook, approved, by: "root".into(), because, plan: vec![covered], at }
        }),
        (proptest::option::of(proptest::option::of(at())), "\\PC{0,40}", at()).prop_map(|(set, because, at)| {
            let set = set.map(|until| SetPosture { posture: Posture::Guarded, until });
            Decided::Posture { set, by: "root".into(), because, at }
        }),
        (word(), "\\PC{0,40}", at()).prop_map(|(run, reason, at)| Decided::RunMoved { run, state: RunState::Diverged, reason, at }),
        (word(), word(), params(), at(), at()).prop_map(|(run, key, params, until, at)| {
            let (device, action, change, detail) = ("r1".into(), "block_ip".into(), LeaseChange::Granted, String::new());
            Decided::Lease { run, key, device, action, params, change, until, at, detail }
        }),
        (word(), word(), id(), at()).prop_map(|(delivery, route, finding, at)| Decided::Delivery {
            delivery,
            route,
            channel: "mail".into(),
            findings: vec![finding],
            at,
            of: None
        }),
        (word(), params(), id(), at(), proptest::option::of(at()), 1_u64..99).prop_map(|(alert, group, finding, at, until, count)| {
            let group: std::collections::BTreeMap<_, _> = serde_json::Map::into_iter(group).collect();
            let (route, channel, findings) = ("urgent".into(), "mail".into(), vec![finding]);
            let repeat = until.map(|_| Span::secs(5));
            let open = OpenAlert { id: alert, route, channel, group, findings, count, since: at, last: at, until, repeat };
            Decided::Alert { change: AlertChange::Updated, alert: Box::new(open), reason: String::new(), at }
        }),
        (word(), params(), id(), at(), "\\PC{0,40}", proptest::option::of(word())).prop_map(|(alert, group, finding, at, reason, receipt)| {
            let group = serde_json::Map::into_iter(group).collect();
            let of = OfAlert { id: alert, group, state: AlertState::Resolved, since: at, count: 3, reason, receipt };
            let (delivery, route, channel) = ("d1".into(), "urgent".into(), "slack".into());
            Decided::Delivery { delivery, route, channel, findings: vec![finding], at, of: Some(Box::new(of)) }
        }),
        (word(), any::<u32>(), at()).prop_map(|(delivery, attempt, at)| Decided::DeliveryAttempt { delivery, attempt, at }),
        (word(), "\\PC{0,40}", at(), proptest::option::of(at()), proptest::option::of(word())).prop_map(|(delivery, detail, at, next, receipt)| {
            Decided::DeliveryOutcome { delivery, state: DeliveryState::Retry, detail, at, next, receipt }
        }),
        (word(), "\\PC{0,60}", at(), any::<u64>()).prop_map(|(rule, raw, at, n)| Decided::Finding { finding: Box::new(finding(rule, &raw, at, n)) }),
        (word(), word(), any::<u64>(), at(), any::<u64>()).prop_map(|(name, hash, seq, at, ahead)| Decided::Checkpoint { name, hash, seq, at, ahead }),
        ("\\PC{0,300}", at()).prop_map(|(text, at)| Decided::Note { text, at }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_kind_of_decision_is_read_as_it_was_appended(batches in proptest::collection::vec(proptest::collection::vec(any_decided(), 0..6), 1..8)) {
        let folder = Folder::in_memory();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let head = runtime.block_on(async {
            let (ledger, _) = Ledger::open(&folder.open()).unwrap();
            for batch in &batches {
                let place = ledger.append(batch.clone()).await.unwrap();
                prop_assert_eq!((place.last, place.hash), ledger.head());
            }
            let head = ledger.head();
            ledger.close().await;
            Ok(head)
        })?;
        let given: Vec<_> = batches.into_iter().flatten().map(|d| Content::Decided(Box::new(d))).collect();
        let read: Vec<_> = LedgerReader::open(&folder.path().join("ledger"), 0).unwrap().map(Result::unwrap).collect();
        prop_assert_eq!(read.last().map_or((0, LedgerHash::default()), |e| (e.seq, e.hash)), head);
        prop_assert!(read.iter().zip(1..).all(|(entry, seq)| entry.seq == seq));
        prop_assert_eq!(read.into_iter().map(|e| e.content).collect::<Vec<_>>(), given);
    }
}

#[tokio::test]
async fn the_chain_goes_on_over_restarts() {
    let folder = Folder::new();
    filled_ledger(&folder, &[1, 3]).await;
    let (ledger, recovery) = Ledger::open(&folder.open()).unwrap();
    assert_eq!((recovery.last, recovery.segments, recovery.torn.len()), (4, 1, 0));
    assert_eq!(ledger.head(), (4, recovery.hash));
    assert_eq!(ledger.append(vec![note("more")]).await.unwrap().first, 5);
    let head = ledger.head();
    ledger.close().await;
    let report = verify_ledger(&DataDir::open_read_only(&folder.path()).unwrap(), Some(recovery.hash));
    assert!(report.is_good(), "{:?}", report.wrong);
    assert_eq!((report.last, report.head, report.found_head), (Some(5), Some(head.1), Some(4)));
    assert_eq!(texts(&folder, 4), [(4, "record 4".to_owned()), (5, "more".to_owned())]);
}

#[tokio::test]
async fn appends_from_many_tasks_share_syncs_and_stay_whole() {
    let folder = Folder::new();
    let (ledger, _) = Ledger::open(&folder.open()).unwrap();
    let tasks: Vec<_> = (0..40)
        .map(|task| {
            let ledger = ledger.clone();
            tokio::spawn(async move { (task, ledger.append((0..3).map(|n| note(&format!("{task} {n}"))).collect()).await.unwrap()) })
        })
        .collect();
    let mut places = Vec::new();
    for task in tasks {
        places.push(task.await.unwrap());
    }
    ledger.close().await;
    let texts = texts(&folder, 0);
    for (task, place) in places {
        let at = usize::try_from(place.first).unwrap() - 1;
        let batch: Vec<_> = texts[at..at + 3].iter().map(|(_, text)| text.clone()).collect();
        assert_eq!(batch, [format!("{task} 0"), format!("{task} 1"), format!("{task} 2")]);
    }
    assert_eq!(texts.len(), 120);
}

#[tokio::test]
async fn o7_a_torn_batch_is_cut_as_a_whole_wherever_it_tears() {
    let folder = Folder::in_memory();
    filled_ledger(&folder, &[2, 1, 4]).await;
    let file = folder.segments("ledger").remove(0);
    let whole = fs::read(&file).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for len in 0..whole.len() {
        fs::write(&file, &whole[..len]).unwrap();
        let (ledger, recovery) = Ledger::open(&folder.open()).unwrap();
        assert!([0, 2, 3].contains(&recovery.last), "cut at {len}: {} records", recovery.last);
        seen.insert((recovery.last, recovery.torn.is_empty()));
        ledger.close().await;
        assert_eq!(texts(&folder, 0).len() as u64, recovery.last);
    }
    let clean_and_torn = [(0, false), (0, true), (2, false), (2, true), (3, false), (3, true)];
    assert!(seen.iter().eq(&clean_and_torn), "{seen:?}");
    let (ledger, _) = Ledger::open(&folder.open()).unwrap();
    assert_eq!(ledger.append(vec![note("after")]).await.unwrap().first, 4);
    ledger.close().await;
    assert!(verify_ledger(&folder.open(), None).is_good());
}

#[tokio::test]
async fn a_ledger_that_is_damaged_before_its_end_does_not_open_and_says_what_to_do() {
    let folder = Folder::new();
    filled_ledger(&folder, &[1, 1, 1]).await;
    let file = folder.segments("ledger").remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(8).position(|w| w == b"record 2").unwrap();
    bytes[at] ^= 0x20;
    fs::write(&file, &bytes).unwrap();
    let error = Ledger::open(&folder.open()).err().unwrap().to_string();
    assert!(error.contains(&format!("{}:", file.display())) && error.contains("restore the data folder from a backup"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "nothing was cut");
}

#[tokio::test]
async fn a_ledger_whose_beginning_is_gone_does_not_open() {
    let folder = Folder::new();
    filled_ledger(&folder, &[1]).await;
    let file = folder.segments("ledger").remove(0);
    fs::rename(&file, file.with_file_name("00000000000000000009.ledger")).unwrap();
    let error = Ledger::open(&folder.open()).err().unwrap().to_string();
    assert!(error.contains("first record is not the one"), "{error}");
    let report = verify_ledger(&DataDir::open_read_only(&folder.path()).unwrap(), None);
    assert!(report.wrong[0].contains("first record is not the one"), "{:?}", report.wrong);
}
