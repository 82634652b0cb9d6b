//! Alerts: from a finding and the channels it is routed to, to a message that the other side accepted.
//!
//! ```text
//! Routing ─► intend ─► Decided::Alert, Decided::Delivery ─► Outbox ─► Due ─► prepare ─► Decided::DeliveryAttempt ─► send ─► outcome ─► Decided::DeliveryOutcome
//! ```
//!
//! `Outbox` is a pure state machine over what the ledger holds. For each [`Due`] the engine calls [`Channel::prepare`]
//! (which connects, so that the attempt is recorded as late as possible), appends [`Outbox::attempt`], waits for the
//! fsync, calls [`Prepared::send`], and appends [`Outbox::outcome`]. After a start it replays the ledger into the outbox and
//! appends what [`Outbox::settle`] says: an attempt without an outcome is repeated where the channel has an idempotency
//! key (webhook, PagerDuty), and is unknown where it has none (email, Slack): semantics O7.
//!
//! `Alerts` is another: findings that belong together are one alert, which is told again as its channel tells it, and resolved
//! when no further one came for the route's `resolve_after`.
//!
//! One folder per integration; each owns its configuration.

mod answer;
mod channel;
mod document;
/// By SMTP.
pub mod email;
mod follow;
mod http;
mod intend;
mod keys;
mod load;
mod notice;
mod outbox;
/// PagerDuty's Events API v2.
pub mod pagerduty;
mod render;
mod retry_after;
/// Slack's Web API.
pub mod slack;
/// By HTTP, signed as Standard Webhooks says.
pub mod webhook;

pub use crate::http::{bounded, visible};
pub use crate::model::AlertState;
pub use answer::{Answer, Failure, MAX_RETRY_AFTER, SendError};
pub use channel::{Channel, Integration, Prepared, Repeat};
pub use follow::{Alerts, MAX_ALERTS, MAX_NAMED, Manner, PACE, Taken, group};
pub use http::Post;
pub use intend::{Intended, intend};
pub use load::{Channels, Loaded};
pub use notice::{Alert, Notice, Purpose, delivery_id};
pub use outbox::{Due, IN_ORDER_TRIES, Illegal, MAX_AGE, MAX_TRIES, MAX_WAITING, Outbox, Standing, backoff};
pub use render::{render_html, render_text, subject};
pub use retry_after::retry_after;
