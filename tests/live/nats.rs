//! NATS JetStream: read in order, exactly once, whatever ends on the way.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream;
use async_nats::{ConnectOptions, HeaderMap};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use opmas::broker::{BrokerConfig, ORIGIN};
use opmas::model::{NodeId, Payload, Record, RecordId, Time, Trust};
use opmas::publish::{Message, Publisher};
use opmas::source::{NatsRange, SourceConfig, nats_range};
use serde_json::Value;

use crate::certificates;
use crate::durability::{Disk, not_ready};
use crate::nats_server::{Client, NatsServer};
use crate::router::eventually;
use crate::station::{Station, lines};

const SOURCE: &str = "[source.bus]\ntype = 'nats'\n";

/// Numbers that are random enough for moments.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn station(server: &NatsServer, broker: &str, source: &str) -> Station {
    let station = Station::new();
    station.configure(&format!("{}{SOURCE}{source}", server.broker(broker)));
    station
}

/// Why the source waits, as `/readyz` says it.
fn waits(station: &Station) -> Option<String> {
    let (_, ready) = station.ready()?;
    let reasons = ready["reasons"].as_array()?.clone();
    let about = reasons.iter().find(|reason| reason["part"] == "source bus")?;
    Some(about.to_string())
}

fn says(station: &Station, word: &str) {
    let mut said = None;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        said = waits(station);
        if said.as_ref().is_some_and(|said| said.contains(word)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("/readyz does not say `{word}`, but {said:?}");
}

fn reads(station: &Station) {
    eventually(Duration::from_secs(60), "the source does not read again", || waits(station).is_none());
}

/// Log and sequence of each record, in the order of the spool.
fn places(station: &Station) -> Vec<(String, u64)> {
    station.messages().iter().filter_map(|record| Some((record.id.as_ref()?.place()?.0.to_string(), record.id.as_ref()?.place()?.1))).collect()
}

/// Each message of the stream once, in its order, and each finding that follows from it once.
fn whole(station: &Station, messages: u64) {
    let sequences: Vec<u64> = places(station).iter().map(|(_, sequence)| *sequence).collect();
    assert_eq!(sequences.len() as u64, messages, "each message is in the spool once");
    assert!(sequences.iter().copied().eq(1..=messages), "in the stream's order");
    let findings = station.findings();
    assert_eq!(findings.len() as u64, messages / 100 * 3);
    assert!(findings.values().all(|times| *times == 1));
}

#[test]
fn a_message_becomes_a_finding() {
    let server = NatsServer::new();
    let mut station = station(&server, "", "trusted = true\n");
    station.start();
    let client = server.client();
    eventually(Duration::from_secs(30), "no stream was made", || client.stream("LOGS").is_some() && client.stream("FINDINGS").is_some());
    let made = client.stream("LOGS").unwrap().config;
    assert_eq!((made.subjects, made.storage, made.max_bytes), (vec!["logs.>".to_owned()], stream::StorageType::File, 1 << 30));
    client.publish("logs.ap1", lines(0, 300));
    client.publish("findings.wifi", ["{\"title\":\"x\",\"agent\":\"a\",\"severity\":3}".to_owned()]);
    client.all_acknowledged("LOGS");
    client.all_acknowledged("FINDINGS");
    assert_eq!(waits(&station), None);
    station.terminate();
    assert_eq!(station.findings().len(), 9);
    let created = client.stream("LOGS").unwrap().created.unix_timestamp_nanos();
    let messages = station.messages();
    let log: Vec<&Record> = messages.iter().filter(|record| record.payload == Payload::Log).collect();
    assert_eq!(log.len(), 300);
    assert_eq!(log[6].id, Some(RecordId::Broker { log: format!("nats:LOGS@{created}").into(), offset: 7 }));
    assert_eq!((&*log[6].stream, log[6].subject.as_deref(), log[6].trust), ("bus/nats/LOGS", Some("logs.ap1"), Trust::Verified));
    let finding = messages.iter().find(|record| record.payload == Payload::Finding).expect("the finding");
    assert_eq!((finding.subject.as_deref(), &*finding.stream), (Some("findings.wifi"), "bus/nats/FINDINGS"));
}

#[test]
fn o3_o4_kill_9_at_random_moments_loses_and_doubles_nothing() {
    let server = NatsServer::new();
    let mut station = station(&server, "", "");
    let client = server.client();
    client.make_stream("LOGS", &["logs.>"]);
    let moments = if std::env::var("OPMAS_LONG").as_deref() == Ok("1") { 100 } else { 10 };
    let (mut seed, stop) = (u64::from(std::process::id()), Arc::new(AtomicBool::new(false)));
    eprintln!("seed {seed}");
    let publisher = publish_until(&server, Arc::clone(&stop));
    let mut unacknowledged = 0;
    for moment in 0..moments {
        if moment % 2 == 0 {
            station.spawn()
        } else {
            station.start()
        }
        std::thread::sleep(Duration::from_millis(200 + random(&mut seed) % 900));
        station.kill();
        unacknowledged += usize::from(client.consumer("LOGS").is_some_and(|consumer| consumer.num_ack_pending > 0));
    }
    stop.store(true, Ordering::Relaxed);
    let published = publisher.join().unwrap();
    eprintln!("{published} messages, killed {moments} times, {unacknowledged} times with messages delivered and not acknowledged");
    station.start();
    client.all_acknowledged("LOGS");
    station.terminate();
    whole(&station, published);
}

/// Publishes lines, a hundred at a time and all the time; how many.
fn publish_until(server: &NatsServer, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let client = server.client();
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            client.publish("logs.ap1", lines(count, 100));
            count += 100;
            std::thread::sleep(Duration::from_millis(3));
        }
        count
    })
}

