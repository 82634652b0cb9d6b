//! One opmas that reads a file, in a temporary folder: started, killed, ended, and its data folder read afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use opmas::journal::{Content, LedgerReader, SpoolReader};
use opmas::model::{Decided, EntryBody, Record, RecordId};
use serde_json::Value;

use crate::router::{OPMAS, eventually};

/// Six failures of one address within ten minutes, and a login of it after them. Reported are both, and the login by itself.
pub const RULES: &str = "title: Failure\nname: failure\nid: 00000000-0000-4000-8000-000000000001\nlogsource: {product: test}\n\
    detection: {one: {kind: failure}, condition: one}\nlevel: low\n---\n\
    title: Login\nname: login\nid: 00000000-0000-4000-8000-000000000002\nlogsource: {product: test}\n\
    detection: {one: {kind: login}, condition: one}\nlevel: low\n---\n\
    title: Guessing\nname: guessing\nid: 00000000-0000-4000-8000-000000000003\ncorrelation:\n  type: event_count\n  rules: [failure]\n  group-by: [src_ip]\n  \
    timespan: 10m\n  condition: {gte: 6}\nlevel: medium\n---\n\
    title: Guessed\nname: guessed\nid: 00000000-0000-4000-8000-000000000004\ncorrelation:\n  type: temporal_ordered\n  rules: [guessing, login]\n  group-by: [src_ip]\n  \
    timespan: 10m\n  generate: true\nlevel: critical\n";

pub struct Station {
    pub dir: PathBuf,
    pub data: PathBuf,
    port: u16,
    opmas: Option<Child>,
    /// Goes away with the value.
    temporary: Option<tempfile::TempDir>,
}

impl Station {
    /// Configured, not started; its data folder is `data` below its own.
    pub fn new() -> Station {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().to_owned();
        let mut station = Station::at(&dir, &dir.join("data"));
        station.temporary = Some(temporary);
        station
    }

    /// In a folder that is there (with the file that is read, perhaps), with a data folder elsewhere.
    pub fn at(dir: &Path, data: &Path) -> Station {
        // Free now; between here and the start nobody else asks for ports.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for folder in ["rules", "playbooks", "notifiers"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(dir.join("rules/test.yml"), RULES).unwrap();
        let station = Station { dir: dir.to_owned(), data: data.to_owned(), port, opmas: None, temporary: None };
        station.configure("");
        station
    }

