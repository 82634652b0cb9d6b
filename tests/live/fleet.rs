//! Many devices at once (`tests/device/fleet.py`): one that is dead holds up no other, and each is connected to in its turn.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use opmas::executor::{Client, Paths, Reply, Request, Task, enroll};
use opmas::model::{OutcomeState, Verdict};
use serde::Deserialize;
use serde_json::json;

use crate::router::{ATTACKER, Router, eventually};

/// Devices with a ruleset each, and an executor's files that know all of them.
pub struct Fleet {
    pub paths: Paths,
    pub count: usize,
    router: Router,
    server: Child,
}

/// What the devices say of themselves.
#[derive(Deserialize)]
pub struct Said {
    /// Seconds of processor time of the sessions that have ended.
    pub cpu: f64,
    /// The ruleset of each address that has any.
    pub rules: BTreeMap<String, String>,
}

/// A reply, and how long after the first request it came.
pub type Answer = (usize, Reply, Duration);

impl Fleet {
    pub fn up(count: usize) -> Fleet {
        let router = Router::up();
        let base = router.dir.path().join("fleet");
        fs::create_dir_all(&base).unwrap();
        let devices: String = (0..count).map(|n| format!("[[device]]\nname = 'd{n}'\nhost = '{}'\nport = 2200\n", address(n))).collect();
        fs::write(base.join("devices.toml"), devices).unwrap();
        let paths = Paths::new(&base.join("opmas.toml"), &base.join("opmas-data")).unwrap();
        drop(opmas::journal::DataDir::open(&paths.data).unwrap());
        router.allow(&enroll::authorized_line(&enroll::own_key(&paths).unwrap()));
        let key = router.host_key();
        fs::write(paths.known_hosts(), format!("[10.99.*.*]:2200 {}\n", key.split_once(' ').unwrap().1)).unwrap();
        // Each of them would count its own SYN packets; together they are not to share what one router lets through in a second.
        router.sh("rt", "nft insert rule inet fw4 input ip daddr 10.99.0.0/16 tcp dport 2200 accept");
        let mut command = router.command("rt", "unshare");
        command.args(["-mpf", "--kill-child", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/device/fleet.py")]).arg(router.root());
        let server = command.arg(socket(&router)).arg(count.to_string()).stdin(Stdio::null()).spawn().unwrap();
        let fleet = Fleet { paths, count, router, server };
        eventually(Duration::from_secs(60), "the devices", || {
            UnixStream::connect(socket(&fleet.router)).is_ok_and(|mut said| said.read_to_string(&mut String::new()).is_ok())
        });
        fleet
    }

    /// Nothing that is sent to this device arrives any more.
    pub fn kill(&self, n: usize) {
        let table = "nft add table inet dead; nft add chain inet dead i '{ type filter hook input priority -300; }'";
        self.router.sh("rt", &format!("{table}; nft add rule inet dead i ip daddr {} drop", address(n)));
    }

    pub async fn start(&self) -> Client {
        let client = Client::start(self.router.launch(&self.paths));
        client.ready().await.unwrap();
        client
    }

    /// Blocks an address on all devices at once; the answers as they came.
    pub async fn block(&self, client: &Client) -> Vec<Answer> {
        self.ask(client, 0..self.count).join_all().await
    }

    /// Asks for a block on some devices.
    fn ask(&self, client: &Client, devices: std::ops::Range<usize>) -> tokio::task::JoinSet<Answer> {
        let params = json!({"ip": ATTACKER, "duration": "1h"}).as_object().unwrap().clone();
        let (begun, mut asked) = (Instant::now(), tokio::task::JoinSet::new());
        for n in devices {
            let (device, params, client) = (format!("d{n}").into(), params.clone(), client.clone());
            let task = Task { id: format!("fleet:{n}").into(), device, action: "block_ip".into(), params, verdict: Verdict::Auto };
            asked.spawn(async move { (n, client.perform(Request::Apply(task)).await, begun.elapsed()) });
        }
        asked
    }

    /// How long a login and a command take on every device, without anything of ours: sixteen `ssh` at a time.
    pub fn bare(&self) -> Duration {
        let hosts: String = (0..self.count).map(|n| address(n) + "\n").collect();
        fs::write(self.paths.base.join("hosts"), hosts).unwrap();
        let keys = self.paths.keys();
        let ssh = format!("ssh -F none -n -p 2200 -o ConnectTimeout=5 -i {0}/id_ed25519 -o UserKnownHostsFile={0}/known_hosts", keys.display());
        let begun = Instant::now();
        self.router.sh("mg", &format!("xargs -a {}/hosts -P 16 -I {{}} {ssh} root@{{}} true || true", self.paths.base.display()));
        begun.elapsed()
    }

    pub fn said(&self) -> Said {
        let mut text = String::new();
        UnixStream::connect(socket(&self.router)).unwrap().read_to_string(&mut text).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// On how many devices the address is in the set of those that are blocked.
    pub fn blocked(&self) -> usize {
        self.said().rules.values().filter(|rules| rules.contains(&format!("elements = {{ {ATTACKER} timeout"))).count()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn address(n: usize) -> String {
    format!("10.99.{}.{}", n / 250, n % 250 + 1)
}

fn socket(router: &Router) -> PathBuf {
    router.dir.path().join("fleet.sock")
}

/// How many were enforced, and when the last of them was.
pub fn enforced(answers: &[Answer]) -> (usize, Duration) {
    let times = answers.iter().filter(|(_, reply, _)| reply.outcome.state == OutcomeState::Enforced).map(|(_, _, at)| *at);
    (times.clone().count(), times.max().unwrap_or_default())
}

#[tokio::test]
async fn all_devices_are_blocked_on_while_a_dead_one_is_waited_for() {
    const DEVICES: usize = 64;
    let fleet = Fleet::up(DEVICES);
    fleet.kill(7);
    let client = fleet.start().await;
    let answers = fleet.block(&client).await;
    let wrong: Vec<_> = answers.iter().filter(|(n, reply, _)| (reply.outcome.state == OutcomeState::Enforced) == (*n == 7)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(fleet.blocked(), DEVICES - 1);
    // How many of them a loaded machine logs in to before the dead one is given up is its own affair: more than were asked before it.
    let (overtaken, (_, reply, at)) = answers.iter().enumerate().find(|(_, (n, ..))| *n == 7).unwrap();
    assert!(
        overtaken >= 16 && reply.outcome.detail.contains("cannot be reached"),
        "{overtaken} were blocked on before it was given up after {at:?}: {reply:?}"
    );
    client.shutdown().await;
}

#[tokio::test]
async fn devices_that_did_not_answer_take_no_place_from_those_that_do() {
    use opmas::executor::Reach;
    const DEVICES: usize = 56;
    // More than there are places for connections.
    const DEAD: usize = 50;
    let fleet = Fleet::up(DEVICES);
    (0..DEAD).for_each(|n| fleet.kill(n));
    let client = fleet.start().await;
    let answers = fleet.ask(&client, 0..DEAD).join_all().await;
    let again = |reply: &Reply| match &reply.reach {
        Reach::Shut { again, why } if why.contains("cannot be reached") => again.since(reply.outcome.at).to_std(),
        reach => panic!("{reach:?}"),
    };
    assert!(answers.iter().all(|(_, reply, _)| reply.outcome.state == OutcomeState::Failed), "{answers:#?}");
    // Devices that went away together are not tried together: half of the pause is by chance.
    let pauses = || answers.iter().map(|(_, reply, _)| again(reply));
    let (least, most) = (pauses().min().unwrap(), pauses().max().unwrap());
    assert!(most <= Duration::from_secs(1) && most - least > Duration::from_millis(200), "{least:?} to {most:?}");
    // What is asked now is the next try of each.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut asked = fleet.ask(&client, 0..DEVICES);
    for _ in DEAD..DEVICES {
        let (n, reply, at) = asked.join_next().await.unwrap().unwrap();
        assert!(n >= DEAD && reply.outcome.state == OutcomeState::Enforced && reply.reach == Reach::Open, "{n} after {at:?}: {reply:#?}");
    }
    let (n, reply, _) = asked.join_next().await.unwrap().unwrap();
    assert!(n < DEAD && reply.outcome.state == OutcomeState::Failed, "{n}: {reply:#?}");
    client.shutdown().await;
}
