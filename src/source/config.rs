//! `[source.NAME]` of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a syslog source listens when nothing else is said: this machine only, above the privileged ports.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1514);

/// One configured source.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "Written", tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// `type = "syslog"`
    Syslog(SyslogConfig),
    /// `type = "file"`
    File(FileConfig),
    /// `type = "kafka"`
    Kafka(KafkaConfig),
    /// `type = "nats"`
    Nats(NatsConfig),
    /// `type = "http"`
    Http(HttpConfig),
    /// `type = "stdin"`: lines from standard input; believed as a local file is.
    Stdin,
}

/// Listens for syslog over UDP and TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyslogConfig {
    /// Address and port (127.0.0.1:1514).
    pub listen: SocketAddr,
    /// Whether it listens on UDP (true; false with TLS).
    pub udp: bool,
    /// Whether it listens on TCP (true): newline, octet-counted (RFC 6587) and NUL framing.
    pub tcp: bool,
    /// Whether everything that comes here is believed (false). Without it only TCP from an inventory address is, and what comes from a
    /// client with a certificate.
    pub trusted: bool,
    /// TCP speaks TLS (RFC 5425).
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
}

/// PEM files of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerTls {
    /// Our certificate chain, our own first.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// Whose certificates clients must have; without it clients need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl Default for SyslogConfig {
    fn default() -> SyslogConfig {
        SyslogConfig { listen: DEFAULT_LISTEN, udp: true, tcp: true, trusted: false, tls: None }
    }
}

/// Follows a file that is written to, truncated, renamed away and made anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileConfig {
    /// The file; it need not exist yet.
    pub path: PathBuf,
    /// Where to begin when no position is kept (start).
    pub from: From,
    /// Whether its lines are believed (true).
    pub trusted: bool,
}

/// Reads topics as a member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KafkaConfig {
    /// `[broker.NAME]`; without it the only one of type `kafka`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// Topics of log lines and JSON events; `^` begins a regular expression.
    pub logs: Vec<String>,
    /// Topics of findings (M2).
    pub findings: Vec<String>,
    /// The consumer group (`opmas`).
    pub group: String,
    /// Which member of the group this is (`group.instance.id`): one that comes back within its session has its partitions at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Whether the group's members share its partitions (false): otherwise one reads them all, and the others wait to take its place.
    pub share: bool,
    /// Where a partition begins for which neither the group nor the spool has a position (start).
    pub from: From,
    /// Whether its messages are believed; without it, whether the broker authenticates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted: Option<bool>,
}

/// Reads JetStream streams as a durable pull consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NatsConfig {
    /// `[broker.NAME]`; without it the only one of type `nats`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// Subjects of log lines and JSON events (`logs.>`).
    pub logs: Vec<String>,
    /// Subjects of findings (M2; `findings.>`).
    pub findings: Vec<String>,
    /// The consumers' name (`opmas`).
    pub durable: String,
    /// Whether a stream is made for subjects that none has (true).
    pub create: bool,
    /// Where a stream begins for which neither the consumer nor the spool has a position (start).
    pub from: From,
    /// Whether its messages are believed; without it, whether the server authenticates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted: Option<bool>,
}

/// Takes lines by `POST /api/v1/logs/ingest` on the address of `[http]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpConfig {
    /// File with the bearer token of those who may send.
    pub token_file: PathBuf,
    /// Whether their lines are believed (false).
    pub trusted: bool,
}

/// Where a file, partition or stream that was never read begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// At its first line or message.
    #[default]
    Start,
    /// Behind its last one.
    End,
}

/// The table as it is written. One closed table for all types, so that a misspelt key is named with its place.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default, deserialize_with = "listen")]
    listen: Option<SocketAddr>,
    udp: Option<bool>,
    tcp: Option<bool>,
    path: Option<PathBuf>,
    from: Option<From>,
    trusted: Option<bool>,
    broker: Option<String>,
    logs: Option<Vec<String>>,
    findings: Option<Vec<String>>,
    group: Option<String>,
    instance: Option<String>,
    share: Option<bool>,
    durable: Option<String>,
    create: Option<bool>,
    token_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Syslog,
    File,
    Kafka,
    Nats,
    Http,
    Stdin,
}

impl Kind {
    /// The keys of its table.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Kind::Syslog => &["listen", "udp", "tcp", "trusted", "cert_file", "key_file", "ca_file"],
            Kind::File => &["path", "from", "trusted"],
            Kind::Kafka => &["broker", "logs", "findings", "group", "instance", "share", "from", "trusted"],
            Kind::Nats => &["broker", "logs", "findings", "durable", "create", "from", "trusted"],
            Kind::Http => &["token_file", "trusted"],
            Kind::Stdin => &[],
        }
    }
}

