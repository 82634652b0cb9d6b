//! The channel to PagerDuty, which `incidents.rs` plays.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use opmas::alert::{Answer, Channels, Failure, Notice, SendError};
use opmas::diag::SourceFile;
use opmas::model::{Evidence, Finding, Severity, Span, Time};
use serde_json::json;

use crate::http::{channel_test, say, say_json, serve};
use crate::incidents::{Incident, KEY, file, start};

fn channels(file: &str, dir: &Path) -> Channels {
    std::fs::write(dir.join("key"), format!("{KEY}\n")).unwrap();
    let loaded = Channels::load(&[SourceFile { name: "notifiers/duty.toml".into(), text: file.into() }], dir);
    assert_eq!(loaded.diagnostics, []);
    loaded.channels
}

fn finding() -> Finding {
    serde_json::from_str(include_str!("../data/finding.json")).unwrap()
}

fn notice(finding: Finding) -> Notice {
    Notice::of_findings(vec![Arc::new(finding)], "urgent", "duty", Time(0), vec!["block_ip on router1: enforced".into()])
}

async fn send(port: u16, notice: &Notice, more: &str) -> Result<Answer, SendError> {
    let dir = tempfile::tempdir().unwrap();
    channels(&file(port, more), dir.path()).get("duty").unwrap().prepare(notice, "d1d1d1", Time(0)).await?.send().await
}

#[tokio::test]
async fn a_finding_is_an_incident_and_its_end_resolves_it() {
    let (port, incidents) = start(0);
    let firing = notice(finding());
    let answer = send(port, &firing, "").await.unwrap().to_string();
    assert!(answer.starts_with("HTTP 202 Accepted: ") && answer.contains("Event processed"), "{answer}");
    let key = firing.alert.key().to_string();
    let incident = incidents.lock().unwrap()[&key].clone();
    assert!(incident.open);
    let mut event = incident.events[0].clone();
    let details = event["payload"]["custom_details"].take();
    let expected = json!({
        "routing_key": KEY, "event_action": "trigger", "dedup_key": key, "client": "opmas",
        "payload": {
            "summary": "[opmas] critical: SSH login after repeated failures (router1)",
            "source": "router1", "severity": "critical", "timestamp": "2026-11-21T13:08:12Z",
            "class": "openwrt_ssh_login_after_failures", "group": "home", "custom_details": null,
        }
    });
    assert_eq!(event, expected);
    assert_eq!((&details["about"]["source"], &details["finding"]), (&json!("203.0.113.9"), &json!("0f4b5d2c7a1e4c3f9b8a6d5e4f3c2b1a")));
    assert!(details["message"].as_str().unwrap().contains("block_ip on router1: enforced"), "{details}");

    send(port, &firing.resolved(Time(1), None), "").await.unwrap();
    let incident = incidents.lock().unwrap()[&key].clone();
    assert!(!incident.open);
    assert_eq!(incident.events[1], json!({"routing_key": KEY, "event_action": "resolve", "dedup_key": key}));
}

#[tokio::test]
async fn o7_an_event_whose_answer_was_lost_is_the_same_incident_when_sent_again() {
    let (port, incidents) = start(2);
    let firing = notice(finding());
    for _ in 0..2 {
        assert_eq!(send(port, &firing, "").await.unwrap_err().kind, Failure::Ambiguous);
    }
    send(port, &firing, "").await.unwrap();
    let incidents = incidents.lock().unwrap();
    assert_eq!((incidents.len(), incidents[&*firing.alert.key()].events.len()), (1, 3));
}

#[tokio::test]
async fn severities_are_those_of_the_api() {
    let (port, incidents) = start(0);
    for (severity, expected) in [(5, "critical"), (4, "error"), (3, "warning"), (2, "info"), (1, "info")] {
        let notice = notice(Finding { severity: Severity::try_from(severity).unwrap(), ..finding() });
        send(port, &notice, "").await.unwrap();
        let said = incidents.lock().unwrap()[&*notice.alert.key()].events.last().unwrap()["payload"]["severity"].clone();
        assert_eq!(said, expected);
    }
}

#[tokio::test]
async fn what_pagerduty_says_decides_whether_it_is_tried_again() {
    let after = |after: Option<i64>| Failure::Retryable { after: after.map(Span::secs) };
    let cases = [
        (say("429 Too Many Requests\r\nretry-after: 30\r\n\r\n"), after(Some(30)), "HTTP 429"),
        (say("429 Too Many Requests\r\n\r\n"), after(None), "HTTP 429"),
        (say("500 Internal Server Error\r\n\r\n"), after(None), "HTTP 500"),
        (
            say_json("400 Bad Request", &json!({"status": "invalid event", "errors": [format!("'{KEY}' is unknown")]})),
            Failure::Permanent,
            "HTTP 400 Bad Request: {\"errors\":[\"'[secret]' is unknown\"]",
        ),
        (say("307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\n\r\n"), Failure::Permanent, "redirects are not followed"),
    ];
    for (reply, kind, said) in cases {
        let (port, requests) = serve(vec![reply]);
        let error = send(port, &notice(finding()), "").await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.detail.starts_with(&format!("http://127.0.0.1:{port}: {said}")) || error.detail.contains(said), "{error}");
        assert!(!error.detail.contains(KEY), "{error}");
        assert_eq!(requests.iter().count(), 1, "once");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(send(nobody, &notice(finding()), "").await.unwrap_err().kind, after(None));
}

#[tokio::test]
async fn hostile_and_huge_values_are_data_and_fit() {
    let (port, incidents) = start(0);
    let mut finding = finding();
    let hostile: Arc<str> = "\",\"event_action\":\"resolve\r\n\u{202e}é".repeat(50_000).into();
    (finding.title, finding.text, finding.device, finding.site) = (hostile.clone(), hostile.to_string(), Some(hostile.clone()), Some(hostile.clone()));
    finding.rule.name = Some(hostile.clone());
    finding.evidence = vec![Evidence { raw: hostile, ..finding.evidence[0].clone() }; 1_000];
    let notice = notice(finding);
    send(port, &notice, "").await.unwrap();
    let incidents = incidents.lock().unwrap();
    let event = &incidents[&*notice.alert.key()].events[0];
    assert_eq!(event["event_action"], "trigger");
    assert!(!event["payload"]["summary"].as_str().unwrap().contains(['\r', '\n', '\u{202e}']));
}

#[test]
fn x1_channel_test_opens_an_incident_and_closes_it() {
    let (port, incidents) = start(0);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), KEY).unwrap();
    let (code, out, error) = channel_test(dir.path(), "duty", &file(port, ""));
    assert_eq!((code, out.starts_with(&format!("duty: http://127.0.0.1:{port} accepted the test message: HTTP 202 Accepted: "))), (0, true), "{out}{error}");
    let all: Vec<Incident> = incidents.lock().unwrap().values().cloned().collect();
    let [incident] = &all[..] else { panic!("one incident") };
    assert!(!incident.open);
    assert_eq!((incident.events.len(), &incident.events[0]["payload"]["severity"]), (2, &json!("info")));
    assert!(incident.events[0]["payload"]["summary"].as_str().unwrap().starts_with("[opmas] test of channel duty"));

    std::fs::write(dir.path().join("key"), &KEY[1..]).unwrap();
    let (code, out, error) = channel_test(dir.path(), "duty", &file(port, ""));
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(error.contains("the routing key is not 32 letters and digits") && !error.contains("facc0476"), "{error}");
}
