//! One address blocked on 500 devices at once, from cold and once more over what connections are warm, then with a dead device among them:
//! wall-clock time, processor time and memory of the executor with its ssh processes, beside as many bare `ssh … true`.
//! Real dropbear and nft, a ruleset a device (`tests/device/fleet.py`). As root: `cargo bench --bench fleet [-- DEVICES]`; with
//! `--profile dev` the debug build is measured. Fails when a device is missed, or when the others are slower while a dead one is waited for.

#[path = "../tests/live/fleet.rs"]
mod fleet;
#[path = "../tests/live/router.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod router;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet::{Answer, Fleet, enforced};
use opmas::executor::Client;

const DEVICES: usize = 500;
/// The goal for all of them, on two processors.
const LIMIT: Duration = Duration::from_secs(15);
/// How long a dead device is tried, in seconds: so long it holds a place for a connection.
const TRIED: f64 = 5.0;
/// The share of their pace that the others keep at least meanwhile.
const PACE: f64 = 0.5;
/// Longest time in which none of the others answers meanwhile, in seconds.
const GAP: f64 = 1.0;
const DEAD: usize = 20;
/// The kernel's clock ticks in a second, as /proc counts.
const TICKS: f64 = 100.0;

fn main() {
    let count = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(DEVICES);
    let fleet = Fleet::up(count);
    println!("{count} devices, {} processors", std::thread::available_parallelism().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (cold, _) = runtime.block_on(measured(&fleet, "from cold", count));
    fleet.kill(DEAD);
    let (_, answers) = runtime.block_on(measured(&fleet, "from cold, one dead", count - 1));
    let (_, reply, at) = answers.iter().find(|(n, ..)| *n == DEAD).unwrap();
    println!("the dead one: {} after {:.2} s: {}", reply.outcome.state.word(), at.as_secs_f64(), reply.outcome.detail);
    let (meanwhile, otherwise, gap) = pace(&answers, at.as_secs_f64());
    println!("the others while it is tried {meanwhile:.1} a second, else {otherwise:.1}; at most {gap:.2} s without one");
    println!("as many `ssh … true`, 16 at once   {:6.2} s", fleet.bare().as_secs_f64());
    println!("from cold: {:.2} s, with the devices on the same processors; {} s are the goal", cold.as_secs_f64(), LIMIT.as_secs());
    // Judged within one round: two rounds differ by what else the machine does.
    assert!(gap < GAP && meanwhile >= PACE * otherwise, "a dead device holds up the others");
}

/// How many of the others answered in a second while the dead device was tried, and otherwise; the longest time without any meanwhile.
fn pace(answers: &[Answer], given_up: f64) -> (f64, f64, f64) {
    let mut at: Vec<f64> = answers.iter().filter(|(n, ..)| *n != DEAD).map(|(_, _, at)| at.as_secs_f64()).collect();
    at.sort_by(f64::total_cmp);
    let (first, end) = (at[0], at[at.len() - 1]);
    let (from, to) = ((given_up - TRIED).max(first), given_up.min(end));
    let meanwhile = &at[at.partition_point(|at| *at < from)..at.partition_point(|at| *at <= to)];
    // Where all others had answered before, it held up none.
    let rate = |count: usize, time: f64, none: f64| if time > 0.0 { count as f64 / time } else { none };
    let gap = meanwhile.windows(2).map(|two| two[1] - two[0]).fold(0.0, f64::max);
    (rate(meanwhile.len(), to - from, f64::INFINITY), rate(at.len() - meanwhile.len(), end - first - (to - from).max(0.0), 0.0), gap)
}

/// A round with a new executor, and one more; the time of the first.
async fn measured(fleet: &Fleet, what: &str, most: usize) -> (Duration, Vec<Answer>) {
    let client = fleet.start().await;
    let before = fleet.said().cpu;
    let (first, answers) = round(fleet, &client, what, most).await;
    round(fleet, &client, "  once more", most).await;
    client.shutdown().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("  the devices' own processor time in both rounds {:6.2} s", fleet.said().cpu - before);
    (first, answers)
}

async fn round(fleet: &Fleet, client: &Client, what: &str, most: usize) -> (Duration, Vec<Answer>) {
    let executor = client.status().borrow().process.unwrap();
    let (end, before) = (Arc::new(AtomicBool::new(false)), processor(executor));
    let watching = Arc::clone(&end);
    let peak = std::thread::spawn(move || peak(executor, &watching));
    let answers = fleet.block(client).await;
    let cpu = processor(executor) - before;
    end.store(true, Ordering::Relaxed);
    let (processes, rss, pss) = peak.join().unwrap();
    let (count, took) = enforced(&answers);
    let mut at: Vec<f64> = answers.iter().map(|(_, _, at)| at.as_secs_f64()).collect();
    at.sort_by(f64::total_cmp);
    println!(
        "{what:<22} {count} enforced in {:6.2} s (median {:.2} s)   processor {cpu:6.2} s   {processes} processes at most, RSS {rss} MB, PSS {pss} MB",
        took.as_secs_f64(),
        at[at.len() / 2],
    );
    for (n, reply, at) in answers.iter().filter(|(_, reply, _)| reply.outcome.until.is_none()).take(3) {
        println!("    d{n} after {:.2} s: {}: {}", at.as_secs_f64(), reply.outcome.state.word(), reply.outcome.detail);
    }
    let blocked = fleet.blocked();
    assert!(count == most && blocked >= most, "{count} of {most} say so, on {blocked} it is");
    (took, answers)
}

/// The fields of `/proc/PID/stat` behind the name, from the state on.
fn stat(pid: u32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// The executor and the ssh processes that it has.
fn family(executor: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|pid| *pid == executor || stat(*pid).get(1).is_some_and(|parent| *parent == executor.to_string())).collect()
}

/// Seconds that they have used, with those that have ended.
fn processor(executor: u32) -> f64 {
    let ticks = |pid: &u32| stat(*pid).iter().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
    family(executor).iter().map(ticks).sum::<f64>() / TICKS
}

/// Most processes and megabytes that were seen.
fn peak(executor: u32, end: &AtomicBool) -> (usize, u64, u64) {
    let mut most = (0, 0, 0);
    while !end.load(Ordering::Relaxed) {
        let family = family(executor);
        let megabytes = |key: &str| family.iter().map(|pid| kilobytes(*pid, key)).sum::<u64>() >> 10;
        most = (most.0.max(family.len()), most.1.max(megabytes("Rss:")), most.2.max(megabytes("Pss:")));
        std::thread::sleep(Duration::from_millis(300));
    }
    most
}

fn kilobytes(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
