//! The shipped rules: their cases, and a quiet day, through the real program.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn opmas(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_opmas"))
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // Whoever reads no input has closed it.
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).is_ok());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

#[test]
fn every_case_of_the_shipped_rules_holds() {
    let output = opmas(&["test", "rules"], "");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{told}");
    let held: usize = told.split_once(" cases hold, 0 do not").unwrap().0.parse().unwrap();
    assert!(held > 80, "{told}");
}

#[test]
fn x1_a_case_that_does_not_hold_is_told_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let rule = "title: T\nname: t\nlogsource: {product: test}\ndetection: {one: {message: x}, condition: one}\n";
    let cases = "cases:\n  - name: one is said\n    lines: ['<13>Nov 21 13:00:00 a: x', '<13>Nov 21 13:00:00 a: y']\n    findings: [t]\n  - name: none\n    lines: ['<13>Nov 21 13:00:00 a: x']\n    findings: []\n";
    std::fs::write(dir.path().join("t.yml"), rule).unwrap();
    std::fs::write(dir.path().join("t.cases.yml"), cases).unwrap();
    let file = dir.path().join("t.cases.yml").display().to_string();
    for path in [dir.path().to_str().unwrap(), &file] {
        let output = opmas(&["test", path], "");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert_eq!(told, format!("{file}:5: none\n  expected: nothing\n  found:    t\n1 cases hold, 1 do not\n"));
    }
    std::fs::write(&file, "cases:\n  - name: x\n    liens: []\n    findings: []\n").unwrap();
    let output = opmas(&["test", &file], "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("t.cases.yml:3:5: unknown key `liens`; did you mean `lines`?"), "{said}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(opmas(&["test", dir.path().to_str().unwrap()], "").status.code(), Some(3));
}

/// Every rule says what a reader needs who did not write it: a rule that can report has a remedy and says when it is wrong.
#[test]
fn every_shipped_rule_says_what_to_do() {
    let shipped: Vec<_> = opmas::config::Folder::Rules.shipped().into_iter().filter(|file| opmas::config::is_rule(&file.name)).collect();
    let set = opmas::sigma::load(&shipped).set;
    for (index, rule) in set.rules.iter().enumerate() {
        assert!(rule.id.is_some() && rule.name.is_some() && rule.level.is_some(), "{}", rule.title);
        let informational = rule.level.is_some_and(|level| level.level() == "informational");
        assert!(set.is_silent(index) || informational || rule.opmas.remediation.is_some(), "{}: no remediation", rule.title);
        assert!(!rule.opmas.entities.is_empty() || rule.name.as_deref().is_some_and(|name| name.starts_with("opmas_")), "{}: no entities", rule.title);
    }
}

