//! Processing pipelines and placeholders, by hand and against pySigma.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use opmas::detect::{Detector, LogsourceMode};
use opmas::sigma::{Body, fields, manifest};
use serde_json::{Value, json};

use super::*;

/// The rules under pipelines of these texts.
fn under(pipelines: &[&str], rules: &str) -> Loaded {
    let names: Vec<String> = (0..pipelines.len()).map(|n| format!("p{n}.yml")).collect();
    let mut texts: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(pipelines.iter().copied()).collect();
    texts.push(("r.yml", rules));
    let mut all = files(&texts);
    all.extend(manifest(names.iter().map(|name| Arc::from(name.as_str())).collect(), BTreeMap::new()));
    load(&all)
}

fn under_placeholders(placeholders: &[(&str, &[&str])], rules: &str) -> Loaded {
    let mut all = files(&[("r.yml", rules)]);
    let values = |values: &[&str]| values.iter().map(|value| Arc::from(*value)).collect();
    all.extend(manifest(Vec::new(), placeholders.iter().map(|(name, list)| (Arc::from(*name), values(list))).collect()));
    load(&all)
}

fn holds(loaded: &Loaded, event: Value) -> Vec<usize> {
    Detector::new(&loaded.set).matches(&crate::detect::event(event), LogsourceMode::Derived)
}

const RULE: &str = "title: t\nname: t\nlogsource: {product: windows, category: process_creation}\ndetection:\n  s:\n    Image|endswith: sh\n    User: [a, b]\n  n: {Image|fieldref: Parent}\n  condition: s and not n\n";
const COUNT: &str = "---\ntitle: c\nname: c\ncorrelation:\n  type: value_count\n  rules: [t]\n  group-by: [User, who]\n  timespan: 1m\n  aliases: {who: {t: Parent}}\n  condition: {field: Image, gte: 2}\nopmas: {entities: {source: User}}\n";

fn step(text: &str) -> String {
    format!("transformations:\n  - {text}\n")
}

#[test]
fn fields_are_renamed_in_detections_and_what_refers_to_them() {
    let mapping = step("{type: field_name_mapping, mapping: {Image: process.executable, User: [user.name, user.id], Parent: process.parent}}");
    let loaded = under(&[&mapping], RULE);
    assert_eq!(said(&loaded), [""; 0]);
    assert_eq!(fields(&loaded.set.rules[0]).iter().map(|f| &**f).collect::<Vec<_>>(), ["process.executable", "process.parent", "user.id", "user.name"]);
    for (event, found) in [
        (json!({"process": {"executable": "/bin/sh"}, "user": {"id": "b"}}), true),
        (json!({"process.executable": "/bin/sh", "user.name": "a"}), true),
        (json!({"process.executable": "/bin/sh", "user.name": "c"}), false),
        (json!({"process.executable": "/bin/sh", "user.name": "a", "process.parent": "/BIN/sh"}), false),
        (json!({"Image": "/bin/sh", "User": "a"}), false),
    ] {
        assert_eq!(!holds(&loaded, event.clone()).is_empty(), found, "{event}");
    }
    let one = step("{type: field_name_mapping, mapping: {Image: exe, User: user, Parent: parent}}");
    let loaded = under(&[&one], &[RULE, COUNT].concat());
    assert_eq!(said(&loaded), [""; 0]);
    let Body::Correlation(count) = &loaded.set.rules[1].body else { panic!() };
    assert_eq!((&*count.group_by[0], &*count.group_by[1], &*count.field[0], &*count.aliases["who"]["t"]), ("user", "who", "exe", "parent"));
    assert_eq!(&*loaded.set.rules[1].opmas.entities["source"], "user");
    let several = step("{type: field_name_mapping, mapping: {User: [a, b]}}");
    assert_eq!(
        said(&under(&[&several], &[RULE, COUNT].concat())),
        ["r.yml:11:1: a pipeline maps `User` to several fields, but only one can stand here; change the rule or the pipeline"]
    );
}

