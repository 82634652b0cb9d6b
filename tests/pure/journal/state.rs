//! Checkpoints and kept revisions.

use std::fs;

use opmas::journal::{CheckpointRef, Checkpoints, DataDir, Revisions, verify_checkpoints, verify_revisions};
use opmas::model::{Decided, Time};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::Folder;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn checkpoints_and_revisions_are_read_as_they_were_written(body in proptest::collection::vec(any::<u8>(), 0..5_000), seq in any::<u64>()) {
        let folder = Folder::in_memory();
        let data = folder.open();
        let written = Checkpoints::new(&data).write(seq, &body).unwrap();
        let loaded = Checkpoints::new(&data).newest_valid(std::slice::from_ref(&written)).unwrap();
        prop_assert_eq!((&loaded.body, &loaded.checkpoint, loaded.passed_over.len()), (&body, &written, 0));
        let revisions = Revisions::new(&data);
        let hash = revisions.keep(&body).unwrap();
        prop_assert_eq!(revisions.keep(&body).unwrap(), hash.clone(), "kept once");
        prop_assert_eq!(revisions.read(&hash).unwrap(), body);
    }
}

#[test]
fn a_checkpoint_has_stable_bytes() {
    let folder = Folder::new();
    let written = Checkpoints::new(&folder.open()).write(258, b"body").unwrap();
    let bytes = fs::read(folder.path().join("state").join(&*written.name)).unwrap();
    assert_eq!(bytes[..20], *b"OPMCHKPT\x02\0\0\0\x02\x01\0\0\0\0\0\0");
    assert_eq!(bytes[20..52], Sha256::digest(&bytes[52..])[..]);
    assert_eq!(bytes[52..56], [0x28, 0xB5, 0x2F, 0xFD], "a frame of zstd (RFC 8878)");
    assert!(written.name.starts_with("00000000000000000258-") && written.name.ends_with(".checkpoint"));
}

/// The file of a checkpoint with this header and body, as the ledger would name it.
fn written_as(folder: &Folder, version: u8, body: &[u8]) -> CheckpointRef {
    let header = [b"OPMCHKPT".as_slice(), &[version, 0, 0, 0], &7_u64.to_le_bytes(), &Sha256::digest(body)].concat();
    let file = [&header, body].concat();
    let checkpoint = CheckpointRef { name: "x.checkpoint".into(), hash: opmas::model::hex(&Sha256::digest(&file)).into(), seq: 7 };
    fs::write(folder.path().join("state/x.checkpoint"), file).unwrap();
    checkpoint
}

#[test]
fn a_checkpoint_of_format_1_is_read_and_a_newer_one_and_one_that_does_not_unpack_are_not() {
    let folder = Folder::new();
    let data = folder.open();
    let loaded = Checkpoints::new(&data).newest_valid(&[written_as(&folder, 1, b"body")]).unwrap();
    assert_eq!(loaded.body, b"body");
    for (version, body) in [(3, b"body"), (2, b"body"), (0, b"body")] {
        let named = written_as(&folder, version, body);
        assert!(Checkpoints::new(&data).newest_valid(std::slice::from_ref(&named)).is_none());
        let what = if version == 2 { "cannot be decompressed" } else { "format that this opmas reads" };
        assert!(verify_checkpoints(&data, &[named]).wrong[0].contains(what));
    }
}

#[test]
fn a_checkpoint_of_many_groups_takes_little_room() {
    let folder = Folder::new();
    let data = folder.open();
    let body: Vec<u8> = (0..150_000_u32)
        .flat_map(|n| format!("{{\"src_ip\":\"10.0.{}.{}\",\"host\":\"ap{n}\",\"message\":\"failed\"}}", n >> 8 & 255, n & 255).repeat(32).into_bytes())
        .collect();
    assert!(body.len() > 256 << 20);
    let written = Checkpoints::new(&data).write(1, &body).unwrap();
    assert!(fs::metadata(data.state().join(&*written.name)).unwrap().len() < body.len() as u64 / 10);
    assert!(Checkpoints::new(&data).newest_valid(&[written]).unwrap().body == body);
}

#[test]
fn two_confirmed_checkpoints_are_kept_and_the_older_says_what_recovery_needs() {
    let folder = Folder::new();
    let mut checkpoints = Checkpoints::new(&folder.open());
    let mut write = |seq| {
        let written = checkpoints.write(seq, b"state").unwrap();
        (checkpoints.confirm(&written), written)
    };
    assert_eq!(write(10).0, 0, "with one alone, recovery may have to begin at the beginning");
    assert_eq!(write(20).0, 11);
    assert_eq!(write(30).0, 21);
    let names: Vec<_> = folder.segments("state").iter().map(|p| p.file_name().unwrap().to_str().unwrap()[18..20].to_owned()).collect();
    assert_eq!(names, ["20", "30"]);
}

