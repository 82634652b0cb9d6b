//! An OpenWrt with firewall3: iptables-legacy and ipset, no nft. The same actions, on a real router.

use std::fs;
use std::time::Duration;

use opmas::executor::{Client, Reply, Request, Task};
use opmas::model::{OutcomeState, Verdict};
use serde_json::{Value, json};

use crate::executor::{Lab, is};
use crate::router::{ATTACKER, ATTACKER6, ROUTER, Router, eventually};
use crate::site::Site;
use crate::whole::lines;

const ROUTER6: &str = "fd00:6f70::1";
const FAR: &str = "198.51.100.9";
const FAR_TOO: &str = "198.51.100.7";

fn task(action: &str, params: &Value) -> Task {
    Task { id: "test:1".into(), device: "ap1".into(), action: action.into(), params: params.as_object().unwrap().clone(), verdict: Verdict::Auto }
}

async fn apply(client: &Client, action: &str, params: &Value) -> Reply {
    client.perform(Request::Apply(task(action, params))).await
}

async fn verify(client: &Client, action: &str, params: &Value) -> Reply {
    client.perform(Request::Verify(task(action, params))).await
}

async fn undo(client: &Client, action: &str, params: &Value) -> Reply {
    client.perform(Request::Undo(task(action, params))).await
}

fn lab(platform: &str) -> Lab {
    let lab = Lab::of(Router::with("fw3"));
    fs::write(lab.base.join("devices.toml"), format!("[[device]]\nname = 'ap1'\nhost = '{ROUTER}'\nplatform = '{platform}'\n")).unwrap();
    lab.router.sh("fr", &format!("ip route add default via 198.51.100.2; ip addr add {FAR_TOO}/24 dev eth0"));
    lab
}

impl Lab {
    fn pings(&self, at: &str, to: &str) -> bool {
        self.router.command(at, "busybox").args(["ping", "-q", "-c", "1", "-W", "1", to]).output().unwrap().status.success()
    }

    fn rules(&self) -> String {
        self.router.sh("rt", "iptables-legacy-save; ip6tables-legacy-save; ipset save")
    }
}

#[tokio::test]
async fn a_router_with_firewall3_blocks_reads_back_and_lets_go() {
    let lab = lab("openwrt-fw3");
    let client = lab.start().await;
    is(&client.perform(Request::Check { device: "ap1".into() }).await, OutcomeState::Enforced, "actions can run");
    assert!(lab.router.reaches("at", ROUTER) && lab.router.reaches("at", ROUTER6) && lab.pings("at", FAR) && lab.pings("ot", FAR_TOO));
    // One that is open already, and asks once more when it is told to.
    let go = lab.router.dir.path().join("go");
    let script = format!(
        "exec 3<>/dev/tcp/{ROUTER}/22; read -r -t 5 line <&3; until [ -e {0} ]; do sleep 0.1; done; printf 'SSH-2.0-x\\r\\n\\r\\n' >&3; head -c 1 <&3 | wc -c",
        go.display()
    );
    let mut open = lab.router.command("at", "timeout").args(["20", "bash", "-c", &script]).stdout(std::process::Stdio::piped()).spawn().unwrap();

    for ip in [ATTACKER, ATTACKER6, FAR_TOO] {
        let reply = apply(&client, "block_ip", &json!({"ip": ip})).await;
        is(&reply, OutcomeState::Enforced, "the rules look it up");
        let left = reply.outcome.until.unwrap().since(reply.outcome.at).as_secs();
        assert!((3590..=3600).contains(&left), "{left} s");
    }
    assert!(!lab.router.reaches("at", ROUTER) && !lab.router.reaches("at", ROUTER6), "to the router");
    assert!(!lab.pings("at", FAR) && !lab.pings("ot", FAR_TOO), "through it, and to it");
    assert!(lab.router.reaches("ot", ROUTER) && lab.router.reaches("ot", ROUTER6) && lab.pings("ot", FAR));
    let passed = || lab.router.sh("rt", "iptables-legacy -t mangle -nvxL opmas_input | awk '/opmas_hosts4/ {print $1}'").trim().parse::<u64>().unwrap();
    let before = passed();
    fs::write(go, "").unwrap();
    eventually(Duration::from_secs(5), "what the open connection says is not dropped", || passed() > before);
    let _ = open.kill();
    let _ = open.wait();

    // Again changes nothing but the end, and a long one ends when it was asked for or in 24 days.
    for (duration, least) in [("2h", 7190), ("30d", 24 * 86_400 - 10)] {
        let reply = apply(&client, "block_ip", &json!({"ip": ATTACKER, "duration": duration})).await;
        is(&reply, OutcomeState::Enforced, "");
        let rules = lab.rules();
        assert_eq!(rules.matches("-A INPUT -j opmas_input\n").count(), 2, "one of each family: {rules}");
        let line = rules.lines().find(|line| line.starts_with(&format!("add opmas_hosts4 {ATTACKER} "))).unwrap();
        assert!(line.rsplit(' ').next().unwrap().parse::<i64>().unwrap() >= least, "{line}");
    }
    for ip in [ATTACKER, ATTACKER6] {
        let params = json!({"ip": ip});
        is(&undo(&client, "block_ip", &params).await, OutcomeState::Undone, "");
        is(&undo(&client, "block_ip", &params).await, OutcomeState::Undone, "");
    }
    assert!(lab.router.reaches("at", ROUTER) && lab.router.reaches("at", ROUTER6) && lab.pings("at", FAR));

    // The kernel ends it by itself.
    let short = json!({"ip": ATTACKER, "duration": "2s"});
    is(&apply(&client, "block_ip", &short).await, OutcomeState::Enforced, "");
    client.shutdown().await;
    eventually(Duration::from_secs(10), "the router does not end it", || lab.router.reaches("at", ROUTER));
    let client = lab.start().await;
    is(&verify(&client, "block_ip", &short).await, OutcomeState::Undone, "is not in set opmas_hosts4");
    is(&apply(&client, "block_ip", &json!({"ip": ROUTER})).await, OutcomeState::Refused, "must not be blocked");
}