impl Written {
    /// The keys that are there.
    fn keys(&self) -> impl Iterator<Item = &'static str> {
        let keys = [
            ("listen", self.listen.is_some()),
            ("udp", self.udp.is_some()),
            ("tcp", self.tcp.is_some()),
            ("path", self.path.is_some()),
            ("from", self.from.is_some()),
            ("trusted", self.trusted.is_some()),
            ("broker", self.broker.is_some()),
            ("logs", self.logs.is_some()),
            ("findings", self.findings.is_some()),
            ("group", self.group.is_some()),
            ("instance", self.instance.is_some()),
            ("share", self.share.is_some()),
            ("durable", self.durable.is_some()),
            ("create", self.create.is_some()),
            ("token_file", self.token_file.is_some()),
            ("cert_file", self.cert_file.is_some()),
            ("key_file", self.key_file.is_some()),
            ("ca_file", self.ca_file.is_some()),
        ];
        keys.into_iter().filter_map(|(key, there)| there.then_some(key))
    }
}

fn listen<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    address(&text, DEFAULT_LISTEN.port()).map(Some).map_err(serde::de::Error::custom)
}

/// The address and port to listen on. `port` is the one to propose where none is written.
///
/// # Errors
/// One sentence with what to write instead.
pub fn address(text: &str, port: u16) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let (host, given) = text.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).unwrap_or((text, ""));
        let port = given.parse().unwrap_or(port);
        let ip = match host {
            "" | "*" => std::net::Ipv4Addr::UNSPECIFIED.into(),
            host => text.parse().or_else(|_| host.parse()).unwrap_or(DEFAULT_LISTEN.ip()),
        };
        format!("`{text}` is no address with a port; write \"{}\"", SocketAddr::new(ip, port))
    })
}

impl TryFrom<Written> for SourceConfig {
    type Error = String;

    fn try_from(written: Written) -> Result<SourceConfig, String> {
        if let Some(key) = written.keys().find(|key| !written.kind.keys().contains(key)) {
            return Err(format!("`{key}` is no key of a source of this type"));
        }
        match written.kind {
            Kind::Syslog => syslog(written),
            Kind::File => {
                let path = written.path.ok_or("a source of type `file` needs `path`")?;
                Ok(SourceConfig::File(FileConfig { path, from: written.from.unwrap_or_default(), trusted: written.trusted.unwrap_or(true) }))
            }
            Kind::Kafka => kafka(written),
            Kind::Nats => nats(written),
            Kind::Http => {
                let token_file = written.token_file.ok_or("a source of type `http` needs `token_file`, a file with a long random word")?;
                Ok(SourceConfig::Http(HttpConfig { token_file, trusted: written.trusted.unwrap_or(false) }))
            }
            Kind::Stdin => Ok(SourceConfig::Stdin),
        }
    }
}

fn kafka(written: Written) -> Result<SourceConfig, String> {
    let (logs, findings) = (written.logs.unwrap_or_default(), written.findings.unwrap_or_default());
    if logs.is_empty() && findings.is_empty() {
        return Err("a source of type `kafka` needs topics: `logs`, `findings` or both".to_owned());
    }
    let group = written.group.unwrap_or_else(|| "opmas".to_owned());
    if group.is_empty() {
        return Err("`group` is empty; name the consumer group, or leave it out".to_owned());
    }
    let instance = written.instance;
    if instance.as_ref().is_some_and(|name| name.is_empty() || name.len() > 249 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))) {
        return Err("`instance` is 1 to 249 of A-Z a-z 0-9 . _ -; name this opmas as no other in its group".to_owned());
    }
    let (broker, share, from, trusted) = (written.broker, written.share.unwrap_or(false), written.from.unwrap_or_default(), written.trusted);
    Ok(SourceConfig::Kafka(KafkaConfig { broker, logs, findings, group, instance, share, from, trusted }))
}

fn nats(written: Written) -> Result<SourceConfig, String> {
    let unsaid = written.logs.is_none() && written.findings.is_none();
    let or = |subjects: Option<Vec<String>>, default: &str| subjects.unwrap_or_else(|| if unsaid { vec![default.to_owned()] } else { Vec::new() });
    Ok(SourceConfig::Nats(NatsConfig {
        broker: written.broker,
        logs: or(written.logs, "logs.>"),
        findings: or(written.findings, "findings.>"),
        durable: written.durable.unwrap_or_else(|| "opmas".to_owned()),
        create: written.create.unwrap_or(true),
        from: written.from.unwrap_or_default(),
        trusted: written.trusted,
    }))
}

fn syslog(written: Written) -> Result<SourceConfig, String> {
    let default = SyslogConfig::default();
    let tls = match (written.cert_file, written.key_file, written.ca_file) {
        (Some(cert_file), Some(key_file), ca_file) => Some(ServerTls { cert_file, key_file, ca_file }),
        (None, None, None) => None,
        _ => return Err("for TLS `cert_file` and `key_file` go together; `ca_file` says whose certificates clients must have".to_owned()),
    };
    let config = SyslogConfig {
        listen: written.listen.unwrap_or(default.listen),
        udp: written.udp.unwrap_or(tls.is_none()),
        tcp: written.tcp.unwrap_or(default.tcp),
        trusted: written.trusted.unwrap_or(default.trusted),
        tls,
    };
    match &config {
        SyslogConfig { tcp: false, tls: Some(_), .. } => Err("TLS is spoken over TCP; leave `tcp = false` out, or the certificate".to_owned()),
        SyslogConfig { tcp: false, udp: false, .. } => Err("with `udp = false` and `tcp = false` the source hears nothing; leave one out".to_owned()),
        _ => Ok(SourceConfig::Syslog(config)),
    }
}
