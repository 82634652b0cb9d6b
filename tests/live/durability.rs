//! A crash at any moment, disks that are full or read-only, damage: nothing is lost that could be kept, and a clear word for the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use opmas::model::Decided;

use crate::router::eventually;
use crate::station::{RULES, Station, write_lines};

/// Numbers that are random enough for moments, and the same for the same seed.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// The findings of one uninterrupted run over the same file, which is told apart by its inode.
fn undisturbed(dir: &Path) -> BTreeMap<String, u32> {
    let config = dir.join("opmas.toml");
    let before = fs::read(&config).unwrap();
    let mut station = Station::at(dir, &dir.join("undisturbed"));
    station.complete();
    fs::write(config, before).unwrap();
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
    let size = fs::metadata(station.dir.join("lines.log")).unwrap().len();
    let mut killed = 0;
    for moment in 0..moments {
        // A machine that reads fast is through before: what is killed then is not reading any more.
        if station.position().unwrap_or(0) > size / 10 * 7 {
            break;
        }
        killed += 1;
        // At the start, in recovery, and while it reads.
        if moment % 2 == 0 {
            station.spawn()
        } else {
            station.start()
        }
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 800));
        station.kill();
    }
    let read = station.position().unwrap_or(0);
    assert!(killed >= 5 && read > 0 && read < size, "it was killed {killed} times while it read, at byte {read} of {size}");
    station.complete();
    assert_eq!(station.run(&["store", "verify"]).0, Some(0));
    let expected = undisturbed(&station.dir);
    assert_eq!(expected.len() as u64, lines / 100 * 3);
    assert_eq!(station.findings(), expected, "o6: none missing, none double");
    once(lines, &station);
}

#[test]
fn o3_o4_kill_9_while_the_file_is_rotated_loses_and_doubles_no_line() {
    let mut station = Station::new();
    let (rounds, part) = (12, 4_000);
    let given = std::env::var("OPMAS_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("OPMAS_SEED={seed}");
    let log = |name: &str| station.dir.join(format!("lines.log{name}"));
    let (current, first) = (log(""), log(".1"));
    // What was rotated before the very first start is not followed: on a slow machine it may be killed before that.
    station.start();
    station.kill();
    for round in 0..rounds {
        station.spawn();
        write_lines(&station.dir, round * part, part);
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 700));
        let killed_before = random(&mut seed).is_multiple_of(2);
        if killed_before {
            station.kill();
        }
        for n in (1..rounds).rev() {
            for gz in ["", ".gz"] {
                let _ = fs::rename(station.dir.join(format!("lines.log.{n}{gz}")), station.dir.join(format!("lines.log.{}{gz}", n + 1)));
            }
        }
        match random(&mut seed) % 2 {
            0 => {
                fs::rename(&current, &first).unwrap();
                fs::write(&current, "").unwrap();
            }
            _ => {
                fs::copy(&current, &first).unwrap();
                fs::OpenOptions::new().write(true).open(&current).unwrap().set_len(0).unwrap();
            }
        }
        if random(&mut seed).is_multiple_of(3) {
            assert!(Command::new("gzip").arg(&first).status().unwrap().success());
        }
        if !killed_before {
            std::thread::sleep(Duration::from_millis(random(&mut seed) % 300));
            station.kill();
        }
    }
    write_lines(&station.dir, rounds * part, part);
    let lines = (rounds + 1) * part;
    station.start();
    let until = Instant::now() + Duration::from_secs(60);
    while (station.records().count() as u64) < lines && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
    }
    station.terminate();
    let spooled: Vec<String> = station.records().map(|record| String::from_utf8(record.raw).unwrap()).collect();
    let expected: Vec<String> = crate::station::lines(0, lines).collect();
    let differs = (0..expected.len()).find(|n| spooled.get(*n) != expected.get(*n));
    let around = differs.map(|n| spooled.get(n.saturating_sub(1)..spooled.len().min(n + 2)));
    assert!(spooled == expected, "{} of {lines} lines; the first that differs is {differs:?}, {around:?}", spooled.len());
    assert_eq!(station.findings().len() as u64, lines / 100 * 3, "o6");
    assert!(station.findings().values().all(|times| *times == 1));
}

