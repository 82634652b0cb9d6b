//! The ledger's head, signed. Who has noted it elsewhere can prove later that nothing up to it was rewritten, and whose word it is.
//!
//! What is signed (Ed25519, RFC 8032) is this text, each line ended by a newline. Stable.
//!
//! ```text
//! opmas-ledger-head-1
//! <node> <seq> <chain hash, hexadecimal> <time, RFC 3339>
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use super::chain::LedgerHash;
use super::datadir::DataDir;
use super::durable::write_whole;
use crate::model::{NodeId, Time};

/// A key file or a signed head is shorter than this; more is not read.
const MAX_FILE: u64 = 4_096;

/// Why there is no signed head.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// The file system says no.
    #[error("{}: {source}", path.display())]
    Io {
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The key file holds no key.
    #[error("{} is no ledger key (PKCS #8, Ed25519); restore it from a backup, or remove it to have a new one made", .0.display())]
    NoKey(PathBuf),
    /// There was no randomness for a new key.
    #[error("no randomness for the ledger's key")]
    NoRandomness,
    /// The text is no signed head.
    #[error("this is no signed ledger head: {0}")]
    NotAHead(String),
    /// Someone has changed it.
    #[error("the signature of this ledger head is not one of the key that it names: it was changed")]
    Forged,
    /// It is of another data folder.
    #[error("this head is of another data folder ({node}); this one is {own}")]
    OtherFolder {
        /// Whose.
        node: String,
        /// The folder that it was held against.
        own: String,
    },
    /// It was signed with another key.
    #[error("this head was signed with the key {key}, and this data folder signs with {own}")]
    OtherKey {
        /// Which, base64.
        key: String,
        /// That of the folder.
        own: String,
    },
}

impl HeadError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> HeadError {
        let path = path.to_owned();
        move |source| HeadError::Io { path, source }
    }
}

/// The key that signs heads.
pub struct LedgerKey(Ed25519KeyPair);

impl LedgerKey {
    /// Where it is kept.
    fn path(data: &DataDir) -> PathBuf {
        data.path().join("keys/ledger.key")
    }

    /// Reads `keys/ledger.key` of a data folder, and makes it (0600) when it is not there. Blocking.
    ///
    /// # Errors
    /// It cannot be read or made, or holds no key.
    pub fn open(data: &DataDir) -> Result<LedgerKey, HeadError> {
        let path = LedgerKey::path(data);
        if !path.exists() {
            let folder = data.path().join("keys");
            fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder).map_err(HeadError::io(&folder))?;
            let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| HeadError::NoRandomness)?;
            write_whole(&path, &[key.as_ref()]).map_err(HeadError::io(&path))?;
        }
        LedgerKey::read(&path)
    }

    fn read(path: &Path) -> Result<LedgerKey, HeadError> {
        let key = read_small(path)?;
        Ed25519KeyPair::from_pkcs8(&key).map(LedgerKey).map_err(|_| HeadError::NoKey(path.to_owned()))
    }

    /// The public key, base64.
    #[must_use]
    pub fn public(&self) -> String {
        STANDARD.encode(self.0.public_key())
    }

    /// The public key of a data folder, without making one: of its key file, else of the head that was published last.
    #[must_use]
    pub fn public_of(data: &DataDir) -> Option<String> {
        let own = LedgerKey::read(&LedgerKey::path(data)).ok().map(|key| key.public());
        own.or_else(|| Some(SignedHead::read(&SignedHead::path(data)).ok()?.key))
    }

    /// Signs a head.
    #[must_use]
    pub fn sign(&self, node: &NodeId, (seq, hash): (u64, LedgerHash), at: Time) -> SignedHead {
        let mut head = SignedHead { node: node.0.to_string(), seq, hash: hash.to_string(), at, key: self.public(), signature: String::new() };
        head.signature = STANDARD.encode(self.0.sign(head.text().as_bytes()));
        head
    }
}

/// A head with its signature, as JSON in `ledger/head.json` and in the log (stable).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// The data folder.
    pub node: String,
    /// The record.
    pub seq: u64,
    /// The chain hash up to and with it, hexadecimal.
    pub hash: String,
    /// When it was signed.
    pub at: Time,
    /// The public key, base64.
    pub key: String,
    /// Of the text above, base64.
    pub signature: String,
}

impl SignedHead {
    /// What the newest is called, in `ledger`.
    pub(super) const FILE: &str = "head.json";

    /// Where the newest is published.
    #[must_use]
    pub fn path(data: &DataDir) -> PathBuf {
        data.ledger().join(SignedHead::FILE)
    }

    fn text(&self) -> String {
        format!("opmas-ledger-head-1\n{} {} {} {}\n", self.node, self.seq, self.hash, self.at)
    }

    /// Reads one from a file.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn read(path: &Path) -> Result<SignedHead, HeadError> {
        serde_json::from_slice(&read_small(path)?).map_err(|error| HeadError::NotAHead(error.to_string()))
    }

    /// The one in `ledger/head.json` with its hash, when there is one and this data folder has signed it.
    ///
    /// # Errors
    /// It cannot be read, is none, or was changed.
    pub fn published(data: &DataDir) -> Result<Option<(SignedHead, LedgerHash)>, HeadError> {
        let head = match SignedHead::read(&SignedHead::path(data)) {
            Err(HeadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        match head.hash_in(data) {
            Err(HeadError::OtherFolder { .. } | HeadError::OtherKey { .. }) => Ok(None),
            hash => hash.map(|hash| Some((head, hash))),
        }
    }

    /// The hash, when this data folder has signed it.
    ///
    /// # Errors
    /// It was changed, or another folder or key has signed it.
    pub fn hash_in(&self, data: &DataDir) -> Result<LedgerHash, HeadError> {
        let hash = self.verified()?;
        match LedgerKey::public_of(data) {
            _ if self.node != *data.node().0 => Err(HeadError::OtherFolder { node: self.node.clone(), own: data.node().0.to_string() }),
            Some(own) if own != self.key => Err(HeadError::OtherKey { key: self.key.clone(), own }),
            _ => Ok(hash),
        }
    }

    /// Writes it to `ledger/head.json`, durably. Blocking.
    ///
    /// # Errors
    /// The file system says no.
    pub fn publish(&self, data: &DataDir) -> Result<(), HeadError> {
        let path = SignedHead::path(data);
        let text = serde_json::to_vec(self).map_err(|error| HeadError::NotAHead(error.to_string()))?;
        write_whole(&path, &[&text, b"\n"]).map(drop).map_err(HeadError::io(&path))
    }

    /// Checks the signature against the key that it names, and gives the hash.
    ///
    /// # Errors
    /// It was changed.
    pub fn verified(&self) -> Result<LedgerHash, HeadError> {
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| HeadError::Forged);
        let key = UnparsedPublicKey::new(&ED25519, decode(&self.key)?);
        key.verify(self.text().as_bytes(), &decode(&self.signature)?).map_err(|_| HeadError::Forged)?;
        self.hash.parse().map_err(HeadError::NotAHead)
    }
}

fn read_small(path: &Path) -> Result<Vec<u8>, HeadError> {
    use io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes)).map_err(HeadError::io(path))?;
    Ok(bytes)
}
