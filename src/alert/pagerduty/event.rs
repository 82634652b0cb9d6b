//! The events, as the Events API v2 describes them, without the routing key.

use serde_json::{Map, Value, json};

use crate::alert::notice::Notice;
use crate::alert::render::{render_text, subject};
use crate::http::{bounded, visible};
use crate::model::Severity;

/// The API cuts a summary after this many characters.
const MAX_SUMMARY: usize = 1_024;
/// The message in full, in bytes; an event may have 512 KiB.
const MAX_MESSAGE: usize = 64 * 1_024;
/// One other value.
const MAX_VALUE: usize = 255;
/// Entities of the first finding.
const MAX_ENTITIES: usize = 40;

/// Something goes on. The same `dedup_key` is the same alert.
pub(super) fn trigger(notice: &Notice, dedup_key: &str, delivery: &str) -> Map<String, Value> {
    let finding = notice.findings.last();
    let about = finding.iter().flat_map(|finding| &finding.entities).take(MAX_ENTITIES);
    let about: Map<String, Value> = about.map(|(role, entity)| (visible(role, MAX_VALUE), visible(&entity.value, MAX_VALUE).into())).collect();
    let details = json!({
        "message": bounded(&render_text(notice, delivery), MAX_MESSAGE),
        "about": about,
        "rule": finding.map(|finding| visible(&finding.rule.id, MAX_VALUE)),
        "finding": finding.map(|finding| visible(&finding.id.0, MAX_VALUE)),
        "findings": notice.of.as_ref().map_or(1, |of| of.count),
    });
    let payload = json!({
        "summary": visible(&subject(notice), MAX_SUMMARY - 1),
        "source": finding.and_then(|finding| finding.device.as_deref()).map_or("opmas".to_owned(), |device| visible(device, MAX_VALUE)),
        "severity": severity(notice.severity()),
        "timestamp": finding.map_or(notice.alert.at, |finding| finding.time),
        "class": finding.map(|finding| visible(finding.rule.name.as_deref().unwrap_or(&finding.rule.id), MAX_VALUE)),
        "group": finding.and_then(|finding| finding.site.as_deref()).map(|site| visible(site, MAX_VALUE)),
        "custom_details": details,
    });
    let mut event = event("trigger", dedup_key);
    event.insert("client".to_owned(), "opmas".into());
    event.insert("payload".to_owned(), without_nulls(payload));
    event
}

/// It is over.
pub(super) fn resolve(dedup_key: &str) -> Map<String, Value> {
    event("resolve", dedup_key)
}

fn event(action: &str, dedup_key: &str) -> Map<String, Value> {
    [("event_action".to_owned(), action.into()), ("dedup_key".to_owned(), dedup_key.into())].into_iter().collect()
}

/// The API has four severities.
fn severity(severity: Severity) -> &'static str {
    match u8::from(severity) {
        5.. => "critical",
        4 => "error",
        3 => "warning",
        _ => "info",
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, without_nulls(value))).collect(),
        other => other,
    }
}