#[test]
fn a_backup_that_is_made_while_it_runs_goes_on_as_if_nothing_had_happened() {
    let mut station = Station::new();
    station.configure("[ledger]\npublish_head = '1s'\n");
    write_lines(&station.dir, 0, 120_000);
    station.start();
    let mut copies = Vec::new();
    for number in 0..5 {
        let before = station.position();
        eventually(Duration::from_secs(60), "it reads", || station.position() != before || number > 2);
        let copy = station.dir.join(format!("copy{number}"));
        let (code, said) = station.run(&["store", "backup", &copy.to_string_lossy()]);
        assert!(code == Some(0) && said.contains("verified copy") && said.contains("without its keys"), "{said}");
        assert!(copy.join("format").exists() && !copy.join("keys").exists());
        copies.push(copy);
    }
    let (code, said) = station.run(&["store", "backup", &copies[0].to_string_lossy()]);
    assert!(code == Some(2) && said.contains("is not empty"), "{said}");
    station.read_all();
    station.kill();
    let expected = undisturbed(&station.dir);
    for copy in &copies {
        let (code, said) = station.run(&["store", "restore", &copy.to_string_lossy()]);
        assert!(code == Some(2) && said.contains("is not empty"), "{said}");
        fs::remove_dir_all(&station.data).unwrap();
        let (code, said) = station.run(&["store", "restore", &copy.to_string_lossy()]);
        assert_eq!(code, Some(0), "{said}");
        station.complete();
        assert_eq!(station.findings(), expected, "{}", copy.display());
        once(120_000, &station);
        let (code, said) = station.run(&["store", "export"]);
        assert!(code == Some(0) && said.contains(" exported of the ledger's records 1 to "), "{said}");
        assert_eq!(said.lines().filter(|line| line.starts_with('{')).count(), expected.len());
    }
    // One that is damaged is not taken.
    let segment = fs::read_dir(copies[4].join("spool")).unwrap().next().unwrap().unwrap().path();
    flip(&segment);
    fs::remove_dir_all(&station.data).unwrap();
    let (code, said) = station.run(&["store", "restore", &copies[4].to_string_lossy()]);
    assert!(code == Some(1) && said.contains("does not verify") && !station.data.exists(), "{said}");
}

/// The entries that are in flight, as `flight` has them.
fn in_flight(station: &Station) -> std::ops::RangeInclusive<u64> {
    let bytes = fs::read(station.data.join("flight")).unwrap_or_default();
    let number = |at: usize| bytes.get(at..at + 8).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    number(8)..=number(16)
}

#[test]
fn a_record_on_which_it_dies_again_and_again_is_a_dead_letter_and_the_others_go_on() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 1_000);
    // It takes long enough to be killed while it is computed: many expressions over a megabyte.
    let expressions: String = (5..45).map(|n| format!("      - '(?:[w-z]x?){{{n}}}[0-9]{{2}}'\n")).collect();
    let rule = format!(
        "title: Slow\nid: 00000000-0000-4000-8000-00000000000a\nlogsource: {{product: test}}\ndetection:\n  one:\n    kind: slow\n    text|re:\n{expressions}  condition: one\n"
    );
    fs::write(station.dir.join("rules/slow.yml"), rule).unwrap();
    let slow = format!("{{\"timestamp\":1790000999,\"product\":\"test\",\"kind\":\"slow\",\"text\":\"{}\"}}\n", "x".repeat(1 << 20));
    let mut log = fs::OpenOptions::new().append(true).open(station.dir.join("lines.log")).unwrap();
    std::io::Write::write_all(&mut log, slow.as_bytes()).unwrap();
    write_lines(&station.dir, 1_000, 1_000);
    let place = |station: &Station| {
        let entries = opmas::journal::SpoolReader::open(&station.data.join("spool"), 0).into_iter().flatten().flatten();
        let mut long = entries.filter(|entry| matches!(&entry.body, opmas::model::EntryBody::Record(record) if record.raw.len() > 1_000_000));
        long.next().map(|entry| entry.seq)
    };
    let mut deaths = 0;
    while deaths < 4 {
        let written = |station: &Station| fs::metadata(station.data.join("flight")).and_then(|data| data.modified()).ok();
        let before = written(&station);
        station.spawn();
        let (mut poisonous, begun) = (None, std::time::Instant::now());
        // From its own first word on, that is.
        let died = loop {
            poisonous = poisonous.or_else(|| place(&station));
            if written(&station) != before && poisonous.is_some_and(|seq| in_flight(&station).contains(&seq)) {
                break true;
            }
            if begun.elapsed() > Duration::from_secs(3) && station.metric("opmas_detection_entries_total") >= 1.0 && station.position().is_some() {
                break false;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "it neither comes to the record nor past it");
            std::thread::sleep(Duration::from_millis(1));
        };
        if !died {
            break;
        }
        station.kill();
        deaths += 1;
    }
    if deaths == 4 {
        station.start();
    }
    assert!(deaths >= 2, "{deaths}");
    station.read_all();
    station.terminate();
    let seq = place(&station).unwrap();
    let (code, said) = station.run(&["store", "dead", "--json"]);
    let letter: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    assert_eq!((code, said.lines().count(), letter["seq"].as_u64(), letter["reason"].as_str()), (Some(0), 1, Some(seq), Some("deadly")), "{said}");
    assert!(station.notes().iter().any(|note| note.contains(&format!("entry {seq} of the spool is left out"))), "{:?}", station.notes());
    assert_eq!(station.findings().len(), 60);
    // All of it computed again, and replayed: it stays left out, and is no second letter.
    files(&station, "state").iter().for_each(|file| fs::remove_file(file).unwrap());
    station.complete();
    assert_eq!(station.run(&["store", "dead", "--json"]).1.lines().count(), 1);
    assert_eq!(station.findings().len(), 60);
    assert_eq!(station.run(&["store", "verify"]).0, Some(0));
    let (code, said) = station.run(&["replay", "--spool"]);
    assert_eq!((code, said.lines().filter(|line| line.contains("\"type\":\"finding\"")).count()), (Some(0), 60));
}

