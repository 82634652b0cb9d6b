//! Each shipped action on a real router: what it does there, how it is read back, and that it is gone when it is undone.

use std::fs;
use std::time::{Duration, Instant};

use opmas::action::{Catalogue, Grammar};
use opmas::executor::{Client, Reply, Request, Task};
use opmas::model::{OutcomeState, Verdict};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use crate::executor::{Lab, is};
use crate::router::{ATTACKER, MANAGER, OTHER, ROUTER, eventually};

const STATION: &str = "00:11:22:aa:bb:cc";
const GUEST: &str = "00:11:22:dd:ee:ff";

fn task(device: &str, action: &str, params: &Value) -> Task {
    Task { id: "test:1".into(), device: device.into(), action: action.into(), params: params.as_object().unwrap().clone(), verdict: Verdict::Auto }
}

async fn apply(client: &Client, action: &str, params: Value) -> Reply {
    client.perform(Request::Apply(task("ap1", action, &params))).await
}

async fn verify(client: &Client, action: &str, params: Value) -> Reply {
    client.perform(Request::Verify(task("ap1", action, &params))).await
}

async fn undo(client: &Client, action: &str, params: Value) -> Reply {
    client.perform(Request::Undo(task("ap1", action, &params))).await
}

impl Lab {
    /// A file on the router.
    fn file(&self, path: &str) -> String {
        fs::read_to_string(self.router.root().join(path)).unwrap_or_default()
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.router.root().join(path), text).unwrap();
    }

    /// Waits until the radio is up, which a start of the router brings about.
    fn radio(&self) {
        eventually(Duration::from_secs(5), "the radio is not up", || self.router.root().join("tmp/hostapd/phy0-ap1/banned").exists());
    }

    /// How many of 50 pings are answered.
    fn answered(&self, at: &str) -> u32 {
        let said = self.router.sh(at, &format!("busybox ping -q -c 50 -i 0.01 -W 1 {ROUTER} || true"));
        said.split(" packets received").next().and_then(|before| before.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{said}"))
    }
}

#[tokio::test]
async fn networks_are_blocked_independently_of_each_other() {
    let lab = Lab::new();
    fs::write(lab.base.join("opmas.toml"), "").unwrap();
    let client = lab.start().await;
    let (wide, narrow) = (json!({"net": "192.168.1.64/28"}), json!({"net": "192.168.1.64/29", "duration": "2h"}));
    is(&apply(&client, "block_subnet", wide.clone()).await, OutcomeState::Enforced, "");
    assert!(!lab.router.reaches("at", ROUTER) && !lab.router.reaches("ot", ROUTER));
    is(&apply(&client, "block_subnet", narrow.clone()).await, OutcomeState::Enforced, "");
    is(&apply(&client, "block_ip", json!({"ip": ATTACKER})).await, OutcomeState::Enforced, "");
    is(&verify(&client, "block_subnet", wide.clone()).await, OutcomeState::Enforced, "");
    is(&undo(&client, "block_subnet", wide.clone()).await, OutcomeState::Undone, "");
    assert!(lab.router.reaches("ot", ROUTER) && !lab.router.reaches("at", ROUTER));
    let partly = apply(&client, "unblock_ip", json!({"ip": ATTACKER})).await;
    is(&partly, OutcomeState::Partial, "the network 192.168.1.64/29 is blocked");
    is(&verify(&client, "block_ip", json!({"ip": ATTACKER})).await, OutcomeState::Undone, "");
    is(&undo(&client, "block_subnet", narrow).await, OutcomeState::Undone, "");
    assert!(lab.router.reaches("at", ROUTER));
    is(&apply(&client, "block_ip", json!({"ip": ATTACKER})).await, OutcomeState::Enforced, "");
    is(&apply(&client, "unblock_ip", json!({"ip": ATTACKER})).await, OutcomeState::Enforced, "is not in set hosts4");
    assert!(lab.router.reaches("at", ROUTER));

    let v6 = json!({"net": "fd00:6f70::60/124"});
    is(&apply(&client, "block_subnet", v6.clone()).await, OutcomeState::Enforced, "");
    assert!(!lab.router.reaches("at", "fd00:6f70::1") && lab.router.reaches("ot", "fd00:6f70::1"));
    lab.router.device("fw4-stop");
    is(&verify(&client, "block_subnet", v6.clone()).await, OutcomeState::Undone, "");
    is(&apply(&client, "block_subnet", v6).await, OutcomeState::Enforced, "");

    for (net, why) in
        [("192.168.0.0/15", "larger than a /16"), ("192.168.1.0/28", "holds"), ("192.168.1.240/28", "broadcast"), ("198.51.100.120/29", "time server")]
    {
        let reply = apply(&client, "block_subnet", json!({"net": net})).await;
        is(&reply, OutcomeState::Refused, why);
    }
    // What a flow table offloads passes no forward chain: this kernel has none, and the rules are what they are.
    lab.router.sh("rt", "nft insert rule inet opmas input_net6_124 accept");
    is(&verify(&client, "block_subnet", json!({"net": "fd00:6f70::60/124"})).await, OutcomeState::Partial, "a rule that opmas did not put there");
}

