//! A crash at any moment, disks that are full or read-only, damage: nothing is lost that could be kept, and a clear word for the rest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::router::eventually;
use crate::station::{RULES, Station, write_lines};

/// Numbers that are random enough for moments, and the same for the same seed.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// The findings of one uninterrupted run over the same file, which is told apart by its inode.
fn undisturbed(dir: &Path) -> BTreeMap<String, u32> {
    let mut station = Station::at(dir, &dir.join("undisturbed"));
    station.complete();
    let findings = station.findings();
    assert!(findings.values().all(|times| *times == 1));
    findings
}

fn once(lines: u64, station: &Station) {
    let spooled = station.spooled();
    assert_eq!(spooled.len() as u64, lines, "o1: every line is in the spool");
    assert!(spooled.values().all(|times| *times == 1), "o4: each line once");
}

#[test]
fn o4_o6_kill_9_at_random_moments_gives_each_finding_once() {
    let mut station = Station::new();
    let lines = 200_000;
    write_lines(&station.dir, 0, lines);
    let moments = if std::env::var("OPMAS_LONG").as_deref() == Ok("1") { 300 } else { 30 };
    let mut seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let begun = std::time::Instant::now();
    for _ in 0..moments {
        station.spawn();
        std::thread::sleep(Duration::from_millis(50 + random(&mut seed) % 900));
        station.kill();
    }
    eprintln!("{:?} killed at byte {:?}", begun.elapsed(), station.position());
    station.complete();
    assert_eq!(station.run(&["store", "verify"]).0, Some(0));
    let expected = undisturbed(&station.dir);
    assert_eq!(expected.len() as u64, lines / 100 * 3);
    assert_eq!(station.findings(), expected, "o6: none missing, none double");
    once(lines, &station);
}
