//! Imports go downward only, and the doors never import each other.

use std::fs;
use std::path::{Path, PathBuf};

/// The order of `src/lib.rs`: each room may import those above it in this list.
const ORDER: &[&str] = &[
    "model",
    "diag",
    "clock",
    "secret",
    "http",
    "broker",
    "process",
    "sigma",
    "normalise",
    "entity",
    "detect",
    "correlate",
    "triage",
    "action",
    "playbook",
    "journal",
    "source",
    "publish",
    "index",
    "endpoint",
    "executor",
    "alert",
    "config",
    "engine",
    "api",
    "cli",
];
/// Rooms of the lowest layer, which may be imported in any order among pure rooms.
const DOORS: &[&str] = &["journal", "source", "publish", "index", "endpoint", "executor", "alert"];
/// Pure rooms: no clock, no tokio, no I/O.
const PURE: &[&str] = &["sigma", "normalise", "entity", "detect", "correlate", "triage", "action", "playbook"];
/// Files of pure rooms that are processes of their own, and so may read and write.
const PROCESSES: &[&str] = &["src/playbook/worker.rs"];

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn room(path: &Path, src: &Path) -> String {
    let first = path.strip_prefix(src).unwrap().iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that a file names, `crate::ROOM` or `use crate::{ROOM…}`.
fn imports(text: &str) -> Vec<String> {
    let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group.split('}').next().unwrap().split(',').map(|part| word(part.trim()))),
            None => found.push(word(rest)),
        }
    }
    found
}

#[test]
fn imports_go_downward_and_doors_do_not_meet() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let mut wrong = Vec::new();
    for path in &all {
        let here = room(path, &src);
        let Some(mine) = ORDER.iter().position(|r| **r == here) else { continue };
        for there in imports(&fs::read_to_string(path).unwrap()) {
            let Some(theirs) = ORDER.iter().position(|r| **r == there) else { continue };
            let meets = DOORS.contains(&here.as_str()) && DOORS.contains(&there.as_str()) && here != there;
            if theirs > mine || meets {
                wrong.push(format!("{} imports {there}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(all.len() > 20, "the walk found the sources");
}

#[test]
fn pure_rooms_have_no_clock_no_tokio_and_no_io() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let mut wrong = Vec::new();
    for path in all.iter().filter(|p| PURE.contains(&room(p, &src).as_str())) {
        if PROCESSES.iter().any(|p| path.ends_with(p)) {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for word in [
            "crate::clock",
            "tokio::",
            "std::fs",
            "std::net::Tcp",
            "std::net::Udp",
            "std::process",
            "time::SystemTime",
            "SystemTime::",
            "Instant::now",
            "std::thread",
        ] {
            if code.contains(word) {
                wrong.push(format!("{} names {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn one_tls_provider() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"ring\""));
    for other in ["aws-lc-rs", "aws-lc-sys", "openssl", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{other}\"")), "{other} is a second TLS provider");
    }
}
