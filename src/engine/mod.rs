//! Topology, recovery, checkpoints, reload, shutdown.
//!
//! ```text
//!  sources ═► intake ═► spool ═► detection thread ═► decider ═► ledger ─┬─► runs ═► worker, executor
//!  (tasks)   (bounded)  (thread)  (pipeline, pure)    (triage)  (thread) ├─► leases ═► executor
//!                                                                       ├─► deliveries ═► channels
//!                                                                       ├─► index (thread; may lag)
//!                                                                       └─► publish ═► brokers (follows ledger and spool on disk)
//! ```
//!
//! Torn down from left to right: each part ends when the one before it has, so that nothing accepted is left behind.

mod again;
mod ahead;
mod bounds;
mod bundle;
mod carry;
mod checkpoint;
mod dead;
mod decide;
mod deliveries;
mod detection;
mod devices;
mod draft;
mod effects;
mod flight;
mod hand;
mod handle;
mod hands;
mod health;
mod index;
mod intake;
mod leases;
mod open;
mod own;
pub mod pipeline;
mod place;
mod plan;
mod policy;
mod posture;
mod progress;
mod publish;
mod recover;
mod reload;
pub mod replay;
mod retain;
mod runs;
mod start;
mod status;
mod tally;
mod worker;

pub use again::{Again, Which};
pub use hand::{Hand, NotDone, Order, Wish};
pub use handle::Engine;
pub use index::{NoIndex, open_index};
pub use leases::{LeaseOrder, LeaseTold};
pub use pipeline::{Found, Pipeline};
pub use posture::{PostureState, Wanted};
pub use progress::{Progress, Unit};
pub use start::{StartError, start};
pub use status::{Gravity, Reason, Status};
pub use tally::{RuleState, Tally};
