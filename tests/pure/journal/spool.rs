//! Appending to the spool and reading it.

use std::time::Duration;

use opmas::journal::{AppendError, Health, MAX_PAYLOAD, ReadError, Spool, SpoolConfig, record_id, verify_spool};
use opmas::model::{Entry, EntryBody, Payload, Record, RecordId, Revision, RevisionKind, Span, Tick, Time};
use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Folder, batch_of, filled_spool, line, pushed, raw, record, small_segments, start};

pub(super) fn any_body() -> impl Strategy<Value = EntryBody> {
    let raw = proptest::collection::vec(any::<u8>(), 0..200);
    let id = proptest::option::of(("[a-z/]{1,20}", any::<u64>()));
    let record = (id, raw, any::<i64>(), proptest::option::of(any::<std::net::IpAddr>())).prop_map(|(id, raw, at, peer)| {
        let id = id.map(|(file, offset)| RecordId::File { file: file.into(), offset });
        let EntryBody::Record(mut body) = record(id, &raw) else { unreachable!() };
        (body.arrival, body.peer) = (Some(Time(at)), peer);
        EntryBody::Record(body)
    });
    let tick =
        (any::<i64>(), proptest::collection::vec("[a-z:0-9]{0,12}", 0..4), proptest::collection::vec("[a-z]{1,4}", 0..2)).prop_map(|(at, idle, elsewhere)| {
            let [idle, elsewhere] = [idle, elsewhere].map(|names| names.into_iter().map(Into::into).collect());
            EntryBody::Tick(Tick { at: Time(at), idle, elsewhere })
        });
    let revision = "[0-9a-f]{64}".prop_map(|hash| EntryBody::Revision(Revision { kind: RevisionKind::Rules, hash: hash.into() }));
    prop_oneof![record, tick, revision]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_kind_of_entry_is_read_as_it_was_appended(bodies in proptest::collection::vec(any_body(), 1..20), segment_bytes in 0..2_000_u64) {
        let folder = Folder::in_memory();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let kept: u64 = runtime.block_on(async {
            let (handle, _) = start(&folder.open(), small_segments(segment_bytes));
            let mut kept = 0;
            for body in &bodies {
                let appended = handle.append(vec![body.clone()]).await.unwrap();
                kept += 1 - appended.duplicates;
            }
            handle.close().await;
            kept
        });
        let entries = folder.entries();
        prop_assert_eq!(entries.len() as u64, kept);
        prop_assert!(entries.iter().zip(1..).all(|(entry, seq)| entry.seq == seq));
        let mut given = bodies.iter();
        prop_assert!(entries.iter().all(|entry| given.any(|body| *body == entry.body)), "a subsequence of what was given");
    }
}

#[test]
fn entries_have_stable_bytes() {
    let tick = EntryBody::Tick(Tick { at: Time(-1), idle: vec!["a".into()], ..Tick::default() });
    assert_eq!(postcard::to_stdvec(&tick).unwrap(), [1, 1, 1, 1, b'a']);
    let left = EntryBody::Tick(Tick { at: Time(-1), idle: Vec::new(), elsewhere: vec!["k".into()] });
    assert_eq!(postcard::to_stdvec(&left).unwrap(), [4, 1, 0, 1, 1, b'k']);
    let revision = EntryBody::Revision(Revision { kind: RevisionKind::Inventory, hash: "ff".into() });
    assert_eq!(postcard::to_stdvec(&revision).unwrap(), [2, 2, 2, b'f', b'f']);
    let EntryBody::Record(mut body) = line("f", 300) else { unreachable!() };
    (body.source, body.stream, body.arrival) = ("s".into(), "t".into(), Some(Time(1)));
    let begin = [1, 1, 1, b'f', 0xAC, 2, 1, b's', 1, b't', 1, 2, 1, 0, 192, 0, 2, 1, 0, 4];
    let old = [&[0][..], &begin, b"line"].concat();
    let want = [&[3][..], &begin, b"line", &[0, 0]].concat();
    let body = EntryBody::Record(body);
    assert_eq!(postcard::to_stdvec(&body).unwrap(), want);
    assert_eq!(postcard::from_bytes::<EntryBody>(&want).unwrap(), body);
    assert_eq!(postcard::from_bytes::<EntryBody>(&old).unwrap(), body, "format 1");
    let EntryBody::Record(log) = body else { unreachable!() };
    let finding =
        EntryBody::Record(Record { payload: Payload::Finding, subject: Some("f".into()), id: Some(RecordId::Broker { log: "l".into(), offset: 1 }), ..log });
    assert_eq!(postcard::from_bytes::<EntryBody>(&postcard::to_stdvec(&finding).unwrap()).unwrap(), finding);
}

