//! `opmas schema`: what a real run writes is of the published schemas, by the word of a validator that is not ours. And the other
//! commands that print what opmas knows of itself: `config show`, `completions`, `man`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use opmas::alert::Notice;
use opmas::journal::{Content, DataDir, LedgerReader};
use opmas::model::{Decided, Finding, Step};
use serde_json::Value;

fn opmas(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).current_dir(dir).output().unwrap()
}

pub(crate) fn said(dir: &Path, arguments: &[&str]) -> String {
    let output = opmas(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(value: impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

/// What an independent validator says of documents; empty when all are right.
pub(crate) fn judged(schema: &str, documents: &[Value]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("schema.json");
    std::fs::write(&file, schema).unwrap();
    let checks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/checks.sh");
    let mut child = Command::new(checks).arg("schema").arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let wrong = String::from_utf8_lossy(&output.stdout).into_owned() + String::from_utf8_lossy(&output.stderr).as_ref();
    assert_eq!(output.status.success(), wrong.is_empty(), "{wrong}");
    wrong
}

/// Ended when dropped, whatever a test does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ledger(data: &Path) -> Vec<Decided> {
    let Ok(data) = DataDir::open_read_only(data) else { return Vec::new() };
    let Ok(reader) = LedgerReader::open(&data.ledger(), 0) else { return Vec::new() };
    let content = |content| match content {
        Content::Decided(decided) => Some(*decided),
        Content::Erased { .. } => None,
    };
    // What is being written is not read yet.
    reader.map_while(Result::ok).filter_map(|entry| content(entry.content)).collect()
}

/// Findings and steps of `opmas run` over a log file with an attack, in the posture observe.
fn a_real_run() -> (Vec<Finding>, Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    said(dir.path(), &["init", "site"]);
    let site = dir.path().join("site");
    std::fs::write(site.join("opmas.toml"), "[source.archive]\ntype = 'file'\npath = 'router.log'\n[http]\nlisten = '127.0.0.1:0'\n").unwrap();
    std::fs::write(site.join("devices.toml"), "[[device]]\nname = 'ap1'\nhost = '192.0.2.1'\nsite = 'home'\n").unwrap();
    let failures = "Nov 21 13:08:12 ap1 dropbear[27411]: Bad password attempt for 'root' from 203.0.113.9:50876\n".repeat(6);
    let login = "Nov 21 13:08:14 ap1 dropbear[27421]: Password auth succeeded for 'root' from 203.0.113.9:50880\n";
    std::fs::write(site.join("router.log"), failures + login).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
    let child = command.arg("run").current_dir(&site).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let _running = Running(child);
    let begun = Instant::now();
    loop {
        let decided = ledger(&site.join("opmas-data"));
        let findings: Vec<Finding> =
            decided.iter().filter_map(|one| if let Decided::Finding { finding } = one { Some((**finding).clone()) } else { None }).collect();
        let steps: Vec<Step> = decided.iter().filter_map(|one| if let Decided::Intent { step, .. } = one { Some((**step).clone()) } else { None }).collect();
        if findings.len() >= 2 && !steps.is_empty() {
            return (findings, steps);
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no findings and steps in the ledger: {decided:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn m1_what_a_run_writes_is_of_the_published_schemas() {
    let (findings, steps) = a_real_run();
    let here = Path::new(".");
    let written: Vec<Value> = findings.iter().map(json).collect();
    assert_eq!(judged(&said(here, &["schema", "finding"]), &written), "");
    let written: Vec<Value> = steps.iter().map(json).collect();
    assert_eq!(judged(&said(here, &["schema", "step"]), &written), "");
    let at = findings[0].time;
    let findings: Vec<_> = findings.into_iter().map(std::sync::Arc::new).collect();
    let alert = Notice::of_findings(findings, "urgent", "email", at, Vec::new()).alert;
    assert_eq!(judged(&said(here, &["schema", "alert"]), &[json(&alert)]), "");
}

#[test]
fn m1_the_schemas_refuse_what_is_not_of_them() {
    let schema = said(Path::new("."), &["schema", "finding"]);
    let right: Value = serde_json::from_str(include_str!("../data/finding.json")).unwrap();
    assert_eq!(judged(&schema, std::slice::from_ref(&right)), "");
    let wrong = [
        ("severity", Value::from(6)),
        ("severity", "high".into()),
        ("time", "21 Nov".into()),
        ("time", "2026-11-21T13:08:12+01:00".into()),
        ("trust", Value::Null),
        ("evidence", serde_json::json!([{"seq": 1}])),
        ("id", "f".into()),
        ("entities", serde_json::json!({"source": {"kind": "phone", "value": "1"}})),
    ];
    for (key, value) in wrong {
        let mut document = right.clone();
        document[key] = value.clone();
        assert!(judged(&schema, &[document]).contains(key), "{key} may not be {value}");
    }
    for key in right.as_object().unwrap().keys() {
        let mut document = right.clone();
        document.as_object_mut().unwrap().remove(key);
        assert!(judged(&schema, &[document]).contains(key), "{key} may not be absent");
    }
}

#[test]
fn x1_an_unknown_document_or_shell_is_a_usage_error() {
    for arguments in [["schema", "findings"], ["completions", "tcsh"], ["config", "hide"]] {
        assert_eq!(opmas(Path::new("."), &arguments).status.code(), Some(2), "{arguments:?}");
    }
}

/// A configuration that says something about everything.
const SAYS: &str = "posture = 'guarded'\ndata_dir = 'kept'\n[actions]\nblock_ip = 'approve'\n[guard]\nprotect = ['192.168.1.0/28']\n\
    [source.routers]\ntype = 'syslog'\nlisten = '0.0.0.0:1514'\ntcp = false\ntrusted = true\n[source.archive]\ntype = 'file'\npath = 'router.log'\nfrom = 'end'\n\
    [source.pipe]\ntype = 'stdin'\n[spool]\nkeep = '36h'\n[http]\nlisten = '0.0.0.0:9320'\ntoken_file = 'http.token'\n[lease]\nverify_every = '90s'\n";

#[test]
fn what_is_shown_is_what_is_in_effect_and_reads_back_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(dir.path().join("opmas.toml"), SAYS).unwrap();
    std::fs::write(dir.path().join("http.token"), "hunter2-hunter2").unwrap();
    let shown = said(dir.path(), &["config", "show"]);
    let table: toml::Table = shown.parse().unwrap();
    assert_eq!(table["posture"].as_str(), Some("guarded"));
    assert_eq!(table["data_dir"].as_str(), Some(&*at("kept")));
    assert_eq!(table["actions"]["block_ip"].as_str(), Some("approve"));
    assert_eq!(table["source"]["routers"]["udp"].as_bool(), Some(true), "what is not said is shown too");
    assert_eq!(table["source"]["archive"]["path"].as_str(), Some(&*at("router.log")));
    assert_eq!(table["source"]["archive"]["from"].as_str(), Some("end"));
    assert_eq!(table["source"]["pipe"]["type"].as_str(), Some("stdin"));
    assert_eq!(table["spool"]["keep"].as_str(), Some("36h"));
    assert_eq!(table["http"]["token_file"].as_str(), Some(&*at("http.token")));
    assert!(!shown.contains("hunter2"), "secrets are named by their files only");
    assert!(shown.contains(&format!("# {} is not there: the files that opmas brings\n", at("rules"))));

    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("copy.toml");
    std::fs::write(&copy, &shown).unwrap();
    let again = said(elsewhere.path(), &["config", "show", "--config", copy.to_str().unwrap()]);
    assert_eq!(again.parse::<toml::Table>().unwrap(), table);
}

#[test]
fn defaults_are_what_an_empty_file_gives() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("opmas.toml"), "posture = 'armed'\n").unwrap();
    let defaults: toml::Table = said(dir.path(), &["config", "show", "--defaults"]).parse().unwrap();
    assert_eq!(defaults["posture"].as_str(), Some("observe"));
    assert_eq!(defaults["data_dir"].as_str(), Some("opmas-data"));
    let empty = tempfile::tempdir().unwrap();
    let mut shown: toml::Table = said(empty.path(), &["config", "show"]).parse().unwrap();
    shown["data_dir"] = "opmas-data".into();
    assert_eq!(shown, defaults);
}

/// The names of all commands, as `--help` lists them.
pub(crate) fn commands() -> Vec<String> {
    let help = said(Path::new("."), &["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<String> = list
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert!(names.len() > 10, "{help}");
    names.into_iter().filter(|name| name != "help").collect()
}

#[test]
fn bash_completes_commands_and_their_values() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("opmas.bash"), said(dir.path(), &["completions", "bash"])).unwrap();
    let complete = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let script = format!(
            ". ./opmas.bash; COMP_WORDS=({}); COMP_CWORD={}; _opmas opmas '{last}' '{before}'; echo \"${{COMPREPLY[@]}}\"",
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1
        );
        let output = Command::new("bash").args(["--norc", "-c", &script]).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = complete("opmas ");
    assert!(commands().iter().all(|name| all.contains(name)), "{all:?}");
    assert_eq!(complete("opmas comp"), ["completions"]);
    assert!(complete("opmas schema f").contains(&"finding".to_owned()));
}

#[test]
fn the_other_shells_know_every_command() {
    for shell in ["zsh", "fish"] {
        let text = said(Path::new("."), &["completions", shell]);
        assert!(commands().iter().all(|name| text.contains(name.as_str())), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page_that_man_reads_without_a_word() {
    let dir = tempfile::tempdir().unwrap();
    said(dir.path(), &["man", "pages"]);
    let pages: Vec<PathBuf> = std::fs::read_dir(dir.path().join("pages")).unwrap().map(|entry| entry.unwrap().path()).collect();
    for name in commands() {
        assert!(pages.contains(&dir.path().join(format!("pages/opmas-{name}.1"))), "{name}: {pages:?}");
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("pages/opmas.1")).unwrap(), said(dir.path(), &["man"]));
    for page in pages {
        let output = Command::new("man").args(["--warnings", "-Tutf8", "-l"]).arg(&page).env("MANWIDTH", "100").output().expect("man (Debian: man-db)");
        assert!(output.status.success() && output.stderr.is_empty(), "{}: {}", page.display(), String::from_utf8_lossy(&output.stderr));
        let name = format!("{}(1)", page.file_stem().unwrap().to_str().unwrap());
        assert!(String::from_utf8_lossy(&output.stdout).contains(&name), "{}", page.display());
    }
}
