//! Webhooks to an HTTP server of the test's own; the signature is checked by another program.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use opmas::alert::{Answer, Channels, Failure, Notice, SendError};
use opmas::diag::SourceFile;
use opmas::model::{Finding, Span, Time};
use serde_json::Value;

use crate::certificates;
use crate::http::{Reply, Request, read_request, say, serve};

const SECRET: &str = "whsec_b3BtYXMtdGVzdC1zZWNyZXQtb2YtMzItYnl0ZXMhIQ==";

fn channels(url: &str, dir: &Path, more: &str) -> Channels {
    std::fs::write(dir.join("hook"), format!("{SECRET}\n")).unwrap();
    let text = format!("integration = 'webhook'\nurl = '{url}'\nsecret_file = 'hook'\n{more}");
    let loaded = Channels::load(&[SourceFile { name: "notifiers/hook.toml".into(), text: text.into() }], dir);
    assert_eq!(loaded.diagnostics, []);
    loaded.channels
}

fn finding() -> Finding {
    serde_json::from_str(include_str!("../data/finding.json")).unwrap()
}

fn now() -> Time {
    Time::parse_rfc3339("2026-11-21T13:09:00.5Z").unwrap()
}

async fn send_to(channels: &Channels, finding: Finding, delivery: &str) -> Result<Answer, SendError> {
    let notice = Notice::of_findings(vec![Arc::new(finding)], "urgent", "hook", now(), vec!["block_ip on router1: enforced".into()]);
    channels.get("hook").unwrap().prepare(&notice, delivery, now()).await?.send().await
}

async fn send(port: u16, more: &str) -> Result<Answer, SendError> {
    let dir = tempfile::tempdir().unwrap();
    send_to(&channels(&format!("http://127.0.0.1:{port}/opmas?key=K3y"), dir.path(), more), finding(), "d1d1d1").await
}

/// The signature as Python computes it.
fn signed_by_python(request: &Request) -> String {
    let script = "
import base64, hashlib, hmac, sys
key = base64.b64decode(sys.argv[1].removeprefix('whsec_'))
content = (sys.argv[2] + '.' + sys.argv[3] + '.').encode() + sys.stdin.buffer.read()
print('v1,' + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode())";
    let mut child = Command::new("python3")
        .args(["-c", script, SECRET, request.header("webhook-id"), request.header("webhook-timestamp")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&request.body).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn m1_a_finding_arrives_signed() {
    let (port, requests) = serve(vec![say("202 Accepted\r\ncontent-length: 5\r\n\r\nthank")]);
    let answer = send(port, "").await.unwrap();
    assert_eq!(answer.to_string(), "HTTP 202 Accepted: thank");
    let request = requests.recv().unwrap();
    assert_eq!(request.line, "POST /opmas?key=K3y HTTP/1.1");
    assert_eq!((request.header("webhook-id"), request.header("webhook-timestamp")), ("d1d1d1", "1795266540"));
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("webhook-signature"), signed_by_python(&request));
    let expected = serde_json::json!({
        "type": "finding.created",
        "timestamp": "2026-11-21T13:09:00.5Z",
        "data": {
            "alert": {"type": "alert", "route": "urgent", "channel": "hook", "group": {}, "state": "firing",
                      "findings": ["0f4b5d2c7a1e4c3f9b8a6d5e4f3c2b1a"], "at": "2026-11-21T13:09:00.5Z"},
            "findings": [serde_json::from_str::<Value>(include_str!("../data/finding.json")).unwrap()],
            "done": ["block_ip on router1: enforced"],
        }
    });
    assert_eq!(request.json(), expected);
}

#[tokio::test]
async fn what_the_server_says_decides_whether_it_is_tried_again() {
    let after = |after| Failure::Retryable { after };
    let secs = |n| Some(Span::secs(n));
    let cases = [
        ("429 Too Many Requests\r\nretry-after: 17\r\n\r\n", after(secs(17)), "HTTP 429"),
        ("503 Service Unavailable\r\nretry-after: 99999999\r\n\r\n", after(secs(3_600)), "HTTP 503"),
        ("503 Service Unavailable\r\nretry-after: Thu, 01 Jan 2060 00:00:00 GMT\r\n\r\n", after(secs(3_600)), "HTTP 503"),
        ("429 Too Many Requests\r\nretry-after: soon\r\n\r\n", after(None), "HTTP 429"),
        ("500 Internal Server Error\r\n\r\noops\r\n\u{1b}[31m", after(None), "HTTP 500 Internal Server Error: oops\\r\\n\\u{1b}[31m"),
        ("502 Bad Gateway\r\n\r\n", after(None), "HTTP 502"),
        ("408 Request Timeout\r\n\r\n", after(None), "HTTP 408"),
        ("425 Too Early\r\n\r\n", after(None), "HTTP 425"),
        ("400 Bad Request\r\n\r\n", Failure::Permanent, "HTTP 400"),
        ("401 Unauthorized\r\n\r\n", Failure::Permanent, "HTTP 401"),
        ("410 Gone\r\nretry-after: 5\r\n\r\n", Failure::Permanent, "HTTP 410"),
    ];
    for (answer, kind, said) in cases {
        let (port, requests) = serve(vec![say(answer)]);
        let error = send(port, "").await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.detail.starts_with(&format!("http://127.0.0.1:{port}: {said}")), "{error}");
        assert!(!error.detail.contains("K3y"), "{error}");
        assert_eq!(requests.iter().count(), 1, "once");
    }
}