#[tokio::test]
async fn o1_places_are_given_in_order_without_gaps_and_survive_restarts() {
    let folder = Folder::new();
    for round in 0..3 {
        let (handle, recovery) = start(&folder.open(), small_segments(400));
        assert_eq!(recovery.last, round * 30);
        assert!(recovery.torn.is_empty() && recovery.broken.is_empty());
        for n in 0..10 {
            let appended = handle.append((0..3).map(|k| pushed(&format!("{round} {n} {k}"))).collect()).await.unwrap();
            let first = round * 30 + n * 3 + 1;
            assert_eq!((appended.first, appended.last, appended.duplicates), (first, first + 2, 0));
        }
        handle.close().await;
    }
    let entries = folder.entries();
    assert_eq!(entries.iter().map(|e| e.seq).collect::<Vec<_>>(), (1..=90).collect::<Vec<_>>());
    assert_eq!(raw(&entries[59]), "1 9 2");
    assert!(folder.segments("spool").len() > 5, "it went over several segments");
}

#[tokio::test]
async fn o1_concurrent_appends_each_stay_together_and_all_get_a_place() {
    let folder = Folder::new();
    let (handle, _) = start(&folder.open(), small_segments(2_000));
    let tasks: Vec<_> = (0..50)
        .map(|task| {
            let handle = handle.clone();
            tokio::spawn(async move { handle.append(vec![pushed(&format!("{task} a")), pushed(&format!("{task} b"))]).await.unwrap() })
        })
        .collect();
    let mut places = Vec::new();
    for (task, joined) in tasks.into_iter().enumerate() {
        places.push((task, joined.await.unwrap().first));
    }
    let entries = folder.entries();
    assert_eq!(entries.len(), 100);
    for (task, first) in places {
        let at = usize::try_from(first).unwrap() - 1;
        assert_eq!([raw(&entries[at]), raw(&entries[at + 1])], [format!("{task} a"), format!("{task} b")]);
    }
}

#[tokio::test]
async fn o4_a_redelivered_line_is_dropped_also_after_restarts_and_over_segments() {
    let folder = Folder::new();
    let (handle, _) = start(&folder.open(), small_segments(0));
    handle.append(vec![line("/var/log/a:1:2", 0), line("/var/log/b", 70)]).await.unwrap();
    let appended = handle.append(vec![line("/var/log/a:1:2", 0), line("/var/log/a:1:2", 50), line("/var/log/a:1:2", 50)]).await.unwrap();
    assert_eq!((appended.first, appended.last, appended.duplicates), (3, 3, 2));
    handle.append(vec![pushed("x")]).await.unwrap();
    handle.close().await;

    let (handle, recovery) = start(&folder.open(), small_segments(0));
    assert_eq!(recovery.last, 4);
    assert_eq!(handle.positions(), [("/var/log/a:1:2".into(), 50), ("/var/log/b".into(), 70)]);
    assert_eq!(handle.position("/var/log/c"), None);
    let again = handle.append(vec![line("/var/log/a:1:2", 50), line("/var/log/b", 69), line("/var/log/b", 70)]).await.unwrap();
    assert_eq!((again.first, again.last, again.duplicates), (5, 4, 3), "nothing was kept");
    let more = handle.append(vec![line("/var/log/b", 71)]).await.unwrap();
    assert_eq!((more.first, more.last, more.duplicates), (5, 5, 0));
    handle.close().await;
    assert_eq!(folder.entries().len(), 5);
}

