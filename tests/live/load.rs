//! A steady load from JetStream, Kafka and a file at once, and what must have come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures_util::StreamExt as _;
use opmas::model::{Decided, RecordId};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::Value;

use crate::kafka_server::Kafka;
use crate::nats_server::{Client, NatsServer};
use crate::publish::topic;
use crate::router::{OPMAS, eventually};
use crate::station::Station;

/// Long enough for a machine that does other things too.
pub const SOON: Duration = Duration::from_secs(180);
/// How often each source gets so many records as were asked for.
const EVERY: Duration = Duration::from_millis(100);
/// So many records of a source hold whole groups, whose records come in turn: at 300 a second a group lasts six seconds, longer than
/// most processes live.
const BLOCK: u64 = 1_800;
const GROUPS: u64 = 20;
/// Of the topic `logs`; a group is in one of them.
const PARTITIONS: i32 = 2;

/// The `n`th record of a source; its time, in nanoseconds, is no other record's.
fn line(source: u64, n: u64, nanos: u64) -> String {
    let (block, group) = (n / BLOCK, n % GROUPS);
    let kind = match n % BLOCK / GROUPS {
        10 | 22 | 34 | 46 | 58 | 70 => "failure",
        82 => "login",
        _ => "other",
    };
    format!("{{\"timestamp\":{nanos},\"product\":\"test\",\"kind\":\"{kind}\",\"src_ip\":\"10.{source}.{block}.{group}\",\"n\":{n}}}")
}

/// Hands `count` records at a time to `take`, until it is told to stop; how many there were.
fn pace(source: u64, count: u64, stop: &AtomicBool, mut take: impl FnMut(&[(u64, String)])) -> u64 {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
        let lines: Vec<(u64, String)> = (0..count).map(|i| (n + i, line(source, n + i, (now + i) * 1_000 + source))).collect();
        take(&lines);
        n += count;
        std::thread::sleep(EVERY);
    }
    n
}

/// Publishes again what is not acknowledged; the server knows each by its id.
fn publish(client: &Client, lines: &[(u64, String)]) {
    let all = async || {
        let mut waiting = Vec::new();
        for (n, line) in lines {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", n.to_string().as_str());
            waiting.push(client.context.publish_with_headers("logs.load", headers, line.clone().into()).await.ok()?);
        }
        for acknowledged in waiting {
            acknowledged.await.ok()?;
        }
        Some(())
    };
    let begun = Instant::now();
    while client.wait(all()).is_none() {
        assert!(begun.elapsed() < SOON, "NATS takes nothing");
        std::thread::sleep(EVERY);
    }
}

/// Its producer is idempotent and waits for a broker that is away.
fn produce(producer: &BaseProducer, lines: &[(u64, String)]) {
    for (n, line) in lines {
        let partition = i32::try_from(n % GROUPS).unwrap() % PARTITIONS;
        producer.send(BaseRecord::<(), str>::to("logs").partition(partition).payload(line)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(SOON).unwrap();
}

/// The writers; they go on until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<u64>>,
}

impl Load {
    /// `count` records a tenth of a second to each of the three.
    pub fn start(storm: &Storm, count: u64) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, file, of) = (storm.nats.client(), storm.station.dir.join("lines.log"), [(); 3].map(|()| Arc::clone(&stop)));
        let [one, two, three] = of;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", storm.kafka.servers()).set("enable.idempotence", "true").set("linger.ms", "5");
        let producer: BaseProducer = config.create().unwrap();
        let append = move |lines: &[(u64, String)]| {
            let text: String = lines.iter().map(|(_, line)| format!("{line}\n")).collect();
            fs::OpenOptions::new().create(true).append(true).open(&file).unwrap().write_all(text.as_bytes()).unwrap();
        };
        let writers = vec![
            std::thread::spawn(move || pace(0, count, &one, |lines| publish(&client, lines))),
            std::thread::spawn(move || pace(1, count, &two, |lines| produce(&producer, lines))),
            std::thread::spawn(move || pace(2, count, &three, append)),
        ];
        Load { stop, writers }
    }

    /// Ends it, when all of it is with the brokers; how many records there were.
    pub fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        std::mem::take(&mut self.writers).into_iter().map(|writer| writer.join().unwrap()).sum()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Two brokers, and an opmas that reads both and a file, and publishes to both.
