//! Requests of playbooks to an HTTP server of the test's own.

use std::collections::VecDeque;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::http::{Reply, Request, say, say_json, serve_with};
use crate::router::eventually;
use crate::station::{Station, write_lines};

const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "tok-4f7d1c9be0";

/// A server that answers in turn, and what it was asked.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    answers: Arc<Mutex<VecDeque<Reply>>>,
}

impl Server {
    fn new(answers: impl IntoIterator<Item = Reply>) -> Server {
        let (requests, answers) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>())));
        let (asked, left) = (requests.clone(), answers.clone());
        let port = serve_with(1_000, move |request| {
            asked.lock().unwrap().push(request);
            left.lock().unwrap().pop_front().unwrap_or_else(|| say_json("201 Created", &json!({"id": 7, "echo": format!("Bearer {TOKEN}")})))
        });
        Server { port, requests, answers }
    }

    fn asked(&self) -> Vec<(String, String)> {
        self.requests.lock().unwrap().iter().map(|request| (request.line.clone(), request.header("idempotency-key").to_owned())).collect()
    }
}

fn station(server: &Server, endpoint: &str, script: &str) -> Station {
    let station = Station::new();
    let header = "title = 'x'\non = { severity = 5 }\nmode = 'auto'\nactions = ['http_request']";
    fs::write(station.dir.join("playbooks/ask.rhai"), format!("/*---\n{header}\n---*/\n{script}\n")).unwrap();
    fs::write(station.dir.join("token"), format!("Bearer {TOKEN}\n")).unwrap();
    let table = format!(
        "[actions]\nhttp_request = 'auto'\n[guard]\nprotect = ['10.9.0.0/16']\n[endpoint.ipam]\nurl = 'http://127.0.0.1:{}/hosts/{{ip}}/notes'\n\
         secrets = {{ Authorization = {{ file = 'token' }} }}\nguarded = ['ip']\n{endpoint}\n",
        server.port
    );
    station.configure(&table);
    station
}

fn armed(station: &mut Station) {
    station.start();
    assert_eq!(station.run(&["posture", "armed", "--for", "1h", "--because", "a test"]).0, Some(0));
    write_lines(&station.dir, 0, 100);
}

