//! Dead letters whose records are put into the spool again, each once: first it is kept which, then they are appended, then it counts. What a
//! crash leaves in between is appended at the next start; the spool drops what it has (O4).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::journal::{DataDir, DeadReader, Replayed, SpoolHandle, SpoolReader};
use crate::model::{DeadLetter, DeadReason, EntryBody, Payload, Record, RecordId, Trust};

/// Records that are appended together.
const MAX_BATCH: usize = 256;

/// Which letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// By their records' places in the spool; empty for all but those on which opmas has died.
    pub letters: BTreeSet<u64>,
    /// Only of this source.
    pub source: Option<String>,
}

impl Which {
    fn has(&self, letter: &DeadLetter) -> bool {
        let named = if self.letters.is_empty() { letter.reason != DeadReason::Deadly } else { self.letters.contains(&letter.seq) };
        named && self.source.as_ref().is_none_or(|source| **source == *letter.source)
    }
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// Put into the spool.
    pub put: u64,
    /// Were put there before.
    pub before: u64,
    /// Neither the letter nor the spool has the whole record any more.
    pub cut: u64,
}

/// Puts letters into the spool again.
///
/// # Errors
/// Letters or list cannot be read, or nothing can be written: one sentence. What is kept by then is done at the next start.
pub(super) async fn replay(data: &DataDir, spool: &SpoolHandle, which: &Which) -> Result<Again, String> {
    let (mut again, mut letters, mut oldest) = (Again::default(), Vec::new(), u64::MAX);
    let mut replayed = Replayed::read(data).map_err(|error| format!("dead/replayed cannot be read: {error}"))?;
    for letter in DeadReader::open(&data.dead()).map_err(|error| error.to_string())?.flatten() {
        oldest = oldest.min(letter.seq);
        if !which.has(&letter) {
            continue;
        }
        match (replayed.has(letter.seq), record(data, &letter)) {
            (true, _) => again.before += 1,
            (_, None) => again.cut += 1,
            _ => letters.push(letter.seq),
        }
    }
    again.put = replayed.add(&letters, oldest).map_err(|error| format!("dead/replayed cannot be written: {error}"))? as u64;
    finish(data, spool).await?;
    Ok(again)
}

/// Appends those that were to be put into the spool and are not there.
///
/// # Errors
/// As [`replay`].
pub(super) async fn finish(data: &DataDir, spool: &SpoolHandle) -> Result<(), String> {
    let log: Arc<str> = format!("dead:{}", data.node().0).into();
    let replayed = Replayed::read(data).map_err(|error| format!("dead/replayed cannot be read: {error}"))?;
    let due: BTreeMap<u64, u64> = replayed.after(spool.position(&log).unwrap_or(0)).map(|(place, letter)| (letter, place)).collect();
    if due.is_empty() {
        return Ok(());
    }
    let mut records = BTreeMap::new();
    for letter in DeadReader::open(&data.dead()).map_err(|error| error.to_string())?.flatten() {
        let place = due.get(&letter.seq).copied();
        let again =
            |(place, record): (u64, Record)| (place, EntryBody::Record(Record { id: Some(RecordId::Broker { log: log.clone(), offset: place }), ..record }));
        records.extend(place.zip(record(data, &letter)).map(again));
    }
    let bodies: Vec<EntryBody> = records.into_values().collect();
    for batch in bodies.chunks(MAX_BATCH) {
        spool.append(batch.to_vec()).await.map_err(|error| error.to_string())?;
    }
    metrics::counter!("opmas_dead_letters_replayed_total").increment(bodies.len() as u64);
    Ok(())
}

/// The record of a letter, as the spool has it or else the letter; `None` when that is only its beginning.
fn record(data: &DataDir, letter: &DeadLetter) -> Option<Record> {
    let spooled = SpoolReader::open(&data.spool(), letter.seq).ok().and_then(|mut entries| entries.next()?.ok());
    if let Some(EntryBody::Record(record)) = spooled.filter(|entry| entry.seq == letter.seq).map(|entry| entry.body) {
        return Some(record);
    }
    let payload = if letter.reason == DeadReason::Deadly { Payload::Log } else { Payload::Finding };
    let DeadLetter { source, stream, subject, time, bytes, raw, .. } = letter.clone();
    (bytes == raw.len() as u64).then_some(Record { id: None, source, stream, arrival: Some(time), peer: None, trust: Trust::Open, raw, payload, subject })
}