#[test]
fn a_server_that_is_killed_is_waited_for() {
    let mut server = NatsServer::new();
    let mut station = station(&server, "", "");
    station.start();
    let client = server.client();
    eventually(Duration::from_secs(30), "no stream was made", || client.stream("LOGS").is_some());
    client.publish("logs.a", lines(0, 500));
    for round in 0..3 {
        server.kill();
        says(&station, "127.0.0.1");
        assert_eq!(station.ready().unwrap().0, 200, "it goes on with what else there is");
        server.start();
        let client = server.client();
        client.publish("logs.a", lines(500 + round * 100, 100));
        reads(&station);
        client.all_acknowledged("LOGS");
    }
    let took = station.terminate();
    assert!(took < Duration::from_secs(20), "{took:?}");
    whole(&station, 800);
}

#[test]
fn o4_a_consumer_that_is_deleted_is_made_where_it_was() {
    let server = NatsServer::new();
    let mut station = station(&server, "", "");
    station.start();
    let client = server.client();
    eventually(Duration::from_secs(30), "no consumer was made", || client.consumer("LOGS").is_some());
    let stop = Arc::new(AtomicBool::new(false));
    let publisher = publish_until(&server, Arc::clone(&stop));
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(400));
        if client.consumer("LOGS").is_some() {
            client.delete_consumer("LOGS");
        }
    }
    stop.store(true, Ordering::Relaxed);
    let published = publisher.join().unwrap();
    client.all_acknowledged("LOGS");
    station.terminate();
    // And while nobody reads.
    client.delete_consumer("LOGS");
    client.publish("logs.a", lines(published, 100));
    station.start();
    client.all_acknowledged("LOGS");
    reads(&station);
    assert_eq!(station.metric("opmas_spool_duplicates_total"), 0.0, "it knows what it has");
    station.terminate();
    whole(&station, published + 100);
}

#[test]
fn o4_a_stream_that_is_made_anew_counts_from_one() {
    let server = NatsServer::new();
    let mut station = station(&server, "", "from = 'end'\n");
    station.start();
    let client = server.client();
    eventually(Duration::from_secs(30), "no consumer was made", || client.consumer("LOGS").is_some());
    client.publish("logs.a", lines(0, 300));
    client.all_acknowledged("LOGS");
    client.delete_stream("LOGS");
    client.make_stream("LOGS", &["logs.>"]);
    // Before it is noticed.
    client.publish("logs.a", lines(300, 200));
    eventually(Duration::from_secs(60), "the new stream is not read", || client.consumer("LOGS").is_some());
    client.all_acknowledged("LOGS");
    station.terminate();
    let mut logs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    places(&station).into_iter().for_each(|(log, sequence)| logs.entry(log).or_default().push(sequence));
    let counts: Vec<Vec<u64>> = logs.into_values().collect();
    assert_eq!(counts, [(1..=300).collect::<Vec<u64>>(), (1..=200).collect()]);
    assert_eq!(station.findings().len(), 15);
}

