//! Several recordings as one (X5), against sorting.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use opmas::model::{EntryBody, Time};
use opmas::normalise::{Extractors, Normaliser, Options};
use opmas::source::recording::{Merged, Recording, open};
use proptest::prelude::*;

use super::{NOW, Site, attack, rules, within};

/// The texts of several files in the order in which they are merged.
fn merged(files: &[Vec<String>]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..files.len()).map(|n| folder.path().join(n.to_string())).collect();
    for (path, lines) in paths.iter().zip(files) {
        std::fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }
    let times = Normaliser::new(Arc::new(Extractors::default()), Options::at(Time::parse_rfc3339(NOW[1]).unwrap()));
    let recordings = open(&paths, &Arc::new(AtomicU64::new(0))).unwrap().0;
    let mut merged = Merged::new(recordings.into_iter().map(Recording::lines).collect(), &times).unwrap();
    let record = |body| if let EntryBody::Record(record) = body { Some(String::from_utf8(record.raw).unwrap()) } else { None };
    std::iter::from_fn(|| merged.body().unwrap()).filter_map(record).collect()
}

/// A line whose text is its own: second, file, place.
fn line(second: u32, file: usize, place: usize) -> String {
    format!("{{\"time\":\"2026-11-21T{:02}:{:02}:{:02}Z\",\"file\":{file},\"place\":{place}}}", second / 3600, second / 60 % 60, second % 60)
}

proptest! {
    #[test]
    fn x5_recordings_in_order_are_merged_as_a_stable_sort_would(steps in prop::collection::vec(prop::collection::vec(0_u32..500, 0..30), 1..5)) {
        let mut all = Vec::new();
        let files: Vec<Vec<String>> = steps.iter().enumerate().map(|(file, steps)| {
            let mut second = 0;
            steps.iter().enumerate().map(|(place, step)| {
                second += step;
                all.push((second, file, place));
                line(second, file, place)
            }).collect()
        }).collect();
        all.sort_by_key(|(second, file, place)| (*second, *file, *place));
        let expected: Vec<String> = all.into_iter().map(|(second, file, place)| line(second, file, place)).collect();
        prop_assert_eq!(merged(&files), expected);
    }

    #[test]
    fn x5_whatever_their_times_every_line_comes_once_and_each_recording_in_its_order(seconds in prop::collection::vec(prop::collection::vec(0_u32..86_400, 0..20), 1..4)) {
        let files: Vec<Vec<String>> =
            seconds.iter().enumerate().map(|(file, seconds)| seconds.iter().enumerate().map(|(place, second)| line(*second, file, place)).collect()).collect();
        let out = merged(&files);
        prop_assert_eq!(out.len(), files.iter().map(Vec::len).sum::<usize>());
        for (file, lines) in files.iter().enumerate() {
            let own: Vec<&String> = out.iter().filter(|line| line.contains(&format!("\"file\":{file},"))).collect();
            prop_assert_eq!(own, lines.iter().collect::<Vec<_>>());
        }
    }
}

#[test]
fn x5_lines_without_a_time_stay_behind_the_one_before_them() {
    let files = [vec![line(10, 0, 0), "of ten".to_owned(), line(30, 0, 1)], vec![line(20, 1, 0), "of twenty".to_owned()]];
    assert_eq!(merged(&files), [line(10, 0, 0), "of ten".to_owned(), line(20, 1, 0), "of twenty".to_owned(), line(30, 0, 1)]);
}

