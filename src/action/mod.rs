//! The typed action catalogue, the guard, leases, and who may act.
//!
//! ```text
//!  action file ─► load ─► Action ── params (grammars) ─► commands (templates) ─► command_line ─► ssh
//!                                                        results of `verify` ─► check ─► Readback
//!  before it:  authorise (who may) · Guard (never these addresses) · Budgets (not too many)
//!  after it:   Leases (verify, assert again, end)
//! ```

mod catalogue;
mod check;
mod file;
mod load;
mod load_param;
mod nft;
mod params;
mod quote;
mod template;
mod value;

pub use catalogue::{Action, ActionLimits, Assumed, Catalogue, CommandsError, Op, Param, Risk};
pub use check::{CommandResult, Readback, ReadbackState};
pub use load::{MAX_ACTIONS, MAX_COMMANDS, MAX_PARAMS};
pub use params::{ParamError, Params};
pub use quote::command_line;
pub use value::{Grammar, MAX_TEXT, ParamValue};