#[test]
fn what_a_purge_took_is_counted() {
    let server = NatsServer::new();
    let mut station = station(&server, "", "");
    let client = server.client();
    client.make_stream("LOGS", &["logs.>"]);
    client.publish("logs.a", lines(0, 100));
    station.start();
    client.all_acknowledged("LOGS");
    station.terminate();
    client.publish("logs.a", lines(100, 300));
    // As retention does, message by message: the consumer's place does not move.
    let limits = stream::Config { name: "LOGS".to_owned(), subjects: vec!["logs.>".to_owned()], max_messages: 50, ..Default::default() };
    client.wait(client.context.update_stream(limits)).unwrap();
    station.start();
    client.all_acknowledged("LOGS");
    eventually(Duration::from_secs(10), "what is gone is not counted", || station.metric("opmas_source_gone_total") == 250.0);
    assert!(station.log().contains("gone=250"), "{}", station.log());
    // And while it runs.
    client.publish("logs.a", lines(400, 100));
    client.all_acknowledged("LOGS");
    client.purge("LOGS", 501);
    client.publish("logs.a", lines(500, 20));
    client.all_acknowledged("LOGS");
    station.terminate();
    let sequences: Vec<u64> = places(&station).into_iter().map(|(_, sequence)| sequence).collect();
    assert!(sequences.is_sorted() && sequences.starts_with(&(1..=100).collect::<Vec<u64>>()) && sequences.contains(&351) && sequences.ends_with(&[519, 520]));
}

#[test]
fn a_stream_that_was_put_back_is_read_again() {
    let mut server = NatsServer::new();
    let mut station = station(&server, "", "findings = []\nlogs = ['logs.>']\n");
    let client = server.client();
    client.make_stream("LOGS", &["logs.>"]);
    client.publish("logs.a", lines(0, 100));
    server.stop();
    // As a backup has it.
    let (store, copy) = (server.store(), tempfile::tempdir().unwrap());
    let copied =
        |from: &std::path::Path, to: &std::path::Path| assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
    copied(&store, copy.path());
    server.start();
    let client = server.client();
    station.start();
    client.publish("logs.a", lines(100, 100));
    client.all_acknowledged("LOGS");
    station.terminate();
    server.stop();
    fs::remove_dir_all(&store).unwrap();
    copied(&copy.path().join("store"), &store);
    server.start();
    let client = server.client();
    client.publish("logs.a", lines(200, 50));
    station.start();
    client.all_acknowledged("LOGS");
    station.terminate();
    let (again, first): (Vec<_>, Vec<_>) = places(&station).into_iter().partition(|(log, _)| log.ends_with("#2"));
    assert_eq!((first.len(), again.len()), (200, 150), "nothing is lost");
    assert!(station.log().contains("put back"));
}

#[test]
fn o3_o4_what_is_delivered_again_while_the_disk_is_full_neither_doubles_nor_overtakes() {
    let server = NatsServer::new();
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::new(folder.path().join("disk"), "48m");
    let mut station = Station::at(folder.path(), &disk.0.join("data"));
    station.configure(&format!("{}{SOURCE}findings = []\nlogs = ['logs.>']\n", server.broker("")));
    let client = server.client();
    client.make_stream("LOGS", &["logs.>"]);
    // As ours, but for how long it waits.
    let durable = pull::Config {
        durable_name: Some("opmas".to_owned()),
        ack_policy: AckPolicy::All,
        ack_wait: Duration::from_secs(1),
        max_ack_pending: 20_000,
        ..Default::default()
    };
    client.wait(async { client.context.get_stream("LOGS").await.unwrap().create_consumer(durable).await.unwrap() });
    station.start();
    client.publish("logs.a", lines(0, 1000));
    client.all_acknowledged("LOGS");
    disk.fill();
    client.publish("logs.a", lines(1000, 1000));
    eventually(Duration::from_secs(30), "it does not say that the disk is full", || not_ready(&station, "No space left on device"));
    let acknowledged = client.consumer("LOGS").unwrap().ack_floor.stream_sequence;
    eventually(Duration::from_secs(30), "nothing is delivered again", || client.consumer("LOGS").unwrap().num_redelivered > 0);
    client.publish("logs.a", lines(2000, 20_000));
    std::thread::sleep(Duration::from_secs(4));
    let consumer = client.consumer("LOGS").unwrap();
    assert_eq!(consumer.ack_floor.stream_sequence, acknowledged, "o3: nothing is acknowledged");
    assert!(consumer.num_ack_pending < 12_000, "what is in flight is bounded: {}", consumer.num_ack_pending);
    assert_eq!(consumer.config.ack_wait, Duration::from_secs(1), "it is the same consumer");
    disk.make_room();
    client.all_acknowledged("LOGS");
    // And a crash without room.
    disk.fill();
    client.publish("logs.a", lines(22_000, 3000));
    eventually(Duration::from_secs(30), "it does not say that the disk is full", || not_ready(&station, "No space left on device"));
    std::thread::sleep(Duration::from_millis(1500));
    station.kill();
    disk.make_room();
    station.start();
    client.all_acknowledged("LOGS");
    station.terminate();
    whole(&station, 25_000);
}

