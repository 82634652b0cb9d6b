//! One message to one record.

use std::ffi::c_void;
use std::sync::Arc;

use rdkafka::bindings as native;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::types::RDKafkaRespErr;

use crate::model::{NodeId, Payload, Record, RecordId, Trust};
use crate::normalise::CUT_MARK;
use crate::source::framing::strip_trailer;
use crate::source::lines::MAX_LINE;

/// [`crate::broker::ORIGIN`] as C has it.
const ORIGIN: &std::ffi::CStr = c"Opmas-Origin";

/// A partition's part of its records.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    /// `[source.NAME]`
    pub(super) source: Arc<str>,
    /// `SOURCE/kafka/TOPIC/PARTITION`
    pub(super) stream: Arc<str>,
    /// Its record ids' log.
    pub(super) log: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) payload: Payload,
    pub(super) trust: Trust,
}

/// Why a message is no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// This opmas wrote it.
    Own,
    /// It has no payload, or an empty one.
    Empty,
}

/// Makes the record, without its arrival, and says whether it was longer than the bound and is cut.
pub(super) fn take(message: &BorrowedMessage<'_>, labels: &Labels, node: &NodeId) -> Result<(Record, bool), LeftOut> {
    if origin(message) == Some(node.0.as_bytes()) {
        return Err(LeftOut::Own);
    }
    let payload = message.payload().unwrap_or_default();
    let cut = payload.len() > MAX_LINE;
    let mut raw = payload.get(..MAX_LINE).unwrap_or(payload).to_vec();
    strip_trailer(&mut raw);
    if raw.is_empty() {
        return Err(LeftOut::Empty);
    }
    if cut {
        raw.extend_from_slice(CUT_MARK.as_bytes());
    }
    // Kafka counts from 0.
    let offset = u64::try_from(message.offset()).unwrap_or(0);
    let record = Record {
        id: Some(RecordId::Broker { log: Arc::clone(&labels.log), offset }),
        source: Arc::clone(&labels.source),
        stream: Arc::clone(&labels.stream),
        arrival: None,
        peer: None,
        trust: labels.trust,
        raw,
        payload: labels.payload,
        subject: Some(Arc::clone(&labels.topic)),
    };
    Ok((record, cut))
}

/// The node that published it. The crate's own way to headers panics at a name that is not UTF-8, and whoever writes a message chooses it.
fn origin<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    let mut headers = std::ptr::null_mut();
    let mut value: *const c_void = std::ptr::null();
    let mut size = 0;
    // SAFETY: headers and value belong to the message, which the result borrows; librdkafka gives `size` bytes at `value`.
    unsafe {
        let found = native::rd_kafka_message_headers(message.ptr(), &raw mut headers);
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return None;
        }
        let found = native::rd_kafka_header_get_last(headers, ORIGIN.as_ptr(), &raw mut value, &raw mut size);
        (found == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && !value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_is_the_one_that_is_published() {
        assert_eq!(super::ORIGIN.to_str(), Ok(crate::broker::ORIGIN));
    }
}
