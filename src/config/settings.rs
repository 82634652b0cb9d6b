//! `opmas.toml`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{HttpConfig, SigmaConfig};
use crate::action::{Ceilings, GuardConfig, Posture};
use crate::broker::BrokerConfig;
use crate::diag::{self, Diagnostic, Place};
use crate::endpoint::EndpointConfig;
use crate::journal::{DeadConfig, LedgerConfig, SpoolConfig};
use crate::model::Span;
use crate::publish::{ForwardConfig, Origin, PublishConfig, Unfit};
use crate::secret::SecretSource;
use crate::source::SourceConfig;

/// The whole of `opmas.toml`. Relative paths are relative to its folder.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the spool, the ledger and the keys are; default `opmas-data`.
    #[serde(default = "data_dir")]
    pub data_dir: PathBuf,
    /// System-wide: observe (default), guarded, armed.
    #[serde(default, deserialize_with = "posture")]
    pub posture: Posture,
    /// The operator's ceiling per action.
    #[serde(default)]
    pub actions: Ceilings,
    /// What must never be blocked.
    #[serde(default)]
    pub guard: GuardConfig,
    /// How long input is kept.
    #[serde(default)]
    pub spool: SpoolConfig,
    /// How long records that could not be used are kept.
    #[serde(default)]
    pub dead: DeadConfig,
    /// How long decisions are kept.
    #[serde(default)]
    pub ledger: LedgerConfig,
    /// Connections to Kafka and NATS.
    #[serde(default)]
    pub broker: BTreeMap<String, BrokerConfig>,
    /// Where input comes from; without any, syslog on 127.0.0.1:1514.
    #[serde(default)]
    pub source: BTreeMap<String, SourceConfig>,
    /// What is published of what opmas decides.
    #[serde(default)]
    pub publish: BTreeMap<String, PublishConfig>,
    /// Where playbooks may send requests to.
    #[serde(default)]
    pub endpoint: BTreeMap<String, EndpointConfig>,
    /// What sources bring, normalised; without the table nothing is forwarded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<ForwardConfig>,
    /// Where `/readyz` and `/metrics` are served.
    #[serde(default)]
    pub http: HttpConfig,
    /// Who may answer runs over HTTP.
    #[serde(default)]
    pub api: ApiConfig,
    /// How leases are looked after.
    #[serde(default)]
    pub lease: LeaseConfig,
    /// What applies to the rules.
    #[serde(default)]
    pub sigma: SigmaConfig,
    /// How opmas looks at itself.
    #[serde(default)]
    pub health: HealthConfig,
}

/// `[health]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// How often opmas writes how it is into its own spool, for rules; default 60 s, `"0s"` for never.
    pub every: Span,
}

impl Default for HealthConfig {
    fn default() -> HealthConfig {
        HealthConfig { every: Span::secs(60) }
    }
}

/// `[api]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// `[api.token.NAME]`: a bearer token in a file or an environment variable; the name is who answers.
    pub token: BTreeMap<String, SecretSource>,
}

/// `[lease]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseConfig {
    /// How often an effect is read back while it should hold; default 60 s.
    pub verify_every: Span,
}

impl Default for LeaseConfig {
    fn default() -> LeaseConfig {
        LeaseConfig { verify_every: Span::secs(60) }
    }
}

/// Shortest `[lease] verify_every`: each time asks every device that has one.
const MIN_VERIFY: Span = Span::secs(1);
/// Shortest `[health] every`: each time is some entries of the spool.
const MIN_HEALTH: Span = Span::secs(1);
/// Shortest `keep` of `[spool]`, `[dead]` and `[ledger]`.
const MIN_KEEP: Span = Span::secs(1);
/// Least `[spool] keep_bytes`: with less, what came just now is dropped.
const MIN_KEEP_BYTES: u64 = 1 << 20;

/// Shortest `[ledger] publish_head`: each time the head is signed and written, and published where that is configured.
const MIN_PUBLISH_HEAD: Span = Span::secs(1);

fn names<T>(tables: &BTreeMap<String, T>) -> Vec<&str> {
    tables.keys().map(String::as_str).collect()
}

fn posture<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Posture, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    let known = [Posture::Observe, Posture::Guarded, Posture::Armed];
    let posture = known.into_iter().find(|posture| value.as_str() == Some(posture.word()));
    posture.ok_or_else(|| serde::de::Error::custom(format!("{value} is no posture; write \"observe\", \"guarded\" or \"armed\"")))
}

fn data_dir() -> PathBuf {
    PathBuf::from("opmas-data")
}

/// The source that is there when none is configured.
fn default_source() -> Result<SourceConfig, toml::de::Error> {
    toml::from_str("type = \"syslog\"")
}