#[test]
fn a_server_that_stands_still_is_told() {
    let server = NatsServer::new();
    let mut station = station(&server, "", "");
    station.start();
    let client = server.client();
    eventually(Duration::from_secs(30), "no consumer was made", || client.consumer("LOGS").is_some());
    client.publish("logs.a", lines(0, 100));
    client.all_acknowledged("LOGS");
    server.freeze(true);
    eventually(Duration::from_secs(90), "nobody says that the server stands still", || waits(&station).is_some());
    server.freeze(false);
    let client = server.client();
    client.publish("logs.a", lines(100, 100));
    reads(&station);
    client.all_acknowledged("LOGS");
    server.freeze(true);
    let took = station.terminate();
    assert!(took < Duration::from_secs(15), "{took:?}");
    server.freeze(false);
    whole(&station, 200);
}

/// A JWT as NATS writes it.
fn jwt(issuer: &nkeys::KeyPair, subject: &str, nats: Value) -> String {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let claims = serde_json::json!({"jti": "x", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test", "sub": subject, "nats": nats});
    let text = format!("{}.{}", encode(b"{\"typ\":\"JWT\",\"alg\":\"ed25519-nkey\"}"), encode(claims.to_string().as_bytes()));
    let signature = encode(&issuer.sign(text.as_bytes()).unwrap());
    format!("{text}.{signature}")
}

#[test]
fn a_credentials_file_lets_us_in() {
    let (operator, account, user) = (nkeys::KeyPair::new_operator(), nkeys::KeyPair::new_account(), nkeys::KeyPair::new_user());
    let limits = serde_json::json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1});
    let operator_jwt = jwt(&operator, &operator.public_key(), serde_json::json!({"type": "operator", "version": 2}));
    let account_jwt = jwt(&operator, &account.public_key(), serde_json::json!({"type": "account", "version": 2, "limits": limits}));
    let system = nkeys::KeyPair::new_account();
    let system_jwt = jwt(&operator, &system.public_key(), serde_json::json!({"type": "account", "version": 2}));
    let user_jwt = jwt(&account, &user.public_key(), serde_json::json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}));
    let (us, them) = (account.public_key(), system.public_key());
    let server = NatsServer::with(&format!(
        "operator: {operator_jwt}\nresolver: MEMORY\nsystem_account: {them}\nresolver_preload: {{ {us}: {account_jwt}, {them}: {system_jwt} }}\n"
    ));
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    let mut station = station(&server, "creds_file = 'opmas.creds'\n", "");
    station.start();
    says(&station, "opmas.creds: it cannot be read");
    fs::write(station.dir.join("opmas.creds"), "rubbish").unwrap();
    says(&station, "no user JWT and seed");
    fs::write(station.dir.join("opmas.creds"), creds.replace(&user.seed().unwrap(), &nkeys::KeyPair::new_user().seed().unwrap())).unwrap();
    says(&station, "renew `creds_file`");
    fs::write(station.dir.join("opmas.creds"), &creds).unwrap();
    reads(&station);
    let client = server.client_with(ConnectOptions::with_credentials(&creds).unwrap());
    eventually(Duration::from_secs(30), "no stream was made", || client.stream("LOGS").is_some());
    client.publish("logs.a", lines(0, 100));
    client.all_acknowledged("LOGS");
    station.terminate();
    whole(&station, 100);
}

