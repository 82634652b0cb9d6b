//! Playbooks: headers, replay, what scripts cannot do, and the run's state machine.

use std::sync::Arc;

use opmas::diag::SourceFile;
use opmas::model::{Device, Finding, Outcome, OutcomeState, Time};
use opmas::playbook::{ActionSignature, Call, Evaluate, Evaluation, Limits, ParamSignature, Progress, Recorded, evaluate};
use serde_json::{Value, json};

mod contained;
mod files;
mod harness;
mod parallel;
mod replay;
mod run;
mod starts;
mod worker;

fn action(name: &str, params: &[(&str, bool)]) -> ActionSignature {
    let params = params.iter().map(|(name, required)| ParamSignature { name: (*name).into(), required: *required, grammar: None }).collect();
    ActionSignature { name: name.into(), params, assumed: OutcomeState::Enforced, own: false }
}

fn actions() -> Vec<ActionSignature> {
    vec![action("block_ip", &[("ip", true), ("duration", false)]), action("collect_log", &[]), action("block_mac", &[("mac", true)])]
}

fn devices() -> Vec<Device> {
    let device = |name: &str, site: &str, tag: &str| serde_json::from_value(json!({"name": name, "host": "192.0.2.1", "site": site, "tags": [tag]})).unwrap();
    vec![device("gate", "home", "router"), device("attic", "home", "ap"), device("barn", "farm", "ap")]
}

fn finding() -> Finding {
    serde_json::from_value(finding_json()).unwrap()
}

fn finding_json() -> Value {
    json!({
        "type": "finding", "id": "f00d", "time": "2026-11-21T13:08:12Z", "kind": "correlation",
        "rule": {"id": "6f3c", "name": "openwrt_ssh_login_after_failures", "title": "Login after failures", "revision": "abc"},
        "agent": "opmas", "severity": 5, "level": "critical", "title": "Login after failures", "text": "It happened",
        "group": {"src_ip": "203.0.113.9"}, "entities": {"source": {"kind": "ip", "value": "203.0.113.9"}}, "device": "gate", "site": "home",
        "window": {"from": "2026-11-21T13:00:00Z", "to": "2026-11-21T13:08:12Z"}, "value": 6, "count": 7, "evidence": [],
        "tags": ["attack.t1110"], "trust": "verified", "remediation": null
    })
}

fn request(script: &str) -> Evaluate {
    Evaluate {
        playbook: "test".into(),
        script: script.into(),
        actions: actions(),
        finding: Box::new(finding()),
        devices: devices(),
        history: Vec::new(),
        plan: false,
        limits: Limits::default(),
    }
}

fn outcome(state: OutcomeState) -> Outcome {
    Outcome { state, detail: "as told".into(), at: Time(0), took_ms: 1, until: None, evidence: None }
}

fn recorded(call: &Call, state: OutcomeState) -> Recorded {
    Recorded { key: call.key.clone(), device: call.device.clone(), action: call.action.clone(), outcome: outcome(state) }
}

fn run(script: &str) -> Evaluation {
    evaluate(&request(script))
}

/// What the script prints, when it gets to its end.
fn printed(script: &str) -> Vec<String> {
    let evaluation = run(script);
    assert_eq!(evaluation.progress, Progress::Done, "{script}");
    evaluation.log
}

fn ready(evaluation: &Evaluation) -> &Call {
    match &evaluation.progress {
        Progress::Ready(calls) if calls.len() == 1 => &calls[0],
        other => panic!("not one ready step: {other:?}"),
    }
}

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.into(), text: Arc::from(text) }
}
