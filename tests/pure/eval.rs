//! `opmas eval` as a user runs it (X1–X3).

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn eval(rules: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
    let mut child =
        command.arg("eval").arg("--rules").arg(rules).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that refuses its rules does not read.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn shipped() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/rules"))
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stdout.clone()).unwrap().lines().map(str::to_owned).collect()
}

fn rules_said(output: &Output) -> Vec<(u64, String)> {
    let parse = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    lines(output).into_iter().map(parse).map(|v| (v["seq"].as_u64().unwrap(), v["title"].as_str().unwrap().to_owned())).collect()
}

fn failure(minute: u32, second: u32) -> String {
    format!("Nov 21 {:02}:{:02}:{second:02} ap1 dropbear[4321]: Bad password attempt for 'root' from 203.0.113.9:48629\n", 10 + minute / 60, minute % 60)
}

fn login(minute: u32, second: u32) -> String {
    format!("Nov 21 {:02}:{:02}:{second:02} ap1 dropbear[4321]: Password auth succeeded for 'root' from 203.0.113.9:48630\n", 10 + minute / 60, minute % 60)
}

const GUESSING: &str = "Guessing of ssh passwords on OpenWrt";
const AFTER: &str = "ssh login after failed logins on OpenWrt";

#[test]
fn five_failures_and_a_login_are_nothing() {
    let input: String = (0..5).map(|n| failure(0, n)).chain([login(0, 9)]).collect();
    let output = eval(shipped(), &["--now", "2026-11-21T12:00:00Z"], &input);
    assert_eq!(rules_said(&output), []);
    assert!(output.status.success());
}

#[test]
fn six_failures_then_a_login_are_found() {
    let input: String = (0..6).map(|n| failure(0, n)).chain([login(0, 9)]).collect();
    let output = eval(shipped(), &["--now", "2026-11-21T12:00:00Z"], &input);
    assert_eq!(rules_said(&output), [(5, GUESSING.to_owned()), (6, AFTER.to_owned())]);
}

#[test]
fn c8_two_hours_of_failures_at_one_a_minute_then_a_login_are_found() {
    let input: String = (0..120).map(|n| failure(n, 0)).chain([login(120, 0)]).collect();
    let output = eval(shipped(), &["--now", "2026-11-21T12:00:00Z"], &input);
    assert_eq!(rules_said(&output), [(5, GUESSING.to_owned()), (120, AFTER.to_owned())]);
}

const RULES: &str = "title: Two\nid: b-two\nlevel: high\ncorrelation: {type: event_count, rules: [one], group-by: [src], timespan: 10s, condition: {gte: 2}}\ngenerate: true\n\
---\ntitle: One\nname: one\nid: c-one\ndetection: {s: {k: a}, condition: s}\nlogsource: {product: linux}\n\
---\ntitle: Any\nid: a-any\ndetection: {s: {k: '*'}, condition: s}\nlogsource: {product: linux}\n";

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

