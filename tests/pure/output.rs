//! Standard output that nobody reads, or that has no room.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::{Command, Stdio};

fn commands() -> Vec<Vec<&'static str>> {
    [
        "check",
        "config show",
        "channel list",
        "store verify",
        "audit verify",
        "rule list",
        "rule fields",
        "rule lint",
        "playbook list",
        "device list",
        "schema finding",
        "completions bash",
        "man",
        "eval --rules rules",
        "normalise",
        "replay log",
        "init new",
    ]
    .map(|command| command.split(' ').collect())
    .to_vec()
}

fn site() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new(env!("CARGO_BIN_EXE_opmas")).args(["init", "site"]).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success());
    let site = dir.path().join("site");
    std::fs::write(site.join("devices.toml"), "[[device]]\nname = 'ap1'\nhost = '192.0.2.1'\n").unwrap();
    let line = "Nov 21 10:00:00 ap1 dropbear[1]: Bad password attempt for 'root' from 203.0.113.9:48629\n";
    std::fs::write(site.join("log"), line.repeat(7)).unwrap();
    // A data folder.
    opmas::journal::DataDir::open(&site.join("opmas-data")).unwrap();
    dir
}

/// Exit code and standard error.
fn run(arguments: &[&str], dir: &Path, output: Stdio) -> (Option<i32>, String) {
    std::fs::remove_dir_all(dir.join("new")).ok();
    let log = std::fs::File::open(dir.join("log")).unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).current_dir(dir).stdin(log).stdout(output).stderr(Stdio::piped()).output().unwrap();
    (done.status.code(), String::from_utf8(done.stderr).unwrap())
}

#[test]
fn a_reader_that_has_gone_ends_a_command_quietly() {
    let site = site();
    let dir = site.path().join("site");
    for command in commands() {
        let (read, _) = run(&command, &dir, Stdio::null());
        let (_, write) = std::io::pipe().unwrap();
        let (exit, errors) = run(&command, &dir, write.into());
        assert!(!errors.contains("panicked") && !errors.contains("standard output"), "{command:?}: {errors}");
        assert!(exit == read || exit == Some(0), "{command:?}: {exit:?} in the place of {read:?}: {errors}");
    }
}

#[test]
fn x1_help_that_cannot_be_written_is_an_error() {
    let site = site();
    let dir = site.path().join("site");
    for arguments in [&["help"][..], &["--version"], &["device", "--help"]] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (exit, errors) = run(arguments, &dir, full.into());
        assert_eq!((exit, errors.as_str()), (Some(1), "opmas: standard output takes no more: No space left on device (os error 28)\n"), "{arguments:?}");
        let (_, write) = std::io::pipe().unwrap();
        assert_eq!(run(arguments, &dir, write.into()), (Some(0), String::new()), "{arguments:?}");
    }
}

#[test]
fn x1_a_name_that_there_is_not_is_wrong_usage() {
    let site = site();
    let dir = site.path().join("site");
    for arguments in [&["channel", "test", "nope"][..], &["action", "show", "nope"], &["explain", "nope", "--rules", "rules"], &["device", "check", "nope"]] {
        let (exit, errors) = run(arguments, &dir, Stdio::null());
        assert!(exit == Some(2) && errors.contains("nope"), "{arguments:?}: {exit:?} {errors}");
    }
}

#[test]
fn without_a_data_folder_what_helps_is_an_option_that_the_command_has() {
    let site = site();
    let dir = site.path().join("site");
    std::fs::remove_dir_all(dir.join("opmas-data")).unwrap();
    for arguments in
        [&["finding", "list"][..], &["finding", "show", "x"], &["lease", "list"], &["delivery", "list"], &["alert", "list"], &["playbook", "show", "x"]]
    {
        let (exit, errors) = run(arguments, &dir, Stdio::null());
        assert!(exit == Some(3) && errors.contains("there is no data folder") && errors.contains("--config FILE"), "{arguments:?}: {errors}");
        assert!(!errors.contains("--data-dir"), "{arguments:?}: {errors}");
    }
    let (exit, errors) = run(&["store", "restore", "nope"], &dir, Stdio::null());
    assert!(exit == Some(3) && errors.contains("there is no copy nope; name the folder that `opmas store backup` made"), "{errors}");
}

#[test]
fn x1_a_full_device_is_an_error() {
    let site = site();
    let dir = site.path().join("site");
    for command in commands() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (exit, errors) = run(&command, &dir, full.into());
        assert!(exit == Some(1) && errors.contains("standard output") && !errors.contains("panicked"), "{command:?}: {exit:?} {errors}");
        assert_eq!(errors.contains("standard input"), ["eval", "normalise"].contains(&command[0]), "{command:?}: {errors}");
    }
}