#[test]
fn an_index_that_the_disk_refused_comes_back_by_itself_once_there_is_room() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 5_000);
    station.start();
    station.read_all();
    station.kill();
    fs::remove_dir_all(station.data.join("index")).unwrap();
    // Everything has room but the index.
    let disk = Disk::new(station.data.join("index"), "64k");
    station.start();
    let says = |what: &str| station.ready().is_some_and(|(code, ready)| code == 200 && ready["reasons"].to_string().contains(what));
    eventually(Duration::from_secs(30), "it says so", || says("the index is tried again by itself"));
    let (code, said) = station.run(&["finding", "list"]);
    assert!(code == Some(4) && said.contains("the index is tried again by itself"), "{said}");
    drop(disk);
    eventually(Duration::from_secs(90), "it is well again", || station.ready().is_some_and(|(_, ready)| ready["status"] == "ready"));
    let (code, said) = station.run(&["finding", "list", "--limit", "1000", "--json"]);
    assert_eq!((code, said.lines().count()), (Some(0), station.findings().len()), "{said}");
}

/// A file system of its own, with as much room as is said.
pub struct Disk(pub PathBuf);

impl Disk {
    pub fn new(at: PathBuf, size: &str) -> Disk {
        fs::create_dir_all(&at).unwrap();
        let disk = Disk(at);
        disk.mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
        disk
    }

    fn mount(&self, args: &[&str]) {
        assert!(Command::new("mount").args(args).arg(&self.0).status().unwrap().success(), "mount needs root");
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let _ = fs::write(self.0.join("filler"), vec![0; 64 << 20]);
    }

    pub fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

pub fn not_ready(station: &Station, why: &str) -> bool {
    station.ready().is_some_and(|(code, ready)| code == 503 && ready["status"] == "not_ready" && ready["reasons"].to_string().contains(why))
}

#[test]
fn a_full_disk_stops_acknowledging_and_says_so_and_with_room_nothing_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path().join("disk"), "48m");
    let mut station = Station::at(folder.path(), &disk.0.join("data"));
    write_lines(&station.dir, 0, 5_000);
    station.start();
    station.read_all();
    disk.fill();
    write_lines(&station.dir, 5_000, 60_000);
    eventually(Duration::from_secs(30), "it does not say that the disk is full", || not_ready(&station, "No space left on device"));
    let length = fs::metadata(station.dir.join("lines.log")).unwrap().len();
    let acknowledged = station.position().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(station.position() == Some(acknowledged) && acknowledged < length, "o3: nothing is acknowledged");

    // A crash here, a start and a stop without room lose nothing either.
    station.kill();
    station.spawn();
    eventually(Duration::from_secs(30), "it says so at a start too", || not_ready(&station, "No space left on device"));
    station.kill();
    disk.make_room();
    station.start();
    disk.fill();
    write_lines(&station.dir, 65_000, 60_000);
    eventually(Duration::from_secs(60), "it does not say that the disk is full", || not_ready(&station, "No space left on device"));
    let took = station.terminate();
    assert!(took < Duration::from_secs(20), "it ends although the disk is full: {took:?}");

    disk.make_room();
    station.start();
    eventually(Duration::from_secs(10), "it is well again", || station.ready().is_some_and(|(_, ready)| ready["status"] == "ready"));
    station.read_all();
    station.terminate();
    assert_eq!(station.findings(), undisturbed(&station.dir));
    once(125_000, &station);
}

