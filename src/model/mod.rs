//! The nouns of the system (docs: the words). No I/O, no logic beyond parsing and printing.

mod alert;
mod built_in;
mod dead;
mod decided;
mod device;
mod event;
mod finding;
mod id;
mod record;
mod severity;
mod step;
mod time;

pub use alert::{AlertChange, AlertState, OfAlert, OpenAlert};
pub use built_in::{BUILT_IN, BuiltIn, DELIVERIES_DROPPED, ENTRIES_DROPPED, GROUPS_EVICTED, POSTURE_CHANGED};
pub use dead::{DeadLetter, DeadReason};
pub use decided::{ByHand, Covered, Decided, DeliveryState, LeaseChange, Posture, RunState, SetPosture};
pub use device::{Device, Inventory, Platform};
pub use event::{Event, LogSource};
pub use finding::{Entity, EntityKind, Evidence, Finding, FindingKind, RuleRef, Window};
pub use id::{FindingId, NodeId, RUN_DIGITS, RecordId, hex};
pub use record::{Entry, EntryBody, Payload, Record, Revision, RevisionKind, Tick, Trust};
pub use severity::Severity;
pub use step::{Command, Outcome, OutcomeState, Recorded, Step, Verdict};
pub(crate) use time::parse_iso;
pub use time::{ParseSpanError, Span, Time};
