//! How opmas itself is, as events in its own spool: rules on them are rules like any other, and a replay computes the same again.
//!
//! One event a minute tells the whole (`status`, `lag_seconds`, …), one for each part that is not as it should be (`part`). `docs/fields.md`
//! lists the fields. They come from the metrics and from what `/readyz` says; nothing is measured for them alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::effects::lock;
use super::intake;
use super::status::{Gravity, Reason, Status};
use crate::clock;
use crate::journal::SpoolHandle;
use crate::model::{EntryBody, Payload, Record, Tick, Time, Trust};

/// The source and the stream of the events, and their agent.
const SOURCE: &str = "opmas";
/// Parts that are told at once; further ones are in the count.
const MAX_PARTS: usize = 100;

/// What of the metrics is told: the field, the metric, and the values of its label `state` or `result` that count (any, when there are none).
const GAUGES: &[(&str, &str, &[&str])] = &[
    ("lag_entries", "opmas_detection_lag_entries", &[]),
    ("lag_seconds", "opmas_detection_lag_seconds", &[]),
    ("files_quarantined", "opmas_files_quarantined", &[]),
    ("rules_loaded", "opmas_rules_loaded", &[]),
    ("runs_waiting", "opmas_runs_waiting", &[]),
    ("publish_lag_entries", "opmas_publish_lag_entries", &[]),
];
/// The same of counters, of which the increase since the last event is told.
const COUNTERS: &[(&str, &str, &[&str])] = &[
    ("records", "opmas_source_records_total", &[]),
    ("records_refused", "opmas_records_refused_total", &[]),
    ("findings", "opmas_findings_total", &[]),
    ("dead_letters", "opmas_dead_letters_total", &[]),
    ("deliveries", "opmas_deliveries_total", &[]),
    ("deliveries_failed", "opmas_deliveries_total", &["retry", "failed", "unknown"]),
    ("device_requests", "opmas_executor_requests_total", &[]),
    ("device_requests_failed", "opmas_executor_requests_total", &["failed", "unknown"]),
];

/// What the events are made from.
pub(super) struct Observer {
    /// Gives the metrics in Prometheus' text form.
    pub(super) metrics: Box<dyn Fn() -> String + Send + Sync>,
    pub(super) status: Status,
    pub(super) spool: Arc<Mutex<Option<SpoolHandle>>>,
}

impl Observer {
    /// Tells it every so often until `stop`.
    pub(super) async fn run(self, every: Duration, stop: CancellationToken) {
        let mut before = totals(&(self.metrics)());
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.cancelled() => return,
            }
            let now = totals(&(self.metrics)());
            let (at, reasons) = (clock::now(), self.status.reasons());
            let Some(spool) = lock(&self.spool).clone() else { return };
            tokio::select! {
                _ = intake::append(&spool, entries(&events(&now, &before, &reasons, at), at), &self.status) => {}
                () = stop.cancelled() => return,
            }
            before = now;
        }
    }
}

/// The events as records; the tick behind them says that nothing more comes of their stream for now, so that it holds no timer back.
fn entries(events: &[Value], at: Time) -> Vec<EntryBody> {
    let record = |event: &Value| Record {
        id: None,
        source: SOURCE.into(),
        stream: SOURCE.into(),
        arrival: Some(at),
        peer: None,
        trust: Trust::Verified,
        raw: event.to_string().into_bytes(),
        payload: Payload::Log,
        subject: None,
    };
    let tick = EntryBody::Tick(Tick { at, idle: vec![SOURCE.into()], ..Tick::default() });
    events.iter().map(record).map(EntryBody::Record).chain([tick]).collect()
}

/// What the metrics and the status say at `at`; `before` is what the metrics said the last time.
fn events(now: &Totals, before: &Totals, reasons: &[Reason], at: Time) -> Vec<Value> {
    let count = |gravity: Gravity| reasons.iter().filter(|reason| reason.gravity == gravity).count();
    let status = match reasons.first().map(|reason| reason.gravity) {
        Some(Gravity::NotReady) => "not_ready",
        Some(Gravity::Degraded) => "degraded",
        Some(Gravity::Notice) | None => "ready",
    };
    let mut whole = head(at);
    whole.insert("status".to_owned(), status.into());
    whole.insert("parts_not_ready".to_owned(), count(Gravity::NotReady).into());
    whole.insert("parts_degraded".to_owned(), count(Gravity::Degraded).into());
    whole.extend(GAUGES.iter().filter_map(|(field, metric, states)| Some(((*field).to_owned(), number(now.sum(metric, states)?)))));
    let grown = |metric: &str, states: &[&str]| Some((now.sum(metric, states)? - before.sum(metric, states).unwrap_or(0.0)).max(0.0));
    whole.extend(COUNTERS.iter().filter_map(|(field, metric, states)| Some(((*field).to_owned(), number(grown(metric, states)?)))));
    let both = |fields: [&str; 2]| fields.iter().filter_map(|field| whole.get(*field)?.as_f64()).sum::<f64>();
    let attempts = both(["deliveries", "device_requests"]);
    if attempts > 0.0 {
        let rate = 100.0 * both(["deliveries_failed", "device_requests_failed"]) / attempts;
        whole.extend([("attempts".to_owned(), number(attempts)), ("failure_rate".to_owned(), number(rate))]);
    }
    let parts = reasons.iter().filter(|reason| reason.gravity > Gravity::Notice).take(MAX_PARTS).map(|reason| part(reason, at));
    std::iter::once(Value::Object(whole)).chain(parts).collect()
}

