//! Email by SMTP (RFC 5321), over TLS unless it stays on this machine.

mod compose;
mod config;
mod smtp;

pub(super) use config::load;
pub use config::{Email, Tls};
pub use smtp::Ready;
