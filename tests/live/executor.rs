//! The executor against a real router: what it does there, what it refuses, and what it leaves behind.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use opmas::executor::{Client, Paths, Reply, Request, Task, enroll};
use opmas::model::{OutcomeState, Verdict};
use serde_json::{Map, Value, json};

use crate::router::{ATTACKER, ATTACKER6, MANAGER, OTHER, ROUTER, Router, eventually};

const REPO: &str = env!("CARGO_MANIFEST_DIR");

/// A router that knows our key, and a configuration folder that knows the router as `ap1`.
pub struct Lab {
    pub router: Router,
    pub base: PathBuf,
    pub paths: Paths,
}

impl Lab {
    pub fn new() -> Lab {
        Lab::of(Router::up())
    }

    pub fn of(router: Router) -> Lab {
        // Longer than a socket's path may be, and with what shells and ssh's options take apart.
        let base = router.dir.path().join(format!("a folder with 'quotes' and 100% \"spaces\" {}", "long ".repeat(20)));
        fs::create_dir_all(base.join("playbooks/actions")).unwrap();
        for entry in fs::read_dir(format!("{REPO}/playbooks/actions")).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, base.join("playbooks/actions").join(path.file_name().unwrap())).unwrap();
        }
        fs::write(base.join("opmas.toml"), "[guard]\nprotect = [\"192.168.1.78\"]\n").unwrap();
        let paths = Paths::new(&base.join("opmas.toml"), &base.join("opmas-data")).unwrap();
        drop(opmas::journal::DataDir::open(&paths.data).unwrap());
        let lab = Lab { router, base, paths };
        lab.devices(&[("ap1", ROUTER)]);
        let public = enroll::own_key(&lab.paths).unwrap();
        lab.router.allow(&enroll::authorized_line(&public));
        fs::write(lab.paths.known_hosts(), lab.router.host_key() + "\n").unwrap();
        lab
    }

    pub fn devices(&self, devices: &[(&str, &str)]) {
        let text: String = devices.iter().map(|(name, host)| format!("[[device]]\nname = \"{name}\"\nhost = \"{host}\"\n\n")).collect();
        fs::write(self.base.join("devices.toml"), text).unwrap();
    }

    /// An action that takes its time on the device before it is read back as a block would be.
    fn slow_action(&self, seconds: u32, limit: u32) {
        let text = fs::read_to_string(self.base.join("playbooks/actions/block_ip.toml")).unwrap();
        let (head, rest) = text.split_once("[[platform.openwrt-fw4.apply]]").unwrap();
        let verify = rest.split_once("[[platform.openwrt-fw4.verify]]").unwrap().1;
        let head = head.replace("time = \"10s\"", &format!("time = \"{limit}s\""));
        let slow = format!("{head}[[platform.openwrt-fw4.apply]]\nargv = [\"sleep\", \"{seconds}\"]\n\n[[platform.openwrt-fw4.verify]]{verify}");
        fs::write(self.base.join("playbooks/actions/slow.toml"), slow).unwrap();
    }

    /// A block, and an action that only takes its time, each of which writes a line on the device whenever it is done.
    fn noted_actions(&self) {
        let note = "argv = [\"sh\", \"-c\", \"echo >>/tmp/noted; sleep 2\"]\n";
        let block = fs::read_to_string(self.base.join("playbooks/actions/block_ip.toml")).unwrap();
        let (head, rest) = block.split_once("[[platform.openwrt-fw4.apply]]").unwrap();
        let noted = format!("{head}[[platform.openwrt-fw4.apply]]\n{note}\n[[platform.openwrt-fw4.apply]]{rest}");
        fs::write(self.base.join("playbooks/actions/noted.toml"), noted).unwrap();
        let moment = format!(
            "title = 'A moment'\nrisk = 'low'\nassumed = 'enforced'\nidempotence = []\n[platform.openwrt-fw4]\ncheck = 'output'\nno_undo = 'none'\n\
             [[platform.openwrt-fw4.apply]]\n{note}[[platform.openwrt-fw4.verify]]\nargv = ['true']\n"
        );
        fs::write(self.base.join("playbooks/actions/moment.toml"), moment).unwrap();
    }

    /// How often they have been done since this was asked the last time.
    fn noted(&self) -> usize {
        let file = self.router.root().join("tmp/noted");
        let noted = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        noted.lines().count()
    }

    pub async fn start(&self) -> Client {
        let client = Client::start(self.router.launch(&self.paths));
        client.ready().await.unwrap();
        client
    }
}

fn task(device: &str, action: &str, ip: &str) -> Task {
    let params: Map<String, Value> = json!({"ip": ip, "duration": "1h"}).as_object().unwrap().clone();
    Task { id: "test:1".into(), device: device.into(), action: action.into(), params, verdict: Verdict::Auto }
}

