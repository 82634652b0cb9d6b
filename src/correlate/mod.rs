//! Matches to findings: windows, groups, sequences, the watermark (semantics T3, T4, C1–C12).
//!
//! ```text
//! Event ─ Timekeeper (believed? how far is time?) ─ Correlator ─┬─ Compiled: one correlation, ready to run
//!                                                               ├─ Archive: the events that entries name, packed, and what was said of them
//!                                                               ├─ Groups ─ Group: armed, announced, cooldown; small ones rest in an Arena, long ones are Chunks
//!                                                               │              ├─ Entries, Totals, Tally: windows; Known: values
//!                                                               │              └─ Timer: what is decided later
//!                                                               └─ Fired ─ finding()
//! ```

mod archive;
mod arena;
mod chunks;
mod compiled;
mod correlator;
mod finding;
mod fired;
mod group;
mod groups;
mod hosts;
mod known;
mod load;
mod measure;
mod packed;
mod place;
mod queue;
mod shape;
mod slide;
mod snapshot;
mod test;
mod timekeeper;
mod timer;
mod window;
mod wire;

pub use compiled::{MAX_REFERENCES, MAX_THRESHOLD};
pub use correlator::{Correlator, Counters, Limits};
pub use finding::{DEFAULT_SEVERITY, finding};
pub use fired::Fired;
pub use hosts::{MAX_HOSTS, Whose};
pub use load::load;
pub use place::Place;
pub use snapshot::{Frozen, State, Unreadable};
pub use timekeeper::{Judgement, LATENESS, MAX_PENDING, MAX_SKEW, MAX_STREAMS, Timekeeper};
pub use window::{EVIDENCE_FIRST, EVIDENCE_LAST};
pub use wire::WireEvent;
