//! Text cases: rules, timed events, the findings and the line at which each is said.

use std::fs;
use std::path::{Path, PathBuf};

use opmas::engine::pipeline::Settings;
use opmas::model::{Entry, EntryBody, Tick};
use serde_json::{Map, Value, json};

use super::{PRELUDE, at, entry, line, pipeline, record, rule_set};

struct Case {
    path: PathBuf,
    rules: String,
    events: Vec<String>,
    findings: Vec<String>,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/correlate");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "txt")).collect();
    paths.sort();
    paths.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Case {
    let text = fs::read_to_string(&path).unwrap();
    let (rules, rest) = text.split_once("\n== events\n").unwrap_or_else(|| panic!("{}: no `== events`", path.display()));
    let (events, findings) = rest.split_once("== findings\n").unwrap_or_else(|| panic!("{}: no `== findings`", path.display()));
    let lines = |text: &str| text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    Case { path, rules: rules.to_owned(), events: lines(events), findings: lines(findings) }
}

/// `SECONDS key=value…`: an event (`~7` is the text 7, `a,b` a list); `stream` and `arrival` (seconds) are the record's. `- key=value…`: one without a time.
/// `tick SECONDS stream…`: those streams are idle. `end`: the end of input.
fn parse(seq: usize, text: &str) -> Entry {
    let mut words = text.split_whitespace();
    let first = words.next().unwrap();
    if first == "tick" {
        let when = at(words.next().unwrap().parse().unwrap());
        return Entry { seq: seq as u64, body: EntryBody::Tick(Tick { at: when, idle: words.map(Into::into).collect() }) };
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

fn run(case: &Case) -> Vec<String> {
    let rules = rule_set(&[PRELUDE, &case.rules]);
    let mut pipeline = pipeline(&rules, Settings::default());
    let mut said = Vec::new();
    for (seq, text) in case.events.iter().enumerate() {
        let (at, found) = if text == "end" { ("end".to_owned(), pipeline.finish()) } else { (seq.to_string(), pipeline.entry(&parse(seq, text))) };
        for found in found.iter().filter(|found| found.group.is_some()) {
            said.push(format!("at {at}: {}{}", line(found, &rules), if found.end { " end" } else { "" }));
        }
    }
    let counters = pipeline.counters();
    for (name, n) in [("late", counters.late_matches), ("missing group field", counters.missing_group_field), ("not a number", counters.not_a_number)] {
        if n > 0 {
            said.push(format!("{name}: {n}"));
        }
    }
    said
}

/// The numbered sentence is in each file's name.
#[test]
fn text_cases() {
    let cases = cases();
    assert!(cases.len() >= 15, "the cases were found");
    let mut wrong = Vec::new();
    for case in &cases {
        let said = run(case);
        if said == case.findings {
            continue;
        }
        if std::env::var_os("OPMAS_REGENERATE").is_some() {
            let text = format!("{}\n== events\n{}\n== findings\n{}\n", case.rules, case.events.join("\n"), said.join("\n"));
            fs::write(&case.path, text).unwrap();
        } else {
            wrong.push(format!("{}\nexpected\n  {}\nfound\n  {}", case.path.display(), case.findings.join("\n  "), said.join("\n  ")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
