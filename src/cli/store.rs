//! `opmas store` and `opmas audit`: both read a data folder without touching it, also while an opmas runs on it.

mod copy;
mod dead;
mod replay_dead;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Value, json};

use super::{Done, Exit, Failure};
use crate::config::Setup;
use crate::journal::{Content, DataDir, HeadError, LedgerEntry, LedgerHash, LedgerKey, LedgerReader, ReadError, Report, SignedHead, verify_all, verify_ledger};

/// What to do with the data folder.
#[derive(clap::Subcommand)]
pub(super) enum StoreCommand {
    /// Read every file of the data folder and say what does not verify.
    Verify(Folder),
    /// List the records that could not be used, with the reasons.
    Dead(dead::Arguments),
    /// Copy the data folder, also while an opmas runs on it, and verify the copy.
    Backup(copy::Backup),
    /// Make a data folder of such a copy, which is verified first.
    Restore(copy::Restore),
    /// Print findings, or the whole ledger, one JSON object a line.
    Export(copy::Export),
    /// Have the running opmas take such records in again, each once.
    ReplayDead(replay_dead::Arguments),
}

/// What to prove.
#[derive(clap::Subcommand)]
pub(super) enum AuditCommand {
    /// Recompute the ledger's chain.
    Verify(AuditVerify),
    /// Print the ledger's records, one JSON object a line.
    Show(AuditShow),
}

/// Arguments of `opmas audit show`.
#[derive(clap::Args)]
pub(super) struct AuditShow {
    #[command(flatten)]
    folder: Folder,
    /// Only so many, the newest.
    #[arg(long, value_name = "N")]
    last: Option<u64>,
}

/// A head that somebody has noted.
#[derive(Clone)]
enum Noted {
    Hash(LedgerHash),
    Signed(Box<SignedHead>),
}

impl FromStr for Noted {
    type Err = String;

    /// 64 hexadecimal digits, a signed head as JSON, or the file that holds one.
    fn from_str(text: &str) -> Result<Noted, String> {
        if text.starts_with('{') {
            return serde_json::from_str(text).map(|head| Noted::Signed(Box::new(head))).map_err(|error| HeadError::NotAHead(error.to_string()).to_string());
        }
        match text.parse() {
            Ok(hash) => Ok(Noted::Hash(hash)),
            Err(_) if Path::new(text).is_file() => {
                SignedHead::read(Path::new(text)).map(|head| Noted::Signed(Box::new(head))).map_err(|error| error.to_string())
            }
            Err(why) => Err(format!("{why}, or a signed head, as `ledger/head.json` has it, or the name of a file with one")),
        }
    }
}

impl Noted {
    /// The hash, when it is whose word it says it is.
    fn hash(&self, data: &DataDir) -> Result<LedgerHash, HeadError> {
        match self {
            Noted::Hash(hash) => Ok(*hash),
            Noted::Signed(signed) => signed.hash_in(data),
        }
    }
}

/// Arguments of `opmas audit verify`.
#[derive(clap::Args)]
pub(super) struct AuditVerify {
    #[command(flatten)]
    folder: Folder,
    /// A head that was noted earlier, its hash or in its signed form (JSON, or a file): proves that nothing up to it was rewritten since.
    #[arg(long, value_name = "HEAD")]
    head: Option<Noted>,
}

/// Which data folder.
#[derive(clap::Args)]
pub(super) struct Folder {
    /// The data folder; without it the configuration's `data_dir`, else `opmas-data`.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl Folder {
    fn open(&self, config: Option<&Path>) -> Result<DataDir, Failure> {
        let path = match &self.data_dir {
            Some(path) => path.clone(),
            // Rules and the rest are not looked at: a store is to be verified also when one of them is not in order.
            None => Setup::settings(config).map_err(|error| Failure::new(Exit::Invalid, error))?.1.data_dir,
        };
        DataDir::open_read_only(&path).map_err(|error| super::rows::unopened(&error, "name it with --data-dir DIR, or its configuration with --config FILE"))
    }
}