#[test]
fn a_user_without_permissions_is_told_what_is_missing() {
    let users = |publish: &str| {
        format!(
            "authorization {{ users: [ {{ user: a, password: bcd-efgh, permissions: {{ publish: [{publish}], subscribe: [\"_INBOX.>\"] }} }}, {{ user: b, password: all }} ] }}"
        )
    };
    let mut server = NatsServer::with(&users("\"nothing\""));
    let mut station = station(&server, "user = 'a'\npassword_file = 'password'\n", "");
    fs::write(station.dir.join("password"), "bcd-efgh").unwrap();
    station.start();
    says(&station, "Permissions Violation");
    // What docs/guide/connecting-a-broker.md says is enough.
    server.stop();
    let reading = ["STREAM.NAMES", "STREAM.INFO.*", "CONSUMER.>", "STREAM.CREATE.*"].map(|name| format!("\"$JS.API.{name}\", ")).concat();
    server.configure(&users(&(reading + "\"$JS.ACK.>\"")));
    server.start();
    reads(&station);
    let client = server.client_with(ConnectOptions::new().user_and_password("b".to_owned(), "all".to_owned()));
    eventually(Duration::from_secs(30), "no stream was made", || client.stream("LOGS").is_some());
    client.publish("logs.a", lines(0, 100));
    client.all_acknowledged("LOGS");
    station.terminate();
    whole(&station, 100);
}

#[test]
fn the_server_refuses_us_in_one_sentence() {
    let password = "a-long-password-of-nobody";
    let mut server = NatsServer::with("authorization { user: opmas, password: \"right-one-of-opmas\" }");
    let mut station = station(&server, "user = 'opmas'\npassword_file = 'password'\n", "");
    fs::write(station.dir.join("password"), password).unwrap();
    station.start();
    says(&station, "wrong user or password");
    assert!(!station.log().contains(password) && !waits(&station).unwrap().contains(password), "no secret is told");
    // The right one is read without a restart.
    fs::write(station.dir.join("password"), "right-one-of-opmas\n").unwrap();
    reads(&station);
    server.kill();
    server.configure("authorization { token: other }");
    server.start();
    says(&station, "wrong user or password");
    server.kill();
    says(&station, "nothing listens at");
    station.terminate();
    assert!(!station.log().contains("right-one-of-opmas"));
}

#[test]
fn without_jetstream_and_without_a_stream_it_says_so() {
    let server = NatsServer::new();
    let mut station = station(&server, "", "create = false\nlogs = ['logs.>']\nfindings = []\n");
    station.start();
    says(&station, "no stream holds `logs.>`");
    let client = server.client();
    client.make_stream("ARCHIVE", &["logs.a", "other"]);
    client.publish("logs.a", lines(0, 100));
    client.publish("other", ["not ours".to_owned()]);
    reads(&station);
    client.publish("logs.a", lines(100, 100));
    eventually(Duration::from_secs(30), "it is not read", || station.metric("opmas_source_records_total") >= 200.0);
    station.terminate();
    assert_eq!(places(&station).len(), 200);
    let port = server.port;
    let mut bare = NatsServer::new();
    bare.stop();
    drop(server);
    bare.port = port;
    bare.bare();
    bare.start();
    station.start();
    says(&station, "JetStream is off");
    station.terminate();
}

#[test]
fn what_is_no_nats_server_is_told() {
    for (answer, word) in [
        (&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], "is no NATS server"),
        (b"-ERR\r\n", "is no NATS server"),
        (b"\xff\xfe\x00\x01garbage\r\n", "is no NATS server"),
        (b"INFO {\"broken\r\n", "is no NATS server"),
        (b"+OK\r\n", "is no NATS server"),
        (b"", "hangs up"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let _ = stream.write_all(answer);
                if !answer.is_empty() {
                    std::thread::sleep(Duration::from_millis(300));
                }
            }
        });
        let mut station = Station::new();
        station.configure(&format!("[broker.nats]\ntype = 'nats'\nservers = ['nats://127.0.0.1:{port}']\n{SOURCE}"));
        station.start();
        says(&station, word);
        assert!(station.terminate() < Duration::from_secs(10));
    }
}

#[test]
fn a_message_of_16_mb_neither_kills_nor_blocks() {
    let server = NatsServer::with("max_payload: 64MB");
    let mut station = station(&server, "", "");
    station.start();
    let client = server.client();
    eventually(Duration::from_secs(30), "no stream was made", || client.stream("LOGS").is_some());
    client.publish("logs.a", lines(0, 50));
    for _ in 0..3 {
        client.publish("logs.a", ["x".repeat(16 << 20)]);
    }
    client.publish("logs.a", ["y".repeat(5 << 20), "z".repeat(1 << 20)]);
    client.publish("logs.a", lines(50, 50));
    client.all_acknowledged("LOGS");
    assert_eq!(station.metric("opmas_source_truncated_total"), 4.0);
    station.terminate();
    let messages = station.messages();
    assert_eq!(messages.len(), 105);
    assert!(messages.iter().all(|record| record.raw.len() <= (1 << 20) + 64));
    assert_eq!(messages.iter().filter(|record| record.raw.ends_with(b"[cut: the line is too long]")).count(), 4);
}

