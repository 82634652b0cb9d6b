//! Record to event: the real lines, the layouts, times, extractors, and the command.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use opmas::config::shipped_extractors;
use opmas::diag::SourceFile;
use opmas::model::{Event, Inventory, Payload, Record, Time, Trust};
use opmas::normalise::{CUT_MARK, Extractors, Normaliser, Options, State, parse_timezone};
use proptest::prelude::*;
use serde_json::{Value, json};

mod clock;

const NOW: &str = "2026-11-21T14:00:00Z";

fn time(text: &str) -> Time {
    Time::parse_rfc3339(text).unwrap()
}

/// Loaded once: every pattern is compiled and tried on its examples.
fn shipped() -> Arc<Extractors> {
    static SHIPPED: LazyLock<Arc<Extractors>> = LazyLock::new(|| Arc::new(Extractors::load(&shipped_extractors()).0));
    Arc::clone(&SHIPPED)
}

fn normaliser() -> Normaliser {
    Normaliser::new(shipped(), Options::at(time(NOW)))
}

fn record(raw: impl AsRef<[u8]>) -> Record {
    let (source, stream) = ("test".into(), "test/stdin".into());
    Record { id: None, source, stream, arrival: None, peer: None, trust: Trust::Verified, raw: raw.as_ref().to_vec(), payload: Payload::Log, subject: None }
}

fn event(raw: impl AsRef<[u8]>) -> Event {
    normaliser().normalise(0, &record(raw), &Inventory::default())
}

/// The events of a recording.
fn events(options: Options, lines: &[&str]) -> Vec<Event> {
    let mut normaliser = Normaliser::new(shipped(), options);
    (0..).zip(lines).map(|(seq, line)| normaliser.normalise(seq, &record(line), &Inventory::default())).collect()
}

fn times(options: Options, lines: &[&str]) -> Vec<String> {
    events(options, lines).iter().map(|event| event.time.to_string()).collect()
}

