//! Kafka in and out, with a real broker and a real opmas.

mod group;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opmas::broker::BrokerConfig;
use opmas::journal::SpoolReader;
use opmas::model::{EntryBody, NodeId, Payload, Record, RecordId, Time, Trust};
use opmas::publish::{Message, Publisher};
use opmas::source::{KafkaRange, kafka_range};

use crate::kafka_server::{Kafka, PASSWORD};
use crate::router::eventually;
use crate::station::{Station, write_lines};

/// Lines as [`write_lines`] makes them.
fn lines(from: u64, count: u64) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    write_lines(dir.path(), from, count);
    fs::read_to_string(dir.path().join("lines.log")).unwrap().lines().map(str::to_owned).collect()
}

fn strs(lines: &[String]) -> impl Iterator<Item = &str> {
    lines.iter().map(String::as_str)
}

/// A station that reads these topics too.
fn station(broker: &str, source: &str) -> Station {
    let station = Station::new();
    configure(&station, broker, source);
    station
}

fn configure(station: &Station, broker: &str, source: &str) {
    station.configure(&format!("{broker}[source.k]\ntype = 'kafka'\n{source}\n"));
}

/// The spool's records that came from a broker, in their order.
fn records(station: &Station) -> Vec<Record> {
    let entries = SpoolReader::open(&station.data.join("spool"), 0).unwrap().map(Result::unwrap);
    let records = entries.filter_map(|entry| if let EntryBody::Record(record) = entry.body { Some(record) } else { None });
    records.filter(|record| matches!(record.id, Some(RecordId::Broker { .. }))).collect()
}

/// Log and offset of each, in the spool's order.
fn places(records: &[Record]) -> Vec<(String, u64)> {
    records.iter().map(|record| record.id.as_ref().and_then(|id| id.place()).map(|(log, offset)| (log.to_string(), offset)).unwrap()).collect()
}

/// Waits until the spool has so many.
fn wait_for(station: &Station, count: usize) -> Vec<Record> {
    eventually(Duration::from_secs(60), &format!("not {count} records"), || records(station).len() >= count);
    let records = records(station);
    assert_eq!(records.len(), count, "{:?}", places(&records));
    records
}

/// What `/readyz` says of the source.
fn reason(station: &Station) -> Option<String> {
    let (_, ready) = station.ready()?;
    let reasons = ready["reasons"].as_array()?.iter().find(|reason| reason["part"] == "source k").cloned()?;
    Some(reasons["text"].as_str()?.to_owned())
}

