//! `opmas store backup`, `restore` and `export`.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Folder, line};
use crate::cli::recording::parse_time;
use crate::cli::{Done, Exit, Failure, rows};
use crate::config::Setup;
use crate::journal::{BackupError, Content, DataDir, LedgerReader, OpenError, backup, restore};
use crate::model::{Decided, Time};

/// Arguments of `opmas store backup`.
#[derive(clap::Args)]
pub(in crate::cli) struct Backup {
    /// Where to; not there yet, or empty.
    #[arg(value_name = "DIR")]
    to: PathBuf,
    /// With the ssh key, the pinned host keys and the key that signs the ledger's head: keep the copy as you keep keys.
    #[arg(long)]
    keys: bool,
    #[command(flatten)]
    folder: Folder,
}

/// Arguments of `opmas store restore`.
#[derive(clap::Args)]
pub(in crate::cli) struct Restore {
    /// What `opmas store backup` made.
    #[arg(value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    folder: Folder,
}

/// Arguments of `opmas store export`.
#[derive(clap::Args)]
pub(in crate::cli) struct Export {
    /// What of it.
    #[arg(value_enum, default_value = "findings")]
    what: What,
    /// Recorded at this time or later, a date or RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<Time>,
    /// Recorded before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<Time>,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The findings, as `opmas schema finding` has them.
    Findings,
    /// Every record of the ledger.
    Ledger,
}

fn failed(error: BackupError) -> Failure {
    let exit = if matches!(error, BackupError::NotEmpty(_)) { Exit::Usage } else { Exit::Wrong };
    Failure::new(exit, error)
}

pub(super) fn run_backup(config: Option<&Path>, arguments: &Backup) -> Done {
    let data = arguments.folder.open(config)?;
    backup(&data, &arguments.to, arguments.keys).map_err(failed)?;
    let keys = if arguments.keys { "with its keys" } else { "without its keys: an opmas that is restored from it enrolls its devices anew" };
    rows::show(&format!("{} is a verified copy of {}, {keys}. The configuration is not in it.\n", arguments.to.display(), data.path().display()))
}

pub(super) fn run_restore(config: Option<&Path>, arguments: &Restore) -> Done {
    let from = DataDir::open_read_only(&arguments.from).map_err(|error| match error {
        OpenError::Absent(from) => Failure::new(Exit::Invalid, format!("there is no copy {}; name the folder that `opmas store backup` made", from.display())),
        other => Failure::new(Exit::Invalid, other),
    })?;
    let to = match &arguments.folder.data_dir {
        Some(to) => to.clone(),
        None => Setup::settings(config).map_err(|error| Failure::new(Exit::Invalid, error))?.1.data_dir,
    };
    restore(&from, &to).map_err(failed)?;
    rows::show(&format!("{} is restored. Never run it beside the one that it is a copy of.\n", to.display()))
}

/// One JSON object a line, and on standard error where they begin and end. Damage is named there, and is exit code 1.
pub(super) fn run_export(config: Option<&Path>, arguments: &Export) -> Done {
    let data = arguments.folder.open(config)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    // What retention has carried over stands there twice.
    let (mut exit, mut seen, mut bounds, mut count) = (Exit::Done, HashSet::new(), None::<(u64, u64)>, 0_u64);
    for entry in LedgerReader::open(&data.ledger(), 0).map_err(|error| Failure::new(Exit::Wrong, error))? {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                exit = Exit::Wrong;
                eprintln!("opmas: {error}");
                continue;
            }
        };
        bounds = Some((bounds.map_or(entry.seq, |(first, _)| first), entry.seq));
        if arguments.from.is_some_and(|from| entry.time < from) || arguments.to.is_some_and(|to| entry.time >= to) {
            continue;
        }
        let row = match (&entry.content, arguments.what) {
            (_, What::Ledger) => line(&entry),
            (Content::Decided(decided), What::Findings) => match &**decided {
                Decided::Finding { finding } if seen.insert(finding.id.clone()) => json!(finding),
                _ => continue,
            },
            (Content::Erased { .. }, What::Findings) => continue,
        };
        count += 1;
        if let Err(error) = writeln!(out, "{row}") {
            return crate::cli::unwritten(&error).map(|_| exit);
        }
    }
    if let Err(error) = out.flush() {
        return crate::cli::unwritten(&error).map(|_| exit);
    }
    match bounds {
        Some((first, last)) => eprintln!("{count} exported of the ledger's records {first} to {last}; what is older than [ledger] keep is gone"),
        None => eprintln!("the ledger is empty"),
    }
    Ok(exit)
}
