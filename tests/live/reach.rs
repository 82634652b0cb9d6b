//! A device that cannot be reached: it is tried now and then and not for each step, and what waits for it holds up nothing else.

use std::fs;
use std::io::Write;
use std::time::Duration;

use crate::router::{ROUTER, Router, eventually};
use crate::site::Site;
use crate::whole::lines;

/// The router's ssh by another port, which leads there only once it is opened.
const PORT: u16 = 2223;
/// More runs than are under way at once.
const RUNS: usize = 70;

/// Has connections to the other port refused, and counted.
fn refuse(router: &Router) {
    router.sh("rt", &format!("nft add table inet t; nft add chain inet t i '{{ type filter hook input priority -300; }}'; nft add rule inet t i meta l4proto tcp ct original proto-dst {PORT} counter reject with tcp reset"));
}

/// How many connections were refused.
fn refused(router: &Router) -> u64 {
    let rules = router.sh("rt", "nft list chain inet t i");
    rules.split_once("packets ").unwrap().1.split(' ').next().unwrap().parse().unwrap()
}

/// Lets them in.
fn open(router: &Router) {
    router.sh("rt", &format!("nft delete table inet t; nft add table ip u; nft add chain ip u p '{{ type nat hook prerouting priority -100; }}'; nft add rule ip u p tcp dport {PORT} redirect to :22"));
}

/// A site that knows its router by the other port, too, which is refused, as `attic`. Not started.
fn site() -> Site {
    let site = Site::new("[source.archive]\ntype = 'file'\npath = 'router.log'", "1h");
    let known = site.dir.join("opmas-data/keys/known_hosts");
    let key = fs::read_to_string(&known).unwrap();
    fs::write(&known, format!("{key}[{ROUTER}]:{PORT} {}\n", key.trim().split_once(' ').unwrap().1)).unwrap();
    let devices = fs::read_to_string(site.dir.join("devices.toml")).unwrap();
    fs::write(site.dir.join("devices.toml"), format!("{devices}\n[[device]]\nname = 'attic'\nhost = '{ROUTER}'\nport = {PORT}\n")).unwrap();
    refuse(&site.router);
    site
}

