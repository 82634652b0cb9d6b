//! `opmas rule lint|list|fields` as a user runs it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn opmas(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).current_dir(dir).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

/// As SigmaHQ wants a rule to be.
const GOOD: &str = "title: Shell of a web server
id: 5b8d9c1e-3f0a-4c7e-9d2b-1a2b3c4d5e6f
related:
  - id: 6b8d9c1e-3f0a-4c7e-9d2b-1a2b3c4d5e6f
    type: derived
status: test
description: A web server has started a shell.
references:
  - https://example.org/shell
author: Ann
date: 2026-11-20
modified: 2026-11-21
tags:
  - attack.execution
  - attack.t1059.004
logsource:
  product: linux
  category: process_creation
detection:
  selection:
    Image|endswith: /sh
    ParentImage|endswith: /nginx
  condition: selection
falsepositives:
  - Unknown
level: high
";

#[test]
fn a_rule_as_it_should_be_has_no_remarks() {
    let dir = folder(&[("rules/proc_creation_shell.yml", GOOD)]);
    let (exit, said, errors) = opmas(dir.path(), &["rule", "lint", "--rules", "rules"]);
    assert_eq!((exit, said.as_str(), errors.as_str()), (0, "1 rules: 0 errors, 0 warnings, 0 hints\n", ""));
}

#[test]
fn against_the_specification_is_an_error() {
    for (from, to, expected) in [
        ("id: 5b8d9c1e", "id: 5b8d", "2:5: `5b8d-3f0a-4c7e-9d2b-1a2b3c4d5e6f` is no UUID, which an id has to be"),
        ("type: derived", "type: derivd", "5:11: unknown relation `derivd`; did you mean `derived`?"),
        ("status: test", "status: tset", "6:9: unknown status `tset`; did you mean `test`?"),
        ("date: 2026-11-20", "date: 2026/11/20", "11:7: `date`: `2026/11/20` is no date; write it as `2026-11-21`"),
        ("attack.execution", "Attack.Execution", "14:5: `Attack.Execution` is no tag"),
        ("  - attack.t1059.004", "  - attack.execution", "15:5: `attack.execution` stands twice in `tags`; keep one of them"),
        ("references:\n  - https", "references: https", "8:13: `references` must be a list, but is a scalar"),
        ("level: high", "level: hihg", "26:8: unknown level `hihg`; did you mean `high`?"),
    ] {
        let dir = folder(&[("rules/proc_creation_shell.yml", &GOOD.replacen(from, to, 1))]);
        let (exit, said, _) = opmas(dir.path(), &["rule", "lint", "--rules", "rules"]);
        assert_eq!(exit, 1, "{said}");
        assert!(said.contains(&format!("error: rules/proc_creation_shell.yml:{expected}")), "{said}");
    }
}

#[test]
fn conventions_are_warnings_and_traps_are_hints() {
    let rule = "title: Detects everything.
name: everything
falsepostives: [None]
logsource: {product: windows}
detection:
  selection: {Path: 'C:\\temp\\*', User|neq: root, Line|re: '.*x', Only|contains|all: [a]}
  unused: {a: b}
  condition: not selection
---
title: Few
name: few
correlation:
  type: event_count
  rules: [everything]
  timespan: 1m
  condition: {lt: 1}
---
title: Never
logsource: {product: windows}
detection: {a: {b: c}, d: {e: f}, condition: (a or d) and not 1 of them}
---
title: Nor
correlation: {type: temporal, rules: [everything, few], timespan: 1m, condition: everything and not (everything or few)}
";
    let dir = folder(&[("rules/Few.yml", rule)]);
    let (exit, said, _) = opmas(dir.path(), &["rule", "lint", "--rules", "rules", "--json"]);
    assert_eq!(exit, 0, "{said}");
    let said: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = |severity: &str, line: u64, words: &str| {
        said.iter().any(|one| one["severity"] == severity && one["line"] == line && one["message"].as_str().unwrap().contains(words))
    };
    for (severity, line, words) in [
        ("warning", 0, "the file's name"),
        ("warning", 1, "the title is not as SigmaHQ has it"),
        ("warning", 1, "there is no `author`"),
        ("hint", 3, "`falsepostives` means nothing here"),
        ("hint", 1, "also holds for events in which nothing of it is found"),
        ("hint", 6, "`\\*` is a plain asterisk"),
        ("hint", 6, "`neq` also holds for events without `User`"),
        ("hint", 6, "`.*` at an end"),
        ("hint", 6, "`all` over one value"),
        ("hint", 7, "the condition does not use the search `unused`"),
        ("hint", 10, "this count never sees silence"),
        ("hint", 18, "the condition never holds"),
        ("hint", 22, "the condition never holds"),
    ] {
        assert!(found(severity, line, words), "{severity} {line} {words}: {said:#?}");
    }
    assert!(!found("hint", 1, "never holds"));
}