#[tokio::test]
async fn an_address_is_slowed_down_and_let_go() {
    let lab = Lab::new();
    let client = lab.start().await;
    let slow = json!({"ip": ATTACKER, "rate": 5});
    assert!(lab.answered("at") >= 45);
    is(&apply(&client, "rate_limit_ip", slow.clone()).await, OutcomeState::Enforced, "");
    let answered = lab.answered("at");
    assert!((1..=20).contains(&answered), "{answered} of 50");
    assert!(lab.answered("ot") >= 45, "another address has its own rate");
    is(&verify(&client, "rate_limit_ip", slow.clone()).await, OutcomeState::Enforced, "");
    is(&undo(&client, "rate_limit_ip", slow.clone()).await, OutcomeState::Undone, "");
    assert!(lab.answered("at") >= 45);
    is(&apply(&client, "rate_limit_ip", json!({"ip": MANAGER})).await, OutcomeState::Refused, "must not be blocked");
}

#[tokio::test]
async fn a_linux_with_nft_does_what_a_router_does() {
    let lab = Lab::new();
    lab.router.sh("rt", "nft delete table inet fw4");
    fs::write(lab.base.join("devices.toml"), format!("[[device]]\nname = 'ap1'\nhost = '{ROUTER}'\nplatform = 'linux'\n")).unwrap();
    let client = lab.start().await;
    is(&client.perform(Request::Check { device: "ap1".into() }).await, OutcomeState::Enforced, "actions can run");
    is(&apply(&client, "block_ip", json!({"ip": ATTACKER})).await, OutcomeState::Enforced, "");
    assert!(!lab.router.reaches("at", ROUTER) && lab.router.reaches("ot", ROUTER));
    is(&apply(&client, "unblock_ip", json!({"ip": ATTACKER})).await, OutcomeState::Enforced, "");
    assert!(lab.router.reaches("at", ROUTER));
    is(&apply(&client, "collect_diagnostics", json!({})).await, OutcomeState::Enforced, "bytes were read");
    is(&apply(&client, "reload_wifi", json!({})).await, OutcomeState::Refused, "[platform.linux]");
}

