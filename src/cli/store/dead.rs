//! `opmas store dead`: the records that could not be used, also while an opmas runs.

use std::collections::VecDeque;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::Folder;
use crate::cli::rows;
use crate::cli::{Done, Exit, Failure};
use crate::journal::DeadReader;
use crate::model::{DeadLetter, DeadReason, Time};

/// Arguments of `opmas store dead`.
#[derive(clap::Args)]
pub(in crate::cli) struct Arguments {
    #[command(flatten)]
    folder: Folder,
    /// At most so many, the newest.
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// One JSON object a line, with all that is kept of each record.
    #[arg(long)]
    json: bool,
}

/// One line of JSON.
#[derive(Serialize)]
struct Row<'a> {
    seq: u64,
    time: Time,
    id: String,
    source: &'a str,
    stream: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    reason: DeadReason,
    detail: &'a str,
    /// Of the whole record; `raw` may be cut.
    bytes: u64,
    /// Bad UTF-8 replaced.
    raw: std::borrow::Cow<'a, str>,
    /// The bytes, where they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
}

impl<'a> From<&'a DeadLetter> for Row<'a> {
    fn from(letter: &'a DeadLetter) -> Row<'a> {
        let raw = String::from_utf8_lossy(&letter.raw);
        let raw_base64 = std::str::from_utf8(&letter.raw).is_err().then(|| STANDARD.encode(&letter.raw));
        let DeadLetter { seq, time, source, stream, subject, reason, detail, bytes, .. } = letter;
        let (seq, time, reason, bytes, id) = (*seq, *time, *reason, *bytes, letter.id.to_string());
        Row { seq, time, id, source, stream, subject: subject.as_deref(), reason, detail, bytes, raw, raw_base64 }
    }
}

/// The oldest first, as they came. Damage is named on standard error and is exit code 1.
pub(super) fn run(config: Option<&Path>, arguments: &Arguments) -> Done {
    let data = arguments.folder.open(config)?;
    let (mut letters, mut more, mut exit) = (VecDeque::new(), false, Exit::Done);
    for letter in DeadReader::open(&data.dead()).map_err(|error| Failure::new(Exit::Wrong, error))? {
        match letter {
            Ok(letter) => letters.push_back(letter),
            Err(error) => {
                exit = Exit::Wrong;
                eprintln!("opmas: {error}");
            }
        }
        if letters.len() > arguments.limit {
            letters.pop_front();
            more = true;
        }
    }
    let rows: Vec<Row<'_>> = letters.iter().map(Row::from).collect();
    rows::list(&rows, more, arguments.json, ["TIME", "SEQ", "SOURCE", "SUBJECT", "REASON", "WHY", "RECORD"], |row| {
        let subject = row.subject.unwrap_or("-").to_owned();
        [row.time.to_string(), row.seq.to_string(), row.source.to_owned(), subject, row.reason.to_string(), row.detail.to_owned(), row.raw.to_string()]
    })?;
    Ok(exit)
}