/// A part that is not as it should be; of one that names a device, the device.
fn part(reason: &Reason, at: Time) -> Value {
    let mut event = head(at);
    let gravity = if reason.gravity == Gravity::NotReady { "not_ready" } else { "degraded" };
    event.extend([("part", reason.part.as_str()), ("gravity", gravity), ("text", reason.text.as_str())].map(|(name, text)| (name.to_owned(), text.into())));
    let device = ["reaching ", "device ", "step on "].into_iter().find_map(|words| reason.part.strip_prefix(words));
    event.extend(device.map(|device| ("device".to_owned(), device.into())));
    Value::Object(event)
}

fn head(at: Time) -> Map<String, Value> {
    let fields = [("time", at.to_string()), ("product", "opmas".to_owned()), ("service", "health".to_owned()), ("agent", SOURCE.to_owned())];
    fields.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect()
}

/// Whole numbers without a fraction, others with two digits.
fn number(value: f64) -> Value {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded.fract() == 0.0 && rounded.abs() < 1e15 { Value::from(rounded as i64) } else { Value::from(rounded) }
}

/// The samples of a metrics page: name, the value of a label `state` or `result`, the sum over all other labels.
#[derive(Debug, Default, PartialEq)]
struct Totals(BTreeMap<(String, String), f64>);

impl Totals {
    /// `None` when there is no such metric yet.
    fn sum(&self, metric: &str, states: &[&str]) -> Option<f64> {
        let of_metric = || self.0.iter().filter(|((name, _), _)| name == metric);
        let counted = of_metric().filter(|((_, state), _)| states.is_empty() || states.contains(&state.as_str()));
        of_metric().next().map(|_| counted.map(|(_, value)| value).sum())
    }
}

/// Reads Prometheus' text form; a line that is no sample is passed over.
fn totals(page: &str) -> Totals {
    let mut totals = Totals::default();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((sample, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let label = |word: &str| labels.split_once(&format!("{word}=\"")).and_then(|(_, rest)| rest.split_once('"')).map(|(value, _)| value.to_owned());
        if let Ok(value) = value.parse::<f64>() {
            *totals.0.entry((name.to_owned(), label("state").or_else(|| label("result")).unwrap_or_default())).or_default() += value;
        }
    }
    totals
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str =
        "# TYPE opmas_deliveries_total counter\nopmas_deliveries_total{channel=\"mail\",state=\"sent\"} 4\n\nopmas_detection_lag_seconds 3.5\n";
    const AFTER: &str = "opmas_deliveries_total{channel=\"mail\",state=\"sent\"} 7\nopmas_deliveries_total{channel=\"a b\",state=\"failed\"} 1\n\
                         opmas_detection_lag_seconds 0.251\nopmas_files_quarantined{part=\"rules\"} 1\nopmas_files_quarantined{part=\"playbooks\"} 2\n";

    #[test]
    fn an_event_tells_the_whole_and_one_each_part() {
        let status = Status::default();
        status.set("reaching ap1", Gravity::Degraded, "no route");
        status.set("executor sandbox", Gravity::Notice, "old kernel");
        let events = events(&totals(AFTER), &totals(BEFORE), &status.reasons(), Time(1_700_000_000_000_000_000));
        assert_eq!(
            events,
            [
                serde_json::json!({"time": "2023-11-14T22:13:20Z", "product": "opmas", "service": "health", "agent": "opmas", "status": "degraded",
                    "parts_not_ready": 0, "parts_degraded": 1, "lag_seconds": 0.25, "files_quarantined": 3, "deliveries": 4, "deliveries_failed": 1,
                    "attempts": 4, "failure_rate": 25}),
                serde_json::json!({"time": "2023-11-14T22:13:20Z", "product": "opmas", "service": "health", "agent": "opmas",
                    "part": "reaching ap1", "gravity": "degraded", "text": "no route", "device": "ap1"}),
            ]
        );
    }

    #[test]
    fn a_counter_that_began_anew_tells_nothing_below_zero() {
        let events = events(&totals(BEFORE), &totals(AFTER), &[], Time(0));
        assert_eq!((&events[0]["deliveries"], &events[0]["status"], events[0].get("failure_rate")), (&0.into(), &"ready".into(), None));
    }
}
