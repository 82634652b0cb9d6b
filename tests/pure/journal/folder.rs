//! The data folder: made once, held by one, refused when it is not ours.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use opmas::journal::{DataDir, Ledger, Spool, SpoolConfig};

use super::{Folder, start};

fn refusal(folder: &Folder) -> String {
    let error = DataDir::open(&folder.path()).unwrap_err().to_string();
    assert!(!error.contains('\n'), "one sentence: {error}");
    error
}

#[test]
fn a_new_folder_is_private_and_knows_its_version_and_node() {
    let folder = Folder::new();
    let node = folder.open().node().clone();
    let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert_eq!(fs::read_to_string(folder.path().join("format")).unwrap(), "opmas-data 1\n", "stable");
    assert_eq!(node.0.len(), 16);
    assert_eq!(*folder.open().node(), node, "made once");
    assert_eq!(DataDir::open_read_only(&folder.path()).unwrap().node(), &node);
}

#[test]
fn a_second_opmas_is_told_who_holds_the_folder() {
    let folder = Folder::new();
    let held = folder.open();
    let error = refusal(&folder);
    assert!(error.contains(folder.path().to_str().unwrap()) && error.contains("held by another opmas"), "{error}");
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    let read_only = DataDir::open_read_only(&folder.path()).unwrap();
    let writing = Spool::open(&read_only, SpoolConfig::default()).err().unwrap().to_string();
    assert!(writing.contains("opened for reading only"), "{writing}");
    assert!(Ledger::open(&read_only).is_err());
    drop(held);
    folder.open();
}

#[tokio::test]
async fn the_folder_is_held_until_the_last_writer_has_ended() {
    let folder = Folder::new();
    let data = folder.open();
    let (handle, _) = start(&data, Default::default());
    drop(data);
    assert!(refusal(&folder).contains("held by another opmas"));
    handle.close().await;
    folder.open();
}

#[test]
fn a_folder_of_another_version_is_refused_with_the_remedy() {
    let folder = Folder::new();
    drop(folder.open());
    for (format, want) in [("opmas-data 2\n", "newer opmas (format 2"), ("opmas-data 0\n", "does not name a version"), ("", "does not name"), ("x", "`x`")] {
        fs::write(folder.path().join("format"), format).unwrap();
        let error = refusal(&folder);
        assert!(error.contains(want) && error.contains("format") && error.contains("use another `data_dir`"), "{error}");
        let read_only = DataDir::open_read_only(&folder.path()).unwrap_err().to_string();
        assert!(read_only.contains(want), "{read_only}");
    }
}

#[test]
fn a_folder_with_other_things_in_it_is_refused_and_left_alone() {
    let folder = Folder::new();
    fs::create_dir(folder.path()).unwrap();
    fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    assert!(refusal(&folder).contains("not an opmas data folder"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(DataDir::open_read_only(&folder.path()).unwrap_err().to_string().contains("not an opmas data folder"));
}

#[test]
fn a_spool_without_a_format_file_is_not_taken_for_a_first_start() {
    let folder = Folder::new();
    drop(start(&folder.open(), Default::default()));
    fs::remove_file(folder.path().join("format")).unwrap();
    // The writer may still be ending: it holds the folder, and that is not what is asked here.
    assert!(refusal(&folder).contains("not an opmas data folder"));
}

#[test]
fn an_interrupted_first_start_is_completed() {
    let folder = Folder::new();
    let node = folder.open().node().clone();
    fs::remove_file(folder.path().join("format")).unwrap();
    fs::write(folder.path().join("format.tmp"), "opm").unwrap();
    assert_eq!(*folder.open().node(), node);
}

#[test]
fn a_missing_parent_and_a_file_in_the_way_are_said() {
    let folder = Folder::new();
    let error = DataDir::open(&folder.path().join("deeper")).unwrap_err().to_string();
    assert!(error.contains("cannot make the folder") && error.contains("No such file"), "{error}");
    fs::write(folder.path(), "").unwrap();
    assert!(refusal(&folder).contains("Not a directory"));
    assert!(DataDir::open_read_only(&folder.path().join("x")).unwrap_err().to_string().contains("no data folder"));
}