fn says(station: &Station, words: &str) {
    let begun = Instant::now();
    while !reason(station).is_some_and(|reason| reason.contains(words)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "/readyz does not say `{words}`: {:?}", reason(station));
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn says_nothing(station: &Station) {
    eventually(Duration::from_secs(60), "/readyz still complains", || reason(station).is_none());
}

#[test]
fn o3_logs_over_tls_with_a_password_become_findings_and_their_offsets_are_committed() {
    let kafka = Kafka::start();
    kafka.make_topic("ap-logs", 2);
    kafka.make_topic("agents", 1);
    let password = tempfile::NamedTempFile::new().unwrap();
    fs::write(password.path(), PASSWORD).unwrap();
    let mut station = station(&kafka.secure_table(password.path()), "logs = ['^ap-']\nfindings = ['agents']");
    station.start();
    kafka.produce("ap-logs", 1, strs(&lines(0, 100)));
    wait_for(&station, 100);
    kafka.produce("agents", 0, ["{\"title\":\"a\",\"agent\":\"b\",\"severity\":3}"]);
    let records = wait_for(&station, 101);
    eventually(Duration::from_secs(10), "it is not committed", || kafka.committed("opmas", "ap-logs", 1) == Some(100));
    assert!(station.terminate() < Duration::from_secs(8));

    assert_eq!(station.findings().len(), 3);
    let log = records.iter().find(|record| record.payload == Payload::Log).unwrap();
    assert_eq!(log.subject.as_deref(), Some("ap-logs"));
    assert_eq!((&*log.stream, log.trust), ("k/kafka/ap-logs/1", Trust::Verified), "a broker that knows its writers is believed");
    let finding = records.iter().find(|record| record.payload == Payload::Finding).unwrap();
    assert!(finding.subject.as_deref() == Some("agents") && finding.raw.starts_with(b"{\"title\""));
    assert!(!station.log().contains(PASSWORD));
}

/// Numbers that are random enough for moments.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn o3_o4_o6_kill_9_at_random_moments_loses_and_doubles_nothing() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 2);
    let mut station = station(&kafka.table(), "logs = ['logs']");
    let moments = if std::env::var("OPMAS_LONG").as_deref() == Ok("1") { 100 } else { 10 };
    let (mut seed, mut written) = (u64::from(std::process::id()), 0);
    eprintln!("seed {seed}");
    for moment in 0..moments {
        for partition in 0..2 {
            // A host each: a partition that is read late, behind the watermark, is counted by its host's time (C1).
            let of_host = |line: String| line.replacen('{', &format!("{{\"host\":\"ap{partition}\","), 1);
            kafka.produce("logs", partition, strs(&lines(written, 10_000).into_iter().map(of_host).collect::<Vec<_>>()));
            written += 10_000;
        }
        station.start();
        if moment % 4 > 0 {
            // The group lets the killed one's partitions go only after a while.
            eventually(Duration::from_secs(60), "it does not read", || station.metric("opmas_source_records_total") > 0.0);
        }
        std::thread::sleep(Duration::from_millis(random(&mut seed) % 700));
        station.kill();
    }
    station.start();
    let end = i64::try_from(written / 2).unwrap();
    eventually(Duration::from_secs(120), "it is not all read", || (0..2).all(|partition| kafka.committed("opmas", "logs", partition) == Some(end)));
    station.terminate();

    let mut next = BTreeMap::new();
    for (log, offset) in places(&records(&station)) {
        let next = next.entry(log).or_insert(0);
        assert_eq!(offset, *next, "each message once, in its order");
        *next += 1;
    }
    assert_eq!(next.into_values().sum::<u64>(), written);
    let mut undisturbed = Station::new();
    configure(&undisturbed, &kafka.table(), "logs = ['logs']\ngroup = 'other'");
    undisturbed.start();
    eventually(Duration::from_secs(120), "it is not all read", || (0..2).all(|partition| kafka.committed("other", "logs", partition) == Some(end)));
    undisturbed.terminate();
    assert_eq!(station.findings(), undisturbed.findings(), "o6: none missing, none double");
    assert_eq!(station.findings().len() as u64, written / 100 * 3);
}

#[test]
fn a_broker_that_is_killed_is_waited_for_and_read_on_where_it_was_left() {
    let mut kafka = Kafka::start();
    kafka.make_topic("logs", 1);
    let mut station = station(&kafka.table(), "logs = ['logs']");
    station.start();
    kafka.produce("logs", 0, strs(&lines(0, 1_000)));
    wait_for(&station, 1_000);
    kafka.kill();
    says(&station, "no Kafka broker of 127.0.0.1");
    kafka.again();
    kafka.produce("logs", 0, strs(&lines(1_000, 1_000)));
    let records = wait_for(&station, 2_000);
    says_nothing(&station);
    assert_eq!(places(&records).iter().map(|(_, offset)| *offset).collect::<Vec<_>>(), (0..2_000).collect::<Vec<_>>());
    // One that is away does not hold up the end.
    kafka.kill();
    let took = station.terminate();
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn a_broker_that_stands_still_does_not_hold_up_the_end() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 1);
    let mut station = station(&kafka.table(), "logs = ['logs']");
    station.start();
    kafka.produce("logs", 0, strs(&lines(0, 1_000)));
    wait_for(&station, 1_000);
    // Commits and the group's heartbeats are not answered any more.
    kafka.produce("logs", 0, strs(&lines(1_000, 1_000)));
    kafka.freeze(true);
    std::thread::sleep(Duration::from_secs(3));
    let took = station.terminate();
    kafka.freeze(false);
    assert!(took < Duration::from_secs(15), "{took:?}");
    station.start();
    wait_for(&station, 2_000);
    station.terminate();
}