fn block(ip: &str) -> Task {
    task("ap1", "block_ip", ip)
}

#[track_caller]
pub fn is(reply: &Reply, state: OutcomeState, words: &str) {
    assert_eq!(reply.outcome.state, state, "{reply:#?}");
    assert!(reply.outcome.detail.contains(words), "`{words}` is not in: {}", reply.outcome.detail);
}

#[tokio::test]
async fn a_block_is_applied_read_back_and_undone() {
    let lab = Lab::new();
    let client = lab.start().await;
    assert!(lab.router.reaches("at", ROUTER));
    for ip in [ATTACKER, ATTACKER6] {
        let reply = client.perform(Request::Apply(block(ip))).await;
        is(&reply, OutcomeState::Enforced, "");
        let left = reply.outcome.until.unwrap().since(reply.outcome.at).as_secs();
        assert!((3590..=3600).contains(&left), "{left} s");
        assert_eq!(reply.commands[0].command.argv, ["nft", "-f", "-"]);
        assert!(reply.commands[0].command.stdin.as_deref().unwrap().contains(ip));
        assert!(lab.router.nft().contains(ip));
    }
    assert!(!lab.router.reaches("at", ROUTER) && !lab.router.reaches("at", "fd00:6f70::1"));
    assert!(lab.router.reaches("ot", ROUTER) && lab.router.reaches("ot", "fd00:6f70::1"));

    lab.router.device("fw4-reload");
    is(&client.perform(Request::Verify(block(ATTACKER))).await, OutcomeState::Enforced, "");
    lab.router.device("flush-ours");
    is(&client.perform(Request::Verify(block(ATTACKER))).await, OutcomeState::Undone, "");
    is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
    lab.router.device("fw4-stop");
    is(&client.perform(Request::Verify(block(ATTACKER))).await, OutcomeState::Undone, "");
    is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
    assert!(!lab.router.reaches("at", ROUTER));

    is(&client.perform(Request::Undo(block(ATTACKER))).await, OutcomeState::Undone, "");
    assert!(lab.router.reaches("at", ROUTER));
    // Once more: nothing is there, and that is no error.
    is(&client.perform(Request::Undo(block(ATTACKER))).await, OutcomeState::Undone, "");
    client.shutdown().await;
    lab.router.gone("mg", "-M", Duration::from_secs(2));
}

#[tokio::test]
async fn the_guard_and_the_verdict_are_asked_again() {
    let lab = Lab::new();
    let client = lab.start().await;
    for (ip, why) in [
        (MANAGER, "must not be blocked"),
        (ROUTER, "must not be blocked"),
        ("198.51.100.2", "an address of"),
        ("198.51.100.9", "a gateway of the device"),
        ("192.168.1.78", "protected by"),
        ("127.0.0.1", "loopback"),
        ("fd00:6f70::1", "an address of"),
        ("::ffff:192.168.1.2", "must not be blocked"),
    ] {
        is(&client.perform(Request::Apply(block(ip))).await, OutcomeState::Refused, why);
    }
    for verdict in [Verdict::Approve, Verdict::Observe, Verdict::Refused] {
        let reply = client.perform(Request::Apply(Task { verdict, ..block(ATTACKER) })).await;
        is(&reply, OutcomeState::Refused, "verdict");
        let reply = client.perform(Request::Undo(Task { verdict, ..block(ATTACKER) })).await;
        is(&reply, OutcomeState::Refused, "verdict");
    }
    is(&client.perform(Request::Apply(task("ap9", "block_ip", ATTACKER))).await, OutcomeState::Refused, "no device `ap9`");
    is(&client.perform(Request::Apply(task("ap1", "blok_ip", ATTACKER))).await, OutcomeState::Refused, "did you mean `block_ip`?");
    assert!(!lab.router.nft().contains("table inet opmas"), "nothing of this reached the device");
}

#[tokio::test]
async fn the_guard_knows_what_the_device_learned_since_it_was_connected_to() {
    let lab = Lab::new();
    let client = lab.start().await;
    is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
    lab.router.sh("rt", "ip route add 10.79.0.0/16 via 198.51.100.80 dev eth1");
    // A check looks at once, however fresh the connection's facts are.
    let reply = client.perform(Request::Check { device: "ap1".into() }).await;
    assert!(reply.report.as_ref().unwrap().gateways.contains(&"198.51.100.80".to_owned()), "{reply:#?}");
    is(&client.perform(Request::Apply(block("198.51.100.80"))).await, OutcomeState::Refused, "a gateway of the device");
    // An action does when what is known is older than three seconds.
    lab.router.sh("rt", "ip route add 10.80.0.0/16 via 198.51.100.81 dev eth1");
    tokio::time::sleep(Duration::from_millis(3100)).await;
    is(&client.perform(Request::Apply(block("198.51.100.81"))).await, OutcomeState::Refused, "a gateway of the device");
    // A connection that broke unseen meanwhile is replaced before anything is sent.
    lab.router.sh(
        "mg",
        "nft add table inet t; nft add chain inet t i '{ type filter hook input priority 0; }'; nft add rule inet t i tcp sport 22 tcp flags fin,rst drop",
    );
    lab.router.device("reboot");
    lab.router.sh("mg", "nft delete table inet t");
    tokio::time::sleep(Duration::from_millis(3100)).await;
    is(&client.perform(Request::Apply(block(OTHER))).await, OutcomeState::Enforced, "");
    assert!(!lab.router.nft().contains("198.51.100.8"), "nothing of this reached the device");
}

