//! Several opmas in one consumer group.

use std::fs;
use std::time::{Duration, Instant};

use opmas::clock;

use super::{lines, places, reason, records, says, station, strs, wait_for};
use crate::kafka_server::Kafka;
use crate::router::eventually;
use crate::station::Station;

/// So many messages are in the spools, each in one of them, once.
fn each_once(stations: &[Station], written: usize) {
    let mut all: Vec<_> = stations.iter().flat_map(|station| places(&records(station))).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!((all.len(), count), (written, written), "each message is in one of the spools, once");
}

#[test]
fn a_named_member_that_was_killed_has_its_partitions_at_once() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 2);
    let mut station = station(&kafka.table(), "logs = ['logs']\ninstance = 'north'");
    station.start();
    kafka.produce("logs", 0, strs(&lines(0, 100)));
    wait_for(&station, 100);
    for (round, end) in [(1, false), (2, true)] {
        if end {
            station.terminate();
        } else {
            station.kill();
        }
        kafka.produce("logs", 1, strs(&lines(round * 100, 100)));
        let begun = Instant::now();
        station.start();
        wait_for(&station, usize::try_from(round + 1).unwrap() * 100);
        // The session of the one that died lasts for ten seconds.
        assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    }
    // Another one of that name that does not wait takes its place; the sentence names the cause.
    let mut other = self::station(&kafka.table(), "logs = ['logs']\ninstance = 'north'\nshare = true");
    other.start();
    says(&station, "instance");
    other.terminate();
    station.terminate();
    assert_eq!(station.findings().len(), 9);
}

#[test]
fn one_of_a_group_reads_and_the_others_wait_to_take_its_place() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 4);
    let write = |from: u64| (0..4).for_each(|partition| kafka.produce("logs", partition, strs(&lines(from, 100))));
    let committed = |end: i64| {
        eventually(Duration::from_secs(60), "it is not all committed", || (0..4).all(|partition| kafka.committed("opmas", "logs", partition) == Some(end)));
    };
    let waits = "waits to take its place";
    let [mut one, mut two] = [(); 2].map(|()| station(&kafka.table(), "logs = ['logs']"));
    one.start();
    write(0);
    wait_for(&one, 400);
    two.start();
    says(&two, waits);
    write(100);
    wait_for(&one, 800);
    assert!(records(&two).is_empty() && reason(&one).is_none());
    assert_eq!(two.ready().unwrap().0, 200, "it is well, and waits");
    // Stopped, it gives everything to the one that waits, which says what its windows lack.
    one.terminate();
    write(200);
    wait_for(&two, 400);
    let windows = || two.ready().unwrap().1["reasons"].as_array().unwrap().iter().find(|reason| reason["part"] == "windows over source k").cloned();
    eventually(Duration::from_secs(10), "it is not said from when on windows are whole", || {
        windows().is_some_and(|reason| reason["gravity"] == "notice" && reason["text"].as_str().unwrap().contains("all are whole from "))
    });
    // Who came first stays; who is killed and starts again at once is still the one that came first.
    one.start();
    says(&one, waits);
    committed(300);
    two.kill();
    two.start();
    write(300);
    wait_for(&two, 800);
    committed(400);
    // One that does not answer for longer than its session lasts has lost its place, and does not take it back when it is awake again.
    two.freeze(true);
    write(400);
    wait_for(&one, 1_200);
    two.freeze(false);
    says(&two, waits);
    write(500);
    wait_for(&one, 1_600);
    one.terminate();
    two.terminate();
    each_once(&[one, two], 2_400);
}

/// Who is alive says so all the time, and each of the two opmas has open timers of it from the time when it read.
#[test]
fn c6_one_that_waits_says_of_nothing_that_it_is_missing() {
    const GONE: &str = "title: Beat\nname: beat\nlogsource: {product: test}\ndetection: {it: {kind: beat}, condition: it}\n---\ntitle: Gone\nlevel: high\n\
        correlation: {type: missing, rules: [beat], group-by: [g], timespan: 5s}\n";
    let kafka = Kafka::start();
    kafka.make_topic("logs", 1);
    let beat = || {
        let line = format!("{{\"timestamp\":\"{}\",\"product\":\"test\",\"kind\":\"beat\",\"g\":\"ap1\"}}", clock::now());
        kafka.produce("logs", 0, [line.as_str()]);
        std::thread::sleep(Duration::from_secs(1));
    };
    let [mut one, mut two] = [(); 2].map(|()| station(&kafka.table(), "logs = ['logs']"));
    for station in [&mut one, &mut two] {
        fs::write(station.dir.join("rules/gone.yml"), GONE).unwrap();
        station.start();
        beat();
    }
    says(&two, "waits to take its place");
    (0..3).for_each(|_| beat());
    wait_for(&one, 5);
    one.terminate();
    while records(&two).is_empty() {
        beat();
    }
    one.start();
    says(&one, "waits to take its place");
    // Longer than a stream holds time back.
    (0..40).for_each(|_| beat());
    assert!(two.findings().is_empty() && one.findings().is_empty(), "it was never silent");
    eventually(Duration::from_secs(60), "a real silence is not told by the one that reads", || !two.findings().is_empty());
    assert!(one.findings().is_empty());
    one.terminate();
    two.terminate();
}

#[test]
fn two_that_start_at_once_do_not_both_read() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 4);
    let mut both = [(); 2].map(|()| station(&kafka.table(), "logs = ['logs']"));
    both.iter_mut().for_each(|station| station.spawn());
    (0..4).for_each(|partition| kafka.produce("logs", partition, strs(&lines(0, 100))));
    eventually(Duration::from_secs(60), "it is not all read", || both.each_ref().map(|station| records(station).len()).iter().sum::<usize>() >= 400);
    let mut counts = both.each_ref().map(|station| records(station).len());
    counts.sort_unstable();
    assert_eq!(counts, [0, 400]);
}

#[test]
fn two_members_share_partitions_and_give_them_up_without_loss() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 4);
    let mut one = station(&kafka.table(), "logs = ['logs']\nshare = true");
    let mut two = station(&kafka.table(), "logs = ['logs']\nshare = true");
    one.start();
    let write = |from: u64| (0..4).for_each(|partition| kafka.produce("logs", partition, strs(&lines(from, 5_000))));
    write(0);
    eventually(Duration::from_secs(60), "the first reads nothing", || !records(&one).is_empty());
    two.start();
    let mut written = 5_000;
    let mut more = || {
        write(written);
        written += 5_000;
        std::thread::sleep(Duration::from_millis(500));
    };
    let begun = Instant::now();
    while records(&two).is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the second reads nothing");
        more();
    }
    more();
    one.terminate();
    more();
    let end = i64::try_from(written).unwrap();
    eventually(Duration::from_secs(60), "it is not all read", || (0..4).all(|partition| kafka.committed("opmas", "logs", partition) == Some(end)));
    two.terminate();
    each_once(&[one, two], usize::try_from(written).unwrap() * 4);
}
