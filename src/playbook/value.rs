//! Values between scripts and JSON, bounded.

use rhai::{Array, Dynamic, FLOAT, INT, Map};
use serde_json::Value;

/// How deep lists and maps of a parameter may nest.
const MAX_DEPTH: usize = 4;

/// A script's value as JSON.
///
/// # Errors
/// What it is, when it is nothing that JSON has, or nests too deeply.
pub(super) fn to_json(value: &Dynamic) -> Result<Value, String> {
    json(value, MAX_DEPTH)
}

fn json(value: &Dynamic, depth: usize) -> Result<Value, String> {
    if value.is_unit() {
        return Ok(Value::Null);
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok(Value::from(text.as_str()));
    }
    if let Some(plain) = plain(value) {
        return Ok(plain);
    }
    let Some(depth) = depth.checked_sub(1) else { return Err(format!("lists and maps nested deeper than {MAX_DEPTH}")) };
    if let Some(list) = value.read_lock::<Array>() {
        return list.iter().map(|item| json(item, depth)).collect::<Result<_, _>>().map(Value::Array);
    }
    if let Some(map) = value.read_lock::<Map>() {
        let items = map.iter().map(|(key, item)| Ok((key.to_string(), json(item, depth)?)));
        return items.collect::<Result<_, String>>().map(Value::Object);
    }
    Err(format!("a {}", value.type_name()))
}

fn plain(value: &Dynamic) -> Option<Value> {
    let number = value.as_int().ok().map(Value::from);
    let number = number.or_else(|| value.as_float().ok().and_then(serde_json::Number::from_f64).map(Value::Number));
    number.or_else(|| value.as_bool().ok().map(Value::from)).or_else(|| value.as_char().ok().map(|c| Value::from(c.to_string())))
}

/// JSON as a script's value. A number beyond 64 bits signed is a float.
pub(super) fn from_json(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(b) => Dynamic::from_bool(*b),
        Value::Number(n) => n.as_i64().map_or_else(|| Dynamic::from_float(n.as_f64().unwrap_or(FLOAT::NAN)), |n: INT| Dynamic::from_int(n)),
        Value::String(s) => s.as_str().into(),
        Value::Array(items) => items.iter().map(from_json).collect::<Array>().into(),
        Value::Object(items) => items.iter().map(|(key, item)| (key.as_str().into(), from_json(item))).collect::<Map>().into(),
    }
}
