//! The journal: the spool (input, in the system's order) and the ledger (everything decided), and beside them
//! checkpoints and kept revisions. All of it lives in one [`DataDir`], which one process holds at a time.
//!
//! ```text
//! opmas-data/            0700
//!   format  node  lock   which version wrote this; who we are; held by flock while an opmas runs
//!   flight  poison       which entries are being computed, and which never are again: opmas has died on them
//!   spool/   <first seq, 20 digits>.spool     entries      ┐ one segmented log below all: segment.rs is the format,
//!   ledger/  <first seq, 20 digits>.ledger    decisions    │ log.rs writes and recovers, reader.rs reads, commit.rs groups
//!   dead/    <first seq, 20 digits>.dead      what could not be used, with the reason                                 ┘
//!   spool/archive/  <first seq>.zst           the spool's older segments, compressed
//!   state/   <seq>-<hash>.checkpoint          two kept
//!   revisions/<sha256>                        what a revision entry names
//!   keys/ledger.key                           signs ledger/head.json, the head as it was published last
//! ```
//!
//! An append is answered once one `fdatasync` covers it; what waits meanwhile shares the next one. Nothing that was
//! not answered is promised, nothing that was answered is lost: a torn tail is cut at open and reported, damage in
//! front of whole frames is never cut, only reported with file and offset.

mod archive;
mod backup;
mod chain;
mod checkpoint;
mod commit;
mod datadir;
mod dead;
mod durable;
mod error;
mod head;
mod ledger;
mod log;
mod poison;
mod positions;
mod reader;
mod replayed;
mod retain;
mod revision;
mod segment;
mod spool;
mod verify;
mod window;

pub use backup::{BackupError, backup, restore, verify_all};
pub use chain::{Content, LedgerEntry, LedgerHash};
pub use checkpoint::{CheckpointRef, Checkpoints, LoadedCheckpoint};
pub use commit::Health;
pub use datadir::DataDir;
pub use dead::{DeadConfig, DeadLetters, DeadMark, DeadReader};
pub use error::{AppendError, OpenError, ReadError};
pub use head::{HeadError, LedgerKey, SignedHead};
pub use ledger::{Ledger, LedgerConfig, LedgerPlace, LedgerReader, LedgerRecovery};
pub use log::{Recovery, Torn};
pub use poison::Poison;
pub use replayed::Replayed;
pub use retain::Old;
pub use revision::Revisions;
pub use segment::MAX_PAYLOAD;
pub use spool::{Appended, Spool, SpoolConfig, SpoolHandle, SpoolReader, record_id};
pub use verify::{Report, verify_checkpoints, verify_dead, verify_evidence, verify_ledger, verify_revisions, verify_spool};
