//! Events and fields as checkpoints hold them: JSON values in a form that needs no look-ahead to read. Stable within a snapshot version.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::model::{Event, LogSource, RecordId, Time, Trust};

/// A JSON value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum WireValue {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<WireValue>),
    Map(Vec<(String, WireValue)>),
}

impl From<&Value> for WireValue {
    fn from(value: &Value) -> WireValue {
        match value {
            Value::Null => WireValue::Null,
            Value::Bool(b) => WireValue::Bool(*b),
            Value::Number(n) => match (n.as_u64(), n.as_i64()) {
                (Some(n), _) => WireValue::Unsigned(n),
                (None, Some(n)) => WireValue::Signed(n),
                _ => WireValue::Float(n.as_f64().unwrap_or_default()),
            },
            Value::String(text) => WireValue::Text(text.clone()),
            Value::Array(list) => WireValue::List(list.iter().map(WireValue::from).collect()),
            Value::Object(map) => WireValue::Map(map.iter().map(|(key, value)| (key.clone(), value.into())).collect()),
        }
    }
}

impl From<WireValue> for Value {
    fn from(value: WireValue) -> Value {
        match value {
            WireValue::Null => Value::Null,
            WireValue::Bool(b) => Value::Bool(b),
            WireValue::Unsigned(n) => Value::from(n),
            WireValue::Signed(n) => Value::from(n),
            WireValue::Float(n) => Number::from_f64(n).map_or(Value::Null, Value::Number),
            WireValue::Text(text) => Value::String(text),
            WireValue::List(list) => Value::Array(list.into_iter().map(Value::from).collect()),
            WireValue::Map(map) => Value::Object(map.into_iter().map(|(key, value)| (key, value.into())).collect()),
        }
    }
}

/// An event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireEvent {
    seq: u64,
    id: RecordId,
    time: Time,
    time_from_arrival: bool,
    source: Arc<str>,
    stream: Arc<str>,
    trust: Trust,
    logsource: LogSource,
    fields: Vec<(String, WireValue)>,
    raw: Arc<str>,
}

impl From<&Event> for WireEvent {
    fn from(event: &Event) -> WireEvent {
        let Event { seq, id, time, time_from_arrival, source, stream, trust, logsource, fields, raw } = event.clone();
        let fields = fields.iter().map(|(key, value)| (key.clone(), value.into())).collect();
        WireEvent { seq, id, time, time_from_arrival, source, stream, trust, logsource, fields, raw }
    }
}

impl From<WireEvent> for Event {
    fn from(wire: WireEvent) -> Event {
        let WireEvent { seq, id, time, time_from_arrival, source, stream, trust, logsource, fields, raw } = wire;
        let fields: Map<String, Value> = fields.into_iter().map(|(key, value)| (key, value.into())).collect();
        Event { seq, id, time, time_from_arrival, source, stream, trust, logsource, fields, raw }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z.]{0,4}", inner, 0..4).prop_map(|m| json!(m))
            ]
        })
    }

    proptest! {
        #[test]
        fn values_come_back_as_they_were(value in value()) {
            let bytes = postcard::to_stdvec(&WireValue::from(&value)).unwrap();
            let back: WireValue = postcard::from_bytes(&bytes).unwrap();
            prop_assert_eq!(Value::from(back), value);
        }
    }
}