#[tokio::test]
async fn hostile_values_are_refused_before_the_device_hears_of_them() {
    let lab = Lab::new();
    let client = lab.start().await;
    for ip in [
        "'; reboot; '",
        "$(reboot)",
        "`reboot`",
        "root' from 8.8.8.8:22",
        "192.168.1.66 } ; flush ruleset ; add element inet opmas hosts4 { 8.8.8.8",
        "192.168.1.66\nflush ruleset",
        "192.168.1.0/24",
        "-f",
        "",
    ] {
        let reply = client.perform(Request::Apply(block(ip))).await;
        is(&reply, OutcomeState::Refused, "ip");
        assert!(reply.commands.is_empty());
    }
    let mut extra = block(ATTACKER);
    extra.params.insert("shell".into(), json!("reboot"));
    is(&client.perform(Request::Apply(extra)).await, OutcomeState::Refused, "no parameter");
    assert!(!lab.router.runs("mg", "-M"), "no connection was made for them");
}

#[tokio::test]
async fn another_host_key_is_told_from_an_unknown_one_and_from_a_refused_login() {
    let lab = Lab::new();
    let key = lab.router.host_key();
    let check = || Request::Check { device: "ap1".into() };
    let client = lab.start().await;

    let other = tempfile::tempdir().unwrap();
    let made = lab.router.sh("mg", &format!("ssh-keygen -qt ed25519 -N '' -f {0}/k && cut -d' ' -f1,2 {0}/k.pub", other.path().display()));
    fs::write(lab.paths.known_hosts(), format!("{ROUTER} {made}")).unwrap();
    let reply = client.perform(check()).await;
    is(&reply, OutcomeState::Failed, "host key of ap1 is not the pinned one");
    let shown = enroll::HostKey { algorithm: "ssh-ed25519".into(), key: key.split(' ').nth(2).unwrap().into() };
    assert!(reply.outcome.detail.contains(&shown.fingerprint()), "{}", reply.outcome.detail);

    fs::write(lab.paths.known_hosts(), "").unwrap();
    is(&client.perform(check()).await, OutcomeState::Failed, "is not pinned");
    fs::write(lab.paths.known_hosts(), key + "\n").unwrap();

    let authorized = lab.router.root().join("etc/dropbear/authorized_keys");
    let lines = fs::read_to_string(&authorized).unwrap();
    fs::write(&authorized, "").unwrap();
    is(&client.perform(check()).await, OutcomeState::Failed, "does not accept the key");
    fs::write(&authorized, lines).unwrap();
    is(&client.perform(check()).await, OutcomeState::Enforced, "actions can run");

    fs::set_permissions(lab.paths.key(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    client.shutdown().await;
    let client = lab.start().await;
    is(&client.perform(check()).await, OutcomeState::Failed, "cannot be used: others may read it");
}

#[tokio::test]
async fn a_dead_device_is_given_up_in_time_and_delays_no_other() {
    let lab = Lab::new();
    // The far host drops everything without a word; nobody has .250; .2 is alive and refuses.
    lab.router.sh("fr", "nft add table inet t; nft add chain inet t i '{ type filter hook input priority 0; policy drop; }'");
    lab.devices(&[("ap1", ROUTER), ("silent", "198.51.100.9"), ("nobody", "192.168.1.250"), ("closed", MANAGER), ("named", "localhost")]);
    let client = lab.start().await;
    let begun = Instant::now();
    let dead = ["silent", "nobody", "closed", "named"].map(|name| {
        let client = client.clone();
        tokio::spawn(async move { (client.perform(Request::Check { device: name.into() }).await, begun.elapsed()) })
    });
    is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for (task, why) in dead.into_iter().zip(["imed out", "No route to host", "Connection refused", "Connection refused"]) {
        let (reply, took) = task.await.unwrap();
        is(&reply, OutcomeState::Failed, "cannot be reached");
        is(&reply, OutcomeState::Failed, why);
        assert!(took < Duration::from_secs(9), "{took:?}");
    }
    // What comes soon after is answered at once, with the same reason.
    let again = Instant::now();
    is(&client.perform(Request::Apply(task("silent", "block_ip", ATTACKER))).await, OutcomeState::Failed, "");
    is(&client.perform(Request::Apply(task("silent", "block_ip", ATTACKER))).await, OutcomeState::Failed, "tried again in");
    assert!(again.elapsed() < Duration::from_secs(9));
}

#[tokio::test]
async fn a_command_beyond_its_limit_is_ended_on_the_device() {
    let lab = Lab::new();
    lab.slow_action(611, 2);
    let client = lab.start().await;
    let begun = Instant::now();
    let reply = client.perform(Request::Apply(task("ap1", "slow", ATTACKER))).await;
    is(&reply, OutcomeState::Failed, "did not end within 2 s, its limit");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    lab.router.gone("rt", "611", Duration::from_secs(1));
    // The connection is as good as before.
    is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
}

#[tokio::test]
async fn a_lost_connection_leaves_an_unknown_outcome_and_nothing_running() {
    let lab = Lab::new();
    lab.slow_action(622, 60);
    let client = lab.start().await;
    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.perform(Request::Apply(task("ap1", "slow", ATTACKER))).await });
    wait_for(&lab, "622").await;
    let begun = Instant::now();
    for ssh in lab.router.processes("mg").iter().filter(|p| p.words.iter().any(|w| w == "-M")) {
        lab.router.sh("mg", &format!("kill -9 {}", ssh.pid));
    }
    is(&asked.await.unwrap(), OutcomeState::Unknown, "not known whether it was done");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    lab.router.gone("rt", "622", Duration::from_secs(4));
    is(&client.perform(Request::Verify(block(ATTACKER))).await, OutcomeState::Undone, "");
}

