//! The executor as the engine holds it: started when there is a device, started anew when the inventory changes; and which devices it
//! could not connect to.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::status::{Gravity, Status};
use crate::clock;
use crate::executor::{Client, Launch, Reach, Reply, Request};
use crate::model::{Outcome, OutcomeState, Time};

/// Devices out of reach, by name.
pub(super) type Away = BTreeMap<Arc<str>, Shut>;

/// A device that could not be connected to the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shut {
    /// Why.
    pub(super) why: String,
    /// Since when.
    pub(super) since: Time,
    /// It is tried again then, by a check.
    pub(super) again: Time,
}

impl std::fmt::Display for Shut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; so since {}, and it is tried again from {} on", self.why, self.since.brief(), self.again.brief())
    }
}

/// Holds the executor, if there is one.
pub(super) struct Hands {
    client: watch::Sender<Option<Client>>,
    away: watch::Sender<Away>,
    launch: Launch,
    status: Status,
}

impl Hands {
    /// No executor yet.
    pub(super) fn new(launch: Launch, status: Status) -> Hands {
        Hands { client: watch::Sender::new(None), away: watch::Sender::default(), launch, status }
    }

    /// Starts the executor, in place of the one before: it reads the inventory when it starts.
    pub(super) async fn start(&self) {
        let client = Client::start(self.launch.clone());
        tokio::spawn(follow(client.status(), self.status.clone()));
        self.away.send_modify(BTreeMap::clear);
        self.count();
        if let Some(before) = self.client.send_replace(Some(client)) {
            before.shutdown().await;
        }
    }

    /// Whether there is an executor.
    pub(super) fn are_there(&self) -> bool {
        self.client.borrow().is_some()
    }

    /// Has a request carried out; the first one starts the executor.
    pub(super) async fn perform(&self, request: Request) -> Reply {
        if self.client.borrow().is_none() {
            self.start().await;
        }
        let (client, device) = (self.client.borrow().clone(), request.device().clone());
        let reply = match client {
            Some(client) => client.perform(request).await,
            None => Reply::plain(Outcome::new(OutcomeState::Failed, "opmas is ending", clock::now())),
        };
        self.learn(device, &reply.reach);
        reply
    }

    /// The devices out of reach, and a way to wait for changes.
    pub(super) fn away(&self) -> watch::Receiver<Away> {
        self.away.subscribe()
    }

    fn learn(&self, device: Arc<str>, reach: &Reach) {
        let changed = self.away.send_if_modified(|away| match reach {
            Reach::Unknown => false,
            Reach::Open => away.remove(&device).is_some(),
            Reach::Shut { why, again } => {
                let since = away.get(&device).map_or_else(clock::now, |shut| shut.since);
                let shut = Shut { why: why.clone(), since, again: *again };
                away.insert(device, shut.clone()).as_ref() != Some(&shut)
            }
        });
        if changed {
            self.count();
        }
    }

    fn count(&self) {
        metrics::gauge!("opmas_devices_out_of_reach").set(u32::try_from(self.away.borrow().len()).unwrap_or(u32::MAX));
    }

    /// Ends the executor.
    pub(super) async fn shutdown(&self) {
        if let Some(client) = self.client.send_replace(None) {
            client.shutdown().await;
        }
    }
}

/// Says in the status how the executor is.
async fn follow(mut executor: watch::Receiver<crate::executor::Status>, status: Status) {
    while executor.changed().await.is_ok() {
        let now = executor.borrow_and_update().clone();
        match now.error {
            Some(why) => status.set("executor", Gravity::Degraded, why),
            None => status.clear("executor"),
        }
        if now.ready && !now.weaknesses.is_empty() {
            status.set("executor sandbox", Gravity::Notice, now.weaknesses.join("; "));
        }
    }
}