    /// Writes `opmas.toml`, with more tables.
    pub fn configure(&self, more: &str) {
        let (data, port) = (self.data.display(), self.port);
        let text = format!(
            "data_dir = '{data}'\n[http]\nlisten = '127.0.0.1:{port}'\n[source.archive]\ntype = 'file'\npath = 'lines.log'\n[spool]\nsegment_bytes = 2000000\n{more}"
        );
        fs::write(self.dir.join("opmas.toml"), text).unwrap();
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("opmas.log")).unwrap();
        self.opmas = Some(self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Starts it and waits until input is accepted.
    pub fn start(&mut self) {
        self.spawn();
        eventually(Duration::from_secs(60), "opmas is not ready", || self.ready().is_some_and(|(code, _)| code == 200));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(OPMAS);
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    /// A command of opmas in the configuration's folder, which must end by itself.
    pub fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.command(args).output().unwrap();
        (status.code(), String::from_utf8_lossy(&stdout).into_owned() + String::from_utf8_lossy(&stderr).as_ref())
    }

    fn http(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    /// What `/readyz` says.
    pub fn ready(&self) -> Option<(u16, Value)> {
        let (code, body) = self.http("/readyz")?;
        Some((code, serde_json::from_str(&body).ok()?))
    }

    /// The value of a metric, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.http("/metrics").unwrap_or_default();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    pub fn kill(&mut self) {
        let mut opmas = self.opmas.take().unwrap();
        opmas.kill().unwrap();
        opmas.wait().unwrap();
    }

    /// Ends it as a service manager does; how long it took. It must end well.
    pub fn terminate(&mut self) -> Duration {
        let begun = Instant::now();
        let mut opmas = self.opmas.take().unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&opmas), rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.wait(&mut opmas), Some(0));
        begun.elapsed()
    }

    /// The exit code of one that ends by itself, with what it has said.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let mut opmas = self.opmas.take().unwrap();
        (self.wait(&mut opmas), self.log())
    }

    /// The exit code, soon.
    fn wait(&self, opmas: &mut Child) -> Option<i32> {
        let begun = Instant::now();
        loop {
            match opmas.try_wait().unwrap() {
                Some(status) => return status.code(),
                None if begun.elapsed() > Duration::from_secs(60) => {
                    opmas.kill().unwrap();
                    opmas.wait().unwrap();
                    panic!("it does not end");
                }
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("opmas.log")).unwrap_or_default()
    }

    pub fn forget_log(&self) {
        fs::write(self.dir.join("opmas.log"), "").unwrap();
    }

    /// Waits until all of the file is in the spool.
    pub fn read_all(&self) {
        let length = fs::metadata(self.dir.join("lines.log")).unwrap().len();
        eventually(Duration::from_secs(180), "the file is not read to its end", || self.position() == Some(length));
    }

    /// How far the file is read and acknowledged.
    pub fn position(&self) -> Option<u64> {
        let kept = fs::read(self.data.join("positions/archive.json")).ok()?;
        serde_json::from_slice::<Value>(&kept).ok()?["offset"].as_u64()
    }

    /// Starts, reads all of the file, ends.
    pub fn complete(&mut self) -> Duration {
        self.start();
        self.read_all();
        self.terminate()
    }

    /// Everything in the ledger, without what retention wrote again.
    pub fn decided(&self) -> Vec<Decided> {
        let (mut decided, mut carried) = (Vec::new(), 0);
        for entry in LedgerReader::open(&self.data.join("ledger"), 0).unwrap().map(Result::unwrap) {
            match entry.content {
                Content::Decided(one) if matches!(*one, Decided::Anchor { .. }) => {
                    let Decided::Anchor { carried: following, .. } = *one else { unreachable!() };
                    carried = following;
                }
                _ if carried > 0 => carried -= 1,
                Content::Decided(one) => decided.push(*one),
                Content::Erased { .. } => {}
            }
        }
        decided
    }

    /// How often each finding is in the ledger, by id.
    pub fn findings(&self) -> BTreeMap<String, u32> {
        let mut found = BTreeMap::new();
        for one in self.decided() {
            if let Decided::Finding { finding } = one {
                *found.entry(finding.id.0.to_string()).or_default() += 1;
            }
        }
        found
    }

    /// The notes of the ledger.
    pub fn notes(&self) -> Vec<String> {
        self.decided().into_iter().filter_map(|one| if let Decided::Note { text, .. } = one { Some(text) } else { None }).collect()
    }

    /// The records of brokers in the spool, in its order.
    pub fn messages(&self) -> Vec<Record> {
        let entries = SpoolReader::open(&self.data.join("spool"), 0).unwrap().map(Result::unwrap);
        let records = entries.filter_map(|entry| if let EntryBody::Record(record) = entry.body { Some(record) } else { None });
        records.filter(|record| matches!(record.id, Some(RecordId::Broker { .. }))).collect()
    }

    /// How often each line of the file is in the spool, by its offset; what cannot be read is left out.
    pub fn spooled(&self) -> BTreeMap<u64, u32> {
        let mut lines = BTreeMap::new();
        for entry in SpoolReader::open(&self.data.join("spool"), 0).unwrap().flatten() {
            if let EntryBody::Record(record) = entry.body
                && let Some(RecordId::File { offset, .. }) = record.id
            {
                *lines.entry(offset).or_default() += 1;
            }
        }
        lines
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        if let Some(mut opmas) = self.opmas.take() {
            let _ = opmas.kill();
            let _ = opmas.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("finding: ")).collect();
            eprintln!("the end of the log of opmas:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// Lines of which every hundred hold six failures and a login of one address; a second apart.
pub fn lines(from: u64, count: u64) -> impl Iterator<Item = String> {
    (from..from + count).map(|n| {
        let (group, place) = (n / 100, n % 100);
        let kind = match place {
            10..=15 => "failure",
            20 => "login",
            _ => "other",
        };
        let second = 1_790_000_000 + n;
        let ip = format!("10.{}.{}.{}", group >> 16, group >> 8 & 255, group & 255);
        format!("{{\"timestamp\":{second},\"product\":\"test\",\"kind\":\"{kind}\",\"src_ip\":\"{ip}\"}}")
    })
}

/// Appends [`lines`] to `lines.log`.
pub fn write_lines(dir: &Path, from: u64, count: u64) {
    let text: String = lines(from, count).map(|line| line + "\n").collect();
    let mut file = fs::OpenOptions::new().create(true).append(true).open(dir.join("lines.log")).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}
