//! A whole site: a router, opmas in the manager's namespace with its configuration, a mail server and a webhook receiver.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::router::{OPMAS, ROUTER, Router, eventually};

/// The secret that webhooks are signed with, as Standard Webhooks writes it: base64 of what follows `whsec_`.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// One webhook request.
#[derive(Clone, Debug)]
pub struct Hook {
    /// When it had been read.
    #[allow(dead_code, reason = "the benchmark reads it")]
    pub at: std::time::SystemTime,
    pub id: String,
    pub genuine: bool,
    pub body: Value,
}

pub struct Site {
    pub router: Router,
    /// The configuration's folder.
    pub dir: PathBuf,
    hooks: Arc<Mutex<Vec<Hook>>>,
    mail: Child,
    opmas: Option<Child>,
}

impl Site {
    /// Everything but opmas itself: configured, enrolled, not started. `source` is the `[source.…]` table, `hold` how long a block lasts.
    pub fn new(source: &str, hold: &str) -> Site {
        let router = Router::up();
        let dir = router.dir.path().join("site");
        assert!(router.opmas(router.dir.path(), &["init", "site"]).status.success());
        let settings = format!("posture = 'armed'\n[actions]\nblock_ip = 'auto'\n{source}\n[lease]\nverify_every = '1s'\n");
        fs::write(dir.join("opmas.toml"), settings).unwrap();
        let playbook = dir.join("playbooks/block_source.rhai");
        let script = fs::read_to_string(&playbook).unwrap().replace("\"1h\"", &format!("\"{hold}\""));
        fs::write(playbook, script).unwrap();
        fs::write(dir.join("notifiers/routes.toml"), "[[route]]\nname = 'urgent'\nmatch = { severity = '>=4' }\nchannels = ['email', 'webhook']\n").unwrap();
        let email = "integration = 'email'\nhost = '127.0.0.1'\nport = 2525\ntls = 'none'\nfrom = 'opmas@example.org'\nto = ['ann@example.org']\n";
        fs::write(dir.join("notifiers/email.toml"), email).unwrap();
        let webhook = "integration = 'webhook'\nurl = 'http://127.0.0.1:8099/hook'\nsecret_file = 'secret'\n";
        fs::write(dir.join("notifiers/webhook.toml"), webhook).unwrap();
        fs::write(dir.join("secret"), SECRET).unwrap();
        let mail = mail_server(&router);
        let hooks = Arc::new(Mutex::new(Vec::new()));
        let listener = router.inside("mg", || TcpListener::bind("127.0.0.1:8099").unwrap());
        let kept = hooks.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| take(stream, &kept)));
        let site = Site { router, dir, hooks, mail, opmas: None };
        site.enrol();
        site
    }

    fn enrol(&self) {
        let added = self.router.opmas(&self.dir, &["device", "add", &format!("root@{ROUTER}"), "--name", "ap1", "--yes"]);
        let said = String::from_utf8_lossy(&added.stdout).into_owned();
        assert!(added.status.success(), "{said}{}", String::from_utf8_lossy(&added.stderr));
        let line = said.lines().find(|line| line.contains("ssh-ed25519 ") && !line.starts_with(' ')).expect("the line for authorized_keys");
        self.router.allow(line);
    }

    /// Starts opmas and waits until it is ready.
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.join("opmas.log")).unwrap();
        let mut command = self.router.command("mg", OPMAS);
        command.arg("run").current_dir(&self.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.opmas = Some(command.spawn().unwrap());
        eventually(Duration::from_secs(30), &format!("opmas is not ready; see {}", self.log()), || {
            self.ready().is_some_and(|ready| ready["status"] != "not_ready")
        });
    }

    /// What `/readyz` says.
    pub fn ready(&self) -> Option<Value> {
        serde_json::from_str(&self.http("/readyz")?).ok()
    }

    /// A page of opmas.
    pub fn http(&self, path: &str) -> Option<String> {
        self.router.inside("mg", || {
            let mut stream = TcpStream::connect("127.0.0.1:9320").ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
        })
    }

    /// The value of a metric, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.http("/metrics").unwrap_or_default();
        let lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Ends opmas at once.
    pub fn kill(&mut self) {
        let mut opmas = self.opmas.take().unwrap();
        opmas.kill().unwrap();
        opmas.wait().unwrap();
    }

    /// Ends opmas as a service manager does; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut opmas = self.opmas.take().unwrap();
        let pid = rustix::process::Pid::from_child(&opmas);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        opmas.wait().unwrap().code()
    }

    /// Webhook requests so far.
    pub fn hooks(&self) -> Vec<Hook> {
        self.hooks.lock().unwrap().clone()
    }

    /// Mails so far, as they came.
    pub fn mails(&self) -> Vec<String> {
        let file = |n: u32| fs::read_to_string(self.router.dir.path().join("mail").join(format!("{n}.json"))).ok();
        (1..).map_while(file).map(|text| serde_json::from_str::<Value>(&text).unwrap()["content"].as_str().unwrap().to_owned()).collect()
    }

    /// The addresses that the router blocks now.
    pub fn blocked(&self) -> Vec<String> {
        let listed = self.router.command("rt", "nft").args(["-j", "list", "table", "inet", "opmas"]).output().unwrap();
        let Ok(table) = serde_json::from_slice::<Value>(&listed.stdout) else { return Vec::new() };
        let sets = table["nftables"].as_array().unwrap().iter().filter_map(|one| one["set"]["elem"].as_array());
        let mut found: Vec<String> = sets.flatten().map(|elem| elem["elem"]["val"].as_str().unwrap().to_owned()).collect();
        found.sort();
        found
    }

    /// The log of opmas, for a failed test.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("opmas.log")).unwrap_or_default()
    }

    /// Runs a command of opmas in the configuration's folder: exit code and what it said.
    pub fn command(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.router.opmas(&self.dir, args);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(mut opmas) = self.opmas.take() {
            let _ = opmas.kill();
            let _ = opmas.wait();
        }
        let _ = self.mail.kill();
        let _ = self.mail.wait();
        if std::thread::panicking() {
            eprintln!("the log of opmas:\n{}", self.log());
        }
    }
}

fn mail_server(router: &Router) -> Child {
    let dir = router.dir.path().join("mail");
    fs::create_dir(&dir).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/smtp.sh");
    let mut command: Command = router.command("mg", script);
    let mut child = command.args(["run", "--port", "2525", "--dir", dir.to_str().unwrap()]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready"), "the SMTP server is there (tests/services/smtp.sh install): {line}");
    child
}

/// Reads one request, checks its signature by the Standard Webhooks text, answers 200.
fn take(mut stream: TcpStream, kept: &Mutex<Vec<Hook>>) {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|n| n > 0) && line.trim() != "" {
        if let Some((name, value)) = line.trim().split_once(": ") {
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        line.clear();
    }
    let Some(length) = headers.get("content-length").and_then(|n| n.parse().ok()) else { return };
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let key = base64::engine::general_purpose::STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes());
    mac.update(&body);
    let expected = format!("v1,{}", base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes()));
    let hook = Hook {
        at: std::time::SystemTime::now(),
        id: header("webhook-id"),
        genuine: header("webhook-signature") == expected,
        body: serde_json::from_slice(&body).unwrap(),
    };
    kept.lock().unwrap().push(hook);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}