#[test]
fn x3_keys_and_order_of_a_line() {
    let folder = folder(&[("deep/er/rules.yml", RULES), ("rules.cases.yml", "none: of a rule"), ("note.txt", "nothing")]);
    let input = "{\"time\":\"2026-11-21T10:00:00Z\",\"k\":\"a\",\"src\":\"x\"}\n\n{\"time\":\"2026-11-21T10:00:01Z\",\"k\":\"a\",\"src\":\"x\"}\n";
    let output = eval(folder.path(), &[], input);
    let wanted = [
        r#"{"seq":0,"rule":"a-any","title":"Any","level":null,"kind":"detection","time":"2026-11-21T10:00:00Z","group":null,"value":null}"#,
        r#"{"seq":0,"rule":"c-one","title":"One","level":null,"kind":"detection","time":"2026-11-21T10:00:00Z","group":null,"value":null}"#,
        r#"{"seq":2,"rule":"a-any","title":"Any","level":null,"kind":"detection","time":"2026-11-21T10:00:01Z","group":null,"value":null}"#,
        r#"{"seq":2,"rule":"c-one","title":"One","level":null,"kind":"detection","time":"2026-11-21T10:00:01Z","group":null,"value":null}"#,
        r#"{"seq":2,"rule":"b-two","title":"Two","level":"high","kind":"correlation","time":"2026-11-21T10:00:01Z","group":{"src":"x"},"value":2}"#,
    ];
    assert_eq!(lines(&output), wanted);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn x3_logsource_decides_what_is_skipped() {
    let folder = folder(&[("rules.yml", RULES)]);
    let input = "{\"time\":\"2026-11-21T10:00:00Z\",\"k\":\"b\",\"product\":\"windows\"}\n";
    let count = |mode: &str| lines(&eval(folder.path(), &["--logsource", mode], input)).len();
    assert_eq!((count("derived"), count("event"), count("any")), (0, 0, 1));
}

#[test]
fn x3_threads_change_nothing() {
    let folder = folder(&[("rules.yml", RULES)]);
    let event = |n: u32| format!("{{\"time\":\"2026-11-21T10:{:02}:{:02}Z\",\"k\":\"a\",\"src\":\"{}\"}}\n", n / 60 % 60, n % 60, n % 3);
    let input: String = (0..3000).map(event).collect();
    let one = eval(folder.path(), &[], &input).stdout;
    assert!(one.len() > 100_000);
    assert!(one == eval(folder.path(), &["--threads", "4"], &input).stdout);
}

#[test]
fn x3_lateness_is_configured() {
    let folder = folder(&[("rules.yml", RULES)]);
    let at = |s: u32| format!("{{\"time\":\"2026-11-21T10:00:{s:02}Z\",\"k\":\"a\",\"src\":\"x\"}}\n");
    let input = [at(30), at(31), at(5), at(6)].concat();
    let twos = |arguments: &[&str]| rules_said(&eval(folder.path(), arguments, &input)).into_iter().filter(|(_, t)| t == "Two").count();
    assert_eq!(twos(&[]), 1);
    assert_eq!(twos(&["--lateness", "1m"]), 1, "5 and 6 count, and are no news: a later x was announced");
    let every = RULES.replace("generate: true", "generate: true\nopmas: {refire: every}");
    let folder = self::folder(&[("rules.yml", &every)]);
    let twos = |arguments: &[&str]| rules_said(&eval(folder.path(), arguments, &input)).into_iter().filter(|(_, t)| t == "Two").count();
    assert_eq!((twos(&[]), twos(&["--lateness", "1m"])), (1, 2));
}

#[test]
fn x1_files_that_do_not_load_are_named_and_skipped_whole() {
    let folder = folder(&[
        ("good.yml", RULES),
        (
            "bad.yml",
            "title: Bad\nname: bad\ndetection: {s: {k: a}, condition: t}\nlogsource: {product: x}\n---\ntitle: With it\nname: with\ndetection: {s: {k: a}, condition: s}\nlogsource: {product: linux}\n",
        ),
    ]);
    let output = eval(folder.path(), &[], "{\"k\":\"b\"}\n");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0));
    assert!(errors.contains("bad.yml:3:"), "{errors}");
    assert_eq!(lines(&output).len(), 1);
    assert_eq!(eval(folder.path(), &["--strict"], "").status.code(), Some(3));
}

#[test]
fn x1_no_rule_loaded_is_3_and_wrong_arguments_are_2() {
    let empty = folder(&[]);
    let output = eval(empty.path(), &[], "");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no rule loaded"));
    assert_eq!(eval(Path::new("/nowhere/at/all"), &[], "").status.code(), Some(3));
    assert_eq!(eval(empty.path(), &["--logsource", "sometimes"], "").status.code(), Some(2));
    assert_eq!(eval(empty.path(), &["--threads", "0"], "").status.code(), Some(2));
}