#[tokio::test]
async fn o4_pushed_records_are_named_by_node_and_place() {
    let folder = Folder::new();
    let data = folder.open();
    let entry = |body| Entry { seq: 9, body };
    let node = data.node().clone();
    assert_eq!(record_id(&node, &entry(pushed("x"))), Some(RecordId::Pushed { node: node.clone(), seq: 9 }));
    assert_eq!(record_id(&node, &entry(line("f", 3))), Some(RecordId::File { file: "f".into(), offset: 3 }));
    assert_eq!(record_id(&node, &entry(EntryBody::Tick(Tick::default()))), None);
}

#[tokio::test]
async fn o5_entries_are_handed_on_in_order_and_only_when_they_are_durable() {
    let folder = Folder::new();
    let (spool, _) = Spool::open(&folder.open(), small_segments(1_000)).unwrap();
    let (subscriber, mut entries) = mpsc::channel(4);
    let handle = spool.start(subscriber).unwrap();
    let writer = handle.clone();
    let writing = tokio::spawn(async move {
        for n in 0..100 {
            writer.append(vec![pushed(&n.to_string())]).await.unwrap();
        }
    });
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let batch = entries.recv().await.unwrap();
        assert!(batch.last().unwrap().seq <= handle.durable());
        seen.extend(batch.iter().map(|e| (e.seq, raw(e))));
    }
    assert_eq!(seen, (0..100).map(|n| (n + 1, n.to_string())).collect::<Vec<_>>());
    writing.await.unwrap();
    handle.close().await;
    assert!(entries.recv().await.is_none(), "the writer's end is the subscriber's end");
}

#[tokio::test]
async fn a_slow_subscriber_makes_appends_wait_and_loses_nothing() {
    let folder = Folder::new();
    let (spool, _) = Spool::open(&folder.open(), SpoolConfig::default()).unwrap();
    let (subscriber, mut entries) = mpsc::channel(1);
    let handle = spool.start(subscriber).unwrap();
    handle.append(vec![pushed("in the channel")]).await.unwrap();
    handle.append(vec![pushed("waiting for it")]).await.unwrap();
    let held = handle.append(vec![pushed("behind")]);
    tokio::pin!(held);
    assert!(timeout(Duration::from_millis(200), &mut held).await.is_err(), "the subscriber holds the sources back");
    let first = entries.recv().await.unwrap();
    let appended = timeout(Duration::from_secs(10), held).await.unwrap().unwrap();
    assert_eq!(appended.first, 3);
    let rest = [first, entries.recv().await.unwrap(), entries.recv().await.unwrap()];
    assert_eq!(batch_of(&rest), [1, 2, 3]);
}

