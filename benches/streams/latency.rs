//! A line in to the finding out, through JetStream or syslog over TCP, under load.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::StreamExt as _;
use tokio::io::{AsyncWriteExt as _, BufWriter};
use tokio::net::TcpStream;

use crate::lines::line;
use crate::nats_server::NatsServer;
use crate::rate::as_it_comes;
use crate::site::{Metrics, Site};
use crate::{number, quantile};

/// The load comes in pieces.
const PIECE: Duration = Duration::from_millis(5);
/// An address fails for the sixth time so often.
const PROBE: Duration = Duration::from_millis(50);
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(3);

type Times = Arc<Mutex<HashMap<String, Instant>>>;

/// Where lines go to.
enum Sender {
    JetStream(Client),
    Syslog(BufWriter<TcpStream>),
}

impl Sender {
    async fn new(client: Client, syslog: Option<u16>) -> Sender {
        match syslog {
            None => Sender::JetStream(client),
            Some(port) => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Sender::Syslog(BufWriter::with_capacity(64 << 10, stream))
            }
        }
    }

    async fn send(&mut self, line: String) {
        match self {
            Sender::JetStream(client) => client.publish("logs.ap", line.into()).await.unwrap(),
            Sender::Syslog(stream) => {
                stream.write_all(line.as_bytes()).await.unwrap();
                stream.write_all(b"\n").await.unwrap();
            }
        }
    }

    async fn flush(&mut self) {
        match self {
            Sender::JetStream(client) => client.flush().await.unwrap(),
            Sender::Syslog(stream) => stream.flush().await.unwrap(),
        }
    }
}

/// Lines through JetStream.
pub fn nats() {
    run(None);
}

/// Lines through syslog over TCP; findings leave through NATS as well.
pub fn syslog() {
    run(Some(TcpListener::bind("127.0.0.1:0").unwrap()));
}

/// `free`: nobody else takes this port for as long as it is kept.
fn run(free: Option<TcpListener>) {
    let syslog = free.as_ref().map(|free| free.local_addr().unwrap().port());
    let mut server = NatsServer::new();
    as_it_comes(&mut server);
    let client = server.client();
    client.make_stream("LOGS", &["logs.>"]);
    client.make_stream("FINDINGS", &["findings.>"]);
    let source = syslog.map_or_else(
        || "[source.bus]\ntype = 'nats'\nfindings = []\nlogs = ['logs.>']\n".to_owned(),
        |port| format!("[source.routers]\ntype = 'syslog'\nlisten = '127.0.0.1:{port}'\n"),
    );
    let mut site = Site::new(&format!("{}{source}[publish.site]\n", server.broker("")));
    drop(free);
    site.start();
    let (sent, seen) = (Times::default(), Times::default());
    let stop = Arc::new(AtomicBool::new(false));
    let threads = [
        spawn(&server, &stop, async move |client, stop| load(Sender::new(client, syslog).await, stop).await),
        with(&server, &stop, &seen, listen),
        with(&server, &stop, &sent, async move |client, stop, times| probe(Sender::new(client, syslog).await, stop, times).await),
    ];
    std::thread::sleep(WARM_UP);
    let before = site.metrics();
    let size = before.of("opmas_journal_bytes_total", "\"spool\"") / before.of("opmas_journal_commit_seconds_count", "\"spool\"").max(1.0);
    sent.lock().unwrap().clear();
    let beside = fdatasync(&site.dir, size as usize, Duration::from_secs(number("OPMAS_SECONDS", 30)));
    let (after, taken) = (site.metrics(), Instant::now());
    stop.store(true, Ordering::Release);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let quiet = fdatasync(&site.dir, size as usize, Duration::from_secs(5));
    let entries = after.of("opmas_detection_entries_total", "") - before.of("opmas_detection_entries_total", "");
    let lag = after.of("opmas_detection_lag_entries", "");
    println!("through opmas {:.0} records/s, {lag:.0} entries behind at the end", entries / number("OPMAS_SECONDS", 30) as f64);
    let (sent, seen) = (sent.lock().unwrap(), seen.lock().unwrap());
    let due: Vec<_> = sent.iter().filter(|(_, at)| taken.duration_since(**at) > Duration::from_millis(500)).collect();
    let took: Vec<f64> = due.iter().filter_map(|(address, at)| Some((*seen.get(*address)? - **at).as_secs_f64() * 1e3)).collect();
    println!("{} of {} probes found", took.len(), due.len());
    report("message in to finding out", &took);
    for log in ["spool", "ledger"] {
        let total = |metrics: &Metrics, what: &str| metrics.of(&format!("opmas_journal_commit_seconds_{what}"), &format!("\"{log}\""));
        let (commits, seconds) = (total(&after, "count") - total(&before, "count"), total(&after, "sum") - total(&before, "sum"));
        println!("commits of the {log}: {commits:.0}, {:.2} ms each", seconds / commits.max(1.0) * 1e3);
    }
    report(&format!("a bare fdatasync of {size:.0} bytes beside it"), &beside);
    report(&format!("a bare fdatasync of {size:.0} bytes afterwards"), &quiet);
    let ratio = |other: &[f64]| quantile(&took, 0.99) / quantile(other, 0.99);
    println!("99th percentiles: {:.1} times that beside it, {:.1} times that afterwards (goal: at most 3)", ratio(&beside), ratio(&quiet));
    site.terminate();
}