#[test]
fn sigterm_under_load_loses_nothing_and_ends_soon() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 100_000);
    for _ in 0..4 {
        station.start();
        let before = station.position();
        eventually(Duration::from_secs(20), "it reads", || station.position() != before);
        let took = station.terminate();
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        let complete = station.findings();
        // All that was accepted has been computed and decided: another start finds nothing more in it.
        let (code, said) = station.run(&["store", "verify"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(!complete.is_empty());
    }
    station.complete();
    assert_eq!(station.findings(), undisturbed(&station.dir));
    once(100_000, &station);
}

/// The files of a folder of the data folder, sorted.
fn files(station: &Station, folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(station.data.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Flips one bit in the middle of a file.
pub fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(file, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn o6_with_checkpoints_damaged_or_gone_the_findings_are_the_same() {
    let mut station = Station::new();
    // Two checkpoints are kept, and there is something behind the newest.
    for part in 0..2 {
        write_lines(&station.dir, part * 10_000, 10_000);
        station.complete();
    }
    write_lines(&station.dir, 20_000, 5_000);
    station.start();
    station.read_all();
    station.kill();
    let sound = station.dir.join("sound");
    copy(&station.data, &sound);
    write_lines(&station.dir, 25_000, 5_000);
    let expected = undisturbed(&station.dir);
    let checkpoints = files(&station, "state");
    assert_eq!(checkpoints.len(), 2);
    let remove = |file: &Path| fs::remove_file(file).unwrap();
    for (word, damage) in [("flipped", &flip as &dyn Fn(&Path)), ("gone", &remove)] {
        for broken in [&checkpoints[1..], &checkpoints[..1], &checkpoints[..]] {
            fs::remove_dir_all(&station.data).unwrap();
            copy(&sound, &station.data);
            broken.iter().for_each(|file| damage(file));
            station.complete();
            assert_eq!(station.findings(), expected, "{word}: {broken:?}");
            once(30_000, &station);
            let newest = broken.contains(&checkpoints[1]);
            assert_eq!(station.notes().iter().any(|note| note.contains("checkpoint was passed over")), newest, "{:?}", station.notes());
            assert_eq!(station.run(&["store", "verify"]).0, Some(0));
        }
    }
}

#[test]
fn o6_a_kill_on_a_long_way_through_the_spool_doubles_nothing() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 140_000);
    station.start();
    station.read_all();
    eventually(Duration::from_secs(120), "not all is found", || station.metric("opmas_findings_total") >= 4_200.0);
    station.kill();
    // All of it is computed again. The ledger has findings that are behind what is computed when it is killed.
    files(&station, "state").iter().for_each(|file| fs::remove_file(file).unwrap());
    station.spawn();
    let is_one = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "checkpoint");
    eventually(Duration::from_secs(120), "it does not get on", || {
        files(&station, "state").iter().any(is_one) || station.ready().is_some_and(|(code, _)| code == 200)
    });
    station.kill();
    station.complete();
    assert_eq!(station.findings(), undisturbed(&station.dir));
    once(140_000, &station);
}

/// What a kill has hit, by the files in `state/` and the newest that the ledger names.
fn hit(station: &Station) -> &'static str {
    let names: Vec<String> = files(station, "state").iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let named = station.decided().into_iter().rev().find_map(|one| if let Decided::Checkpoint { name, .. } = one { Some(name.to_string()) } else { None });
    let written: Vec<&String> = names.iter().filter(|name| name.ends_with(".checkpoint")).collect();
    match (names.len() > written.len(), written.last()) {
        (true, _) => "before the rename",
        (_, newest) if newest.is_some_and(|newest| named.as_ref() != Some(newest)) => "after the rename",
        _ if written.len() > 2 => "named, and the old one is not removed",
        _ => "at another moment",
    }
}

