//! Reads a data folder without touching it, also while an opmas writes it, and says what does not verify.

use std::fs;
use std::path::Path;

use super::archive::list_all;
use super::chain::{Content, LedgerHash};
use super::checkpoint::{CheckpointRef, load};
use super::datadir::DataDir;
use super::dead::DeadReader;
use super::head::SignedHead;
use super::ledger::LedgerReader;
use super::reader::LogReader;
use super::revision::Revisions;
use super::segment::{Kind, Tail};
use super::spool::SpoolReader;

/// Wrong things that are listed; more are only counted.
const MAX_WRONG: usize = 1_000;

/// What verifying one part of a data folder found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records (entries, copies) that verify.
    pub records: u64,
    /// The first of them, by seq.
    pub first: Option<u64>,
    /// The last of them, by seq.
    pub last: Option<u64>,
    /// The ledger's: the chain hash up to and with the last record.
    pub head: Option<LedgerHash>,
    /// The ledger's: the record that has the hash which was looked for.
    pub found_head: Option<u64>,
    /// The ledger's: checkpoints that it names, the last two.
    pub checkpoints: Vec<CheckpointRef>,
    /// What is not wrong, and worth knowing.
    pub notes: Vec<String>,
    /// What is wrong, `file:offset: …`, bounded.
    pub wrong: Vec<String>,
    /// How many wrong things were found beyond those listed.
    pub more_wrong: u64,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.wrong.is_empty()
    }

    fn wrong(&mut self, what: impl ToString) {
        if self.wrong.len() < MAX_WRONG {
            self.wrong.push(what.to_string());
        } else {
            self.more_wrong += 1;
        }
    }

    fn record(&mut self, seq: u64) {
        self.records += 1;
        self.first.get_or_insert(seq);
        self.last = Some(seq);
    }

    /// Files and bytes of a log.
    fn measure(&mut self, dir: &Path, kind: Kind) {
        match list_all(dir, kind) {
            Ok(segments) => {
                self.files = segments.len() as u64;
                self.bytes = segments.iter().filter_map(|(_, path)| fs::metadata(path).ok()).map(|m| m.len()).sum();
            }
            Err(error) => self.wrong(format!("cannot read {}: {error}", dir.display())),
        }
    }

    /// What stands behind the last whole batch: an unfinished write is none of the log's faults.
    fn tail(&mut self, log: &LogReader) {
        let (tail, file, offset) = log.tail();
        let place = format!("{}:{offset}", file.display());
        match tail {
            Tail::Clean => {}
            Tail::Short => self.notes.push(format!("{place}: an unfinished write, which is cut when opmas starts")),
            Tail::Garbage => self.wrong(format!("{place}: damaged to the end of the file (it is cut when opmas starts, as if the last write had been torn)")),
        }
    }
}

/// Reads every segment and entry of the spool.
#[must_use]
pub fn verify_spool(data: &DataDir) -> Report {
    let mut report = Report::default();
    report.measure(&data.spool(), Kind::Spool);
    let mut reader = match SpoolReader::open(&data.spool(), 0) {
        Ok(reader) => reader,
        Err(error) => {
            report.wrong(error);
            return report;
        }
    };
    for entry in reader.by_ref() {
        match entry {
            Ok(entry) => report.record(entry.seq),
            Err(error) => report.wrong(error),
        }
    }
    report.tail(reader.log());
    report
}

/// Reads every segment and letter of the dead letters; `first` and `last` are places in the spool. None are no fault.
#[must_use]
pub fn verify_dead(data: &DataDir) -> Report {
    let mut report = Report::default();
    if !data.dead().exists() {
        return report;
    }
    report.measure(&data.dead(), Kind::Dead);
    let mut reader = match DeadReader::open(&data.dead()) {
        Ok(reader) => reader,
        Err(error) => {
            report.wrong(error);
            return report;
        }
    };
    for letter in reader.by_ref() {
        match letter {
            Ok(letter) => report.record(letter.seq),
            Err(error) => report.wrong(error),
        }
    }
    if let Some(log) = reader.log() {
        report.tail(log);
    }
    report
}