#[tokio::test]
async fn a_cut_cable_is_noticed_and_the_connection_comes_back() {
    let lab = Lab::new();
    lab.slow_action(633, 60);
    let client = lab.start().await;
    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.perform(Request::Apply(task("ap1", "slow", ATTACKER))).await });
    wait_for(&lab, "633").await;
    let begun = Instant::now();
    lab.router.device("cut");
    is(&asked.await.unwrap(), OutcomeState::Unknown, "not known whether it was done");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    lab.router.device("join");
    lab.router.device("reboot");
    is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
}

async fn wait_for(lab: &Lab, word: &str) {
    for _ in 0..200 {
        if lab.router.runs("rt", word) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("`{word}` does not run on the device");
}

#[tokio::test]
async fn a_killed_executor_leaves_no_ssh_and_is_started_again() {
    let lab = Lab::new();
    lab.slow_action(644, 60);
    let client = lab.start().await;
    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.perform(Request::Apply(task("ap1", "slow", ATTACKER))).await });
    wait_for(&lab, "644").await;
    let process = client.status().borrow().process.unwrap();
    lab.router.sh("mg", &format!("kill -9 {process}"));
    is(&asked.await.unwrap(), OutcomeState::Unknown, "the executor ended");
    lab.router.gone("mg", "-M", Duration::from_secs(2));
    lab.router.gone("rt", "644", Duration::from_secs(4));
    let mut status = client.status();
    status.wait_for(|status| status.ready && status.process != Some(process)).await.unwrap();
    is(&client.perform(Request::Apply(block(OTHER))).await, OutcomeState::Enforced, "");
    assert_eq!(client.status().borrow().restarts, 1);
    client.shutdown().await;
    lab.router.gone("mg", "-M", Duration::from_secs(2));
}

#[tokio::test]
async fn signals_to_the_whole_group_end_neither_the_executor_nor_what_it_does() {
    let lab = Lab::new();
    lab.slow_action(2, 10);
    let client = lab.start().await;
    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.perform(Request::Apply(task("ap1", "slow", ATTACKER))).await });
    wait_for(&lab, "2").await;
    let pids: Vec<String> = lab.router.processes("mg").iter().map(|process| process.pid.to_string()).collect();
    assert_eq!(pids.len(), 2, "the executor and its ssh");
    for signal in ["TERM", "INT", "HUP"] {
        lab.router.sh("mg", &format!("kill -{signal} {}", pids.join(" ")));
    }
    let reply = asked.await.unwrap();
    is(&reply, OutcomeState::Failed, "");
    assert_eq!(reply.commands[0].exit, Some(0), "{reply:#?}");
    is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
    assert_eq!(client.status().borrow().restarts, 0);
    client.shutdown().await;
    eventually(Duration::from_secs(2), "something still runs", || lab.router.processes("mg").is_empty());
}

