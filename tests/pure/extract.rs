//! Every extractor file: what an attacker chooses never changes another field. And every real line has a typed field.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use opmas::config::shipped_extractors;
use opmas::model::{Inventory, Payload, Record, Time, Trust};
use opmas::normalise::{Extractors, Normaliser, Options};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use toml::Table;

/// A place in an example that an attacker chooses.
#[derive(Debug)]
struct Place {
    file: String,
    pattern: String,
    program: String,
    field: String,
    /// Whether it is a word: a line in which it has blanks is of no type at all.
    word: bool,
    /// What stands before and behind it in the message.
    around: (String, String),
}

/// Records go through one after the other, each line of a process of its own.
fn normalise(lines: &[String]) -> Vec<Map<String, Value>> {
    static SHIPPED: LazyLock<Arc<Extractors>> = LazyLock::new(|| Arc::new(Extractors::load(&shipped_extractors()).0));
    let mut normaliser = Normaliser::new(Arc::clone(&SHIPPED), Options::at(Time::parse_rfc3339("2026-11-21T14:00:00Z").unwrap()));
    let record = |line: &String| Record {
        id: None,
        source: "test".into(),
        stream: "test".into(),
        arrival: None,
        peer: None,
        trust: Trust::Verified,
        raw: line.clone().into_bytes(),
        payload: Payload::Log,
        subject: None,
    };
    (0..).zip(lines).map(|(seq, line)| normaliser.normalise(seq, &record(line), &Inventory::default()).fields).collect()
}

/// The text of each field of a template in a message, from the fixed words between them; the test's own reading.
fn spans(template: &str, message: &str) -> Vec<(String, bool, (usize, usize))> {
    let mut expression = "(?s)^".to_owned();
    let mut names = Vec::new();
    let mut rest = template;
    while let Some((fixed, after)) = rest.split_once('{') {
        expression += &regex::escape(fixed);
        let (field, behind) = after.split_once('}').unwrap();
        if let Some(text) = field.strip_prefix('?') {
            expression += &format!("(?:{})?", regex::escape(text));
        } else {
            let (name, kind) = field.split_once(':').unwrap_or((field, "text"));
            expression += if kind == "text" { "(.*)" } else { r"(\S*)" };
            names.push((name.to_owned(), kind != "text"));
        }
        rest = behind;
    }
    expression += &format!("{}$", regex::escape(rest));
    let Some(found) = regex::Regex::new(&expression).unwrap().captures(message) else { return Vec::new() };
    let groups = found.iter().skip(1).map(|group| group.map(|group| (group.start(), group.end())).unwrap());
    names.into_iter().zip(groups).map(|((name, word), span)| (name, word, span)).collect()
}

fn places() -> Vec<Place> {
    let mut places = Vec::new();
    for file in shipped_extractors() {
        let table: Table = file.text.parse().unwrap();
        let hostile: BTreeSet<String> =
            table.get("hostile").into_iter().flat_map(|list| list.as_array().unwrap()).map(|name| name.as_str().unwrap().to_owned()).collect();
        let program = table["programs"][0].as_str().unwrap();
        for pattern in table["pattern"].as_array().unwrap() {
            let template = pattern["line"].as_str().unwrap();
            // The first example is a plain one.
            let example = &pattern["example"][0];
            let message = example["line"].as_str().unwrap();
            for (field, word, (from, to)) in spans(template, message).into_iter().filter(|(field, ..)| hostile.contains(field)) {
                assert_eq!(example["fields"][&field].as_str(), Some(&message[from..to]), "{}: {template}", file.name);
                places.push(Place {
                    file: file.name.to_string(),
                    pattern: pattern["name"].as_str().unwrap().to_owned(),
                    program: program.to_owned(),
                    field,
                    word,
                    around: (message[..from].to_owned(), message[to..].to_owned()),
                });
            }
        }
    }
    places
}

/// What looks like the rest of a line, in one program or another.
fn hostile() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "root",
        "' from 8.8.8.8:22",
        " from 8.8.8.8 port 22 ssh2",
        " from 8.8.8.8",
        " port 22",
        " 8.8.8.8 port 22",
        ">: (user 'x', 9 fails): ",
        "<8.8.8.8:22>",
        " for root",
        " [client 8.8.8.8]",
        " ; USER=x ; COMMAND=y",
        "TTY=pts/9",
        "aa:bb:cc:dd:ee:ff",
        "' freq=2412 MHz)",
        "\" auth_failures=9",
        "SRC=8.8.8.8 ",
        " with ssh-rsa key SHA256:x",
        "'; reboot; '",
        "$(reboot)",
        "'",
        "\"",
        "(",
        ")",
        "]",
        "{user}",
        "\u{fffd}",
        " [preauth]",
        ": ",
        "  user=x",
        " rhost=8.8.8.8",
    ];
    let piece = prop_oneof![6 => proptest::sample::select(PIECES).prop_map(ToOwned::to_owned), 2 => "[ -~]{0,8}", 1 => "\\PC{0,4}"];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn line(place: &Place, text: &str) -> String {
    format!("<30>Nov 21 13:08:12 ap1 {}[7]: {}{text}{}", place.program, place.around.0, place.around.1)
}

/// What rules group by and playbooks act on: never changed, and never lost.
const HELD: &[&str] =
    &["action", "domain", "program", "host", "src_ip", "src_port", "dst_ip", "dst_port", "client_ip", "server_ip", "mac", "bssid", "interface"];

