//! What goes out: findings and the ledger's head to a real broker, what is sent to opmas after them; whatever ends on the way.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use opmas::journal::{LedgerReader, SpoolReader};
use opmas::model::EntryBody;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers as _;
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::Value;

use crate::kafka_server::Kafka;
use crate::nats_server::{Client, NatsServer};
use crate::router::eventually;
use crate::station::{Station, write_lines};

/// Long enough for a machine that does other things too.
const SOON: Duration = Duration::from_secs(60);

/// A message as a stream has it.
struct Stored {
    subject: String,
    id: String,
    origin: String,
    payload: Value,
}

/// All messages of a stream, in its order; none when there is no stream.
fn stored(client: &Client, stream: &str) -> Vec<Stored> {
    let Some(info) = client.stream(stream) else { return Vec::new() };
    client.wait(async {
        let stream = client.context.get_stream(stream).await.unwrap();
        let mut all = Vec::new();
        for sequence in info.state.first_sequence.max(1)..=info.state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let header = |name: &str| message.headers.get(name).map(|value| value.to_string()).unwrap_or_default();
            all.push(Stored {
                subject: message.subject.to_string(),
                id: header("Nats-Msg-Id"),
                origin: header("Opmas-Origin"),
                payload: serde_json::from_slice(&message.payload).unwrap(),
            });
        }
        all
    })
}

/// How often each id was published to a subject.
fn ids(client: &Client, stream: &str, subject: &str) -> BTreeMap<String, u32> {
    let mut ids = BTreeMap::new();
    for message in stored(client, stream).into_iter().filter(|message| message.subject == subject) {
        *ids.entry(message.id).or_default() += 1;
    }
    ids
}

/// How often each finding was published, by its id.
pub fn published(client: &Client) -> BTreeMap<String, u32> {
    ids(client, "FINDINGS", "findings.correlated")
}