#[tokio::test]
async fn what_is_read_comes_back_as_evidence() {
    let lab = Lab::new();
    lab.write("tmp/log", "<86>Nov 21 13:08:11 ap1 dropbear[27411]: Child connection from 203.0.113.9:50876\n");
    let client = lab.start().await;
    let ping = apply(&client, "ping", json!({"ip": MANAGER})).await;
    is(&ping, OutcomeState::Enforced, "bytes were read");
    assert!(ping.evidence.as_deref().unwrap().contains("4 packets transmitted, 4 packets received"), "{ping:#?}");
    let ping = apply(&client, "ping", json!({"ip": "192.168.1.250"})).await;
    is(&ping, OutcomeState::Failed, "ended with 1");
    assert!(ping.evidence.as_deref().unwrap().contains("100% packet loss"), "{ping:#?}");
    let trace = apply(&client, "traceroute", json!({"ip": "198.51.100.9"})).await;
    is(&trace, OutcomeState::Enforced, "");
    assert!(trace.evidence.as_deref().unwrap().contains(" 1  198.51.100.9"), "{trace:#?}");
    let log = apply(&client, "collect_log", json!({"lines": 50})).await;
    is(&log, OutcomeState::Enforced, "");
    assert!(log.evidence.as_deref().unwrap().contains("Child connection from 203.0.113.9"), "{log:#?}");
    let diagnostics = apply(&client, "collect_diagnostics", json!({})).await;
    is(&diagnostics, OutcomeState::Enforced, "");
    let evidence = diagnostics.evidence.as_deref().unwrap();
    for part in ["24.10.4", "load average", "Mem:", "br-lan", "default via", "dropbear", "chain input_wan"] {
        assert!(evidence.contains(part), "{part}: {evidence}");
    }
    let backup = apply(&client, "backup_config", json!({})).await;
    is(&backup, OutcomeState::Enforced, "");
    let evidence = backup.evidence.as_deref().unwrap();
    assert!(evidence.contains("package wireless\n\nconfig wifi-device 'radio0'\n") && evidence.contains("\toption key 'example-key'\n"), "{evidence}");
    is(&undo(&client, "ping", json!({"ip": MANAGER})).await, OutcomeState::Refused, "it changes nothing");

    // What is printed beyond the bound is thrown away.
    let many: String = (0..20_000).map(|n| format!("line {n:06} {}\n", "x".repeat(100))).collect();
    lab.write("tmp/log", &many);
    let log = apply(&client, "collect_log", json!({"lines": 5000})).await;
    is(&log, OutcomeState::Enforced, "524288 bytes were read");
    let kept = log.evidence.as_deref().unwrap();
    assert!(kept.len() < 525_000 && kept.ends_with("the rest is left out\n"), "{}", kept.len());
}

