//! `opmas store` and `opmas audit`: both read a data folder without touching it, also while an opmas runs on it.

use std::path::{Path, PathBuf};

use super::{Done, Exit, Failure};
use crate::config::Setup;
use crate::journal::{DataDir, LedgerHash, Report, verify_checkpoints, verify_ledger, verify_revisions, verify_spool};

/// What to do with the data folder.
#[derive(clap::Subcommand)]
pub(super) enum StoreCommand {
    /// Read every file of the data folder and say what does not verify.
    Verify(Folder),
}

/// What to prove.
#[derive(clap::Subcommand)]
pub(super) enum AuditCommand {
    /// Recompute the ledger's chain.
    Verify(AuditVerify),
}

/// Arguments of `opmas audit verify`.
#[derive(clap::Args)]
pub(super) struct AuditVerify {
    #[command(flatten)]
    folder: Folder,
    /// A head that was noted earlier: proves that nothing up to it was rewritten since.
    #[arg(long, value_name = "HASH")]
    head: Option<LedgerHash>,
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
        DataDir::open_read_only(&path).map_err(|error| Failure::new(Exit::Invalid, error))
    }
}

pub(super) fn run(config: Option<&Path>, command: &StoreCommand) -> Done {
    let StoreCommand::Verify(folder) = command;
    let data = folder.open(config)?;
    let ledger = verify_ledger(&data, None);
    let checkpoints = verify_checkpoints(&data, &ledger.checkpoints);
    Ok(tell(&[
        ("spool", "segments", "entries", verify_spool(&data)),
        ("ledger", "segments", "records", ledger),
        ("checkpoints", "files", "verified", checkpoints),
        ("revisions", "files", "verified", verify_revisions(&data)),
    ]))
}

pub(super) fn audit(config: Option<&Path>, command: &AuditCommand) -> Done {
    let AuditCommand::Verify(arguments) = command;
    let data = arguments.folder.open(config)?;
    let ledger = verify_ledger(&data, arguments.head);
    let found = arguments.head.zip(ledger.found_head);
    let exit = tell(&[("ledger", "segments", "records", ledger)]);
    if let (Some((head, seq)), Exit::Done) = (found, exit) {
        println!("{head} is the head of record {seq}: nothing up to it was rewritten");
    }
    Ok(exit)
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
