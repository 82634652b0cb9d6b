//! `opmas replay` as a user runs it (X2, X5): recordings and spools through a whole configuration, and nothing is touched.

mod merge;
mod spool;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::schema;

/// A configuration folder that goes away with the value.
struct Site {
    temporary: tempfile::TempDir,
}

const DEVICE: &str = "[[device]]\nname = 'ap1'\nhost = '192.0.2.1'\nsite = 'home'\n";
const ROUTES: &str = "[[route]]\nname = 'urgent'\nmatch = { severity = '>=4' }\nchannels = ['hook']\n";
const HOOK: &str = "integration = 'webhook'\nurl = 'http://127.0.0.1:9/hook'\nsecret_env = 'OPMAS_TEST_SECRET'\n";
const NOW: [&str; 2] = ["--now", "2026-11-21T14:00:00Z"];

impl Site {
    /// The shipped rules and playbooks, a device, a channel.
    fn new() -> Site {
        let site = Site { temporary: tempfile::tempdir().unwrap() };
        site.write("opmas.toml", "").write("devices.toml", DEVICE).write("notifiers/routes.toml", ROUTES).write("notifiers/hook.toml", HOOK);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Site {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
        command.arg("replay").args(arguments).current_dir(self.temporary.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// What is told; nothing may be said beside it.
    fn told(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        parsed(&output)
    }
}

fn parsed(output: &Output) -> Vec<Value> {
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(told: &[Value]) -> Vec<&str> {
    told.iter().map(|one| one["type"].as_str().unwrap()).collect()
}

/// Without what only the end of a recording decides: its device is silent from then on.
fn within(mut told: Vec<Value>) -> Vec<Value> {
    told.retain(|one| one["end"] != true);
    told
}

fn of_type(told: &[Value], kind: &str) -> Vec<Value> {
    told.iter().filter(|one| one["type"] == kind).cloned().collect()
}

fn rules(told: &[Value]) -> Vec<String> {
    of_type(told, "finding").iter().map(|finding| finding["rule"]["name"].as_str().unwrap().to_owned()).collect()
}

/// Six failures and a login from an address, from a minute on, as a router's log has them.
fn attack(minute: u32, address: &str) -> String {
    let line = |second: u32, text: &str| format!("Nov 21 13:{minute:02}:{second:02} ap1 dropbear[27411]: {text} from {address}:50876\n");
    let failures: String = (1..=6).map(|second| line(second, "Bad password attempt for 'root'")).collect();
    failures + line(14, "Password auth succeeded for 'root'").as_str()
}

fn packed(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// All that is in a folder, to see that nothing changes.
fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.clone(), Vec::new()));
            found.extend(everything(&path));
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn x5_findings_with_their_steps_and_alerts_are_told_in_their_order_and_nothing_is_touched() {
    let site = Site::new();
    site.write("router.log", attack(8, "203.0.113.9"));
    let before = everything(site.temporary.path());
    let told = site.told(&["router.log", NOW[0], NOW[1]]);
    assert!(told.iter().any(|one| one["end"] == true && one["rule"]["name"] == "openwrt_device_silent"), "{told:?}");
    let told = within(told);
    assert_eq!(kinds(&told), ["finding", "finding", "step", "alert", "alert"]);
    assert_eq!(rules(&told), ["openwrt_ssh_bruteforce", "openwrt_ssh_login_after_failures"]);
    let (finding, step, alert) = (&told[1], &told[2], &told[3]);
    assert_eq!((&finding["device"], &finding["site"]), (&"ap1".into(), &"home".into()));
    assert_eq!((&step["playbook"], &step["action"], &step["device"]), (&"block_source".into(), &"block_ip".into(), &"ap1".into()));
    assert_eq!(step["params"], serde_json::json!({"duration": "1h", "ip": "203.0.113.9"}));
    assert_eq!(step["commands"], serde_json::json!([["nft", "-f", "-"]]));
    assert!(step["stdin"][0].as_str().unwrap().contains("add element inet opmas hosts4 { 203.0.113.9 timeout 3600s }"), "{step}");
    assert_eq!(step["decision"], "observe");
    assert!(step["reason"].as_str().unwrap().contains("posture is observe"), "{step}");
    assert_eq!((&alert["route"], &alert["channel"], &alert["state"]), (&"urgent".into(), &"hook".into(), &"firing".into()));
    assert_eq!((&alert["findings"], &alert["at"]), (&serde_json::json!([finding["id"]]), &finding["time"]));
    let over = &told[4];
    assert_eq!((&over["state"], &over["findings"], &over["at"]), (&"resolved".into(), &alert["findings"], &"2026-11-21T14:08:14Z".into()));
    assert_eq!(everything(site.temporary.path()), before, "no data folder, no lock, nothing");
}

#[test]
fn x5_alerts_go_on_and_end_in_event_time() {
    let site = Site::new();
    let later = |hour: u32, minute: u32| attack(minute, "203.0.113.9").replace(" 13:", &format!(" {hour}:"));
    site.write("router.log", [later(13, 8), later(13, 40), later(17, 5)].concat());
    let told = |arguments: &[&str]| {
        let alerts = of_type(&site.told(&[&["router.log", NOW[0], NOW[1]], arguments].concat()), "alert");
        alerts.iter().map(|alert| (alert["state"].as_str().unwrap().to_owned(), alert["at"].as_str().unwrap()[11..16].to_owned())).collect::<Vec<_>>()
    };
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(state, at)| ((*state).to_owned(), (*at).to_owned())).collect::<Vec<_>>();
    let all = pairs(&[("firing", "13:08"), ("firing", "13:40"), ("resolved", "14:40"), ("firing", "17:05"), ("resolved", "18:05")]);
    assert_eq!(told(&[]), all);
    assert_eq!(told(&["--from", "2026-11-21T14:00:00Z"])[..1], all[2..3], "of what was told before, too");
}

#[test]
fn m1_what_is_replayed_is_of_the_published_schemas() {
    let site = Site::new();
    site.write("router.log", attack(8, "203.0.113.9"));
    let told = site.told(&["router.log"]);
    for kind in ["finding", "step", "alert"] {
        let documents = of_type(&told, kind);
        assert!(!documents.is_empty());
        assert_eq!(schema::judged(&schema::said(Path::new("."), &["schema", kind]), &documents), "");
    }
}

#[test]
fn x5_steps_are_decided_as_configured_and_never_carried_out() {
    let site = Site::new();
    let decided = |settings: &str| {
        site.write("opmas.toml", settings);
        site.write("router.log", (1..=3).map(|n| attack(n, &format!("203.0.113.{n}"))).collect::<String>());
        let steps = of_type(&site.told(&["router.log"]), "step");
        steps.iter().map(|step| (step["decision"].as_str().unwrap().to_owned(), step["reason"].to_string())).collect::<Vec<_>>()
    };
    let words = |settings: &str| decided(settings).into_iter().map(|(word, _)| word).collect::<Vec<_>>();
    assert_eq!(words("posture = 'armed'\n[actions]\nblock_ip = 'auto'\n"), ["auto"; 3]);
    assert_eq!(words("posture = 'guarded'\n[actions]\nblock_ip = 'auto'\n"), ["approve"; 3]);
    assert_eq!(words("posture = 'armed'\n"), ["observe"; 3]);
    let refused = decided("posture = 'armed'\n[actions]\nblock_ip = 'auto'\n[guard]\nprotect = ['203.0.113.2']\n");
    assert_eq!(refused.iter().map(|(word, _)| &**word).collect::<Vec<_>>(), ["auto", "refused", "auto"]);
    assert!(refused[1].1.contains("203.0.113.2"), "{refused:?}");
}

#[test]
fn x5_budgets_are_counted_in_event_time() {
    let site = Site::new();
    let script = include_str!("../../playbooks/block_source.rhai").replace("per_hour = 100", "per_hour = 2");
    let action = include_str!("../../playbooks/actions/block_ip.toml");
    site.write("playbooks/block_source.rhai", script).write("playbooks/actions/block_ip.toml", action);
    site.write("opmas.toml", "posture = 'armed'\n[actions]\nblock_ip = 'auto'\n");
    let lines: String = [1, 2, 3].into_iter().map(|n| attack(n, &format!("203.0.113.{n}"))).collect();
    let later = attack(5, "203.0.113.5").replace(" 13:", " 14:");
    site.write("router.log", lines + later.as_str());
    let words = |arguments: &[&str]| {
        let steps = of_type(&site.told(&[&["router.log"], arguments].concat()), "step");
        steps.iter().map(|step| step["decision"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(words(&[]), ["auto", "auto", "refused", "auto"], "the third within the hour is too many; an hour later there is room");
    assert_eq!(words(&["--from", "2026-11-21T13:03:00Z", NOW[0], NOW[1]]), ["refused", "auto"], "what came before is counted, and not told");
}

const PROBE: &str = r#"/*---
title = "Probe"
on = { rule = "openwrt_ssh_login_after_failures" }
mode = "auto"
actions = ["block_ip"]
---*/
let first = finding.device.block_ip("198.51.100.1", "1h");
if first.state == "refused" { finding.device.block_ip("198.51.100.2", "1h"); } else { finding.device.block_ip("198.51.100.3", "1h"); }
throw `it said ${first.state}`;
"#;

#[test]
fn x5_an_action_answers_its_assumed_outcome_and_a_refused_one_that_it_is_refused() {
    let site = Site::new();
    let action = include_str!("../../playbooks/actions/block_ip.toml");
    site.write("playbooks/probe.rhai", PROBE).write("playbooks/actions/block_ip.toml", action).write("router.log", attack(8, "203.0.113.9"));
    let run = || {
        let output = site.run(&["router.log"]);
        assert!(output.status.success());
        let addresses: Vec<String> = of_type(&parsed(&output), "step").iter().map(|step| step["params"]["ip"].as_str().unwrap().to_owned()).collect();
        (addresses, String::from_utf8(output.stderr).unwrap())
    };
    let (addresses, said) = run();
    assert_eq!(addresses, ["198.51.100.1", "198.51.100.3"]);
    assert!(said.contains("probe.rhai:") && said.contains("it said enforced"), "how the script failed is said beside: {said}");
    site.write("opmas.toml", "[guard]\nprotect = ['198.51.100.1']\n");
    let (addresses, said) = run();
    assert_eq!(addresses, ["198.51.100.1", "198.51.100.2"]);
    assert!(said.contains("it said refused"), "{said}");
}

#[test]
fn x5_the_output_is_the_same_twice_packed_piped_and_on_threads() {
    let site = Site::new();
    let lines: String = (0..200).map(|n| attack(n % 60, &format!("203.0.{}.{}", n / 250, n % 250))).collect();
    let said = |arguments: &[&str]| site.run(&[arguments, &NOW].concat()).stdout;
    site.write("router.log", &lines);
    let once = said(&["router.log"]);
    assert!(once.len() > 100_000, "{}", String::from_utf8_lossy(&once));
    assert!(once == said(&["router.log"]));
    assert!(once == said(&["router.log", "--threads", "2"]));
    // Packed it is the same recording; also with no name that tells, and in two members, as `cat a.gz b.gz` makes them.
    site.write("router.log.gz", packed(&lines));
    assert!(once == said(&["router.log.gz"]));
    let (first, second) = lines.split_at(lines.len() / 2);
    site.write("router.log", [packed(first), packed(second)].concat());
    assert!(once == said(&["router.log"]));

    let piped = |bytes: Vec<u8>, size: usize| {
        let mut child = site.command(&["-", NOW[0], NOW[1]]).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || bytes.chunks(size).for_each(|piece| stdin.write_all(piece).unwrap()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output.stdout
    };
    let whole = piped(lines.clone().into_bytes(), lines.len());
    assert_eq!(whole.len() > 100_000, once.len() > 100_000);
    assert!(whole == piped(lines.clone().into_bytes(), 97));
    assert!(whole == piped(packed(&lines), 1));
}

#[test]
fn x5_from_and_to_limit_what_is_told_and_not_what_is_known() {
    let site = Site::new();
    site.write("router.log", (1..=5).map(|n| attack(n, &format!("203.0.113.{n}"))).collect::<String>());
    let all = site.told(&["router.log", NOW[0], NOW[1]]);
    let between = |from: &str, to: &str| site.told(&["router.log", NOW[0], NOW[1], "--from", from, "--to", to]);
    let findings = |told: &[Value]| of_type(told, "finding");
    assert!(findings(&all).len() >= 10);
    // The login of the second attack, whose failures are before it; the first time is in, the second is not.
    let (from, to) = ("2026-11-21T13:02:14Z", "2026-11-21T13:03:14Z");
    let part = between(from, to);
    let expected: Vec<Value> = findings(&all).into_iter().filter(|one| (from..to).contains(&one["time"].as_str().unwrap())).collect();
    assert_eq!(findings(&part), expected);
    assert_eq!(kinds(&part)[..3], ["finding", "step", "alert"]);
    assert!(between("2026-11-22", "2026-11-23").is_empty());
    assert_eq!(site.run(&["router.log", "--from", "yesterday"]).status.code(), Some(2));
}

#[test]
fn x5_what_only_the_end_decides_says_so() {
    let site = Site::new();
    let rules = "title: Beat\nname: beat\nlogsource: {product: openwrt}\ndetection: {s: {program: dropbear}, condition: s}\n---\n\
        title: Silent\nname: silent\ncorrelation: {type: missing, rules: [beat], group-by: [host], timespan: 1m}\nlevel: high\n";
    site.write("rules/silent.yml", rules);
    site.write("rules/extractors/dropbear.toml", include_str!("../../rules/extractors/dropbear.toml"));
    site.write("router.log", attack(1, "203.0.113.1") + attack(5, "203.0.113.1").as_str());
    let told = of_type(&site.told(&["router.log", NOW[0], NOW[1]]), "finding");
    let ends: Vec<(&str, bool)> = told.iter().map(|finding| (finding["time"].as_str().unwrap(), finding["end"] == true)).collect();
    assert_eq!(ends, [("2026-11-21T13:02:14Z", false), ("2026-11-21T13:06:14Z", true)]);
}

#[test]
fn x1_exit_codes_of_replay() {
    let site = Site::new();
    site.write("router.log", attack(8, "203.0.113.9"));
    let code = |arguments: &[&str]| site.run(arguments).status.code();
    for usage in
        [&[][..], &["--recorded", "router.log"], &["router.log", "--threads", "0"], &["--spool", "data", "router.log"], &["--spool", "--now", "2026-11-21"]]
    {
        assert_eq!(code(usage), Some(2), "{usage:?}");
    }
    site.write("router.log.gz", packed(&attack(9, "203.0.113.9")));
    for twice in [&["router.log", "router.log"][..], &["router.log", "router.log.gz"]] {
        let output = site.run(twice);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "their lines would have the same ids");
        assert!(String::from_utf8_lossy(&output.stderr).contains("one recording by name"));
    }
    assert_eq!(code(&["--config", "nowhere.toml", "router.log"]), Some(3));
    assert_eq!(code(&["--spool", "nowhere"]), Some(3));
    assert_eq!(code(&["nowhere.log"]), Some(4));
    site.write("rules/none.yml", "title: None\n");
    assert_eq!(code(&["router.log"]), Some(3), "no rule is loaded");
    site.write("rules/one.yml", "title: One\ndetection: {s: {program: dropbear}, condition: s}\nlogsource: {product: openwrt}\nlevel: high\n");
    let output = site.run(&["router.log"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("rules/none.yml"), "named and left out: {said}");
    assert_eq!(code(&["--strict", "router.log"]), Some(3));
}

#[test]
fn x5_a_file_that_breaks_off_is_said_and_what_was_found_before_is_told() {
    let site = Site::new();
    let noise: String = (0..40_000).map(|n| format!("Nov 21 13:30:00 ap1 noise[1]: {:x}\n", n * 2_654_435_761_u64)).collect();
    let whole = packed(&(attack(8, "203.0.113.9") + noise.as_str()));
    site.write("router.log.gz", &whole[..whole.len() - 20]);
    let output = site.run(&["router.log.gz", NOW[0], NOW[1]]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot read router.log.gz"), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rules(&parsed(&output)).len(), 2);
}

#[test]
fn x5_a_pipe_is_followed_live() {
    use std::io::{BufRead, BufReader};
    let site = Site::new();
    let mut child = site.command(&["-", NOW[0], NOW[1]]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    stdin.write_all(attack(8, "203.0.113.9").as_bytes()).unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.contains("openwrt_ssh_bruteforce"), "{line}");
    drop(stdin);
    drop(output);
    child.wait().unwrap();
}