pub struct Storm {
    /// Ended before its brokers.
    pub station: Station,
    pub nats: NatsServer,
    pub kafka: Kafka,
}

/// A rule and an event time, of which all records have their own.
pub type Found = (String, String);

impl Storm {
    pub fn new(station: Station) -> Storm {
        let (nats, kafka) = (NatsServer::new(), Kafka::start());
        kafka.make_topic("logs", PARTITIONS);
        ["findings.correlated", "findings.audit"].iter().for_each(|name| kafka.make_topic(name, 1));
        nats.client().make_stream("LOGS", &["logs.>"]);
        let bus = "[source.bus]\ntype = 'nats'\n[publish.bus]\nbroker = 'nats'\n";
        let topics = "[source.topics]\ntype = 'kafka'\nlogs = ['logs']\nfindings = ['^findings\\.']\n[publish.topics]\nbroker = 'kafka'\n";
        station.configure(&format!("{}{}{bus}{topics}", nats.broker(""), kafka.table()));
        Storm { station, nats, kafka }
    }

    /// Records that this process has taken from a source.
    pub fn taken(&self, source: &str) -> f64 {
        let (_, text) = self.station.http("/metrics").unwrap_or_default();
        let label = format!("source=\"{source}\"");
        let lines = text.lines().filter(|line| line.starts_with("opmas_source_records_total{") && line.contains(&label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// How far each source is acknowledged: the stream's floor, the partitions' offsets, the file's position.
    pub fn acknowledged(&self) -> (u64, Vec<Option<i64>>, Option<u64>) {
        let floor = self.nats.client().consumer("LOGS").map_or(0, |consumer| consumer.ack_floor.stream_sequence);
        let committed = (0..PARTITIONS).map(|partition| self.kafka.committed("opmas", "logs", partition)).collect();
        (floor, committed, self.station.position())
    }

    /// Waits until all is read, acknowledged and published.
    pub fn complete(&self) {
        let client = self.nats.client();
        client.all_acknowledged("LOGS");
        for partition in 0..PARTITIONS {
            let end = i64::try_from(self.kafka.read("logs", partition).len()).unwrap();
            eventually(SOON, "a partition is not read to its end", || self.kafka.committed("opmas", "logs", partition).unwrap_or(0) >= end);
        }
        self.station.read_all();
        let keys = || topic(&self.kafka, "findings.correlated").len();
        eventually(SOON, "not every finding is published", || {
            let found = self.station.findings().len();
            published_ids(&client).len() == found && keys() == found
        });
    }

    /// What one undisturbed process finds in each of what the brokers and the file hold, in its order.
    pub fn expected(&self) -> BTreeSet<Found> {
        let mut streams = vec![contents(&self.nats.client(), "LOGS")];
        streams.extend((0..PARTITIONS).map(|partition| self.kafka.read("logs", partition)));
        streams.push(fs::read_to_string(self.station.dir.join("lines.log")).unwrap().lines().map(str::to_owned).collect());
        let found: Vec<Found> = streams.iter().flat_map(|lines| evaluated(&self.station.dir.join("rules"), lines)).collect();
        let set: BTreeSet<Found> = found.iter().cloned().collect();
        assert_eq!(set.len(), found.len(), "a rule and a time tell findings apart");
        set
    }

    /// What the ledger holds, which must be there once.
    pub fn found(&self) -> BTreeSet<Found> {
        let (mut all, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for one in self.station.decided() {
            if let Decided::Finding { finding } = one {
                assert!(ids.insert(finding.id.0.to_string()), "{} is twice in the ledger", finding.id.0);
                assert!(all.insert((finding.rule.id.to_string(), finding.time.to_string())), "found twice, under two ids: {finding:?}");
            }
        }
        all
    }

    /// That each record is in the spool once, except for `lost`.
    pub fn each_once(&self, records: u64, lost: u64) {
        let of_brokers = self.station.messages();
        let ids: BTreeSet<&RecordId> = of_brokers.iter().filter_map(|record| record.id.as_ref()).collect();
        let lines = self.station.spooled();
        assert!(ids.len() == of_brokers.len() && lines.values().all(|times| *times == 1), "o4: each record is in the spool once");
        assert_eq!((ids.len() + lines.len()) as u64, records - lost, "o1: every record is in the spool");
    }

    /// When opmas has ended: what must hold after any storm of so many records.
    pub fn whole(&self, records: u64) {
        self.each_once(records, 0);
        let (expected, found) = (self.expected(), self.found());
        assert!(!expected.is_empty());
        assert_eq!(found.difference(&expected).collect::<Vec<_>>(), Vec::<&Found>::new(), "o6: found, and not expected");
        assert_eq!(expected.difference(&found).collect::<Vec<_>>(), Vec::<&Found>::new(), "o6: missing");
        let ids = self.station.findings();
        assert_eq!(published_ids(&self.nats.client()), ids, "the stream holds each finding of the ledger once");
        assert!(topic(&self.kafka, "findings.correlated").keys().eq(ids.keys()), "the topic holds each finding of the ledger, and no other");
        for verify in [["store", "verify"], ["audit", "verify"]] {
            let (code, said) = self.station.run(&verify);
            assert_eq!(code, Some(0), "{said}");
        }
        assert_eq!(self.replayed(), ids.keys().cloned().collect(), "x5: the spool gives the ids that were found live");
        eprintln!("{records} records, {} findings", ids.len());
    }

    fn replayed(&self) -> BTreeSet<String> {
        let (code, said) = self.station.run(&["replay", "--spool"]);
        assert_eq!(code, Some(0), "{said}");
        let told = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        told.filter(|one| one["type"] == "finding").map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    }
}

/// What `opmas eval` finds in lines.
fn evaluated(rules: &Path, lines: &[String]) -> Vec<Found> {
    let mut input = tempfile::NamedTempFile::new().unwrap();
    lines.iter().for_each(|line| writeln!(input, "{line}").unwrap());
    let mut eval = Command::new(OPMAS);
    eval.args(["eval", "--strict", "--rules"]).arg(rules).current_dir(rules).stdin(Stdio::from(input.reopen().unwrap()));
    let output = eval.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| serde_json::from_slice::<Value>(line).unwrap());
    found.map(|one| (text(&one["rule"]), text(&one["time"]))).collect()
}

/// The payloads of a stream, in its order.
fn contents(client: &Client, stream: &str) -> Vec<String> {
    messages(client, stream).into_iter().map(|message| String::from_utf8(message.payload.to_vec()).unwrap()).collect()
}

/// The ids under which findings stand in the stream.
fn published_ids(client: &Client) -> BTreeMap<String, u32> {
    let mut ids = BTreeMap::new();
    for message in messages(client, "FINDINGS").into_iter().filter(|message| message.subject.as_str() == "findings.correlated") {
        *ids.entry(message.headers.as_ref().unwrap().get("Nats-Msg-Id").unwrap().to_string()).or_default() += 1;
    }
    ids
}

fn messages(client: &Client, stream: &str) -> Vec<async_nats::jetstream::Message> {
    let Some(info) = client.stream(stream) else { return Vec::new() };
    let count = usize::try_from(info.state.messages).unwrap();
    client.wait(async {
        let stream = client.context.get_stream(stream).await.unwrap();
        let consumer = stream.create_consumer(pull::Config { ack_policy: AckPolicy::None, ..Default::default() }).await.unwrap();
        let mut all = Vec::new();
        while all.len() < count {
            let mut batch = consumer.fetch().max_messages(500.min(count - all.len())).messages().await.unwrap();
            while let Some(message) = batch.next().await {
                all.push(message.unwrap());
            }
        }
        all
    })
}