#[test]
fn o4_a_topic_that_is_deleted_and_made_anew_is_read_anew() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 1);
    let mut station = station(&kafka.table(), "logs = ['logs', 'later']");
    station.start();
    says(&station, "Kafka has no topic `later`");
    kafka.produce("logs", 0, strs(&lines(0, 50)));
    wait_for(&station, 50);
    // While it runs, and with fewer messages than were read.
    kafka.delete_topic("logs");
    says(&station, "`logs`");
    kafka.make_topic("logs", 1);
    kafka.make_topic("later", 1);
    kafka.produce("logs", 0, strs(&lines(0, 20)));
    wait_for(&station, 70);
    says_nothing(&station);
    // Without a look between, and with more.
    kafka.delete_topic("logs");
    kafka.make_topic("logs", 1);
    kafka.produce("logs", 0, strs(&lines(0, 200)));
    wait_for(&station, 270);
    // While it is away.
    station.terminate();
    kafka.delete_topic("logs");
    kafka.make_topic("logs", 1);
    kafka.produce("logs", 0, strs(&lines(0, 300)));
    station.start();
    let records = wait_for(&station, 570);
    station.terminate();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    places(&records).into_iter().for_each(|(log, _)| *counts.entry(log).or_default() += 1);
    let mut counts: Vec<u64> = counts.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [20, 50, 200, 300], "a log for each");
}

#[test]
fn what_retention_took_is_counted_and_reading_goes_on_at_the_oldest() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 1);
    let mut station = station(&kafka.table(), "logs = ['logs']");
    station.start();
    kafka.produce("logs", 0, strs(&lines(0, 100)));
    wait_for(&station, 100);
    station.terminate();
    kafka.produce("logs", 0, strs(&lines(100, 100)));
    kafka.delete_records("logs", 0, 150);
    station.start();
    let records = wait_for(&station, 150);
    assert_eq!(places(&records)[100].1, 150);
    assert_eq!(station.metric("opmas_source_gone_total"), 50.0);
    assert!(station.log().contains("Kafka removed messages before they were read"));
}

#[test]
fn batches_of_every_codec_are_read() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 1);
    let mut station = station(&kafka.table(), "logs = ['logs']");
    station.start();
    for (codec, from) in [("zstd", 0), ("gzip", 300), ("lz4", 600), ("snappy", 900)] {
        // Kafka's own client is not librdkafka.
        let servers = kafka.servers();
        let args = ["--bootstrap-server", &servers, "--topic", "logs", "--compression-codec", codec, "--batch-size", "1000"];
        kafka.tool("org.apache.kafka.tools.ConsoleProducer", &args, &(lines(from, 300).join("\n") + "\n"));
    }
    let records = wait_for(&station, 1_200);
    let raw: Vec<String> = records.iter().map(|record| String::from_utf8(record.raw.clone()).unwrap()).collect();
    assert_eq!(raw, lines(0, 1_200));
}

#[test]
fn a_message_of_16_mb_is_cut_and_nothing_stops() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 1);
    let mut station = station(&kafka.table(), "logs = ['logs']");
    station.start();
    kafka.produce("logs", 0, ["before"]);
    kafka.produce("logs", 0, [&*"x".repeat(16 << 20)]);
    kafka.produce("logs", 0, ["after"]);
    let records = wait_for(&station, 3);
    assert!(records[1].raw.len() < 1_100_000 && records[1].raw.ends_with(b"[cut: the line is too long]"));
    assert_eq!(records[2].raw, b"after");
    assert_eq!(station.metric("opmas_source_truncated_total"), 1.0);
}

#[test]
fn a_wrong_password_is_one_clear_sentence_and_a_corrected_one_is_taken_while_it_runs() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 1);
    kafka.produce("logs", 0, ["one"]);
    let password = tempfile::NamedTempFile::new().unwrap();
    fs::write(password.path(), "battery-staple").unwrap();
    let mut station = station(&kafka.secure_table(password.path()), "logs = ['logs']");
    station.start();
    says(&station, "refuses the user `opmas`");
    fs::write(password.path(), PASSWORD).unwrap();
    wait_for(&station, 1);
    says_nothing(&station);
    assert!(!station.log().contains("battery-staple"));
    station.terminate();

    // Whom nobody vouches for.
    let table = kafka.secure_table(password.path()).lines().filter(|line| !line.starts_with("ca_file")).collect::<Vec<_>>().join("\n") + "\n";
    configure(&station, &table, "logs = ['logs']");
    station.start();
    says(&station, "no TLS with the Kafka broker");
    // Plain words to a port that speaks TLS.
    configure(&station, &kafka.table().replace(&kafka.servers(), secure(&kafka).as_str()), "logs = ['logs']");
    station.terminate();
    station.start();
    says(&station, "look at `protocol`");
    assert!(station.terminate() < Duration::from_secs(15));
}

