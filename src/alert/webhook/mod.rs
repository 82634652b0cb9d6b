//! A signed HTTP POST, as Standard Webhooks 1.0 describes it.

mod body;
mod config;
mod sign;

pub use body::MAX_BODY;
pub use config::Webhook;
pub(super) use config::load;
pub use sign::{KeyError, SigningKey, signature};