#[test]
fn prefixes_log_sources_and_conditions() {
    for (text, fields_expected, source) in [
        ("{type: field_name_prefix, prefix: win.}", "win.Image win.Parent win.User", "windows process_creation -"),
        ("{type: field_name_suffix, suffix: .keyword}", "Image.keyword Parent.keyword User.keyword", "windows process_creation -"),
        ("{type: field_name_prefix_mapping, mapping: {Im: Pic, Us: Ab}}", "Aber Parent Picage", "windows process_creation -"),
        ("{type: change_logsource, product: windows, service: sysmon}", "Image Parent User", "windows - sysmon"),
        ("{type: add_condition, conditions: {EventID: 1}}", "EventID Image Parent User", "windows process_creation -"),
        ("{type: drop_detection_item, field_name_conditions: [{type: include_fields, fields: [User]}]}", "Image Parent", "windows process_creation -"),
        (
            "{type: field_name_prefix, prefix: x., field_name_conditions: [{type: exclude_fields, mode: re, fields: ['(Us|Im)']}]}",
            "Image User x.Parent",
            "windows process_creation -",
        ),
        ("{type: field_name_prefix, prefix: x., rule_conditions: [{type: logsource, product: linux}]}", "Image Parent User", "windows process_creation -"),
        (
            "{type: field_name_prefix, prefix: x., rule_cond_op: or, rule_conditions: [{type: logsource, product: linux}, {type: contains_field, field: User}]}",
            "x.Image x.Parent x.User",
            "windows process_creation -",
        ),
        (
            "{type: field_name_prefix, prefix: x., rule_cond_not: true, rule_conditions: [{type: contains_detection_item, field: User, value: b}]}",
            "Image Parent User",
            "windows process_creation -",
        ),
        (
            "{type: field_name_suffix, suffix: .text, detection_item_conditions: [{type: match_string, cond: any, pattern: '.*h$'}]}",
            "Image Image.text Parent User",
            "windows process_creation -",
        ),
    ] {
        let loaded = under(&[&step(text)], RULE);
        assert_eq!(said(&loaded), [""; 0], "{text}");
        let Body::Detection(detection) = &loaded.set.rules[0].body else { panic!() };
        assert_eq!(fields(&loaded.set.rules[0]).iter().map(|f| &**f).collect::<Vec<_>>().join(" "), fields_expected, "{text}");
        let part = |part: &Option<Arc<str>>| part.as_deref().unwrap_or("-").to_owned();
        let own = &detection.logsource;
        assert_eq!([part(&own.product), part(&own.category), part(&own.service)].join(" "), source, "{text}");
    }
}

#[test]
fn pipelines_apply_by_priority_and_then_in_their_order() {
    let [first, second] =
        [("a.", 20), ("b.", 10)].map(|(prefix, priority)| format!("priority: {priority}\n{}", step(&format!("{{type: field_name_prefix, prefix: {prefix}}}"))));
    let rule = rule("r");
    let name = |pipelines: &[&str]| fields(&under(pipelines, &rule).set.rules[0]).first().unwrap().to_string();
    assert_eq!(name(&[&first, &second]), "a.b.a");
    assert_eq!(name(&[&first, &first.replace("a.", "c.")]), "c.a.a");
    // A step may mean what an earlier one did not change.
    let chain = "transformations:\n- {id: map, type: field_name_mapping, mapping: {Image: exe}}\n- {type: field_name_prefix, prefix: raw., field_name_cond_not: true, field_name_conditions: [{type: processing_item_applied, processing_item_id: map}]}\n";
    assert_eq!(fields(&under(&[chain], RULE).set.rules[0]).iter().map(|f| &**f).collect::<Vec<_>>(), ["exe", "raw.Parent", "raw.User"]);
}

#[test]
fn what_is_dropped_is_not_asked_for() {
    let drop = |fields: &str| step(&format!("{{type: drop_detection_item, field_name_conditions: [{{type: include_fields, fields: [{fields}]}}]}}"));
    let loaded = under(&[&drop("Image")], RULE);
    assert_eq!(said(&loaded), [""; 0]);
    assert_eq!(holds(&loaded, json!({"User": "a", "Image": "x", "Parent": "x"})), [0], "the filter has gone, too");
    assert_eq!(holds(&loaded, json!({"User": "c"})), [0; 0]);
    assert_eq!(
        said(&under(&[&drop("Image, User")], RULE)),
        ["r.yml:1:1: a pipeline drops everything that this rule asks for; change the rule or the pipeline"]
    );
}

