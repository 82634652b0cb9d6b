//! Records a second, beside a bare consumer.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures_util::StreamExt as _;
use opmas::journal::{Content, LedgerReader};
use opmas::model::Decided;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::kafka_server::Kafka;
use crate::lines::{attacks, line};
use crate::nats_server::{Client, NatsServer};
use crate::site::Site;
use crate::{number, quantile};

/// How often is looked at how far opmas is.
const LOOK: Duration = Duration::from_millis(50);
const TOPIC: &str = "ap-logs";
const STREAM: &str = "LOGS";

pub fn kafka() {
    let (count, kafka) = (number("OPMAS_RECORDS", 500_000), Kafka::start());
    kafka.make_topic(TOPIC, 1);
    let lines: Vec<String> = (0..count).map(line).collect();
    kafka.produce(TOPIC, 0, lines.iter().map(String::as_str));
    let table = |round| format!("{}[source.k]\ntype = 'kafka'\nlogs = ['{TOPIC}']\ngroup = 'opmas-{round}'\n", kafka.table());
    compare("Kafka", count, || bare_kafka(&kafka.servers(), count), table);
}

pub fn nats() {
    let (count, mut server) = (number("OPMAS_RECORDS", 500_000), NatsServer::new());
    as_it_comes(&mut server);
    let client = server.client();
    client.make_stream(STREAM, &["logs.>"]);
    client.publish("logs.ap", (0..count).map(line));
    let table = |round| format!("{}[source.bus]\ntype = 'nats'\nfindings = []\nlogs = ['logs.>']\ndurable = 'opmas-{round}'\n", server.broker(""));
    compare("JetStream", count, || bare_nats(&client, count), table);
}

/// The server as it is by default: it does not wait for the disk at every message, as that of the tests does.
pub fn as_it_comes(server: &mut NatsServer) {
    server.stop();
    let file = server.store().with_file_name("nats.conf");
    let text = std::fs::read_to_string(&file).unwrap().replace(", sync_interval: always", "");
    std::fs::write(file, text).unwrap();
    server.start();
}

/// The bare consumer and opmas in turns.
fn compare(what: &str, count: u64, bare: impl Fn() -> f64, tables: impl Fn(u64) -> String) {
    let (mut bares, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..number("OPMAS_ROUNDS", 3) {
        let (bare, our) = (bare(), opmas(count, &tables(round)));
        println!("{what:<10} bare consumer {bare:9.0} records/s   opmas {our:9.0} records/s   ratio {:.2}", our / bare);
        bares.push(bare);
        ours.push(our);
        ratios.push(our / bare);
    }
    let median = |all: &[f64]| quantile(all, 0.5);
    println!(
        "{what:<10} medians over {count} records: bare {:.0}, opmas {:.0}, ratio {:.2} (goal: at least 0.4)",
        median(&bares),
        median(&ours),
        median(&ratios)
    );
}

/// From the first record that it has read to the last one that detection has computed.
fn opmas(count: u64, tables: &str) -> f64 {
    let mut site = Site::new(tables);
    site.spawn();
    let (mut begun, given_up) = (None, Instant::now() + Duration::from_secs(600));
    let rate = loop {
        assert!(Instant::now() < given_up, "it is not done: {}", site.log());
        let metrics = site.metrics();
        let done = metrics.of("opmas_detection_entries_total", "");
        match begun {
            Some((at, before)) if done >= count as f64 => break (done - before) / Instant::elapsed(&at).as_secs_f64(),
            None if metrics.of("opmas_source_records_total", "") > 0.0 => begun = Some((Instant::now(), done)),
            _ => std::thread::sleep(LOOK),
        }
    };
    // All of them were detected, so all are in the spool; what follows from the last ones is decided a moment later.
    site.terminate();
    let found = guessing(&site);
    assert_eq!(found, attacks(count), "each attack is found once");
    rate
}

/// The attacks in the ledger.
fn guessing(site: &Site) -> u64 {
    let entries = LedgerReader::open(&site.data().join("ledger"), 0).unwrap().map(Result::unwrap);
    let is_one =
        |decided: &Decided| matches!(decided, Decided::Finding { finding } if finding.rule.name.as_deref() == Some("openwrt_ssh_login_after_failures"));
    entries.filter(|entry| matches!(&entry.content, Content::Decided(decided) if is_one(decided))).count() as u64
}

fn bare_kafka(servers: &str, count: u64) -> f64 {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", servers).set("group.id", "bare").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let (mut begun, mut read, mut bytes) = (None, 0, 0);
    while read < count {
        let Some(message) = consumer.poll(Duration::from_secs(10)) else { continue };
        begun.get_or_insert_with(Instant::now);
        bytes += message.unwrap().payload_len();
        read += 1;
    }
    assert!(bytes > 0);
    count as f64 / begun.unwrap().elapsed().as_secs_f64()
}

fn bare_nats(client: &Client, count: u64) -> f64 {
    client.wait(async {
        let stream = client.context.get_stream(STREAM).await.unwrap();
        let config = pull::Config { ack_policy: AckPolicy::All, max_ack_pending: 20_000, ..Default::default() };
        let consumer = stream.create_consumer(config).await.unwrap();
        let (begun, mut read, mut bytes) = (Instant::now(), 0, 0);
        while read < count {
            let mut messages = consumer.fetch().max_messages(5_000).messages().await.unwrap();
            let mut last = None;
            while let Some(message) = messages.next().await.transpose().unwrap() {
                bytes += message.payload.len();
                read += 1;
                last = Some(message);
            }
            if let Some(last) = last {
                last.ack().await.unwrap();
            }
        }
        assert!(bytes > 0);
        count as f64 / begun.elapsed().as_secs_f64()
    })
}