#[test]
fn o6_kill_9_while_a_checkpoint_is_written_gives_each_finding_once() {
    let mut station = Station::new();
    // Each line is a group for five hours, so that a checkpoint takes a while.
    let many = "---\ntitle: Many\nname: many\nid: 00000000-0000-4000-8000-00000000000b\ncorrelation:\n  type: event_count\n  rules: [other]\n  \
        group-by: [timestamp]\n  timespan: 5h\n  condition: {gte: 3}\n---\ntitle: Other\nname: other\nid: 00000000-0000-4000-8000-00000000000c\n\
        logsource: {product: test}\ndetection: {one: {kind: other}, condition: one}\nlevel: low\n";
    fs::write(station.dir.join("rules/test.yml"), format!("{}{many}", RULES)).unwrap();
    let lines = 130_000;
    write_lines(&station.dir, 0, lines);
    let mut hits: BTreeMap<&str, u32> = BTreeMap::new();
    let state = station.data.join("state");
    let present = || fs::read_dir(&state).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<BTreeSet<_>>();
    for round in 0..6 {
        let before = present();
        station.spawn();
        // Every second one while it is written, the others soon after it has its name.
        let (is, waits) = if round % 2 == 0 { ("tmp", 0) } else { ("checkpoint", round / 2 * 500) };
        let awaited = |file: &PathBuf| !before.contains(file) && file.extension().is_some_and(|extension| extension == is);
        let size = fs::metadata(station.dir.join("lines.log")).unwrap().len();
        while !present().iter().any(awaited) && station.position() != Some(size) {
            std::thread::sleep(Duration::from_micros(50));
        }
        std::thread::sleep(Duration::from_micros(waits));
        station.kill();
        *hits.entry(hit(&station)).or_default() += 1;
    }
    eprintln!("{hits:?}");
    assert!(hits.contains_key("before the rename") && hits.len() > 1, "{hits:?}");
    station.spawn();
    eventually(Duration::from_secs(240), "a long way is gone again", || station.ready().is_some_and(|(code, _)| code == 200));
    station.read_all();
    station.terminate();
    let ahead = |one: &Decided| matches!(one, Decided::Checkpoint { ahead: 1.., .. });
    assert!(station.decided().iter().any(ahead), "the stream goes on while a checkpoint is written");
    let written = |station: &Station| files(station, "state");
    assert_eq!((written(&station).len(), station.run(&["store", "verify"]).0), (2, Some(0)), "what the kills left is tidied away");
    let expected = undisturbed(&station.dir);
    assert_eq!(station.findings(), expected, "o6: none missing, none double");
    once(lines, &station);

    // One that was not named, one that was not removed, one that was half written.
    let newest = written(&station).remove(1);
    for left in ["00000000000000000001-old.checkpoint", "00000000000009999999-unnamed.checkpoint", "00000000000009999999-half.tmp"] {
        fs::copy(&newest, state.join(left)).unwrap();
    }
    write_lines(&station.dir, lines, 1_000);
    station.complete();
    assert!(written(&station).len() == 2 && station.run(&["store", "verify"]).0 == Some(0), "{:?}", written(&station));
    assert_eq!(station.findings().len(), expected.len() + 30);
}

#[test]
fn a_flipped_bit_in_the_spool_costs_what_it_hit_and_is_named() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 40_000);
    station.start();
    station.read_all();
    station.kill();
    let (before, lines) = (station.findings(), station.spooled().len());
    let segments = files(&station, "spool");
    assert!(segments.len() > 2);
    flip(&segments[1]);
    files(&station, "state").iter().for_each(|file| fs::remove_file(file).unwrap());
    let (code, said) = station.run(&["store", "verify"]);
    assert!(code == Some(1) && said.contains(&format!("{}:", segments[1].display())) && said.contains("cannot be read"), "{said}");
    write_lines(&station.dir, 40_000, 1_000);
    station.complete();
    let notes = station.notes();
    assert!(notes.iter().any(|note| note.contains(&*segments[1].to_string_lossy()) && note.contains("cannot be read")), "{notes:?}");
    let (findings, expected) = (station.findings(), undisturbed(&station.dir));
    assert!(findings.values().all(|times| *times == 1) && before.keys().all(|id| findings.contains_key(id)), "what was found stays found, once");
    assert!(findings.len() + 3 >= expected.len(), "{} of {}", findings.len(), expected.len());
    assert_eq!(station.spooled().len(), lines + 1_000 - 1, "one entry is lost, no other is read again");
}

