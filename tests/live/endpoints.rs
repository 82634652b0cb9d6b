//! Requests of playbooks to an HTTP server of the test's own.

use std::collections::VecDeque;
use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opmas::model::Decided;
use serde_json::{Value, json};

use crate::http::{Reply, Request, say, say_json, serve_on};
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
        Server::on(TcpListener::bind("127.0.0.1:0").unwrap(), answers)
    }

    fn on(listener: TcpListener, answers: impl IntoIterator<Item = Reply>) -> Server {
        let port = listener.local_addr().unwrap().port();
        let (requests, answers) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>())));
        let (asked, left) = (requests.clone(), answers.clone());
        serve_on(listener, 1_000, move |request| {
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
    station_to(server.port, endpoint, script)
}

fn station_to(port: u16, endpoint: &str, script: &str) -> Station {
    let station = Station::new();
    let header = "title = 'x'\non = { severity = 5 }\nmode = 'auto'\nactions = ['http_request']";
    fs::write(station.dir.join("playbooks/ask.rhai"), format!("/*---\n{header}\n---*/\n{script}\n")).unwrap();
    fs::write(station.dir.join("token"), format!("Bearer {TOKEN}\n")).unwrap();
    let table = format!(
        "[actions]\nhttp_request = 'auto'\n[guard]\nprotect = ['10.9.0.0/16']\n[endpoint.ipam]\nurl = 'http://127.0.0.1:{}/hosts/{{ip}}/notes'\n\
         secrets = {{ Authorization = {{ file = 'token' }} }}\nguarded = ['ip']\n{endpoint}\n",
        port
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
    // It is no ssh, and there is no device.
    let story = station.run(&["playbook", "show", run["run"].as_str().unwrap()]).1;
    let lines = format!("\n  POST http://127.0.0.1:{}/hosts/10.0.0.0/notes\n      Authorization: [secret]\n", server.port);
    assert!(story.contains(&lines) && shown.contains(&lines), "{story}{shown}");
    for told in [&story, &shown, &station.log()] {
        assert!(told.contains("http_request") && !told.contains("ssh ") && !told.contains("opmas itself"), "{told}");
    }
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

/// What the ledger says of attempts, tries and outcomes, in its order.
fn moves(station: &Station) -> Vec<String> {
    let told = |one: Decided| match one {
        Decided::Attempt { attempt, .. } => Some(format!("attempt {attempt}")),
        Decided::Tried { attempt, detail, .. } => Some(format!("tried {attempt}: {detail}")),
        Decided::Outcome { outcome, .. } => Some(format!("{}: {}", outcome.state.word(), outcome.detail)),
        _ => None,
    };
    station.decided().into_iter().filter_map(told).collect()
}

fn attempts(station: &Station) -> u32 {
    let run = runs(station, "running").first().map(|run| run["run"].as_str().unwrap().to_owned());
    let story = run.map(|run| station.run(&["playbook", "show", &run, "--json"]).1);
    story.map_or(0, |story| u32::try_from(serde_json::from_str::<Value>(&story).unwrap()["steps"][0]["attempts"].as_u64().unwrap_or(0)).unwrap())
}

#[test]
fn o7_tries_that_never_left_go_on_over_kill_term_and_pause() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut station = station_to(port, "", r#"print(http_request("ipam", #{ ip: "192.0.2.7" }).state);"#);
    armed(&mut station);
    // Between two tries: the pause after the second lasts two seconds, after the third four.
    eventually(SOON, "it is tried", || attempts(&station) >= 2 && moves(&station).last().is_some_and(|last| last.starts_with("tried")));
    station.kill();
    let before = moves(&station);
    station.start();
    eventually(SOON, "it goes on being tried", || attempts(&station) as usize > before.len() / 2);
    station.terminate();
    station.start();
    let id = runs(&station, "running").remove(0)["run"].as_str().unwrap().to_owned();
    eventually(SOON, "it goes on once more", || attempts(&station) as usize > before.len() / 2 + 1);
    assert_eq!(station.run(&["playbook", "pause", &id]).0, Some(0));
    eventually(SOON, "it is held", || runs(&station, "paused").len() == 1);
    let server = Server::on(TcpListener::bind(("127.0.0.1", port)).unwrap(), []);
    assert_eq!(station.run(&["playbook", "resume", &id]).0, Some(0));
    eventually(SOON, "it is done", || runs(&station, "done").len() == 1);
    assert_eq!(server.asked().len(), 1);
    let told = moves(&station);
    for (at, pair) in told.chunks(2).enumerate() {
        let [attempt, end] = pair else { panic!("{told:?}") };
        assert_eq!(*attempt, format!("attempt {}", at + 1), "{told:?}");
        let last = at + 1 == told.len() / 2;
        assert!(end.starts_with(&if last { "done: HTTP 201".to_owned() } else { format!("tried {}: http://127.0.0.1:{port}", at + 1) }), "{told:?}");
    }
}

#[test]
fn o7_only_the_attempt_that_was_under_way_is_unknown_and_a_term_waits_for_it() {
    let server = Server::new([say("429 Too Many Requests\r\n\r\n"), Reply::Silence]);
    let mut station = station(&server, "", r#"http_request("ipam", #{ ip: "192.0.2.7" });"#);
    armed(&mut station);
    eventually(SOON, "the second try is under way", || server.asked().len() == 2);
    station.kill();
    station.start();
    eventually(SOON, "it asks a person", || runs(&station, "waiting").len() == 1);
    let told = moves(&station);
    assert!(
        matches!(told.as_slice(), [a, tried, b, unknown] if (&**a, &**b) == ("attempt 1", "attempt 2") && tried.contains("429") && unknown.starts_with("unknown: opmas ended before its answer came")),
        "{told:?}"
    );
    assert_eq!(server.asked().len(), 2);

    // An end that is asked for waits for what is under way, as far as its timeout.
    let server = Server::new([Reply::Silence]);
    let mut station = self::station(&server, "timeout = '4s'", r#"http_request("ipam", #{ ip: "192.0.2.7" });"#);
    armed(&mut station);
    eventually(SOON, "it is asked", || server.asked().len() == 1);
    station.terminate();
    let told = moves(&station);
    assert!(matches!(told.as_slice(), [_, unknown] if unknown.starts_with("unknown: its answer was lost")), "{told:?}");
    station.start();
    eventually(SOON, "it asks a person", || runs(&station, "waiting").len() == 1);
    assert!(runs(&station, "waiting")[0]["reason"].as_str().unwrap().contains("its answer was lost"));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn o7_a_person_who_looked_says_what_became_of_a_request_and_the_reason_stays_until_then() {
    let server = Server::new([Reply::Reset]);
    let script = r#"let told = http_request("ipam", #{ ip: "192.0.2.7" }); print(`${told.state} ${told.ok} ${told.detail}`);"#;
    let mut station = station(&server, "", script);
    armed(&mut station);
    eventually(SOON, "it asks a person", || runs(&station, "waiting").len() == 1);
    let waiting = runs(&station, "waiting").remove(0);
    let (id, reason) = (waiting["run"].as_str().unwrap().to_owned(), waiting["reason"].as_str().unwrap().to_owned());
    assert!(reason.contains("its answer was lost: ") && reason.contains(&format!("opmas playbook resume {id} --done")), "{reason}");
    for again in [false, true] {
        if again {
            station.kill();
            station.start();
        }
        let (code, said) = station.run(&["playbook", "resume", &id]);
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(runs(&station, "waiting").remove(0)["reason"], *reason, "the true reason stays");
    }
    let (code, said) = station.run(&["playbook", "resume", &id, "--done", "--because", "it is in the ipam"]);
    assert_eq!(code, Some(0), "{said}");
    eventually(SOON, "it ends", || runs(&station, "done").len() == 1);
    let end = runs(&station, "done").remove(0)["reason"].as_str().unwrap().to_owned();
    assert!(end.contains("done true found done by root: it is in the ipam"), "{end}");
    assert_eq!(station.run(&["playbook", "resume", &id, "--done"]).0, Some(2), "once");
    let told = moves(&station);
    assert!(
        matches!(told.as_slice(), [_, unknown, done] if unknown.starts_with("unknown: its answer was lost") && done == "done: found done by root: it is in the ipam"),
        "{told:?}"
    );
    assert_eq!(server.asked().len(), 1);

    // It did not come there: it is sent once more, under its key.
    let server = Server::new([Reply::Reset, Reply::Reset]);
    let mut station = self::station(&server, "", script);
    armed(&mut station);
    for times in 1..=2 {
        eventually(SOON, "it asks a person", || runs(&station, "waiting").len() == 1 && server.asked().len() == times);
        let id = runs(&station, "waiting").remove(0)["run"].as_str().unwrap().to_owned();
        let (code, said) = station.run(&["playbook", "resume", &id, "--again", "--because", "it is not there"]);
        assert_eq!(code, Some(0), "{said}");
    }
    eventually(SOON, "it is done", || runs(&station, "done").len() == 1);
    let asked = server.asked();
    assert!(asked.len() == 3 && asked.iter().all(|one| *one == asked[0]), "{asked:?}");
    let told = moves(&station);
    assert!(told.contains(&"tried 1: attempted once more by root: it is not there".to_owned()), "{told:?}");
}