/// What a quiet network of two access points and a server logs on one day: people come, roam and go, phones sleep, leases are renewed,
/// someone mistypes a password twice, and the administrator logs in.
fn quiet_day() -> Vec<String> {
    let mut lines: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let mut say = |second: u32, host: &str, message: String| {
        let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
        lines.entry(second).or_default().push(format!("<30>Nov 21 {time} {host} {message}"));
    };
    for station in 0..12u32 {
        let mac = format!("02:00:00:00:10:{station:02x}");
        let arrival = 6 * 3600 + station * 1117;
        for visit in 0..6u32 {
            let (at, host) = (arrival + visit * 7200, ["ap1", "ap2"][((station + visit) % 2) as usize]);
            let sta = |what: &str| format!("hostapd: phy0-ap0: STA {mac} {what}");
            say(at, host, sta("IEEE 802.11: authenticated"));
            say(at, host, sta(&format!("IEEE 802.11: associated (aid {})", station + 1)));
            say(at, host, format!("hostapd: phy0-ap0: AP-STA-CONNECTED {mac} auth_alg=open"));
            say(at, host, sta("WPA: pairwise key handshake completed (RSN)"));
            say(at + 1, "ap1", format!("dnsmasq-dhcp[1141]: DHCPREQUEST(br-lan) 192.168.1.{} {mac}", 100 + station));
            say(at + 1, "ap1", format!("dnsmasq-dhcp[1141]: DHCPACK(br-lan) 192.168.1.{} {mac} phone-{station}", 100 + station));
            for reading in 0..10u32 {
                say(at + 30 + reading * 60, host, format!("hostapd: phy0-ap0: RX-PROBE-REQUEST sa={mac} signal=-{}", 50 + (reading * 7 + station) % 24));
            }
            // A station that roams repeats itself, and is forgotten later where it was.
            for _ in 0..if visit == 3 { 28 } else { 1 } {
                say(at + 3600, host, sta("IEEE 802.11: deauthenticated"));
            }
            say(at + 3600, host, format!("hostapd: phy0-ap0: AP-STA-DISCONNECTED {mac}"));
            say(at + 3900, host, sta("IEEE 802.11: deauthenticated due to inactivity (timer DEAUTH/REMOVE)"));
        }
    }
    for hour in 0..24u32 {
        say(hour * 3600 + 600, "ap1", "netifd: wan (2702): udhcpc: lease of 192.0.2.62 obtained, lease time 3600".to_owned());
        say(hour * 3600 + 5, "ap2", "hostapd: phy0-ap0: WPA rekeying GTK".to_owned());
    }
    say(3 * 3600, "ap1", "hostapd: phy1-ap0: DFS-RADAR-DETECTED freq=5260 ht_enabled=1 chan_offset=0 chan_width=3 cf1=5290 cf2=0".to_owned());
    say(11 * 3600, "ap2", "kernel: [ 4711.000001] ath10k_pci 0000:01:00.0: firmware crashed! (guid 73b30611-5b1e-4bdd-90b4-64c81eb947b6)".to_owned());
    say(11 * 3600, "ap2", "kernel: [ 4711.100001] ieee80211 phy0: Hardware restart was requested".to_owned());
    for (second, pid, word) in [(0, 811, "Bad password attempt"), (4, 812, "Bad password attempt"), (9, 813, "Password auth succeeded")] {
        say(9 * 3600 + second, "ap1", format!("dropbear[{pid}]: Child connection from 192.168.1.20:50876"));
        say(9 * 3600 + second + 1, "ap1", format!("dropbear[{pid}]: {word} for 'root' from 192.168.1.20:50876"));
    }
    say(10 * 3600, "ap1", "uhttpd[1825]: [info] luci: failed login on / for root from 192.168.1.20".to_owned());
    say(10 * 3600 + 5, "ap1", "uhttpd[1825]: [info] luci: accepted login on / for root from 192.168.1.20".to_owned());
    for day in 0..8u32 {
        let at = 8 * 3600 + day * 4000;
        say(at, "srv1", format!("sshd[{}]: Accepted publickey for alice from 192.168.1.20 port 50900 ssh2: ED25519 SHA256:Zm9v", 900 + day));
        say(at, "srv1", format!("sshd[{}]: pam_unix(sshd:session): session opened for user alice(uid=1000) by (uid=0)", 900 + day));
        say(at + 60, "srv1", "sudo[950]:    alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/apt update".to_owned());
        say(at + 600, "srv1", format!("sshd[{}]: Received disconnect from 192.168.1.20 port 50900:11: disconnected by user", 900 + day));
    }
    lines.into_values().flatten().collect()
}

#[test]
fn a_quiet_day_and_the_real_lines_say_nothing() {
    for (name, text) in [("a quiet day", quiet_day().join("\n")), ("the real lines", include_str!("../data/openwrt-real-lines.log").to_owned())] {
        let output = opmas(&["eval", "--strict", "--rules", "rules", "--now", "2026-11-21"], &(text + "\n"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let found: Value = serde_json::from_str(line).unwrap();
            assert_eq!(found["level"], "informational", "{name}: {line}");
        }
    }
}

#[test]
fn every_line_of_the_quiet_day_is_typed() {
    let output = opmas(&["normalise", "--now", "2026-11-21"], &(quiet_day().join("\n") + "\n"));
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        assert!(line.contains("\"action\":"), "{line}");
    }
}