#[test]
fn tls_with_an_nkey_and_with_a_certificate() {
    let station = Station::new();
    let files = certificates::make(&station.dir);
    let pair = nkeys::KeyPair::new_user();
    let tls = |more: &str| format!("tls {{ cert_file: \"{}\", key_file: \"{}\"{more} }}", files.certificate.display(), files.key.display());
    let nkey = format!("authorization {{ users: [ {{ nkey: {} }} ] }}\n{}", pair.public_key(), tls(""));
    let mut server = NatsServer::with(&nkey);
    let client = |seed: Option<String>| {
        let mut options = ConnectOptions::new().add_root_certificates(files.authority.clone());
        options = match seed {
            Some(seed) => options.nkey(seed),
            None => options.add_client_certificate(files.certificate.clone(), files.key.clone()),
        };
        options
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    fs::write(station.dir.join("seed"), pair.seed().unwrap() + "\n").unwrap();
    let mut station = station;
    // The system's authorities do not know it.
    station.configure(&format!("{}{SOURCE}", server.broker("nkey_file = 'seed'\n")));
    station.start();
    says(&station, "`ca_file`");
    station.terminate();
    let broker = "nkey_file = 'seed'\nca_file = 'ca.pem'\n";
    station.configure(&format!("{}{SOURCE}", server.broker(broker)));
    station.start();
    reads(&station);
    let publisher = server.client_with(client(Some(pair.seed().unwrap())));
    eventually(Duration::from_secs(30), "no stream was made", || publisher.stream("LOGS").is_some());
    publisher.publish("logs.a", lines(0, 100));
    publisher.all_acknowledged("LOGS");
    // An nkey that the server does not know.
    fs::write(station.dir.join("seed"), nkeys::KeyPair::new_user().seed().unwrap()).unwrap();
    server.kill();
    server.start();
    says(&station, "does not know the nkey");
    station.terminate();
    assert!(station.messages().iter().all(|record| record.trust == Trust::Verified), "the server authenticates");
    // A certificate of ours is asked for.
    server.stop();
    server.configure(&tls(&format!(", ca_file: \"{}\", verify: true", files.authority.display())));
    server.start();
    station.configure(&format!("{}{SOURCE}", server.broker("ca_file = 'ca.pem'\n")));
    station.start();
    says(&station, "cert_file");
    station.terminate();
    // A server that does not encrypt is told nothing.
    server.stop();
    server.configure("");
    server.start();
    station.start();
    says(&station, "does not encrypt");
    station.terminate();
}

#[test]
fn what_we_published_ourselves_is_dropped_and_acknowledged() {
    let server = NatsServer::new();
    let mut station = station(&server, "", "");
    station.start();
    let client = server.client();
    eventually(Duration::from_secs(30), "no stream was made", || client.stream("FINDINGS").is_some());
    let node = fs::read_to_string(station.data.join("node")).unwrap().trim().to_owned();
    let publish = |node: &str, n: u64| {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, node);
        client.publish_with("findings.correlated", headers, format!("{{\"title\":\"{n}\",\"agent\":\"x\",\"severity\":1}}").into_bytes());
    };
    for n in 0..30 {
        publish(if n % 3 == 0 { "0123456789abcdef" } else { &node }, n);
    }
    client.all_acknowledged("FINDINGS");
    assert_eq!(station.metric("opmas_source_own_total"), 20.0);
    station.terminate();
    let sequences: Vec<u64> = places(&station).into_iter().map(|(_, sequence)| sequence).collect();
    assert_eq!(sequences, (1..=30).step_by(3).collect::<Vec<u64>>());
}