fn append(site: &Site, text: &str) {
    let mut log = fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

/// An attack on the device that cannot be reached.
fn attack(site: &Site, address: &str) {
    append(site, &lines(address).replace(" ap1 ", " attic "));
}

fn step_waits(site: &Site) -> bool {
    site.ready().is_some_and(|ready| ready["reasons"].to_string().contains("step on attic"))
}

#[test]
fn what_waits_for_a_device_out_of_reach_holds_up_nothing_else_and_goes_on_when_it_is_back() {
    let mut site = site();
    site.start();
    (1..=RUNS).for_each(|n| attack(&site, &format!("203.0.113.{n}")));
    eventually(Duration::from_secs(30), "the status names the device", || step_waits(&site));
    append(&site, &lines("203.0.113.200"));
    eventually(Duration::from_secs(20), "the other device has to wait for it", || site.blocked() == ["203.0.113.200"]);
    let said = site.ready().unwrap()["reasons"].to_string();
    assert!(said.contains("Connection refused") && said.contains("it is tried again from"), "{said}");
    eventually(Duration::from_secs(20), "it is counted", || site.metric("opmas_devices_out_of_reach") == 1.0);
    eventually(Duration::from_secs(20), "all wait, and hold no place", || site.metric("opmas_runs_out_of_reach") == RUNS as f64);
    let tried = refused(&site.router);
    std::thread::sleep(Duration::from_secs(10));
    assert!(refused(&site.router) - tried <= 3, "{tried} before, then {}", refused(&site.router));
    open(&site.router);
    eventually(Duration::from_secs(60), "all are blocked when it is back", || site.blocked().len() == RUNS + 1);
    eventually(Duration::from_secs(20), "the status is well", || site.ready().is_some_and(|ready| ready["status"] == "ready"));
    assert_eq!((site.metric("opmas_devices_out_of_reach"), site.metric("opmas_runs_out_of_reach")), (0.0, 0.0));

    // More effects than a device's queue holds are looked after, and do not look like trouble with it.
    let unverified = || site.run(&["lease", "list"]).1.matches("not verified since").count();
    site.router.device("flush-ours");
    eventually(Duration::from_secs(60), "all are put back", || site.blocked().len() == RUNS + 1);
    assert_eq!((unverified(), site.ready().unwrap()["status"].as_str()), (0, Some("ready")));
    // What cannot be looked at is not called held; what the other device holds is.
    refuse(&site.router);
    eventually(Duration::from_secs(60), "they are said to hold", || unverified() == RUNS);
    assert!(site.ready().unwrap()["reasons"].to_string().contains("\"device attic\""), "{:?}", site.ready());
    open(&site.router);
    eventually(Duration::from_secs(60), "they are not looked at again", || unverified() == 0 && site.ready().is_some_and(|ready| ready["status"] == "ready"));
    assert_eq!(site.metric("opmas_leases_active"), RUNS as f64 + 1.0);
}

fn ok(site: &Site, args: &[&str]) -> String {
    let (code, said) = site.run(args);
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

fn runs(site: &Site, state: &str) -> Vec<String> {
    let id = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["run"].as_str().unwrap().to_owned();
    ok(site, &["playbook", "runs", "--state", state, "--json"]).lines().map(id).collect()
}

fn story(site: &Site, run: &str) -> String {
    ok(site, &["playbook", "show", run])
}

#[test]
fn a_step_that_waits_for_a_device_is_given_up_in_time_and_by_a_person() {
    let mut site = site();
    let playbook = site.dir.join("playbooks/block_source.rhai");
    let script = fs::read_to_string(&playbook).unwrap();
    fs::write(&playbook, script.replace("timeout = \"10m\"", "timeout = \"12s\"")).unwrap();
    site.start();
    let soon = Duration::from_secs(30);
    attack(&site, "203.0.113.1");
    eventually(soon, "the first waits", || step_waits(&site));
    let first = runs(&site, "running").remove(0);
    // The device is known to be out of reach: this one is not even tried.
    attack(&site, "203.0.113.2");
    eventually(soon, "the second waits", || site.metric("opmas_runs_out_of_reach") == 2.0);
    let second = runs(&site, "running").into_iter().find(|run| *run != first).unwrap();
    ok(&site, &["playbook", "pause", &second]);
    eventually(soon, "it is not paused", || runs(&site, "paused") == [second.as_str()]);
    eventually(soon, "the first does not end", || runs(&site, "failed") == [first.as_str()]);
    let said = story(&site, &first);
    assert!(said.contains("failed at") && said.contains("stayed out of reach") && said.contains("it is tried again from"), "{said}");
    let its_time = "its time is over: 12s (timeout in block_source.rhai)";
    assert!(said.contains(its_time), "{said}");
    ok(&site, &["playbook", "resume", &second]);
    eventually(soon, "the second does not end", || runs(&site, "failed").contains(&second));
    let said = story(&site, &second);
    assert!(said.contains("failed at") && said.contains("Connection refused") && said.contains(its_time), "{said}");
    attack(&site, "203.0.113.3");
    eventually(soon, "the third waits", || site.metric("opmas_runs_out_of_reach") == 1.0);
    let third = runs(&site, "running").remove(0);
    ok(&site, &["playbook", "cancel", &third, "--because", "the attic is locked"]);
    eventually(soon, "it is not cancelled", || runs(&site, "cancelled") == [third.as_str()]);
    assert!(story(&site, &third).contains("the attic is locked"), "{}", story(&site, &third));
    eventually(soon, "nothing waits any more", || !step_waits(&site) && site.metric("opmas_runs_out_of_reach") == 0.0);
    // Of two devices one is dealt with, and then the run only waits.
    site.kill();
    let header = script.split_inclusive("---*/").next().unwrap().replace("devices = 1", "devices = 2");
    let both = "parallel(devices(), 2, |device| device.block_ip(finding.entity(\"source\"), \"1h\"));";
    fs::write(&playbook, format!("{header}\n{both}\n")).unwrap();
    site.start();
    assert!(!site.log().contains("does not fit"), "{}", site.log());
    attack(&site, "203.0.113.4");
    eventually(soon, "the other device waits", || site.blocked() == ["203.0.113.4"]);
    eventually(soon, "it holds its place", || site.metric("opmas_runs_out_of_reach") == 1.0);
    let fourth = runs(&site, "running").remove(0);
    open(&site.router);
    eventually(Duration::from_secs(60), "it does not go on", || runs(&site, "done").contains(&fourth));
    assert_eq!(story(&site, &fourth).matches("enforced at").count(), 2, "{}", story(&site, &fourth));
    assert_eq!(site.blocked(), ["203.0.113.4"], "nothing that was given up");
}

#[test]
fn a_stopped_firewall_keeps_no_action_from_running_and_the_status_says_the_same_after_a_start() {
    let mut site = Site::new("[source.archive]\ntype = 'file'\npath = 'router.log'", "1h");
    site.start();
    let status = |site: &Site| site.ready().map(|ready| (ready["status"].clone(), ready["reasons"].to_string()));
    let soon = Duration::from_secs(20);
    append(&site, &lines("203.0.113.1"));
    eventually(soon, "it is not blocked", || site.blocked() == ["203.0.113.1"]);
    site.router.device("fw4-stop");
    eventually(soon, "it is not put back", || site.blocked() == ["203.0.113.1"]);
    eventually(soon, "the status is not well", || status(&site).is_some_and(|(status, _)| status == "ready"));
    let (code, said) = site.run(&["device", "check", "ap1"]);
    assert!(code == Some(1) && said.contains("ap1 answers and actions can run on it, but there is no table `inet fw4`: its firewall is stopped"), "{said}");
    let before = status(&site).unwrap();
    assert!(!before.1.contains("reaching"), "{before:?}");
    site.terminate();
    site.start();
    append(&site, &lines("203.0.113.2"));
    eventually(soon, "it is not blocked after a start", || site.blocked() == ["203.0.113.1", "203.0.113.2"]);
    assert_eq!(status(&site).unwrap().0, before.0);
    assert!(!status(&site).unwrap().1.contains("reaching"), "{:?}", status(&site));
}

#[test]
fn a_helper_of_another_catalogue_is_in_the_status_until_it_is_mended_and_no_longer() {
    let mut site = Site::new("[source.archive]\ntype = 'file'\npath = 'router.log'", "1h");
    site.start();
    ok(&site, &["device", "enroll", "ap1"]);
    let action = site.dir.join("playbooks/actions/block_ip.toml");
    let text = fs::read_to_string(&action).unwrap();
    fs::write(&action, text.replace("timeout 1s }", "timeout 2s }")).unwrap();
    let reasons = || site.ready().map_or_else(String::new, |ready| ready["reasons"].to_string());
    eventually(Duration::from_secs(30), "it is not told", || {
        let (_, said) = site.run(&["device", "check", "ap1"]);
        said.contains("another catalogue") && reasons().contains("another catalogue")
    });
    let identity = site.router.folder().join("id").display().to_string();
    ok(&site, &["device", "enroll", "ap1", "--identity", &identity]);
    assert!(!reasons().contains("reaching") && site.ready().unwrap()["status"] == "ready", "{}", reasons());
}
