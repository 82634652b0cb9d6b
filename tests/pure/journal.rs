//! The journal as its users meet it: folders, appends, crashes, full disks, damage, and what `verify` says.

mod archive;
mod command;
mod crash;
mod damage;
mod dead;
mod folder;
mod head;
mod ledger;
mod spool;
mod state;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opmas::journal::{DataDir, Ledger, ReadError, Recovery, Spool, SpoolConfig, SpoolHandle, SpoolReader};
use opmas::model::{Decided, Entry, EntryBody, Payload, Record, RecordId, Time, Trust};
use tokio::sync::mpsc;

/// A data folder that goes away with the value.
struct Folder {
    temporary: tempfile::TempDir,
}

impl Folder {
    fn new() -> Folder {
        Folder { temporary: tempfile::tempdir().unwrap() }
    }

    /// In memory where that can be, for tests that open a folder a thousand times: what a sync promises is not their question.
    fn in_memory() -> Folder {
        Folder { temporary: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.temporary.path().join("opmas-data")
    }

    fn open(&self) -> DataDir {
        DataDir::open(&self.path()).unwrap()
    }

    /// All files of one log, oldest first.
    fn segments(&self, log: &str) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.path().join(log)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    fn entries(&self) -> Vec<Entry> {
        SpoolReader::open(&self.path().join("spool"), 0).unwrap().map(Result::unwrap).collect()
    }

    /// What a reader makes of a damaged spool: what it still reads, and what it says.
    fn survivors(&self) -> (Vec<u64>, Vec<ReadError>) {
        let (mut seqs, mut errors) = (Vec::new(), Vec::new());
        for entry in SpoolReader::open(&self.path().join("spool"), 0).unwrap() {
            entry.map_or_else(|error| errors.push(error), |entry| seqs.push(entry.seq));
        }
        (seqs, errors)
    }
}

/// Starts a spool whose subscriber has gone: entries are kept and handed to nobody.
fn start(data: &DataDir, config: SpoolConfig) -> (SpoolHandle, Recovery) {
    let (spool, recovery) = Spool::open(data, config).unwrap();
    let (subscriber, _) = mpsc::channel(1);
    (spool.start(subscriber).unwrap(), recovery)
}

/// Segments of this size hold a few small entries.
fn small_segments(bytes: u64) -> SpoolConfig {
    SpoolConfig { segment_bytes: bytes, ..SpoolConfig::default() }
}

fn record(id: Option<RecordId>, raw: &[u8]) -> EntryBody {
    EntryBody::Record(Record {
        id,
        source: "router".into(),
        stream: "udp:192.0.2.1".into(),
        arrival: Some(Time(1_700_000_000_000_000_000)),
        peer: Some("192.0.2.1".parse().unwrap()),
        trust: Trust::Open,
        raw: raw.to_vec(),
        payload: Payload::Log,
        subject: None,
    })
}

fn pushed(raw: &str) -> EntryBody {
    record(None, raw.as_bytes())
}

fn line(file: &str, offset: u64) -> EntryBody {
    record(Some(RecordId::File { file: file.into(), offset }), b"line")
}

fn raw(entry: &Entry) -> String {
    match &entry.body {
        EntryBody::Record(record) => String::from_utf8_lossy(&record.raw).into_owned(),
        other => format!("{other:?}"),
    }
}

fn note(text: &str) -> Decided {
    Decided::Note { text: text.to_owned(), at: Time(7) }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

/// A spool of `count` entries, each appended (and so synced) on its own.
async fn filled_spool(folder: &Folder, count: u64, config: SpoolConfig) {
    let (handle, _) = start(&folder.open(), config);
    for n in 1..=count {
        handle.append(vec![pushed(&format!("entry {n}"))]).await.unwrap();
    }
    handle.close().await;
}

/// A ledger of batches of these sizes; the record texts are numbered through.
async fn filled_ledger(folder: &Folder, batches: &[u64]) {
    let (ledger, _) = Ledger::open(&folder.open()).unwrap();
    let mut seq = 0;
    for size in batches {
        let batch = (0..*size).map(|n| note(&format!("record {}", seq + n + 1))).collect();
        let place = ledger.append(batch).await.unwrap();
        assert_eq!((place.first, place.last), (seq + 1, seq + size));
        seq += size;
    }
    ledger.close().await;
}

fn batch_of(entries: &[Arc<[Entry]>]) -> Vec<u64> {
    entries.iter().flat_map(|batch| batch.iter().map(|e| e.seq)).collect()
}