#[test]
fn placeholders_stand_for_their_values() {
    let rule = item("f|contains|expand: ['x%who%y', z]");
    let loaded = under_placeholders(&[("who", &["1", "a*b"])], &rule);
    assert_eq!(said(&loaded), [""; 0]);
    for (text, found) in [("-x1y-", true), ("xa..by", true), ("z", true), ("x%who%y", false), ("xy", false)] {
        assert_eq!(!holds(&loaded, json!({"f": text})).is_empty(), found, "{text}");
    }
    let both = under_placeholders(&[("a", &["1", "2"]), ("b", &["3", "4"])], &item("f|expand: '%a%%b%'"));
    let met = |text: &str| !holds(&both, json!({"f": text})).is_empty();
    assert_eq!(["13", "14", "23", "24", "11"].map(met), [true, true, true, true, false]);
    let nets = under_placeholders(&[("inner", &["10.0.0.0/8", "fd00::/8"])], &item("f|cidr|expand: '%inner%'"));
    assert_eq!(holds(&nets, json!({"f": "fd00::1"})), [0]);
    assert_eq!(
        said(&under_placeholders(&[("admins", &["a"])], &item("f|expand: 'x%admin%'"))),
        ["r.yml:5:17: nothing is known to put in the place of `%admin%`; did you mean `%admins%`?"]
    );
    assert_eq!(
        said(&under_placeholders(&[("net", &["10/8"])], &item("f|cidr|expand: '%net%'"))),
        ["r.yml:5:20: `10/8` is not a network; write one such as `192.168.0.0/16` or `fd00::/8`"]
    );
    let many: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(said(&under_placeholders(&[("m", &many)], &item("f|expand: '%m%'")))[0].contains("stands for more than 1000 texts"));
}

#[test]
fn pipelines_fill_placeholders_as_pysigma_does() {
    let rule = item("f|expand: '%who%'");
    let filled = |pipeline: &str, text: &str| {
        let loaded = under(&[pipeline], &rule);
        assert_eq!(said(&loaded), [""; 0], "{pipeline}");
        !holds(&loaded, json!({"f": text})).is_empty()
    };
    let vars = "vars: {who: [ann, bob]}\n";
    assert!(filled(vars, "bob") && !filled(vars, "eve"));
    assert!(filled(&format!("{vars}{}", step("{type: value_placeholders, include: [who]}")), "ann"));
    assert!(filled(&step("{type: wildcard_placeholders}"), "eve"));
    let both = format!("{vars}transformations: [{{type: value_placeholders, exclude: [who]}}, {{type: wildcard_placeholders}}]\n");
    assert!(filled(&both, "eve"));
}

#[test]
fn a_pipeline_that_is_wrong_says_where() {
    for (text, expected) in [
        (
            "transformations:\n  - {type: field_name_maping, mapping: {a: b}}\n",
            "2:12: unknown transformation `field_name_maping`; did you mean `field_name_mapping`?",
        ),
        ("transformations:\n  - {type: field_name_prefix, prefx: a}\n", "2:5: `prefix` is missing here; add it"),
        (
            "transformations:\n  - {type: drop_detection_item, rule_conditions: [{type: logsorce}]}\n",
            "2:58: unknown condition `logsorce`; did you mean `logsource`?",
        ),
        ("transformations:\n  - {type: drop_detection_item, rule_cond_op: xor}\n", "2:47: unknown rule_cond_op `xor`; did you mean `or`?"),
        ("transformation: []\n", "1:1: the pipeline has neither `transformations` nor `vars`; add one of them"),
        ("vars: {a: []}\n", "1:11: `a` is empty; write at least one value"),
        ("vars: {a: b}\nfinalizers: []\n", "2:1: `finalizers` changes queries, and opmas makes none; leave it away"),
        ("transformations: {}\n", "1:18: `transformations` must be a list, but is a map; write `- type: …` lines below it"),
        ("transformations:\n  - {type: add_condition, conditions: {f|containz: 1}}\n", "2:42: unknown modifier `containz`; did you mean `contains`?"),
        (
            "transformations:\n  - {type: field_name_prefix, prefix: a, field_name_conditions: [{type: include_fields, mode: re, fields: ['(']}]}\n",
            "2:107: `(` is not a regular expression: unclosed group; correct it",
        ),
    ] {
        let loaded = under(&[text], RULE);
        assert!(said(&loaded).contains(&format!("p0.yml:{expected}")), "{:?}", said(&loaded));
        assert_eq!(loaded.set.rules.len(), 1, "the rules load without it");
    }
    // A rule file does not make itself a pipeline.
    assert_eq!(
        said(&loaded("transformations: []\n")),
        ["r.yml:1:1: this is a pipeline and no rule; put it below rules/pipelines/ and name it under [sigma] in opmas.toml, or with --pipeline"]
    );
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn asked(arguments: &[&str]) -> Vec<Value> {
    let output = Command::new(root("tests/services/checks.sh")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Rules with a field reference that no step maps: pySigma takes them for mapped all the same, and a later step that is for what was not mapped
/// leaves them out.
const TAKEN_FOR_MAPPED: &[&str] = &["win_security_explicit_credential_local_logon.yml", "proc_creation_win_susp_cross_user_process_spawn.yml"];

#[test]
fn all_of_sigmahq_becomes_what_pysigma_makes_of_it() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Command::new("tar").arg("-xJf").arg(root("tests/data/sigma-rules.tar.xz")).arg("-C").arg(dir.path()).status().unwrap().success());
    let wild = dir.path().join("wildcards.yaml");
    std::fs::write(&wild, step("{type: wildcard_placeholders}")).unwrap();
    let own = ["ecs_windows", "sysmon"].map(|name| root(&format!("rules/pipelines/{name}.yml")));
    for pipelines in [vec![&wild, &own[1]], vec![&own[1], &wild, &own[0]]] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_opmas"));
        program.args(["rule", "list", "--json", "--rules"]).arg(dir.path());
        for path in &pipelines {
            program.arg("--pipeline").arg(path);
        }
        // The pipeline among the rules is none of them.
        let output = program.output().unwrap();
        let ours: BTreeMap<String, Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|row| {
                let source = &row["logsource"];
                let file = row["file"].as_str().unwrap().to_owned();
                (file.clone(), json!([file, source["product"], source["category"], source["service"], row["fields"]]))
            })
            .collect();
        let mut arguments = vec!["sigma", dir.path().to_str().unwrap()];
        arguments.extend(pipelines.iter().map(|path| path.to_str().unwrap()));
        let theirs = asked(&arguments);
        assert!(theirs.len() > 3_700);
        assert_eq!(ours.len(), theirs.len(), "pySigma takes every rule, and so do we: {}", String::from_utf8_lossy(&output.stderr));
        let other = theirs.iter().filter(|rule| ours[rule[0].as_str().unwrap()] != **rule);
        let other: Vec<&Value> = other.filter(|rule| !TAKEN_FOR_MAPPED.iter().any(|name| rule[0].as_str().unwrap().ends_with(name))).collect();
        assert!(other.is_empty(), "{pipelines:?}: {:?}", &other[..other.len().min(5)]);
    }
}

