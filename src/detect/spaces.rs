//! Sigma writes field names without the spaces that some log sources have in them: `New Value` is `NewValue` (rules specification, field usage).

use serde_json::{Map, Value};

/// The fields with a second entry, without spaces, for each name that has some. `None` when none has, which is the rule.
/// A name that stands there without spaces already keeps its own value.
pub(super) fn without(fields: &Map<String, Value>) -> Option<Map<String, Value>> {
    let added: Vec<(String, Value)> = fields.iter().filter_map(|(name, value)| entry(name, value)).collect();
    if added.is_empty() {
        return None;
    }
    let mut all = fields.clone();
    for (name, value) in added {
        if name.is_empty() || fields.get(&name).is_some_and(|own| !own.is_object()) {
            continue;
        }
        all.insert(name, value);
    }
    Some(all)
}

fn entry(name: &str, value: &Value) -> Option<(String, Value)> {
    let inner = value.as_object().and_then(without).map(Value::Object);
    match (name.contains(' '), inner) {
        (false, None) => None,
        (_, inner) => Some((name.replace(' ', ""), inner.unwrap_or_else(|| value.clone()))),
    }
}
