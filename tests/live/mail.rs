//! Mail to a real SMTP server (aiosmtpd): what arrives, what an answer means, and what never leaks.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use opmas::alert::{Answer, Channels, Failure, Notice, SendError};
use opmas::diag::SourceFile;
use opmas::model::{Finding, Time};
use serde_json::Value;
use tempfile::TempDir;

use crate::certificates;

/// The server; ends with the test.
struct Server {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Server {
    fn start(options: &[&str]) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/smtp.sh");
        let mut child = Command::new(script)
            .args(["run", "--dir", dir.path().to_str().unwrap()])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/services/smtp.sh starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("ready ").expect("the SMTP server is there (tests/services/smtp.sh install)").parse().unwrap();
        Server { child, port, dir }
    }

    fn kept(&self) -> Vec<Value> {
        let file = |n: u32| std::fs::read_to_string(self.dir.path().join(format!("{n}.json"))).ok();
        (1..).map_while(file).map(|text| serde_json::from_str(&text).unwrap()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn finding() -> Finding {
    serde_json::from_str(include_str!("../data/finding.json")).unwrap()
}

fn channels(port: u16, more: &str) -> Channels {
    let text = format!(
        "integration = 'email'\nhost = '127.0.0.1'\nport = {port}\nfrom = 'opmas <opmas@example.org>'\nto = ['ann@example.org', 'bob@example.org']\n{more}"
    );
    let loaded = Channels::load(&[SourceFile { name: "notifiers/mail.toml".into(), text: text.into() }], "".as_ref());
    assert_eq!(loaded.diagnostics, []);
    loaded.channels
}

async fn send(channels: &Channels, finding: Finding) -> Result<Answer, SendError> {
    let now = Time::parse_rfc3339("2026-11-21T13:09:00Z").unwrap();
    let notice = Notice::of_findings(vec![Arc::new(finding)], "urgent", "mail", now, vec!["block_ip on router1: enforced".into()]);
    channels.get("mail").unwrap().prepare(&notice, "d1d1d1", now).await?.send().await
}

/// Headers, text and HTML as Python's own mail parser reads them: a second reader of what we wrote.
fn parsed(mail: &Value) -> Value {
    let script = "
import email, email.policy, json, sys
m = email.message_from_string(sys.stdin.read(), policy=email.policy.default)
print(json.dumps({'headers': [[k, str(v)] for k, v in m.items()], 'defects': [str(d) for d in m.defects],
  'text': m.get_body(('plain',)).get_content(), 'html': m.get_body(('html',)).get_content(), 'parts': len(list(m.iter_parts()))}))";
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mail");
    std::fs::write(&file, mail["content"].as_str().unwrap()).unwrap();
    let out = Command::new("python3").args(["-c", script]).stdin(std::fs::File::open(file).unwrap()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn header<'a>(mail: &'a Value, name: &str) -> Vec<&'a str> {
    let headers = mail["headers"].as_array().unwrap().iter();
    headers.filter(|h| h[0].as_str().unwrap().eq_ignore_ascii_case(name)).map(|h| h[1].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_finding_arrives_once_with_all_that_a_person_needs() {
    let server = Server::start(&[]);
    let answer = send(&channels(server.port, "tls = 'none'"), finding()).await.unwrap();
    assert_eq!(answer.to_string(), "250 2.0.0 kept as number 1");
    let kept = server.kept();
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0]["from"].as_str(), &kept[0]["to"]), (Some("opmas@example.org"), &serde_json::json!(["ann@example.org", "bob@example.org"])));
    let mail = parsed(&kept[0]);
    assert_eq!(header(&mail, "Subject"), ["[opmas] critical: SSH login after repeated failures (router1)"]);
    assert_eq!(header(&mail, "Message-ID"), ["<d1d1d1@example.org>"]);
    assert_eq!(header(&mail, "Date"), ["Sat, 21 Nov 2026 13:09:00 +0000"]);
    assert_eq!((header(&mail, "Auto-Submitted"), header(&mail, "Importance")), (vec!["auto-generated"], vec!["high"]));
    for body in ["text", "html"] {
        let body = mail[body].as_str().unwrap();
        for said in ["203.0.113.9 failed 6 times", "Password auth succeeded", "Allow keys only.", "block_ip on router1: enforced", "d1d1d1"] {
            assert!(body.contains(said), "{said} in {body}");
        }
    }
    assert_eq!((&mail["defects"], &mail["parts"]), (&serde_json::json!([]), &serde_json::json!(2)));
}

#[tokio::test]
async fn hostile_values_add_no_header_no_recipient_and_no_part() {
    let server = Server::start(&[]);
    let channels = channels(server.port, "tls = 'none'");
    let hostile = [
        "x\r\nBcc: eve@example.org\r\nSubject: other\r\n\r\nbody",
        "x\r\n.\r\nMAIL FROM:<eve@example.org>\r\nRCPT TO:<eve@example.org>\r\nDATA\r\n",
        "\0\u{1b}]0;title\u{7}\u{202e}\u{fffd}\u{85}",
        "</pre><script>alert(1)</script>",
        "=?utf-8?q?=0D=0ABcc:_eve@example.org?=",
        "--boundary\r\nContent-Type: text/html\r\n",
        &"grün ".repeat(20_000),
        ".",
    ];
    for (n, text) in hostile.iter().enumerate() {
        let mut finding = finding();
        finding.title = (*text).into();
        finding.text = (*text).into();
        finding.device = Some((*text).into());
        finding.evidence[0].raw = (*text).into();
        finding.remediation = Some((*text).into());
        finding.group = [((*text).to_owned(), Value::String((*text).into()))].into();
        send(&channels, finding).await.unwrap();
        let kept = server.kept();
        assert_eq!(kept.len(), n + 1, "one mail each: {text:.40}");
        assert_eq!(kept[n]["to"], serde_json::json!(["ann@example.org", "bob@example.org"]));
        let content = kept[n]["content"].as_str().unwrap();
        assert!(content.is_ascii() && content.lines().all(|line| line.len() <= 998), "{text:.40}");
        let mail = parsed(&kept[n]);
        assert_eq!((mail["parts"].as_u64(), header(&mail, "Bcc").len(), header(&mail, "Subject").len()), (Some(2), 0, 1), "{text:.40}");
        assert!(header(&mail, "Subject")[0].starts_with("[opmas] critical: ") && header(&mail, "Subject")[0].chars().count() < 200);
        let names: Vec<&str> = mail["headers"].as_array().unwrap().iter().map(|h| h[0].as_str().unwrap()).collect();
        assert_eq!(names, ["From", "Date", "Message-ID", "Subject", "To", "Auto-Submitted", "Importance", "MIME-Version", "Content-Type"]);
        let text = mail["text"].as_str().unwrap().replace("\r\n", "\n");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        assert!(!mail["html"].as_str().unwrap().contains("<script"));
    }
}

fn secret(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("password");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn starttls_with_an_authority_of_ones_own_and_a_login() {
    let dir = tempfile::tempdir().unwrap();
    let made = certificates::make(dir.path());
    let (cert, key) = (made.certificate.to_str().unwrap(), made.key.to_str().unwrap());
    let server = Server::start(&["--cert", cert, "--key", key, "--user", "opmas:hunter2-hunter2"]);
    let login = format!("username = 'opmas'\npassword_file = '{}'\n", secret(&dir, "hunter2-hunter2\n").display());
    let ca = format!("ca_file = '{}'\n", made.authority.display());

    send(&channels(server.port, &format!("{login}{ca}")), finding()).await.unwrap();
    let kept = server.kept();
    assert_eq!((&kept[0]["tls"], &kept[0]["user"]), (&Value::Bool(true), &Value::String("opmas".into())));

    // An authority that the system does not know: nothing is sent, and it is tried again when the owner has seen to it.
    let error = send(&channels(server.port, &login), finding()).await.unwrap_err();
    assert_eq!(error.kind, Failure::Retryable { after: None });
    assert!(error.detail.contains("invalid peer certificate"), "{error}");

    // A wrong password; the server repeats it in its answer.
    secret(&dir, "wrong-hunter3");
    let error = send(&channels(server.port, &format!("{login}{ca}")), finding()).await.unwrap_err();
    assert_eq!(error.kind, Failure::Permanent);
    assert!(error.detail.contains("logging in") && error.detail.contains("535") && error.detail.contains("[secret]"), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter3"));

    // No password goes over a connection whose STARTTLS was taken away.
    let plain = Server::start(&["--user", "opmas:hunter2-hunter2"]);
    let error = send(&channels(plain.port, &format!("{login}{ca}")), finding()).await.unwrap_err();
    assert!(error.detail.contains("offers no STARTTLS"), "{error}");
    assert_eq!((server.kept().len(), plain.kept().len()), (1, 0));
}

#[tokio::test]
async fn implicit_tls() {
    let dir = tempfile::tempdir().unwrap();
    let made = certificates::make(dir.path());
    let server = Server::start(&["--implicit", "--cert", made.certificate.to_str().unwrap(), "--key", made.key.to_str().unwrap()]);
    send(&channels(server.port, &format!("tls = 'implicit'\nca_file = '{}'", made.authority.display())), finding()).await.unwrap();
    assert_eq!(server.kept()[0]["tls"], true);
}

#[tokio::test]
async fn what_the_server_says_decides_whether_it_is_tried_again() {
    let again = Failure::Retryable { after: None };
    let cases: [(&[&str], Failure, &str); 5] = [
        (&["--data", "451 4.3.0 come back later"], again, "451"),
        (&["--data", "554 5.7.1 looks like spam"], Failure::Permanent, "looks like spam"),
        (&["--rcpt", "*=450 4.2.0 greylisted"], again, "greylisted"),
        (&["--rcpt", "*=550 5.1.1 nobody here"], Failure::Permanent, "naming the recipient ann@example.org"),
        (&["--rcpt", "ann@example.org=550 no", "--rcpt", "bob@example.org=450 full"], again, "bob@example.org"),
    ];
    for (options, kind, said) in cases {
        let server = Server::start(options);
        let error = send(&channels(server.port, "tls = 'none'"), finding()).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.detail.contains(said), "{error}");
        assert_eq!(server.kept().len(), 0);
    }
}

#[tokio::test]
async fn one_refused_recipient_keeps_nothing_from_the_others() {
    let server = Server::start(&["--rcpt", "ann@example.org=550 5.1.1 gone"]);
    let answer = send(&channels(server.port, "tls = 'none'"), finding()).await.unwrap();
    assert_eq!(server.kept()[0]["to"], serde_json::json!(["bob@example.org"]));
    assert!(answer.to_string().contains("not to ann@example.org: permanent error (550): 5.1.1 gone"), "{answer}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_tried_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = send(&channels(port, "tls = 'none'"), finding()).await.unwrap_err();
    assert_eq!(error.kind, Failure::Retryable { after: None });
    assert!(error.detail.starts_with(&format!("127.0.0.1:{port}: connecting: ")) && error.detail.contains("refused"), "{error}");
}

/// A server that accepts the connection and never speaks.
#[tokio::test]
async fn a_silent_server_is_given_up_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = send(&channels(silent.local_addr().unwrap().port(), "tls = 'none'\ntimeout = '300ms'"), finding()).await.unwrap_err();
    assert_eq!(error.kind, Failure::Retryable { after: None });
    assert!(error.detail.contains("did not answer within 300ms"), "{error}");
}

#[tokio::test]
async fn o7_a_mail_whose_answer_was_lost_is_ambiguous() {
    for (after, said) in [("close", "the answer was lost"), ("silence", "nothing within 500ms")] {
        let server = Server::start(&["--after", after]);
        let error = send(&channels(server.port, "tls = 'none'\ntimeout = '500ms'"), finding()).await.unwrap_err();
        assert_eq!(error.kind, Failure::Ambiguous, "{error}");
        assert!(error.detail.contains(said), "{error}");
        assert_eq!(server.kept().len(), 1, "it had arrived");
    }
}

/// What is prepared and not sent has not arrived: the attempt can be recorded in between.
#[tokio::test]
async fn o7_a_prepared_mail_is_not_sent() {
    let server = Server::start(&[]);
    let channels = channels(server.port, "tls = 'none'");
    let notice = Notice::of_findings(vec![Arc::new(finding())], "urgent", "mail", Time(0), vec![]);
    let prepared = channels.get("mail").unwrap().prepare(&notice, "d1", Time(0)).await.unwrap();
    drop(prepared);
    send(&channels, finding()).await.unwrap();
    assert_eq!(server.kept().len(), 1);
}

/// Runs the program itself: exit code, standard output, standard error.
fn opmas(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).current_dir(dir).env_remove("OPMAS_TEST_PASSWORD").output().unwrap();
    (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn x1_channel_test_sends_a_marked_message_and_says_what_was_answered() {
    let server = Server::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("notifiers")).unwrap();
    let write = |name: &str, more: &str| {
        let text = format!("integration = 'email'\nhost = '127.0.0.1'\nfrom = 'opmas@example.org'\nto = ['ann@example.org']\ntls = 'none'\n{more}");
        std::fs::write(dir.path().join("notifiers").join(name), text).unwrap();
    };
    write("good.toml", &format!("port = {}", server.port));
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    write("dead.toml", &format!("port = {dead}"));
    write("off.toml", "enabled = false");
    write("login.toml", "username = 'u'\npassword_env = 'OPMAS_TEST_PASSWORD'");
    write("bad.toml", "hots = 1");

    let (code, out, _) = opmas(dir.path(), &["channel", "test", "good"]);
    assert_eq!((code, out.trim()), (0, format!("good: 127.0.0.1:{} accepted the test message: 250 2.0.0 kept as number 1", server.port).as_str()));
    let mail = parsed(&server.kept()[0]);
    assert_eq!(header(&mail, "Subject"), ["[opmas] test of channel good"]);
    assert!(mail["text"].as_str().unwrap().contains("Nothing was found"));

    let expected = [
        ("dead", 4, "channel dead: 127.0.0.1:"),
        ("off", 3, "notifiers/off.toml:6:11: channel off is disabled"),
        ("login", 3, "notifiers/login.toml: the environment variable OPMAS_TEST_PASSWORD is not set"),
        ("bad", 3, "notifiers/bad.toml:6:1: unknown key `hots`; did you mean `host`?"),
        ("none", 2, "no channel is named `none`; known: bad, dead, good, login, off"),
    ];
    for (name, exit, said) in expected {
        let (code, out, error) = opmas(dir.path(), &["channel", "test", name]);
        assert_eq!((code, out.as_str()), (exit, ""), "{name}: {error}");
        assert!(error.starts_with(&format!("opmas: {said}")) && error.lines().count() == 1, "{error}");
    }
    let (code, out, error) = opmas(dir.path(), &["channel", "list", "--json"]);
    let listed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, listed.as_array().unwrap().len(), listed[1]["name"].as_str(), listed[3]["enabled"].as_bool()), (0, 4, Some("good"), Some(false)));
    assert!(error.contains("notifiers/bad.toml:6:1"));
    assert_eq!(server.kept().len(), 1);
}

/// The server's process is gone with the test, also when standard input is all that tells it.
#[test]
fn the_server_ends_with_its_standard_input() {
    let mut server = Server::start(&[]);
    drop(server.child.stdin.take());
    let mut rest = Vec::new();
    if let Some(mut out) = server.child.stdout.take() {
        out.read_to_end(&mut rest).unwrap();
    }
    assert!(server.child.wait().unwrap().success());
}
