//! Lines and findings by HTTP, sent with curl to a real opmas: what is answered, and that what was answered is there.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use opmas::model::{Payload, Trust};
use serde_json::{Value, json};

use crate::durability::Disk;
use crate::router::eventually;
use crate::station::Station;

const TOKEN: &str = "web-4f2a9c";
const RULE: &str = "title: Told\nname: told\nid: 00000000-0000-4000-8000-00000000000a\nlogsource: {product: opmas, service: finding}\n\
    detection: {one: {agent: WiFiAgent}, condition: one}\nlevel: high\nopmas: {entities: {device: device}}\n";

/// Two HTTP sources, one of them trusted, and a token for the pages.
fn station(dir: &Path, data: &Path) -> Station {
    let station = Station::at(dir, data);
    for (name, token) in [("web", TOKEN), ("agents", "agents-77"), ("pages", "pages-31")] {
        fs::write(dir.join(format!("{name}.token")), format!("{token}\n")).unwrap();
    }
    station.configure("[source.web]\ntype = 'http'\ntoken_file = 'web.token'\n[source.agents]\ntype = 'http'\ntoken_file = 'agents.token'\ntrusted = true\n");
    fs::write(dir.join("rules/told.yml"), RULE).unwrap();
    station
}

struct Answer {
    code: u16,
    head: String,
    body: Value,
}

