//! `opmas.toml`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::HttpConfig;
use crate::action::{Ceilings, GuardConfig, Posture};
use crate::diag::{self, Diagnostic, Place};
use crate::journal::SpoolConfig;
use crate::source::SourceConfig;

/// The whole of `opmas.toml`. Relative paths are relative to its folder.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the spool, the ledger and the keys are; default `opmas-data`.
    #[serde(default = "data_dir")]
    pub data_dir: PathBuf,
    /// System-wide: observe (default), guarded, armed.
    #[serde(default)]
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
    /// Where input comes from; without any, syslog on 127.0.0.1:1514.
    #[serde(default)]
    pub source: BTreeMap<String, SourceConfig>,
    /// Where `/readyz` and `/metrics` are served.
    #[serde(default)]
    pub http: HttpConfig,
    /// How leases are looked after.
    #[serde(default)]
    pub lease: LeaseConfig,
}

/// `[lease]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseConfig {
    /// How often an effect is read back while it should hold; default 60 s.
    pub verify_every: crate::model::Span,
}

impl Default for LeaseConfig {
    fn default() -> LeaseConfig {
        LeaseConfig { verify_every: crate::model::Span::secs(60) }
    }
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
        for name in settings.source.keys() {
            if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
                return Err(whole(format!("[source.{name}]: a source's name is 1 to 64 of A-Z a-z 0-9 . _ -")));
            }
        }
        if !settings.http.listen.ip().is_loopback() && settings.http.token_file.is_none() {
            return Err(whole(format!("[http] listen = \"{}\" is reachable by others and has no token_file", settings.http.listen))
                .help("write a token into a file and name it: token_file = \"http.token\""));
        }
        for source in settings.source.values_mut() {
            if let SourceConfig::File(file) = source {
                file.path = base.join(&file.path);
            }
        }
        settings.data_dir = base.join(&settings.data_dir);
        settings.http.token_file = settings.http.token_file.map(|path| base.join(path));
        Ok(settings)
    }
    /// Makes every path independent of the folder that opmas is started in.
    ///
    /// # Errors
    /// The current folder cannot be asked for.
    pub fn make_absolute(&mut self) -> io::Result<()> {
        let files = self.source.values_mut().filter_map(|source| match source {
            SourceConfig::File(file) => Some(&mut file.path),
            SourceConfig::Syslog(_) | SourceConfig::Stdin => None,
        });
        for path in files.chain(&mut self.http.token_file).chain([&mut self.data_dir]) {
            *path = std::path::absolute(&*path)?;
        }
        Ok(())
    }
}
