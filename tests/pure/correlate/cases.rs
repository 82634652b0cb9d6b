//! Text cases: rules, timed events, the findings and the line at which each is said.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use opmas::engine::pipeline::Settings;
use opmas::model::{Entry, EntryBody, Tick};
use serde_json::{Map, Value, json};

use super::{PRELUDE, at, entry, line, pipeline, record, rule_set};

struct Case {
    path: PathBuf,
    /// What stands before it, up to its first line.
    head: String,
    rules: String,
    events: Vec<String>,
    findings: Vec<String>,
}

/// Files of one case, and of several behind lines `=== what it shows`.
fn files() -> Vec<Vec<Case>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/correlate");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "txt")).collect();
    paths.sort();
    paths.into_iter().map(|path| cases(&path, &fs::read_to_string(&path).unwrap())).collect()
}

fn cases(path: &Path, text: &str) -> Vec<Case> {
    let mut heads = vec![String::new()];
    let mut bodies = vec![String::new()];
    for line in text.split_inclusive('\n') {
        if line.starts_with("=== ") {
            heads.push(line.to_owned());
            bodies.push(String::new());
        } else {
            bodies.last_mut().unwrap().push_str(line);
        }
    }
    heads.into_iter().zip(bodies).filter(|(_, body)| !body.trim().is_empty()).map(|(head, body)| read(path, head, &body)).collect()
}

fn read(path: &Path, head: String, text: &str) -> Case {
    let (rules, rest) = text.split_once("== events\n").unwrap_or_else(|| panic!("{} {head}: no `== events`", path.display()));
    let (events, findings) = rest.split_once("== findings").unwrap_or_else(|| panic!("{} {head}: no `== findings`", path.display()));
    let lines = |text: &str| text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Case { path: path.to_owned(), head, rules: rules.trim_end().to_owned(), events: lines(events), findings: lines(findings) }
}

/// `SECONDS key=value…`: an event (`~7` is the text 7, `a,b` a list); `stream` and `arrival` (seconds) are the record's. `- key=value…`: one without a time.
/// `tick SECONDS stream…`: those streams are idle. `end`: the end of input.
fn parse(seq: usize, text: &str) -> Entry {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap();
    if first == "tick" {
        let when = at(words.next().unwrap().parse().unwrap());
        return Entry { seq: seq as u64, body: EntryBody::Tick(Tick { at: when, idle: words.map(Into::into).collect(), ..Tick::default() }) };
    }
    let mut fields = Map::new();
    if first != "-" {
        fields.insert("time".into(), json!(at(first.parse().unwrap()).to_string()));
    }
    let (mut stream, mut arrival) = ("file", None);
    for word in words {
        let (key, value) = word.split_once('=').unwrap();
        match key {
            "stream" => stream = value,
            "arrival" => arrival = Some(at(value.parse().unwrap())),
            _ => drop(fields.insert(key.into(), field_value(value))),
        }
    }
    entry(seq as u64, record(stream, arrival, &Value::Object(fields).to_string()))
}

fn field_value(text: &str) -> Value {
    if let Some(text) = text.strip_prefix('~') {
        return json!(text);
    }
    match text.split_once(',') {
        Some(_) => json!(text.split(',').collect::<Vec<_>>()),
        None => serde_json::from_str(text).ok().filter(|v: &Value| v.is_number()).unwrap_or_else(|| json!(text)),
    }
}

/// `# limits: groups_per_rule=2 entries_per_group=3` among the rules.
fn settings(rules: &str) -> Settings {
    let mut settings = Settings::default();
    for (name, number) in
        rules.lines().filter_map(|line| line.strip_prefix("# limits: ")).flat_map(str::split_whitespace).filter_map(|word| word.split_once('='))
    {
        let number = number.parse().unwrap();
        match name {
            "groups_per_rule" => settings.limits.groups_per_rule = number,
            "entries_per_group" => settings.limits.entries_per_group = number,
            _ => panic!("no limit is called {name}"),
        }
    }
    settings
}

/// `reload OLD => NEW` among the events: the rules with that text in the place of the other go live.
fn run(case: &Case) -> Vec<String> {
    let mut text = case.rules.clone();
    let mut rules = rule_set(&[PRELUDE, &text]);
    let mut pipeline = pipeline(&rules, settings(&text));
    let mut said = Vec::new();
    for (seq, event) in case.events.iter().enumerate() {
        if let Some((old, new)) = event.strip_prefix("reload ").and_then(|change| change.split_once(" => ")) {
            assert!(text.contains(old), "{event}");
            text = text.replace(old, new);
            rules = rule_set(&[PRELUDE, &text]);
            pipeline.set_rules(Arc::new(rules.clone())).unwrap();
            continue;
        }
        let (at, found) = if event == "end" { ("end".to_owned(), pipeline.finish()) } else { (seq.to_string(), pipeline.entry(&parse(seq, event))) };
        for found in found.iter().filter(|found| found.group.is_some()) {
            said.push(format!("at {at}: {}{}", line(found, &rules), if found.end { " end" } else { "" }));
        }
    }
    let counters = pipeline.counters();
    let counted = [
        ("late", counters.late_matches),
        ("missing group field", counters.missing_group_field),
        ("not a number", counters.not_a_number),
        ("evicted", counters.groups_evicted),
        ("dropped", counters.entries_dropped),
    ];
    said.extend(counted.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}: {n}")));
    said
}

/// What differs, as a sentence for each case.
fn wrong(cases: &[Case]) -> Vec<String> {
    let told = |case: &Case, said: Vec<String>| {
        format!("{} {}\nexpected\n  {}\nfound\n  {}", case.path.display(), case.head, case.findings.join("\n  "), said.join("\n  "))
    };
    cases.iter().map(|case| (case, run(case))).filter(|(case, said)| *said != case.findings).map(|(case, said)| told(case, said)).collect()
}

/// The numbered sentence is in each file's name.
#[test]
fn text_cases() {
    let files = files();
    assert!(files.iter().flatten().count() >= 150, "the cases were found");
    let mut found = Vec::new();
    for cases in &files {
        let differs = wrong(cases);
        if differs.is_empty() || std::env::var_os("OPMAS_REGENERATE").is_none() {
            found.extend(differs);
            continue;
        }
        let one = |case: &Case| format!("{}{}\n\n== events\n{}\n== findings\n{}\n", case.head, case.rules, case.events.join("\n"), run(case).join("\n"));
        fs::write(&cases[0].path, cases.iter().map(one).collect::<Vec<_>>().join("\n")).unwrap();
    }
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

/// The examples of `docs/semantics.md`: one beside each sentence about correlation.
#[test]
fn the_examples_beside_the_sentences() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/semantics.md");
    let text = fs::read_to_string(&path).unwrap();
    let mut found = Vec::new();
    for number in 1..=15 {
        let sentence = text.split_once(&format!("\n- **C{number}**")).unwrap_or_else(|| panic!("no C{number}")).1;
        let sentence = sentence.split("\n- **").next().unwrap();
        let (_, example) = sentence.split_once("  ```text example\n").unwrap_or_else(|| panic!("no example beside C{number}"));
        let example: Vec<&str> = example.split("  ```").next().unwrap().lines().map(|line| line.strip_prefix("  ").unwrap_or(line)).collect();
        found.extend(wrong(&cases(&path, &format!("=== C{number}\n{}\n", example.join("\n")))));
    }
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}
