//! A person's hand: an opmas that asks, is answered by commands and over HTTP, is told its posture, and forgets nothing over `kill -9`.
//! Its one device refuses connections, so that nothing can be carried out.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Asking {
    dir: tempfile::TempDir,
    port: u16,
    opmas: Option<Child>,
}

const TOKEN: &str = "a-long-random-word";

impl Asking {
    fn new(settings: &str, header: &str) -> Asking {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let asking = Asking { dir, port, opmas: None };
        let source = "[actions]\nblock_ip = 'auto'\n[source.router]\ntype = 'file'\npath = 'router.log'\n";
        asking.write("opmas.toml", &format!("{settings}\n{source}[http]\nlisten = '127.0.0.1:{port}'\n"));
        asking.write("devices.toml", "[[device]]\nname = 'ap1'\nhost = '127.0.0.1'\nport = 1\n");
        asking.write("router.log", "");
        let shipped = include_str!("../../playbooks/block_source.rhai");
        asking.write("playbooks/block_source.rhai", &shipped.replace("timeout = \"10m\"", header));
        asking.write("playbooks/actions/block_ip.toml", include_str!("../../playbooks/actions/block_ip.toml"));
        asking
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("opmas.err")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
        command.arg("run").current_dir(self.dir.path()).env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let log = self.path("opmas.err");
        let ready = || fs::read_to_string(&log).unwrap().matches(" ready").count();
        let before = ready();
        self.opmas = Some(command.spawn().unwrap());
        eventually("opmas is not ready", || ready() > before);
    }

    fn kill(&mut self) {
        let mut opmas = self.opmas.take().unwrap();
        opmas.kill().unwrap();
        opmas.wait().unwrap();
    }

    /// Someone guesses a password and gets in.
    fn attack(&self, address: &str) {
        let failures = "<84>Nov 21 13:08:12 ap1 dropbear[27411]: Bad password attempt for 'root' from ADDRESS:50876\n".repeat(6);
        let all = failures + "<85>Nov 21 13:08:14 ap1 dropbear[27421]: Password auth succeeded for 'root' from ADDRESS:50880\n";
        let mut log = fs::OpenOptions::new().append(true).open(self.path("router.log")).unwrap();
        log.write_all(all.replace("ADDRESS", address).as_bytes()).unwrap();
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args(args).current_dir(self.dir.path()).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref())
    }

    /// What is well.
    fn ok(&self, args: &[&str]) -> String {
        let (code, said) = self.run(args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
        said
    }

    /// Runs that stand there, the newest first.
    fn runs(&self, state: &str) -> Vec<Value> {
        self.ok(&["playbook", "runs", "--state", state, "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one run that stands there, soon.
    fn one(&self, state: &str) -> Value {
        eventually(state, || self.runs(state).len() == 1);
        self.runs(state).remove(0)
    }

    fn http(&self, method: &str, path: &str, token: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let authorisation = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let length = body.len();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{authorisation}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.opmas.is_some() {
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.path("opmas.err")).unwrap_or_default());
        }
    }
}

fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_else(|| panic!("{key} of {row}"))
}

#[test]
fn a_run_asks_with_its_exact_plan_over_a_crash_and_is_denied_or_approved_by_commands() {
    let mut asking = Asking::new("posture = 'guarded'", "timeout = \"10m\"");
    asking.start();
    asking.attack("203.0.113.9");
    let run = asking.one("waiting");
    let id = text(&run, "run").to_owned();
    assert!(
        text(&run, "reason").contains(&format!("to carry out block_ip duration=1h ip=203.0.113.9 on ap1: opmas approve {id}, or opmas deny {id}")),
        "{run}"
    );
    asking.kill();
    assert_eq!(asking.run(&["approve", &id]).0, Some(4), "no opmas runs");
    asking.start();
    let shown = asking.ok(&["playbook", "show", &id[..6]]);
    assert!(shown.contains("asks until") && shown.contains("ssh ap1  'nft' '-f' '-'") && shown.contains("203.0.113.9 timeout 3600s"), "{shown}");
    for (args, why) in [
        (&["deny", "ffffffffffffffff"][..], "no run that has not ended"),
        (&["approve", ""], "too short"),
        (&["playbook", "resume", &id], "waits for an answer"),
        (&["playbook", "pause", &id], "waits already"),
    ] {
        let (code, said) = asking.run(args);
        assert!(code == Some(2) && said.contains(why), "{args:?}: {said}");
    }
    asking.ok(&["deny", &id[..6], "--because", "it is mine"]);
    let denied = asking.one("cancelled");
    assert!(text(&denied, "reason").starts_with("denied by ") && text(&denied, "reason").ends_with(": it is mine"), "{denied}");
    assert!(asking.ok(&["playbook", "show", &id]).contains("refused at"));
    assert_eq!(asking.run(&["deny", &id]).0, Some(2), "once");

    asking.attack("203.0.113.10");
    let run = asking.one("waiting");
    asking.ok(&["approve", text(&run, "run"), "--because", "seen"]);
    // Its device cannot be reached, so it waits; a person gives up.
    eventually("it waits for its device", || fs::read_to_string(asking.path("opmas.err")).unwrap().contains("a step waits device=ap1"));
    assert!(asking.ok(&["playbook", "show", text(&run, "run")]).contains("approved by "));
    asking.ok(&["playbook", "pause", text(&run, "run")]);
    asking.one("paused");
    asking.kill();
    asking.start();
    asking.ok(&["playbook", "resume", text(&run, "run")]);
    asking.one("running");
    asking.ok(&["playbook", "pause", text(&run, "run")]);
    asking.one("paused");
    asking.ok(&["playbook", "cancel", text(&run, "run")]);
    eventually("cancelled", || asking.runs("cancelled").len() == 2);
    asking.ok(&["audit", "verify"]);
}

