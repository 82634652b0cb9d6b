//! Views of what was decided, for commands and the API: findings, runs with their steps, leases, deliveries.
//!
//! The ledger is the truth; this is a copy of it in another order, in sled. Whoever reads the ledger applies its entries here in
//! their order; each batch and the ledger position that it leads to are one atomic write, so that a view never knows more or less
//! than it says. An index that does not open or does not verify is set aside and made anew from the ledger.
//!
//! One tree; integers are big-endian, rows are JSON (`rows.rs`), fields are only ever added. Stable for [`VERSION`]:
//!
//! ```text
//! m                          the position, and count and checksum of every view: `draft.rs`
//! f <seq, 8>                 finding, by the ledger entry that it came with       F <finding id>  its seq
//! r <seq, 8>                 run                                                  R <run id>      its seq
//! s <run's seq, 8> <key>     step of a run
//! d <seq, 8>                 delivery                                             D <delivery id> its seq
//! a <seq, 8>                 alert that is not over                               A <alert id>    its seq
//! l <device> 0 <action> 0 <effect>   lease that has not ended; the effect is its parameters without times
//! ```

mod apply;
mod draft;
mod open;
mod query;
mod rows;

pub use open::{OpenError, Opened};
pub use query::{Answer, Filter, MAX_ROWS, Query, Rows};
pub use rows::{AlertRow, AnswerRow, DeliveryRow, FindingStory, LeaseRow, RunRow, RunStory, Standing, StepRow, Unverified};

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use crate::model::Decided;
use draft::{Draft, Meta};

/// The layout of keys and rows; another one is rebuilt.
pub const VERSION: u32 = 1;
/// Findings that are kept, the newest; the ledger has the others.
pub const KEEP_FINDINGS: u64 = 10_000;
/// Runs that are kept, with their steps.
pub const KEEP_RUNS: u64 = 10_000;
/// Deliveries that are kept.
pub const KEEP_DELIVERIES: u64 = 10_000;

/// What goes wrong with an open index; it is to be replaced then.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The store beneath.
    #[error("the index cannot be used: {0}")]
    Store(#[from] sled::Error),
    /// A row that is not what was written.
    #[error("the index does not hold what was written to it: {0}")]
    Row(#[from] serde_json::Error),
    /// The store beneath has panicked.
    #[error("the index cannot be used: {0}")]
    Panic(String),
}

/// The open index; one process holds it at a time. Blocking.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    db: sled::Db,
    meta: Meta,
}

impl Index {
    /// The newest ledger entry that it knows, 0 when none, and the chain hash up to it.
    #[must_use]
    pub fn position(&self) -> (u64, [u8; 32]) {
        (self.meta.position, self.meta.hash)
    }

    /// Takes in ledger entries in their order, `None` for an erased one; `hash` is the chain hash up to the last. Entries that it knows
    /// already change nothing. All of it or nothing is kept.
    ///
    /// # Errors
    /// The store fails; nothing was taken in, and the index is to be replaced.
    pub fn apply(&mut self, entries: &[(u64, Option<&Decided>)], hash: [u8; 32]) -> Result<(), IndexError> {
        let Some((last, _)) = entries.last().filter(|(last, _)| *last > self.meta.position) else { return Ok(()) };
        self.meta = guarded(|| {
            let mut draft = Draft::new(&self.db, self.meta.clone());
            for (seq, decided) in entries.iter().filter(|(seq, _)| *seq > self.meta.position) {
                if let Some(decided) = decided {
                    apply::apply(&mut draft, *seq, decided)?;
                }
            }
            draft.commit(*last, hash)
        })?;
        Ok(())
    }

    /// Answers a query.
    ///
    /// # Errors
    /// The store fails, and the index is to be replaced.
    pub fn query(&self, query: &Query) -> Result<Answer, IndexError> {
        guarded(|| query::answer(&self.db, query))
    }

    /// Writes what is still in memory; without it a crash means that some entries are applied again.
    ///
    /// # Errors
    /// The disk says no.
    pub fn flush(&self) -> Result<(), IndexError> {
        guarded(|| Ok(self.db.flush().map(drop)?))
    }
}

/// Whatever the store does on files that are not as it left them, the caller lives on.
fn guarded<T>(work: impl FnOnce() -> Result<T, IndexError>) -> Result<T, IndexError> {
    let said = |panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        IndexError::Panic(text.unwrap_or_else(|| "it has panicked".to_owned()))
    };
    catch_unwind(AssertUnwindSafe(work)).map_err(said)?
}