/// What an independent validator says of documents; empty when all are right.
fn judged(schema: &str, documents: &[Value]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), schema).unwrap();
    let checks = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/checks.sh");
    let mut child = Command::new(checks).arg("schema").arg(file.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines: String = documents.iter().map(|document| format!("{document}\n")).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    said
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The reason of `/readyz` about a part.
fn reason(station: &Station, part: &str) -> Option<Value> {
    let (_, ready) = station.ready()?;
    ready["reasons"].as_array()?.iter().find(|reason| reason["part"] == part).cloned()
}

#[test]
fn m1_o5_findings_the_head_and_what_was_sent_go_out_once_and_do_not_come_back() {
    let server = NatsServer::new();
    let (mut station, client, port) = (Station::new(), server.client(), free_port());
    let syslog = format!("[source.routers]\ntype = 'syslog'\nlisten = '127.0.0.1:{port}'\n");
    // Everything that goes out stands in the streams that it reads.
    let extractors = station.dir.join("rules/extractors");
    fs::create_dir(&extractors).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/extractors/dropbear.toml"), extractors.join("dropbear.toml")).unwrap();
    let tables = "[source.bus]\ntype = 'nats'\n[publish.site]\n[forward]\n[ledger]\npublish_head = '1s'\n";
    station.configure(&format!("{}{syslog}{tables}", server.broker("")));
    write_lines(&station.dir, 0, 300);
    station.start();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.write_all(b"<38>Nov 21 13:08:12 ap1 dropbear[27411]: Bad password attempt for 'root' from 203.0.113.9:50876\n").unwrap();
    tcp.write_all(b"{\"product\":\"test\",\"id\":\"its own\",\"kind\":\"other\"}\n").unwrap();
    station.read_all();
    eventually(SOON, "not every finding goes out", || published(&client).len() == 9);
    eventually(SOON, "not every line goes out", || ids(&client, "LOGS", "logs.routers").len() == 2);
    eventually(SOON, "no head goes out", || !ids(&client, "FINDINGS", "findings.audit").is_empty());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(station.metric("opmas_published_total"), stored(&client, "FINDINGS").len() as f64 + 2.0, "nothing goes round");
    station.terminate();

    assert_eq!(published(&client), station.findings(), "each finding of the ledger once");
    let all = stored(&client, "FINDINGS");
    let findings: Vec<Value> = all.iter().filter(|one| one.subject == "findings.correlated").map(|one| one.payload.clone()).collect();
    assert!(all.iter().filter(|one| one.subject == "findings.correlated").all(|one| one.payload["id"] == one.id.as_str() && one.origin.len() == 16));
    assert_eq!(judged(&station.run(&["schema", "finding"]).1, &findings), "");
    let head = &all.iter().rfind(|one| one.subject == "findings.audit").unwrap().payload;
    let (code, said) = station.run(&["audit", "verify", "--head", &head.to_string()]);
    assert!(code == Some(0) && said.contains("nothing up to it was rewritten"), "{said}");

    let lines = stored(&client, "LOGS");
    let line = &lines[0].payload;
    assert_eq!((line["src_ip"].as_str(), line["user"].as_str(), line["host"].as_str()), (Some("203.0.113.9"), Some("root"), Some("ap1")));
    assert!(line["raw"].as_str().unwrap().starts_with("<38>Nov 21") && line["source"] == "routers" && line["id"] == lines[0].id.as_str());
    assert!(line["received"].as_str().unwrap().ends_with('Z') && lines[0].id.starts_with("pushed:"), "{line}");
    assert_eq!(lines[1].payload["id"], lines[1].id.as_str(), "what it calls itself stands in raw: {}", lines[1].payload);
    assert!(lines[1].payload["raw"].as_str().unwrap().contains("its own"));
    assert_eq!(station.messages(), [], "its own messages are not read");
}

#[test]
fn o5_a_broker_that_is_away_is_waited_for_and_named() {
    let mut server = NatsServer::new();
    let (mut station, client) = (Station::new(), server.client());
    station.configure(&format!("{}[publish.site]\naudit = ''\n", server.broker("")));
    write_lines(&station.dir, 0, 200);
    station.start();
    eventually(SOON, "not every finding goes out", || published(&client).len() == 6);
    server.kill();
    write_lines(&station.dir, 200, 400);
    eventually(SOON, "nothing is said", || reason(&station, "publish site").is_some());
    let said = reason(&station, "publish site").unwrap();
    assert!(said["gravity"] == "degraded" && said["since"].is_string() && said["text"].as_str().unwrap().contains("waits on disk"), "{said}");
    eventually(SOON, "it is not counted", || station.metric("opmas_publish_lag_entries") >= 12.0);
    // It has to remember through its own end as well.
    station.terminate();
    server.start();
    station.start();
    eventually(SOON, "not every finding goes out", || published(&client).len() == 18);
    eventually(SOON, "it stays named", || reason(&station, "publish site").is_none() && station.metric("opmas_publish_lag_entries") == 0.0);
    station.terminate();
    assert_eq!(published(&client), station.findings());
}

#[test]
fn o5_o6_kill_9_at_random_moments_leaves_each_finding_in_the_stream_once() {
    let server = NatsServer::new();
    let (mut station, client, port) = (Station::new(), server.client(), free_port());
    let syslog = format!("[source.routers]\ntype = 'syslog'\nlisten = '127.0.0.1:{port}'\nudp = false\n");
    station.configure(&format!("{}{syslog}[publish.site]\naudit = ''\n[forward]\n", server.broker("")));
    let moments = if std::env::var("OPMAS_LONG").as_deref() == Ok("1") { 30 } else { 6 };
    let mut seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    for moment in 0..moments {
        write_lines(&station.dir, moment * 5_000, 5_000);
        station.start();
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        (0..200).for_each(|n| writeln!(tcp, "<38>Nov 21 13:08:12 ap1 test: {moment}/{n}").unwrap());
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((seed >> 33) % 1_200));
        station.kill();
    }
    station.start();
    station.read_all();
    let expected = moments * 150;
    eventually(SOON, "not every finding goes out", || client.stream("FINDINGS").is_some_and(|stream| stream.state.messages >= expected));
    let entries = || SpoolReader::open(&station.data.join("spool"), 0).unwrap().map(Result::unwrap);
    let taken = || entries().filter(|entry| matches!(&entry.body, EntryBody::Record(record) if &*record.source == "routers")).count() as u64;
    eventually(SOON, "not every line goes out", || client.stream("LOGS").is_some_and(|stream| stream.state.messages >= taken()));
    let taken = taken();
    station.terminate();
    assert_eq!(published(&client), station.findings(), "each finding once");
    let lines = ids(&client, "LOGS", "logs.routers");
    assert_eq!((lines.len() as u64, lines.values().all(|times| *times == 1)), (taken, true), "each line that was taken in once");
    assert!(taken > 0);
}

