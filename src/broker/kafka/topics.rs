//! Which topics there are, with their ids. The `rdkafka` crate has no call for it; these are librdkafka's own.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::types::RDKafkaRespErr as Code;

use super::native::{Owned, text};

/// What the cluster says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// It is there. Its id tells it from one of the same name that was deleted; brokers before 2.8 give none.
    There(Option<Arc<str>>),
    /// There is none of this name.
    Absent,
    /// Our user may not see it.
    Forbidden,
    /// It is being made or moved.
    Unsettled,
}

/// Asks for topics by name; waits at most `within`. Every name gets an answer.
///
/// # Errors
/// The cluster does not answer, as librdkafka says it.
pub fn describe<C: ClientContext>(client: &Client<C>, names: &[&str], within: Duration) -> Result<BTreeMap<String, Topic>, String> {
    let mut described: BTreeMap<String, Topic> = names.iter().map(|name| ((*name).to_owned(), Topic::Absent)).collect();
    // A name with a zero byte is none of Kafka's.
    let asked: Vec<CString> = names.iter().filter_map(|name| CString::new(*name).ok()).collect();
    if asked.is_empty() {
        return Ok(described);
    }
    let answer = ask(client, &asked, i32::try_from(within.as_millis()).unwrap_or(i32::MAX)).ok_or("no answer")?;
    // SAFETY: the event is alive until `answer` is dropped, and everything read here belongs to it.
    unsafe {
        let error = native::rd_kafka_event_error(answer.get());
        if error != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(error));
        }
        let result = native::rd_kafka_event_DescribeTopics_result(answer.get());
        if result.is_null() {
            return Err("an answer to something else".to_owned());
        }
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for index in 0..count {
            let topic = *topics.add(index);
            let name = CStr::from_ptr(native::rd_kafka_TopicDescription_name(topic)).to_string_lossy().into_owned();
            described.insert(name, read(topic));
        }
    }
    Ok(described)
}

/// Sends the request, and waits for the event that answers it.
fn ask<C: ClientContext>(client: &Client<C>, names: &[CString], within_ms: i32) -> Option<Owned<native::rd_kafka_event_t>> {
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let mut why: [c_char; 128] = [0; 128];
    // SAFETY: the client outlives the call; names and options are copied by librdkafka; what is made here is given back by `Owned`.
    unsafe {
        let rk = client.native_ptr();
        let queue = Owned::new(native::rd_kafka_queue_new(rk), native::rd_kafka_queue_destroy)?;
        let topics =
            Owned::new(native::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()), native::rd_kafka_TopicCollection_destroy)?;
        let options = native::rd_kafka_AdminOptions_new(rk, native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        let options = Owned::new(options, native::rd_kafka_AdminOptions_destroy)?;
        native::rd_kafka_AdminOptions_set_request_timeout(options.get(), within_ms, why.as_mut_ptr(), why.len());
        native::rd_kafka_DescribeTopics(rk, topics.get(), options.get(), queue.get());
        // A little longer, so that librdkafka's own word on the time comes first.
        Owned::new(native::rd_kafka_queue_poll(queue.get(), within_ms.saturating_add(500)), native::rd_kafka_event_destroy)
    }
}

/// # Safety
/// `topic` is one of an event that is alive.
unsafe fn read(topic: *const native::rd_kafka_TopicDescription_t) -> Topic {
    // SAFETY: as the caller says; the id's text lives as long as the id.
    unsafe {
        match native::rd_kafka_error_code(native::rd_kafka_TopicDescription_error(topic)) {
            Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION => return Topic::Absent,
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => return Topic::Forbidden,
            _ => return Topic::Unsettled,
        }
        let id = native::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() || (native::rd_kafka_Uuid_most_significant_bits(id) == 0 && native::rd_kafka_Uuid_least_significant_bits(id) == 0) {
            return Topic::There(None);
        }
        let text = native::rd_kafka_Uuid_base64str(id);
        Topic::There(
            // Kafka prints the alphabet for addresses.
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().replace('+', "-").replace('/', "_").into()),
        )
    }
}
