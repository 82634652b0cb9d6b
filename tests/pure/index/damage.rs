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
    let ledger = stories(120);
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
        let step: u64 = std::env::var("STEP").map_or((len / 12).max(1), |s| s.parse().unwrap());
        for place in (0..len).step_by(usize::try_from(step).unwrap()) {
            let place_dir = tempfile::tempdir_in(dir.path()).unwrap();
            let path = place_dir.path().join("index");
            copy(&good, &path);
            let hit = path.join(file.strip_prefix(&good).unwrap());
            let mut bytes = fs::read(&hit).unwrap();
            bytes[usize::try_from(place).unwrap()] ^= 0x41;
            fs::write(&hit, bytes).unwrap();
            let t = std::time::Instant::now();
            let (mut index, opened) = Index::open(&path).unwrap();
            if std::env::var("STEP").is_ok() {
                eprintln!("{} {place}: {opened:?} {} {:?}", file.display(), index.position().0, t.elapsed());
            }
            catch_up(&mut index, &ledger, 64);
            assert_eq!(answers(&index), expected, "{} byte {place}: {opened:?}", file.display());
            assert_eq!(set_aside(place_dir.path()).len(), usize::from(opened != Opened::Ready));
            rebuilt += u32::from(opened != Opened::Ready);
            tried += 1;
        }
    }
    eprintln!("{rebuilt} of {tried}");
    assert!(rebuilt > 0 && tried > 10);
}
