//! A real Apache Kafka: one broker in KRaft mode, with a plain listener and one with TLS and SCRAM.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use crate::certificates::{self, Certificates};
use crate::router::eventually;

/// Of the listener with TLS.
pub const USER: &str = "opmas";
pub const PASSWORD: &str = "correct-horse";

pub struct Kafka {
    dir: tempfile::TempDir,
    classpath: String,
    plain: u16,
    secure: u16,
    pub certificates: Certificates,
    server: Option<Child>,
}

/// Free now; between here and the start nobody else asks for ports.
fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

fn classpath() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/kafka.sh");
    let output = Command::new(script).arg("classpath").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Kafka {
    /// A new cluster, started.
    pub fn start() -> Kafka {
        let dir = tempfile::tempdir().unwrap();
        let certificates = certificates::make(dir.path());
        let [plain, secure, controller] = free_ports();
        let keys = [&certificates.key, &certificates.certificate].map(|path| fs::read_to_string(path).unwrap()).concat();
        fs::write(dir.path().join("keystore.pem"), keys).unwrap();
        let mut kafka = Kafka { classpath: classpath(), dir, plain, secure, certificates, server: None };
        fs::write(kafka.properties(), kafka.settings(controller)).unwrap();
        let scram = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
        let properties = kafka.properties().display().to_string();
        kafka.tool("kafka.tools.StorageTool", &["format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", &properties, "--add-scram", &scram], "");
        kafka.again();
        kafka
    }

    fn properties(&self) -> PathBuf {
        self.dir.path().join("server.properties")
    }

    fn settings(&self, controller: u16) -> String {
        let Kafka { plain, secure, .. } = self;
        let dir = self.dir.path().display();
        format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\ncontroller.listener.names=CONTROLLER\n\
             listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secure}\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL\n\
             sasl.enabled.mechanisms=SCRAM-SHA-512\n\
             listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             ssl.keystore.type=PEM\nssl.keystore.location={dir}/keystore.pem\n\
             log.dirs={dir}/logs\nauto.create.topics.enable=false\nmessage.max.bytes=33554432\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nlog.cleaner.enable=false\nlog.initial.task.delay.ms=500\n"
        )
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", &self.classpath]);
        java
    }

    /// Starts it after [`Kafka::kill`] or [`Kafka::stop`], with what it had, and waits until it answers.
    pub fn again(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("server.log")).unwrap();
        let mut java = self.java();
        java.arg("kafka.Kafka").arg(self.properties()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(java.spawn().unwrap());
        let client: BaseConsumer = self.client().create().unwrap();
        eventually(Duration::from_secs(90), "Kafka does not start", || client.fetch_metadata(None, Duration::from_secs(1)).is_ok());
    }

    /// `kill -9`
    pub fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Lets it stand still, or go on.
    pub fn freeze(&self, still: bool) {
        crate::program::freeze(self.server.as_ref().unwrap(), still);
    }

    /// Of the listener with TLS.
    pub fn secure_port(&self) -> u16 {
        self.secure
    }

    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.plain)
    }

    /// `[broker.kafka]` without encryption.
    pub fn table(&self) -> String {
        format!("[broker.kafka]\ntype = 'kafka'\nservers = ['{}']\n", self.servers())
    }

    /// `[broker.kafka]` with TLS and SCRAM; the password is in this file.
    pub fn secure_table(&self, password: &Path) -> String {
        format!(
            "[broker.kafka]\ntype = 'kafka'\nservers = ['localhost:{}']\nprotocol = 'sasl_ssl'\nuser = '{USER}'\npassword_file = '{}'\nca_file = '{}'\n",
            self.secure,
            password.display(),
            self.certificates.authority.display()
        )
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", self.servers());
        client
    }

    fn admin<T>(&self, act: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        runtime.block_on(async { act(&self.client().create().unwrap(), &options).await })
    }

    pub fn make_topic(&self, name: &str, partitions: i32) {
        self.make_topic_with(name, partitions, &[]);
    }

    /// With settings of its own.
    pub fn make_topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        self.admin(async |admin, options| admin.create_topics([&topic], options).await.unwrap().into_iter().for_each(|made| drop(made.unwrap())));
    }

    pub fn delete_topic(&self, name: &str) {
        self.admin(async |admin, options| admin.delete_topics(&[name], options).await.unwrap().into_iter().for_each(|gone| drop(gone.unwrap())));
        let client: BaseConsumer = self.client().create().unwrap();
        eventually(Duration::from_secs(20), "the topic stays", || {
            let metadata = client.fetch_metadata(None, Duration::from_secs(5)).unwrap();
            !metadata.topics().iter().any(|topic| topic.name() == name)
        });
    }

    /// Removes what is before an offset, as retention does.
    pub fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        self.admin(async |admin, options| drop(admin.delete_records(&list, options).await.unwrap()));
    }

    /// Writes messages to a partition, and waits until they are kept.
    pub fn produce<'a>(&self, topic: &str, partition: i32, payloads: impl IntoIterator<Item = &'a str>) {
        self.write(topic, partition, payloads.into_iter().map(|payload| (Some(payload.as_bytes()), None)));
    }

    /// The same, of payloads (or none) and `Opmas-Origin` headers.
    pub fn write<'a>(&self, topic: &str, partition: i32, messages: impl IntoIterator<Item = (Option<&'a [u8]>, Option<&'a str>)>) {
        let producer: BaseProducer = self.client().set("message.max.bytes", "33554432").set("linger.ms", "5").create().unwrap();
        for (payload, origin) in messages {
            let headers = origin.map(|origin| OwnedHeaders::new().insert(Header { key: opmas::broker::ORIGIN, value: Some(origin) }));
            loop {
                let mut record = BaseRecord::<str, [u8]>::to(topic).partition(partition);
                (record.payload, record.headers) = (payload, headers.clone());
                match producer.send(record) {
                    Ok(()) => break,
                    Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => producer.poll(Duration::from_millis(50)),
                    Err((error, _)) => panic!("{error}"),
                }
            }
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// The payloads of a partition, in its order.
    pub fn read(&self, topic: &str, partition: i32) -> Vec<String> {
        let consumer: BaseConsumer = self.client().set("group.id", "reader").set("enable.partition.eof", "true").create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let mut payloads = Vec::new();
        loop {
            match consumer.poll(Duration::from_secs(30)).expect("Kafka answers") {
                Ok(message) => payloads.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap()),
                Err(KafkaError::PartitionEOF(_)) => return payloads,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The group's offset of a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let client: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let committed = client.committed_offsets(list, Duration::from_secs(10)).ok()?;
        committed.elements().first()?.offset().to_raw().filter(|offset| *offset >= 0)
    }

    /// Forgets a group and its offsets; not while it has members.
    pub fn delete_group(&self, group: &str) -> bool {
        self.admin(async |admin, options| admin.delete_groups(&[group], options).await.is_ok_and(|groups| groups.iter().all(Result::is_ok)))
    }

    /// Runs one of Kafka's own tools to its end, with this on its standard input; what it printed.
    pub fn tool(&self, class: &str, args: &[&str], input: &str) -> String {
        let mut tool = self.java().arg(class).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = tool.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = tool.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{class} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the log of Kafka:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}
