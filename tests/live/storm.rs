//! A crash at any moment, over real brokers: opmas killed, brokers killed, consumers deleted, disks full and read-only, a damaged spool, all
//! under load. No finding is missing, none is double.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opmas::model::{Decided, Time, Window};

use crate::durability::{Disk, flip, not_ready};
use crate::load::{Load, Storm};
use crate::router::eventually;
use crate::station::Station;

/// Records a tenth of a second from each of the three sources.
const STEADY: u64 = 30;

/// Numbers that are random enough for moments, and the same for the same seed.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn seed() -> u64 {
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    seed
}

fn now() -> Time {
    Time(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap())
}

fn is_long() -> bool {
    std::env::var("OPMAS_LONG").as_deref() == Ok("1")
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

#[test]
fn o3_o4_o6_kill_9_at_random_moments_under_load_from_three_sources_gives_each_finding_once() {
    let mut storm = Storm::new(Station::new());
    let (moments, mut seed) = (if is_long() { 300 } else { 50 }, seed());
    let load = Load::start(&storm, STEADY);
    let (mut pending, mut kills) = (0, Vec::new());
    for moment in 0..moments {
        // At the start, in recovery, and while it reads.
        if moment % 2 == 0 {
            storm.station.spawn();
        } else {
            storm.station.start();
        }
        if moment % 10 == 9 {
            // The group lets the killed one's partitions go only after a while.
            eventually(Duration::from_secs(60), "the topic is not read", || storm.taken("topics") > 0.0);
        }
        pause(random(&mut seed) % 1_500);
        storm.station.kill();
        kills.push(now());
        pending += usize::from(storm.nats.client().consumer("LOGS").is_some_and(|consumer| consumer.num_ack_pending > 0));
    }
    let records = load.end();
    eprintln!("killed {moments} times, {pending} times with messages delivered and not acknowledged");
    storm.station.start();
    storm.complete();
    storm.station.terminate();
    storm.whole(records);
    let windows: Vec<Window> =
        storm.station.decided().into_iter().filter_map(|one| if let Decided::Finding { finding } = one { Some(finding.window) } else { None }).collect();
    let spanning = windows.iter().filter(|window| kills.iter().any(|kill| window.from < *kill && *kill < window.to)).count();
    eprintln!("{spanning} of the findings stand on events from before and after a crash");
    // A third are detections, which have no window.
    assert!(spanning > windows.len() / 10, "{spanning} of {}", windows.len());
}

#[test]
fn o4_o6_brokers_killed_and_consumers_deleted_under_load_lose_and_double_nothing() {
    let mut storm = Storm::new(Station::new());
    let (rounds, mut seed) = (if is_long() { 12 } else { 3 }, seed());
    storm.station.start();
    let load = Load::start(&storm, STEADY);
    eventually(Duration::from_secs(60), "it is not read", || storm.taken("topics") > 0.0 && storm.taken("bus") > 0.0);
    for round in 0..rounds {
        pause(random(&mut seed) % 2_000);
        storm.nats.kill();
        pause(random(&mut seed) % 2_000);
        storm.nats.start();
        pause(random(&mut seed) % 2_000);
        if round % 3 == 2 {
            // All three; what Kafka knows of us goes as well.
            storm.station.kill();
            eventually(Duration::from_secs(60), "the group keeps its members", || storm.kafka.delete_group("opmas"));
            storm.station.spawn();
            pause(random(&mut seed) % 1_000);
            storm.nats.kill();
            storm.kafka.kill();
            pause(random(&mut seed) % 1_000);
            storm.station.kill();
            storm.nats.start();
            storm.station.spawn();
        } else {
            storm.kafka.kill();
        }
        pause(random(&mut seed) % 2_000);
        storm.kafka.again();
        let client = storm.nats.client();
        eventually(Duration::from_secs(60), "there is no consumer", || client.consumer("LOGS").is_some());
        client.delete_consumer("LOGS");
    }
    let records = load.end();
    storm.complete();
    storm.station.terminate();
    storm.whole(records);
}

/// Waits until it says `why`; then nothing is acknowledged, whatever comes.
fn stands(storm: &Storm, why: &str) {
    eventually(Duration::from_secs(60), "it does not say what is wrong with the disk", || not_ready(&storm.station, why));
    // What was written before is acknowledged now.
    pause(1_000);
    let before = storm.acknowledged();
    pause(3_000);
    assert_eq!(storm.acknowledged(), before, "o3: nothing is acknowledged");
}

fn reads(storm: &Storm) {
    eventually(Duration::from_secs(60), "it is not read", || storm.taken("topics") > 0.0 && storm.taken("bus") > 0.0 && storm.taken("archive") > 0.0);
}

#[test]
fn o3_a_full_disk_under_load_stops_acknowledging_and_with_room_everything_arrives_once() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path().join("disk"), "64m");
    let mut storm = Storm::new(Station::at(folder.path(), &disk.0.join("data")));
    storm.station.start();
    let load = Load::start(&storm, STEADY);
    reads(&storm);
    disk.fill();
    stands(&storm, "No space left on device");
    disk.make_room();
    let ready = |storm: &Storm| storm.station.ready().is_some_and(|(code, _)| code == 200);
    eventually(Duration::from_secs(60), "it is well again", || ready(&storm));
    // And a crash without room.
    disk.fill();
    stands(&storm, "No space left on device");
    storm.station.kill();
    storm.station.spawn();
    eventually(Duration::from_secs(60), "it says so at a start too", || not_ready(&storm.station, "No space left on device"));
    storm.station.kill();
    disk.make_room();
    storm.station.start();
    // And at random moments: writes that were cut short, at any place of any file.
    let (rounds, mut seed) = (if is_long() { 40 } else { 5 }, seed());
    for _ in 0..rounds {
        pause(random(&mut seed) % 1_000);
        disk.fill();
        pause(random(&mut seed) % 500);
        storm.station.kill();
        if random(&mut seed).is_multiple_of(2) {
            disk.make_room();
            storm.station.spawn();
        } else {
            storm.station.spawn();
            pause(random(&mut seed) % 1_000);
            disk.make_room();
        }
    }
    eventually(Duration::from_secs(60), "it is well again", || ready(&storm));
    let records = load.end();
    storm.complete();
    storm.station.terminate();
    storm.whole(records);
}

