//! A spool that a real opmas wrote, killed in between, replayed: what the ledger has is found again (X5, O2, O6).

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use opmas::model::Decided;
use serde_json::{Value, json};

use crate::kafka_server::Kafka;
use crate::nats_server::NatsServer;
use crate::router::eventually;
use crate::station::{RULES, Station, write_lines};

const PLAYBOOK: &str = r#"/*---
title = "Block who guessed"
on = { rule = "guessed" }
mode = "auto"
actions = ["block_ip"]
---*/
let router = device("ap1");
router.block_ip(finding.entity("source"), "1h");
router.block_ip("192.168.7.7", "2h");
"#;
const HOOK: &str = "integration = 'webhook'\nurl = 'http://127.0.0.1:9/nobody'\nsecret_env = 'NOT_SET'\n";
const ROUTES: &str = "[[route]]\nname = 'all'\nmatch = { severity = '>=2' }\nchannels = ['hook', 'off']\n";

/// With a playbook, a device and a channel, in the posture observe.
fn station() -> Station {
    station_with("")
}

fn station_with(more: &str) -> Station {
    let station = Station::new();
    let write = |name: &str, text: &str| {
        fs::create_dir_all(station.dir.join(name).parent().unwrap()).unwrap();
        fs::write(station.dir.join(name), text).unwrap();
    };
    write("playbooks/block.rhai", PLAYBOOK);
    write("playbooks/actions/block_ip.toml", include_str!("../../playbooks/actions/block_ip.toml"));
    write("devices.toml", "[[device]]\nname = 'ap1'\nhost = '192.0.2.1'\n");
    write("notifiers/hook.toml", HOOK);
    write("notifiers/off.toml", &format!("enabled = false\n{HOOK}"));
    write("notifiers/routes.toml", ROUTES);
    write("rules/test.yml", &RULES.replace("generate: true", "generate: true\nopmas: {entities: {source: src_ip}}"));
    station.configure(&format!("[guard]\nprotect = ['192.168.7.0/24']\n{more}"));
    station
}

fn told(station: &Station, arguments: &[&str]) -> Vec<Value> {
    replayed(station, &[&["--spool"], arguments].concat())
}