#[test]
fn the_shipped_rules_have_no_errors() {
    let (exit, said, _) = opmas(tempfile::tempdir().unwrap().path(), &["rule", "lint"]);
    assert_eq!(exit, 0, "{said}");
}

#[test]
fn fields_are_those_that_a_set_needs_after_its_pipelines() {
    let dir = folder(&[
        ("opmas.toml", "[sigma]\npipelines = ['own']\nplaceholders = { who = ['root', 0] }\n"),
        ("rules/shell_of_a_server.yml", &GOOD.replace("  condition", "    User|expand: '%who%'\n  condition")),
        ("rules/pipelines/own.yml", "transformations:\n  - {type: field_name_mapping, mapping: {Image: exe}}\n"),
    ]);
    let (exit, said, errors) = opmas(dir.path(), &["rule", "fields"]);
    assert_eq!((exit, said.as_str(), errors.as_str()), (0, "RULES  FIELD\n1      ParentImage\n1      User\n1      exe\n", ""));
    let (_, said, _) = opmas(dir.path(), &["rule", "list", "--json"]);
    let row: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&row["logsource"]["product"], &row["level"], &row["file"]), (&"linux".into(), &"high".into(), &"rules/shell_of_a_server.yml".into()));
    let (_, said, errors) = opmas(dir.path(), &["check"]);
    assert!(said.contains("1 rules") && !errors.contains("rules/shell"), "{said}{errors}");
    let (exit, _, errors) = opmas(dir.path(), &["rule", "list", "--running"]);
    assert!(exit == 4 && errors.contains("no opmas runs on"), "{exit} {errors}");
    // Without opmas.toml nothing fills the placeholder.
    std::fs::remove_file(dir.path().join("opmas.toml")).unwrap();
    let (exit, _, errors) = opmas(dir.path(), &["rule", "list", "--rules", "rules"]);
    assert!(exit == 3 && errors.contains("rules/shell_of_a_server.yml:23:19: nothing is known to put in the place of `%who%`"), "{errors}");
}

/// A rule that holds only with the placeholder and the pipeline of `opmas.toml`, and a case of it.
fn configured() -> tempfile::TempDir {
    folder(&[
        ("opmas.toml", "[sigma]\npipelines = ['own']\nplaceholders = { who = ['root', 0] }\n"),
        ("rules/e.yml", "title: e\nname: e\nlogsource: {product: test}\ndetection: {s: {user|expand: '%who%'}, condition: s}\nlevel: low\n"),
        ("rules/e.cases.yml", "cases:\n  - name: held\n    lines: ['{\"account\":\"root\"}']\n    findings: [e]\n"),
        ("rules/pipelines/own.yml", "transformations:\n  - {type: field_name_mapping, mapping: {user: account}}\n"),
        ("more.yml", "priority: 20\ntransformations:\n  - {type: field_name_mapping, mapping: {account: name}}\n"),
        ("log", "{\"account\":\"root\"}\n{\"name\":\"root\"}\n{\"user\":\"root\"}\n"),
    ])
}

fn over_log(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let log = std::fs::File::open(dir.join("log")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_opmas")).args(arguments).current_dir(dir).stdin(log).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_command_reads_rules_as_the_configuration_says() {
    let dir = configured();
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    std::fs::rename(dir.path().join("log"), dir.path().join("elsewhere/log")).unwrap();
    for (folder, back, config) in
        [("", "elsewhere/", &[][..]), ("", "elsewhere/", &["--config", "opmas.toml"]), ("elsewhere", "", &["--config", "../opmas.toml"])]
    {
        let rules = if back.is_empty() { "../rules" } else { "rules" };
        let here = dir.path().join(folder);
        if !back.is_empty() {
            std::fs::copy(dir.path().join("elsewhere/log"), dir.path().join("log")).unwrap();
        }
        let run = |arguments: &[&str]| {
            let (exit, said, errors) = over_log(&here, &[arguments, config].concat());
            assert!(exit == 0 && errors.is_empty(), "{arguments:?} {config:?}: {exit} {said}{errors}");
            said
        };
        let seqs = |said: &str| said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap()).collect::<Vec<_>>();
        assert_eq!(seqs(&run(&["eval", "--rules", rules])), [0]);
        let more = dir.path().join("more.yml");
        assert_eq!(seqs(&run(&["eval", "--rules", rules, "--pipeline", more.to_str().unwrap()])), [1], "behind those of the configuration");
        assert_eq!(run(&["test", rules]), "1 cases hold, 0 do not\n");
        assert!(run(&["explain", "e", "--rules", rules]).contains("account"));
        assert!(run(&["rule", "lint", "--rules", rules]).contains("1 rules: 0 errors"));
        assert_eq!(run(&["rule", "fields", "--rules", rules]), "RULES  FIELD\n1      account\n");
        assert_eq!(run(&["rule", "fields", "--rules", rules, "--pipeline", more.to_str().unwrap()]), "RULES  FIELD\n1      name\n");
    }
}