/// A file system on a file, which can become read-only while it is written to, as one with errors does.
struct Image {
    file: PathBuf,
    at: PathBuf,
    /// The loop device that is mounted.
    device: String,
}

impl Image {
    fn new(folder: &std::path::Path) -> Image {
        let mut image = Image { file: folder.join("image"), at: folder.join("disk"), device: String::new() };
        fs::create_dir(&image.at).unwrap();
        fs::File::create(&image.file).unwrap().set_len(128 << 20).unwrap();
        done(Command::new("mkfs.ext4").arg("-q").arg(&image.file));
        image.mount();
        image
    }

    fn mount(&mut self) {
        let device = done(Command::new("losetup").args(["--find", "--show"]).arg(&self.file));
        self.device = device.trim().to_owned();
        done(Command::new("mount").arg(&self.device).arg(&self.at));
    }

    /// From now on it takes nothing, not even to files that are open.
    fn fail(&self) {
        done(Command::new("mount").args(["-o", "remount,abort"]).arg(&self.at));
    }

    /// Looked over and put back, as after an administrator's visit.
    fn repair(&mut self) {
        done(Command::new("umount").arg(&self.at));
        // Otherwise the next mount may find the one that failed.
        done(Command::new("losetup").arg("-d").arg(&self.device));
        // 1: errors were corrected.
        let code = Command::new("e2fsck").arg("-fy").arg(&self.file).output().unwrap().status.code();
        assert!(matches!(code, Some(0 | 1)), "{code:?}");
        self.mount();
    }
}

/// What it prints.
fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        let _ = Command::new("losetup").arg("-d").arg(&self.device).stderr(Stdio::null()).status();
    }
}

#[test]
fn o3_a_disk_that_becomes_read_only_under_load_stops_acknowledging_and_once_repaired_everything_arrives_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut image = Image::new(folder.path());
    let mut storm = Storm::new(Station::at(folder.path(), &image.at.join("data")));
    storm.station.start();
    let load = Load::start(&storm, STEADY);
    reads(&storm);
    pause(2_000);
    image.fail();
    stands(&storm, "Read-only file system");
    storm.station.kill();
    storm.station.forget_log();
    storm.station.spawn();
    let (code, said) = storm.station.ended();
    assert!(code == Some(3) && said.contains("Read-only file system"), "{said}");
    image.repair();
    storm.station.start();
    let records = load.end();
    storm.complete();
    storm.station.terminate();
    storm.whole(records);
}

#[test]
fn a_flipped_bit_in_the_spool_costs_one_record_of_a_broker_and_is_named() {
    let mut storm = Storm::new(Station::new());
    storm.station.start();
    let load = Load::start(&storm, 4 * STEADY);
    let segments = |storm: &Storm| {
        let mut files: Vec<PathBuf> = fs::read_dir(storm.station.data.join("spool")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    };
    eventually(Duration::from_secs(120), "the spool does not grow", || segments(&storm).len() > 3);
    storm.station.kill();
    let before = storm.found();
    let broken = segments(&storm).remove(1);
    flip(&broken);
    // So that all of it is read.
    fs::read_dir(storm.station.data.join("state")).unwrap().for_each(|file| fs::remove_file(file.unwrap().path()).unwrap());
    storm.station.forget_log();
    storm.station.start();
    let named = |text: &str| text.contains(&*broken.to_string_lossy()) && text.contains("cannot be read");
    eventually(Duration::from_secs(60), "it does not name the segment", || storm.station.log().lines().any(named));
    let records = load.end();
    storm.complete();
    storm.station.terminate();
    assert!(storm.station.notes().iter().any(|note| named(note)), "{:?}", storm.station.notes());
    storm.each_once(records, 1);
    let (expected, found) = (storm.expected(), storm.found());
    assert!(found.is_subset(&expected) && before.is_subset(&found), "what was found stays found, and nothing else is");
    assert!(expected.len() - found.len() <= 3, "{} of {}", found.len(), expected.len());
}