fn report(what: &str, all: &[f64]) {
    println!("{what:<48} median {:8.2} ms   99th percentile {:8.2} ms", quantile(all, 0.5), quantile(all, 0.99));
}

fn spawn(server: &NatsServer, stop: &Arc<AtomicBool>, run: impl AsyncFnOnce(Client, Arc<AtomicBool>) + Send + 'static) -> std::thread::JoinHandle<()> {
    let (address, stop) = (format!("nats://127.0.0.1:{}", server.port), stop.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { run(async_nats::connect(address).await.unwrap(), stop).await });
    })
}

fn with(
    server: &NatsServer,
    stop: &Arc<AtomicBool>,
    times: &Times,
    run: impl AsyncFnOnce(Client, Arc<AtomicBool>, Times) + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let times = times.clone();
    spawn(server, stop, async move |client, stop| run(client, stop, times).await)
}

/// Lines that lead to nothing, at an even pace.
async fn load(mut sender: Sender, stop: Arc<AtomicBool>) {
    let mut every = tokio::time::interval(PIECE);
    let each = number("OPMAS_PER_SECOND", 20_000) * PIECE.as_millis() as u64 / 1_000;
    // Without the attacks.
    let mut numbers = (0..).filter(|n| n % 10_000 < 5_000);
    while !stop.load(Ordering::Acquire) {
        every.tick().await;
        for n in numbers.by_ref().take(each as usize) {
            sender.send(line(n)).await;
        }
        if let Sender::Syslog(_) = &sender {
            sender.flush().await;
        }
    }
    sender.flush().await;
}

/// An address fails five times, and a second later once more.
async fn probe(mut sender: Sender, stop: Arc<AtomicBool>, sent: Times) {
    let ahead = 20;
    let failure = |address: &str| format!("<84>Nov 21 13:08:12 ap1 dropbear[2741]: Bad password attempt for 'root' from {address}:50876");
    let address = |n: u64| format!("203.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255);
    let mut every = tokio::time::interval(PROBE);
    for n in 0.. {
        every.tick().await;
        if stop.load(Ordering::Acquire) {
            break;
        }
        for _ in 0..5 {
            sender.send(failure(&address(n + ahead))).await;
        }
        if n < ahead {
            continue;
        }
        sender.flush().await;
        sent.lock().unwrap().insert(address(n), Instant::now());
        sender.send(failure(&address(n))).await;
        sender.flush().await;
    }
}

/// When each address was found guessing.
async fn listen(client: Client, stop: Arc<AtomicBool>, seen: Times) {
    let mut messages = client.subscribe("findings.correlated").await.unwrap();
    let mut last_look = false;
    loop {
        let message = match tokio::time::timeout(Duration::from_secs(2), messages.next()).await {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(_) if last_look => break,
            Err(_) => {
                last_look = stop.load(Ordering::Acquire);
                continue;
            }
        };
        let at = Instant::now();
        let finding: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        if finding["rule"]["name"] == "openwrt_ssh_bruteforce" {
            seen.lock().unwrap().insert(finding["group"]["src_ip"].as_str().unwrap().to_owned(), at);
        }
    }
}

/// Milliseconds of each, one every 20 ms.
fn fdatasync(dir: &Path, size: usize, within: Duration) -> Vec<f64> {
    let (mut file, until, mut took) = (File::create(dir.join("fdatasync")).unwrap(), Instant::now() + within, Vec::new());
    let bytes = vec![b'x'; size.max(1)];
    while Instant::now() < until {
        let begun = Instant::now();
        file.write_all(&bytes).unwrap();
        rustix::fs::fdatasync(file.as_fd()).unwrap();
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(20));
    }
    took
}
