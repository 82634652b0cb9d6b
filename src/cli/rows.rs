//! Rows of the index, for people and for programs.

use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Done, Exit, Failure};
use crate::alert::visible;
use crate::api::control;
use crate::config::Setup;
use crate::engine::open_index;
use crate::index::{Answer, Query, Rows};
use crate::journal::{DataDir, OpenError};

/// How long another command may hold the index.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the index itself is waited for, before it is asked again whether an opmas runs now.
const TURN: Duration = Duration::from_millis(500);
/// The pause between two turns.
const PAUSE: Duration = Duration::from_millis(100);
/// So long nothing is said of what is waited for.
const QUIET: Duration = Duration::from_secs(1);
/// Longest text in a column of a table.
const MAX_CELL: usize = 100;

/// Asks the opmas that runs on the configuration's data folder; when none does, the index in it.
pub(super) fn ask(config: Option<&Path>, query: &Query) -> Result<Answer, Failure> {
    let invalid = |error: &dyn std::fmt::Display| Failure::new(Exit::Invalid, error);
    let path = Setup::settings(config).map_err(|error| invalid(&error))?.1.data_dir;
    let data = DataDir::open_read_only(&path)
        .map_err(|error| unopened(&error, "name the configuration whose `data_dir` it is: --config FILE; `opmas run` makes it"))?;
    let begun = Instant::now();
    let mut told = Told { next: begun + QUIET };
    loop {
        if let Some(answer) = ask_running(&path, query)? {
            return Ok(answer);
        }
        let holder = if data.is_held() { "an opmas that starts or ends" } else { "another command" };
        if begun.elapsed() >= PATIENCE {
            return Err(Failure::new(Exit::Unreachable, format!("{holder} holds {} and does not answer yet; try again in a while", path.display())));
        }
        told.say(|| format!("{holder} holds {}; waiting for it", path.display()));
        match open_index(&data, TURN, &mut |seq| told.say(|| format!("the index is brought up to date from the ledger, and is at entry {seq}"))) {
            Ok(Some(index)) => {
                let answer = index.query(query).map_err(|error| invalid(&error))?;
                // What is not written is applied again the next time.
                let _ = index.flush();
                return Ok(answer);
            }
            Ok(None) => std::thread::sleep(PAUSE),
            Err(error) => return Err(invalid(&error)),
        }
    }
}

/// Why a data folder does not open; `help` is for one that is not there.
pub(super) fn unopened(error: &OpenError, help: &str) -> Failure {
    let help = if matches!(error, OpenError::Absent(_)) { format!("; {help}") } else { String::new() };
    Failure::new(Exit::Invalid, format!("{error}{help}"))
}

/// Says on standard error what is waited for, when it takes a while.
struct Told {
    next: Instant,
}

impl Told {
    fn say(&mut self, what: impl FnOnce() -> String) {
        if Instant::now() >= self.next {
            self.next = Instant::now() + QUIET * 5;
            eprintln!("opmas: {}", what());
        }
    }
}

/// `None` when no opmas runs.
fn ask_running(data_dir: &Path, query: &Query) -> Result<Option<Answer>, Failure> {
    let unreachable = |why: String| Failure::new(Exit::Unreachable, format!("the running opmas does not answer: {why}"));
    let (done, waiting) = std::sync::mpsc::channel::<()>();
    let notice = std::thread::spawn(move || {
        if waiting.recv_timeout(QUIET * 2) == Err(RecvTimeoutError::Timeout) {
            eprintln!("opmas: waiting for the running opmas, whose index is being brought up to date; its /readyz says how it is");
        }
    });
    let asked = control::ask(data_dir, &control::Request::Query { query: query.clone() });
    drop(done);
    // It only says something.
    let _ = notice.join();
    match asked {
        Ok(None) => Ok(None),
        Ok(Some(control::Answer::Rows { found })) => Ok(Some(*found)),
        Ok(Some(control::Answer::Failed { why })) => Err(unreachable(why)),
        Ok(Some(other)) => Err(unreachable(format!("{other:?}"))),
        Err(error) => Err(unreachable(error.to_string())),
    }
}

/// For `show`: none or several have the id.
pub(super) fn not_one(rows: &Rows) -> Failure {
    match rows {
        Rows::NotOne(why) => Failure::new(Exit::Usage, why),
        _ => Failure::new(Exit::Unreachable, "the running opmas answers something else; it is of another version"),
    }
}

/// Writes it to standard output.
pub(super) fn show(text: &str) -> Done {
    super::print(&mut std::io::stdout().lock(), text.as_bytes()).map(|()| Exit::Done)
}

/// One JSON object a line.
pub(super) fn json<T: Serialize>(rows: &[T]) -> Done {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row).map_err(|error| Failure::new(Exit::Invalid, error))?);
        text.push('\n');
    }
    show(&text)
}

/// A table whose columns are as wide as they need to be; the last one is not padded. What came from a log is made visible.
pub(super) fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(header.map(str::to_owned)).chain(rows.map(|row| row.map(|cell| visible(&cell, MAX_CELL)))).collect();
    let mut widths = [0; N];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Prints rows as asked for; that there are more is said on standard error.
pub(super) fn list<T: Serialize, const N: usize>(rows: &[T], more: bool, as_json: bool, header: [&str; N], cells: impl Fn(&T) -> [String; N]) -> Done {
    if as_json {
        json(rows)?;
    } else {
        show(&table(header, rows.iter().map(cells)))?;
    }
    if more {
        eprintln!("opmas: there are more; ask with a larger --limit or for less");
    }
    Ok(Exit::Done)
}

/// The first of an id, long enough to be told apart and to be given to `show`.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// A state's word, as it is in JSON.
pub(super) fn word(state: impl Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