/// Why a pair of modifiers is refused here that pySigma takes.
fn refusal(key: &str) -> Option<&'static str> {
    let words: Vec<&str> = key.split('|').collect();
    let any = |list: &[&str]| words.iter().any(|word| list.contains(word));
    let both = |list: &[&str]| words.len() == 2 && words.iter().all(|word| list.contains(word));
    if any(&["utf16"]) {
        Some("a byte order mark is no text: it needs base64 behind it")
    } else if words.len() == 2 && words[0] == words[1] {
        Some("one of two equal ones does nothing")
    } else if both(&["contains", "startswith", "endswith"]) || both(&["minute", "hour", "day", "week", "month", "year"]) {
        Some("only one can be meant")
    } else if any(&["exists"]) && any(&["all", "neq"]) || any(&["neq"]) && any(&["lt", "lte", "gt", "gte"]) {
        Some("the other value, or the other comparison, says it")
    } else if any(&["fieldref"]) && any(&["windash", "base64", "base64offset", "wide", "utf16be", "expand"]) {
        Some("the name of a field is no value")
    } else {
        None
    }
}

#[test]
fn what_pysigma_takes_of_modifiers_is_taken_or_has_a_reason() {
    let all = asked(&["modifiers"]);
    assert!(all.len() > 4_000);
    let texts: Vec<String> = all.iter().map(|one| item(&format!("{}: {}", json!(format!("f|{}", one[0].as_str().unwrap())), one[1]))).collect();
    let named: Vec<(String, &str)> = texts.iter().enumerate().map(|(n, text)| (n.to_string(), text.as_str())).collect();
    let loaded = load(&files(&named.iter().map(|(name, text)| (name.as_str(), *text)).collect::<Vec<_>>()));
    let taken: std::collections::HashSet<&str> = loaded.set.rules.iter().map(|rule| &*rule.file).collect();
    let (mut agreed, mut refused) = (0, Vec::new());
    for (one, (name, _)) in all.iter().zip(&named) {
        let key = one[0].as_str().unwrap();
        if one[2] == json!(true) && !taken.contains(name.as_str()) && refusal(key).is_none() {
            refused.push(format!("{key}: {}", one[1]));
        }
        agreed += usize::from(one[2] == json!(taken.contains(name.as_str())));
    }
    assert_eq!(refused, [""; 0]);
    assert!(agreed * 10 > all.len() * 8, "{agreed} of {}", all.len());
}