#[test]
fn a_killed_engine_leaves_no_executor_and_no_ssh() {
    let lab = Lab::new();
    lab.router.sh("fr", "nft add table inet t; nft add chain inet t i '{ type filter hook input priority 0; policy drop; }'");
    lab.devices(&[("ap1", ROUTER), ("silent", "198.51.100.9")]);
    // It waits for the silent device with a live connection to the other.
    let mut engine = lab.router.command("mg", crate::router::OPMAS).args(["device", "check"]).current_dir(&lab.base).spawn().unwrap();
    eventually(Duration::from_secs(4), "two ssh do not run", || lab.router.processes("mg").iter().filter(|p| p.words.iter().any(|w| w == "-M")).count() == 2);
    engine.kill().unwrap();
    engine.wait().unwrap();
    eventually(Duration::from_secs(2), "something still runs", || lab.router.processes("mg").is_empty());
}

#[tokio::test]
async fn the_process_is_confined_and_has_nothing_of_our_environment() {
    let lab = Lab::new();
    let client = lab.start().await;
    is(&client.perform(Request::Check { device: "ap1".into() }).await, OutcomeState::Enforced, "");
    let executor = client.status().borrow().process.unwrap() as i32;
    let all = lab.router.processes("mg");
    let ssh = all.iter().find(|p| p.words.iter().any(|w| w == "-M")).unwrap().pid;
    for pid in [executor, ssh] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
    }
    // One is for its allocator; bash, which puts it into the namespace here, leaves a few words of its own.
    let environment = fs::read(format!("/proc/{executor}/environ")).unwrap();
    let words: Vec<_> = environment.split(|b| *b == 0).filter_map(|w| std::str::from_utf8(w).ok()?.split('=').next()).collect();
    assert!(words.iter().all(|w| ["", "MIMALLOC_ARENA_RESERVE", "PWD", "OLDPWD", "SHLVL", "_"].contains(w)), "{words:?}");
    assert_eq!(fs::read(format!("/proc/{ssh}/environ")).unwrap(), b"");
    let descriptors = fs::read_dir(format!("/proc/{ssh}/fd")).unwrap().count();
    assert!(descriptors <= 8, "ssh has {descriptors} descriptors: it inherited some");
}

#[tokio::test]
async fn broken_files_are_told_with_their_place() {
    let lab = Lab::new();
    fs::write(lab.base.join("devices.toml"), "[[device]]\nname = 'ap1'\nhots = '192.168.1.1'\n").unwrap();
    let error = Client::start(lab.router.launch(&lab.paths)).ready().await.unwrap_err();
    assert!(error.contains("devices.toml:3:1: unknown key `hots`; did you mean `host`?"), "{error}");
    let reply = Client::start(lab.router.launch(&lab.paths)).perform(Request::Check { device: "ap1".into() }).await;
    is(&reply, OutcomeState::Failed, "unknown key `hots`");
}

#[tokio::test]
async fn requests_for_one_device_run_one_after_the_other() {
    let lab = Lab::new();
    let client = lab.start().await;
    let asked: Vec<_> = (100..120)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.perform(Request::Apply(block(&format!("192.168.1.{n}")))).await })
        })
        .collect();
    for task in asked {
        is(&task.await.unwrap(), OutcomeState::Enforced, "");
    }
    let rules = lab.router.nft();
    assert!((100..120).all(|n| rules.contains(&format!("192.168.1.{n} "))), "{rules}");
    assert_eq!(lab.router.processes("mg").iter().filter(|p| p.words.iter().any(|w| w == "-M")).count(), 1, "one connection");
}

/// Asks for all at once, in this order, and gives the answers.
async fn at_once(client: &Client, asked: &[(&str, Value)]) -> Vec<Reply> {
    let ask = |(n, (action, params)): (usize, &(&str, Value))| {
        let params = params.as_object().unwrap().clone();
        let task = Task { id: format!("test:{n}").into(), device: "ap1".into(), action: (*action).into(), params, verdict: Verdict::Auto };
        client.perform(Request::Apply(task))
    };
    let replies = futures_util::future::join_all(asked.iter().enumerate().map(ask)).await;
    replies.iter().for_each(|reply| is(reply, OutcomeState::Enforced, ""));
    replies
}

/// Asks for an action that writes its line, and comes back when it has.
async fn begun(lab: &Lab, client: &Client, action: &str, params: Value) -> tokio::task::JoinHandle<Reply> {
    let params = params.as_object().unwrap().clone();
    let task = Task { id: "test:first".into(), device: "ap1".into(), action: action.into(), params, verdict: Verdict::Auto };
    let client = client.clone();
    let asked = tokio::spawn(async move { client.perform(Request::Apply(task)).await });
    while !lab.router.root().join("tmp/noted").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    asked
}

