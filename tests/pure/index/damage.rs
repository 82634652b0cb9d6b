//! An index that is not in order is set aside and made anew from the ledger, with the same answers.

use std::fs;
use std::path::{Path, PathBuf};

use opmas::index::{Index, OpenError, Opened};

use super::{answers, catch_up, fresh, hash, reopened, stories};

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The folder's files as they are now.
fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(file, target).unwrap();
    }
}

fn set_aside(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".broken-")).collect()
}

#[test]
fn a_flipped_byte_in_each_of_its_files_changes_no_answer() {
    let ledger = stories(60);
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    let index = fresh(&good, &ledger, 16);
    let expected = answers(&index);
    index.flush().unwrap();
    drop(index);
    drop(reopened(&good));
    let (mut rebuilt, mut tried) = (0, 0);
    for file in files(&good) {
        let len = fs::metadata(&file).unwrap().len();
        for place in (0..len).step_by(usize::try_from((len / PLACES).max(1)).unwrap()) {
            let copied = tempfile::tempdir_in(dir.path()).unwrap();
            let path = copied.path().join("index");
            copy(&good, &path);
            flip(&path.join(file.strip_prefix(&good).unwrap()), place);
            let (mut index, opened) = Index::open(&path).unwrap();
            catch_up(&mut index, &ledger, 64);
            assert_eq!(answers(&index), expected, "{} byte {place}: {opened:?}", file.display());
            assert_eq!(set_aside(copied.path()).len(), usize::from(opened != Opened::Ready));
            rebuilt += u32::from(opened != Opened::Ready);
            tried += 1;
        }
    }
    assert!(rebuilt > 0 && tried > 10, "{rebuilt} of {tried}");
}

/// Bytes that are flipped in each file, spread over it.
const PLACES: u64 = 12;

fn flip(file: &Path, place: u64) {
    let mut bytes = fs::read(file).unwrap();
    bytes[usize::try_from(place).unwrap()] ^= 0x41;
    fs::write(file, bytes).unwrap();
}

#[test]
fn any_of_its_files_may_be_missing() {
    let ledger = stories(30);
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    let index = fresh(&good, &ledger, 16);
    let expected = answers(&index);
    drop(index);
    drop(reopened(&good));
    for file in files(&good) {
        let copied = tempfile::tempdir_in(dir.path()).unwrap();
        let path = copied.path().join("index");
        copy(&good, &path);
        fs::remove_file(path.join(file.strip_prefix(&good).unwrap())).unwrap();
        let (mut index, opened) = Index::open(&path).unwrap();
        catch_up(&mut index, &ledger, 64);
        assert_eq!(answers(&index), expected, "without {}: {opened:?}", file.display());
    }
}

#[test]
fn one_that_is_held_can_be_replaced_and_one_row_too_many_is_noticed() {
    let ledger = stories(5);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let held = fresh(&path, &ledger, 16);
    assert!(matches!(Index::open(&path), Err(OpenError::Locked(_))));
    let (mut index, opened) = Index::replace(&path, "it is held").unwrap();
    assert_eq!(opened, Opened::Rebuilt { why: "it is held".to_owned() });
    catch_up(&mut index, &ledger, 16);
    assert_eq!(answers(&index), answers(&held));
    drop(index);
    drop(reopened(&path));
    let tampered = opened_raw(&path);
    tampered.insert([&b"l"[..], &hash(1)].concat(), "{}").unwrap();
    drop(tampered);
    let (_, opened) = reopened(&path);
    assert!(matches!(&opened, Opened::Rebuilt { why } if why.contains("rows")), "{opened:?}");
    assert_eq!(set_aside(dir.path()).len(), 1, "at most one is kept");
}

fn opened_raw(path: &Path) -> sled::Db {
    (0..500)
        .find_map(|_| {
            let db = sled::open(path).ok();
            if db.is_none() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            db
        })
        .unwrap()
}