#[test]
fn x3_output_is_streamed() {
    let folder = folder(&[("rules.yml", RULES)]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
    let mut child = command.arg("eval").arg("--rules").arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    // The second line is not whole yet; the first one's match must not wait for it.
    stdin.write_all(b"{\"time\":\"2026-11-21T10:00:00Z\",\"k\":\"b\"}\n{\"time\":").unwrap();
    stdin.flush().unwrap();
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.contains("a-any"), "{line}");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn x3_a_reader_that_has_seen_enough_ends_it_quietly() {
    let folder = folder(&[("rules.yml", RULES)]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
    let mut child = command.arg("eval").arg("--rules").arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    drop(child.stdout.take());
    for _ in 0..20_000 {
        if stdin.write_all(b"{\"time\":\"2026-11-21T10:00:00Z\",\"k\":\"b\"}\n").is_err() {
            break;
        }
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn t3_one_line_of_another_year_hides_no_attack() {
    let attack: Vec<String> = (0..6).map(|n| failure(0, n)).chain([login(0, 9)]).collect();
    for odd in ["{\"time\":\"2099-01-01T00:00:00Z\"}\n", "{\"ts\":0}\n", "Sun Jan  4 20:24:56 1970 user.info x: y\n", "Jan  1 00:00:05 ap1 x: y\n"] {
        for at in 1..attack.len() as u64 {
            let input = [&attack[..at as usize], &[odd.to_owned()], &attack[at as usize..]].concat().concat();
            let output = eval(shipped(), &["--now", "2026-11-21T12:00:00Z"], &input);
            let seq = |place: u64| place + u64::from(place >= at);
            assert_eq!(rules_said(&output), [(seq(5), GUESSING.to_owned()), (seq(6), AFTER.to_owned())], "{odd} at {at}");
        }
    }
}

#[test]
fn x3_what_only_the_end_decides_says_so() {
    let rules = "title: One\nname: one\ndetection: {s: {k: a}, condition: s}\nlogsource: {product: linux}\n---\n\
                 title: Few\nid: few\ncorrelation: {type: event_count, rules: [one], group-by: [src], timespan: 10s, condition: {lt: 2}}\n";
    let folder = folder(&[("rules.yml", rules)]);
    let at = |s: u32, src: &str| format!("{{\"time\":\"2026-11-21T10:00:{s:02}Z\",\"k\":\"a\",\"src\":\"{src}\"}}\n");
    let output = eval(folder.path(), &[], &[at(0, "x"), at(1, "y"), at(15, "z"), at(16, "z")].concat());
    let few = |seq: u32, second: u32, src: &str, end: &str| {
        format!(
            r#"{{"seq":{seq},"rule":"few","title":"Few","level":null,"kind":"correlation","time":"2026-11-21T10:00:{second}Z","group":{{"src":"{src}"}},"value":1{end}}}"#
        )
    };
    assert_eq!(lines(&output), [few(0, 10, "x", ""), few(1, 11, "y", "")]);
    let output = eval(folder.path(), &[], &[at(0, "x"), at(1, "y"), at(15, "z")].concat());
    assert_eq!(lines(&output), [few(0, 10, "x", ""), few(1, 11, "y", r#","end":true"#), few(2, 25, "z", r#","end":true"#)]);
}

#[test]
fn hostile_files_and_lines_are_named_or_cost_a_bounded_amount() {
    let dir = tempfile::tempdir().unwrap();
    let values: String = (0..420_000).map(|n| format!("      - value number {n}\n")).collect();
    for (name, text) in [
        ("good.yml", &b"title: Needle\nname: needle\nlogsource: {}\ndetection: {s: {a.b|contains: needle}, t: {n|gt: 5}, condition: s or t}\n"[..]),
        ("large.yml", format!("title: t\nlogsource: {{}}\ndetection:\n  s:\n    a:\n{values}  condition: s\n").as_bytes()),
        ("bytes.yml", b"title: B\xff\xfe\n"),
        ("deep.yml", format!("a: {}", "[".repeat(100_000)).as_bytes()),
        ("stairs.yml", "{a: ".repeat(100_000).as_bytes()),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let mut input = Vec::new();
    for line in [
        format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000)).as_bytes(),
        format!("{{\"x\":{}{},\"a\":{{\"b\":\"needle\"}}}}", "[".repeat(100_000), "]".repeat(100_000)).as_bytes(),
        format!("{{\"a\":{{\"b\":\"{}needle\"}}}}", "x".repeat(16 << 20)).as_bytes(),
        b"{\"n\":NaN}",
        b"{\"n\":-1e308}",
        b"{\"n\":\"NaN\"}",
        b"{\"n\":\"inf\"}",
        b"{\"n\":123456789012345678901234567890}",
        b"{\"n\":1e308}",
        b"{\"a\":{\"b\":\"\xff needle\"}}",
        b"{\"a\":{\"b\":\"needle\"}}",
    ] {
        input.extend_from_slice(line);
        input.push(b'\n');
    }
    let path = dir.path().join("input");
    std::fs::write(&path, input).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_opmas"));
    let output = command.arg("eval").arg("--rules").arg(dir.path()).stdin(std::fs::File::open(path).unwrap()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(rules_said(&output).iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), [7, 8, 9, 10]);
    let errors = String::from_utf8(output.stderr).unwrap();
    for (name, what) in [
        ("large.yml", "the file is larger than 4 MiB; split it"),
        ("bytes.yml", "is not UTF-8 text; save it as UTF-8"),
        ("deep.yml", "nested deeper than 32 levels; nest less"),
        ("stairs.yml", "nested deeper than 32 levels; nest less"),
    ] {
        assert!(errors.lines().any(|line| line.contains(name) && line.contains(what)), "{name}: {errors}");
    }
    assert_eq!(errors.lines().count(), 4, "{errors}");
}
