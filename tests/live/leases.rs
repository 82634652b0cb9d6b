//! Effects on a real router while opmas runs: put back after a reboot, ended in time, let go by another action and by `[guard]`.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::router::{OTHER, ROUTER, eventually};
use crate::site::Site;
use crate::whole::lines;

const ARCHIVE: &str = "[source.archive]\ntype = 'file'\npath = 'router.log'";
const SOON: Duration = Duration::from_secs(20);

fn append(site: &Site, text: &str) {
    let mut log = fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

/// The shipped playbook with another script.
fn script(site: &Site, actions: &str, script: &str) {
    let header = format!(
        "/*---\ntitle = \"t\"\non = {{ rule = \"openwrt_ssh_login_after_failures\" }}\nmode = \"auto\"\nactions = [{actions}]\ntimeout = \"10m\"\n---*/\n"
    );
    let live = || site.log().matches("part=\"playbooks\" result=\"ok\"").count();
    let before = live();
    fs::write(site.dir.join("playbooks/block_source.rhai"), header + script).unwrap();
    if site.ready().is_some() {
        eventually(SOON, "the script is not live", || live() > before);
    }
}

fn settings(site: &Site, more: &str) {
    let actions = "[actions]\nblock_ip = 'auto'\nunblock_ip = 'auto'\ncollect_log = 'auto'\nreboot = 'auto'\n";
    fs::write(site.dir.join("opmas.toml"), format!("posture = 'armed'\n{actions}{ARCHIVE}\n[lease]\nverify_every = '10m'\n{more}")).unwrap();
}

fn ended(site: &Site) -> Vec<Value> {
    let (_, said) = site.run(&["playbook", "runs", "--state", "done", "--json"]);
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_a_reboot_takes_away_is_put_back_and_what_is_let_go_stays_so() {
    let mut site = Site::new(ARCHIVE, "1h");
    settings(&site, "");
    script(
        &site,
        r#""block_ip", "collect_log", "reboot""#,
        r#"let router = finding.device; router.block_ip(finding.entity("source")); router.collect_log(20); router.reboot();"#,
    );
    site.start();
    append(&site, &lines("203.0.113.1"));
    eventually(Duration::from_secs(60), "the run does not end", || ended(&site).len() == 1);
    // An effect is looked at every ten minutes: what puts it back is that the device was rebooted.
    eventually(SOON, "it is not put back", || site.blocked() == ["203.0.113.1"]);
    let run = ended(&site)[0]["run"].as_str().unwrap().to_owned();
    let (_, story) = site.run(&["playbook", "show", &run]);
    assert_eq!(story.matches("enforced at").count(), 3, "{story}");
    let evidence = story.split("evidence/").nth(1).unwrap().split_whitespace().next().unwrap();
    let kept = fs::read_to_string(site.dir.join("opmas-data/evidence").join(evidence)).unwrap();
    assert!(kept.starts_with("# 'logread' '-l' '20'\n") && kept.contains("dropbear["), "{kept}");

    // Two more; one is let go by a playbook, and its lease with it.
    script(&site, r#""block_ip""#, r#"finding.device.block_ip(finding.entity("source"));"#);
    append(&site, &lines("203.0.113.2"));
    append(&site, &lines("198.51.100.77"));
    eventually(SOON, "three are blocked", || site.blocked().len() == 3);
    script(&site, r#""unblock_ip""#, r#"finding.device.unblock_ip("203.0.113.1");"#);
    append(&site, &lines("203.0.113.9"));
    eventually(SOON, "it is not let in", || site.blocked() == ["198.51.100.77", "203.0.113.2"]);
    let leases = || site.run(&["lease", "list", "--json"]).1;
    eventually(SOON, "its lease goes on", || !leases().contains("203.0.113.1\"") && leases().lines().count() == 2);

    // The allow list is live at once, everywhere, for what holds and for what is asked.
    let (begun, text) = (Instant::now(), "[guard]\nprotect = ['203.0.113.0/24']\n");
    settings(&site, text);
    eventually(SOON, "what is protected is not let in", || site.blocked() == ["198.51.100.77"]);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    script(&site, r#""block_ip""#, r#"finding.device.block_ip(finding.entity("source"));"#);
    append(&site, &lines("203.0.113.5"));
    eventually(SOON, "the run does not end", || ended(&site).len() == 5);
    let newest = ended(&site)[0]["run"].as_str().unwrap().to_owned();
    let (_, story) = site.run(&["playbook", "show", &newest]);
    assert!(story.contains("203.0.113.5 must not be blocked: it is protected by `203.0.113.0/24` under [guard]"), "{story}");
    assert!(!site.ready().unwrap().to_string().contains("restart opmas"), "{:?}", site.ready());
    assert_eq!(site.blocked(), ["198.51.100.77"]);
    let (_, ledger) = site.run(&["audit", "show"]);
    for why in ["ended by unblock_ip of run", "ended by the guard: 203.0.113.2 must not be blocked"] {
        assert!(ledger.contains(why), "{why}");
    }
    // Anything else of opmas.toml still takes a restart.
    settings(&site, &format!("{text}[health]\nevery = '0s'\n"));
    eventually(SOON, "nothing is said of the restart", || site.ready().is_some_and(|ready| ready.to_string().contains("restart opmas")));
}

#[test]
fn what_else_lasts_is_put_back_after_a_reboot_and_ends_in_time() {
    const STATION: &str = "00:11:22:aa:bb:cc";
    const GUEST: &str = "00:11:22:dd:ee:ff";
    let mut site = Site::new(ARCHIVE, "1h");
    let actions = "[actions]\nrate_limit_ip = 'auto'\nblock_subnet = 'auto'\nban_station = 'auto'\n";
    fs::write(site.dir.join("opmas.toml"), format!("posture = 'armed'\n{actions}{ARCHIVE}\n[lease]\nverify_every = '1s'\n")).unwrap();
    // A start of the router brings the radio up.
    eventually(SOON, "the radio is not up", || site.router.root().join("tmp/hostapd/phy0-ap1/banned").exists());
    site.start();
    let lasting = |ip: &str, net: &str, mac: &str, time: &str| {
        let calls = format!("d.rate_limit_ip(\"{ip}\", 5, \"{time}\"); d.block_subnet(\"{net}\", \"{time}\"); d.ban_station(\"{mac}\", \"{time}\");");
        script(&site, r#""rate_limit_ip", "block_subnet", "ban_station""#, &format!("let d = finding.device; {calls}"));
    };
    // The attacker's network, another client, a station; each by what it does.
    lasting(OTHER, "192.168.1.64/29", STATION, "1h");
    let bans = |bss: &str, mac: &str| fs::read_to_string(site.router.root().join("tmp/hostapd").join(bss).join("banned")).unwrap_or_default().contains(mac);
    let banned = |mac: &str| bans("phy0-ap0", mac) && bans("phy0-ap1", mac);
    let answered = || {
        let said = site.router.sh("ot", &format!("busybox ping -q -c 50 -i 0.01 -W 1 {ROUTER} || true"));
        said.split(" packets received").next().and_then(|before| before.rsplit(' ').next()?.parse::<u32>().ok()).unwrap_or_else(|| panic!("{said}"))
    };
    let all_hold = || banned(STATION) && !site.router.reaches("at", ROUTER) && (1..=20).contains(&answered());
    let leases = || site.run(&["lease", "list", "--json"]).1.lines().count();
    append(&site, &lines("203.0.113.1"));
    eventually(SOON, "they do not hold", all_hold);
    site.router.device("reboot");
    eventually(Duration::from_secs(60), "they are not put back", all_hold);
    assert_eq!(leases(), 3);

    // Others end while these hold.
    lasting("203.0.113.77", "203.0.113.128/25", GUEST, "15s");
    append(&site, &lines("203.0.113.2"));
    let rules = || site.router.sh("rt", "nft list table inet opmas");
    let there = || (rules().contains("203.0.113.77"), rules().contains("203.0.113.128"), banned(GUEST));
    eventually(SOON, "the others do not hold", || there() == (true, true, true) && leases() == 6);
    eventually(Duration::from_secs(40), "the others do not end", || leases() == 3);
    assert_eq!(there(), (false, false, false));
    assert!(all_hold(), "each has its own time");
    let (code, said) = site.run(&["lease", "end", "--device", "ap1"]);
    assert_eq!(code, Some(0), "{said}");
    eventually(SOON, "they are not ended", || !banned(STATION) && site.router.reaches("at", ROUTER) && answered() >= 45);
    assert_eq!(leases(), 0);
    let (_, ledger) = site.run(&["audit", "show"]);
    for action in ["rate_limit_ip", "block_subnet", "ban_station"] {
        let of = |change: &str| ledger.lines().filter(|line| line.contains(&format!("\"{change}\"")) && line.contains(&format!("\"{action}\""))).count();
        assert!(of("reasserted") >= 1, "{action}: {ledger}");
        assert_eq!((of("granted"), of("ended")), (2, 2), "{action}: {ledger}");
    }
}
