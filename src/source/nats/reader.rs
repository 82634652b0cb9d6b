//! Reads one stream: pulls, hands over, acknowledges what is kept.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subject};
use tokio::sync::oneshot;

use super::super::MAX_BATCH;
use super::Pause;
use super::claim::Claim;
use super::place::{self, Nowhere, Place};
use super::pull::{Came, Pull, Standing};
use super::reading::Reading;
use super::trouble::Troubles;
use crate::broker::nats::Connection;
use crate::model::Record;

/// Messages that one request asks for.
const PULL: usize = 2_048;
/// Messages that are handed over and not kept yet; beyond them nothing is asked for.
const MAX_IN_FLIGHT: usize = 8_192;
/// Their bytes.
const MAX_IN_FLIGHT_BYTES: usize = 32 << 20;
/// Bytes of one batch.
const MAX_BATCH_BYTES: usize = 4 << 20;
/// How long what is in flight is waited for when the source stops.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Why a reader ended.
#[derive(Debug)]
pub(super) enum End {
    /// The source is to stop, or nobody takes records any more.
    Stopped,
    /// The connection is lost.
    Lost,
    /// The stream is.
    Gone,
}

/// Why reading from a place ended.
enum Break {
    End(End),
    /// It is to begin again; one sentence.
    Again(String),
}

/// The reader of one stream.
pub(super) struct Reader {
    name: String,
    stream: Arc<str>,
    reading: Arc<Reading>,
    connection: Arc<Connection>,
    troubles: Troubles,
}

/// A batch that is handed over.
struct InFlight {
    /// `None` when nothing of it was to be kept.
    done: Option<oneshot::Receiver<()>>,
    /// Where to acknowledge; the last one when it stands for all before it.
    acks: Vec<Subject>,
    last: u64,
    messages: usize,
    bytes: usize,
}

impl Reader {
    pub(super) fn new(name: String, reading: Arc<Reading>, connection: Arc<Connection>, troubles: Troubles) -> Reader {
        let stream = format!("{}/nats/{name}", reading.outlet.source).into();
        Reader { name, stream, reading, connection, troubles }
    }

    /// Reads, and begins again where something went wrong.
    pub(super) async fn run(self) -> End {
        let mut pause = Pause::default();
        loop {
            match self.read(&mut pause).await {
                Break::End(end) => {
                    self.troubles.clear(&self.name);
                    return end;
                }
                Break::Again(_) if self.connection.is_lost() => {
                    self.troubles.clear(&self.name);
                    return End::Lost;
                }
                Break::Again(why) => self.troubles.set(&self.name, why),
            }
            if pause.sleep(&self.reading.outlet).await.is_none() {
                return End::Stopped;
            }
        }
    }

    /// From one place on.
    async fn read(&self, pause: &mut Pause) -> Break {
        let place = tokio::select! {
            place = place::find(&self.connection, &self.reading, &self.name) => place,
            () = self.reading.outlet.stopped() => return Break::End(End::Stopped),
        };
        let place = match place {
            Ok(place) => place,
            Err(Nowhere::Gone) => return Break::End(End::Gone),
            Err(Nowhere::Failed(why)) => return Break::Again(why),
        };
        let _claim = match Claim::take(&place.log, &self.reading.outlet.source) {
            Ok(claim) => claim,
            Err(other) => return Break::Again(format!("stream {} is read by source `{other}`; put its subjects into one of them", self.name)),
        };
        let pull = match Pull::new(&self.connection, &self.name, &self.reading.durable).await {
            Ok(pull) => pull,
            Err(why) => return Break::Again(why),
        };
        pause.reset();
        self.troubles.clear(&self.name);
        tracing::info!(source = %self.reading.outlet.source, stream = self.name, from = place.before + 1, "reading from NATS");
        let mut flow = Flow { reader: self, last: place.before, delivered: place.delivered, read: place.read, place, pull, in_flight: VecDeque::new() };
        let ended = flow.run().await;
        flow.finish(&ended).await;
        ended
    }
}

/// Reading on from a place.
struct Flow<'a> {
    reader: &'a Reader,
    place: Place,
    pull: Pull,
    /// The last message that came.
    last: u64,
    /// Whether it, or one before it, was read.
    read: bool,
    /// The last delivery.
    delivered: u64,
    /// In the stream's order.
    in_flight: VecDeque<InFlight>,
}

/// Messages that came together.
#[derive(Default)]
struct Gathered {
    records: Vec<Record>,
    acks: Vec<Subject>,
    last: u64,
    messages: usize,
    bytes: usize,
}