#[tokio::test]
async fn what_is_asked_for_twice_at_a_time_is_done_once_and_answered_to_each() {
    let lab = Lab::new();
    lab.noted_actions();
    let client = lab.start().await;
    let with = |replies: &[Reply]| replies.iter().map(|reply| reply.with.as_deref().map(str::to_owned)).collect::<Vec<_>>();
    let some = |id: &str| Some(id.to_owned());
    let block = |duration: &str| ("noted", json!({"ip": ATTACKER, "duration": duration}));
    // The others come while the first is being done.
    let first = begun(&lab, &client, "noted", json!({"ip": ATTACKER, "duration": "1h"})).await;
    let replies = at_once(&client, &[block("1h"), block("10m")]).await;
    is(&first.await.unwrap(), OutcomeState::Enforced, "");
    assert_eq!((lab.noted(), with(&replies)), (1, vec![some("test:first"), some("test:first")]));
    assert!(replies[1].outcome.detail.contains("done once, together with test:first"), "{}", replies[1].outcome.detail);
    // A longer one is done, too, and does those behind it; none shortens it.
    let replies = at_once(&client, &[block("1h"), block("2h"), block("1h"), block("2h")]).await;
    assert_eq!((lab.noted(), with(&replies)), (2, vec![None, None, some("test:1"), some("test:1")]));
    let until = client.perform(Request::Verify(task("ap1", "noted", ATTACKER))).await.outcome.until.unwrap();
    assert!(until.since(replies[0].outcome.at).as_secs() > 7_000, "{until}");
    // Nothing is done out of its turn: what is let in in between is blocked again.
    let unblock = ("unblock_ip", json!({"ip": ATTACKER}));
    let replies = at_once(&client, &[block("1h"), unblock, block("1h")]).await;
    assert_eq!((lab.noted(), with(&replies)), (2, vec![None, None, None]));
    is(&client.perform(Request::Verify(task("ap1", "noted", ATTACKER))).await, OutcomeState::Enforced, "");
    // Others are not the same.
    let other = ("noted", json!({"ip": OTHER, "duration": "1h"}));
    let replies = at_once(&client, &[block("1h"), other, block("1h")]).await;
    assert_eq!((lab.noted(), with(&replies)), (3, vec![None, None, None]));
    // What leaves nothing behind that lasts is done anew for those who asked after it had begun, once for all of them.
    let moment = || ("moment", json!({}));
    let first = begun(&lab, &client, "moment", json!({})).await;
    let replies = at_once(&client, &[moment(), moment()]).await;
    is(&first.await.unwrap(), OutcomeState::Enforced, "");
    assert_eq!((lab.noted(), with(&replies)), (2, vec![None, some("test:0")]));
}

/// An action of two commands of a shell: what is done, and what reads it back.
fn action(apply: &[&str], verify: &[&str], more: &str) -> String {
    let head = format!("title = 'A test'\nrisk = 'low'\nassumed = 'enforced'\nidempotence = ['ip']\n[params.ip]\ntype = 'ip'\ndescription = 'Whom'\n{more}");
    let one = |part: &str, script: &&str| format!("[[platform.openwrt-fw4.{part}]]\nargv = ['sh', '-c', '{script}']\n");
    let all: String = apply.iter().map(|script| one("apply", script)).chain(verify.iter().map(|script| one("verify", script))).collect();
    format!("{head}\n[platform.openwrt-fw4]\ncheck = 'output'\nno_undo = 'none'\n{all}")
}

