//! Messages of NATS JetStream: of each stream that holds the configured subjects, by a durable pull consumer, in the stream's order.
//!
//! The spool recognises what it has by a high-watermark (O4), so a stream's messages must come in their order. JetStream sends again what
//! was not acknowledged, but behind newer ones. So whoever begins to read begins at one place: see [`place`].

mod claim;
mod place;
mod pull;
mod range;
mod reader;
mod reading;
mod trouble;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::{BindError, NatsConfig, Outlet, no_broker};
use crate::broker;
use crate::broker::nats::{Connection, is_filter, make, of_subject};
use crate::clock;
pub use range::{Range, RangeError, range};
use reader::{End, Reader};
use reading::Reading;
use trouble::Troubles;

/// How often new streams are looked for.
const LOOK: Duration = Duration::from_secs(30);
/// How often, while a stream is missing.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// The first pause after something went wrong; it doubles with each further time.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What troubles of the connection go by; neither a subject nor a stream is called so.
const CONNECTION: &str = "";

/// What is needed to read.
#[derive(Debug)]
pub(super) struct Consumer {
    config: NatsConfig,
    broker: broker::NatsConfig,
}

pub(super) fn bind(name: &str, config: &NatsConfig, broker: &broker::NatsConfig) -> Result<Consumer, BindError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let durable = &config.durable;
    if durable.is_empty() || durable.len() > 64 || !durable.chars().all(plain) {
        return Err(no_broker(name, format!("`durable` = \"{durable}\" is no name; use 1 to 64 letters, digits, `-` and `_`")));
    }
    if let Some(wrong) = config.logs.iter().chain(&config.findings).find(|subject| !is_filter(subject)) {
        return Err(no_broker(name, format!("`{wrong}` is no subject; write words between dots, such as \"logs.>\"")));
    }
    if config.logs.is_empty() && config.findings.is_empty() {
        return Err(no_broker(name, "it names no subjects; write `logs`, `findings` or both"));
    }
    Ok(Consumer { config: config.clone(), broker: broker.clone() })
}

impl Consumer {
    /// Reads until it is to stop; connects for ever.
    pub(super) async fn run(self, outlet: Outlet) {
        let troubles = Troubles::new(&outlet);
        let reading = Arc::new(Reading::new(&self.config, &self.broker, outlet.clone()));
        let mut pause = Pause::default();
        loop {
            let opened = tokio::select! {
                opened = Connection::open(&self.broker) => opened,
                () = outlet.stopped() => return,
            };
            let why = match opened {
                Ok(connection) => {
                    troubles.clear(CONNECTION);
                    let session =
                        Session { reading: Arc::clone(&reading), troubles: troubles.clone(), connection: Arc::new(connection), create: self.config.create };
                    match session.run(&mut pause).await {
                        Some(why) => why,
                        None => return,
                    }
                }
                Err(error) => error.to_string(),
            };
            troubles.set(CONNECTION, why);
            if pause.sleep(&outlet).await.is_none() {
                return;
            }
        }
    }
}

/// Pauses that become longer, with jitter, so that those who wait for one server do not come all at once.
#[derive(Debug, Default)]
struct Pause(u32);

impl Pause {
    /// Half of it is left to chance. `None` when the source is to stop.
    async fn sleep(&mut self, outlet: &Outlet) -> Option<()> {
        let full = FIRST_PAUSE.saturating_mul(1 << self.0.min(16)).min(LONGEST_PAUSE);
        self.0 = self.0.saturating_add(1);
        let [chance] = clock::random::<1>().unwrap_or([128]);
        let pause = full / 2 + full / 2 * u32::from(chance) / 255;
        tokio::select! {
            () = tokio::time::sleep(pause) => Some(()),
            () = outlet.stopped() => None,
        }
    }

    fn reset(&mut self) {
        self.0 = 0;
    }
}

/// One connection, and who reads through it.
struct Session {
    reading: Arc<Reading>,
    troubles: Troubles,
    connection: Arc<Connection>,
    create: bool,
}

impl Session {
    /// Reads until the connection is lost: why; `None` when the source is to stop.
    async fn run(&self, pause: &mut Pause) -> Option<String> {
        let mut readers = JoinSet::new();
        let mut names = BTreeSet::new();
        loop {
            let complete = self.look(&mut readers, &mut names).await;
            if complete {
                pause.reset();
            }
            tokio::select! {
                () = self.reading.outlet.stopped() => {
                    while readers.join_next().await.is_some() {}
                    return None;
                }
                () = self.connection.ended() => {
                    // What they have handed over is settled first; then one place to begin at can be told.
                    while let Some(ended) = readers.join_next().await {
                        if matches!(ended, Ok((_, End::Stopped))) {
                            return None;
                        }
                    }
                    return Some(self.connection.explain("the connection was lost"));
                }
                Some(ended) = readers.join_next() => match ended {
                    Ok((_, End::Stopped)) => return None,
                    Ok((name, End::Gone)) => drop(names.remove(&name)),
                    // The connection goes the same way.
                    Ok((_, End::Lost)) => {}
                    Err(error) => return Some(format!("reading ended: {error}")),
                },
                () = tokio::time::sleep(if complete { LOOK } else { LOOK_AGAIN }) => {}
            }
        }
    }

    /// Begins to read streams that nobody reads yet. Whether each subject has one.
    async fn look(&self, readers: &mut JoinSet<(String, End)>, names: &mut BTreeSet<String>) -> bool {
        let mut complete = true;
        for subject in self.reading.subjects() {
            match self.streams(subject).await {
                Ok(found) => {
                    self.troubles.clear(subject);
                    for name in found {
                        if names.insert(name.clone()) {
                            let reader = Reader::new(name.clone(), Arc::clone(&self.reading), Arc::clone(&self.connection), self.troubles.clone());
                            readers.spawn(async move { (name, reader.run().await) });
                        }
                    }
                }
                Err(why) => {
                    complete = false;
                    if !self.connection.is_lost() {
                        self.troubles.set(subject, why);
                    }
                }
            }
        }
        complete
    }

    /// The streams of a subject; one is made when there is none.
    async fn streams(&self, subject: &str) -> Result<Vec<String>, String> {
        let found = of_subject(&self.connection, subject).await.map_err(|error| error.to_string())?;
        match (found.is_empty(), self.create) {
            (false, _) => Ok(found),
            (true, true) => {
                let name = make(&self.connection, subject).await.map_err(|error| error.to_string())?;
                self.reading.know(&name);
                Ok(vec![name])
            }
            (true, false) => Err(self.connection.explain(&format!("no stream holds `{subject}`; make one, or let opmas make it (`create = true`)"))),
        }
    }
}