#[tokio::test]
async fn a_service_is_restarted_and_a_device_rebooted_and_both_are_seen_to_be_new() {
    let lab = Lab::new();
    let client = lab.start().await;
    let process = || lab.file("tmp/service/dnsmasq");
    eventually(Duration::from_secs(3), "dnsmasq does not run", || !process().is_empty());
    let before = process();
    is(&apply(&client, "restart_service", json!({"service": "dnsmasq"})).await, OutcomeState::Enforced, "");
    assert_ne!(process(), before);
    is(&apply(&client, "restart_service", json!({"service": "cron"})).await, OutcomeState::Failed, "not found");
    is(&apply(&client, "restart_service", json!({"service": "firewall"})).await, OutcomeState::Refused, "one of");
    // One that does not come up.
    lab.write("etc/init.d/uhttpd", "#!/bin/ash\nkill \"$(cat /tmp/service/uhttpd)\"\n");
    let text = fs::read_to_string(lab.base.join("playbooks/actions/restart_service.toml")).unwrap();
    fs::write(lab.base.join("playbooks/actions/restart_quick.toml"), text.replace("settle = \"30s\"", "settle = \"2s\"")).unwrap();
    client.shutdown().await;
    let client = lab.start().await;
    is(&apply(&client, "restart_quick", json!({"service": "uhttpd"})).await, OutcomeState::Failed, "`uhttpd.instances.*.running` is not true");

    is(&apply(&client, "reload_wifi", json!({})).await, OutcomeState::Enforced, "");
    is(&apply(&client, "block_ip", json!({"ip": ATTACKER})).await, OutcomeState::Enforced, "");
    let (begun, id) = (Instant::now(), lab.router.sh("rt", &format!("cat {}/boot_id", lab.router.folder().display())));
    let reply = apply(&client, "reboot", json!({})).await;
    is(&reply, OutcomeState::Enforced, "");
    assert!(begun.elapsed() > Duration::from_secs(2) && begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert_ne!(lab.router.sh("rt", &format!("cat {}/boot_id", lab.router.folder().display())), id);
    is(&verify(&client, "block_ip", json!({"ip": ATTACKER})).await, OutcomeState::Undone, "");
    // After a crash nobody knows which boot it was: it is not done again.
    is(&verify(&client, "reboot", json!({})).await, OutcomeState::Unknown, "how it was before is not known");
}

#[tokio::test]
async fn a_reboot_that_does_not_come_about_is_no_success() {
    let lab = Lab::new();
    lab.write("usr/sbin/reboot", "#!/bin/ash\nexit 0\n");
    let text = fs::read_to_string(lab.base.join("playbooks/actions/reboot.toml")).unwrap();
    fs::write(lab.base.join("playbooks/actions/reboot.toml"), text.replace("settle = \"5m\"", "settle = \"2s\"")).unwrap();
    let client = lab.start().await;
    is(&apply(&client, "reboot", json!({})).await, OutcomeState::Failed, "it is as it was before");
}

#[tokio::test]
async fn a_station_is_banned_on_every_access_point_of_the_device() {
    let lab = Lab::new();
    lab.radio();
    let client = lab.start().await;
    let connected = || {
        lab.write("tmp/hostapd/phy0-ap0/clients", &format!("{STATION}\n{GUEST}\n"));
        lab.write("tmp/hostapd/phy0-ap1/clients", "");
    };
    connected();
    let ban = json!({"mac": STATION, "duration": "24h"});
    is(&verify(&client, "ban_station", ban.clone()).await, OutcomeState::Undone, "has no");
    is(&apply(&client, "ban_station", ban.clone()).await, OutcomeState::Enforced, "");
    for bss in ["phy0-ap0", "phy0-ap1"] {
        let banned = lab.file(&format!("tmp/hostapd/{bss}/banned"));
        let until: u64 = banned.trim().strip_prefix(STATION).unwrap().trim().parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!((3590..=3601).contains(&(until - now)), "an hour, not what is left of a day in 32 bits: {}", until - now);
    }
    assert_eq!(lab.file("tmp/hostapd/phy0-ap0/clients"), format!("{GUEST}\n"));
    lab.write("tmp/hostapd/phy0-ap1/banned", "");
    is(&verify(&client, "ban_station", ban.clone()).await, OutcomeState::Partial, "has no");
    is(&apply(&client, "ban_station", ban.clone()).await, OutcomeState::Enforced, "");
    is(&undo(&client, "ban_station", ban.clone()).await, OutcomeState::Undone, "");
    is(&undo(&client, "ban_station", ban.clone()).await, OutcomeState::Undone, "");

    is(&apply(&client, "ban_station", ban.clone()).await, OutcomeState::Enforced, "");
    is(&apply(&client, "unban_station", json!({"mac": STATION})).await, OutcomeState::Enforced, "");
    is(&verify(&client, "ban_station", ban.clone()).await, OutcomeState::Undone, "");
    connected();
    is(&apply(&client, "deauth_station", json!({"mac": STATION})).await, OutcomeState::Enforced, "");
    assert_eq!(lab.file("tmp/hostapd/phy0-ap0/clients"), format!("{GUEST}\n"));
    for action in ["ban_station", "unban_station", "deauth_station"] {
        let reply = apply(&client, action, json!({"mac": "ff:ff:ff:ff:ff:ff"})).await;
        is(&reply, OutcomeState::Refused, "one station");
        assert!(reply.commands.is_empty());
    }
    // Neither is the machine that the router is managed from.
    let manager = lab.router.sh("mg", "ip -o link show eth0 | sed 's/.*link.ether //; s/ .*//'");
    let reply = apply(&client, "ban_station", json!({"mac": manager.trim()})).await;
    is(&reply, OutcomeState::Refused, "the station with 192.168.1.2");
    // Without an access point nothing is banned.
    fs::remove_dir_all(lab.router.root().join("tmp/hostapd")).unwrap();
    is(&apply(&client, "ban_station", ban).await, OutcomeState::Failed, "no access point runs here");
}

#[tokio::test]
async fn a_change_of_the_radio_is_kept_when_confirmed_and_taken_back_by_the_device_otherwise() {
    let lab = Lab::new();
    lab.radio();
    for name in ["set_channel", "uci_set"] {
        let path = lab.base.join(format!("playbooks/actions/{name}.toml"));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace("sleep 150", "sleep 11").replace("settle = \"100s\"", "settle = \"4s\"")).unwrap();
    }
    let client = lab.start().await;
    let channel = || lab.file("tmp/radio/channel").trim().to_owned();
    let watchdog = lab.router.root().join("tmp/opmas-wireless.pid");
    is(&apply(&client, "set_channel", json!({"radio": "radio0", "channel": "11"})).await, OutcomeState::Enforced, "");
    assert!(channel() == "11" && !watchdog.exists());
    is(&apply(&client, "uci_set", json!({"section": "radio0", "option": "htmode", "value": "HT20"})).await, OutcomeState::Enforced, "");
    assert!(!watchdog.exists() && !lab.router.runs("rt", "11"), "what would take it back is ended");

    // This radio has no such channel: it stays down, and nobody confirms.
    let begun = Instant::now();
    let reply = apply(&client, "set_channel", json!({"radio": "radio0", "channel": "44"})).await;
    is(&reply, OutcomeState::Failed, "the device takes back by itself");
    assert_eq!(channel(), "44");
    let reply = apply(&client, "uci_set", json!({"section": "radio0", "option": "htmode", "value": "HT40"})).await;
    is(&reply, OutcomeState::Failed, "another change of it is not confirmed yet");
    eventually(Duration::from_secs(20), "it is not taken back", || channel() == "11" && !watchdog.exists());
    assert!(begun.elapsed() > Duration::from_secs(10));
    assert!(lab.file("etc/config/wireless").contains("wireless.radio0.htmode=HT20") && !lab.file("etc/config/wireless").contains("=44"));

    // A controller that dies in between confirms nothing.
    let asking = client.clone();
    let asked = tokio::spawn(async move { apply(&asking, "uci_set", json!({"section": "radio0", "option": "country", "value": "DE"})).await });
    eventually_async(|| lab.file("etc/config/wireless").contains("country=DE")).await;
    let process = client.status().borrow().process.unwrap();
    lab.router.sh("mg", &format!("kill -9 {process}"));
    is(&asked.await.unwrap(), OutcomeState::Unknown, "");
    eventually_async(|| !lab.file("etc/config/wireless").contains("country=DE") && !watchdog.exists()).await;

    // What others have not committed stays theirs.
    client.status().wait_for(|status| status.ready && status.process != Some(process)).await.unwrap();
    fs::create_dir_all(lab.router.root().join("tmp/.uci")).unwrap();
    lab.write("tmp/.uci/wireless", "wireless.default_radio0.ssid=Mine\n");
    let reply = apply(&client, "uci_set", json!({"section": "radio0", "option": "country", "value": "DE"})).await;
    is(&reply, OutcomeState::Failed, "wait uncommitted");
    assert_eq!(lab.file("tmp/.uci/wireless"), "wireless.default_radio0.ssid=Mine\n");
    for (section, option, value) in [("radio0.x", "country", "DE"), ("radio0", "key", "x"), ("radio0", "country", "D'E"), ("radio0", "country", "-P")] {
        let reply = apply(&client, "uci_set", json!({"section": section, "option": option, "value": value})).await;
        is(&reply, OutcomeState::Refused, "uci_set");
    }
}

