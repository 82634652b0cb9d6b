//! The ledger's retention and its signed head.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use opmas::journal::{Content, Ledger, LedgerConfig, LedgerKey, LedgerReader, SignedHead, verify_ledger};
use opmas::model::{Decided, Span, Time};
use proptest::prelude::*;

use super::{Folder, note};

/// Every segment is old enough to be closed at the next append, and to be dropped.
const SOON: LedgerConfig = LedgerConfig { keep: Span(4), publish_head: Span(4) };
const EVER: Time = Time(i64::MAX);

/// The texts of all notes, behind the newest anchor where there is one.
fn state(folder: &Folder) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in LedgerReader::open(&folder.path().join("ledger"), 0).unwrap() {
        match entry.unwrap().content {
            Content::Decided(one) => match *one {
                Decided::Anchor { .. } => texts.clear(),
                Decided::Note { text, .. } => texts.push(text),
                _ => {}
            },
            Content::Erased { .. } => {}
        }
    }
    texts
}

fn notes(texts: &[String]) -> Vec<Decided> {
    texts.iter().map(|text| note(text)).collect()
}

async fn open(folder: &Folder) -> Ledger {
    Ledger::open_with(&folder.open(), &SOON, &mut drop).unwrap().0
}

/// Appends, and has what is old dropped where `drops` says so; the head after each append.
async fn live(folder: &Folder, drops: &[bool]) -> Vec<(u64, String)> {
    let mut ledger = open(folder).await;
    let mut heads = Vec::new();
    for (n, drop_now) in drops.iter().enumerate() {
        let place = ledger.append(vec![note(&n.to_string())]).await.unwrap();
        heads.push((place.last, place.hash.to_string()));
        if *drop_now && let Some(old) = ledger.old(EVER).unwrap() {
            let alive = notes(&state(folder));
            assert!(ledger.drop_old(old, alive).await.unwrap() > 0);
        }
        if n % 3 == 2 {
            ledger.close().await;
            ledger = open(folder).await;
        }
    }
    ledger.close().await;
    heads
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn retention_at_any_point_keeps_what_is_alive_and_the_chain(drops in proptest::collection::vec(any::<bool>(), 1..14)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let folder = Folder::in_memory();
        let heads = runtime.block_on(live(&folder, &drops));
        let expected: Vec<String> = (0..drops.len()).map(|n| n.to_string()).collect();
        prop_assert_eq!(state(&folder), expected);
        let data = folder.open();
        let report = verify_ledger(&data, None);
        prop_assert!(report.is_good(), "{:?}", report.wrong);
        // A head that is still kept is proven, one that is not is said to be gone.
        for (seq, head) in heads {
            let report = verify_ledger(&data, Some(head.parse().unwrap()));
            let kept = report.first.is_some_and(|first| seq + 1 >= first);
            prop_assert_eq!(report.found_head, kept.then_some(seq));
            prop_assert!(kept || report.wrong[0].contains("retention has dropped its record"), "{:?}", report.wrong);
        }
    }
}

#[tokio::test]
async fn without_its_anchor_a_ledger_that_lost_segments_is_refused() {
    let folder = Folder::new();
    live(&folder, &[false, false, false, true, false]).await;
    assert!(verify_ledger(&folder.open(), None).is_good());
    // As a crash between two removals leaves it: the anchor says more than is gone. And then someone takes one too many.
    let (ledger, _) = Ledger::open_with(&folder.open(), &SOON, &mut drop).unwrap();
    ledger.append(vec![note("a")]).await.unwrap();
    ledger.append(vec![note("b")]).await.unwrap();
    ledger.close().await;
    let anchored = |folder: &Folder| {
        let mut entries = LedgerReader::open(&folder.path().join("ledger"), 0).unwrap().map(Result::unwrap);
        entries.any(|entry| matches!(entry.content, Content::Decided(one) if matches!(*one, Decided::Anchor { .. })))
    };
    while anchored(&folder) {
        assert!(verify_ledger(&folder.open(), None).first.unwrap() < 5 || Ledger::open(&folder.open()).is_err());
        fs::remove_file(folder.segments("ledger").remove(0)).unwrap();
    }
    let report = verify_ledger(&folder.open(), None);
    assert!(report.wrong.iter().any(|wrong| wrong.contains("begins with record")), "{:?}", report.wrong);
    let error = Ledger::open(&folder.open()).map(drop).unwrap_err().to_string();
    assert!(error.contains("begins with record") && error.contains("backup"), "{error}");
}

