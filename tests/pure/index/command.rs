//! The commands that list what was decided, on a folder of their own and beside a running opmas.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use opmas::journal::{DataDir, Ledger};
use opmas::model::{Decided, DeliveryState, LeaseChange};
use serde_json::Value;

use super::{answered, delivery, finding, lease, stories};

/// A configuration with a ledger in its data folder.
struct Site(tempfile::TempDir);

impl Site {
    fn new(ledger: &[Decided]) -> Site {
        let site = Site(tempfile::tempdir().unwrap());
        fs::write(site.path("opmas.toml"), "[http]\nlisten = '127.0.0.1:0'\n[source.log]\ntype = 'file'\npath = 'router.log'\n").unwrap();
        fs::write(site.path("router.log"), "").unwrap();
        site.append(ledger);
        site
    }

    fn append(&self, ledger: &[Decided]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let data = DataDir::open(&self.path("opmas-data")).unwrap();
            let (open, _) = Ledger::open(&data).unwrap();
            for batch in ledger.chunks(200) {
                open.append(batch.to_vec()).await.unwrap();
            }
            open.close().await;
        });
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
        command.current_dir(self.0.path()).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn opmas(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn stdout(&self, arguments: &[&str]) -> String {
        let output = self.opmas(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What all lists say.
    fn answers(&self) -> Vec<String> {
        let lists: [&[&str]; 6] = [
            &["finding", "list", "--limit", "1000", "--json"],
            &["playbook", "runs", "--limit", "1000", "--json"],
            &["delivery", "list", "--limit", "1000", "--json"],
            &["lease", "list", "--json"],
            &["alert", "list", "--limit", "1000", "--json"],
            &["finding", "show", &finding(1).id.0, "--json"],
        ];
        lists.iter().map(|list| self.stdout(list)).collect()
    }

    fn set_aside(&self) -> usize {
        fs::read_dir(self.path("opmas-data")).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(".broken-")).count()
    }

    /// Starts `opmas run` and waits until it answers.
    fn run(&self) -> Running {
        let log = fs::File::create(self.path("opmas.log")).unwrap();
        let child = self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let running = Running(child);
        let until = Instant::now() + Duration::from_secs(60);
        while !fs::read_to_string(self.path("opmas.log")).unwrap().contains("ready") || !self.path("opmas-data/control.sock").exists() {
            assert!(Instant::now() < until, "{}", fs::read_to_string(self.path("opmas.log")).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
        running
    }
}

struct Running(Child);

impl Running {
    fn terminate(&mut self) -> Option<i32> {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tables_are_for_people() {
    let mut ledger = stories(2);
    ledger.extend([delivery(2), answered(2, DeliveryState::Retry)]);
    let site = Site::new(&ledger);
    assert_eq!(
        site.stdout(&["lease", "list"]),
        "DEVICE  ACTION    PARAMETERS                  STATE  UNTIL                 LEASE               DETAIL\n\
         ap1     block_ip  duration=1h ip=203.0.113.0  held   2027-01-15T09:00:00Z  0000000000000000:1  read back\n\
         ap1     block_ip  duration=1h ip=203.0.113.1  held   2027-01-15T09:00:01Z  0000000000000001:1  read back\n"
    );
    let expected = "ID            CHANNEL  TELLS   STATE  ATTEMPTS  AT                    NEXT                  FINDING       REASON\n\
         000000000000  email    firing  retry  0         2027-01-15T08:00:03Z  2027-01-15T08:01:02Z  FINDING2      451 later\n\
         000000000000  email    firing  sent   1         2027-01-15T08:00:02Z  -                     FINDING1      451 later\n\
         000000000000  email    firing  sent   1         2027-01-15T08:00:01Z  -                     FINDING0      451 later\n";
    let named = (0..3).fold(expected.to_owned(), |text, n| text.replace(&format!("FINDING{n}    "), &finding(n + 1).id.0[..12]));
    assert_eq!(site.stdout(&["delivery", "list"]), named);
    assert_eq!(
        site.stdout(&["alert", "list"]),
        "ID            ROUTE   CHANNEL  SINCE                 FINDINGS  RESOLVES              GROUP\n\
         000000000000  urgent  slack    2027-01-15T08:00:01Z  1         never                 rule=login src_ip=203.0.113.1\n\
         000000000000  urgent  slack    2027-01-15T08:00:00Z  1         2027-01-15T09:00:00Z  rule=login src_ip=203.0.113.0\n"
    );
    assert_eq!(site.stdout(&["delivery", "list", "--state", "retry"]).lines().count(), 2);
    let listed = site.stdout(&["finding", "list", "--severity", "2"]);
    assert_eq!(listed.lines().count(), 2);
    assert!(listed.contains(&format!("{}  2027-01-15T08:00:01Z  2 critical  ap1     SSH login after repeated failures", &finding(1).id.0[..12])), "{listed}");
    let shown = site.stdout(&["finding", "show", &finding(1).id.0[..8]]);
    for part in [
        "rule 7a6a8f0e-53a5-4f7e-8d6b-2f1f4c7d9e10",
        "source: 203.0.113.9",
        "what to do: Change the password.\\nAllow keys only.",
        "triage: block_source; urgent: email",
        "run 0000000000000001 of block_source",
        "step 1: block_ip duration=1h ip=203.0.113.1 on ap1  auto (posture armed)",
        "enforced at 2027-01-15T08:00:09Z after 1 attempts, 12 ms: read back",
        "sent at 2027-01-15T08:00:02Z, 1 attempts  451 later",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    assert!(site.stdout(&["playbook", "runs"]).contains("0000000000000001  block_source  done   1      2027-01-15T08:00:01Z"));
    assert!(site.stdout(&["playbook", "show", "0000000000000001"]).starts_with("run 0000000000000001 of block_source"));
    assert!(site.stdout(&["playbook", "list"]).contains("block_source"));
    assert_eq!(site.opmas(&["finding", "show", "zz"]).status.code(), Some(2));
    assert_eq!(site.opmas(&["finding", "list", "--severity", "9"]).status.code(), Some(2));
}

#[test]
fn json_is_one_object_a_line_and_text_from_logs_cannot_act_on_a_terminal() {
    let mut hostile = finding(0);
    hostile.text = "\u{1b}[2J\u{202e}root".to_owned();
    hostile.evidence[0].raw = "\u{1b}]0;owned\u{7}".into();
    let site = Site::new(&[Decided::Finding { finding: Box::new(hostile.clone()) }]);
    for arguments in [&["finding", "list"][..], &["finding", "show", &hostile.id.0]] {
        let said = site.stdout(arguments);
        assert!(!said.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{said:?}");
        assert!(said.contains("\\u{1b}"), "{said}");
    }
    let lines = site.stdout(&["finding", "list", "--json"]);
    let found: Value = serde_json::from_str(lines.trim_end()).unwrap();
    assert_eq!(found, serde_json::to_value(&hostile).unwrap());
    assert_eq!(found["type"], "finding");
}

#[test]
fn an_index_of_another_ledger_is_made_anew() {
    let (one, other) = (Site::new(&stories(3)), Site::new(&stories(5)));
    one.answers();
    let expected = other.answers();
    fs::remove_dir_all(other.path("opmas-data/index")).unwrap();
    fs::rename(one.path("opmas-data/index"), other.path("opmas-data/index")).unwrap();
    assert_eq!(other.answers(), expected);
    assert_eq!(other.set_aside(), 1, "the same entries, written at another time, are another chain");
}

#[test]
fn killed_while_it_applies_twenty_times_the_answers_stay() {
    let site = Site::new(&stories(400));
    let mut killed = 0;
    for n in 0..20 {
        let mut child = site.command(&["lease", "list"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(30 + 40 * n));
        killed += u32::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let done = child.wait().unwrap().success();
        if done {
            fs::remove_dir_all(site.path("opmas-data/index")).unwrap();
        }
    }
    assert!(killed >= 5, "{killed} of 20 were killed in the middle");
    let after = site.answers();
    fs::remove_dir_all(site.path("opmas-data/index")).unwrap();
    assert_eq!(after, site.answers());
    assert_eq!(after[0].lines().count(), 400);
}

#[test]
fn a_running_opmas_answers_and_what_it_left_is_the_same() {
    let site = Site::new(&stories(20));
    let before = site.answers();
    let mut running = site.run();
    assert_eq!(site.answers(), before, "it holds the index, and is asked");
    let lines: Vec<String> = (0..6).map(|n| format!("Nov 21 10:00:0{n} ap1 dropbear[1]: Bad password attempt for 'root' from 203.0.113.9:48629\n")).collect();
    fs::write(site.path("router.log"), lines.concat()).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while site.stdout(&["finding", "list", "--limit", "1000", "--json"]).lines().count() < 21 {
        assert!(Instant::now() < until, "{}", fs::read_to_string(site.path("opmas.log")).unwrap());
        std::thread::sleep(Duration::from_millis(100));
    }
    let asked = site.answers();
    assert!(asked[0].lines().next().unwrap().contains("203.0.113.9"), "the newest is first");
    assert_eq!(running.terminate(), Some(0));
    assert_eq!(site.set_aside(), 0);
    assert_eq!(site.answers(), asked);
    fs::remove_dir_all(site.path("opmas-data/index")).unwrap();
    assert_eq!(site.answers(), asked);
}

#[test]
fn a_running_opmas_takes_over_an_index_that_is_held_and_mends_one_that_is_broken() {
    let site = Site::new(&stories(20));
    let before = site.answers();
    let index = site.path("opmas-data/index");
    let holder = sled::open(&index).unwrap();
    drop(site.run());
    // Killed: the next one finds what it left, with a byte of it flipped.
    let mut bytes = fs::read(index.join("db")).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    fs::write(index.join("db"), bytes).unwrap();
    let running = site.run();
    assert_eq!(site.answers(), before);
    assert_eq!(site.set_aside(), 1, "at most one is kept");
    drop((running, holder));
    fs::write(index.join("db"), b"nothing of it is left").unwrap();
    assert_eq!(site.answers(), before);
    assert_eq!(site.set_aside(), 1);
}

#[test]
fn a_command_waits_for_an_opmas_that_starts_and_leaves_its_index_alone() {
    let site = Site::new(&stories(20));
    let before = site.answers();
    fs::remove_dir_all(site.path("opmas-data/index")).unwrap();
    // As while it starts: the folder is held, and nobody answers yet.
    let starting = DataDir::open(&site.path("opmas-data")).unwrap();
    let command = site.command(&["finding", "list", "--limit", "1000", "--json"]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    assert!(!site.path("opmas-data/index").exists());
    drop(starting);
    let output = command.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stdout).unwrap()), (Some(0), before[0].clone()));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("an opmas that starts or ends holds ") && said.contains("waiting for it"), "{said}");

    // Nor does it push another process off: it says who is waited for, and gives up.
    let holder = sled::open(site.path("opmas-data/index")).unwrap();
    let output = site.opmas(&["finding", "list"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(4) && said.contains("another command holds ") && said.contains("try again"), "{said}");
    assert_eq!(site.set_aside(), 0);
    drop(holder);
}

#[test]
fn a_command_that_makes_the_index_lets_go_of_it_when_an_opmas_starts() {
    let site = Site::new(&stories(2_000));
    let mut command = site.command(&["finding", "list", "--limit", "1", "--json"]).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !site.path("opmas-data/index/db").exists() {
        assert!(Instant::now() < until, "it makes no index");
        std::thread::sleep(Duration::from_millis(1));
    }
    let running = site.run();
    assert_eq!(command.wait().unwrap().code(), Some(0), "the running one answers it, if it has no answer yet");
    assert!(!fs::read_to_string(site.path("opmas.log")).unwrap().contains("another process holds it"));
    assert_eq!(site.set_aside(), 0);
    drop(running);
}

#[test]
fn a_folder_without_a_ledger_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).current_dir(dir.path()).args(["finding", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("opmas-data"));
    assert!(!Path::new(&dir.path().join("opmas-data")).exists(), "asking makes nothing");
}

#[test]
fn a_lease_that_has_ended_is_not_listed() {
    let site = Site::new(&[lease(1, LeaseChange::Granted, "1h", 3_600), lease(1, LeaseChange::Ended, "1h", 3_600)]);
    assert_eq!(site.stdout(&["lease", "list", "--json"]), "");
}