fn runs(station: &Station, state: &str) -> Vec<Value> {
    station.run(&["playbook", "runs", "--state", state, "--json"]).1.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

const SCRIPT: &str = r#"let told = http_request("ipam", #{ ip: finding.group.src_ip, text: finding.title + "\"\n" });
    print(`${told.state} ${told.detail}`);
    print(http_request("ipam", #{ ip: "10.9.1.1", text: "" }).state);"#;

#[test]
fn a_request_carries_its_values_its_key_and_its_secret_and_gives_the_secret_away_nowhere() {
    let server = Server::new([]);
    let mut station = station(&server, "", &format!("{SCRIPT}\n"));
    armed(&mut station);
    eventually(SOON, "it ends", || runs(&station, "done").len() == 1);
    let run = runs(&station, "done").remove(0);
    let requests = server.requests.lock().unwrap();
    let [request] = requests.as_slice() else { panic!("{}", requests.len()) };
    assert_eq!(request.line, "POST /hosts/10.0.0.0/notes HTTP/1.1");
    assert_eq!((request.header("authorization"), request.json()), (&*format!("Bearer {TOKEN}"), json!({"text": "Guessed\"\n"})));
    assert!(request.header("idempotency-key").starts_with(&format!("{}:1-", run["run"].as_str().unwrap())));
    let ledger = station.run(&["audit", "show"]).1;
    assert!(ledger.contains("HTTP 201 Created: {\\\"echo\\\":\\\"[secret]\\\",\\\"id\\\":7}") && ledger.contains("Authorization: [secret]"), "{ledger}");
    // The second is refused, as what it names is protected.
    assert!(ledger.contains("10.9.1.1 must not be blocked: it is protected by `10.9.0.0/16` under [guard]"), "{ledger}");
    assert!(station.metric("opmas_http_requests_total") == 1.0);
    let finding = run["finding"].as_str().unwrap();
    let (code, shown) = station.run(&["playbook", "run", "ask", "--finding", finding, "--dry-run"]);
    assert!(code == Some(0) && shown.contains("/hosts/10.0.0.0/notes") && shown.contains("must not be blocked"), "{shown}");
    station.terminate();
    for place in [ledger, shown, fs::read_to_string(station.dir.join("opmas.log")).unwrap_or_default()] {
        assert!(!place.contains(TOKEN), "{place}");
    }
    let kept: Vec<u8> = fs::read_dir(station.data.join("evidence")).unwrap().flatten().flat_map(|file| fs::read(file.path()).unwrap()).collect();
    assert!(!String::from_utf8_lossy(&kept).contains(TOKEN) && !kept.is_empty());
}

#[test]
fn what_is_out_of_reach_busy_or_idempotent_is_sent_again_under_its_key() {
    let answers = [say("429 Too Many Requests\r\n\r\n"), say("503 Service Unavailable\r\n\r\n"), Reply::Reset];
    let server = Server::new(answers);
    let mut station = station(&server, "method = 'PUT'", r#"print(http_request("ipam", #{ ip: "192.0.2.7" }).state);"#);
    armed(&mut station);
    eventually(SOON, "it is done", || runs(&station, "done").len() == 1);
    let asked = server.asked();
    assert!(asked.len() == 4 && asked.iter().all(|one| *one == asked[0]), "{asked:?}");
    assert_eq!(server.answers.lock().unwrap().len(), 0);
}

#[test]
fn o7_a_lost_answer_and_a_crash_in_between_are_shown_to_a_person_and_not_repeated() {
    let server = Server::new([Reply::Silence, say("302 Found\r\nlocation: http://192.0.2.1/\r\n\r\n")]);
    let mut station = station(&server, "timeout = '2s'", r#"http_request("ipam", #{ ip: "192.0.2.7" });"#);
    armed(&mut station);
    eventually(SOON, "it asks a person", || runs(&station, "waiting").len() == 1);
    let waiting = runs(&station, "waiting").remove(0);
    assert!(waiting["reason"].as_str().unwrap().contains("look at the endpoint"), "{waiting}");
    // A redirect is an answer, and leads nowhere.
    let id = waiting["run"].as_str().unwrap().to_owned();
    for word in ["cancel", "rerun"] {
        let (code, said) = station.run(&["playbook", word, &id]);
        assert_eq!(code, Some(0), "{said}");
    }
    eventually(SOON, "it ends", || runs(&station, "done").len() == 1);
    let ledger = station.run(&["audit", "show"]).1;
    assert!(ledger.contains("HTTP 302 Found (redirects are not followed"), "{ledger}");
    assert_eq!(server.asked().len(), 2);

    // A crash while the answer is waited for.
    let server = Server::new([Reply::Silence]);
    let mut station = self::station(&server, "", r#"http_request("ipam", #{ ip: "192.0.2.7" });"#);
    armed(&mut station);
    eventually(SOON, "it is asked", || server.asked().len() == 1);
    station.kill();
    station.start();
    eventually(SOON, "it asks a person", || runs(&station, "waiting").len() == 1);
    assert_eq!(server.asked().len(), 1, "at most once");

    // The same with what may be repeated.
    let server = Server::new([Reply::Silence]);
    let mut station = self::station(&server, "repeat = true", r#"http_request("ipam", #{ ip: "192.0.2.7" });"#);
    armed(&mut station);
    eventually(SOON, "it is asked", || server.asked().len() == 1);
    station.kill();
    station.start();
    eventually(SOON, "it is done", || runs(&station, "done").len() == 1);
    let asked = server.asked();
    assert!(asked.len() == 2 && asked[0] == asked[1], "{asked:?}");
}