#[tokio::test]
async fn a_change_and_what_reads_it_back_share_a_session_and_each_has_its_own_limits() {
    let lab = Lab::new();
    let write = |name: &str, text: String| fs::write(lab.base.join(format!("playbooks/actions/{name}.toml")), text).unwrap();
    let note = "echo >>/tmp/noted";
    // The shell that runs them is the same.
    write("one", action(&["echo one >>/tmp/noted", "echo $PPID >/tmp/one"], &["test \"$(cat /tmp/one)\" = $PPID"], ""));
    write("long", action(&[note], &["sleep 2", "sleep 2"], "[limits]\ntime = '3s'\n"));
    write("loud", action(&[note], &["yes | head -c 100000", "echo end"], "[limits]\noutput_bytes = 4096\n"));
    write("shouts", action(&["echo >>/tmp/noted; yes | head -c 100000"], &["echo end"], "[limits]\noutput_bytes = 4096\n"));
    write("wrong", action(&["echo >>/tmp/noted; exit 3"], &["echo end"], ""));
    write("never", action(&[note, "exit 3", note], &["echo end"], ""));
    write("hangs", action(&["echo >>/tmp/noted; sleep 655"], &["echo end"], "[limits]\ntime = '2s'\n"));
    let plain = ["one", "long", "loud", "shouts", "wrong", "never", "hangs"];
    for enrolled in [false, true] {
        if enrolled {
            let output = lab.router.opmas(&lab.base, &["device", "enroll", "ap1"]);
            assert!(output.status.success(), "{output:?}");
        }
        let client = lab.start().await;
        for name in plain {
            let reply =
                client.perform(Request::Apply(Task { params: json!({"ip": ATTACKER}).as_object().unwrap().clone(), ..task("ap1", name, ATTACKER) })).await;
            let (words, ended) = match name {
                "one" => ("bytes were read", vec![Some(0), Some(0), Some(0)]),
                "long" => ("0 bytes were read", vec![Some(0), Some(0), Some(0)]),
                "loud" => ("bytes were read", vec![Some(0), Some(0), Some(0)]),
                // Its end is lost in what it printed.
                "shouts" => ("then read back", vec![None, Some(0)]),
                "wrong" => ("ended with code 3; then read back", vec![Some(3), Some(0)]),
                "never" => ("ended with code 3; then read back", vec![Some(0), Some(3), Some(0)]),
                _ => ("did not end within 2 s, its limit", vec![None, Some(0)]),
            };
            is(&reply, OutcomeState::Enforced, words);
            assert_eq!(reply.commands.iter().map(|ran| ran.exit).collect::<Vec<_>>(), ended, "{name}: {reply:#?}");
            assert_eq!(lab.noted(), 1, "{name} is done once");
        }
        client.shutdown().await;
    }
    // A helper of before that does not know of it does the same in two sessions.
    let helper = lab.router.root().join("etc/opmas/helper");
    let text = fs::read_to_string(&helper).unwrap();
    let before: String = text.lines().filter(|line| !line.contains("operation=$i; continue")).map(|line| format!("{line}\n")).collect();
    assert_ne!(before, text);
    fs::write(&helper, before).unwrap();
    let client = lab.start().await;
    is(&client.perform(Request::Apply(block(ATTACKER))).await, OutcomeState::Enforced, "");
    assert!(!lab.router.reaches("at", ROUTER));
    is(&client.perform(Request::Undo(block(ATTACKER))).await, OutcomeState::Undone, "");
}

#[tokio::test]
async fn what_is_read_back_of_many_effects_is_read_once_and_judged_for_each() {
    let lab = Lab::new();
    fs::write(lab.base.join("playbooks/actions/reads.toml"), action(&["true"], &["echo >>/tmp/noted; sleep 1"], "")).unwrap();
    let client = lab.start().await;
    let verify = |action: &str, ip: String| {
        let params = json!({"ip": ip}).as_object().unwrap().clone();
        client.perform(Request::Verify(Task { params, ..task("ap1", action, ATTACKER) }))
    };
    let replies = futures_util::future::join_all((1..=30).map(|n| verify("reads", format!("203.0.113.{n}")))).await;
    replies.iter().for_each(|reply| is(reply, OutcomeState::Enforced, "bytes were read"));
    // The first may have begun before the others came.
    let (noted, alone) = (lab.noted(), replies.iter().filter(|reply| reply.with.is_none()).count());
    assert!((1..=2).contains(&noted) && noted == alone, "{noted} times, {alone} by themselves");
    is(&client.perform(Request::Apply(block("203.0.113.7"))).await, OutcomeState::Enforced, "");
    let replies = futures_util::future::join_all((1..=30).map(|n| verify("block_ip", format!("203.0.113.{n}")))).await;
    for (n, reply) in replies.iter().enumerate() {
        let (state, words) = if n == 6 { (OutcomeState::Enforced, "203.0.113.7") } else { (OutcomeState::Undone, "is not in set") };
        is(reply, state, words);
        assert!(!reply.outcome.detail.contains("together") && reply.outcome.until.is_some() == (n == 6), "{reply:#?}");
    }
    assert!(replies.iter().filter(|reply| reply.with.is_none()).count() <= 2);
}

#[tokio::test]
async fn on_a_router_without_nftables_nothing_is_done_and_the_check_says_why() {
    let lab = Lab::new();
    fs::remove_file(lab.router.root().join("usr/sbin/nft")).unwrap();
    fs::write(lab.router.root().join("etc/openwrt_release"), "DISTRIB_ID='OpenWrt'\nDISTRIB_RELEASE='21.02.7'\n").unwrap();
    let client = lab.start().await;
    let check = client.perform(Request::Check { device: "ap1".into() }).await;
    is(&check, OutcomeState::Partial, "which OpenWrt has from 22.03 on");
    assert_eq!(check.report.unwrap().system.as_deref(), Some("OpenWrt 21.02.7"));
    for action in ["block_ip", "rate_limit_ip"] {
        is(&client.perform(Request::Apply(task("ap1", action, ATTACKER))).await, OutcomeState::Failed, "`nft` ended with code 127");
    }
    assert!(lab.router.reaches("at", ROUTER));
}

