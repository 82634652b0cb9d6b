//! Which dead letters were put into the spool again: `dead/replayed`, JSON (stable). The place of one in the list is the place of its record in
//! the log that its id names, so that the spool knows which of them it has (semantics O4).

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::datadir::DataDir;
use super::durable::write_whole;

/// Letters of one list; those beyond it wait until older ones are no longer kept. It bounds what is read and written at a time.
const MAX_LISTED: usize = 100_000;

/// The list, read and written as a whole. Blocking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replayed {
    #[serde(skip)]
    path: PathBuf,
    /// The place of the first in the list, counted from 1; those before it are no longer kept as letters.
    first: u64,
    /// The letters, each by its record's place in the spool.
    letters: Vec<u64>,
}

impl Replayed {
    /// The list of a data folder; none is an empty one.
    ///
    /// # Errors
    /// It cannot be read: then nothing may be put into the spool again.
    pub fn read(data: &DataDir) -> io::Result<Replayed> {
        let path = data.dead().join("replayed");
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Replayed { path, first: 1, letters: Vec::new() }),
            read => Ok(Replayed { path, ..serde_json::from_slice(&read?)? }),
        }
    }

    /// Whether a letter is in the list.
    #[must_use]
    pub fn has(&self, letter: u64) -> bool {
        self.letters.contains(&letter)
    }

    /// Adds letters, durably, up to the bound; those before `oldest`, which are no longer kept, make room. How many were added.
    ///
    /// # Errors
    /// The file system says no.
    pub fn add(&mut self, letters: &[u64], oldest: u64) -> io::Result<usize> {
        let gone = self.letters.iter().take_while(|letter| **letter < oldest).count();
        self.letters.drain(..gone);
        self.first += gone as u64;
        let room = letters.get(..MAX_LISTED.saturating_sub(self.letters.len()).min(letters.len())).unwrap_or_default();
        self.letters.extend_from_slice(room);
        write_whole(&self.path, &[&serde_json::to_vec(self)?])?;
        Ok(room.len())
    }

    /// Place and letter of those behind a place.
    pub fn after(&self, place: u64) -> impl Iterator<Item = (u64, u64)> {
        (self.first..).zip(self.letters.iter().copied()).filter(move |(own, _)| *own > place)
    }
}
