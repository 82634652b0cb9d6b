//! PagerDuty, played by a server that follows the public description of the Events API v2.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use opmas::model::Time;
use serde_json::{Value, json};

use crate::http::{Reply, Request, say_json, serve_on};

pub const KEY: &str = "e93facc04764012d7bfb002500d5d1a6";

/// One incident: every event of its `dedup_key`, and whether it is open.
#[derive(Clone, Default)]
pub struct Incident {
    pub events: Vec<Value>,
    pub open: bool,
}

pub type Incidents = Arc<Mutex<BTreeMap<String, Incident>>>;

/// The service on a port of its own, which loses its first `lose` answers.
pub fn start(lose: u32) -> (u16, Incidents) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap().port(), start_on(listener, lose))
}

pub fn start_on(listener: TcpListener, mut lose: u32) -> Incidents {
    let incidents = Incidents::default();
    let shared = incidents.clone();
    serve_on(listener, usize::MAX, move |request| {
        let reply = match enqueue(&mut shared.lock().unwrap(), &request) {
            Ok(key) => say_json("202 Accepted", &json!({"status": "success", "message": "Event processed", "dedup_key": key})),
            Err(error) => say_json("400 Bad Request", &json!({"status": "invalid event", "message": "Event object is invalid", "errors": [error]})),
        };
        if lose == 0 {
            return reply;
        }
        lose -= 1;
        Reply::Reset
    });
    incidents
}

fn enqueue(incidents: &mut BTreeMap<String, Incident>, request: &Request) -> Result<String, &'static str> {
    if request.line != "POST /v2/enqueue HTTP/1.1" || !request.header("content-type").starts_with("application/json") || request.body.len() > 512 * 1024 {
        return Err("Event object format is unrecognized");
    }
    let event = request.json();
    if event["routing_key"].as_str().map(str::len) != Some(32) {
        return Err("Length of 'routing_key' is incorrect (should be 32 characters)");
    }
    let key = event["dedup_key"].as_str().filter(|key| (1..=255).contains(&key.len())).ok_or("'dedup_key' is missing or blank")?.to_owned();
    match event["event_action"].as_str() {
        Some("trigger") => {
            check_payload(&event["payload"])?;
            let incident = incidents.entry(key.clone()).or_default();
            incident.open = true;
            incident.events.push(event);
        }
        Some("resolve") => {
            // A key that is not known is accepted and changes nothing.
            if let Some(incident) = incidents.get_mut(&key) {
                incident.open = false;
                incident.events.push(event);
            }
        }
        _ => return Err("'event_action' is invalid (must be one of: trigger, acknowledge, resolve)"),
    }
    Ok(key)
}

fn check_payload(payload: &Value) -> Result<(), &'static str> {
    let text = |name: &str| payload[name].as_str().filter(|text| !text.is_empty());
    if text("summary").is_none_or(|summary| summary.chars().count() > 1_024) {
        return Err("'payload.summary' is missing, blank or too long");
    }
    if !matches!(text("severity"), Some("critical" | "error" | "warning" | "info")) {
        return Err("'payload.severity' is invalid (must be one of: critical, warning, error, info)");
    }
    if text("timestamp").is_some_and(|time| Time::parse_rfc3339(time).is_none()) {
        return Err("'payload.timestamp' is invalid");
    }
    text("source").map(drop).ok_or("'payload.source' is missing or blank")
}

/// A channel file that leads there.
pub fn file(port: u16, more: &str) -> String {
    format!("integration = 'pagerduty'\nrouting_key_file = 'key'\nurl = 'http://127.0.0.1:{port}/v2/enqueue'\n{more}")
}