#[test]
fn a_flipped_bit_in_the_ledger_keeps_it_from_starting() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 10_000);
    station.complete();
    let ledger = files(&station, "ledger").remove(0);
    flip(&ledger);
    station.forget_log();
    station.spawn();
    let (code, said) = station.ended();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains(&*ledger.to_string_lossy()) && said.contains("backup"), "{said}");
    for command in [["store", "verify"], ["audit", "verify"]] {
        let (code, said) = station.run(&command);
        assert!(code == Some(1) && said.contains(&format!("{}:", ledger.display())), "{said}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_or_is_newer_is_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path().join("disk"), "48m");
    let mut station = Station::at(folder.path(), &disk.0.join("data"));
    write_lines(&station.dir, 0, 1_000);
    station.complete();
    let findings = station.findings();
    disk.mount(&["-o", "remount,ro"]);
    station.forget_log();
    station.spawn();
    let (code, said) = station.ended();
    assert!(code == Some(3) && said.contains("Read-only file system") && said.contains(&*station.data.to_string_lossy()), "{said}");
    assert_eq!(station.run(&["store", "verify"]).0, Some(0), "it can be verified all the same");
    disk.mount(&["-o", "remount,rw"]);

    fs::write(station.data.join("format"), "opmas-data 2\n").unwrap();
    station.forget_log();
    station.spawn();
    let (code, said) = station.ended();
    assert!(code == Some(3) && said.contains("newer opmas"), "{said}");
    assert_eq!(station.run(&["store", "verify"]).0, Some(3));
    fs::write(station.data.join("format"), "opmas-data 1\n").unwrap();
    station.complete();
    assert_eq!(station.findings(), findings);
}

#[test]
fn o2_other_rules_are_a_revision_and_change_no_finding_before_them() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 5_000);
    station.complete();
    let old = station.findings();
    assert_eq!(old.len(), 150);
    fs::write(station.dir.join("rules/test.yml"), RULES.replace("gte: 6", "gte: 7")).unwrap();
    write_lines(&station.dir, 5_000, 5_000);
    station.complete();
    // Seven are never reached: only the logins by themselves.
    let both = station.findings();
    assert!(old.keys().all(|id| both.contains_key(id)));
    assert_eq!(both.len(), 150 + 50);

    // All of it computed again, without checkpoints: nothing new, and nothing noted but that.
    files(&station, "state").iter().for_each(|file| fs::remove_file(file).unwrap());
    station.complete();
    assert_eq!(station.findings(), both);

    // The copy of the first rules is gone: said, and what was found stays.
    let copies = files(&station, "revisions");
    let first = copies.iter().find(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("gte: 6"))).unwrap();
    fs::remove_file(first).unwrap();
    files(&station, "state").iter().for_each(|file| fs::remove_file(file).unwrap());
    write_lines(&station.dir, 10_000, 1_000);
    station.complete();
    let name = first.file_name().unwrap().to_string_lossy().into_owned();
    let notes = station.notes();
    assert!(notes.iter().any(|note| note.contains("rules revision") && note.contains(&name)), "{notes:?}");
    assert_eq!(station.findings().len(), 150 + 50 + 10);

    // The copy of those that are live is gone: it is made anew from the configuration.
    let live = files(&station, "revisions").into_iter().find(|file| fs::read_to_string(file).is_ok_and(|text| text.contains("gte: 7"))).unwrap();
    fs::remove_file(&live).unwrap();
    write_lines(&station.dir, 11_000, 1_000);
    station.complete();
    assert!(live.exists());
    assert_eq!(station.findings().len(), 150 + 50 + 20);
}

#[test]
fn when_nothing_happens_nothing_is_written() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 1_000);
    station.start();
    station.read_all();
    eventually(Duration::from_secs(10), "the findings", || station.metric("opmas_findings_total") == 30.0);
    std::thread::sleep(Duration::from_secs(1));
    let commits = station.metric("opmas_journal_commit_seconds_count");
    std::thread::sleep(Duration::from_secs(6));
    assert!(commits > 0.0);
    assert_eq!(station.metric("opmas_journal_commit_seconds_count"), commits);
    station.terminate();
    let checkpoints = files(&station, "state");
    station.start();
    station.terminate();
    assert_eq!(files(&station, "state"), checkpoints, "a start without news makes no checkpoint");
}