/// One POST with curl; the body comes from standard input.
fn post(station: &Station, path: &str, options: &[&str], body: &[u8]) -> Answer {
    let url = format!("http://127.0.0.1:{}/api/v1/{path}/ingest", station.port);
    let mut curl = Command::new("curl");
    curl.args(["-s", "-i", "--max-time", "60", "--data-binary", "@-"]).args(options).arg(url).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut curl = curl.spawn().unwrap();
    // What is refused is not read.
    let _ = curl.stdin.take().unwrap().write_all(body);
    let said = String::from_utf8(curl.wait_with_output().unwrap().stdout).unwrap();
    let said = said.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&said);
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or((said, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { code, head: head.to_lowercase(), body: serde_json::from_str(body).unwrap_or(Value::Null) }
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// With the right token.
fn send(station: &Station, path: &str, kind: &str, body: &[u8]) -> Answer {
    let (token, kind) = (bearer(if path == "logs" { TOKEN } else { "agents-77" }), format!("Content-Type: {kind}"));
    post(station, path, &["-H", &token, "-H", &kind], body)
}

fn lines(station: &Station) -> Vec<String> {
    station.records().map(|record| String::from_utf8_lossy(&record.raw).into_owned()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, bytes) = (gzip.stdin.take().unwrap(), bytes.to_vec());
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let out = gzip.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    out
}

#[test]
fn what_is_sent_is_kept_as_it_came_and_what_is_not_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut station = station(folder.path(), &folder.path().join("data"));
    station.start();
    let sent = send(&station, "logs", "application/x-ndjson", b"{\"k\":1}\nnonsense\n{\"k\":2}\n");
    assert_eq!((sent.code, &sent.body["accepted"], &sent.body["rejected"][0]["line"]), (200, &json!(2), &json!(2)), "{}", sent.body);
    assert_eq!(send(&station, "logs", "text/plain", b"<30>Nov 21 13:00:00 ap1 a: caf\xe9\n\n").code, 200);
    assert_eq!(send(&station, "logs", "application/json", b"[{\"k\":3},\n{\"k\":4}]").body["accepted"], 2);
    let options = ["-H", &bearer(TOKEN), "-H", "Content-Type: text/plain", "-H", "Content-Encoding: gzip"];
    assert_eq!(post(&station, "logs", &options, &gzip(b"five\nsix\n")).body["accepted"], 2);
    assert_eq!(post(&station, "logs", &options, &gzip(&vec![b'a'; 64 << 20])).code, 413, "a gzip bomb");
    assert_eq!(post(&station, "logs", &options, b"no gzip").code, 400);

    let megabyte = "x\n".repeat(7).repeat((1 << 20) / 14 + 1);
    let most: String = "y".repeat(99).chars().chain(['\n']).collect::<String>().repeat((1 << 20) / 100);
    assert_eq!(send(&station, "logs", "text/plain", most.as_bytes()).body["accepted"], (1 << 20) / 100);
    assert_eq!(send(&station, "logs", "text/plain", &vec![b'x'; (1 << 20) + 1]).code, 413);
    let chunked = ["-H", &bearer(TOKEN), "-H", "Content-Type: text/plain", "-H", "Transfer-Encoding: chunked"];
    assert_eq!(post(&station, "logs", &chunked, &vec![b'x'; (1 << 20) + 1]).code, 413, "whose length is not told");
    assert_eq!(send(&station, "logs", "text/plain", &megabyte.as_bytes()[..1 << 20]).code, 413, "too many lines");
    let all_wrong = send(&station, "logs", "application/x-ndjson", b"a\nb\n");
    assert_eq!((all_wrong.code, all_wrong.body["rejected"].as_array().unwrap().len()), (400, 2));
    assert_eq!(send(&station, "logs", "application/xml", b"<a/>").code, 415);
    assert_eq!(send(&station, "findings", "text/plain", b"a").code, 415);
    let other = ["-H", &bearer(TOKEN), "-H", "Content-Type: text/plain", "-H", "Content-Encoding: br"];
    let other = post(&station, "logs", &other, b"x");
    assert!(other.code == 415 && other.head.contains("accept-encoding: gzip"), "{}", other.head);

    assert!(station.metric("opmas_ingest_requests_total") >= 14.0);
    assert_eq!(station.metric("opmas_ingest_rejected_lines_total"), 3.0);
    station.terminate();
    let all: Vec<_> = station.records().collect();
    let expected = ["{\"k\":1}", "{\"k\":2}", "<30>Nov 21 13:00:00 ap1 a: caf\u{fffd}", "{\"k\":3}", "{\"k\":4}", "five", "six"];
    assert_eq!(lines(&station)[..7], expected);
    assert_eq!(all.len(), 7 + (1 << 20) / 100);
    assert!(all[2].raw.ends_with(b"caf\xe9"));
    assert!(all.iter().all(|record| record.peer == Some([127, 0, 0, 1].into()) && &*record.stream == "web/http/127.0.0.1"));
    assert!(all.iter().all(|record| record.trust == Trust::Open && record.payload == Payload::Log && record.id.is_none()));
    assert!(!station.log().contains(TOKEN));
}

#[test]
fn a_token_opens_what_it_is_for_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut station = station(folder.path(), &folder.path().join("data"));
    let with_pages = fs::read_to_string(station.dir.join("opmas.toml")).unwrap().replace("[http]\n", "[http]\ntoken_file = 'pages.token'\n");
    fs::write(station.dir.join("opmas.toml"), with_pages).unwrap();
    station.spawn();
    let port = station.port;
    let page = |token: &str| {
        let url = format!("http://127.0.0.1:{port}/readyz");
        let out = Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &bearer(token), &url]).output().unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    eventually(Duration::from_secs(60), "opmas is not ready", || page("pages-31") == "200");
    assert_eq!((page(TOKEN).as_str(), page("agents-77").as_str()), ("401", "401"));
    for token in ["pages-31", "web-4f2a9", "web-4f2a9cc", "", "Bearer"] {
        let answer = post(&station, "logs", &["-H", &bearer(token), "-H", "Content-Type: text/plain"], b"x\n");
        assert!(answer.code == 401 && answer.head.contains("www-authenticate: bearer"), "{token}: {}", answer.head);
    }
    for odd in ["Authorization: Basic d2ViLTRmMmE5Yw==", "Authorization: web-4f2a9c", "X-Other: 1"] {
        assert_eq!(post(&station, "findings", &["-H", odd, "-H", "Content-Type: application/json"], b"{}").code, 401, "{odd}");
    }
    let lower = post(&station, "logs", &["-H", "authorization: bearer web-4f2a9c", "-H", "content-type: text/plain"], b"from web\n");
    assert_eq!(lower.code, 200);
    assert_eq!(post(&station, "logs", &["-H", &bearer("agents-77"), "-H", "Content-Type: text/plain"], b"from agents\n").code, 200);
    station.terminate();
    let from: Vec<_> = station.records().map(|record| (record.source.to_string(), record.trust)).collect();
    assert_eq!(from, [("web".to_owned(), Trust::Open), ("agents".to_owned(), Trust::Verified)]);
    assert_eq!(lines(&station), ["from web", "from agents"]);

    // The same token twice says nothing, and an absent one even less.
    fs::write(station.dir.join("agents.token"), TOKEN).unwrap();
    let (code, said) = station.run(&["check"]);
    assert!(code == Some(1) && said.contains("[source.web] token_file: this is the token of [source.agents] too") && !said.contains(TOKEN), "{said}");
    fs::remove_file(station.dir.join("web.token")).unwrap();
    assert!(station.run(&["check"]).1.contains("[source.web] token_file: cannot read "));
    station.spawn();
    assert_eq!(station.ended().0, Some(3));
}

