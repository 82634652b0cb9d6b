//! The case files beside the shipped rules, through the real program.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[derive(Debug, Default)]
struct Case {
    name: String,
    lines: Vec<String>,
    findings: Vec<String>,
}

/// Reads the small part of YAML that case files are written in; anything else fails the test.
fn cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut list = "";
    for line in text.lines().filter(|line| !line.starts_with('#') && *line != "cases:" && !line.is_empty()) {
        if let Some(name) = line.strip_prefix("  - name: ") {
            cases.push(Case { name: name.to_owned(), ..Case::default() });
        } else if let Some(key) = line.strip_prefix("    ").and_then(|rest| rest.strip_suffix(":")).filter(|rest| !rest.starts_with(' ')) {
            list = if key == "lines" { "lines" } else { "findings" };
        } else if line == "    findings: []" {
            list = "";
        } else {
            let item = line.strip_prefix("      - ").unwrap_or_else(|| panic!("a case file does not hold: {line}"));
            let case = cases.last_mut().unwrap();
            match list {
                "lines" => case.lines.push(serde_json::from_str(item).unwrap()),
                "findings" => case.findings.push(item.to_owned()),
                _ => panic!("an item without a list: {line}"),
            }
        }
    }
    cases
}

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, out);
        } else if path.to_string_lossy().ends_with(".cases.yml") {
            out.push(path);
        }
    }
}

/// The names of the rules that report, in their order.
fn found(lines: &[String]) -> Vec<String> {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let mut eval = Command::new(env!("CARGO_BIN_EXE_opmas"));
    let mut eval = eval.args(["eval", "--strict", "--rules"]).arg(&rules).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    eval.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    let output = eval.wait_with_output().unwrap();
    assert!(output.status.success());
    let loaded = opmas::sigma::load(&opmas::config::Folder::Rules.shipped().into_iter().filter(|file| opmas::config::is_rule(&file.name)).collect::<Vec<_>>());
    let name = |line: &str| {
        let rule = serde_json::from_str::<serde_json::Value>(line).unwrap()["rule"].as_str().unwrap().to_owned();
        loaded.set.rules[loaded.set.find(&rule).unwrap()].name.as_deref().unwrap().to_owned()
    };
    String::from_utf8(output.stdout).unwrap().lines().map(name).collect()
}

#[test]
fn every_case_of_the_shipped_rules_holds() {
    let mut all = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("rules"), &mut all);
    assert!(!all.is_empty());
    for file in all {
        let cases = cases(&std::fs::read_to_string(&file).unwrap());
        assert!(cases.len() > 5, "{}", file.display());
        for case in cases {
            assert!(!case.lines.is_empty(), "{}", case.name);
            assert_eq!(found(&case.lines), case.findings, "{}: {}", file.display(), case.name);
        }
    }
}