async fn eventually_async(mut so: impl FnMut() -> bool) {
    for _ in 0..800 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it does not come about within 20 s");
}

/// What somebody may write into a log line to have it run.
fn hostile() -> impl Strategy<Value = String> {
    const BITS: &str = "(touch /tmp/canary|\\$\\(touch /tmp/canary\\)|`touch /tmp/canary`|'|\"|\\\\|;|&&|\\||\\$IFS|\\$\\{ip\\}|%s|%n|\n|\t|\0|>/tmp/canary|<|#|\\*|~|!|=|,|\\{|\\}|\u{202e}|\u{9b}31m|é|--help|-n|/../|192\\.168\\.1\\.66|00:11:22:aa:bb:cc|1h|radio0|11|auto|dnsmasq| )";
    proptest::string::string_regex(&format!("{BITS}{{1,6}}|\\PC{{0,60}}|[0-9a-f:./]{{1,24}}|[1-9][0-9]?[smhd]")).unwrap()
}

fn good(grammar: &Grammar) -> Value {
    match grammar {
        Grammar::Ip => json!("203.0.113.9"),
        Grammar::Prefix => json!("203.0.113.0/24"),
        Grammar::Mac => json!(STATION),
        Grammar::Interface | Grammar::Word { .. } => json!("radio0"),
        Grammar::Duration { .. } => json!("1h"),
        Grammar::Int { min, .. } => json!(min),
        Grammar::Enum(words) => json!(words[0]),
        Grammar::Text { .. } => json!("text"),
    }
}

