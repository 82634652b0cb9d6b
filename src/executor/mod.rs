//! Steps to outcomes: the sandboxed process that holds the ssh keys.
//!
//! ```text
//!  engine: Client ══ frames ══► process: serve ─► lane (one a device, serial) ─► perform ─► remote ─► master (ssh -M) ─► device
//!                                  │ setup: inventory, catalogue, guard, keys, read by itself; then confined                │
//!                                  └─────────────────────────── Reply: outcome, commands sent, report ◄───────────────────────┘
//! ```
//!
//! Nothing of this outlives the engine: it kills the process by closing the connection or by dying, and the process its ssh.

mod client;
pub mod enroll;
pub mod inventory;
mod lane;
mod master;
mod own;
mod paths;
mod perform;
mod protocol;
mod remote;
mod report;
mod sandbox;
mod serve;
mod setup;

pub use client::{Client, Launch, Status};
pub use paths::Paths;
pub use protocol::{Ran, Reach, Reply, Report, Request, Task};
pub use serve::main;
