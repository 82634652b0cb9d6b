//! External findings (semantics M2, M3): what they must have, and what rules see of them.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Map, Value};

use super::json;
use crate::model::{DeadReason, Inventory, LogSource, Severity};

/// The log source of findings, to rules.
pub(super) const PRODUCT: &str = "opmas";
/// See [`PRODUCT`].
pub(super) const SERVICE: &str = "finding";
/// The service of what is no finding; no rule is for it.
const REFUSED: &str = "dead_letter";
/// Characters of a value that are said again in a sentence.
const SHOWN: usize = 40;

/// Why bytes are no finding (M2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of a closed set.
    pub reason: DeadReason,
    /// One sentence, with the remedy.
    pub detail: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

fn refusal(reason: DeadReason, detail: impl Into<String>) -> Refusal {
    Refusal { reason, detail: detail.into() }
}

/// Whether these bytes are a finding (M2).
///
/// # Errors
/// Why not.
pub fn check_finding(raw: &[u8]) -> Result<(), Refusal> {
    let text = super::text_of(raw);
    parse(&text).map(drop)
}

/// The finding's fields as they came, with both `severity` and `level` (M3).
pub(super) fn parse(text: &str) -> Result<Map<String, Value>, Refusal> {
    let mut object = match json::read(text) {
        Ok(Value::Object(object)) => object,
        Ok(other) => return Err(refusal(DeadReason::NotAnObject, format!("a finding is a JSON object, and this is {}", kind(&other)))),
        Err(error) => return Err(refusal(DeadReason::NotJson, format!("a finding is a JSON object, and this is no JSON: {error}"))),
    };
    named(&object, "title", DeadReason::NoTitle)?;
    named(&object, "agent", DeadReason::NoAgent)?;
    let severity = severity(&object)?.ok_or_else(|| {
        refusal(DeadReason::NoSeverity, "a finding needs a `severity` from 1 (info) to 5 (critical), or a `level`: informational, low, medium, high, critical")
    })?;
    fill(&mut object, severity);
    Ok(object)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn named(object: &Map<String, Value>, key: &str, reason: DeadReason) -> Result<(), Refusal> {
    match object.get(key) {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(()),
        _ => Err(refusal(reason, format!("a finding needs a `{key}`, a text that is not empty"))),
    }
}

/// What `severity` and `level` say together; `None` when neither is there.
fn severity(object: &Map<String, Value>) -> Result<Option<Severity>, Refusal> {
    let present = |key| object.get(key).filter(|value| !value.is_null());
    let number = present("severity").map(by_number).transpose()?;
    let word = present("level").map(by_word).transpose()?;
    match (number, word) {
        (Some(number), Some(word)) if number != word => {
            Err(refusal(DeadReason::Contradiction, format!("`severity` {} is {number}, and `level` says {word}; leave one of them out", u8::from(number))))
        }
        (number, word) => Ok(number.or(word)),
    }
}

fn by_number(value: &Value) -> Result<Severity, Refusal> {
    let number = value.as_u64().and_then(|number| u8::try_from(number).ok());
    number.and_then(|number| Severity::try_from(number).ok()).ok_or_else(|| {
        refusal(DeadReason::BadSeverity, format!("`severity` is a number from 1 (info) to 5 (critical), and this is {}; words go into `level`", shown(value)))
    })
}

fn by_word(value: &Value) -> Result<Severity, Refusal> {
    let word = value.as_str().and_then(|word| word.to_ascii_lowercase().parse().ok());
    word.ok_or_else(|| {
        refusal(
            DeadReason::BadLevel,
            format!("`level` is one of informational, low, medium, high, critical, and this is {}; numbers go into `severity`", shown(value)),
        )
    })
}

/// Values are hostile, and as long as a record: only the beginning is said again.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => kind(value).to_owned(),
        scalar => {
            let text = scalar.to_string();
            let end = text.char_indices().nth(SHOWN).map(|(end, _)| end);
            end.map_or(Cow::from(&text), |end| format!("{}…", text.get(..end).unwrap_or_default()).into()).into_owned()
        }
    }
}

fn fill(object: &mut Map<String, Value>, severity: Severity) {
    object.insert("severity".to_owned(), Value::from(u8::from(severity)));
    object.insert("level".to_owned(), Value::from(severity.level()));
}

/// Whether a `product` is that of findings.
pub(super) fn is_product(product: &str) -> bool {
    product.eq_ignore_ascii_case(PRODUCT)
}

/// A structured log event that says itself that it is a finding (X3). It need not be whole: what is known is filled in.
pub(super) fn claim(object: &mut Map<String, Value>, source: &LogSource) -> bool {
    let is_service = source.service.as_deref().is_some_and(|service| service.eq_ignore_ascii_case(SERVICE));
    let claims = is_service && source.product.as_deref().is_some_and(is_product);
    if claims && let Ok(Some(severity)) = severity(object) {
        fill(object, severity);
    }
    claims
}

/// What rules know the log source of a finding by, whatever it says itself.
pub(super) fn logsource() -> LogSource {
    LogSource { product: Some(PRODUCT.into()), category: None, service: Some(SERVICE.into()) }
}

/// The same for what is no finding.
pub(super) fn refused() -> LogSource {
    LogSource { service: Some(REFUSED.into()), ..logsource() }
}

/// Fills in `device`, `host` and `site` where they are not there: from `device`, `entities.device.value` or `host`, and by the name that
/// the inventory has for it. Not from the sender's address: who reports is not what it is about.
pub(super) fn join(fields: &mut Map<String, Value>, inventory: &Inventory) {
    let named = ["device", "entities.device.value", "host"].into_iter().find_map(|path| lookup(fields, path)?.as_str().filter(|name| !name.is_empty()));
    let Some(named) = named else { return };
    let device = inventory.by_host_or_peer(Some(named), None);
    let name = Value::from(device.map_or(named, |device| &device.name));
    fields.entry("host").or_insert_with(|| name.clone());
    fields.entry("device").or_insert(name);
    if let Some(site) = device.and_then(|device| device.site.as_deref()) {
        fields.entry("site").or_insert_with(|| Value::from(site));
    }
}
/// The value at a dotted path; a key that contains the dots itself counts first.
fn lookup<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    let (head, rest) = path.split_once('.')?;
    lookup(object.get(head)?.as_object()?, rest)
}
