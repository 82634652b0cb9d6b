//! The payload: `{"type","timestamp","data":{"alert","findings","done","of"}}`; `of` is what all deliveries of an alert have in
//! common: its id, since when, how many findings, and why it is over.

use serde_json::{Value, json};

use crate::alert::answer::SendError;
use crate::alert::notice::{Notice, Purpose};
use crate::http::bounded;
use crate::model::AlertState;

/// The largest payload; receivers commonly refuse more. A notice beyond it is sent with less of each text.
pub const MAX_BODY: usize = 256 * 1024;
/// Texts are cut to this many bytes, and once more to the second when the payload is still too large.
const MAX_TEXT: [usize; 3] = [8_192, 512, 64];
/// Members of a list or object, likewise.
const MAX_MEMBERS: [usize; 3] = [256, 32, 8];

/// The payload's bytes. What was cut is told by `data.truncated`.
///
/// The values are data: JSON escapes control characters, and nothing else is changed.
pub(super) fn body(notice: &Notice) -> Result<Vec<u8>, SendError> {
    let kind = match (notice.purpose, notice.alert.state) {
        (Purpose::Test, _) => "opmas.test",
        (Purpose::Alert, AlertState::Firing) => "finding.created",
        (Purpose::Alert, AlertState::Resolved) => "alert.resolved",
    };
    let mut data = json!({ "alert": notice.alert, "findings": notice.findings, "done": notice.done });
    if let (Some(of), Some(data)) = (&notice.of, data.as_object_mut()) {
        data.insert("of".to_owned(), json!({ "alert": of.id, "since": of.since, "count": of.count, "reason": of.reason }));
    }
    let mut payload = json!({ "type": kind, "timestamp": notice.alert.at, "data": data });
    for (text, members) in MAX_TEXT.into_iter().zip(MAX_MEMBERS) {
        if cut(&mut payload, text, members)
            && let Some(data) = payload.get_mut("data").and_then(Value::as_object_mut)
        {
            data.insert("truncated".to_owned(), Value::Bool(true));
        }
        let bytes = payload.to_string().into_bytes();
        if bytes.len() <= MAX_BODY {
            return Ok(bytes);
        }
    }
    Err(SendError::permanent(format!("the payload is larger than {MAX_BODY} bytes")))
}

/// Cuts texts, lists and objects; true when something was cut.
fn cut(value: &mut Value, text: usize, members: usize) -> bool {
    match value {
        Value::String(string) => {
            let kept = bounded(string, text).len();
            let cut = kept < string.len();
            string.truncate(kept);
            cut
        }
        Value::Array(list) => {
            let long = list.len() > members;
            list.truncate(members);
            list.iter_mut().fold(long, |before, item| cut(item, text, members) | before)
        }
        Value::Object(map) => {
            let surplus: Vec<String> = map.keys().skip(members).cloned().collect();
            for key in &surplus {
                map.remove(key);
            }
            map.values_mut().fold(!surplus.is_empty(), |before, item| cut(item, text, members) | before)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