fn secure(kafka: &Kafka) -> String {
    let table = kafka.secure_table("x".as_ref());
    table.split("servers = ['").nth(1).unwrap().split('\'').next().unwrap().to_owned()
}

#[test]
fn a_server_that_answers_rubbish_is_named_and_harms_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ = stream.write_all(&[0xff; 4096]);
        }
    });
    let mut station = station(&format!("[broker.kafka]\ntype = 'kafka'\nservers = ['127.0.0.1:{port}']\n"), "logs = ['logs']");
    write_lines(&station.dir, 0, 100);
    station.start();
    says(&station, "does not speak Kafka as it is configured");
    station.read_all();
    assert!(station.terminate() < Duration::from_secs(15));
    assert_eq!(station.findings().len(), 3, "other sources go on");
}

#[test]
fn own_messages_and_empty_ones_are_left_out_and_committed() {
    let kafka = Kafka::start();
    kafka.make_topic("logs", 1);
    let mut station = station(&kafka.table(), "logs = ['logs']");
    station.start();
    let node = fs::read_to_string(station.data.join("node")).unwrap();
    let (own, other) = (Some(node.trim()), Some("0123456789abcdef"));
    let (one, nothing): (Option<&[u8]>, Option<&[u8]>) = (Some(b"one"), None);
    kafka.write("logs", 0, [(one, own), (one, other), (nothing, None), (Some(b""), None), (one, None), (one, own)]);
    let records = wait_for(&station, 2);
    assert_eq!(places(&records).iter().map(|(_, offset)| *offset).collect::<Vec<_>>(), [1, 4]);
    eventually(Duration::from_secs(10), "it is not committed", || kafka.committed("opmas", "logs", 0) == Some(6));
    assert_eq!((station.metric("opmas_source_own_total"), station.metric("opmas_source_empty_total")), (2.0, 2.0));
}

#[test]
fn topics_that_match_are_read_when_they_appear_from_their_first_message() {
    let kafka = Kafka::start();
    let mut station = station(&kafka.table(), "logs = ['^site-[0-9]+$']\nfrom = 'end'");
    station.start();
    says(&station, "no topic of Kafka matches");
    kafka.make_topic("site-1", 1);
    kafka.make_topic("site-x", 1);
    kafka.produce("site-x", 0, ["not meant"]);
    says_nothing(&station);
    // What is there at the first reading is behind `from = "end"`; here it is nothing.
    eventually(Duration::from_secs(20), "its beginning is not pinned", || kafka.committed("opmas", "site-1", 0) == Some(0));
    kafka.produce("site-1", 0, ["a"]);
    wait_for(&station, 1);
    kafka.make_topic("site-2", 3);
    kafka.produce("site-2", 2, ["b"]);
    let records = wait_for(&station, 2);
    assert_eq!(records[1].subject.as_deref(), Some("site-2"));
}

fn broker(table: &str) -> BrokerConfig {
    let table: toml::Table = table.parse().unwrap();
    BrokerConfig::deserialize(table["broker"]["kafka"].clone()).unwrap()
}

use serde::Deserialize as _;

