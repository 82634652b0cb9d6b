//! One opmas that reads a file, in a temporary folder, and its data folder read afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use opmas::journal::{Content, LedgerReader, SpoolReader};
use opmas::model::{Decided, EntryBody, Record, RecordId};
use serde_json::Value;

use crate::program::Program;
use crate::router::eventually;

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
    program: Program,
    pub data: PathBuf,
    pub port: u16,
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
        let station = Station { program: Program::new(dir, port, None), data: data.to_owned(), port, temporary: None };
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

    /// The records in the spool, in its order; what cannot be read is left out.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let entries = SpoolReader::open(&self.data.join("spool"), 0).unwrap().flatten();
        entries.filter_map(|entry| if let EntryBody::Record(record) = entry.body { Some(record) } else { None })
    }

    /// Those of brokers.
    pub fn messages(&self) -> Vec<Record> {
        self.records().filter(|record| matches!(record.id, Some(RecordId::Broker { .. }))).collect()
    }

    /// How often each line of the file is in the spool, by its offset; what cannot be read is left out.
    pub fn spooled(&self) -> BTreeMap<u64, u32> {
        let mut lines = BTreeMap::new();
        for record in self.records() {
            if let Some(RecordId::File { offset, .. }) = record.id {
                *lines.entry(offset).or_default() += 1;
            }
        }
        lines
    }
}

impl Deref for Station {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Station {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
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