#[tokio::test]
async fn a_crash_before_the_segments_are_gone_changes_nothing() {
    let folder = Folder::new();
    live(&folder, &[false, false, false, false]).await;
    let kept = Folder::new();
    super::copy_folder(&folder.path().join("ledger"), &kept.path());
    let ledger = open(&folder).await;
    let old = ledger.old(EVER).unwrap().unwrap();
    ledger.drop_old(old, notes(&["alive".to_owned()])).await.unwrap();
    ledger.close().await;
    // The segments are there again, as if they had never been removed.
    super::copy_folder(&kept.path(), &kept.path().join("../again"));
    for entry in fs::read_dir(kept.path()).unwrap() {
        let file = entry.unwrap().path();
        let target = folder.path().join("ledger").join(file.file_name().unwrap());
        if !target.exists() {
            fs::copy(&file, target).unwrap();
        }
    }
    assert!(verify_ledger(&folder.open(), None).is_good());
    assert_eq!(state(&folder), ["alive"]);
    let ledger = open(&folder).await;
    let old = ledger.old(EVER).unwrap().unwrap();
    ledger.drop_old(old, notes(&["alive".to_owned()])).await.unwrap();
    ledger.close().await;
    assert!(verify_ledger(&folder.open(), None).is_good());
}

/// Exit code and what was said.
fn audit(folder: &Folder, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
    let output = command.arg("audit").args(arguments).arg("--data-dir").arg(folder.path()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_signed_head_is_proven_and_a_changed_one_is_not() {
    let folder = Folder::new();
    super::filled_ledger(&folder, &[1, 2]).await;
    let data = folder.open();
    let key = LedgerKey::open(&data).unwrap();
    let file = data.path().join("keys/ledger.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(LedgerKey::open(&data).unwrap().public(), key.public(), "it is made once");
    let (ledger, _) = Ledger::open(&data).unwrap();
    let head = key.sign(data.node(), ledger.head(), Time(1_790_000_000_000_000_000));
    head.publish(&data).unwrap();
    ledger.append(vec![note("later")]).await.unwrap();
    ledger.close().await;

    let json = serde_json::to_string(&head).unwrap();
    for form in [json.clone(), data.ledger().join("head.json").display().to_string(), head.hash.clone()] {
        let (code, said, _) = audit(&folder, &["verify", "--head", &form]);
        assert!(code == 0 && said.contains("is the head of record 3: nothing up to it was rewritten"), "{said}");
    }
    // Another record, node or time under the same signature; another's key; another folder's head.
    let changed = [
        SignedHead { seq: 2, ..head.clone() },
        SignedHead { at: Time(0), ..head.clone() },
        SignedHead { hash: "00".repeat(32), ..head.clone() },
        SignedHead { signature: "AAAA".to_owned(), ..head.clone() },
        SignedHead { key: "no key".to_owned(), ..head.clone() },
    ];
    for head in changed {
        assert!(head.verified().is_err());
        let (code, _, said) = audit(&folder, &["verify", "--head", &serde_json::to_string(&head).unwrap()]);
        assert!(code == 1 && said.contains("it was changed"), "{said}");
    }
    let other = Folder::new();
    let theirs = LedgerKey::open(&other.open()).unwrap();
    let forged = theirs.sign(data.node(), (3, head.hash.parse().unwrap()), Time(0));
    let (code, _, said) = audit(&folder, &["verify", "--head", &serde_json::to_string(&forged).unwrap()]);
    assert!(code == 1 && said.contains("signs with"), "{said}");
    let (code, _, said) = audit(&other, &["verify", "--head", &json]);
    assert!(code == 1 && said.contains("another data folder"), "{said}");
    assert_eq!(audit(&folder, &["verify", "--head", "{\"seq\":1}"]).0, 2);

    fs::write(&file, b"no key").unwrap();
    let error = LedgerKey::open(&data).map(drop).unwrap_err().to_string();
    assert!(error.contains("ledger.key") && error.contains("backup"), "{error}");
}

#[tokio::test]
async fn audit_show_prints_records_as_json_lines() {
    let folder = Folder::new();
    super::filled_ledger(&folder, &[1, 2, 1]).await;
    let key = LedgerKey::open(&folder.open()).unwrap().public();
    std::thread::sleep(Duration::from_millis(1));
    let (code, said, errors) = audit(&folder, &["show"]);
    assert!(code == 0 && said.lines().count() == 4 && errors.contains(&key), "{said}{errors}");
    let (_, said, _) = audit(&folder, &["show", "--last", "2"]);
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["seq"], &lines[1]["seq"]), (&3.into(), &4.into()));
    assert_eq!(lines[1]["decided"]["text"], "record 4");
    assert_eq!(lines[1]["hash"].as_str().unwrap().len(), 64);

    let file = folder.segments("ledger").remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(8).position(|w| w == b"record 2").unwrap();
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    let (code, said, errors) = audit(&folder, &["show"]);
    assert!(code == 1 && errors.contains(&file.display().to_string()) && !said.is_empty(), "{said}{errors}");
}