fn replayed(station: &Station, arguments: &[&str]) -> Vec<Value> {
    let (code, said) = station.run(&[&["replay"], arguments].concat());
    assert_eq!(code, Some(0), "{said}");
    said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

fn of_type(told: &[Value], kind: &str) -> Vec<Value> {
    told.iter().filter(|one| one["type"] == kind).cloned().collect()
}

/// Findings as they are, steps by their place; how runs came among each other is left to chance.
fn of_ledger(station: &Station) -> (Vec<Value>, BTreeSet<String>, BTreeSet<String>) {
    let (mut findings, mut steps, mut alerts) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for one in station.decided() {
        match one {
            Decided::Finding { finding } => findings.push(json!(finding)),
            Decided::Intent { step, .. } => _ = steps.insert(json!(step).to_string()),
            Decided::Delivery { route, channel, findings, .. } => _ = alerts.insert(json!([route, channel, findings]).to_string()),
            _ => {}
        }
    }
    (findings, steps, alerts)
}

fn assert_is_the_ledger(station: &Station, told: &[Value]) {
    let (findings, steps, alerts) = of_ledger(station);
    assert!(of_type(told, "finding") == findings, "{} findings, and {} in the ledger", of_type(told, "finding").len(), findings.len());
    assert_eq!(of_type(told, "step").iter().map(Value::to_string).collect::<BTreeSet<_>>(), steps);
    let triple = |alert: &Value| json!([alert["route"], alert["channel"], alert["findings"]]).to_string();
    assert_eq!(of_type(told, "alert").iter().map(triple).collect::<BTreeSet<_>>(), alerts);
}

/// Waits until every run has ended.
fn settled(station: &Station) {
    let done = || {
        let decided = station.decided();
        let count = |is: fn(&Decided) -> bool| decided.iter().filter(|one| is(one)).count();
        count(|one| matches!(one, Decided::Run { .. })) == count(|one| matches!(one, Decided::RunMoved { .. }))
    };
    eventually(Duration::from_secs(60), "the runs do not end", done);
}

#[test]
fn x5_a_spool_written_through_kills_gives_exactly_what_the_ledger_has() {
    let mut station = station();
    for part in 0..3 {
        write_lines(&station.dir, part * 1_000, 1_000);
        station.spawn();
        std::thread::sleep(Duration::from_millis(300 * (part + 1)));
        station.kill();
    }
    station.start();
    station.read_all();
    settled(&station);
    // While it runs: the folder is only read.
    let running = told(&station, &[]);
    assert_eq!(of_type(&running, "finding").len(), 3 * 30);
    assert_eq!(of_type(&running, "step").len(), 2 * 30);
    let decisions: BTreeSet<String> = of_type(&running, "step").iter().map(|step| step["decision"].to_string()).collect();
    assert_eq!(decisions, BTreeSet::from(["\"observe\"".to_owned(), "\"refused\"".to_owned()]));
    assert_is_the_ledger(&station, &running);
    station.terminate();
    let (before, head) = (station.run(&["audit", "verify"]), fs::metadata(&station.data).unwrap().modified().unwrap());
    for arguments in [&[][..], &["--threads", "2"], &["--recorded"]] {
        let again = told(&station, arguments);
        assert!(again == running, "{arguments:?}");
    }
    assert_eq!((station.run(&["audit", "verify"]), fs::metadata(&station.data).unwrap().modified().unwrap()), (before, head));
}

#[test]
fn x5_rules_that_changed_meanwhile_are_those_of_their_time_with_recorded() {
    let mut station = station();
    write_lines(&station.dir, 0, 1_000);
    station.start();
    station.read_all();
    // From here on ten failures are too many, not six.
    let path = station.dir.join("rules/test.yml");
    let stricter = fs::read_to_string(&path).unwrap().replace("gte: 6", "gte: 10");
    fs::write(&path, stricter).unwrap();
    let revisions = |station: &Station| fs::read_dir(station.data.join("revisions")).unwrap().count();
    let before = revisions(&station);
    eventually(Duration::from_secs(20), "the rules go live", || revisions(&station) > before);
    std::thread::sleep(Duration::from_secs(1));
    write_lines(&station.dir, 1_000, 1_000);
    station.read_all();
    settled(&station);
    station.terminate();
    let recorded = told(&station, &["--recorded"]);
    assert_eq!(of_type(&recorded, "finding").len(), 30 + 10, "the logins of the second part are found all the same");
    assert_is_the_ledger(&station, &recorded);
    assert_eq!(of_type(&told(&station, &[]), "finding").len(), 20, "today's rules from the first entry on");
}

/// Lines as [`write_lines`] has them, of the last hours.
fn recent(count: u64) -> (u64, Vec<String>) {
    let begin = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - 10_000;
    let kind = |n: u64| match n % 100 {
        10..=15 => "failure",
        20 => "login",
        _ => "other",
    };
    let line = |n: u64| format!("{{\"timestamp\":{},\"product\":\"test\",\"kind\":\"{}\",\"src_ip\":\"10.0.0.{}\"}}", begin + n, kind(n), n / 100);
    (begin, (0..count).map(line).collect())
}

fn time(seconds: u64) -> String {
    opmas::model::Time(i64::try_from(seconds).unwrap() * 1_000_000_000).to_string()
}

/// The ids and times of findings, in the order of the ids.
fn ids(findings: &[Value]) -> BTreeSet<(String, String)> {
    findings.iter().map(|finding| (finding["id"].to_string(), finding["time"].as_str().unwrap().to_owned())).collect()
}

/// What was found live, and is found again with these arguments.
fn assert_found_again(station: &Station, (begin, attacks): (u64, usize), arguments: &[&str]) {
    let live = ids(&of_ledger(station).0);
    assert_eq!(live.len(), 3 * attacks);
    let again = replayed(station, arguments);
    assert_eq!(ids(&of_type(&again, "finding")), live);
    assert_eq!(of_type(&again, "step").len(), 2 * attacks);
    assert!(again == replayed(station, &[arguments, &["--threads", "2"]].concat()));
    let (from, to) = (time(begin + 100), time(begin + 300));
    let part = replayed(station, &[arguments, &["--from", &from, "--to", &to]].concat());
    let expected: BTreeSet<_> = live.into_iter().filter(|(_, time)| (from.as_str()..to.as_str()).contains(&time.as_str())).collect();
    assert_eq!((ids(&of_type(&part, "finding")), expected.len()), (expected.clone(), 6));
}

#[test]
fn x5_a_stream_of_nats_gives_the_findings_that_it_gave_live() {
    let mut server = NatsServer::new();
    let client = server.client();
    client.make_stream("LOGS", &["logs.>"]);
    let (begin, lines) = recent(2_000);
    client.publish("logs.a", lines);
    let mut station = station_with(&format!("{}[source.bus]\ntype = 'nats'\n", server.broker("")));
    station.start();
    client.all_acknowledged("LOGS");
    settled(&station);
    station.terminate();
    assert_found_again(&station, (begin, 20), &["--nats", "LOGS"]);
    assert_eq!(station.run(&["replay", "--nats", "LOGS", "--broker", "natz"]).0, Some(3));
    assert_eq!(station.run(&["replay", "--nats", "NONE"]).0, Some(4), "there is no such stream");
    server.kill();
    assert_eq!(station.run(&["replay", "--nats", "LOGS"]).0, Some(4));
}

#[test]
fn x5_a_topic_of_kafka_gives_the_findings_that_it_gave_live() {
    let mut kafka = Kafka::start();
    kafka.make_topic("logs", 2);
    // Less than ten minutes: live a partition that is read before the other must not be ahead of its windows.
    let (begin, lines) = recent(500);
    // By address, as a producer with keys would.
    for partition in 0..2_u64 {
        let own = lines.iter().enumerate().filter(|(n, _)| *n as u64 / 100 % 2 == partition).map(|(_, line)| line.as_str());
        kafka.produce("logs", i32::try_from(partition).unwrap(), own);
    }
    let mut station = station_with(&format!("{}[source.bus]\ntype = 'kafka'\nlogs = ['logs']\n", kafka.table()));
    station.start();
    eventually(Duration::from_secs(60), "all findings", || of_ledger(&station).0.len() == 15);
    settled(&station);
    station.terminate();
    assert_found_again(&station, (begin, 5), &["--kafka", "logs"]);
    assert_eq!(station.run(&["replay", "--kafka", "none"]).0, Some(4), "there is no such topic");
    kafka.kill();
    assert_eq!(station.run(&["replay", "--kafka", "logs", "--broker", "kafka"]).0, Some(4));
}