/// Reads every segment and record of the ledger, and recomputes hashes and chain; the record whose head was signed last must be there.
/// `head`, if given, must be the chain hash of one of the records: then nothing up to that one was rewritten since it was noted.
#[must_use]
pub fn verify_ledger(data: &DataDir, head: Option<LedgerHash>) -> Report {
    let mut report = Report::default();
    report.measure(&data.ledger(), Kind::Ledger);
    // Before the records: what is signed meanwhile is ahead of what is read.
    let signed = SignedHead::published(data).unwrap_or_else(|error| {
        report.wrong(error);
        None
    });
    let mut reader = match LedgerReader::open(&data.ledger(), 0) {
        Ok(reader) => reader,
        Err(error) => {
            report.wrong(error);
            return report;
        }
    };
    let mut erased = 0;
    for entry in reader.by_ref() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                report.wrong(error);
                continue;
            }
        };
        report.record(entry.seq);
        report.head = Some(entry.hash);
        if head == Some(entry.hash) {
            report.found_head = Some(entry.seq);
        }
        if let Some((signed, _)) = signed.as_ref().filter(|(signed, hash)| signed.seq == entry.seq && *hash != entry.hash) {
            report.wrong(format!(
                "{}: record {} has another chain hash than was signed at {}: the ledger was rewritten",
                data.ledger().display(),
                signed.seq,
                signed.at
            ));
        }
        match entry.content {
            Content::Erased { .. } => erased += 1,
            Content::Decided(decided) => keep_last_two(&mut report.checkpoints, CheckpointRef::of(&decided)),
        }
    }
    report.tail(reader.log());
    let last = report.last.unwrap_or_default();
    if let Some((SignedHead { seq, at, .. }, _)) = signed.filter(|(signed, _)| signed.seq > last) {
        report
            .wrong(format!("{}: it ends with record {last}, and the head of record {seq} was signed at {at} (head.json): it was cut", data.ledger().display()));
    }
    if let Err(error) = reader.check_beginning() {
        report.wrong(error);
    }
    let dropped = reader.begun().filter(|(seq, _)| *seq > 0);
    if let Some((seq, hash)) = dropped {
        report.notes.push(format!("retention has dropped the records up to {seq}; the chain begins behind them, at {hash}, as an anchor says"));
        if head == Some(hash) {
            report.found_head = Some(seq);
        }
    }
    if erased > 0 {
        report.notes.push(format!("{erased} payloads were erased; the chain over their hashes holds"));
    }
    if let (Some(head), None) = (head, report.found_head) {
        report.wrong(format!(
            "{}: no record has the chain hash {head}: the ledger was rewritten or cut since that head was noted{}",
            data.ledger().display(),
            if dropped.is_some() { ", or retention has dropped its record" } else { "" }
        ));
    }
    report
}

fn keep_last_two(kept: &mut Vec<CheckpointRef>, checkpoint: Option<CheckpointRef>) {
    kept.extend(checkpoint);
    if kept.len() > 2 {
        kept.remove(0);
    }
}

/// Checks the checkpoints that the ledger names last. The older of them may have made room meanwhile.
#[must_use]
pub fn verify_checkpoints(data: &DataDir, named: &[CheckpointRef]) -> Report {
    let mut report = Report::default();
    for (place, checkpoint) in named.iter().enumerate() {
        let newest = place + 1 == named.len();
        if !newest && !data.state().join(&*checkpoint.name).exists() {
            continue;
        }
        report.files += 1;
        match load(&data.state(), checkpoint) {
            Ok(body) => {
                report.bytes += body.len() as u64;
                report.record(checkpoint.seq);
            }
            Err(what) => report.wrong(what),
        }
    }
    report
}

/// Reads every kept revision.
#[must_use]
pub fn verify_revisions(data: &DataDir) -> Report {
    verify_kept(&data.revisions(), &Revisions::new(data))
}

/// Reads every piece of evidence; a folder of an older version has none.
#[must_use]
pub fn verify_evidence(data: &DataDir) -> Report {
    if data.evidence().exists() { verify_kept(&data.evidence(), &Revisions::evidence(data)) } else { Report::default() }
}

fn verify_kept(folder: &Path, kept: &Revisions) -> Report {
    let mut report = Report::default();
    let names = match kept.all() {
        Ok(names) => names,
        Err(error) => {
            report.wrong(format!("cannot read {}: {error}", folder.display()));
            return report;
        }
    };
    for name in names {
        report.files += 1;
        match kept.read(&name) {
            Ok(content) => {
                report.bytes += content.len() as u64;
                report.records += 1;
            }
            Err(error) => report.wrong(format!("{}: {error}", folder.join(&name).display())),
        }
    }
    report
}