#[test]
fn m2_findings_are_events_and_what_is_none_is_a_dead_letter_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut station = station(folder.path(), &folder.path().join("data"));
    station.start();
    let good = json!({"title": "Many retries", "agent": "WiFiAgent", "severity": 4, "device": "ap1", "radio": {"channel": 36}});
    let sent = send(&station, "findings", "application/json", json!([good, {"title": "x", "agent": "WiFiAgent", "severity": 9}]).to_string().as_bytes());
    assert_eq!((sent.code, &sent.body["accepted"], &sent.body["rejected"][0]["line"]), (200, &json!(1), &json!(2)), "{}", sent.body);
    let hostile = b"\x1b[2J<script>{\"title\":\"\xff\"}\n";
    assert_eq!(send(&station, "findings", "application/x-ndjson", hostile).code, 400);
    let listed = |station: &Station| station.run(&["store", "dead", "--json"]).1;
    eventually(Duration::from_secs(10), "two dead letters", || listed(&station).lines().count() == 2);
    let reasons: Vec<Value> = listed(&station).lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["reason"].clone()).collect();
    assert_eq!(reasons, ["bad_severity", "not_json"]);
    assert!(!station.run(&["store", "dead"]).1.contains('\x1b'));
    assert_eq!(station.metric("opmas_dead_letters_total"), 2.0);
    let (code, ready) = station.ready().unwrap();
    let reason = ready["reasons"].as_array().unwrap().iter().find(|reason| reason["part"] == "dead letters").unwrap();
    assert!(code == 200 && ready["status"] == "ready" && reason["gravity"] == "notice" && reason["text"].as_str().unwrap().contains("store dead"), "{ready}");
    eventually(Duration::from_secs(10), "the finding", || station.run(&["finding", "list", "--json"]).1.contains("WiFiAgent"));

    // Without a checkpoint everything is computed again.
    station.kill();
    station.start();
    let after = listed(&station);
    assert_eq!(after.lines().count(), 2, "{after}");
    let reason = station.ready().unwrap().1.to_string();
    assert!(reason.contains("dead letters"), "{reason}");
    assert_eq!(send(&station, "findings", "application/json", b"{}").code, 400);
    eventually(Duration::from_secs(10), "a third one", || listed(&station).lines().count() == 3);
    station.terminate();
    station.start();
    station.terminate();
    assert_eq!(listed(&station).lines().count(), 3);
    let findings = station.findings();
    assert_eq!(findings.values().collect::<Vec<_>>(), [&1], "o6: {findings:?}");
    let (code, said) = station.run(&["store", "verify"]);
    assert!(code == Some(0) && said.contains("dead letters: good: 1 segments, 3 letters"), "{said}");

    // Taken in again, each once, whatever happens: they are as dead as before, but for the one that is named twice.
    assert_eq!(station.run(&["store", "replay-dead", "--all"]).0, Some(4), "nobody runs");
    station.start();
    let first = serde_json::from_str::<Value>(listed(&station).lines().next().unwrap()).unwrap()["seq"].to_string();
    for (arguments, says) in
        [(vec!["--all"], "3 records taken in again, 0 had been before"), (vec![first.as_str()], "0 records taken in again, 1 had been before")]
    {
        let (code, said) = station.run(&[vec!["store", "replay-dead"], arguments].concat());
        assert!(code == Some(0) && said.contains(says), "{said}");
    }
    eventually(Duration::from_secs(10), "three more", || listed(&station).lines().count() == 6);
    station.kill();
    // As if it had died after it was kept which, and before they were appended.
    let list = station.data.join("dead/replayed");
    let mut replayed: Value = serde_json::from_slice(&fs::read(&list).unwrap()).unwrap();
    assert_eq!(replayed["letters"].as_array().unwrap().len(), 3);
    let fourth = serde_json::from_str::<Value>(listed(&station).lines().nth(3).unwrap()).unwrap()["seq"].clone();
    replayed["letters"].as_array_mut().unwrap().push(fourth);
    fs::write(&list, replayed.to_string()).unwrap();
    for _ in 0..2 {
        station.start();
        eventually(Duration::from_secs(10), "the one that was due", || listed(&station).lines().count() == 7);
        station.kill();
    }
    station.start();
    station.terminate();
    assert_eq!(listed(&station).lines().count(), 7, "each once");
    assert_eq!(station.findings().len(), 1);
}

