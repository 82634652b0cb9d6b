//! Playbooks on a real router: what a failed run has done is undone, and a debounce holds over a crash.

use std::fs;
use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::router::{ROUTER, eventually};
use crate::site::Site;
use crate::whole::lines;

const ARCHIVE: &str = "[source.archive]\ntype = 'file'\npath = 'router.log'";
const SOON: Duration = Duration::from_secs(20);

fn append(site: &Site, text: &str) {
    let mut log = fs::OpenOptions::new().create(true).append(true).open(site.dir.join("router.log")).unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

/// Puts a playbook for the login after failures in the place of the shipped ones.
fn playbook(site: &Site, header: &str, script: &str) {
    for file in fs::read_dir(site.dir.join("playbooks")).unwrap().flatten().filter(|file| file.path().extension().is_some_and(|e| e == "rhai")) {
        fs::remove_file(file.path()).unwrap();
    }
    let on = "title = 'test'\non = { rule = 'openwrt_ssh_login_after_failures' }\nmode = 'auto'";
    fs::write(site.dir.join("playbooks/test.rhai"), format!("/*---\n{on}\n{header}\n---*/\n{script}\n")).unwrap();
}

fn ok(site: &Site, args: &[&str]) -> String {
    let (code, said) = site.run(args);
    assert_eq!(code, Some(0), "{args:?}: {said}");
    said
}

fn runs(site: &Site, state: &str) -> Vec<Value> {
    ok(site, &["playbook", "runs", "--state", state, "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_a_failed_run_has_done_is_undone_on_the_router_and_what_another_run_wants_stays() {
    let mut site = Site::new(ARCHIVE, "1h");
    let script = format!(
        r#"let source = finding.entity("source");
        finding.device.block_ip("203.0.113.99", "1h");
        finding.device.block_ip(source, "1h");
        if source != "203.0.113.1" {{ finding.device.block_ip("{ROUTER}", "1h"); print("not reached"); }}"#
    );
    playbook(&site, "actions = ['block_ip']\non_failure = 'undo'", &script);
    site.start();
    // Without what it counts.
    let firewall = || site.router.sh("rt", "nft -s list table inet fw4");
    let before = firewall();
    append(&site, &lines("203.0.113.1"));
    eventually(SOON, "the first is done", || runs(&site, "done").len() == 1 && site.blocked() == ["203.0.113.1", "203.0.113.99"]);
    append(&site, &lines("203.0.113.2"));
    eventually(SOON, "the second fails", || runs(&site, "failed").len() == 1);
    let reason = runs(&site, "failed")[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(&format!("block_ip duration=1h ip={ROUTER} on ap1")), "{reason}");
    assert!(reason.contains("1 of its effects are undone, 1 stay: block_ip duration=1h ip=203.0.113.99 on ap1"), "{reason}");
    eventually(SOON, "what the second did is undone", || site.blocked() == ["203.0.113.1", "203.0.113.99"]);
    ok(&site, &["lease", "end", "--device", "ap1"]);
    eventually(SOON, "all has ended", || site.blocked().is_empty());
    assert_eq!(firewall(), before, "nothing else of the router is other than before");
    ok(&site, &["audit", "verify"]);
}

#[test]
fn a_debounce_holds_over_a_crash_and_runs_wait_for_their_turn() {
    let mut site = Site::new(ARCHIVE, "1h");
    playbook(&site, "actions = ['block_ip']\ndebounce = '1h'", r#"finding.device.block_ip(finding.entity("source"), "1h");"#);
    site.start();
    append(&site, &lines("203.0.113.1"));
    eventually(SOON, "the first is done", || runs(&site, "done").len() == 1);
    site.kill();
    append(&site, &lines("203.0.113.2"));
    site.start();
    let triage = || ok(&site, &["audit", "show"]);
    eventually(SOON, "the second is debounced", || triage().contains("not test: debounced, run "));
    assert_eq!((site.blocked(), runs(&site, "done").len()), (vec!["203.0.113.1".to_owned()], 1));
    // What a person begins is not debounced.
    let findings = ok(&site, &["finding", "list", "--json"]);
    let findings: Vec<Value> = findings.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let second = findings.iter().find(|row| row.to_string().contains("203.0.113.2") && row.to_string().contains("login_after")).unwrap();
    let id = second["finding"]["id"].as_str().or(second["id"].as_str()).unwrap();
    ok(&site, &["playbook", "run", "test", "--finding", id]);
    eventually(SOON, "by hand it runs", || site.blocked() == ["203.0.113.1", "203.0.113.2"]);
}

#[test]
fn a_canary_a_wait_over_a_crash_a_message_and_a_question() {
    let mut site = Site::new(ARCHIVE, "1h");
    let script = r#"let ips = ["203.0.113.31", "203.0.113.32", "203.0.113.33"];
        let done = parallel(ips, #{ canary: 1 }, |ip| finding.device.block_ip(ip, "1h"));
        wait("5s");
        notify("webhook", `${done.len()} blocked before ${finding.entity("source")}`);
        approve("block the source as well?");
        finding.device.block_ip(finding.entity("source"), "1h");"#;
    // Less time than it waits: what it waits does not count.
    playbook(&site, "actions = ['block_ip', 'notify']\ntimeout = '4s'", script);
    site.start();
    append(&site, &lines("203.0.113.7"));
    eventually(SOON, "the canary and the others", || site.blocked() == ["203.0.113.31", "203.0.113.32", "203.0.113.33"]);
    eventually(SOON, "it waits", || ok(&site, &["audit", "show"]).contains("\"action\":\"wait\""));
    site.kill();
    site.start();
    eventually(SOON, "it asks", || runs(&site, "waiting").len() == 1);
    let waiting = runs(&site, "waiting").remove(0);
    let id = waiting["run"].as_str().unwrap().to_owned();
    let sentence = "notify channel=webhook text=3 blocked before 203.0.113.7 on opmas itself: done";
    let told = || site.hooks().iter().filter(|hook| hook.body.to_string().contains(sentence) && hook.body.to_string().contains("playbook test")).count();
    eventually(SOON, "the message", || told() > 0);
    assert!(!site.blocked().contains(&"203.0.113.7".to_owned()));
    ok(&site, &["approve", &id]);
    eventually(SOON, "what is approved", || site.blocked().len() == 4);
    eventually(SOON, "done", || runs(&site, "done").len() == 1);
    // Each step once, whatever was killed.
    let ledger = ok(&site, &["audit", "show"]);
    let attempts = ledger.lines().filter(|line| line.contains("\"attempt\"") && line.contains(&id) && !line.contains("delivery")).count();
    assert_eq!(attempts, 7, "{ledger}");
    assert_eq!(told(), 1);
}

#[test]
fn a_run_that_has_failed_runs_anew_from_the_step_that_was_wrong() {
    let mut site = Site::new(ARCHIVE, "1h");
    let header = "actions = ['block_ip']\non_failure = 'stop'";
    let script = |second: &str| format!(r#"let ip = finding.entity("source"); finding.device.block_ip(ip, "1h"); finding.device.block_ip("{second}", "1h");"#);
    playbook(&site, header, &script(ROUTER));
    site.start();
    append(&site, &lines("203.0.113.5"));
    eventually(SOON, "it fails", || runs(&site, "failed").len() == 1);
    let id = runs(&site, "failed")[0]["run"].as_str().unwrap().to_owned();
    assert_eq!(site.blocked(), ["203.0.113.5"]);
    playbook(&site, header, &script("203.0.113.6"));
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(site.run(&["playbook", "rerun", &id, "--from", "9"]).0, Some(2));
    let begun = ok(&site, &["playbook", "rerun", &id, "--from", "2", "--because", "corrected"]);
    eventually(SOON, "it is done", || runs(&site, "done").len() == 1);
    assert_eq!(site.blocked(), ["203.0.113.5", "203.0.113.6"]);
    let again = runs(&site, "done").remove(0);
    assert!(begun.contains(again["run"].as_str().unwrap()) && again["steps"] == 1, "only what was wrong is taken again: {again}");
    // From the beginning, both are asked for; what is there already is there.
    ok(&site, &["playbook", "rerun", &id]);
    eventually(SOON, "both", || runs(&site, "done").iter().any(|run| run["steps"] == 2));
    let shown = ok(&site, &["playbook", "run", "test", "--finding", again["finding"].as_str().unwrap(), "--dry-run", "--posture", "observe"]);
    assert!(shown.contains("only shown: posture is observe") && shown.contains("undone by"), "{shown}");
}

#[test]
fn a_worker_that_somebody_ends_is_no_fault_of_the_script_unless_it_ends_again() {
    let mut site = Site::new(ARCHIVE, "1h");
    // It counts for long enough to be hit.
    let script = "let n = 0; while n < 25000 { n += 1; } finding.device.block_ip(finding.entity(\"source\"), \"1h\");";
    playbook(&site, "actions = ['block_ip']", script);
    site.start();
    let workers = |site: &Site| site.router.processes("mg").into_iter().filter(|process| process.words.iter().any(|word| word == "opmas-worker"));
    let mut killed = Vec::new();
    // When there is none, the script was through before it could be hit.
    let mut kill_new = |site: &Site| {
        let looked = (0..100).find_map(|_| {
            std::thread::sleep(Duration::from_millis(5));
            workers(site).find(|process| !killed.contains(&process.pid))
        });
        let Some(new) = looked else { return };
        // It has confined itself, and counts.
        std::thread::sleep(Duration::from_millis(40));
        killed.push(new.pid);
        assert!(site.router.command("mg", "kill").args(["-9", &new.pid.to_string()]).status().unwrap().success());
    };
    append(&site, &lines("203.0.113.1"));
    kill_new(&site);
    eventually(SOON, "it is asked again", || site.blocked() == ["203.0.113.1"] && runs(&site, "done").len() == 1);
    let mut asked = 1;
    eventually(Duration::from_secs(60), "the script is taken for the cause", || {
        kill_new(&site);
        asked += 1;
        append(&site, &lines(&format!("203.0.113.{asked}")));
        (0..2).for_each(|_| kill_new(&site));
        !runs(&site, "failed").is_empty()
    });
    let reason = runs(&site, "failed")[0]["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("used up its memory, its stack or its processor time"), "{reason}");
    append(&site, &lines("203.0.113.201"));
    eventually(SOON, "others go on", || site.blocked().contains(&"203.0.113.201".to_owned()));
}
