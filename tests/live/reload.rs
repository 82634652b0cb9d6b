//! A playbook that is edited while one of its runs waits for the router.

use std::fs;
use std::io::Write;
use std::time::Duration;

use opmas::journal::{Content, DataDir, LedgerReader};
use opmas::model::Decided;

use crate::router::eventually;
use crate::site::Site;

/// Six failures and a login from an address, as the router's log has them.
fn attack(site: &Site, address: &str) {
    let mut log = fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap();
    for n in 0..6 {
        writeln!(log, "<84>Nov 21 13:08:1{n} ap1 dropbear[27411]: Bad password attempt for 'root' from {address}:50876").unwrap();
    }
    writeln!(log, "<85>Nov 21 13:08:17 ap1 dropbear[27421]: Password auth succeeded for 'root' from {address}:50880").unwrap();
}

#[test]
fn a_run_keeps_the_script_that_it_began_with() {
    let mut site = Site::new("[source.routers]\ntype = 'file'\npath = 'router.log'", "5m");
    fs::write(site.dir.join("router.log"), "").unwrap();
    site.start();
    site.router.device("cut");
    attack(&site, "203.0.113.7");
    eventually(Duration::from_secs(20), "the step does not wait for its device", || site.log().contains("a step waits device=ap1"));
    let playbook = site.dir.join("playbooks/block_source.rhai");
    let script = fs::read_to_string(&playbook).unwrap();
    fs::write(&playbook, script.replace("\"5m\"", "\"7m\"")).unwrap();
    // The action, too: then the executor is started anew.
    let action = site.dir.join("playbooks/actions/block_ip.toml");
    let text = fs::read_to_string(&action).unwrap();
    fs::write(&action, text.replace("Block an address", "Block one address")).unwrap();
    eventually(Duration::from_secs(10), "the new script is not live", || site.metric("opmas_reloads_total") >= 2.0);
    site.router.device("join");
    eventually(Duration::from_secs(60), "the waiting run does not go on", || site.blocked() == ["203.0.113.7"]);
    attack(&site, "203.0.113.8");
    eventually(Duration::from_secs(30), "the new run does not block", || site.blocked().len() == 2);
    site.terminate();
    let data = DataDir::open_read_only(&site.dir.join("opmas-data")).unwrap();
    let (mut revisions, mut durations) = (Vec::new(), Vec::new());
    for entry in LedgerReader::open(&data.ledger(), 0).unwrap() {
        let Content::Decided(decided) = entry.unwrap().content else { continue };
        match *decided {
            Decided::Run { revision, .. } => revisions.push(revision),
            Decided::Intent { step, .. } => durations.push(step.params["duration"].as_str().unwrap().to_owned()),
            _ => {}
        }
    }
    assert_eq!(durations, ["5m", "7m"]);
    assert!(revisions.len() == 2 && revisions[0] != revisions[1], "{revisions:?}");
}
