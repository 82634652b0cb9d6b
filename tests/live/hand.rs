//! A person's hand on a real router: what is approved is blocked and nothing else is, `opmas posture observe` stops what was decided, and
//! effects are ended and extended at once.

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::router::{ATTACKER, MANAGER, eventually};
use crate::site::Site;
use crate::whole::lines;

const ARCHIVE: &str = "[source.archive]\ntype = 'file'\npath = 'router.log'";
const SOON: Duration = Duration::from_secs(20);

fn append(site: &Site, text: &str) {
    let mut log = fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

fn replace(site: &Site, file: &str, what: &str, with: &str) {
    let text = fs::read_to_string(site.dir.join(file)).unwrap();
    assert!(text.contains(what), "{what} in {text}");
    fs::write(site.dir.join(file), text.replace(what, with)).unwrap();
}

fn ok(site: &Site, args: &[&str]) -> String {
    let (code, said) = site.run(args);
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

/// The one run that stands there, soon.
fn one(site: &Site, state: &str) -> Value {
    let runs = || ok(site, &["playbook", "runs", "--state", state, "--json"]);
    eventually(SOON, &format!("no run is {state}"), || runs().lines().count() == 1);
    serde_json::from_str(&runs()).unwrap()
}

fn newest(site: &Site) -> Value {
    serde_json::from_str(ok(site, &["playbook", "runs", "--json"]).lines().next().unwrap()).unwrap()
}

fn id(run: &Value) -> &str {
    run["run"].as_str().unwrap()
}

/// How long the router itself keeps the block of an address, in seconds.
fn kept_for(site: &Site, address: &str) -> Option<u64> {
    let listed = site.router.command("rt", "nft").args(["-j", "list", "table", "inet", "opmas"]).output().unwrap();
    let table: Value = serde_json::from_slice(&listed.stdout).ok()?;
    let elements = table["nftables"].as_array()?.iter().filter_map(|one| one["set"]["elem"].as_array()).flatten();
    elements.filter(|one| one["elem"]["val"] == *address).find_map(|one| one["elem"]["expires"].as_u64())
}

#[test]
fn a_block_that_waits_over_a_crash_is_told_of_and_made_when_it_is_approved() {
    let mut site = Site::new(ARCHIVE, "40s");
    replace(&site, "playbooks/block_source.rhai", "mode    = \"auto\"", "mode    = \"approve\"");
    // It has to be carried out in less time than it waits.
    replace(&site, "playbooks/block_source.rhai", "timeout = \"10m\"", "timeout = \"5s\"");
    site.start();
    append(&site, &lines(ATTACKER));
    let waiting = one(&site, "waiting");
    let command = format!("opmas approve {}", id(&waiting));
    eventually(SOON, "the messages", || site.mails().len() == 1 && site.hooks().len() == 1);
    // Quoted-printable breaks lines with `=`.
    assert!(site.mails()[0].replace("=\r\n", "").contains(&command), "{}", site.mails()[0]);
    assert!(site.hooks()[0].body["data"]["done"].to_string().contains(&command), "{:?}", site.hooks()[0].body);
    eventually(SOON, "Slack", || site.messages(ATTACKER).iter().any(|message| message.to_string().contains(&command)));
    site.kill();
    std::thread::sleep(Duration::from_secs(6));
    site.start();
    assert!(site.blocked().is_empty());
    ok(&site, &["approve", &id(&waiting)[..8], "--because", "it is not one of ours"]);
    eventually(SOON, "what is approved is not blocked", || site.blocked() == [ATTACKER]);
    let done = one(&site, "done");
    assert!(done["answers"][0]["because"] == "it is not one of ours" && done["answers"][0]["approved"] == true, "{done}");
    // Its time began with the approval.
    assert!(kept_for(&site, ATTACKER).is_some_and(|left| left > 20), "{:?}", kept_for(&site, ATTACKER));
    eventually(Duration::from_secs(60), "it ends all the same", || site.blocked().is_empty());
    let story = ok(&site, &["playbook", "show", id(&waiting)]);
    assert!(story.contains("enforced at") && story.contains("approved by root"), "{story}");
}

#[test]
fn forged_datagrams_block_nobody_without_a_person() {
    let mut site = Site::new("[source.routers]\ntype = 'syslog'\nlisten = '192.168.1.2:1514'", "1h");
    site.start();
    let socket = site.router.inside("at", || UdpSocket::bind(("192.168.1.66", 0)).unwrap());
    for line in lines("203.0.113.7").lines().chain(lines("203.0.113.8").lines()) {
        socket.send_to(line.as_bytes(), (MANAGER, 1514)).unwrap();
    }
    let waiting = || ok(&site, &["playbook", "runs", "--state", "waiting", "--json"]);
    eventually(SOON, "both wait", || waiting().lines().count() == 2);
    std::thread::sleep(Duration::from_secs(2));
    assert!(site.blocked().is_empty());
    let runs: Vec<Value> = waiting().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(runs[0]["reason"].as_str().unwrap().contains("anybody can write to"), "{}", runs[0]);
    let eight = runs.iter().find(|run| run["plan"][0]["params"]["ip"] == "203.0.113.8").unwrap();
    let seven = runs.iter().find(|run| run["plan"][0]["params"]["ip"] == "203.0.113.7").unwrap();
    ok(&site, &["deny", id(seven)]);
    ok(&site, &["approve", id(eight)]);
    eventually(SOON, "only the approved one is blocked", || site.blocked() == ["203.0.113.8"]);
    site.terminate();
    assert_eq!(site.run(&["approve", id(seven)]).0, Some(4));
}

#[test]
fn posture_observe_stops_what_is_decided_within_a_second_and_effects_still_end() {
    let mut site = Site::new(ARCHIVE, "1h");
    let script = r#"finding.device.block_ip(finding.entity("source"), "1h"); finding.device.block_ip("203.0.113.200", "1h");"#;
    let text = fs::read_to_string(site.dir.join("playbooks/block_source.rhai")).unwrap();
    let header = text.split_inclusive("---*/").next().unwrap();
    fs::write(site.dir.join("playbooks/block_source.rhai"), format!("{header}\n{script}\n")).unwrap();
    site.start();
    append(&site, &lines("203.0.113.1"));
    eventually(SOON, "two blocks", || site.blocked() == ["203.0.113.1", "203.0.113.200"]);
    one(&site, "done");
    // Decided, begun, and not made: the device is away, and nothing was sent to it.
    site.kill();
    site.router.gone("mg", "-M", Duration::from_secs(5));
    site.router.device("cut");
    site.start();
    append(&site, &lines("203.0.113.2"));
    eventually(Duration::from_secs(60), "the step waits for its device", || {
        site.metric("opmas_posture") == 2.0 && site.ready().is_some_and(|ready| ready["reasons"].to_string().contains("step on ap1"))
    });
    let told = Instant::now();
    ok(&site, &["posture", "observe", "--because", "it blocks the wrong ones"]);
    eventually(Duration::from_secs(5), "the run does not end", || newest(&site)["state"] == "done");
    assert!(told.elapsed() < Duration::from_secs(3), "{:?}, with the commands that look", told.elapsed());
    let story = ok(&site, &["playbook", "show", id(&newest(&site))]);
    assert!(story.contains("refused at") && story.contains("posture is observe") && story.contains("planned at"), "{story}");
    site.router.device("join");
    // Over a restart it is still so: nothing is put back, and what is ended by hand ends.
    site.kill();
    site.start();
    assert_eq!(site.metric("opmas_posture"), 0.0);
    site.router.device("flush-ours");
    std::thread::sleep(Duration::from_secs(6));
    assert!(site.blocked().is_empty(), "{:?}", site.blocked());
    append(&site, &lines("203.0.113.3"));
    eventually(SOON, "it is only planned", || ok(&site, &["playbook", "runs", "--state", "done", "--json"]).lines().count() == 3);
    let said = ok(&site, &["lease", "end", "--device", "ap1", "--because", "cleaning up"]);
    assert_eq!((said.lines().count(), said.matches("ended, and read back that it is gone").count()), (2, 2), "{said}");
    ok(&site, &["posture", "reset"]);
    append(&site, &lines("203.0.113.4"));
    eventually(SOON, "it acts again", || site.blocked().contains(&"203.0.113.4".to_owned()));
    assert!(!site.blocked().contains(&"203.0.113.2".to_owned()));
}

#[test]
fn leases_are_extended_and_ended_by_hand_and_by_the_guard() {
    let mut site = Site::new(ARCHIVE, "10m");
    site.start();
    for address in ["203.0.113.1", "203.0.113.2", "203.0.113.3"] {
        append(&site, &lines(address));
    }
    eventually(SOON, "three blocks", || site.blocked().len() == 3);
    let leases = || -> Vec<Value> { ok(&site, &["lease", "list", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    eventually(SOON, "three leases", || leases().len() == 3);
    let name = |address: &str| {
        let lease = leases().into_iter().find(|lease| lease["params"]["ip"] == *address).unwrap();
        format!("{}:{}", lease["run"].as_str().unwrap(), lease["key"].as_str().unwrap())
    };
    assert!(kept_for(&site, "203.0.113.1").unwrap() <= 600);
    let said = ok(&site, &["lease", "extend", &name("203.0.113.1")[..8], "--for", "1h", "--because", "it came back"]);
    assert!(said.contains("holds until") && said.contains("on ap1"), "{said}");
    assert!(kept_for(&site, "203.0.113.1").is_some_and(|left| left > 3_600), "the router keeps it as long: {:?}", kept_for(&site, "203.0.113.1"));
    let said = ok(&site, &["lease", "end", &name("203.0.113.2"), "--because", "a customer"]);
    assert!(said.contains("ip=203.0.113.2 on ap1: ended, and read back that it is gone"), "{said}");
    assert_eq!(site.blocked(), ["203.0.113.1", "203.0.113.3"]);
    for args in [&["lease", "end", "ffff"][..], &["lease", "extend", "--device", "ap1", "--for", "60d"], &["lease", "end", "--device", "attic"]] {
        assert_eq!(site.run(args).0, Some(2), "{args:?}");
    }
    // Out of reach it is no lie to a script, and what is being ended is not extended.
    append(&site, &lines("203.0.113.4"));
    eventually(SOON, "a fourth block", || leases().len() == 3);
    let first = name("203.0.113.4");
    site.router.device("cut");
    assert_eq!(site.run(&["lease", "extend", &first, "--for", "1m"]).0, Some(4));
    let (code, said) = site.run(&["lease", "end", &first]);
    assert!(code == Some(4) && said.contains("is being ended"), "{said}");
    let (code, said) = site.run(&["lease", "extend", &first, "--for", "1h"]);
    assert!(code == Some(2) && said.contains("is being undone"), "{said}");
    site.router.device("join");
    eventually(2 * SOON, "what was ended stays", || site.blocked() == ["203.0.113.1", "203.0.113.3"]);
    // An address that a new device has is let in again, while opmas runs; one that `[guard]` protects, at its start.
    let devices = fs::read_to_string(site.dir.join("devices.toml")).unwrap();
    fs::write(site.dir.join("devices.toml"), devices + "\n[[device]]\nname = 'new'\nhost = '203.0.113.3'\n").unwrap();
    eventually(SOON, "what is a device's is let in", || site.blocked() == ["203.0.113.1"]);
    site.terminate();
    let settings = fs::read_to_string(site.dir.join("opmas.toml")).unwrap();
    fs::write(site.dir.join("opmas.toml"), settings + "[guard]\nprotect = ['203.0.113.0/28']\n").unwrap();
    site.start();
    eventually(SOON, "what is protected is let in", || site.blocked().is_empty());
    let ledger = ok(&site, &["audit", "show"]);
    for why in ["extended by root: it came back", "ended by root: a customer", "the address of device new", "protected by `203.0.113.0/28`"] {
        assert!(ledger.contains(why), "{why}: {ledger}");
    }
}