#[test]
fn o3_streams_of_work_and_of_interest_lose_nothing() {
    for retention in [stream::RetentionPolicy::WorkQueue, stream::RetentionPolicy::Interest] {
        let server = NatsServer::new();
        let mut station = station(&server, "", "findings = []\nlogs = ['logs.>']\n");
        let client = server.client();
        client.make(stream::Config { name: "LOGS".to_owned(), subjects: vec!["logs.>".to_owned()], retention, ..Default::default() });
        station.start();
        eventually(Duration::from_secs(30), "no consumer was made", || client.consumer("LOGS").is_some());
        let (stop, mut seed) = (Arc::new(AtomicBool::new(false)), 7);
        let publisher = publish_until(&server, Arc::clone(&stop));
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(100 + random(&mut seed) % 300));
            station.kill();
            station.start();
        }
        stop.store(true, Ordering::Relaxed);
        let published = publisher.join().unwrap();
        eventually(Duration::from_secs(60), "it is not read", || client.stream("LOGS").unwrap().state.messages == 0);
        station.terminate();
        whole(&station, published);
    }
}

#[test]
fn one_stream_is_read_by_one_source() {
    let server = NatsServer::new();
    let client = server.client();
    client.make_stream("ALL", &["logs.>", "findings.>"]);
    let mut station = Station::new();
    let two = "[source.bus]\ntype = 'nats'\nlogs = ['logs.>']\n[source.other]\ntype = 'nats'\nfindings = ['findings.>']\ndurable = 'other'\n";
    station.configure(&format!("{}{two}", server.broker("")));
    station.start();
    eventually(Duration::from_secs(30), "nobody says that one stream has two readers", || {
        station.ready().is_some_and(|(_, ready)| ready.to_string().contains("put its subjects into one of them"))
    });
    station.terminate();
}

fn broker(server: &NatsServer) -> BrokerConfig {
    serde_json::from_value(serde_json::json!({"type": "nats", "servers": [format!("nats://127.0.0.1:{}", server.port)]})).unwrap()
}

fn outgoing(id: &str, subject: &str, payload: Vec<u8>) -> Message {
    Message { id: id.into(), subject: subject.into(), payload }
}

#[test]
fn o5_what_is_published_is_in_a_stream_once() {
    let mut server = NatsServer::new();
    let client = server.client();
    let mut publisher = Publisher::new(&broker(&server), &NodeId("0123456789abcdef".into()));
    let messages: Vec<Message> = (0..1000).map(|n| outgoing(&format!("id-{n}"), "findings.correlated", format!("{{\"n\":{n}}}").into_bytes())).collect();
    client.wait(publisher.publish(&messages)).unwrap();
    let made = client.stream("FINDINGS").unwrap();
    assert_eq!((made.state.messages, made.config.subjects), (1000, vec!["findings.>".to_owned()]));
    // All again, as after an error; and after the server was away.
    client.wait(publisher.publish(&messages)).unwrap();
    server.kill();
    let error = client.wait(publisher.publish(&messages)).unwrap_err();
    assert_eq!(error.refused, None, "{error}");
    server.start();
    client.wait(publisher.publish(&messages)).unwrap();
    let client = server.client();
    assert_eq!(client.stream("FINDINGS").unwrap().state.messages, 1000);
    let raw = client.wait(async { client.context.get_stream("FINDINGS").await.unwrap().get_raw_message(7).await.unwrap() });
    assert_eq!((raw.headers.get(ORIGIN).unwrap().as_str(), raw.headers.get("Nats-Msg-Id").unwrap().as_str()), ("0123456789abcdef", "id-6"));
    assert_eq!(&*raw.payload, b"{\"n\":6}");
    // A stream that goes away is made anew.
    client.delete_stream("FINDINGS");
    client.wait(publisher.publish(&messages[..10])).unwrap();
    assert_eq!(client.stream("FINDINGS").unwrap().state.messages, 10);
}