#[tokio::test]
async fn what_fw3_and_a_reboot_take_away_is_seen_and_put_back() {
    let lab = lab("openwrt-fw3");
    let client = lab.start().await;
    let (v4, v6) = (json!({"ip": ATTACKER}), json!({"ip": ATTACKER6}));
    for params in [&v4, &v6] {
        is(&verify(&client, "block_ip", params).await, OutcomeState::Undone, "");
        is(&apply(&client, "block_ip", params).await, OutcomeState::Enforced, "");
        lab.router.device("fw3-reload");
        is(&verify(&client, "block_ip", params).await, OutcomeState::Enforced, "");
        for (what, state, why) in [
            ("fw3-flush", OutcomeState::Partial, "chain INPUT of table mangle does not begin with opmas_input"),
            ("fw3-stop", OutcomeState::Partial, "chain opmas_forward does not have"),
            ("reboot", OutcomeState::Undone, "is not in set"),
        ] {
            lab.router.device(what);
            assert!(lab.router.reaches("at", ROUTER) && lab.router.reaches("at", ROUTER6), "{what}");
            is(&verify(&client, "block_ip", params).await, state, why);
            is(&apply(&client, "block_ip", params).await, OutcomeState::Enforced, "");
        }
        let address = if *params == v4 { ROUTER } else { ROUTER6 };
        assert!(!lab.router.reaches("at", address));
    }
    // What would accept a packet before our rules see it, or among them.
    is(&apply(&client, "block_ip", &v4).await, OutcomeState::Enforced, "");
    lab.router.sh("rt", "iptables-legacy -t mangle -I INPUT -s 192.168.1.66 -j ACCEPT");
    is(&verify(&client, "block_ip", &v4).await, OutcomeState::Partial, "does not begin with opmas_input");
    is(&apply(&client, "block_ip", &v4).await, OutcomeState::Enforced, "");
    lab.router.sh("rt", "iptables-legacy -t mangle -I opmas_input -j RETURN");
    is(&verify(&client, "block_ip", &v4).await, OutcomeState::Partial, "a rule that opmas did not put there");
    is(&apply(&client, "block_ip", &v4).await, OutcomeState::Enforced, "");
    // A program that fails is not an absent block.
    fs::rename(lab.router.root().join("usr/sbin/ipset"), lab.router.root().join("usr/sbin/ipset.away")).unwrap();
    is(&verify(&client, "block_ip", &v4).await, OutcomeState::Unknown, "`ipset list -n` ended with 127");
    let checked = client.perform(Request::Check { device: "ap1".into() }).await;
    is(&checked, OutcomeState::Partial, "opkg install ipset");
}