#[test]
fn crashes_between_a_checkpoint_and_its_ledger_record_never_cost_the_last_good_one() {
    let folder = Folder::new();
    let data = folder.open();
    let mut checkpoints = Checkpoints::new(&data);
    let good = checkpoints.write(10, b"good").unwrap();
    checkpoints.confirm(&good);
    for seq in 11..20 {
        let mut checkpoints = Checkpoints::new(&data);
        assert_eq!(checkpoints.newest_valid(std::slice::from_ref(&good)).unwrap().body, b"good");
        checkpoints.write(seq, b"not in the ledger").unwrap();
    }
    let mut checkpoints = Checkpoints::new(&data);
    checkpoints.newest_valid(std::slice::from_ref(&good)).unwrap();
    let next = checkpoints.write(30, b"next").unwrap();
    assert_eq!(checkpoints.confirm(&next), 11);
    assert_eq!(folder.segments("state").len(), 2, "what the ledger does not name is removed");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before_it() {
    let folder = Folder::new();
    let data = folder.open();
    let mut checkpoints = Checkpoints::new(&data);
    let named = [checkpoints.write(10, b"older").unwrap(), checkpoints.write(20, b"newer").unwrap()];
    let file = data.state().join(&*named[1].name);
    let whole = fs::read(&file).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes).unwrap();
        let loaded = checkpoints.newest_valid(&named).unwrap();
        assert_eq!((loaded.body.as_slice(), loaded.checkpoint.seq), (&b"older"[..], 10));
        assert!(loaded.passed_over[0].contains(&*named[1].name));
        assert!(!verify_checkpoints(&data, &named).is_good());
    }
    fs::write(&file, &whole).unwrap();
    assert!(verify_checkpoints(&data, &named).is_good());
    assert!(checkpoints.newest_valid(&[]).is_none());
    let sideways = CheckpointRef { name: "../node.checkpoint".into(), hash: "".into(), seq: 1 };
    assert!(checkpoints.newest_valid(&[sideways]).is_none());
}

#[test]
fn the_ledger_names_checkpoints() {
    let decided = Decided::Checkpoint { name: "n".into(), hash: "h".into(), seq: 4, at: Time(0), ahead: 3 };
    assert_eq!(CheckpointRef::of(&decided), Some(CheckpointRef { name: "n".into(), hash: "h".into(), seq: 4 }));
    assert_eq!(CheckpointRef::of(&super::note("x")), None);
}

#[test]
fn a_damaged_revision_is_not_read_and_is_kept_anew() {
    let folder = Folder::new();
    let data = folder.open();
    let revisions = Revisions::new(&data);
    let hash = revisions.keep(b"rules").unwrap();
    fs::write(data.revisions().join(&hash), "ruled").unwrap();
    assert!(revisions.read(&hash).unwrap_err().to_string().contains("another hash"));
    assert_eq!(verify_revisions(&data).wrong.len(), 1);
    revisions.keep(b"rules").unwrap();
    assert_eq!(revisions.read(&hash).unwrap(), b"rules");
    assert!(verify_revisions(&data).is_good());
    for bad in ["", "../../etc/passwd", &"0".repeat(63)] {
        assert!(revisions.read(bad).is_err());
    }
}

#[test]
fn what_was_kept_longest_ago_goes_beyond_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataDir::open(folder.path()).unwrap();
    for (kept, dir, bound) in [(Revisions::evidence(&data), data.evidence(), 256 << 20), (Revisions::new(&data), data.revisions(), 1 << 30)] {
        let pause = || std::thread::sleep(std::time::Duration::from_millis(20));
        let (first, live) = (kept.keep(b"first").unwrap(), kept.keep(b"live").unwrap());
        pause();
        // Nothing is written for it.
        fs::File::create(dir.join("large")).unwrap().set_len(bound - 2 * 4096).unwrap();
        pause();
        // Kept once more, at a start for one.
        kept.keep(b"live").unwrap();
        assert!(kept.read(&first).is_ok());
        let second = kept.keep(b"second").unwrap();
        assert!(kept.read(&first).is_err() && kept.read(&live).is_ok() && kept.read(&second).is_ok() && dir.join("large").exists());
    }
    assert!(opmas::journal::verify_evidence(&data).wrong.iter().any(|wrong| wrong.contains("large")), "what is no evidence is named");
}
