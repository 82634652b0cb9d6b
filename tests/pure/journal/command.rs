//! `opmas store verify` and `opmas audit verify`, as programs.

use std::fs;
use std::path::Path;
use std::process::Command;

use opmas::journal::{Checkpoints, Ledger, Revisions, SpoolConfig, verify_ledger};
use opmas::model::{Decided, Time};

use super::{Folder, filled_ledger, filled_spool, pushed, start};

/// Exit code and standard output; standard error must hold one sentence or nothing.
pub(super) fn opmas(arguments: &[&str], data_dir: &Path) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).arg("--data-dir").arg(data_dir).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.lines().count() <= 1, "{errors}");
    (output.status.code().unwrap(), format!("{}{errors}", String::from_utf8(output.stdout).unwrap()))
}

#[tokio::test]
async fn x1_a_good_store_verifies_while_it_is_in_use() {
    let folder = Folder::new();
    filled_ledger(&folder, &[2]).await;
    let data = folder.open();
    let (handle, _) = start(&data, SpoolConfig::default());
    handle.append(vec![pushed("a"), pushed("b"), pushed("c")]).await.unwrap();
    let checkpoint = Checkpoints::new(&data).write(2, b"state").unwrap();
    Revisions::new(&data).keep(b"rules").unwrap();
    let (ledger, _) = Ledger::open(&data).unwrap();
    let named = Decided::Checkpoint { name: checkpoint.name, hash: checkpoint.hash, seq: 2, at: Time(0), ahead: 0 };
    let place = ledger.append(vec![named]).await.unwrap();
    let (exit, text) = opmas(&["store", "verify"], &folder.path());
    assert_eq!(exit, 0, "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("spool: good: 1 segments, 3 entries (1 to 3)"), "{text}");
    assert!(lines[1].starts_with("ledger: good: 1 segments, 3 records (1 to 3)") && lines[1].ends_with(&format!("head 3 {}", place.hash)), "{text}");
    assert!(lines[2].starts_with("checkpoints: good: 1 files, 1 verified"), "{text}");
    assert!(lines[3].starts_with("revisions: good: 1 files, 1 verified"), "{text}");
    assert!(lines[4].starts_with("dead letters: good: 0 segments, 0 letters"), "{text}");
    assert!(lines[5].starts_with("evidence: good: 0 files, 0 verified") && lines.len() == 6, "{text}");
}

#[tokio::test]
async fn x1_each_wrong_thing_is_named_with_its_place() {
    let folder = Folder::new();
    filled_spool(&folder, 4, SpoolConfig::default()).await;
    filled_ledger(&folder, &[1, 1]).await;
    for (log, text) in [("spool", b"entry 2"), ("ledger", b"record ")] {
        let file = folder.segments(log).remove(0);
        let mut bytes = fs::read(&file).unwrap();
        let at = bytes.windows(7).position(|w| w == text).unwrap();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
    }
    let (exit, text) = opmas(&["store", "verify"], &folder.path());
    assert_eq!(exit, 1, "{text}");
    assert!(text.contains("spool: 1 wrong: 1 segments, 3 entries (1 to 4)"), "{text}");
    let file = folder.segments("spool").remove(0);
    assert!(text.contains(&format!("  {}:", file.display())) && text.contains("records 2 to 2 cannot be read"), "{text}");
    assert_eq!(opmas(&["audit", "verify"], &folder.path()).0, 1);
}

#[tokio::test]
async fn a_noted_head_proves_that_nothing_before_it_was_rewritten() {
    let folder = Folder::new();
    filled_ledger(&folder, &[1, 2]).await;
    let noted = verify_ledger(&folder.open(), None).head.unwrap().to_string();
    let (ledger, _) = Ledger::open(&folder.open()).unwrap();
    ledger.append(vec![super::note("later")]).await.unwrap();
    ledger.close().await;
    let (exit, text) = opmas(&["audit", "verify", "--head", &noted], &folder.path());
    assert_eq!(exit, 0, "{text}");
    assert!(text.contains("is the head of record 3: nothing up to it was rewritten"), "{text}");

    // Someone writes the history anew, with a chain that is whole in itself.
    fs::remove_file(folder.segments("ledger").remove(0)).unwrap();
    filled_ledger(&folder, &[4]).await;
    assert_eq!(opmas(&["audit", "verify"], &folder.path()).0, 0);
    let (exit, text) = opmas(&["audit", "verify", "--head", &noted], &folder.path());
    assert_eq!(exit, 1, "{text}");
    assert!(text.contains("was rewritten or cut since"), "{text}");
    assert_eq!(Command::new(env!("CARGO_BIN_EXE_opmas")).args(["audit", "verify", "--head", "xyz"]).output().unwrap().status.code(), Some(2));
}

#[test]
fn x1_without_a_data_folder_the_exit_is_3() {
    let folder = Folder::new();
    for command in [["store", "verify"], ["audit", "verify"]] {
        let (exit, text) = opmas(&command, &folder.path());
        assert_eq!(exit, 3);
        assert!(text.contains("there is no data folder") && text.contains("--data-dir"), "{text}");
    }
    fs::create_dir(folder.path()).unwrap();
    let (exit, text) = opmas(&["store", "verify"], &folder.path());
    assert!(exit == 3 && text.contains("not an opmas data folder"), "{text}");
}

#[tokio::test]
async fn the_configuration_names_the_folder_where_the_command_line_does_not() {
    let folder = Folder::new();
    filled_spool(&folder, 1, SpoolConfig::default()).await;
    let config = folder.path().join("../opmas.toml");
    let with = |text: &str| {
        fs::write(&config, text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_opmas")).arg("--config").arg(&config).args(["store", "verify"]).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (exit, text) = with(&format!("data_dir = '{}'", folder.path().display()));
    assert!(exit == 0 && text.contains("1 entries"), "{text}");
    for (bad, want) in [
        ("data_dir = 3", "opmas.toml:1:12: invalid type: integer `3`, expected path string"),
        ("data_dir", "opmas.toml:1:"),
        ("data_dir = '/nowhere'", "no data folder /nowhere"),
    ] {
        let (exit, text) = with(bad);
        assert!(exit == 3 && text.contains(want), "{text}");
    }
}
