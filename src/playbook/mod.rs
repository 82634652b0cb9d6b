//! Finding and past outcomes to ready steps: Rhai, replayed over its own history.
//!
//! ```text
//!  file ─► header, load ─► Playbook ── triggered_by(finding) ─► Run (state machine over the ledger)
//!                                                                │  ▲
//!                                      Evaluate with its history ▼  │ intents, attempts, outcomes
//!                                      worker process: evaluate ─► Progress (ready steps, done, failed, diverged)
//! ```
//!
//! Everything here is pure but [`worker`], the process that scripts run in.

mod calls;
mod cases;
mod evaluate;
mod header;
mod host;
mod hours;
mod load;
mod moves;
mod own;
mod parallel;
mod play;
mod rerun;
mod run;
mod script;
mod session;
mod start;
mod value;
pub mod worker;

pub use crate::model::Recorded;
pub use cases::{CASES, Case, Played, cases};
pub use evaluate::{ActionSignature, Call, Evaluate, Evaluation, Limits, ParamSignature, Progress, evaluate, plan, signatures};
pub use header::{Concurrency, OnFailure, Trigger};
pub use host::{Function, functions};
pub use load::{Loaded, Playbook, Playbooks};
pub use moves::{IllegalMove, RUN_MOVES, STEP_MOVES, StepMove, StepState};
pub use own::{OPMAS, Own};
pub use play::{Devices, Play};
pub use rerun::before;
pub use run::{Asked, NextMove, Run, RunStep};
pub use start::{About, Begun, MAX_DEBOUNCE};