#[tokio::test]
async fn o7_a_second_try_has_the_same_id() {
    let (port, requests) = serve(vec![say("500 Oops\r\n\r\n"), say("200 OK\r\ncontent-length: 0\r\n\r\n")]);
    assert_eq!(send(port, "").await.unwrap_err().kind, Failure::Retryable { after: None });
    assert_eq!(send(port, "").await.unwrap().to_string(), "HTTP 200 OK");
    let ids: Vec<String> = requests.iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_eq!(ids, ["d1d1d1", "d1d1d1"]);
}

#[tokio::test]
async fn a_redirect_is_refused() {
    let (elsewhere, reached) = serve(vec![say("200 OK\r\n\r\n")]);
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let (port, requests) = serve(vec![say(&format!("{status}\r\nlocation: http://127.0.0.1:{elsewhere}/\r\n\r\n"))]);
        let error = send(port, "").await.unwrap_err();
        assert_eq!(error.kind, Failure::Permanent);
        assert!(error.detail.ends_with("redirects are not followed: write the final address into `url`"), "{error}");
        assert_eq!(requests.iter().count(), 1);
    }
    assert!(reached.try_recv().is_err(), "nothing was sent elsewhere");
}

#[tokio::test]
async fn a_lost_answer_is_told_from_a_server_that_is_not_there() {
    let (port, requests) = serve(vec![Reply::Reset]);
    let error = send(port, "").await.unwrap_err();
    assert_eq!(error.kind, Failure::Ambiguous, "{error}");
    assert_eq!(requests.iter().count(), 1, "the client has not tried again by itself");

    let (port, _requests) = serve(vec![Reply::Silence]);
    let error = send(port, "timeout = '300ms'").await.unwrap_err();
    assert_eq!(error.kind, Failure::Ambiguous);
    assert!(error.detail.contains("timed out"), "{error}");
    assert!(!error.detail.contains("K3y"), "{error}");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = send(nobody, "").await.unwrap_err();
    assert_eq!(error.kind, Failure::Retryable { after: None });
    assert!(error.detail.contains("refused") && !error.detail.contains("K3y"), "{error}");
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let body = "x".repeat(1 << 20);
    let (port, _requests) = serve(vec![say(&format!("200 OK\r\ncontent-length: {}\r\n\r\n{body}", 1u64 << 40))]);
    let answer = send(port, "").await.unwrap();
    assert!(answer.to_string().chars().count() <= 501, "{answer}");
}