/// The field that the attacker chooses may be anything. Others keep their value, or are left out where the line is ambiguous.
fn check(place: &Place, text: &str) -> Result<(), TestCaseError> {
    let text = &if place.word { text.replace(|c: char| c <= ' ', "_") } else { text.to_owned() };
    let [plain, attacked] = ["harmless", text].map(|text| normalise(&[line(place, text)]).remove(0));
    prop_assert!(plain.contains_key("action"), "{} {}: {}", place.file, place.pattern, line(place, "harmless"));
    for (name, value) in plain.iter().filter(|(name, _)| *name != "message") {
        let found = attacked.get(name);
        let may_lack = !HELD.contains(&name.as_str());
        prop_assert!(
            found == Some(value) || *name == place.field || (may_lack && found.is_none()),
            "{} {}: {name} is {found:?} in {}",
            place.file,
            place.pattern,
            line(place, text)
        );
    }
    for name in attacked.keys() {
        prop_assert!(plain.contains_key(name), "{} {}: {name} appears in {}", place.file, place.pattern, line(place, text));
    }
    Ok(())
}

#[test]
fn x4_what_an_attacker_chooses_changes_no_other_field() {
    let places = places();
    assert!(places.len() > 40, "{}", places.len());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3000));
    let strategy = (0..places.len(), hostile());
    runner.run(&strategy, |(place, text)| check(&places[place], &text)).unwrap_or_else(|error| panic!("{error}"));
}

/// Fields of the header of a line, which are no typed ones.
const HEADER: &[&str] =
    &["timestamp", "host", "program", "pid", "message", "facility", "severity_syslog", "syslog_prefix", "stamp", "uptime", "domain", "action"];

fn typed(fields: &Map<String, Value>) -> bool {
    fields.contains_key("program") && fields.keys().any(|name| !HEADER.contains(&name.as_str()))
}

#[test]
fn x4_every_real_line_has_a_program_and_a_typed_field() {
    let lines: Vec<String> = include_str!("../data/openwrt-real-lines.log").lines().map(ToOwned::to_owned).collect();
    assert_eq!(lines.len(), 33);
    let untyped: Vec<&String> = lines.iter().zip(normalise(&lines)).filter(|(_, fields)| !typed(fields)).map(|(line, _)| line).collect();
    assert_eq!(untyped, Vec::<&String>::new());
}

#[test]
fn x4_every_frame_of_a_real_log_daemon_has_a_program_and_a_typed_field() {
    let frames: Vec<String> =
        crate::source::frames().into_iter().flat_map(|(_, frames)| frames).map(|frame| String::from_utf8_lossy(&frame).into_owned()).collect();
    // Two of the programs are no real ones: `logger -t x` and `logger -t utf`.
    let untyped = frames
        .iter()
        .zip(normalise(&frames))
        .filter(|(_, fields)| !typed(fields))
        .filter(|(line, _)| !line.contains(" x: line") && !line.contains(" utf: bad"));
    assert_eq!(untyped.map(|(line, _)| line).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn every_shipped_extractor_says_its_domain() {
    for file in shipped_extractors() {
        assert!(file.text.parse::<Table>().unwrap().contains_key("domain"), "{}", file.name);
    }
}

#[test]
fn a_line_takes_what_its_process_said_before() {
    let open = |host: &str, pid: u32, ip: &str| format!("<86>Nov 21 13:00:00 {host} dropbear[{pid}]: Child connection from {ip}:4000");
    let lacks = |time: &str, host: &str, pid: u32| format!("<84>Nov 21 {time} {host} dropbear[{pid}]: Login attempt for nonexistent user");
    let mut lines = vec![open("ap1", 7, "192.0.2.9"), open("ap2", 7, "192.0.2.8")];
    lines.extend([
        lacks("13:00:01", "ap1", 7),
        lacks("13:00:01", "AP2", 7),
        lacks("13:00:01", "ap1", 8),
        lacks("13:10:00", "ap1", 7),
        lacks("13:10:01", "ap1", 7),
    ]);
    let addresses: Vec<Value> = normalise(&lines).into_iter().skip(2).map(|mut fields| fields.remove("src_ip").unwrap_or_default()).collect();
    assert_eq!(addresses, [json!("192.0.2.9"), json!("192.0.2.8"), Value::Null, json!("192.0.2.9"), Value::Null]);
    // The newest connections of a host are remembered, whatever other hosts do.
    let mut lines = vec![open("ap1", 1, "192.0.2.9")];
    lines.extend((0..5000).map(|n| open(&format!("h{}", n % 50), 100 + n, "192.0.2.7")));
    lines.push(lacks("13:00:01", "ap1", 1));
    lines.extend((0..64).map(|n| open("ap1", 100 + n, "192.0.2.7")));
    lines.push(lacks("13:00:02", "ap1", 1));
    let events = normalise(&lines);
    assert_eq!((events[5001].get("src_ip"), events.last().unwrap().get("src_ip")), (Some(&json!("192.0.2.9")), None));
}

#[test]
fn a_line_that_rsyslog_sums_up_is_typed_as_the_line_in_it() {
    let sum = |program: &str, line: &str| format!("<38>Nov 21 13:00:00 srv1 {program}[700]: message repeated 3 times: [ {line}]");
    let lines = [
        sum("sshd", "Failed password for invalid user x from 8.8.8.8 port 22 ssh2 from 192.0.2.9 port 4 ssh2"),
        sum("dropbear", "Bad password attempt for 'root' from 192.0.2.9:4"),
        sum("dropbear", "words of no wording"),
    ];
    let said: Vec<Value> = normalise(&lines).iter().map(|fields| json!([fields.get("action"), fields.get("src_ip"), fields.get("repeats")])).collect();
    assert_eq!(said, [json!(["login_failed", "192.0.2.9", 3]), json!(["login_failed", "192.0.2.9", 3]), json!([null, null, null])]);
}