#[tokio::test]
async fn networks_and_rates_on_firewall3() {
    let lab = lab("openwrt-fw3");
    fs::write(lab.base.join("opmas.toml"), "").unwrap();
    let client = lab.start().await;
    let (wide, narrow, one) = (json!({"net": "192.168.1.64/28"}), json!({"net": "192.168.1.64/29", "duration": "2h"}), json!({"ip": ATTACKER}));
    is(&apply(&client, "block_subnet", &wide).await, OutcomeState::Enforced, "192.168.1.64/28 is in set opmas_nets4");
    assert!(!lab.router.reaches("at", ROUTER) && !lab.router.reaches("ot", ROUTER));
    is(&apply(&client, "block_subnet", &narrow).await, OutcomeState::Enforced, "");
    is(&apply(&client, "block_ip", &one).await, OutcomeState::Enforced, "");
    is(&verify(&client, "block_subnet", &wide).await, OutcomeState::Enforced, "");
    is(&undo(&client, "block_subnet", &wide).await, OutcomeState::Undone, "");
    assert!(lab.router.reaches("ot", ROUTER) && !lab.router.reaches("at", ROUTER));
    is(&apply(&client, "unblock_ip", &one).await, OutcomeState::Partial, "the network 192.168.1.64/29 is blocked");
    is(&verify(&client, "block_ip", &one).await, OutcomeState::Undone, "");
    is(&undo(&client, "block_subnet", &narrow).await, OutcomeState::Undone, "");
    is(&apply(&client, "unblock_ip", &one).await, OutcomeState::Enforced, "");
    assert!(lab.router.reaches("at", ROUTER));
    let v6 = json!({"net": "fd00:6f70::60/124"});
    is(&apply(&client, "block_subnet", &v6).await, OutcomeState::Enforced, "");
    assert!(!lab.router.reaches("at", ROUTER6) && lab.router.reaches("ot", ROUTER6));
    is(&undo(&client, "block_subnet", &v6).await, OutcomeState::Undone, "");

    let answered = |at: &str| {
        let said = lab.router.sh(at, &format!("busybox ping -q -c 50 -i 0.01 -W 1 {ROUTER} || true"));
        said.split(" packets received").next().and_then(|before| before.rsplit(' ').next()?.parse::<u32>().ok()).unwrap_or_else(|| panic!("{said}"))
    };
    for rate in [5, 99_999] {
        let slow = json!({"ip": ATTACKER, "rate": rate});
        is(&apply(&client, "rate_limit_ip", &slow).await, OutcomeState::Enforced, "");
        if rate == 5 {
            let some = answered("at");
            assert!((1..=20).contains(&some), "{some} of 50");
            assert!(answered("ot") >= 45);
        }
        lab.router.device("fw3-reload");
        is(&verify(&client, "rate_limit_ip", &slow).await, OutcomeState::Enforced, "");
        is(&undo(&client, "rate_limit_ip", &slow).await, OutcomeState::Undone, "");
    }
    assert!(answered("at") >= 45);
}

#[test]
fn from_the_log_to_the_block_and_its_end_on_firewall3() {
    let mut site = Site::of(Router::with("fw3"), "[source.archive]\ntype = 'file'\npath = 'router.log'", "1h");
    site.start();
    fs::write(site.dir.join("router.log"), lines(ATTACKER)).unwrap();
    let soon = Duration::from_secs(30);
    eventually(soon, "it is not blocked", || site.blocked() == [ATTACKER]);
    site.router.device("fw3-stop");
    eventually(soon, "the rules are not put back", || !site.router.reaches("at", ROUTER));
    site.router.device("reboot");
    eventually(soon, "it is not put back", || site.blocked() == [ATTACKER] && !site.router.reaches("at", ROUTER));
    let (_, leases) = site.run(&["lease", "list", "--json"]);
    let lease = serde_json::from_str::<Value>(leases.lines().next().unwrap()).unwrap()["lease"].as_str().unwrap().to_owned();
    let (status, said) = site.run(&["lease", "end", &lease]);
    assert_eq!(status, Some(0), "{said}");
    eventually(soon, "it is not let in", || site.blocked().is_empty() && site.router.reaches("at", ROUTER));
    site.terminate();
}

