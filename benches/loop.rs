//! How long the main job takes: from a router's last log line to the block that was read back, and to each message, beside a bare fsync
//! and a bare `ssh … true` over the same master in the same run. As root: `cargo bench --bench loop`.

#[path = "../tests/live/http.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod http;
#[path = "../tests/live/incidents.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod incidents;
#[path = "../tests/live/program.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod program;
#[path = "../tests/live/router.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod router;
#[path = "../tests/live/site.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod site;
#[path = "../tests/live/workspace.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod workspace;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use opmas::journal::{Content, LedgerReader};
use opmas::model::{Decided, OutcomeState, Time};
use router::{MANAGER, ROUTER, eventually};
use site::Site;

const ROUNDS: usize = 50;
/// About what a ledger batch of one decision is.
const SYNCED_BYTES: usize = 4_096;

fn now() -> Time {
    of(SystemTime::now())
}

fn of(time: SystemTime) -> Time {
    Time(i64::try_from(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()).unwrap())
}

fn milliseconds(mut all: Vec<f64>) -> String {
    all.sort_by(f64::total_cmp);
    let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
    format!("median {:8.2} ms   99th percentile {:8.2} ms   ({} rounds)", at(0.5), at(0.99), all.len())
}

fn since(begin: Time, end: Time) -> f64 {
    (end.0 - begin.0) as f64 / 1e6
}

/// What is recorded of a block, in its order.
const STAGES: [&str; 4] = ["found", "intended", "attempted", "read back"];

/// When each stage of each address's block was recorded; of those that were read back.
fn blocks(site: &Site) -> BTreeMap<String, [Time; STAGES.len()]> {
    let (mut steps, mut times, mut found) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for entry in LedgerReader::open(&site.dir.join("opmas-data/ledger"), 0).unwrap().map_while(Result::ok) {
        let Content::Decided(decided) = entry.content else { continue };
        match *decided {
            Decided::Run { run, .. } => _ = times.insert(run, [entry.time; STAGES.len()]),
            Decided::Intent { step, .. } => {
                times.get_mut(&step.run).unwrap()[1] = entry.time;
                steps.insert(step.run.clone(), step.params["ip"].as_str().unwrap().to_owned());
            }
            Decided::Attempt { run, .. } => times.get_mut(&run).unwrap()[2] = entry.time,
            Decided::Outcome { run, outcome, .. } if outcome.state == OutcomeState::Enforced => {
                times.get_mut(&run).unwrap()[3] = entry.time;
                found.insert(steps[&run].clone(), times[&run]);
            }
            _ => {}
        }
    }
    found
}

fn fsync(dir: &Path) -> Vec<f64> {
    let mut file = fs::File::create(dir.join("fsync")).unwrap();
    let one = |_| {
        let begin = Instant::now();
        file.write_all(&[b'x'; SYNCED_BYTES]).unwrap();
        rustix::fs::fdatasync(file.as_fd()).unwrap();
        begin.elapsed().as_secs_f64() * 1e3
    };
    (0..ROUNDS).map(one).collect()
}

fn bare_ssh(site: &Site) -> Vec<f64> {
    let controls = site.dir.join("opmas-data/ctl");
    let find = format!("find {} -type s | head -1", controls.display());
    let socket = site.router.sh("mg", &find);
    let one = |_| {
        let begin = Instant::now();
        let done = site.router.command("mg", "ssh").args(["-F", "none", "-S", socket.trim(), &format!("root@{ROUTER}"), "true"]).output().unwrap();
        // dropbear sometimes ends a session without its exit status: the way there and back was made all the same.
        assert!(done.status.success() || done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        begin.elapsed().as_secs_f64() * 1e3
    };
    (0..ROUNDS).map(one).collect()
}

fn memory(site: &Site) {
    for process in site.router.processes("mg").iter().filter(|p| p.words.iter().any(|word| word.contains("opmas"))) {
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap_or_default();
        let rss = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or("VmRSS: ?");
        println!("{:<16} {}", process.words[0].rsplit('/').next().unwrap_or("?"), rss);
    }
}

fn main() {
    let mut site = Site::new("[source.routers]\ntype = 'syslog'\nlisten = '192.168.1.2:1514'\ntrusted = true", "1h");
    // One run a finding; more of them than a playbook's own budget allows in an hour are not meant here.
    site.start();
    std::thread::sleep(Duration::from_secs(5));
    println!("idle, five seconds after the start:");
    memory(&site);
    assert_eq!(site.run(&["device", "check"]).0, Some(0));
    let socket = site.router.inside("rt", || UdpSocket::bind((ROUTER, 0)).unwrap());
    let mut begun = BTreeMap::new();
    for n in 1..=ROUNDS {
        let address = format!("203.0.113.{n}");
        for failure in 0..6 {
            let line = format!("<84>Nov 21 13:08:12 ap1 dropbear[2{failure}]: Bad password attempt for 'root' from {address}:50876");
            socket.send_to(line.as_bytes(), (MANAGER, 1514)).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        let line = format!("<85>Nov 21 13:08:14 ap1 dropbear[27421]: Password auth succeeded for 'root' from {address}:50880");
        begun.insert(address.clone(), now());
        socket.send_to(line.as_bytes(), (MANAGER, 1514)).unwrap();
        eventually(Duration::from_secs(20), "a block", || blocks(&site).contains_key(&address));
        eventually(Duration::from_secs(20), "messages", || site.mails().len() >= n + usize::from(n >= 5) && site.hooks().len() >= n + usize::from(n >= 5));
    }
    println!("after {ROUNDS} blocks:");
    memory(&site);
    let blocked = blocks(&site);
    let about = |address: &str| site.hooks().into_iter().find(|hook| hook.body["data"]["findings"][0]["group"]["src_ip"] == *address).unwrap();
    // Other findings are told of, too: many addresses that guess.
    let mails = site.mails();
    let mail = |address: &str| {
        let n = mails.iter().position(|mail| mail.contains(&format!("from {address}:50880"))).unwrap() + 1;
        of(fs::metadata(site.router.dir.path().join(format!("mail/{n}.json"))).unwrap().modified().unwrap())
    };
    println!("last log line to block read back   {}", milliseconds(begun.iter().map(|(address, begin)| since(*begin, blocked[address][3])).collect()));
    for (at, stage) in STAGES.iter().enumerate() {
        let from = |address: &String, begin: Time| at.checked_sub(1).map_or(begin, |before| blocked[address][before]);
        let took = |(address, begin): (&String, &Time)| since(from(address, *begin), blocked[address][at]);
        println!("    until it is {stage:<16}       {}", milliseconds(begun.iter().map(took).collect()));
    }
    println!("last log line to webhook received  {}", milliseconds(begun.iter().map(|(address, begin)| since(*begin, of(about(address).at))).collect()));
    println!("last log line to mail received     {}", milliseconds(begun.iter().map(|(address, begin)| since(*begin, mail(address))).collect()));
    println!("a bare fdatasync of {SYNCED_BYTES} bytes     {}", milliseconds(fsync(&site.dir)));
    println!("a bare ssh … true, same master     {}", milliseconds(bare_ssh(&site)));
    site.terminate();
}