fn message(id: &str, topic: &str, payload: &str) -> Message {
    Message { id: id.into(), subject: topic.into(), payload: payload.as_bytes().to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_published_with_their_identity_and_what_is_never_taken_is_named() {
    let mut kafka = tokio::task::spawn_blocking(Kafka::start).await.unwrap();
    tokio::task::block_in_place(|| kafka.make_topic("findings", 1));
    let password = tempfile::NamedTempFile::new().unwrap();
    fs::write(password.path(), PASSWORD).unwrap();
    let mut publisher = Publisher::new(&broker(&kafka.secure_table(password.path())), &NodeId("0123456789abcdef".into()));
    let many: Vec<Message> = (0..1_000).map(|n| message(&format!("id-{n}"), "findings", &format!("{{\"n\":{n}}}"))).collect();
    publisher.publish(&many).await.unwrap();
    let servers = kafka.servers();
    let args = ["--bootstrap-server", &*servers, "--topic", "findings", "--from-beginning", "--max-messages", "1000"];
    let shown = ["--property", "print.key=true", "--property", "print.headers=true"];
    let text = tokio::task::block_in_place(|| kafka.tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &[&args[..], &shown[..]].concat(), ""));
    let expected: Vec<String> = (0..1_000).map(|n| format!("Opmas-Origin:0123456789abcdef,Opmas-Id:id-{n}\tid-{n}\t{{\"n\":{n}}}")).collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), expected, "in their order, with key and headers");

    // Too large for the topic, or for any: by itself, also when the broker refuses a whole batch.
    let mut seed = 1;
    // Not to be compressed to nothing.
    let mut text = |bytes: u32| (0..bytes).map(|_| char::from(b'a' + (random(&mut seed) % 26) as u8)).collect::<String>();
    tokio::task::block_in_place(|| kafka.make_topic_with("small", 1, &[("max.message.bytes", "2000")]));
    for (topic, bytes) in [("small", 50_000), ("findings", 40 << 20)] {
        let many = (0..30).map(|n| message(&format!("id-{n}"), topic, if n == 17 { text(bytes) } else { text(100) }.as_str()));
        let error = publisher.publish(&many.collect::<Vec<_>>()).await.unwrap_err();
        assert_eq!(error.refused, Some(17), "{error}");
    }
    assert_eq!(publisher.publish(&[message("d", "no topic", "{}")]).await.unwrap_err().refused, Some(0));
    let error = publisher.publish(&[message("e", "absent", "{}")]).await.unwrap_err();
    assert!(error.refused.is_none() && error.text.contains("no topic `absent`"), "{error}");

    // Away, and there again.
    kafka.kill();
    let error = publisher.publish(&[message("f", "findings", "{}")]).await.unwrap_err();
    assert!(error.refused.is_none() && error.text.contains("no Kafka broker of"), "{error}");
    let kafka = tokio::task::spawn_blocking(move || {
        kafka.again();
        kafka
    });
    let _kafka = kafka.await.unwrap();
    publisher.publish(&[message("f", "findings", "{}")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn x5_a_topic_is_read_from_one_time_to_another_with_the_ids_that_records_have_live() {
    let kafka = tokio::task::spawn_blocking(Kafka::start).await.unwrap();
    let (before, between, live) = tokio::task::block_in_place(|| {
        kafka.make_topic("logs", 2);
        let mut station = station(&kafka.table(), "logs = ['logs']");
        station.start();
        let now = || Time(i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()).unwrap());
        let before = now();
        kafka.produce("logs", 0, strs(&lines(0, 3_000)));
        // Kafka's times are whole milliseconds, and a producer is quick: what comes afterwards must not be of the same one.
        std::thread::sleep(Duration::from_millis(50));
        let between = now();
        std::thread::sleep(Duration::from_millis(50));
        kafka.produce("logs", 0, strs(&lines(3_000, 10)));
        kafka.produce("logs", 1, strs(&lines(0, 10)));
        let live = wait_for(&station, 3_020);
        (before, between, live)
    });
    let BrokerConfig::Kafka(broker) = broker(&kafka.table()) else { panic!() };
    let read = async |from: Option<Time>, to: Option<Time>| {
        let range = KafkaRange { source: "k".into(), topic: "logs".into(), payload: Payload::Log, trust: Trust::Open, from, to, node: None };
        let (batches, mut received) = tokio::sync::mpsc::channel(1);
        let reading = tokio::spawn(kafka_range(broker.clone(), range, batches));
        let mut records: Vec<Record> = Vec::new();
        while let Some(batch) = received.recv().await {
            records.extend(batch.records);
        }
        assert_eq!(reading.await.unwrap().unwrap(), records.len() as u64);
        let mut of: BTreeMap<Arc<str>, Vec<Record>> = BTreeMap::new();
        records.into_iter().for_each(|record| of.entry(record.stream.clone()).or_default().push(record));
        of.into_values().flatten().collect::<Vec<Record>>()
    };
    let mut live: Vec<Record> = live.into_iter().map(|record| Record { arrival: None, ..record }).collect();
    live.sort_by_key(|record| record.stream.clone());
    assert_eq!(read(None, None).await, live);
    assert_eq!(read(Some(before), Some(between)).await, live[..3_000]);
    assert_eq!(read(Some(between), None).await, live[3_000..]);
    assert_eq!(read(Some(Time(between.0 + 3_600_000_000_000)), None).await, []);
}