#[test]
fn answers_over_http_need_a_token_and_are_named_after_it() {
    let mut asking = Asking::new("posture = 'armed'", "timeout = \"10m\"");
    asking.start();
    // The file is a verified source: only the posture says that a person is asked.
    asking.ok(&["posture", "guarded", "--because", "a visitor"]);
    asking.attack("203.0.113.9");
    let id = text(&asking.one("waiting"), "run").to_owned();
    let (code, answer) = asking.http("POST", &format!("/api/v1/runs/{id}/approve"), TOKEN, "");
    assert_eq!(code, 403);
    assert!(text(&answer, "error").contains("[api.token.NAME]"), "{answer}");
    asking.kill();
    asking.write("secrets/ann", TOKEN);
    let settings = fs::read_to_string(asking.path("opmas.toml")).unwrap();
    asking.write("opmas.toml", &(settings + "[api.token.ann]\nfile = 'secrets/ann'\n"));
    asking.start();
    let post = |id: &str, word: &str, token: &str, body: &str| asking.http("POST", &format!("/api/v1/runs/{id}/{word}"), token, body).0;
    assert_eq!(post(&id, "deny", "", ""), 401);
    assert_eq!(post(&id, "deny", "another", ""), 401);
    for other in ["ffff", "0123456789abcdef", &id[..1], &id[..15]] {
        assert_eq!(post(other, "deny", TOKEN, ""), 404, "{other}: only a whole id names a run here");
    }
    let (code, said) = asking.run(&["deny", &id[..3]]);
    assert!(code == Some(2) && said.contains("4 characters of it at least"), "{said}");
    assert_eq!(post(&id, "burn", TOKEN, ""), 404);
    assert_eq!(post(&id, "deny", TOKEN, "{\"becaus\": 1}"), 400);
    assert_eq!(asking.http("GET", &format!("/api/v1/runs/{id}/deny"), TOKEN, "").0, 405);
    let get = |id: &str, token: &str| asking.http("GET", &format!("/api/v1/runs/{id}"), token, "");
    let (code, run) = get(&id, TOKEN);
    assert!(code == 200 && run["run"]["run"] == *id && run["run"]["state"] == "waiting", "{code} {run}");
    assert_eq!((get(&id[..8], TOKEN).0, get("0123456789abcdef", TOKEN).0, get(&id, "wrong").0), (404, 404, 401));
    assert_eq!(asking.runs("waiting").len(), 1, "nothing of this was an answer");
    assert_eq!(post(&id, "deny", TOKEN, "{\"because\": \"not now\"}"), 200);
    assert_eq!(text(&asking.one("cancelled"), "reason"), "denied by token ann: not now");
    let (code, answer) = asking.http("POST", &format!("/api/v1/runs/{id}/deny"), TOKEN, "");
    assert!(code == 409 && text(&answer, "error").ends_with("it is cancelled"), "{code} {answer}");
    // A second one on the folder hears what is in its way, though the port is taken as well.
    let (code, said) = asking.run(&["run"]);
    assert!(code == Some(3) && said.contains("is held by another opmas"), "{said}");
}

#[test]
fn no_answer_in_time_is_a_no_also_when_the_time_ends_while_nothing_runs() {
    let mut asking = Asking::new("posture = 'guarded'", "approve_within = \"4s\"");
    asking.start();
    asking.attack("203.0.113.9");
    assert_eq!(text(&asking.one("cancelled"), "reason"), "nobody approved it in time");
    asking.attack("203.0.113.10");
    asking.one("waiting");
    asking.kill();
    std::thread::sleep(Duration::from_secs(5));
    asking.start();
    eventually("both are over", || asking.runs("cancelled").len() == 2);
}