#[test]
fn what_a_server_never_takes_is_told_apart() {
    let server = NatsServer::new();
    let client = server.client();
    let mut publisher = Publisher::new(&broker(&server), &NodeId("0123456789abcdef".into()));
    let mut messages: Vec<Message> = (0..5).map(|n| outgoing(&format!("id-{n}"), "findings.a", b"{}".to_vec())).collect();
    messages[3].payload = vec![b'x'; 1 << 20];
    let error = client.wait(publisher.publish(&messages)).unwrap_err();
    assert_eq!(error.refused, Some(3), "{error}");
    messages[3].payload = vec![b'x'; (1 << 20) - 200];
    client.wait(publisher.publish(&messages)).unwrap();
    for subject in ["findings.*", "a b", "", "findings..a", "x\r\nPUB y 0"] {
        let error = client.wait(publisher.publish(&[outgoing("id", subject, Vec::new())])).unwrap_err();
        assert_eq!(error.refused, Some(0), "{subject}: {error}");
    }
    client.make(stream::Config { name: "SMALL".to_owned(), subjects: vec!["small".to_owned()], max_message_size: 100, ..Default::default() });
    let small = [outgoing("a", "small", b"{}".to_vec()), outgoing("b", "small", vec![b'x'; 1000])];
    let error = client.wait(publisher.publish(&small)).unwrap_err();
    assert_eq!(error.refused, Some(1), "{error}");
    let (mut refused, line) = (Publisher::new(&broker_of(1), &NodeId("x".into())), outgoing("a", "b", Vec::new()));
    let error = client.wait(refused.publish(&[line])).unwrap_err();
    assert!(error.text.contains("nothing listens") && error.refused.is_none(), "{error}");
}

fn broker_of(port: u16) -> BrokerConfig {
    serde_json::from_value(serde_json::json!({"type": "nats", "servers": [format!("127.0.0.1:{port}")]})).unwrap()
}

/// What a range brings.
fn ranged(client: &Client, server: &NatsServer, stream: Option<&str>, from: Time, to: Time) -> Vec<Record> {
    let SourceConfig::Nats(config) = toml::from_str("type = 'nats'").unwrap() else { unreachable!() };
    let range = NatsRange { source: "bus".into(), config, stream: stream.map(str::to_owned), from, to };
    let BrokerConfig::Nats(broker) = broker(server) else { unreachable!() };
    client.wait(async {
        let (batches, mut read) = tokio::sync::mpsc::channel(2);
        let reading = tokio::spawn(async move { nats_range(&broker, &range, batches).await });
        let mut records: Vec<Record> = Vec::new();
        while let Some(batch) = read.recv().await {
            assert!(!batch.is_empty());
            records.extend(batch);
        }
        assert_eq!(reading.await.unwrap().unwrap(), records.len() as u64);
        records
    })
}

#[test]
fn x5_a_stretch_of_time_is_read_for_replay() {
    let server = NatsServer::new();
    let client = server.client();
    let created = client.make_stream("LOGS", &["logs.>"]).created.unix_timestamp_nanos();
    let now = || Time(i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()).unwrap());
    let pause = || std::thread::sleep(Duration::from_millis(20));
    client.publish("logs.a", lines(0, 3000));
    pause();
    let from = now();
    client.publish("logs.a", lines(3000, 5000));
    pause();
    let to = now();
    client.publish("logs.a", lines(8000, 1000));
    let records = ranged(&client, &server, None, from, to);
    let sequences: Vec<u64> = records.iter().filter_map(|record| Some(record.id.as_ref()?.place()?.1)).collect();
    assert!(sequences.iter().copied().eq(3001..=8000), "{} {:?}", sequences.len(), sequences.first());
    let one = &records[0];
    assert_eq!(one.id, Some(RecordId::Broker { log: format!("nats:LOGS@{created}").into(), offset: 3001 }));
    assert_eq!((one.arrival, &*one.stream, one.subject.as_deref()), (None, "bus/nats/LOGS", Some("logs.a")));
    assert_eq!(ranged(&client, &server, Some("LOGS"), Time(0), Time(i64::MAX)).len(), 9000, "to the end");
    assert_eq!(ranged(&client, &server, Some("LOGS"), now(), Time(i64::MAX)).len(), 0);
    client.make_stream("OTHER", &["other"]);
    client.publish("other", ["x".to_owned()]);
    assert_eq!(ranged(&client, &server, Some("OTHER"), Time(0), Time(i64::MAX)).len(), 1);
    assert!(client.stream("LOGS").unwrap().state.consumer_count == 0, "it leaves nothing behind");
    let BrokerConfig::Nats(broker) = broker_of(1) else { unreachable!() };
    let SourceConfig::Nats(config) = toml::from_str("type = 'nats'").unwrap() else { unreachable!() };
    let range = NatsRange { source: "bus".into(), config, stream: None, from, to };
    let error = client.wait(nats_range(&broker, &range, tokio::sync::mpsc::channel(1).0)).unwrap_err();
    assert!(error.to_string().contains("nothing listens"), "{error}");
    let _: Value = serde_json::from_slice(&one.raw).unwrap();
}