pub(super) fn run(config: Option<&Path>, command: &StoreCommand) -> Done {
    let folder = match command {
        StoreCommand::Verify(folder) => folder,
        StoreCommand::Backup(arguments) => return copy::run_backup(config, arguments),
        StoreCommand::Restore(arguments) => return copy::run_restore(config, arguments),
        StoreCommand::Export(arguments) => return copy::run_export(config, arguments),
        StoreCommand::Dead(arguments) => return dead::run(config, arguments),
        StoreCommand::ReplayDead(arguments) => return replay_dead::run(config, arguments),
    };
    Ok(tell(&verify_all(&folder.open(config)?)))
}

pub(super) fn audit(config: Option<&Path>, command: &AuditCommand) -> Done {
    let arguments = match command {
        AuditCommand::Verify(arguments) => arguments,
        AuditCommand::Show(arguments) => return show(config, arguments),
    };
    let data = arguments.folder.open(config)?;
    let head = arguments.head.as_ref().map(|noted| noted.hash(&data)).transpose().map_err(|why| Failure::new(Exit::Wrong, why))?;
    let ledger = verify_ledger(&data, head);
    let found = head.zip(ledger.found_head);
    let exit = tell(&[("ledger", "segments", "records", ledger)]);
    if let (Some((head, seq)), Exit::Done) = (found, exit) {
        println!("{head} is the head of record {seq}: nothing up to it was rewritten");
    }
    Ok(exit)
}

/// The records, and on standard error whose chain it is.
fn show(config: Option<&Path>, arguments: &AuditShow) -> Done {
    let data = arguments.folder.open(config)?;
    let read = |error: ReadError| Failure::new(Exit::Wrong, error);
    let newest = LedgerReader::open(&data.ledger(), 0).map_err(read)?.flatten().last().map_or(0, |entry| entry.seq);
    let from = arguments.last.map_or(0, |last| newest.saturating_sub(last) + 1);
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut exit = Exit::Done;
    for entry in LedgerReader::open(&data.ledger(), 0).map_err(read)? {
        let told = match entry {
            Ok(entry) if entry.seq < from => continue,
            Ok(entry) => writeln!(out, "{}", line(&entry)),
            Err(error) => {
                exit = Exit::Wrong;
                eprintln!("opmas: {error}");
                continue;
            }
        };
        if let Err(error) = told {
            return super::unwritten(&error).map(|_| exit);
        }
    }
    if let Err(error) = out.flush() {
        return super::unwritten(&error).map(|_| exit);
    }
    if let Some(key) = LedgerKey::public_of(&data) {
        eprintln!("the ledger of {} signs its head with the key {key}", data.node().0);
    }
    Ok(exit)
}

fn line(entry: &LedgerEntry) -> Value {
    let content = match &entry.content {
        Content::Decided(decided) => json!(decided),
        Content::Erased { reason } => json!({ "record": "erased", "reason": reason }),
    };
    json!({ "seq": entry.seq, "time": entry.time, "hash": entry.hash.to_string(), "decided": content })
}

/// One line a part on standard output, and each wrong thing on a line of its own below it.
fn tell(parts: &[(&str, &str, &str, Report)]) -> Exit {
    for (part, files, records, report) in parts {
        let range = report.first.zip(report.last).map_or(String::new(), |(first, last)| format!(" ({first} to {last})"));
        let head = report.last.zip(report.head).map_or(String::new(), |(seq, hash)| format!(", head {seq} {hash}"));
        let verdict = match report.wrong.len() as u64 + report.more_wrong {
            0 => "good".to_owned(),
            wrong => format!("{wrong} wrong"),
        };
        println!("{part}: {verdict}: {} {files}, {} {records}{range}, {} bytes{head}", report.files, report.records, report.bytes);
        report.notes.iter().for_each(|note| println!("  {note}"));
        report.wrong.iter().for_each(|wrong| println!("  {wrong}"));
        if report.more_wrong > 0 {
            println!("  and {} more", report.more_wrong);
        }
    }
    if parts.iter().all(|(.., report)| report.is_good()) { Exit::Done } else { Exit::Wrong }
}
