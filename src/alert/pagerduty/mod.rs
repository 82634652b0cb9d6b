//! PagerDuty, by its Events API v2: an alert triggers, its end resolves, under one `dedup_key`, by which a repeated event
//! is known again.

mod config;
mod event;

pub use config::PagerDuty;
pub(super) use config::load;