#[test]
fn a_message_that_the_broker_never_takes_is_counted_noted_and_passed() {
    let server = NatsServer::with("max_payload: 8192");
    let (mut station, client, port) = (Station::new(), server.client(), free_port());
    let syslog = format!("[source.routers]\ntype = 'syslog'\nlisten = '127.0.0.1:{port}'\n");
    station.configure(&format!("{}{syslog}[forward]\nprefix = 'site1.logs'\n", server.broker("")));
    station.start();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    for text in ["first", &"long ".repeat(4_000), "last"] {
        writeln!(tcp, "<38>Nov 21 13:08:12 ap1 test: {text}").unwrap();
    }
    eventually(SOON, "what follows is not published", || ids(&client, "SITE1", "site1.logs.routers").len() == 2);
    assert_eq!(station.metric("opmas_publish_refused_total"), 1.0);
    station.terminate();
    let notes = station.notes();
    assert!(notes.iter().any(|note| note.starts_with("forward: the broker refuses pushed:") && note.contains("too large")), "{notes:?}");
}

#[test]
fn without_its_place_everything_that_is_kept_is_published_again_under_its_ids() {
    let server = NatsServer::new();
    let (mut station, client) = (Station::new(), server.client());
    station.configure(&format!("{}[publish.site]\naudit = ''\n", server.broker("")));
    write_lines(&station.dir, 0, 200);
    station.start();
    eventually(SOON, "not every finding goes out", || published(&client).len() == 6);
    station.terminate();
    let place = station.data.join("published/publish.site.json");
    let kept: Value = serde_json::from_slice(&fs::read(&place).unwrap()).unwrap();
    assert!(kept["seq"].as_u64().unwrap() >= 6, "{kept}");
    // What is published already is not published again.
    station.start();
    eventually(SOON, "it does not know its place", || station.metric("opmas_publish_lag_entries") == 0.0);
    assert_eq!(station.metric("opmas_published_total"), 0.0);
    station.terminate();
    fs::write(&place, "{").unwrap();
    station.start();
    eventually(SOON, "nothing is published again", || station.metric("opmas_published_total") == 6.0);
    station.terminate();
    assert_eq!(published(&client), station.findings(), "the stream knows them by their ids");
    assert!(station.notes().iter().any(|note| note.starts_with("publish site: what the ledger holds is published again")), "{:?}", station.notes());
    assert!(LedgerReader::open(&station.data.join("ledger"), 0).unwrap().all(|entry| entry.is_ok()));
}

#[test]
fn c12_groups_that_are_forgotten_are_one_finding_and_stay_one() {
    let mut station = Station::new();
    let line = |n: u32| {
        format!(
            "{{\"timestamp\":{},\"product\":\"test\",\"kind\":\"failure\",\"src_ip\":\"2001:db8::{:x}:{:x}\"}}\n",
            1_790_000_000 + n / 1_000,
            n >> 16,
            n & 0xffff
        )
    };
    let file = station.dir.join("lines.log");
    let append = |range: std::ops::Range<u32>| {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&file).unwrap();
        file.write_all(range.map(line).collect::<String>().as_bytes()).unwrap();
    };
    append(0..50_020);
    station.start();
    station.read_all();
    eventually(SOON, "groups are not forgotten", || station.metric("opmas_groups_evicted_total") == 20.0);
    let evicted = |station: &Station| {
        let all = station.decided();
        let findings = all.iter().filter_map(|one| if let opmas::model::Decided::Finding { finding } = one { Some((**finding).clone()) } else { None });
        findings.filter(|finding| &*finding.rule.id == "opmas_correlation_evicted").collect::<Vec<_>>()
    };
    eventually(SOON, "it is no finding", || evicted(&station).len() == 1);
    station.kill();
    append(50_020..50_040);
    station.start();
    station.read_all();
    eventually(SOON, "groups are not forgotten", || station.metric("opmas_groups_evicted_total") == 40.0);
    station.terminate();
    let found = evicted(&station);
    assert_eq!((found.len(), found[0].count, &*found[0].agent), (1, 1, "opmas"));
    assert!(found[0].evidence[0].raw.contains("failure"));
    assert_eq!(judged(&station.run(&["schema", "finding"]).1, &[serde_json::to_value(&found[0]).unwrap()]), "");
}

