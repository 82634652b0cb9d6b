//! Which channels hear of a finding: the tree of `notifiers/routes.toml`.
//!
//! A finding goes down the tree as in Alertmanager: it enters the first route that it matches (and, where that route
//! says `continue = true`, the next ones too); inside, the same among the nested routes; a route none of whose nested
//! routes matches is where the finding ends up. Every decision comes with its reason, and with the route's terms: when what
//! it told is over, and how often it is told again.

mod file;
mod matcher;
mod route;

pub use file::MAX_DEPTH;
pub use matcher::{Matcher, SeverityTest};
pub use route::{RESOLVE_AFTER, Routed, Routes, Routing, Terms};