#[test]
fn o3_what_was_answered_2xx_is_there_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut station = station(folder.path(), &folder.path().join("data"));
    let mut answered = Vec::new();
    for round in 0..8 {
        station.start();
        for n in 0..20 {
            let line = format!("round {round} line {n}");
            assert_eq!(send(&station, "logs", "text/plain", line.as_bytes()).code, 200);
            answered.push(line);
        }
        station.kill();
    }
    let kept = lines(&station);
    assert_eq!(kept, answered, "in their order, each once");
}

#[test]
fn o3_a_full_disk_is_503_and_nothing_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path().join("disk"), "24m");
    let mut station = station(folder.path(), &disk.0.join("data"));
    station.start();
    assert_eq!(send(&station, "logs", "text/plain", b"before").code, 200);
    disk.fill();
    let block = "z".repeat(99) + "\n";
    // Some room may be left in what the file system has given already.
    let mut codes = Vec::new();
    for n in 0..12 {
        let answer = send(&station, "logs", "text/plain", format!("{}mark {n}\n", block.repeat(5_000)).as_bytes());
        if answer.code == 503 {
            assert!(answer.head.contains("retry-after: "), "{}", answer.head);
        }
        codes.push(answer.code);
    }
    assert_eq!(codes.last(), Some(&503), "{codes:?}");
    assert!(codes.iter().all(|code| [200, 503].contains(code)), "{codes:?}");
    assert_eq!(station.ready().unwrap().0, 503);
    assert_eq!(send(&station, "logs", "application/xml", b"").code, 415, "what is wrong anyway is said");
    station.kill();
    let kept = lines(&station);
    for (n, code) in codes.iter().enumerate() {
        assert_eq!(kept.contains(&format!("mark {n}")), *code == 200, "mark {n}: {code}");
    }
    disk.make_room();
    station.start();
    assert_eq!(send(&station, "logs", "text/plain", b"after").code, 200);
    station.terminate();
    assert_eq!(lines(&station).last().map(String::as_str), Some("after"));
}

#[test]
fn what_is_refused_unread_does_not_cost_its_sender_the_answer_or_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let mut station = station(folder.path(), &folder.path().join("data"));
    station.start();
    let mut stream = TcpStream::connect(("127.0.0.1", station.port)).unwrap();
    let piece = ("z".repeat(99) + "\n").repeat(500);
    for (kind, token, code) in [("text/plain", "wrong", 401), ("application/xml", TOKEN, 415), ("text/plain", TOKEN, 200)] {
        let (pieces, length) = (16, 16 * piece.len());
        let head = format!("POST /api/v1/logs/ingest HTTP/1.1\r\nHost: x\r\n{}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n", bearer(token));
        stream.write_all(head.as_bytes()).unwrap();
        for _ in 0..pieces {
            std::thread::sleep(Duration::from_millis(20));
            stream.write_all(piece.as_bytes()).unwrap();
        }
        let mut said = vec![0; 4 << 10];
        let n = stream.read(&mut said).unwrap();
        assert_eq!(String::from_utf8_lossy(&said[..n]).split(' ').nth(1), Some(code.to_string().as_str()));
    }
}

#[test]
fn requests_that_do_not_end_hold_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut station = station(folder.path(), &folder.path().join("data"));
    station.start();
    let head = format!("POST /api/v1/logs/ingest HTTP/1.1\r\nHost: x\r\n{}\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\nhalf", bearer(TOKEN));
    let port = station.port;
    let open = |text: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    };
    let mut waiting: Vec<TcpStream> = (0..16).map(|_| open(&head)).collect();
    std::thread::sleep(Duration::from_millis(500));
    let answer = send(&station, "logs", "text/plain", b"x");
    assert!(answer.code == 503 && answer.head.contains("retry-after"), "the bound on requests: {}", answer.head);
    // Who is gone gives its place back.
    drop(waiting.pop());
    eventually(Duration::from_secs(10), "a place is free", || send(&station, "logs", "text/plain", b"now").code == 200);
    waiting.push(open("POST /api/v1/logs/ingest HT"));
    let took = station.terminate();
    assert!(took < Duration::from_secs(40), "{took:?}");
    for mut stream in waiting {
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert!(lines(&station).iter().all(|line| line == "now"));
}