/// How often each key stands in a topic, with the last payload; read to its end by a client that is not opmas.
pub fn topic(kafka: &Kafka, name: &str) -> BTreeMap<String, (u32, Value)> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", kafka.servers()).set("group.id", "reader").set("enable.partition.eof", "true");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(name, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut found = BTreeMap::new();
    loop {
        match consumer.poll(Duration::from_secs(30)).expect("Kafka answers") {
            Ok(message) => {
                let payload = serde_json::from_slice(message.payload().unwrap()).unwrap();
                let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
                assert!(message.headers().unwrap().iter().any(|header| header.key == opmas::broker::ORIGIN && header.value.is_some_and(|id| id.len() == 16)));
                let entry = found.entry(key).or_insert((0, Value::Null));
                *entry = (entry.0 + 1, payload);
            }
            Err(KafkaError::PartitionEOF(_)) => return found,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn m1_o5_findings_are_in_a_topic_though_kafka_was_away_and_opmas_killed() {
    let mut kafka = Kafka::start();
    let mut station = Station::new();
    station.configure(&format!("{}[publish.site]\n[ledger]\npublish_head = '1s'\n", kafka.table()));
    write_lines(&station.dir, 0, 200);
    station.start();
    eventually(SOON, "a topic that is not there is not named", || {
        reason(&station, "publish site").is_some_and(|reason| reason["text"].as_str().unwrap().contains("findings."))
    });
    kafka.make_topic("findings.correlated", 1);
    kafka.make_topic("findings.audit", 1);
    eventually(SOON, "not every finding goes out", || topic(&kafka, "findings.correlated").len() == 6);
    kafka.kill();
    write_lines(&station.dir, 200, 200);
    station.read_all();
    eventually(SOON, "nothing is said", || reason(&station, "publish site").is_some());
    station.kill();
    kafka.again();
    for _ in 0..3 {
        station.start();
        std::thread::sleep(Duration::from_millis(300));
        station.kill();
    }
    station.start();
    eventually(SOON, "not every finding goes out", || topic(&kafka, "findings.correlated").len() == 12);
    eventually(SOON, "no head goes out", || !topic(&kafka, "findings.audit").is_empty());
    eventually(SOON, "it stays named", || reason(&station, "publish site").is_none());
    station.terminate();
    let found = topic(&kafka, "findings.correlated");
    assert!(found.keys().eq(station.findings().keys()), "each finding of the ledger, and no other");
    assert!(found.iter().all(|(key, (_, payload))| payload["id"] == key.as_str()));
    let payloads: Vec<Value> = found.into_values().map(|(_, payload)| payload).collect();
    assert_eq!(judged(&station.run(&["schema", "finding"]).1, &payloads), "");
}

#[test]
fn what_playbooks_publish_goes_out_once_over_a_crash_and_a_broker_that_is_away() {
    let mut server = NatsServer::new();
    let (mut station, client) = (Station::new(), server.client());
    let header = "title = 'x'\non = { severity = 5 }\nmode = 'auto'\nactions = ['publish']";
    let script =
        "let told = publish(\"bus\", #{ source: finding.group.src_ip, title: finding.title + \" \\\"\\n\" }); print(told.state); publish(\"nowhere\", \"x\");";
    fs::write(station.dir.join("playbooks/tell.rhai"), format!("/*---\n{header}\n---*/\n{script}\n")).unwrap();
    let tables = "[publish.bus]\nfindings = ''\naudit = ''\nmessages = 'playbooks.told'\n[actions]\npublish = 'auto'\n";
    station.configure(&format!("{}{tables}", server.broker("")));
    station.start();
    assert_eq!(station.run(&["posture", "armed", "--for", "1h", "--because", "a test"]).0, Some(0));
    write_lines(&station.dir, 0, 200);
    station.read_all();
    let told = || ids(&client, "PLAYBOOKS", "playbooks.told");
    eventually(SOON, "the first messages", || !told().is_empty());
    server.kill();
    write_lines(&station.dir, 200, 600);
    station.read_all();
    station.kill();
    server.start();
    station.start();
    let ended = |state: &str| station.run(&["playbook", "runs", "--state", state, "--json"]).1.lines().count();
    eventually(SOON, "the runs end", || ended("done") > 1 && ended("running") == 0);
    eventually(SOON, "every message", || told().len() == ended("done"));
    station.terminate();
    assert!(told().values().all(|times| *times == 1), "{:?}", told());
    let message = stored(&client, "PLAYBOOKS").remove(0);
    assert!(message.payload["type"] == "message" && message.payload["playbook"] == "tell", "{}", message.payload);
    assert_eq!(format!("{}:{}", message.payload["run"].as_str().unwrap(), message.payload["key"].as_str().unwrap()), message.id);
    assert_eq!(message.payload["body"]["title"], "Guessed \"\n");
    let refused = station.run(&["audit", "show"]).1;
    assert!(refused.contains("there is no [publish.nowhere] with `messages` in opmas.toml"), "{refused}");
}