/// The shipped actions, each with its own parameters, that print them on the router in place of what they do there.
fn echoes(lab: &Lab) -> Catalogue {
    let folder = lab.base.join("playbooks/actions");
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (head, _) = text.split_once("[platform.openwrt-fw4]").unwrap();
        let table: toml::Table = head.parse().unwrap();
        let names = table.get("params").and_then(|params| params.as_table()).map(|params| params.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
        let arguments: String = names.iter().map(|name| format!(", \"{name}=${{{name}}}\"")).collect();
        let echo =
            format!("[platform.openwrt-fw4]\ncheck = 'output'\nno_undo = 'x'\n[[platform.openwrt-fw4.verify]]\nargv = [\"printf\", \"%s\\\\n\"{arguments}]\n");
        fs::write(path, format!("{head}{echo}")).unwrap();
    }
    let files = fs::read_dir(&folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        opmas::diag::SourceFile { name: path.file_name().unwrap().to_string_lossy().into(), text: fs::read_to_string(&path).unwrap().into() }
    });
    let (catalogue, wrong) = Catalogue::load(&files.collect::<Vec<_>>());
    assert!(wrong.is_empty(), "{wrong:?}");
    catalogue
}

#[tokio::test]
async fn hostile_values_are_data_to_the_shell_of_the_device_or_never_leave() {
    let values = if std::env::var("OPMAS_LONG").is_ok_and(|long| long == "1") { 10_000 } else { 2_000 };
    let lab = Lab::new();
    let catalogue = echoes(&lab);
    let client = lab.start().await;
    let places: Vec<(&str, &str)> = catalogue.iter().flat_map(|action| action.params.iter().map(|param| (&*action.name, param.name.as_str()))).collect();
    // Free text takes most of it, one line at a time: it is every second one.
    let free = places.iter().position(|(action, param)| matches!(catalogue.get(action).unwrap().param(param).unwrap().grammar, Grammar::Text { .. })).unwrap();
    let (strategy, mut runner) = (hostile(), TestRunner::deterministic());
    let (mut sent, mut refused) = (0, 0);
    for n in 0..values {
        let (action, param) = places[if n % 2 == 0 { free } else { n / 2 % places.len() }];
        let action = catalogue.get(action).unwrap();
        let mut params: Map<String, Value> = action.params.iter().map(|param| (param.name.clone(), good(&param.grammar))).collect();
        params.insert(param.to_owned(), Value::String(strategy.new_tree(&mut runner).unwrap().current()));
        let reply = client.perform(Request::Verify(task("ap1", &action.name, &Value::Object(params.clone())))).await;
        match action.params(&params) {
            Ok(canonical) => {
                sent += 1;
                let mut names: Vec<&str> = canonical.iter().map(|(name, _)| name).collect();
                names.sort_unstable();
                let wanted: String = names.iter().map(|name| format!("{name}={}\n", canonical.get(name).unwrap())).collect();
                is(&reply, OutcomeState::Enforced, "");
                let evidence = reply.evidence.as_deref().unwrap();
                assert!(evidence.ends_with(&format!("\n{wanted}# exit 0\n")), "{params:?}: {evidence}");
            }
            Err(why) => {
                refused += 1;
                is(&reply, OutcomeState::Refused, "");
                assert!(reply.commands.is_empty() && reply.evidence.is_none(), "{why}: {reply:#?}");
            }
        }
    }
    eprintln!("{sent} were sent, {refused} refused");
    assert!(sent > values / 10 && refused > values / 2, "{sent} sent, {refused} refused");
    assert!(!lab.router.root().join("tmp/canary").exists(), "one of them was run");
    assert!(lab.router.reaches("ot", ROUTER), "{OTHER}");
}