#[test]
fn the_posture_is_set_by_hand_told_of_kept_and_falls_back_by_itself() {
    let mut asking = Asking::new("posture = 'guarded'", "timeout = \"10m\"");
    asking.start();
    let posture = || serde_json::from_str::<Value>(&asking.ok(&["posture", "--json"])).unwrap();
    assert_eq!(posture()["effective"], "guarded");
    for args in [&["posture", "armed"][..], &["posture", "armed", "--for", "1h"], &["posture", "armed", "--for", "2d", "--because", "x"]] {
        let (code, said) = asking.run(args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
    }
    asking.attack("203.0.113.9");
    let run = asking.one("waiting");
    asking.ok(&["posture", "observe", "--because", "it blocks the wrong ones"]);
    assert_eq!(posture()["effective"], "observe");
    let (code, said) = asking.run(&["approve", text(&run, "run")]);
    assert_eq!(code, Some(2));
    assert!(said.contains("goes on waiting") && said.contains("posture is observe"), "{said}");
    asking.attack("203.0.113.10");
    let shown = asking.one("done");
    let reason = text(&shown, "reason");
    assert!(reason.contains("203.0.113.10 on ap1: planned, only shown: posture is observe") && !reason.contains("enforced"), "{reason}");
    assert!(asking.ok(&["playbook", "show", text(&shown, "run")]).contains("planned at"));
    asking.kill();
    asking.start();
    let posture = || serde_json::from_str::<Value>(&asking.ok(&["posture", "--json"])).unwrap();
    assert_eq!(posture()["effective"], "observe", "kept");
    let ready = asking.http("GET", "/readyz", "", "").1;
    assert!(ready.to_string().contains("the posture is observe, by ") && ready["status"] != "not_ready", "{ready}");
    asking.ok(&["posture", "armed", "--for", "3s", "--because", "maintenance"]);
    assert_eq!(posture()["effective"], "armed");
    eventually("it falls back", || posture()["effective"] == "guarded");
    eventually("it is recorded who ended it", || posture()["standing"]["last"]["by"] == "opmas");
    // Another one runs out while nothing runs.
    asking.ok(&["posture", "armed", "--for", "2s", "--because", "maintenance"]);
    asking.kill();
    std::thread::sleep(Duration::from_secs(3));
    asking.start();
    assert_eq!(serde_json::from_str::<Value>(&asking.ok(&["posture", "--json"])).unwrap()["effective"], "guarded");
    eventually("people are told", || {
        let told = asking.ok(&["finding", "list", "--rule", "opmas_posture_changed", "--severity", "4", "--json"]);
        told.lines().filter(|line| line.contains("armed until")).count() >= 1
    });
    asking.ok(&["audit", "verify"]);
}

#[test]
fn a_playbook_runs_by_hand_dry_and_for_a_finding_that_is_over() {
    let mut asking = Asking::new("posture = 'guarded'", "timeout = \"10m\"");
    asking.start();
    asking.attack("203.0.113.9");
    let run = asking.one("waiting");
    let (id, finding) = (text(&run, "run").to_owned(), text(&run, "finding").to_owned());
    asking.ok(&["deny", &id]);
    asking.kill();
    let dry = asking.ok(&["playbook", "run", "block_source", "--finding", &finding[..8], "--dry-run"]);
    assert!(dry.contains("asks for approval to run block_ip on ap1") && dry.contains("undone by") && dry.contains("delete element"), "{dry}");
    assert_eq!(asking.run(&["playbook", "run", "block_source", "--finding", &finding]).0, Some(4));
    asking.write("playbooks/actions/unblock_ip.toml", include_str!("../../playbooks/actions/unblock_ip.toml"));
    let script = "finding.device.unblock_ip(finding.entity(\"source\"));";
    asking
        .write("playbooks/lets_in.rhai", &format!("/*---\ntitle = 'x'\non = {{ rule = 'other' }}\nmode = 'auto'\nactions = ['unblock_ip']\n---*/\n{script}\n"));
    let dry = asking.ok(&["playbook", "run", "lets_in", "--finding", &finding, "--dry-run"]);
    assert!(dry.contains("unblock_ip on ap1") && dry.contains("cannot be undone: block it again with block_ip"), "{dry}");
    asking.write("playbooks/fails.rhai", "/*---\ntitle = 'x'\non = { rule = 'other' }\nmode = 'auto'\nactions = []\n---*/\nthrow `no`;\n");
    let (code, said) = asking.run(&["playbook", "run", "fails", "--finding", &finding, "--dry-run"]);
    assert!(code == Some(1) && said.contains("playbooks/fails.rhai:7:1: no"), "{code:?} {said}");
    asking.start();
    for args in [["block_sauce", &finding], ["block_source", "ffff"]] {
        assert_eq!(asking.run(&["playbook", "run", args[0], "--finding", args[1]]).0, Some(2));
    }
    asking.ok(&["playbook", "run", "block_source", "--finding", &finding, "--because", "after all"]);
    let again = asking.one("waiting");
    assert!(text(&again, "run") != id && text(&again, "finding") == finding);
    assert!(asking.ok(&["playbook", "show", text(&again, "run")]).contains("begun by "));
    // What it is about is known after a crash, though the finding was over before.
    asking.kill();
    asking.start();
    asking.ok(&["approve", text(&again, "run")]);
    asking.one("running");
}

#[test]
fn every_function_of_scripts_is_listed_with_what_it_is() {
    let asking = Asking::new("", "timeout = \"10m\"");
    let listed = asking.ok(&["playbook", "functions"]);
    for call in [
        "finding.severity",
        "finding.entity(role)",
        "DEVICE.tags",
        "device(name)",
        "devices(#{ name, host, platform, site, tag })",
        "DEVICE.ACTION(…)",
        "print(text)",
    ] {
        assert!(listed.contains(call), "{call}: {listed}");
    }
}