#[tokio::test]
async fn a_reader_follows_the_writer_and_never_runs_ahead_of_the_sync() {
    let folder = Folder::new();
    let (handle, _) = start(&folder.open(), small_segments(500));
    let (mut inside, mut outside) = (handle.read(0).unwrap(), opmas::journal::SpoolReader::open(&folder.path().join("spool"), 3).unwrap());
    assert!(inside.next().is_none());
    let writer = handle.clone();
    let writing = tokio::spawn(async move {
        for n in 0..200 {
            writer.append(vec![pushed(&format!("a line of some length {n}"))]).await.unwrap();
        }
    });
    let (mut seen, mut followed) = (0, 2);
    while seen < 200 || followed < 200 {
        for entry in inside.by_ref() {
            seen += 1;
            assert_eq!(entry.unwrap().seq, seen);
            assert!(seen <= handle.durable());
        }
        for entry in outside.by_ref() {
            followed += 1;
            assert_eq!(entry.unwrap().seq, followed);
        }
        tokio::task::yield_now().await;
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn reading_begins_where_it_is_asked_to() {
    let folder = Folder::new();
    filled_spool(&folder, 20, small_segments(300)).await;
    let from = |seq| opmas::journal::SpoolReader::open(&folder.path().join("spool"), seq).unwrap().map(|e| e.unwrap().seq).collect::<Vec<_>>();
    assert_eq!(from(0), from(1));
    assert_eq!(from(13), (13..=20).collect::<Vec<_>>());
    assert_eq!(from(21), [] as [u64; 0]);
}

#[tokio::test]
async fn retention_drops_whole_segments_but_none_that_recovery_needs() {
    let folder = Folder::new();
    let config = SpoolConfig { keep_bytes: 1, archive_bytes: 0, ..small_segments(300) };
    let (handle, _) = start(&folder.open(), config.clone());
    for n in 0..20 {
        handle.append(vec![line("/var/log/a", n)]).await.unwrap();
    }
    assert_eq!(folder.entries().len(), 20, "before a checkpoint is named all are needed");
    handle.retain_from(11);
    for n in 20..30 {
        handle.append(vec![line("/var/log/a", n)]).await.unwrap();
    }
    handle.close().await;
    let first = folder.entries()[0].seq;
    assert!(first > 1 && first <= 11, "{first}");
    assert!(folder.entries().iter().map(|e| e.seq).eq(first..=30));
    assert!(verify_spool(&folder.open()).is_good());
    let gone = opmas::journal::SpoolReader::open(&folder.path().join("spool"), 1).err().unwrap();
    assert!(matches!(gone, ReadError::Gone { asked: 1, oldest, .. } if oldest == first), "{gone}");

    let (handle, _) = start(&folder.open(), config);
    assert_eq!(handle.position("/var/log/a"), Some(29), "positions outlive the segments they were made in");
    handle.close().await;
}

#[tokio::test]
async fn retention_by_age_drops_what_is_older() {
    let folder = Folder::new();
    let config = SpoolConfig { keep: Span::millis(40), ..SpoolConfig::default() };
    let (handle, _) = start(&folder.open(), config);
    handle.retain_from(u64::MAX);
    for n in 0..12 {
        handle.append(vec![pushed(&n.to_string())]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    handle.close().await;
    let entries = folder.entries();
    assert!(entries.len() < 12 && entries.last().unwrap().seq == 12, "{} entries", entries.len());
}

#[tokio::test]
async fn an_entry_that_is_too_large_is_refused_and_the_next_one_is_kept() {
    let folder = Folder::new();
    let (handle, _) = start(&folder.open(), SpoolConfig::default());
    let huge = record(None, &vec![b'x'; MAX_PAYLOAD + 1]);
    let error = handle.append(vec![line("f", 1), huge]).await.unwrap_err();
    assert!(matches!(error, AppendError::TooLarge { .. }) && !error.is_temporary(), "{error}");
    assert_eq!(*handle.health().borrow(), Health::Good);
    let appended = handle.append(vec![line("f", 1)]).await.unwrap();
    assert_eq!((appended.first, appended.duplicates), (1, 0), "nothing of the refused append counts as kept");
}

#[tokio::test]
async fn no_place_is_given_twice_when_segments_were_lost() {
    let folder = Folder::new();
    filled_spool(&folder, 5, SpoolConfig::default()).await;
    let (mut spool, _) = Spool::open(&folder.open(), SpoolConfig::default()).unwrap();
    spool.skip_to(3).unwrap();
    assert_eq!(spool.last(), 5, "it is beyond that already");
    spool.skip_to(40).unwrap();
    let handle = spool.start(mpsc::channel(1).0).unwrap();
    assert_eq!(handle.append(vec![pushed("x")]).await.unwrap().first, 41);
    handle.close().await;
    let (seqs, errors) = folder.survivors();
    assert_eq!(seqs, [1, 2, 3, 4, 5, 41]);
    assert!(matches!(errors[..], [ReadError::Broken { from: 6, to: 40, .. }]), "{errors:?}");
}

#[test]
fn the_configuration_has_the_documented_defaults() {
    let config: SpoolConfig = toml::from_str("").unwrap();
    assert_eq!(config, SpoolConfig { keep: Span::secs(86_400), keep_bytes: 1 << 30, archive_bytes: 1 << 30, segment_bytes: 16 << 20 });
    let config: SpoolConfig = toml::from_str("keep = '7d'\nkeep_bytes = 5").unwrap();
    assert_eq!((config.keep, config.keep_bytes), (Span::secs(7 * 86_400), 5));
    assert!(toml::from_str::<SpoolConfig>("kepe = '7d'").is_err());
}
