//! Dead letters: kept once, in order, within their bounds, and listed.

use std::fs;
use std::process::Command;

use opmas::journal::{DataDir, DeadConfig, DeadLetters, DeadMark, DeadReader, verify_dead};
use opmas::model::{DeadLetter, DeadReason, NodeId, RecordId, Span, Time, hex};
use proptest::prelude::*;
use serde_json::Value;

use super::Folder;

fn letter(seq: u64) -> DeadLetter {
    DeadLetter {
        seq,
        id: RecordId::Pushed { node: NodeId("00112233aabbccdd".into()), seq },
        source: "agents".into(),
        stream: "agents/http/192.0.2.9".into(),
        subject: None,
        time: Time(i64::try_from(seq).unwrap() * 1_000_000_000),
        reason: DeadReason::BadSeverity,
        detail: "`severity` is 9".to_owned(),
        bytes: 14,
        raw: b"{\"severity\":9}".to_vec(),
    }
}

fn open(data: &DataDir, config: &DeadConfig) -> DeadLetters {
    DeadLetters::open(data, config).unwrap().0
}

/// Waits for the writer's end, which gives the folder's lock back.
async fn kept(folder: &Folder, config: &DeadConfig, letters: Vec<DeadLetter>) -> u64 {
    let log = open(&folder.open(), config);
    let kept = log.append(letters).await.unwrap();
    log.close().await;
    kept
}

fn seqs(folder: &Folder) -> Vec<u64> {
    DeadReader::open(&folder.path().join("dead")).unwrap().map(|letter| letter.unwrap().seq).collect()
}

fn said(folder: &Folder, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args(["store", "dead"]).args(arguments).arg("--data-dir").arg(folder.path()).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_bytes_of_a_dead_letter_are_stable() {
    let bytes = postcard::to_stdvec(&letter(7)).unwrap();
    assert_eq!(
        hex(&bytes),
        "0700103030313132323333616162626363646407066167656e7473156167656e74732f687474702f3139322e302e322e3900\
         8098dc9334050f6073657665726974796020697320390e0e7b227365766572697479223a397d"
    );
    assert_eq!(postcard::from_bytes::<DeadLetter>(&bytes).unwrap(), letter(7));
}

#[tokio::test]
async fn m2_a_letter_that_is_computed_again_is_kept_once_also_after_a_crash() {
    let (folder, config) = (Folder::new(), DeadConfig::default());
    assert_eq!(kept(&folder, &config, vec![letter(3), letter(5)]).await, 2);
    assert_eq!(kept(&folder, &config, vec![letter(3), letter(5), letter(8)]).await, 1);
    let log = open(&folder.open(), &config);
    assert_eq!(log.newest(), Some(DeadMark { seq: 8, time: letter(8).time }));
    // The same in one run: twice in one group, and later.
    let both = tokio::join!(log.append(vec![letter(8), letter(9)]), log.append(vec![letter(9), letter(10)]));
    assert_eq!((both.0.unwrap() + both.1.unwrap(), log.append(vec![letter(10)]).await.unwrap()), (2, 0));
    log.close().await;
    assert_eq!(seqs(&folder), [3, 5, 8, 9, 10]);
    assert!(verify_dead(&folder.open()).is_good());
}

#[tokio::test]
async fn m2_what_was_dropped_by_its_bounds_is_not_kept_again() {
    let folder = Folder::in_memory();
    let config = DeadConfig { keep_bytes: 16 << 10, ..DeadConfig::default() };
    let log = open(&folder.open(), &config);
    for seq in 1..=400 {
        log.append(vec![letter(seq)]).await.unwrap();
    }
    log.close().await;
    let bytes: u64 = folder.segments("dead").iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    let left = seqs(&folder);
    assert!(bytes <= 20 << 10 && left[0] > 100 && left.last() == Some(&400), "{bytes} bytes: {left:?}");
    assert_eq!(kept(&folder, &config, (1..=401).map(letter).collect()).await, 1, "also of those that are gone");

    // Old ones go at a start; what is newest is known all the same.
    let brief = DeadConfig { keep: Span(1), ..config };
    assert_eq!(kept(&folder, &brief, vec![letter(401)]).await, 0);
    assert!(seqs(&folder).len() < left.len());
}

#[tokio::test]
async fn a_torn_letter_is_cut_and_kept_when_it_comes_again() {
    let (folder, config) = (Folder::new(), DeadConfig::default());
    kept(&folder, &config, vec![letter(1), letter(2)]).await;
    let file = folder.segments("dead").remove(0);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    assert_eq!(seqs(&folder), [1]);
    let (log, recovery) = DeadLetters::open(&folder.open(), &config).unwrap();
    assert_eq!(recovery.torn.len(), 1);
    assert_eq!(log.append(vec![letter(1), letter(2)]).await.unwrap(), 1);
    log.close().await;
    assert_eq!(seqs(&folder), [1, 2]);
}

#[tokio::test]
async fn store_dead_lists_them_for_people_and_for_programs() {
    let (folder, config) = (Folder::new(), DeadConfig::default());
    drop(folder.open());
    assert_eq!(said(&folder, &["--json"]), (0, String::new()));
    let hostile = DeadLetter { raw: b"\x1b[2J\xff{\n".to_vec(), subject: Some("findings.wifi".into()), ..letter(2) };
    kept(&folder, &config, vec![letter(1), hostile]).await;
    let (exit, table) = said(&folder, &[]);
    assert!(exit == 0 && table.lines().count() == 3 && table.contains("bad_severity") && table.contains("findings.wifi"), "{table}");
    assert!(!table.contains('\x1b'), "what an attacker wrote does not act on the terminal");
    let (_, json) = said(&folder, &["--json", "--limit", "1"]);
    let row: Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({"seq": 2, "time": "1970-01-01T00:00:02Z", "id": "pushed:00112233aabbccdd:2", "source": "agents",
        "stream": "agents/http/192.0.2.9", "subject": "findings.wifi", "reason": "bad_severity", "detail": "`severity` is 9", "bytes": 14,
        "raw": "\u{1b}[2J\u{fffd}{\n", "raw_base64": "G1sySv97Cg=="});
    assert_eq!(row, expected);
    // A folder of an older version has none.
    fs::remove_dir_all(folder.path().join("dead")).unwrap();
    assert_eq!(said(&folder, &["--json"]), (0, String::new()));
}

proptest! {
    #[test]
    fn any_letter_comes_back_as_it_was(seq: u64, raw: Vec<u8>, detail: String, subject: Option<String>, time: i64) {
        let letter = DeadLetter { raw, detail, subject: subject.map(Into::into), time: Time(time), ..letter(seq % (1 << 32)) };
        let bytes = postcard::to_stdvec(&letter).unwrap();
        prop_assert_eq!(postcard::from_bytes::<DeadLetter>(&bytes).unwrap(), letter);
    }
}
