//! Passwords and signing keys: named in the configuration, never written there, read when used, never printed.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// The longest secret: far beyond any password or signing key, far below a file named by mistake.
const MAX_SECRET: u64 = 4_096;

/// A secret text. It prints as `[secret]`, and has no other way out than [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret from its text, without the line end that files have.
    #[must_use]
    pub fn new(text: &str) -> Secret {
        Secret(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// The text itself: for the one place that sends or signs with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A text with every mention of the secret replaced, for answers that may repeat what was sent.
    #[must_use]
    pub fn redact(&self, text: &str) -> String {
        // Replacing a short text would shred the answer and tell the secret by what is gone.
        if self.0.len() < 4 { text.to_owned() } else { text.replace(&self.0, "[secret]") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where a secret is to be had.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", try_from = "Written")]
pub enum SecretSource {
    /// A file, read each time: a changed password needs no restart.
    File(PathBuf),
    /// An environment variable of the process.
    Env(String),
}

/// A place as it is written. Whatever else stands there may be the secret itself, and is not repeated.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Written {
    File { file: PathBuf },
    Env { env: String },
    Other(IgnoredAny),
}

impl TryFrom<Written> for SecretSource {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<SecretSource, &'static str> {
        match written {
            Written::File { file } => Ok(SecretSource::File(file)),
            Written::Env { env } => Ok(SecretSource::Env(env)),
            Written::Other(_) => Err("a secret does not stand here, but where it is: { file = \"PATH\" } or { env = \"NAME\" }"),
        }
    }
}

/// Why a secret could not be had. Never says what was read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("cannot read the secret file {path}: {error}")]
    File {
        /// As configured.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// It is too long to be a secret.
    #[error("the secret file {0} is longer than {MAX_SECRET} bytes")]
    TooLong(PathBuf),
    /// It is not text.
    #[error("the secret from {0} is not UTF-8 text")]
    NotText(String),
    /// It is empty.
    #[error("the secret from {0} is empty")]
    Empty(String),
    /// The variable is not there.
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
}

impl SecretSource {
    /// Exactly one of `file` (relative to `base`) and `env`; `None` when neither, an error when both.
    pub(crate) fn choose(base: &Path, file: Option<PathBuf>, env: Option<String>) -> Result<Option<SecretSource>, ()> {
        match (file, env) {
            (Some(_), Some(_)) => Err(()),
            (Some(file), None) => Ok(Some(SecretSource::File(base.join(file)))),
            (None, Some(name)) => Ok(Some(SecretSource::Env(name))),
            (None, None) => Ok(None),
        }
    }

    /// Its path, when it is in a file.
    pub fn path(&mut self) -> Option<&mut PathBuf> {
        match self {
            SecretSource::File(path) => Some(path),
            SecretSource::Env(_) => None,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`SecretError`], which never contains what was read.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let (text, from) = match self {
            SecretSource::File(path) => (read_file(path)?, path.display().to_string()),
            SecretSource::Env(name) => {
                let value = std::env::var_os(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?;
                (value.into_string().map_err(|_| SecretError::NotText(name.clone()))?, name.clone())
            }
        };
        let secret = Secret::new(&text);
        if secret.expose().is_empty() { Err(SecretError::Empty(from)) } else { Ok(secret) }
    }
}

fn read_file(path: &Path) -> Result<String, SecretError> {
    let failed = |error| SecretError::File { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    std::fs::File::open(path).and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(SecretError::TooLong(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| SecretError::NotText(path.display().to_string()))
}