#[test]
fn a_finding_of_lines_as_long_as_they_may_be_is_recorded() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 100);
    let long = "\u{1}".repeat(150_000).escape_default().to_string().replace("\\u{1}", "\\u0001");
    let line =
        |n: u64| format!("{{\"timestamp\":{},\"product\":\"test\",\"kind\":\"failure\",\"src_ip\":\"192.0.2.1\",\"x\":\"{long}\"}}\n", 1_790_001_000 + n);
    let text: String = (0..8).map(line).collect();
    let mut log = fs::OpenOptions::new().append(true).open(station.dir.join("lines.log")).unwrap();
    std::io::Write::write_all(&mut log, text.as_bytes()).unwrap();
    station.complete();
    assert_eq!(station.findings().len(), 3 + 1);
}

#[test]
fn o6_what_the_ledger_no_longer_keeps_is_not_found_again() {
    let mut station = Station::new();
    station.configure("[ledger]\nkeep = '4s'\n");
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for round in 0..7 {
        write_lines(&station.dir, round * 1_000, 1_000);
        station.complete();
        for (id, times) in station.findings() {
            assert!(times == 1, "{id} is twice in the ledger");
            *seen.entry(id).or_default() += 1;
        }
        std::thread::sleep(Duration::from_millis(1_100));
        let (code, said) = station.run(&["audit", "verify"]);
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(seen.len(), 7 * 30);
    let (_, said) = station.run(&["audit", "verify"]);
    assert!(said.contains("retention has dropped the records up to"), "{said}");
    let kept = station.findings();
    assert!(kept.len() < seen.len(), "old findings are gone from the ledger");

    // The head that was published is still proven; the spool is computed from its beginning, and nothing of it is found again.
    let published = station.data.join("ledger/head.json");
    let (code, said) = station.run(&["audit", "verify", "--head", &published.to_string_lossy()]);
    assert!(code == Some(0) && said.contains("nothing up to it was rewritten"), "{said}");
    files(&station, "state").iter().for_each(|file| fs::remove_file(file).unwrap());
    write_lines(&station.dir, 7_000, 1_000);
    station.complete();
    let after = station.findings();
    let new: Vec<_> = after.keys().filter(|id| !seen.contains_key(*id)).collect();
    assert_eq!(new.len(), 30);
    assert!(after.keys().filter(|id| seen.contains_key(*id)).all(|id| kept.contains_key(id)), "none that was dropped came back");
    once(8_000, &station);
}

#[test]
fn o8_a_ledger_that_was_cut_is_known_by_the_head_that_was_signed_last() {
    let mut station = Station::new();
    write_lines(&station.dir, 0, 1_000);
    station.complete();
    // What the run before has recorded is signed at the next start.
    let head = station.data.join("ledger/head.json");
    let before = fs::read(&head).unwrap_or_default();
    station.start();
    eventually(Duration::from_secs(20), "a head is signed", || fs::read(&head).is_ok_and(|now| now != before));
    station.terminate();
    assert_eq!(station.run(&["audit", "verify"]).0, Some(0));
    let ledger = files(&station, "ledger").into_iter().rfind(|file| file.extension().is_some_and(|e| e == "ledger")).unwrap();
    let length = fs::metadata(&ledger).unwrap().len();
    fs::OpenOptions::new().write(true).open(&ledger).unwrap().set_len(length / 2).unwrap();
    for verify in [["audit", "verify"], ["store", "verify"]] {
        let (code, said) = station.run(&verify);
        assert!(code == Some(1) && said.contains("it was cut"), "{code:?}: {said}");
    }
    station.start();
    eventually(Duration::from_secs(20), "it is said", || station.ready().unwrap().1.to_string().contains("ledger head"));
    let kept = files(&station, "ledger").into_iter().find(|file| file.file_name().unwrap().to_str().unwrap().starts_with("head-")).unwrap();
    station.terminate();
    let (code, said) = station.run(&["audit", "verify", "--head", &kept.to_string_lossy()]);
    assert!(code == Some(1) && said.contains("rewritten or cut"), "{said}");
}