#[test]
fn x1_a_configuration_that_is_not_there_or_broken_ends_every_command_that_reads_it() {
    let dir = configured();
    let readers: [&[&str]; 6] = [
        &["eval", "--rules", "rules"],
        &["test", "rules"],
        &["explain", "e", "--rules", "rules"],
        &["rule", "lint", "--rules", "rules"],
        &["rule", "fields", "--rules", "rules"],
        &["rule", "list", "--rules", "rules"],
    ];
    let normalise: &[&str] = &["normalise"];
    let wrong = |arguments: &[&str], expected: &str| {
        let (exit, said, errors) = over_log(dir.path(), arguments);
        assert!(exit == 3 && said.is_empty() && errors.contains(expected), "{arguments:?}: {exit} {said}{errors}");
    };
    std::fs::write(dir.path().join("broken.toml"), "[sigma\n").unwrap();
    for command in readers.iter().chain([&normalise]) {
        wrong(&[command, &["--config", "nosuch.toml"][..]].concat(), "there is no nosuch.toml");
        wrong(&[command, &["--config", "broken.toml"][..]].concat(), "broken.toml:1:7: ");
    }
    std::fs::write(dir.path().join("opmas.toml"), "[sigma]\npipelines = ['ow']\nplaceholders = { who = 'root' }\n").unwrap();
    for command in readers.iter().filter(|command| command[1] != "lint") {
        wrong(command, "rules/pipelines/ow.yml: there is no such pipeline");
    }
    std::fs::write(dir.path().join("opmas.toml"), "[sigma\n").unwrap();
    readers.iter().for_each(|command| wrong(command, "opmas.toml:1:7: "));
    let (exit, _, errors) = over_log(dir.path(), normalise);
    assert!(exit == 0 && errors.is_empty(), "it needs none: {errors}");
}

#[test]
fn a_pipeline_that_is_not_there_or_broken_is_named() {
    let dir = folder(&[("rules/shell_of_a_server.yml", GOOD), ("p.yml", "transformations: [{type: drop}]\n")]);
    for (text, expected) in [
        ("[sigma]\npipelines = ['ecs_window']\n", "rules/pipelines/ecs_window.yml: there is no such pipeline; did you mean `ecs_windows`?"),
        ("[sigma]\npipelnes = []\n", "opmas.toml:2:1: unknown key `pipelnes`; did you mean `pipelines`?"),
        ("[sigma.placeholders]\nwho = []\n", "opmas.toml:2:1: [sigma.placeholders] who has no values; list at least one value"),
    ] {
        std::fs::write(dir.path().join("opmas.toml"), text).unwrap();
        let (exit, _, errors) = opmas(dir.path(), &["check"]);
        assert!(exit == 1 && errors.contains(expected), "{errors}");
    }
    std::fs::remove_file(dir.path().join("opmas.toml")).unwrap();
    for command in [&["eval"][..], &["rule", "list"], &["rule", "fields"]] {
        let (exit, _, errors) = opmas(dir.path(), &[command, &["--rules", "rules", "--pipeline", "p.yml"]].concat());
        assert!(exit == 3 && errors.contains("p.yml:1:26: unknown transformation `drop`; known: field_name_mapping"), "{command:?}: {errors}");
    }
    let (exit, _, errors) = opmas(dir.path(), &["eval", "--rules", "rules", "--pipeline", "none.yml"]);
    assert!(exit == 3 && errors.contains("cannot read the pipeline none.yml"), "{errors}");
}