/// The environment's proxies are for other programs. The proxy variables are set in a process of their own.
#[test]
fn proxies_of_the_environment_are_not_used() {
    let (port, requests) = serve(vec![say("204 No Content\r\n\r\n")]);
    let (proxy, proxied) = serve(vec![say("502 Bad Gateway\r\n\r\n")]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("notifiers")).unwrap();
    std::fs::write(dir.path().join("notifiers/hook.toml"), format!("integration = 'webhook'\nurl = 'http://127.0.0.1:{port}/'\nsecret_env = 'HOOK'")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
    let proxy = format!("http://127.0.0.1:{proxy}");
    let out = command
        .args(["channel", "test", "hook"])
        .current_dir(dir.path())
        .env("HOOK", SECRET)
        .env("http_proxy", &proxy)
        .env("ALL_PROXY", &proxy)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), format!("hook: http://127.0.0.1:{port} accepted the test message: HTTP 204 No Content\n"));
    let request = requests.recv().unwrap();
    assert_eq!((request.json()["type"].as_str(), request.json()["data"]["findings"].as_array().map(Vec::len)), (Some("opmas.test"), Some(0)));
    assert_eq!(request.header("webhook-signature"), signed_by_python(&request));
    assert!(proxied.try_recv().is_err());
}

#[tokio::test]
async fn hostile_and_huge_values_are_data_and_the_payload_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let hostile = ["x\r\nwebhook-id: other\r\n\r\n", "\",\"type\":\"other", "\0\u{1b}\u{fffd}\u{2028}", "</script>"];
    let (port, requests) = serve(vec![say("200 OK\r\ncontent-length: 0\r\n\r\n"); hostile.len() + 1]);
    let channels = channels(&format!("http://127.0.0.1:{port}/"), dir.path(), "");
    for text in hostile {
        let mut finding = finding();
        finding.title = text.into();
        finding.evidence[0].raw = text.into();
        finding.group = [(text.to_owned(), Value::String(text.into()))].into();
        send_to(&channels, finding, "d2").await.unwrap();
        let request = requests.recv().unwrap();
        assert_eq!(request.header("webhook-id"), "d2");
        assert_eq!(request.header("webhook-signature"), signed_by_python(&request));
        let told = &request.json()["data"]["findings"][0];
        assert_eq!((&told["title"], &told["evidence"][0]["raw"], &told["group"][text]), (&Value::from(text), &Value::from(text), &Value::from(text)));
        assert_eq!(request.json()["type"], "finding.created");
    }
    let mut huge = finding();
    huge.evidence = vec![opmas::model::Evidence { raw: "é".repeat(100_000).into(), ..huge.evidence[0].clone() }; 1_000];
    send_to(&channels, huge, "d3").await.unwrap();
    let request = requests.recv().unwrap();
    assert!(request.body.len() <= opmas::alert::webhook::MAX_BODY);
    assert_eq!((&request.json()["data"]["truncated"], &request.json()["data"]["findings"][0]["id"]), (&Value::Bool(true), &Value::from(&*finding().id.0)));
}

/// One TLS connection answered with 200; none is served when the handshake fails.
fn serve_tls(made: &certificates::Certificates) -> (u16, Arc<Mutex<u32>>) {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(&made.certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(&made.key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = Arc::new(Mutex::new(0));
    let count = served.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config.clone()).unwrap(), stream.unwrap());
            if read_request(&mut tls).is_some() {
                *count.lock().unwrap() += 1;
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        }
    });
    (port, served)
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let made = certificates::make(dir.path());
    let (port, served) = serve_tls(&made);
    let url = format!("https://localhost:{port}/");
    let trusted = channels(&url, dir.path(), "ca_file = 'ca.pem'");
    assert_eq!(send_to(&trusted, finding(), "d1").await.unwrap().to_string(), "HTTP 200 OK");
    assert_eq!(made.authority, dir.path().join("ca.pem"));
    let unknown = channels(&url, dir.path(), "");
    let error = send_to(&unknown, finding(), "d1").await.unwrap_err();
    assert_eq!(error.kind, Failure::Retryable { after: None });
    assert!(error.detail.contains("invalid peer certificate"), "{error}");
    assert_eq!(*served.lock().unwrap(), 1);
}
