//! The normalised record.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{RecordId, Time, Trust};

/// Sigma's three log source attributes; `None` is unknown and never conflicts (semantics X3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogSource {
    /// `product`
    pub product: Option<Arc<str>>,
    /// `category`
    pub category: Option<Arc<str>>,
    /// `service`
    pub service: Option<Arc<str>>,
}

impl LogSource {
    /// Whether the other has every attribute that this one has, and is as it.
    #[must_use]
    pub fn covers(&self, other: &LogSource) -> bool {
        let same = |wanted: &Option<Arc<str>>, own: &Option<Arc<str>>| {
            wanted.as_ref().is_none_or(|wanted| own.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(wanted)))
        };
        same(&self.product, &other.product) && same(&self.category, &other.category) && same(&self.service, &other.service)
    }
}

/// A normalised record. Immutable once made; shared between windows by `Arc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its record's place in the spool (in `eval`: the 0-based line).
    pub seq: u64,
    /// Its record's identity; finding ids are made from it.
    pub id: RecordId,
    /// Event time.
    pub time: Time,
    /// Whether `time` was taken from arrival because the stamp was not believed or absent (T3).
    pub time_from_arrival: bool,
    /// The configured source, `[source.NAME]`.
    pub source: Arc<str>,
    /// What T3 calls a source.
    pub stream: Arc<str>,
    /// Its source's trust.
    pub trust: Trust,
    /// What is known of the log source.
    pub logsource: LogSource,
    /// The published field table: `timestamp host program pid message src_ip user …`, or the JSON object as it came.
    pub fields: Map<String, Value>,
    /// The bytes as they came, for evidence; bad UTF-8 replaced.
    pub raw: Arc<str>,
}

impl Event {
    /// The text of a top-level string field.
    #[must_use]
    pub fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field).and_then(Value::as_str)
    }
}
