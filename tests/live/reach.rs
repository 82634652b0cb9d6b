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
    router.sh("rt", &format!("nft add table inet t; nft add chain inet t i '{{ type filter hook input priority -300; }}'; nft add rule inet t i tcp dport {PORT} counter reject with tcp reset"));
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

#[test]
fn what_waits_for_a_device_out_of_reach_holds_up_nothing_else_and_goes_on_when_it_is_back() {
    let mut site = Site::new("[source.archive]\ntype = 'file'\npath = 'router.log'", "1h");
    let known = site.dir.join("opmas-data/keys/known_hosts");
    let key = fs::read_to_string(&known).unwrap();
    fs::write(&known, format!("{key}[{ROUTER}]:{PORT} {}\n", key.trim().split_once(' ').unwrap().1)).unwrap();
    let devices = fs::read_to_string(site.dir.join("devices.toml")).unwrap();
    fs::write(site.dir.join("devices.toml"), format!("{devices}\n[[device]]\nname = 'attic'\nhost = '{ROUTER}'\nport = {PORT}\n")).unwrap();
    refuse(&site.router);
    site.start();
    let append = |text: &str| fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap().write_all(text.as_bytes()).unwrap();
    let address = |n: usize| format!("203.0.113.{n}");
    append(&(1..=RUNS).map(|n| lines(&address(n)).replace(" ap1 ", " attic ")).collect::<String>());
    eventually(Duration::from_secs(30), "the status names the device", || {
        site.ready().is_some_and(|ready| ready["reasons"].to_string().contains("step on attic"))
    });
    append(&lines("203.0.113.200"));
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
}
