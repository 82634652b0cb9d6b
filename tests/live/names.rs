//! What the daemons of names and addresses really log is typed: dnsmasq with DHCP clients, and pppd's own wordings.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::router::{OPMAS, Router, eventually};

/// Ends it with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The events of log lines.
fn events(lines: &str) -> Vec<Value> {
    let mut normalise = Command::new(OPMAS).arg("normalise").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    normalise.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = normalise.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn actions(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["action"].as_str().unwrap_or_else(|| panic!("not typed: {event}"))).collect()
}

/// dnsmasq on the router with a pool of one address, and what it logged meanwhile.
fn dnsmasq(router: &Router, more: &[&str], meanwhile: impl FnOnce(&Path)) -> String {
    let log = router.dir.path().join("dnsmasq.log");
    let (_, _) = (fs::remove_file(&log), fs::remove_file(log.with_extension("leases")));
    let mut command = router.command("rt", "dnsmasq");
    command.args([
        "-k",
        "--conf-file=/dev/null",
        "--interface=br-lan",
        "--bind-interfaces",
        "--dhcp-range=192.168.1.150,192.168.1.150,1h",
        "--dhcp-authoritative",
        "--no-ping",
    ]);
    command.args(["--log-queries", "--no-resolv", "--no-hosts", "--server=198.51.100.9", "--user=root", "--pid-file="]);
    command.arg(format!("--dhcp-leasefile={}", log.with_extension("leases").display()));
    command.arg(format!("--log-facility={}", log.display())).args(more).stdin(Stdio::null());
    let daemon = Daemon(command.spawn().unwrap());
    eventually(Duration::from_secs(10), "dnsmasq does not start", || fs::read_to_string(&log).is_ok_and(|text| text.contains("started, version")));
    meanwhile(&log);
    drop(daemon);
    fs::read_to_string(&log).unwrap()
}

/// A DHCP client that calls itself so; what it said.
fn client(router: &Router, at: &str, name: &str) -> String {
    let arguments = ["udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "2", "-T", "1", "-s", "/bin/true", "-x", &format!("hostname:{name}")];
    let output = router.command(at, "busybox").args(arguments).stdin(Stdio::null()).output().unwrap();
    String::from_utf8([output.stderr, output.stdout].concat()).unwrap()
}

#[test]
fn x4_what_dnsmasq_and_its_clients_log_is_typed() {
    let router = Router::up();
    for more in [&[][..], &["--log-dhcp"]] {
        let mut said = String::new();
        let log = dnsmasq(&router, more, |log| {
            said = client(&router, "at", "laptop");
            // The pool has one address: the next client finds none.
            said += &client(&router, "ot", "x from 8.8.8.8");
            router.sh("at", "timeout 5 busybox nslookup no-such.example 192.168.1.1 || true");
            eventually(Duration::from_secs(10), "no query", || fs::read_to_string(log).unwrap().contains("query[A] no-such.example"));
        });
        let (events, clients) = (events(&log), events(&said));
        let actions = actions(&events);
        for action in ["dhcp_discover", "dhcp_offer", "dhcp_request", "dhcp_ack", "dns_query", "dns_forwarded"] {
            assert!(actions.contains(&action), "{action}: {log}");
        }
        let ack = events.iter().find(|event| event["action"] == "dhcp_ack").unwrap();
        assert_eq!((&ack["client_ip"], &ack["interface"], &ack["client_host"]), (&"192.168.1.150".into(), &"br-lan".into(), &"laptop".into()));
        let lease = clients.iter().find(|event| event["action"] == "dhcp_lease_obtained").unwrap_or_else(|| panic!("{said}"));
        assert_eq!((&lease["client_ip"], &lease["server_ip"]), (&"192.168.1.150".into(), &"192.168.1.1".into()));
        assert!(clients.iter().any(|event| event["action"] == "dhcp_client_no_lease"), "{said}");
        let query = events.iter().find(|event| event["action"] == "dns_query").unwrap();
        assert_eq!((&query["dns_name"], &query["client_ip"]), (&"no-such.example".into(), &"192.168.1.66".into()));
    }
}

/// Where the kernel has no PPP no pppd starts; the texts that it would log stand in the program and its plugin.
#[test]
fn x4_pppds_wordings_are_its_own() {
    let plugins = fs::read_dir("/usr/lib/pppd").unwrap().map(|entry| entry.unwrap().path().join("pppoe.so"));
    let program: Vec<u8> = plugins.filter_map(|plugin| fs::read(plugin).ok()).chain([fs::read("/usr/sbin/pppd").unwrap()]).flatten().collect();
    let has = |text: &str| program.windows(text.len()).any(|window| window == text.as_bytes());
    let file = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/extractors/pppd.toml")).unwrap();
    let table: toml::Table = file.parse().unwrap();
    let lines: Vec<&str> = table["pattern"].as_array().unwrap().iter().map(|pattern| pattern["line"].as_str().unwrap()).collect();
    // Later versions than Debian's say these.
    let newer = ["Renamed interface", "pppoe: Timeout", "Unable to complete PPPoE Discovery phase", "LL address", "PPPoE plugin from"];
    let unknown: Vec<&&str> = lines.iter().filter(|line| !newer.iter().any(|words| line.contains(words))).filter(|line| !has(longest(line))).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// The longest text of a template that pppd does not put together itself.
fn longest(line: &str) -> &str {
    let fixed = line.split('{').map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
    let words = fixed.map(|part| part.trim_start_matches("PAP ").trim_start_matches("CHAP ").trim_start_matches("EAP ").trim_end_matches(": "));
    words.max_by_key(|part| part.len()).unwrap()
}