/// `opmas normalise` over the bytes: its events.
fn command(arguments: &[&str], input: &[u8]) -> Vec<Value> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_opmas"))
        .args(["normalise", "--now", NOW])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn expected(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_same(found: &[Value], expected: &[Value]) {
    for (line, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "line {line}");
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn x4_the_real_lines_come_out_right() {
    let found = command(&[], include_bytes!("../data/openwrt-real-lines.log"));
    assert_eq!(found.len(), 33);
    assert_same(&found, &expected(include_str!("../data/normalise/openwrt-real-lines.expected.ndjson")));
}

#[test]
fn x4_the_frames_of_a_real_log_daemon_come_out_right() {
    let mut normaliser = normaliser();
    let frames = crate::source::frames().into_iter().flat_map(|(_, frames)| frames);
    let found: Vec<Value> = frames.map(|frame| Value::Object(normaliser.normalise(0, &record(frame), &Inventory::default()).fields)).collect();
    assert_same(&found, &expected(include_str!("../data/normalise/openwrt-remote-syslog.expected.ndjson")));
}

/// What must be in the event, `null` for what must not.
#[track_caller]
fn assert_fields(line: impl AsRef<[u8]>, expected: Value) {
    let event = event(&line);
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(event.fields.get(field).unwrap_or(&Value::Null), value, "{field} of {:?}", String::from_utf8_lossy(line.as_ref()));
    }
}

#[test]
fn x4_rfc_3164_with_and_without_host_and_pri() {
    let typed = json!({"program": "dropbear", "pid": 7, "message": "Child connection from 192.0.2.9:22", "src_ip": "192.0.2.9", "src_port": 22});
    for (line, host) in [
        ("<86>Nov 21 13:08:11 dropbear[7]: Child connection from 192.0.2.9:22", Value::Null),
        ("<86>Nov 21 13:08:11 ap1 dropbear[7]: Child connection from 192.0.2.9:22", json!("ap1")),
        ("Nov 21 13:08:11 ap1 dropbear[7]: Child connection from 192.0.2.9:22", json!("ap1")),
        ("Nov 21 13:08:11 dropbear[7]: Child connection from 192.0.2.9:22", Value::Null),
        ("<86>Nov 21 13:08:11 - dropbear[7]: Child connection from 192.0.2.9:22", Value::Null),
        ("<86>Nov 21 13:08:11 2001:DB8::0001 dropbear[7]: Child connection from 192.0.2.9:22", json!("2001:db8::1")),
        ("<86>Nov 21 13:08:11 [::FFFF:192.0.2.1] dropbear[7]: Child connection from 192.0.2.9:22", json!("192.0.2.1")),
        ("<86>Nov 21 13:08:11 fe80::1%eth0 dropbear[7]: Child connection from 192.0.2.9:22", json!("fe80::1")),
        ("<86>2026-11-21T13:08:11+00:00 ap1 dropbear[7]: Child connection from 192.0.2.9:22", json!("ap1")),
        ("2026-11-21T14:08:11.000+01:00 ap1 dropbear[7]: Child connection from 192.0.2.9:22", json!("ap1")),
        ("<86>1 2026-11-21T13:08:11Z ap1 dropbear 7 - - Child connection from 192.0.2.9:22", json!("ap1")),
        ("Sat Nov 21 13:08:11 2026 authpriv.info dropbear[7]: Child connection from 192.0.2.9:22\r", Value::Null),
        ("Sat Nov 21 13:08:11 2026 [1795266491.000] authpriv.info dropbear[7]: Child connection from 192.0.2.9:22", Value::Null),
    ] {
        assert_fields(line, typed.clone());
        assert_fields(line, json!({"host": host, "timestamp": "2026-11-21T13:08:11Z", "action": "connection_open"}));
    }
}

#[test]
fn x4_the_header_of_lines_that_are_hardly_syslog() {
    assert_fields("", json!({"message": "", "program": null, "host": null, "timestamp": NOW}));
    assert_fields("<86>dropbear[7]: x", json!({"program": "dropbear", "pid": 7, "facility": "authpriv", "severity_syslog": "info", "message": "x"}));
    assert_fields("error: something broke", json!({"program": null, "message": "error: something broke"}));
    assert_fields("<999>x", json!({"facility": null, "message": "<999>x"}));
    assert_fields("<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!", json!({"host": "10.0.0.99", "program": null, "message": "Use the BFG!"}));
    assert_fields("[  253.142138] x", json!({"program": "kernel", "uptime": 253.142_138, "message": "x"}));
    assert_fields("Nov 31 13:08:05 ap1 x: y", json!({"host": null, "message": "Nov 31 13:08:05 ap1 x: y"}));
    assert_fields(b"<13>Nov 21 13:08:12 ap1 utf: bad \xff\xfe end\n\0", json!({"message": "bad \u{fffd}\u{fffd} end"}));
    assert_fields(
        r#"<165>1 2026-11-21T13:08:11.003Z ap1 evntslog - ID47 [x@1 a="1" b="\""] BOM"#,
        json!({"program": "evntslog", "pid": null, "msgid": "ID47", "sd": {"x@1": {"a": "1", "b": "\""}}, "message": "BOM", "facility": "local4"}),
    );
}

#[test]
fn x4_a_log_prefix_stands_before_the_program() {
    assert_fields("<84>Nov 21 13:08:12 ap1 router: dropbear[7]: x", json!({"host": "ap1", "program": "dropbear", "syslog_prefix": "router", "message": "x"}));
    assert_fields("<84>Nov 21 13:08:12 router: dropbear[7]: x", json!({"host": null, "program": "dropbear", "syslog_prefix": "router"}));
    assert_fields("<13>Nov 21 13:08:12 ap1 router: x: y", json!({"program": "router", "syslog_prefix": null, "message": "x: y"}));
}

#[test]
fn x2_a_line_that_begins_with_a_brace_and_parses_is_an_event() {
    let event = event(r#"{"product":"windows","time":1700000000,"host":"A","SRC":"::FFFF:1.2.3.4"}"#);
    assert_eq!(event.time.to_string(), "2023-11-14T22:13:20Z");
    assert_eq!(event.logsource.product.as_deref(), Some("windows"));
    assert_eq!(
        Value::Object(event.fields),
        json!({"product": "windows", "time": 1_700_000_000, "host": "A", "SRC": "::FFFF:1.2.3.4", "timestamp": "2023-11-14T22:13:20Z"})
    );
    assert_fields("{not json}", json!({"message": "{not json}"}));
    assert_fields(" {\"a\":1}", json!({"message": " {\"a\":1}", "a": null}));
    assert_fields("{\"a\":1} x", json!({"message": "{\"a\":1} x"}));
    assert_fields("\u{feff}{\"a\":1}", json!({"a": 1, "message": null}));
    assert_fields("\u{feff}<13>Nov 21 13:08:05 ap1 x[1]: y", json!({"host": "ap1", "program": "x"}));
    assert_fields("{".repeat(100_000), json!({"message": "{".repeat(100_000)}));
}

#[test]
fn x3_the_windows_channel_and_event_id_say_the_log_source() {
    let of = |line: &str| {
        let source = event(line).logsource;
        [source.product, source.category, source.service].map(|part| part.map_or_else(String::new, |text| text.to_string()))
    };
    for (line, expected) in [
        (r#"{"Channel":"Microsoft-Windows-Sysmon/Operational","EventID":1}"#, ["windows", "process_creation", "sysmon"]),
        (r#"{"Channel":"Security","EventID":"4688"}"#, ["windows", "process_creation", "security"]),
        (r#"{"Channel":"Security","EventID":4624,"service":""}"#, ["windows", "", "security"]),
        (r##"{"Event":{"System":{"Channel":"Microsoft-Windows-PowerShell/Operational","EventID":{"#text":"4104"}}}}"##, ["windows", "ps_script", "powershell"]),
        (r#"{"winlog":{"channel":"Microsoft-Windows-Nobody/Knows","event_id":1}}"#, ["windows", "", ""]),
        (r#"{"Channel":"Microsoft-Windows-Sysmon/Operational","EventID":13,"category":"registry_event"}"#, ["windows", "registry_event", "sysmon"]),
        (r#"{"Channel":"System","product":"linux"}"#, ["linux", "", ""]),
        (r#"{"Channel":"opmas","EventID":1}"#, ["", "", ""]),
        (r#"{"EventID":1,"product":""}"#, ["", "", ""]),
    ] {
        assert_eq!(of(line), expected, "{line}");
    }
}

#[test]
fn t1_nested_windows_time_comes_first_and_the_command_writes_the_event_time() {
    let line = r##"{"timestamp":"2020-01-01T00:00:00Z","Event":{"System":{"TimeCreated":{"#attributes":{"SystemTime":"2019-03-01T12:00:00.5Z"}}}}}"##;
    assert_eq!(event(line).time.to_string(), "2019-03-01T12:00:00.5Z");
    assert_eq!(event(line).text("timestamp"), Some("2020-01-01T00:00:00Z"), "a rule sees the event's own field");
    assert_eq!(command(&[], line.as_bytes())[0]["timestamp"], "2019-03-01T12:00:00.5Z");
}

#[test]
fn x2_a_missing_year_is_the_preceding_lines_and_else_the_one_nearest_to_now() {
    let at = |now| Options::at(time(now));
    assert_eq!(times(at("2026-01-02T00:00:00Z"), &["Dec 31 23:59:59 a: x", "Jan  1 00:00:01 a: x"]), ["2025-12-31T23:59:59Z", "2026-01-01T00:00:01Z"]);
    assert_eq!(times(at("2026-12-30T00:00:00Z"), &["Jan  1 00:00:01 a: x"]), ["2027-01-01T00:00:01Z"]);
    let after_a_year = [
        "Sat Nov 21 13:08:11 2015 user.info a: x",
        "Nov 22 00:00:00 b: x",
        "Dec 31 23:59:59 b: x",
        "Jan  1 00:00:00 b: x",
        "Dec 31 23:59:58 late: x",
        "Nov  2 00:00:00 b: x",
    ];
    let expected =
        ["2015-11-21T13:08:11Z", "2015-11-22T00:00:00Z", "2015-12-31T23:59:59Z", "2016-01-01T00:00:00Z", "2015-12-31T23:59:58Z", "2015-11-02T00:00:00Z"];
    assert_eq!(times(at(NOW), &after_a_year), expected);
    assert_eq!(times(at("2026-02-01T00:00:00Z"), &["Feb 29 00:00:00 a: x"]), ["2024-02-29T00:00:00Z"]);
    assert_eq!(times(at(NOW), &["2025-06-01T00:00:00Z h a: x", "Feb 29 00:00:00 a: x"])[1], "2024-02-29T00:00:00Z");
}

#[test]
fn t3_one_line_of_another_year_moves_no_other_line() {
    let lines = ["Nov 21 13:00:00 a: x", "Nov 21 13:00:01 a: x"];
    for odd in [
        r#"{"time":"2099-01-01T00:00:00Z"}"#,
        r#"{"ts":0}"#,
        "<13>1 2099-01-01T00:00:00Z h a - - - x",
        "Sun Jan  4 20:24:56 1970 user.info a: x",
        "Jan  1 00:00:05 a: x",
    ] {
        for around in [vec![lines[0], odd, lines[1]], vec![lines[0], lines[0], odd, lines[1]], vec![lines[0], odd, lines[0], odd, lines[1]]] {
            assert_eq!(times(Options::at(time(NOW)), &around).last().unwrap(), "2026-11-21T13:00:01Z", "{odd}");
        }
    }
}

#[test]
fn x2_a_missing_year_is_the_preceding_lines_also_when_the_recording_jumps() {
    let pairs = [
        "2019-03-01T00:00:00Z h a: x",
        "Jul 10 23:57:29 a: x",
        "2023-03-01T00:00:00Z h a: x",
        "Jul 11 23:57:29 a: x",
        "2021-12-01T00:00:00Z h a: x",
        "Feb  2 00:00:00 a: x",
    ];
    let found = times(Options::at(time(NOW)), &pairs);
    assert_eq!([&found[1], &found[3], &found[5]], ["2019-07-10T23:57:29Z", "2023-07-11T23:57:29Z", "2021-02-02T00:00:00Z"]);
    // A router without a clock begins at the first of January, and then learns the time.
    let boot = ["Mar 21 13:00:00 a: x", "Jan  1 00:00:05 a: x", "Jan  1 00:00:06 a: x", "Mar 21 13:05:00 a: x"];
    let found = times(Options::at(time(NOW)), &boot);
    assert_eq!([&found[1], &found[3]], ["2027-01-01T00:00:05Z", "2027-03-21T13:05:00Z"]);
}

#[test]
fn x2_now_may_be_a_date() {
    let out = command(&["--timezone", "UTC"], b"Jan  1 00:00:01 a: x");
    assert_eq!(out[0]["timestamp"], "2027-01-01T00:00:01Z");
    let date = Command::new(env!("CARGO_BIN_EXE_opmas")).args(["normalise", "--now", "2019-06-30"]).stdin(Stdio::null()).output().unwrap();
    assert!(date.status.success());
    let wrong = Command::new(env!("CARGO_BIN_EXE_opmas")).args(["normalise", "--now", "soon"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn x2_local_time_is_utc_or_the_given_zone() {
    let options = |zone| Options { timezone: parse_timezone(zone).unwrap(), ..Options::at(time(NOW)) };
    let line = ["Nov 21 13:08:05 a: x", "Sat Jul 18 13:08:05 2026 user.info a: x", "2026-11-21T13:08:05 h a: x", "2026-11-21T13:08:05Z h a: x"];
    assert_eq!(times(options("UTC"), &line), ["2026-11-21T13:08:05Z", "2026-07-18T13:08:05Z", "2026-11-21T13:08:05Z", "2026-11-21T13:08:05Z"]);
    assert_eq!(times(options("Europe/Berlin"), &line), ["2026-11-21T12:08:05Z", "2026-07-18T11:08:05Z", "2026-11-21T12:08:05Z", "2026-11-21T13:08:05Z"]);
    assert_eq!(times(options("-03:30"), &line)[0], "2026-11-21T16:38:05Z");
    assert_eq!(times(options("+0200"), &line)[0], "2026-11-21T11:08:05Z");
    assert!(parse_timezone("Mars/Olympus").unwrap_err().contains("Europe/Berlin"));
}

#[test]
fn x2_an_event_without_time_has_the_preceding_events() {
    let events = events(Options::at(time(NOW)), &["no time", "2025-01-01T00:00:00Z h a: x", "no time", r#"{"a":1}"#]);
    let found: Vec<(String, bool)> = events.iter().map(|event| (event.time.to_string(), event.time_from_arrival)).collect();
    let new_year = "2025-01-01T00:00:00Z".to_owned();
    assert_eq!(found, [(NOW.to_owned(), true), (new_year.clone(), false), (new_year.clone(), true), (new_year, true)]);
}

#[test]
fn x2_streams_do_not_borrow_each_others_time() {
    let mut normaliser = normaliser();
    let mut other = record("no time");
    other.stream = "test/other".into();
    normaliser.normalise(0, &record("2025-01-01T00:00:00Z h a: x"), &Inventory::default());
    assert_eq!(normaliser.normalise(1, &other, &Inventory::default()).time, time(NOW));
}

#[test]
fn t2_a_live_stamp_without_zone_is_kept_and_arrival_is_the_time() {
    let arrival = time("2026-11-21T15:00:00Z");
    for (line, own, stamp) in [
        ("<13>Nov 21 13:08:05 ap1 a: x", None, Some("Nov 21 13:08:05")),
        ("Sun Jan  9 20:24:56 2022 user.info a: x", None, Some("Sun Jan  9 20:24:56 2022")),
        ("2026-11-21T13:08:05 ap1 a: x", None, Some("2026-11-21T13:08:05")),
        ("<13>1 2026-11-21T13:08:05Z ap1 a - - - x", Some("2026-11-21T13:08:05Z"), None),
        ("2026-11-21T13:08:05+01:00 ap1 a: x", Some("2026-11-21T12:08:05Z"), None),
        (r#"{"time":"2026-11-21T13:08:05Z"}"#, Some("2026-11-21T13:08:05Z"), None),
        (r#"{"UtcTime":"2026-11-21 13:08:05.000"}"#, Some("2026-11-21T13:08:05Z"), None),
        ("no time", None, None),
    ] {
        let event = normaliser().normalise(1, &Record { arrival: Some(arrival), ..record(line) }, &Inventory::default());
        assert_eq!((event.time, event.time_from_arrival), (own.map_or(arrival, time), own.is_none()), "{line}");
        assert_eq!(event.text("stamp"), stamp, "{line}");
    }
}

#[test]
fn o2_what_it_remembers_survives_a_checkpoint() {
    let mut first = normaliser();
    first.normalise(0, &record("2015-06-01T00:00:00Z h a: x"), &Inventory::default());
    let json: State = serde_json::from_str(&serde_json::to_string(first.state()).unwrap()).unwrap();
    let binary: State = postcard::from_bytes(&postcard::to_stdvec(first.state()).unwrap()).unwrap();
    assert_eq!((&json, &binary), (first.state(), first.state()));
    let mut second = normaliser();
    second.restore(binary);
    assert_eq!(second.normalise(1, &record("Jun  2 00:00:00 a: x"), &Inventory::default()).time.to_string(), "2015-06-02T00:00:00Z");
}

#[test]
fn the_inventory_names_the_device_and_a_missing_host() {
    let inventory: Inventory = toml::from_str("[[device]]\nname = 'ap1'\nhost = '192.0.2.1'\nsite = 'berlin'").unwrap();
    let of = |line: &str, peer: &str| {
        let record = Record { peer: Some(peer.parse().unwrap()), arrival: Some(time(NOW)), ..record(line) };
        let event = normaliser().normalise(1, &record, &inventory);
        ["host", "device", "site"].map(|field| event.text(field).map(ToOwned::to_owned))
    };
    let known = |host: &str| [Some(host.to_owned()), Some("ap1".to_owned()), Some("berlin".to_owned())];
    assert_eq!(of("<13>Nov 21 13:08:05 a: x", "::ffff:192.0.2.1"), known("ap1"));
    assert_eq!(of("<13>Nov 21 13:08:05 AP1 a: x", "192.0.2.77"), known("AP1"));
    assert_eq!(of("<13>Nov 21 13:08:05 OpenWrt a: x", "192.0.2.1"), known("OpenWrt"));
    assert_eq!(of("<13>Nov 21 13:08:05 a: x", "192.0.2.77"), [None, None, None]);
    assert_eq!(of(r#"{"device":"own","site":"own"}"#, "192.0.2.1"), [Some("ap1"), Some("own"), Some("own")].map(|text| text.map(ToOwned::to_owned)));
}

#[test]
fn the_log_source_is_what_the_extractor_says() {
    let parts = |line: &str| {
        let source = event(line).logsource;
        [source.product, source.category, source.service].map(|part| part.map(|part| part.to_string()))
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(parts("<86>dropbear[7]: Child connection from 192.0.2.9:22"), [some("openwrt"), None, some("dropbear")]);
    assert_eq!(parts("<86>dropbear[7]: Not backgrounding"), [some("openwrt"), None, some("dropbear")]);
    assert_eq!(parts("<4>kernel: [ 1.5] x IN=eth1 OUT= SRC=192.0.2.9 DST=10.0.0.1"), [some("openwrt"), some("firewall"), some("kernel")]);
    assert_eq!(parts("<4>kernel: [ 1.5] nothing that is known"), [None, None, None]);
    assert_eq!(parts("<4>x[1]: y"), [None, None, None]);
}

#[test]
fn a_cut_line_is_marked_and_not_typed() {
    let line = format!("<84>dropbear[7]: Bad password attempt for 'root' from 192.0.2.9:48629{CUT_MARK}");
    assert_fields(&line, json!({"truncated": true, "src_ip": null, "action": null, "message": "Bad password attempt for 'root' from 192.0.2.9:48629"}));
}

#[test]
fn the_shipped_extractors_read_their_own_examples() {
    let (extractors, diagnostics) = Extractors::load(&shipped_extractors());
    assert_eq!(diagnostics, []);
    assert_eq!(extractors.len(), shipped_extractors().len());
}

#[test]
fn a_wrong_extractor_file_is_refused_with_its_place() {
    let head = "programs = ['p']\n[[pattern]]\nname = 'n'\naction = 'a'\n";
    let example = "\n[[pattern.example]]\nline = 'x 1'\nfields = { n = 1 }\n";
    for (body, message) in [
        ("line = 'x {n:int}'".to_owned() + example, None),
        ("line = 'x {n:int}'".to_owned(), Some("e.toml:3:8: `n` has no example")),
        ("line = 'x {n:itn}'".to_owned() + example, Some("e.toml:5:11: unknown type `itn`; did you mean `int`?")),
        ("line = '{a}{n:int}'".to_owned() + example, Some("e.toml:5:12: two fields stand side by side")),
        ("line = '{a}'".to_owned() + example, Some("e.toml:5:9: the pattern has no text of its own")),
        ("line = 'x {n:int'".to_owned() + example, Some("e.toml:5:11: this `{` is never closed")),
        ("line = '{a} from {s:endpoint} {b}'".to_owned() + example, Some("`s` stands between two free texts")),
        ("line = 'x {u:word} {s:ip}: {b}'\nhostile = ['u']".to_owned() + example, Some("`s` stands between two free texts")),
        ("line = 'x {u:word} {s:ip}: {b}'".to_owned() + example, Some("`n` does not match its example")),
        ("line = 'x {host:int}'".to_owned() + example, Some("a pattern cannot set the field `host`")),
        ("line = 'x {n:int} {n:int}'".to_owned() + example, Some("the field `n` is set twice")),
        ("line = 'y {n:int}'".to_owned() + example, Some("e.toml:7:8: `n` does not match its example")),
        ("line = 'x {n}'".to_owned() + example, Some(r#"`n` reads {"n":"1"} from its example"#)),
        ("line = 'x {n:int}'\nrefuses = ['x 2']".to_owned() + example, Some("e.toml:6:12: `n` matches a line that it must refuse")),
        ("lien = 'x {n:int}'".to_owned() + example, Some("e.toml:5:1: unknown key `lien`; did you mean `line`?")),
    ] {
        let file = SourceFile { name: "e.toml".into(), text: format!("{head}{body}").into() };
        let (loaded, diagnostics) = Extractors::load(&[file]);
        let said = diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        match message {
            None => assert_eq!((loaded.len(), said.as_str()), (1, ""), "{body}"),
            Some(message) => assert!(loaded.is_empty() && said.contains(message), "{body}\n{said}"),
        }
    }
}

#[test]
fn x4_the_command_writes_one_event_a_line() {
    assert_eq!(command(&[], b"").len(), 0);
    assert_eq!(command(&[], b"\n\n\xff\n{\"a\":1}\nlast without newline").len(), 5);
    let long = [b"<13>x: ".as_slice(), &vec![b'a'; 3 << 20], b"\nnext"].concat();
    let events = command(&[], &long);
    assert_eq!((events.len(), &events[0]["truncated"], &events[1]["message"]), (2, &json!(true), &json!("next")));
    assert!(events[0]["message"].as_str().unwrap().len() < 1 << 20);
}

#[test]
fn x1_the_command_ends_quietly_when_nobody_reads() {
    let mut child =
        Command::new(env!("CARGO_BIN_EXE_opmas")).arg("normalise").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().unwrap();
    // It ends while we write: then our own pipe is broken too.
    let _ = stdin.write_all("line\n".repeat(200_000).as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn x1_wrong_arguments_are_told() {
    for (arguments, code, said) in [
        (vec!["--timezone", "Mars/Olympus"], 2, "no time zone"),
        (vec!["--now", "yesterday"], 2, "no RFC 3339 time"),
        (vec!["--extractors", "/nowhere"], 3, "cannot read the extractors in /nowhere"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_opmas")).arg("normalise").args(&arguments).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(said), "{arguments:?}");
    }
}

#[test]
fn an_extractor_of_ones_own_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let text = "programs = ['x']\n[[pattern]]\nname = 'n'\naction = 'seen'\nline = 'who {mac:mac}'\n[[pattern.example]]\nline = 'who AA-BB-CC-DD-EE-FF'\nfields = { mac = 'aa:bb:cc:dd:ee:ff' }";
    std::fs::write(dir.path().join("x.toml"), text).unwrap();
    let events = command(&["--extractors", dir.path().to_str().unwrap()], b"<13>x: who 00:11:22:33:44:5E\n<86>dropbear[1]: Child connection from 192.0.2.9:22");
    assert_eq!((&events[0]["action"], &events[0]["mac"]), (&json!("seen"), &json!("00:11:22:33:44:5e")));
    assert_eq!(events[1]["src_ip"], "192.0.2.9");
}

/// Every wording of dropbear that carries both a client's user name and its address.
const WITH_USER: [&str; 8] = [
    "Bad password attempt for 'USER' from ADDR",
    "Password auth succeeded for 'USER' from ADDR",
    "Pubkey auth succeeded for 'USER' with ssh-rsa key SHA256:x from ADDR",
    "Pubkey auth bad signature for 'USER' with key SHA256:x from ADDR",
    "Login attempt with wrong user USER from ADDR",
    "Bad PAM password attempt for user 'USER' from ADDR",
    "Exit before auth from <ADDR>: (user 'USER', 3 fails): Exited normally",
    "Exit before auth from <ADDR>: (user 'USER', 3 fails): Max auth tries reached - user 'USER'",
];

fn hostile_user() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("' from 8.8.8.8:22".to_owned()),
        Just("root".to_owned()),
        Just("' from ".to_owned()),
        Just("8.8.8.8:22".to_owned()),
        Just(">: (user 'x', 9 fails): ".to_owned()),
        Just("Exit before auth from <8.8.8.8:22>".to_owned()),
        Just("'; reboot; '".to_owned()),
        Just("$(reboot)".to_owned()),
        Just(" with ssh-rsa key SHA256:x from 8.8.8.8:22".to_owned()),
        "[ -~]{0,8}",
        any::<String>(),
    ];
    proptest::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn x4_any_bytes_are_exactly_one_event(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
        let event = event(&raw);
        let own = raw.starts_with(b"{") && event.text("message").is_none();
        prop_assert!(own || event.text("message").is_some());
        prop_assert!(serde_json::to_string(&event.fields).is_ok());
    }

    #[test]
    fn x4_headers_of_any_shape_are_exactly_one_event(line in "(<[0-9]{1,3}>)?(1 )?(Nov 21 13:08:05 |[0-9T:Z.-]{0,25} |Sat Nov 21 13:08:05 2026 )?([a-z0-9\\[\\]:. '-]{0,40})((\\[| |-|=|\"|\\\\|\\]){0,6})") {
        prop_assert!(event(&line).text("message").is_some());
    }

    #[test]
    fn x4_what_a_client_calls_itself_is_never_the_address(user in hostile_user(), wording in 0usize..WITH_USER.len(), v6 in any::<bool>()) {
        let (address, ip) = if v6 { ("[2001:db8::9]:4000", "2001:db8::9") } else { ("192.0.2.9:4000", "192.0.2.9") };
        let line = format!("<84>Nov 21 13:08:12 ap1 dropbear[7]: {}", WITH_USER[wording].replace("USER", &user).replace("ADDR", address));
        let event = event(&line);
        prop_assert_eq!(event.text("src_ip"), Some(ip), "{}", line);
        prop_assert_eq!(&event.fields["src_port"], &json!(4000));
        if wording < 6 {
            prop_assert_eq!(event.text("user"), Some(user.as_str()), "{}", line);
        }
    }
}
