//! `kill -9` to ready, with a long spool.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opmas::clock;
use opmas::journal::{DataDir, Spool, SpoolConfig};
use opmas::model::{EntryBody, Record, Span, Trust};
use tokio::sync::mpsc;

use crate::lines::line;
use crate::number;
use crate::router::eventually;
use crate::site::Site;

/// Records that are appended together.
const TOGETHER: u64 = 20_000;
/// Lines that come while it is killed.
const MORE: u64 = 2_000_000;

pub fn run() {
    let count = number("OPMAS_SPOOLED", 10_000_000);
    let mut site = Site::new("[source.archive]\ntype = 'file'\npath = 'lines.log'\n[spool]\nkeep_bytes = 50000000000\n");
    // The rules' revisions stand before the records.
    site.start();
    site.terminate();
    fill(&site, count);
    let begun = Instant::now();
    site.spawn();
    eventually(Duration::from_secs(3_600), "the spool is not computed", || site.ready().is_some_and(|(code, _)| code == 200));
    println!("{count} records in the spool; computed for the first time in {:.1} s", begun.elapsed().as_secs_f64());
    let mut file = fs::File::create(site.dir.join("lines.log")).unwrap();
    (0..MORE).for_each(|n| writeln!(file, "{}", line(n)).unwrap());
    for round in 0..5 {
        std::thread::sleep(Duration::from_millis(1_500 + 370 * round));
        site.kill();
        site.forget_log();
        let begun = Instant::now();
        site.spawn();
        eventually(Duration::from_secs(600), "opmas is not ready", || site.ready().is_some_and(|(code, _)| code == 200));
        let took = begun.elapsed().as_secs_f64();
        let log = site.log();
        let caught_up = log.lines().find(|line| line.contains("caught up")).and_then(|line| line.rsplit("entries").next()).unwrap_or("?");
        println!("kill -9 to ready: {took:.2} s, computed again: {} entries (goal: below 5 s)", caught_up.trim_matches(['=', ' ', '"', ':', '}']));
    }
    site.kill();
}

/// Appends records as a source would.
fn fill(site: &Site, count: u64) {
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let data = DataDir::open(&site.data()).unwrap();
        let config = SpoolConfig { keep: Span::secs(864_000), keep_bytes: u64::MAX, ..SpoolConfig::default() };
        let (spool, _) = Spool::open(&data, config).unwrap();
        // Nobody computes them now.
        let (entries, _) = mpsc::channel(1);
        let spool = spool.start(entries).unwrap();
        let (source, stream): (Arc<str>, Arc<str>) = ("routers".into(), "routers/tcp/192.0.2.1".into());
        for from in (0..count).step_by(TOGETHER as usize) {
            let record = |n| Record {
                id: None,
                source: source.clone(),
                stream: stream.clone(),
                arrival: Some(clock::now()),
                peer: None,
                trust: Trust::Verified,
                raw: line(n).into_bytes(),
                payload: Default::default(),
                subject: None,
            };
            spool.append((from..count.min(from + TOGETHER)).map(|n| EntryBody::Record(record(n))).collect()).await.unwrap();
        }
        spool.close().await;
    });
    println!("{count} records appended in {:.1} s", begun.elapsed().as_secs_f64());
}
