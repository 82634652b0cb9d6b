//! The typed action catalogue, the guard, leases, and who may act.
//!
//! ```text
//!  action file ─► load ─► Action ── params (grammars) ─► commands (templates) ─► command_line ─► ssh
//!                                                        results of `verify` ─► check ─► Readback
//!  before it:  authorise (who may) · Guard (never these addresses) · Budgets (not too many)
//!  after it:   Leases (verify, assert again, end)
//! ```

mod authorise;
mod budget;
mod catalogue;
mod ceilings;
mod check;
mod facts;
mod file;
mod guard;
mod helper;
mod ipset;
mod json;
mod lease;
mod leases;
mod load;
mod load_check;
mod load_param;
mod nft;
mod params;
mod plan;
mod quote;
mod template;
mod value;

pub use crate::model::Posture;
pub use authorise::{Decision, Mode, Request, authorise};
pub use budget::{Budget, Budgets, MAX_PER_HOUR, OverBudget};
pub use catalogue::{Action, ActionLimits, Assumed, Catalogue, CommandsError, Op, Param, Risk};
pub use ceilings::{Ceilings, OUTWARD, unknown_action};
pub use check::{CommandResult, Readback, ReadbackState};
pub use facts::{FactsError, GuardFacts, MAX_FACTS};
pub use guard::{Guard, GuardConfig, GuardRefusal, Protected};
pub use helper::{Batch, HELPER, REFUSES};
pub use ipset::{LIST_SETS, sets};
pub use lease::{IllegalMove, Lease, LeaseId, LeaseOp, LeaseState, MAX_WAIT};
pub use leases::{LeaseWork, Leases, MAX_LEASES, MAX_WORK, VERIFY_EVERY};
pub use load::{MAX_ACTIONS, MAX_COMMANDS, MAX_PARAMS};
pub use nft::{LIST_TABLES, tables};
pub use params::{ParamError, Params};
pub use plan::{Plan, plan};
pub use quote::command_line;
pub use value::{Grammar, MAX_TEXT, ParamValue};
