//! A whole site: a router, opmas in the manager's namespace with its configuration, a mail server, a webhook receiver, Slack and PagerDuty.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::incidents::{self, Incident, Incidents};
use crate::program::Program;
use crate::router::{ROUTER, Router};
use crate::workspace::{TOKEN, Workspace, shown};

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
    /// Ended before the router goes.
    program: Program,
    pub router: Router,
    hooks: Arc<Mutex<Vec<Hook>>>,
    pub slack: Workspace,
    pub pagerduty: Incidents,
    mail: Child,
}

impl Site {
    /// Everything but opmas itself: configured, enrolled, not started. `source` is the `[source.…]` table, `hold` how long a block lasts.
    pub fn new(source: &str, hold: &str) -> Site {
        Site::of(Router::up(), source, hold)
    }

    /// The same, of a router with another firewall.
    pub fn of(router: Router, source: &str, hold: &str) -> Site {
        let dir = router.dir.path().join("site");
        assert!(router.opmas(router.dir.path(), &["init", "site"]).status.success());
        let settings = format!("posture = 'armed'\n[actions]\nblock_ip = 'auto'\n{source}\n[lease]\nverify_every = '1s'\n");
        fs::write(dir.join("opmas.toml"), settings).unwrap();
        let playbook = dir.join("playbooks/block_source.rhai");
        let script = fs::read_to_string(&playbook).unwrap().replace("\"1h\"", &format!("\"{hold}\""));
        fs::write(playbook, script).unwrap();
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
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let slack = Workspace::on(router.inside("mg", bind));
        fs::write(dir.join("notifiers/slack.toml"), slack.file("")).unwrap();
        fs::write(dir.join("token"), TOKEN).unwrap();
        let listener = router.inside("mg", bind);
        fs::write(dir.join("notifiers/pagerduty.toml"), incidents::file(listener.local_addr().unwrap().port(), "")).unwrap();
        fs::write(dir.join("key"), incidents::KEY).unwrap();
        let pagerduty = incidents::start_on(listener, 0);
        let program = Program::new(&dir, 9320, Some(router.namespace("mg")));
        let site = Site { program, router, hooks, slack, pagerduty, mail };
        site.resolve_after("1h");
        site.enrol();
        site
    }

    fn enrol(&self) {
        let platform = format!("openwrt-{}", self.router.firewall);
        let added = self.router.opmas(&self.dir, &["device", "add", &format!("root@{ROUTER}"), "--name", "ap1", "--platform", &platform, "--yes"]);
        let said = String::from_utf8_lossy(&added.stdout).into_owned();
        assert!(added.status.success(), "{said}{}", String::from_utf8_lossy(&added.stderr));
        let line = said.lines().find(|line| line.contains("ssh-ed25519 ") && !line.starts_with(' ')).expect("the line for authorized_keys");
        self.router.allow(line);
    }

    /// What `/readyz` says.
    pub fn ready(&self) -> Option<Value> {
        self.program.ready().map(|(_, ready)| ready)
    }

    /// Routes what is grave to all channels; it is over when nothing more comes for so long.
    pub fn resolve_after(&self, after: &str) {
        let channels = "channels = ['email', 'pagerduty', 'slack', 'webhook']";
        let routes = format!("[[route]]\nname = 'urgent'\nmatch = {{ severity = '>=4' }}\n{channels}\nresolve_after = '{after}'\n");
        fs::write(self.dir.join("notifiers/routes.toml"), routes).unwrap();
    }

    /// Webhook requests so far that something was found.
    pub fn hooks(&self) -> Vec<Hook> {
        self.hooked("finding.created")
    }

    /// Webhook requests so far, of a type.
    pub fn hooked(&self, kind: &str) -> Vec<Hook> {
        self.hooks.lock().unwrap().iter().filter(|hook| hook.body["type"] == kind).cloned().collect()
    }

    /// The messages in Slack that tell of an address's login, oldest first.
    pub fn messages(&self, address: &str) -> Vec<Value> {
        // It stands between words: 203.0.113.1 is no part of 203.0.113.10.
        self.slack.messages().into_iter().filter(|message| shown(message).contains(&format!("*About*  source: address {address}\n"))).collect()
    }

    /// The incidents about an address, by key.
    pub fn incidents(&self, address: &str) -> Vec<(String, Incident)> {
        let all = self.pagerduty.lock().unwrap().clone();
        let about = |incident: &Incident| incident.events[0]["payload"]["custom_details"]["about"]["source"] == address;
        all.into_iter().filter(|(_, incident)| about(incident)).collect()
    }

    /// Mails so far, as they came.
    pub fn mails(&self) -> Vec<String> {
        let file = |n: u32| fs::read_to_string(self.router.dir.path().join("mail").join(format!("{n}.json"))).ok();
        (1..).map_while(file).map(|text| serde_json::from_str::<Value>(&text).unwrap()["content"].as_str().unwrap().to_owned()).collect()
    }

    /// The addresses that the router blocks now.
    pub fn blocked(&self) -> Vec<String> {
        if self.router.firewall == "fw3" {
            return self.router.sh("rt", "ipset save | sed -n 's/^add opmas_hosts[46] \\([^ ]*\\).*/\\1/p' | sort").lines().map(str::to_owned).collect();
        }
        let listed = self.router.command("rt", "nft").args(["-j", "list", "table", "inet", "opmas"]).output().unwrap();
        let Ok(table) = serde_json::from_slice::<Value>(&listed.stdout) else { return Vec::new() };
        let sets = table["nftables"].as_array().unwrap().iter().filter_map(|one| one["set"]["elem"].as_array());
        let mut found: Vec<String> = sets.flatten().map(|elem| elem["elem"]["val"].as_str().unwrap().to_owned()).collect();
        found.sort();
        found
    }
}

impl Deref for Site {
    type Target = Program;
    fn deref(&self) -> &Program {
        &self.program
    }
}

impl DerefMut for Site {
    fn deref_mut(&mut self) -> &mut Program {
        &mut self.program
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = self.mail.kill();
        let _ = self.mail.wait();
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