impl Settings {
    /// Reads and checks the text of `opmas.toml`; relative paths become relative to `base`.
    ///
    /// # Errors
    /// One diagnostic: broken TOML, an unknown key with the nearest known one, a value out of its range.
    pub fn parse(file: &str, text: &str, base: &Path) -> Result<Settings, Diagnostic> {
        let mut settings: Settings = diag::from_toml(file, text)?;
        let whole = |message: String| Diagnostic::new(file, Place::default(), message);
        if settings.source.is_empty() {
            let source = default_source().map_err(|error| whole(error.to_string()))?;
            settings.source.insert("syslog".to_owned(), source);
        }
        let tables = [("source", "a source's name"), ("publish", "a publication's name"), ("endpoint", "an endpoint's name")];
        let names = tables.into_iter().zip([names(&settings.source), names(&settings.publish), names(&settings.endpoint)]);
        for ((table, whose), name) in names.flat_map(|(table, names)| names.into_iter().map(move |name| (table, name))) {
            if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
                return Err(whole(format!("[{table}.{name}]: {whose} is 1 to 64 of A-Z a-z 0-9 . _ -")));
            }
        }
        if !settings.http.listen.ip().is_loopback() && settings.http.token_file.is_none() {
            return Err(whole(format!("[http] listen = \"{}\" is reachable by others and has no token_file", settings.http.listen))
                .help("write a token into a file and name it: token_file = \"http.token\""));
        }
        let least =
            |key: &str, least: &str| Diagnostic::new(file, Place::of_key(text, key), format!("{key} is too little")).help(format!("write {least} or more"));
        if settings.lease.verify_every < MIN_VERIFY {
            return Err(least("verify_every", "\"1s\""));
        }
        if settings.health.every != Span::secs(0) && settings.health.every < MIN_HEALTH {
            return Err(least("every", "\"1s\""));
        }
        if settings.spool.keep_bytes < MIN_KEEP_BYTES || settings.dead.keep_bytes < MIN_KEEP_BYTES {
            return Err(least("keep_bytes", "1048576"));
        }
        for (table, keep) in [("spool", settings.spool.keep), ("dead", settings.dead.keep), ("ledger", settings.ledger.keep)] {
            if keep < MIN_KEEP {
                let place = Place::of_key_in(text, table, "keep");
                return Err(
                    Diagnostic::new(file, place, format!("[{table}] keep is too little: what came just now would be gone")).help("write \"1s\" or more")
                );
            }
        }
        if settings.ledger.publish_head < MIN_PUBLISH_HEAD {
            return Err(least("publish_head", "\"1s\""));
        }
        settings.sigma.check(file, text)?;
        settings.way_out().map_err(|(table, Unfit { key, text: what, help })| {
            Diagnostic::new(file, Place::of_key_in(text, &table, key), format!("[{table}] {what}")).help(help)
        })?;
        for (name, endpoint) in &settings.endpoint {
            let table = format!("endpoint.{name}");
            let place = |key| Place::of_key_in(text, &table, key);
            endpoint.check().map_err(|(key, what, help)| Diagnostic::new(file, place(key), format!("[{table}] {what}")).help(help))?;
        }
        settings.resolve(base);
        Ok(settings)
    }

    /// Checks what goes out, and where to. The table that is at fault, and why.
    fn way_out(&self) -> Result<(), (String, Unfit)> {
        for (name, publish) in &self.publish {
            publish.check(&self.broker).map_err(|unfit| (format!("publish.{name}"), unfit))?;
        }
        let forward = self.forward.as_ref().map(|forward| forward.check(&self.broker, &self.origins()));
        forward.transpose().map(drop).map_err(|unfit| ("forward".to_owned(), unfit))
    }

    /// The sources, as `[forward]` sees them.
    #[must_use]
    pub fn origins(&self) -> BTreeMap<&str, Origin> {
        let origin = |source: &SourceConfig| match source {
            SourceConfig::Syslog(_) | SourceConfig::Http(_) | SourceConfig::Stdin => Origin::Pushed,
            SourceConfig::File(_) => Origin::Read,
            SourceConfig::Kafka(_) | SourceConfig::Nats(_) => Origin::Broker,
        };
        self.source.iter().map(|(name, source)| (name.as_str(), origin(source))).collect()
    }

    /// Makes every path relative to `base`.
    fn resolve(&mut self, base: &Path) {
        for source in self.source.values_mut() {
            match source {
                SourceConfig::File(file) => file.path = base.join(&file.path),
                SourceConfig::Http(http) => http.token_file = base.join(&http.token_file),
                SourceConfig::Syslog(syslog) => {
                    for file in syslog.tls.iter_mut().flat_map(|tls| [Some(&mut tls.cert_file), Some(&mut tls.key_file), tls.ca_file.as_mut()]).flatten() {
                        *file = base.join(&*file);
                    }
                }
                SourceConfig::Kafka(_) | SourceConfig::Nats(_) | SourceConfig::Stdin => {}
            }
        }
        self.broker.values_mut().for_each(|broker| broker.resolve(base));
        self.endpoint.values_mut().for_each(|endpoint| endpoint.resolve(base));
        self.api.token.values_mut().filter_map(SecretSource::path).for_each(|path| *path = base.join(&*path));
        self.data_dir = base.join(&self.data_dir);
        if let Some(path) = &mut self.http.token_file {
            *path = base.join(&*path);
        }
    }

    /// Makes every path independent of the folder that opmas is started in.
    ///
    /// # Errors
    /// The current folder cannot be asked for.
    pub fn make_absolute(&mut self) -> io::Result<()> {
        self.resolve(&std::path::absolute(Path::new("."))?);
        Ok(())
    }
}
