//! Entries of the spool that are left out whenever it is computed, because they made the process die: `poison`, JSON (stable).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use super::datadir::DataDir;
use super::durable::write_whole;

/// Entries that are remembered; beyond it the oldest is forgotten, which the spool no longer has by then.
const MAX_POISON: usize = 1_000;

/// The list, read and written as a whole. Blocking.
#[derive(Clone, Debug)]
pub struct Poison {
    path: PathBuf,
}

impl Poison {
    /// The list of a data folder.
    #[must_use]
    pub fn new(data: &DataDir) -> Poison {
        Poison { path: data.path().join("poison") }
    }

    /// The entries' places. One that cannot be read is empty, which is said in the log.
    #[must_use]
    pub fn read(&self) -> BTreeSet<u64> {
        let text = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return BTreeSet::new(),
            read => read,
        };
        let places = text.and_then(|text| Ok(serde_json::from_slice(&text)?));
        places.unwrap_or_else(|error| {
            tracing::warn!(path = %self.path.display(), %error, "it cannot be read which entries of the spool are left out");
            BTreeSet::new()
        })
    }

    /// Adds one, durably.
    ///
    /// # Errors
    /// The file system says no.
    pub fn add(&mut self, seq: u64) -> io::Result<()> {
        let mut places = self.read();
        places.insert(seq);
        while places.len() > MAX_POISON {
            places.pop_first();
        }
        write_whole(&self.path, &[&serde_json::to_vec(&places)?]).map(drop)
    }
}
