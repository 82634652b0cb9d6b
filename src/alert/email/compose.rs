//! The mail itself (RFC 5322, MIME).

use std::time::SystemTime;

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Message, MultiPart};

use super::Email;
use crate::alert::answer::SendError;
use crate::alert::notice::{Notice, Purpose};
use crate::alert::render::{render_html, render_text, subject};
use crate::http::with_causes;
use crate::model::{Severity, Time};

/// The message as it is sent, ASCII only.
///
/// `Message-ID` is made from the delivery's id, so that a repeated mail is the same mail to whoever threads or dedupes.
pub(super) fn compose(email: &Email, notice: &Notice, delivery: &str, now: Time) -> Result<Vec<u8>, SendError> {
    let date = SystemTime::UNIX_EPOCH + now.since(Time(0)).to_std();
    let id = format!("<{delivery}@{}>", email.from.email.domain());
    let mut builder = Message::builder().from(email.from.clone()).date(date).message_id(Some(id)).subject(subject(notice));
    for to in &email.to {
        builder = builder.to(to.clone());
    }
    // RFC 3834: no out-of-office answers to a machine.
    builder = builder.raw_header(header("Auto-Submitted", "auto-generated"));
    if notice.purpose == Purpose::Alert && notice.severity() >= Severity::High {
        builder = builder.raw_header(header("Importance", "high"));
    }
    let body = MultiPart::alternative_plain_html(render_text(notice, delivery), render_html(notice, delivery));
    let message = builder.multipart(body).map_err(|error| SendError::permanent(format!("the mail cannot be written: {}", with_causes(&error))))?;
    Ok(message.formatted())
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}