impl Flow<'_> {
    async fn run(&mut self) -> Break {
        let (outlet, connection) = (&self.reader.reading.outlet, &self.reader.connection);
        loop {
            if let Err(why) = self.ask().await {
                return Break::Again(why);
            }
            let step = tokio::select! {
                () = outlet.stopped() => Err(Break::End(End::Stopped)),
                () = connection.ended() => Err(Break::End(End::Lost)),
                kept = settled(&mut self.in_flight) => self.settle(kept).await,
                came = self.pull.next(), if self.pull.is_open() => self.take(came).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// A request is open while there is room.
    async fn ask(&mut self) -> Result<(), String> {
        let messages: usize = self.in_flight.iter().map(|batch| batch.messages).sum();
        let bytes: usize = self.in_flight.iter().map(|batch| batch.bytes).sum();
        if self.pull.is_open() || messages + PULL > MAX_IN_FLIGHT || bytes >= MAX_IN_FLIGHT_BYTES {
            return Ok(());
        }
        self.pull.ask(PULL).await
    }

    /// Takes what came and all that is at hand with it.
    async fn take(&mut self, first: Came) -> Result<(), Break> {
        let mut gathered = Gathered::default();
        let mut next = Some(first);
        let mut ended = Ok(());
        while let Some(came) = next {
            match came {
                Came::Message(message, reply, standing) => ended = self.gather(message, reply, standing, &mut gathered).await,
                Came::Ended => break,
                Came::Failed(why) => ended = Err(Break::Again(self.reader.connection.explain(&format!("stream {}: {why}", self.reader.name)))),
            }
            if ended.is_err() || gathered.messages >= MAX_BATCH || gathered.bytes >= MAX_BATCH_BYTES {
                break;
            }
            next = self.pull.at_hand();
        }
        self.hand_over(gathered).await?;
        ended
    }

    async fn gather(&mut self, message: Message, reply: Subject, standing: Standing, gathered: &mut Gathered) -> Result<(), Break> {
        if standing.delivery != self.delivered + 1 {
            return Err(Break::Again(format!("stream {}: a delivery is missing; reading again from where it is in order", self.reader.name)));
        }
        self.delivered = standing.delivery;
        if standing.sequence <= self.last {
            // Delivered again: it is in flight, or its acknowledgement was lost.
            if self.in_flight.is_empty() && gathered.messages == 0 {
                self.acknowledge(vec![reply]).await;
            }
            return Ok(());
        }
        self.notice_gap(standing.sequence);
        self.last = standing.sequence;
        let record = self.reader.reading.record(&self.reader.stream, &self.place.log, standing.sequence, message, gathered.records.last());
        gathered.bytes += record.as_ref().map_or(0, |record| record.raw.len());
        gathered.messages += 1;
        gathered.last = standing.sequence;
        if !self.place.each {
            gathered.acks.clear();
        }
        gathered.acks.push(reply);
        match record {
            // It says nothing.
            Some(record) if record.raw.is_empty() => self.reader.reading.outlet.meter.empty.increment(1),
            record => gathered.records.extend(record),
        }
        Ok(())
    }

    /// Counts what retention or a purge took before it was read.
    fn notice_gap(&mut self, sequence: u64) {
        let gone = sequence - self.last - 1;
        if std::mem::replace(&mut self.read, true) && gone > 0 && self.place.dense {
            let outlet = &self.reader.reading.outlet;
            outlet.meter.gone.increment(gone);
            tracing::warn!(source = %outlet.source, stream = self.reader.name, gone, from = self.last + 1, to = sequence - 1, "messages were gone from the stream before they were read (its limits, or a purge)");
        }
    }

    async fn hand_over(&mut self, gathered: Gathered) -> Result<(), Break> {
        let Gathered { records, acks, last, messages, bytes } = gathered;
        if messages == 0 {
            return Ok(());
        }
        let outlet = &self.reader.reading.outlet;
        let mut waits = None;
        if !records.is_empty() {
            let (done, safe) = oneshot::channel();
            waits = Some(safe);
            let sent = tokio::select! {
                sent = outlet.send(records, Some(done)) => sent.is_ok(),
                () = outlet.stopped() => false,
            };
            if !sent {
                return Err(Break::End(End::Stopped));
            }
        }
        self.in_flight.push_back(InFlight { done: waits, acks, last, messages, bytes });
        Ok(())
    }

    /// The oldest batch is on disk, or nobody will say so any more.
    async fn settle(&mut self, kept: bool) -> Result<(), Break> {
        let Some(batch) = self.in_flight.pop_front() else { return Ok(()) };
        if !kept {
            return Err(Break::End(End::Stopped));
        }
        self.reader.reading.settle(&self.place.log, batch.last);
        self.acknowledge(batch.acks).await;
        Ok(())
    }

    async fn acknowledge(&self, replies: Vec<Subject>) {
        let client = self.reader.connection.client();
        for reply in replies {
            // A lost connection loses acknowledgements; what they were for is known when it is up again.
            if let Err(error) = client.publish(reply, "+ACK".into()).await {
                tracing::debug!(%error, "not acknowledged");
            }
        }
    }

    /// Settles what is in flight: soon when the source stops, else however long it takes, since without it no place can be told.
    async fn finish(&mut self, ended: &Break) {
        let stopping = matches!(ended, Break::End(End::Stopped));
        let outlet = self.reader.reading.outlet.clone();
        while !self.in_flight.is_empty() {
            let kept = if stopping {
                tokio::time::timeout(LAST_WAIT, settled(&mut self.in_flight)).await
            } else {
                tokio::select! {
                    kept = settled(&mut self.in_flight) => Ok(kept),
                    () = outlet.stopped() => tokio::time::timeout(LAST_WAIT, settled(&mut self.in_flight)).await,
                }
            };
            match kept {
                Ok(kept) if self.settle(kept).await.is_ok() => {}
                _ => break,
            }
        }
        // The acknowledgements are on their way.
        let _ = tokio::time::timeout(LAST_WAIT, self.reader.connection.client().flush()).await;
    }
}

/// Whether the oldest batch is kept, once that is known; never without one. May be dropped while it waits.
async fn settled(in_flight: &mut VecDeque<InFlight>) -> bool {
    match in_flight.front_mut() {
        Some(InFlight { done: Some(done), .. }) => done.await.is_ok(),
        Some(InFlight { done: None, .. }) => true,
        None => std::future::pending().await,
    }
}