#[test]
fn x5_t3_a_line_of_another_year_holds_nothing_back() {
    for odd in ["{\"time\":\"2099-01-01T00:00:00Z\"}", "{\"time\":\"1970-01-01T00:00:00Z\"}"] {
        for at in 0..=3 {
            let mut first: Vec<String> = [10, 30, 50].iter().enumerate().map(|(place, second)| line(*second, 0, place)).collect();
            first.insert(at, odd.to_owned());
            // At its very end there is nothing to hold back, and nobody to say that it is wrong.
            let expected: Vec<String> = [(10, 0, 0), (20, 1, 0), (30, 0, 1), (40, 1, 1), (50, 0, 2)].map(|(s, f, p)| line(s, f, p)).to_vec();
            let out: Vec<String> = merged(&[first, vec![line(20, 1, 0), line(40, 1, 1)]]).into_iter().filter(|line| line != odd).collect();
            assert_eq!(out, expected, "{odd} at {at}");
        }
    }
}

#[test]
fn x5_an_attack_over_two_routers_is_found_in_two_recordings() {
    let site = Site::new();
    let (failures, login): (Vec<String>, Vec<String>) = attack(8, "203.0.113.9").lines().map(|line| format!("{line}\n")).partition(|line| line.contains("Bad"));
    site.write("ap1.log", failures.concat()).write("ap2.log", login.concat().replace(" ap1 ", " ap2 "));
    for order in [["ap1.log", "ap2.log"], ["ap2.log", "ap1.log"]] {
        let told = within(site.told(&[order[0], order[1], NOW[0], NOW[1]]));
        assert_eq!(rules(&told), ["openwrt_ssh_bruteforce", "openwrt_ssh_login_after_failures"], "{order:?}");
    }
}

const ABSENT: &str = "title: a
name: a
logsource: {product: test}
detection: {s: {k: a}, condition: s}
---
title: gone
name: gone
correlation: {type: missing, rules: [a], timespan: 10s, group-by: [host]}
";

fn events(events: &[(u32, &str)]) -> String {
    events.iter().map(|(second, k)| format!("{{\"time\":{},\"k\":\"{k}\",\"product\":\"test\",\"host\":\"h\"}}\n", 1_700_000_000 + second)).collect()
}

/// What is found in several files, and whether only the end decided it.
fn found(files: &[&[(u32, &str)]]) -> Vec<(String, bool)> {
    let site = Site::new();
    site.write("rules/gone.yml", ABSENT);
    let names: Vec<String> = (0..files.len()).map(|n| n.to_string()).collect();
    for (name, lines) in names.iter().zip(files) {
        site.write(name, events(lines));
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let told = site.told(&names);
    assert_eq!(told, site.told(&[&names[..], &["--threads", "2"]].concat()));
    let correlations = told.iter().filter(|one| one["kind"] == "correlation");
    correlations.map(|one| (one["time"].as_str().unwrap()[17..19].to_owned(), one["end"] == true)).collect()
}

#[test]
fn t3_a_recording_that_is_idle_or_has_ended_holds_nothing_back() {
    let own: Vec<(u32, &str)> = [(0, "a"), (1, "a")].into_iter().chain((2..200).map(|n| (n * 5, "z"))).collect();
    // 22:13:20 and 11 s.
    let at_its_time = vec![("31".to_owned(), false)];
    assert_eq!(found(&[&own]), at_its_time);
    assert_eq!(found(&[&[(0, "z"), (5, "z")], &own]), at_its_time, "it has ended");
    assert_eq!(found(&[&[(0, "z"), (5, "z"), (990, "z")], &own]), at_its_time, "it is idle, and comes back");
    assert_eq!(found(&[&[(0, "z")], &own[..8], &[(2, "z"), (38, "z")]]), at_its_time, "to the last of all");
    // One event of 2099 at the end of a recording is not believed, and no time passes with it.
    let far: [(u32, &str); 3] = [(0, "a"), (1, "a"), (2_000_000_000, "z")];
    assert_eq!(found(&[&far, &[(0, "z"), (3, "z")]]), vec![("31".to_owned(), true)]);
    assert_eq!(found(&[&[(0, "a"), (1, "a"), (14, "z")], &[(0, "z"), (1, "z")]]), vec![("31".to_owned(), true)], "the lateness has not passed");
}