/// A program of the router's that does something else.
fn replaced(lab: &Lab, program: &str, script: &str) {
    let path = lab.router.root().join("usr/sbin").join(program);
    let _ = fs::remove_file(&path);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// What `opmas device check` prints: its exit code, the text, and how long it took.
fn checked(lab: &Lab) -> (Option<i32>, String, Duration) {
    let begun = Instant::now();
    let output = lab.router.opmas(&lab.base, &["device", "check", "ap1"]);
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(), begun.elapsed())
}

#[test]
fn a_tool_that_hangs_or_prints_something_else_is_named_with_what_is_known_and_no_more() {
    let lab = Lab::new();
    for (script, words) in [
        ("exec sleep 677", "actions need nft, and `nft -j list tables` did not end within 8 s"),
        ("exit 0", "`nft -j list tables` printed nothing"),
        ("yes garbage | head -c 3000000", "`nft -j list tables` printed more than 262144 bytes"),
        (
            "printf 'a \\033]0;title\\007 table\\n%s' $(yes | head -c 9000 | tr -d '\\n')",
            r"printed something that is not a listing in JSON: `a \u{1b}]0;title\u{7} table\nyyy",
        ),
        ("echo oops >&2; exit 3", "`nft -j list tables` ended with 3 on the device and said: oops"),
    ] {
        replaced(&lab, "nft", script);
        let (code, said, took) = checked(&lab);
        assert!(code == Some(1) && said.contains(words), "{script}: {said}");
        assert!(!said.contains("packages") && !said.contains("stopped") && said.contains("OpenWrt 24.10.4") && !said.contains("clock -"), "{script}: {said}");
        assert!(said.len() < 2_000 && !said.contains('\u{1b}') && took < Duration::from_secs(11), "{script}: {took:?} {said}");
        lab.router.gone("rt", "677", Duration::from_secs(2));
    }
    // What is done there says the same, in place of what was read back.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let block_says = |words: &str| {
        runtime.block_on(async {
            let client = lab.start().await;
            is(&client.perform(Request::Verify(block(ATTACKER))).await, OutcomeState::Unknown, words);
            client.shutdown().await;
        });
    };
    replaced(&lab, "nft", "exec sleep 677");
    block_says("`nft -j list tables; list flowtables` did not end within 10 s");
    replaced(&lab, "nft", "yes | head -c 3000000");
    block_says("`nft -j list tables; list flowtables` printed more than 1048576 bytes");
    lab.router.gone("rt", "677", Duration::from_secs(2));
}

#[test]
fn a_hung_ipset_is_no_missing_package() {
    let lab = Lab::of(Router::with("fw3"));
    fs::write(lab.base.join("devices.toml"), format!("[[device]]\nname = 'ap1'\nhost = '{ROUTER}'\nplatform = 'openwrt-fw3'\n")).unwrap();
    for (script, words) in [
        ("exec sleep 678", "blocks need ipset, and `ipset list -n` did not end within 8 s"),
        ("yes 'is this a set?' | head -c 100000", "`ipset list -n` printed something that is not names of sets: `is this a set?\\nis"),
    ] {
        replaced(&lab, "ipset", script);
        let (code, said, _) = checked(&lab);
        assert!(code == Some(1) && said.contains(words) && !said.contains("opkg") && said.len() < 2_000, "{script}: {said}");
    }
    lab.router.gone("rt", "678", Duration::from_secs(2));
}

#[test]
fn a_command_of_somebody_else_in_the_place_of_ours_is_named() {
    let lab = Lab::new();
    let keys = lab.router.root().join("etc/dropbear/authorized_keys");
    let before = fs::read_to_string(&keys).unwrap();
    let forced = |command: &str| {
        let line = |line: &str| if line.ends_with(" opmas") { format!("command=\"{command}\",{line}\n") } else { format!("{line}\n") };
        fs::write(&keys, before.lines().map(line).collect::<String>()).unwrap();
    };
    for enrolled in [false, true] {
        if enrolled {
            fs::write(lab.base.join("devices.toml"), format!("[[device]]\nname = 'ap1'\nhost = '{ROUTER}'\nenrolled = true\n")).unwrap();
        }
        let what = if enrolled { "is not /etc/opmas/helper as opmas has put it there" } else { "is no shell, but a command of somebody else" };
        for (command, words) in [
            ("echo hello", "it ended with code 0 and said `hello`"),
            ("exec sleep 679", "or it hangs: it gave no answer within 12 s"),
            ("yes", "it gave no answer within 12 s"),
        ] {
            forced(command);
            let (code, said, took) = checked(&lab);
            assert!(code == Some(4) && said.contains(what) && said.contains(words), "{command}: {said}");
            assert!(said.contains("opmas device enroll ap1 --identity FILE") && said.len() < 1_000 && took < Duration::from_secs(16), "{took:?} {said}");
        }
    }
}
