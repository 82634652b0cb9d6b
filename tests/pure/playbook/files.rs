//! Headers and what is checked before anything runs.

use opmas::action::Mode;
use opmas::model::Span;
use opmas::playbook::Playbooks;
use serde_json::json;

use super::*;

const GOOD: &str = "/*---
title   = \"Block\"
on      = { rule = [\"a\", \"openwrt_ssh_login_after_failures\"], severity = \">=4\", tag = \"attack.t1110\" }
mode    = \"auto\"
actions = [\"block_ip\", \"collect_log\"]
---*/
finding.device.block_ip(finding.entity(\"source\"), \"1h\");
";

fn load(text: &str) -> opmas::playbook::Loaded {
    Playbooks::load(&[file("playbooks/p.rhai", text)], &actions())
}

/// What is said about a file, line by line.
fn said(text: &str) -> Vec<String> {
    load(text).diagnostics.iter().map(ToString::to_string).collect()
}

#[test]
fn a_header_says_when_it_runs_and_what_it_may_do() {
    let loaded = load(GOOD);
    assert_eq!(loaded.diagnostics, []);
    let playbook = loaded.playbooks.get("p").unwrap();
    assert_eq!((&*playbook.title, playbook.mode), ("Block", Mode::Auto));
    assert_eq!((playbook.budget.devices, playbook.budget.per_hour, playbook.timeout), (20, 100, Span::secs(600)));
    assert_eq!(playbook.actions.iter().map(|a| &*a.name).collect::<Vec<_>>(), ["block_ip", "collect_log"]);
    assert_eq!(playbook.revision.len(), 64);
    assert_ne!(playbook.revision, load(&GOOD.replace("1h", "2h")).playbooks.get("p").unwrap().revision);
}

#[test]
fn all_that_on_names_must_hold() {
    let holds = |on: &str, change: serde_json::Value| {
        let mut finding = finding_json();
        finding.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let text = format!("/*---\ntitle='x'\non={on}\nmode='auto'\nactions=[]\n---*/");
        let loaded = load(&text);
        assert_eq!(loaded.diagnostics, [], "{on}");
        loaded.playbooks.get("p").unwrap().triggered_by(&serde_json::from_value(finding).unwrap())
    };
    let same = || json!({});
    assert!(holds("{rule = 'openwrt_ssh_login_after_failures'}", same()));
    assert!(holds("{rule = '6f3c'}", same()));
    assert!(holds("{rule = ['x', '6f3c']}", same()));
    assert!(!holds("{rule = 'Login after failures'}", same()));
    assert!(!holds("{rule = '6f3c', tag = 'other'}", same()));
    assert!(holds("{rule = '6f3c', tag = ['other', 'attack.t1110']}", same()));
    for (severity, least, most) in [(">=4", 4, 5), (">4", 5, 5), ("<=2", 1, 2), ("<3", 1, 2), ("4", 4, 4), ("= high", 4, 4), (">= medium", 3, 5)] {
        for n in 1..=5 {
            assert_eq!(holds(&format!("{{severity = '{severity}'}}"), json!({"severity": n})), (least..=most).contains(&n), "{severity} {n}");
        }
    }
    assert!(holds("{severity = 5}", same()));
}

#[test]
fn what_is_wrong_with_a_header_is_said_with_its_place_and_the_remedy() {
    let with = |from: &str, to: &str| said(&GOOD.replace(from, to));
    assert_eq!(with("mode   ", "mdoe   "), ["playbooks/p.rhai:4:1: unknown key `mdoe`; did you mean `mode`?"]);
    assert_eq!(with("\"block_ip\", \"coll", "\"block_pi\", \"coll"), ["playbooks/p.rhai:5:12: unknown action `block_pi`; did you mean `block_ip`?"]);
    assert_eq!(
        with("[\"block_ip\", \"collect_log\"]", "[\"reboot\", \"block_ip\"]"),
        ["playbooks/p.rhai:5:12: unknown action `reboot`; known: block_ip, collect_log, block_mac"]
    );
    let without = Playbooks::load(&[file("playbooks/p.rhai", GOOD)], &[]).diagnostics;
    assert_eq!(without[0].to_string(), "playbooks/p.rhai:5:12: unknown action `block_ip`; no action is loaded: look at the files in playbooks/actions");
    assert_eq!(with("\"auto\"", "\"atuo\""), ["playbooks/p.rhai:4:11: unknown variant `atuo`, expected one of `observe`, `approve`, `auto`"]);
    assert_eq!(with(">=4", ">=6"), ["playbooks/p.rhai:3:74: `>=6` names no severity: write such as \">=4\", 1 (info) to 5 (critical)"]);
    assert_eq!(with("severity =", "severty ="), ["playbooks/p.rhai:3:63: unknown key `severty`; did you mean `severity`?"]);
    assert_eq!(with("---*/", ""), ["playbooks/p.rhai:1:1: the header does not end; end it with `---*/`"]);
    assert_eq!(with("/*---", "/* ---"), ["playbooks/p.rhai:1:1: the playbook has no header; begin the file with `/*---`, TOML and `---*/`"]);
    assert_eq!(with("mode    = \"auto\"", "mode    = "), ["playbooks/p.rhai:4:11: string values must be quoted, expected literal string"]);
    assert_eq!(with("mode    = \"auto\"\n", ""), ["playbooks/p.rhai:1:1: missing field `mode`"]);
    let on = "{ rule = [\"a\", \"openwrt_ssh_login_after_failures\"], severity = \">=4\", tag = \"attack.t1110\" }";
    assert_eq!(
        with(on, "{}"),
        ["playbooks/p.rhai:3:11: `on` names nothing, so that the playbook would run for every finding; name a `rule`, a `severity`, a `tag` or an `entity`"]
    );
    assert_eq!(with(on, "{ rule = [] }"), ["playbooks/p.rhai:3:20: an empty list would match nothing"]);
    assert_eq!(with("mode   ", "timeout = \"25h\"\nmode   "), ["playbooks/p.rhai:4:11: a timeout is between 1ms and 1d"]);
    assert_eq!(with("mode   ", "budget = { per_hour = 20000 }\nmode   "), ["playbooks/p.rhai:4:10: `per_hour` is at most 10000"]);
}

#[test]
fn what_is_wrong_with_a_script_is_said_with_its_place() {
    let with = |script: &str| said(&GOOD.replace("finding.device.block_ip(finding.entity(\"source\"), \"1h\");", script));
    assert_eq!(with("let x = ;"), ["playbooks/p.rhai:7:9: unexpected ';'"]);
    assert_eq!(with("\n\n  findng.title"), ["playbooks/p.rhai:9:3: undefined variable: findng"]);
    assert_eq!(with("if true { finding.device.block_mac(\"x\") }"), ["playbooks/p.rhai:7:26: the header does not allow `block_mac`; add it to `actions`"]);
    assert_eq!(with("let f = |d| d.block_mac(`${d.block_mac(1)}`);").len(), 2);
    assert_eq!(with("fn f(d) { block_mac(d, \"x\"); }"), ["playbooks/p.rhai:7:11: the header does not allow `block_mac`; add it to `actions`"]);
    assert_eq!(with("finding.device.block_ip(1, 2, 3)"), ["playbooks/p.rhai:7:16: `block_ip` takes (ip, duration), and is given 3 arguments"]);
    assert_eq!(with("// d.block_mac(1)\nlet s = \"d.block_mac(1)\";"), Vec::<String>::new());
    for forbidden in ["eval(\"1\")", "import \"x\" as y;"] {
        assert_eq!(with(forbidden).len(), 1, "{forbidden}");
    }
}

#[test]
fn one_broken_file_costs_the_others_nothing_and_a_name_is_there_once() {
    let files = [file("a/p.rhai", GOOD), file("actions/x.toml", "no"), file("b/p.rhai", GOOD), file("Q.rhai", GOOD), file("r.rhai", "x")];
    let loaded = Playbooks::load(&files, &actions());
    let said: Vec<String> = loaded.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(loaded.playbooks.iter().map(|p| &*p.file).collect::<Vec<_>>(), ["a/p.rhai"]);
    assert_eq!(said[0], "b/p.rhai: there is a playbook `p` already, a/p.rhai; rename one of the files");
    assert_eq!(said[1], "Q.rhai: `Q` is no name for a playbook; use at most 64 of a to z, 0 to 9, `_` and `-` before `.rhai`");
    assert_eq!(said.len(), 3);
}
