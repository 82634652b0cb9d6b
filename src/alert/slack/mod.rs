//! Slack, by its Web API with a bot token: `chat.postMessage`, and `chat.update` for what is known of an alert later.
//!
//! Requests and blocks are the types of `slack-morphism`. Its HTTP client is not used: it has no time limit, reads answers
//! of any length, and panics on an unreadable content type.

mod blocks;
mod call;
mod config;
mod escape;

pub use call::Ready;
pub use config::Slack;
pub(super) use config::load;
