//! Which findings belong together.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::http::bounded;
use crate::model::{Finding, hex};

/// A longer value is cut and ends with its hash, in bytes: a group stands in every record of its alert.
const MAX_VALUE: usize = 256;

/// What the findings of an alert have in common (stable): `rule`, `device` where it is known, and the rule's group-by fields; of a
/// rule without them what the finding is about, by role. Two users found by one detection are two alerts.
#[must_use]
pub fn group(finding: &Finding) -> BTreeMap<String, Value> {
    let mut group: BTreeMap<String, Value> = finding.group.iter().map(|(name, value)| (name.clone(), short(value))).collect();
    if group.is_empty() {
        group.extend(finding.entities.iter().map(|(role, entity)| (role.clone(), short(&Value::from(&*entity.value)))));
    }
    let rule = finding.rule.name.as_ref().unwrap_or(&finding.rule.id);
    for (name, value) in [("rule", Some(rule)), ("device", finding.device.as_ref())] {
        let Some(value) = value else { continue };
        // A field of the rule's own that is named so stays beside it.
        let name = if group.contains_key(name) { format!("opmas.{name}") } else { name.to_owned() };
        group.insert(name, short(&Value::from(&**value)));
    }
    group
}

fn short(value: &Value) -> Value {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if text.len() <= MAX_VALUE {
        return value.clone();
    }
    let digest = hex(Sha256::digest(text.as_bytes()).get(..8).unwrap_or_default());
    format!("{}…{digest}", bounded(&text, MAX_VALUE)).into()
}
