//! From the sources to the spool: batches are appended, and acknowledged once they are on disk (O3). Idle streams get a tick (T3).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::effects::lock;
use super::status::{Gravity, Status};
use crate::clock;
use crate::journal::{AppendError, SpoolHandle};
use crate::model::{EntryBody, Tick};
use crate::source::Batch;

/// Batches that wait for the spool; beyond it sources wait.
pub(super) const MAX_WAITING: usize = 64;
/// Batches that are appended together: what detection then takes as one piece.
const MAX_GROUP: usize = 8;
/// How long an append that the disk refused waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long what is under way may take to be kept once opmas ends.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often idle streams are looked for.
const LOOK: Duration = Duration::from_secs(5);
/// Who looks so much later than he wanted to was frozen, and sources with him.
const FROZEN: Duration = Duration::from_secs(5);
/// Most streams that are followed; further ones are idle only when the process starts again.
const MAX_STREAMS: usize = 100_000;

/// When each stream that is not idle last had a record, and which sources others read now.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    last: BTreeMap<Arc<str>, Instant>,
    elsewhere: BTreeSet<Arc<str>>,
}

impl Streams {
    /// Follows streams from now on.
    pub(super) fn seen<'a>(&self, streams: impl IntoIterator<Item = &'a Arc<str>>) {
        let now = Instant::now();
        let known = &mut lock(&self.0).last;
        for stream in streams {
            if let Some(last) = known.get_mut(stream) {
                *last = now;
            } else if known.len() < MAX_STREAMS {
                known.insert(stream.clone(), now);
            }
        }
    }

    /// Another opmas reads this source from now on.
    pub(super) fn left(&self, source: &str) {
        lock(&self.0).elsewhere.insert(source.into());
    }

    /// Takes out the streams that have become idle, and the sources that others read.
    fn take_idle(&self) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
        let mut known = lock(&self.0);
        let limit = Tick::IDLE.to_std();
        let idle = known.last.iter().filter(|(_, last)| last.elapsed() >= limit).map(|(stream, _)| stream.clone()).collect();
        known.last.retain(|_, last| last.elapsed() < limit);
        (idle, std::mem::take(&mut known.elsewhere).into_iter().collect())
    }

    /// Nothing could be heard for a while: it does not count.
    fn excuse(&self) {
        let now = Instant::now();
        lock(&self.0).last.values_mut().for_each(|last| *last = now);
    }
}

/// Appends what sources bring until all of them have ended. A while after `stop` neither a disk that refuses is waited for, nor a source that
/// does not end (librdkafka's close has no bound while a broker is away): what comes then is not taken, nor acknowledged.
pub(super) async fn run(mut batches: mpsc::Receiver<Batch>, spool: SpoolHandle, streams: Streams, status: Status, stop: CancellationToken) {
    let late = give_up(&stop);
    tokio::pin!(late);
    let mut waiting = Vec::with_capacity(MAX_GROUP);
    loop {
        tokio::select! {
            count = batches.recv_many(&mut waiting, MAX_GROUP) => if count == 0 { return },
            () = &mut late, if !batches.is_closed() => {
                batches.close();
                continue;
            }
        }
        let mut bodies = Vec::with_capacity(waiting.iter().map(|batch| batch.records.len()).sum());
        let mut done = Vec::new();
        for batch in waiting.drain(..) {
            streams.seen(batch.records.iter().map(|record| &record.stream));
            bodies.extend(batch.records.into_iter().map(EntryBody::Record));
            done.extend(batch.done);
        }
        let kept = tokio::select! {
            kept = append(&spool, bodies, &status) => kept,
            () = give_up(&stop) => {
                tracing::error!("opmas ends with input that cannot be kept; what a source can send again is not acknowledged");
                return;
            }
        };
        for done in done.into_iter().filter(|_| kept) {
            // A source that has ended does not wait for its answer.
            let _ = done.send(());
        }
    }
}

/// A while after `stop`.
async fn give_up(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(PATIENCE).await;
}

/// Appends; a disk that refuses is waited for, and meanwhile nothing is acknowledged. Whether it may be acknowledged: it is on disk, or
/// no disk would take it (sources bound their records far below that).
pub(super) async fn append(spool: &SpoolHandle, mut bodies: Vec<EntryBody>, status: &Status) -> bool {
    loop {
        let count = bodies.len() as u64;
        match spool.try_append(bodies).await {
            Ok(appended) => {
                status.clear("spool");
                metrics::counter!("opmas_records_duplicate_total").increment(appended.duplicates);
                return true;
            }
            Err((error, back)) if error.is_temporary() => {
                status.set("spool", Gravity::NotReady, format!("input is not accepted: {error}"));
                tokio::time::sleep(RETRY).await;
                bodies = back;
            }
            Err((error, _)) => {
                tracing::error!(%error, "input was refused by the spool and is lost");
                metrics::counter!("opmas_records_refused_total").increment(count);
                return !matches!(error, AppendError::Stopped);
            }
        }
    }
}

/// Moves idle streams aside until `stop`.
pub(super) async fn tick(spool: SpoolHandle, streams: Streams, status: Status, stop: CancellationToken) {
    loop {
        let before = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        if before.elapsed() > LOOK + FROZEN {
            streams.excuse();
        }
        let (idle, elsewhere) = streams.take_idle();
        if !idle.is_empty() || !elsewhere.is_empty() {
            let tick = vec![EntryBody::Tick(Tick { at: clock::now(), idle, elsewhere })];
            tokio::select! {
                _ = append(&spool, tick, &status) => {}
                () = give_up(&stop) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{DataDir, Spool, SpoolConfig};

    #[tokio::test(start_paused = true)]
    async fn a_source_that_does_not_end_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(&DataDir::open(folder.path()).unwrap(), SpoolConfig::default()).unwrap();
        let (subscriber, _entries) = mpsc::channel(4);
        let (to_intake, batches) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let intake = tokio::spawn(run(batches, spool.start(subscriber).unwrap(), Streams::default(), Status::default(), stop.clone()));
        tokio::time::sleep(2 * PATIENCE).await;
        assert!(!intake.is_finished(), "before the end it waits for input");
        stop.cancel();
        intake.await.unwrap();
        assert!(to_intake.is_closed(), "what comes later is given back");
    }
}