/// What `-j FLOWOFFLOAD` hands over passes no rule. The rule itself is a patch of OpenWrt's kernels, so that only the listing has it here.
#[tokio::test]
async fn where_connections_are_offloaded_a_block_is_not_said_to_be_whole() {
    let lab = lab("openwrt-fw3");
    let bin = lab.router.root().join("usr/sbin");
    fs::write(
        bin.join("xtables-with-offloading"),
        "#!/bin/sh\ncase \"$*\" in '-w -S FORWARD') echo '-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j FLOWOFFLOAD' ;; esac\nexec xtables-legacy-multi iptables \"$@\"\n",
    )
    .unwrap();
    fs::set_permissions(bin.join("xtables-with-offloading"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::remove_file(bin.join("iptables")).unwrap();
    std::os::unix::fs::symlink("xtables-with-offloading", bin.join("iptables")).unwrap();
    fs::write(lab.base.join("opmas.toml"), "").unwrap();
    let client = lab.start().await;
    let (one, net) = (json!({"ip": ATTACKER}), json!({"net": "192.168.1.64/28"}));
    let both = [("block_ip", &one), ("block_subnet", &net)];
    for (action, params) in both {
        is(&apply(&client, action, params).await, OutcomeState::Partial, "offloaded");
    }
    fs::copy(bin.join("conntrack.package"), bin.join("conntrack")).unwrap();
    for (action, params) in both {
        is(&verify(&client, action, params).await, OutcomeState::Enforced, "");
        is(&apply(&client, action, params).await, OutcomeState::Enforced, "");
    }
    // One that lists nothing is not one that has nothing.
    fs::write(bin.join("conntrack"), "#!/bin/sh\nexit 2\n").unwrap();
    for (action, params) in both {
        is(&verify(&client, action, params).await, OutcomeState::Partial, "offloaded");
    }
}

#[tokio::test]
async fn hostile_values_reach_no_shell_of_firewall3() {
    let lab = lab("openwrt-fw3");
    let client = lab.start().await;
    let before = lab.rules();
    let hostile = [
        "1.2.3.4; touch /tmp/canary",
        "$(touch /tmp/canary)",
        "`touch /tmp/canary`",
        "1.2.3.4\nflush",
        "-F",
        "1.2.3.4 timeout 0",
        "'",
        "\"",
        "${IFS}",
        "",
        "*",
    ];
    for (action, param) in [("block_ip", "ip"), ("unblock_ip", "ip"), ("block_subnet", "net"), ("rate_limit_ip", "ip"), ("rate_limit_ip", "rate")] {
        for value in hostile {
            let mut params = json!({param: value});
            if param == "rate" {
                params["ip"] = json!(ATTACKER);
            }
            let reply = apply(&client, action, &params).await;
            is(&reply, OutcomeState::Refused, "");
            assert!(reply.commands.is_empty(), "{action} {value:?}");
        }
    }
    assert!(!lab.router.root().join("tmp/canary").exists());
    let shape = |rules: &str| rules.lines().filter(|line| line.contains("opmas")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(shape(&lab.rules()), shape(&before));
}

#[tokio::test]
async fn a_router_of_another_firewall_is_recognised_and_forgetting_leaves_nothing() {
    let lab = lab("openwrt-fw4");
    let client = lab.start().await;
    is(&client.perform(Request::Check { device: "ap1".into() }).await, OutcomeState::Partial, "write platform = \"openwrt-fw3\"");
    client.shutdown().await;
    let keys = || fs::read_to_string(lab.router.root().join("etc/dropbear/authorized_keys")).unwrap();
    let before = keys();
    let output = lab.router.opmas(&lab.base, &["device", "enroll", "ap1"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(4) && said.contains("it has no nft: write platform = \"openwrt-fw3\" for it in devices.toml"), "{said}");
    assert!(keys() == before && !lab.router.root().join("etc/opmas").exists(), "nothing was put there");
    fs::write(lab.base.join("devices.toml"), format!("[[device]]\nname = 'ap1'\nhost = '{ROUTER}'\nplatform = 'openwrt-fw3'\n")).unwrap();
    let opmas = |args: &[&str]| {
        let output = lab.router.opmas(&lab.base, args);
        (output.status.code().unwrap(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = opmas(&["device", "check", "ap1"]);
    assert!(code == 0 && said.contains("OpenWrt 21.02.7; fw3 yes, ipset yes"), "{said}");
    // Through the helper, as by a shell.
    let (code, said) = opmas(&["device", "enroll", "ap1"]);
    assert_eq!(code, 0, "{said}");
    let client = lab.start().await;
    for ip in [ATTACKER, ATTACKER6] {
        is(&apply(&client, "block_ip", &json!({"ip": ip})).await, OutcomeState::Enforced, "");
    }
    is(&apply(&client, "rate_limit_ip", &json!({"ip": ATTACKER6})).await, OutcomeState::Enforced, "");
    assert!(!lab.router.reaches("at", ROUTER) && !lab.router.reaches("at", ROUTER6));
    is(&apply(&client, "collect_diagnostics", &json!({})).await, OutcomeState::Enforced, "");
    client.shutdown().await;
    let (code, said) = opmas(&["device", "forget", "ap1"]);
    assert_eq!(code, 0, "{said}");
    assert!(!lab.rules().contains("opmas"), "{}", lab.rules());
    eventually(Duration::from_secs(10), "it is not let in", || lab.router.reaches("at", ROUTER) && lab.router.reaches("at", ROUTER6));
}

#[test]
fn firewall3_is_not_enrolled_where_there_is_firewall4() {
    let lab = Lab::new();
    fs::write(lab.base.join("devices.toml"), format!("[[device]]\nname = 'ap1'\nhost = '{ROUTER}'\nplatform = 'openwrt-fw3'\n")).unwrap();
    for (command, code, words) in [
        ("check", 1, "ap1 answers, but it has firewall4: write platform = \"openwrt-fw4\" for it in devices.toml"),
        ("enroll", 4, "it has no fw3: its platform in devices.toml is \"openwrt-fw4\""),
    ] {
        let output = lab.router.opmas(&lab.base, &["device", command, "ap1"]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(words) && !said.contains("opkg"), "{said}");
    }
    assert!(!lab.router.root().join("etc/opmas").exists());
}
