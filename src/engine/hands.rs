//! The executor as the engine holds it: started when there is a device, started anew when the inventory changes.

use tokio::sync::watch;

use super::status::{Gravity, Status};
use crate::clock;
use crate::executor::{Client, Launch, Reply, Request};
use crate::model::{Outcome, OutcomeState};

/// Holds the executor, if there is one.
pub(super) struct Hands {
    client: watch::Sender<Option<Client>>,
    launch: Launch,
    status: Status,
}

impl Hands {
    /// No executor yet.
    pub(super) fn new(launch: Launch, status: Status) -> Hands {
        Hands { client: watch::Sender::new(None), launch, status }
    }

    /// Starts the executor, in place of the one before: it reads the inventory when it starts.
    pub(super) async fn start(&self) {
        let client = Client::start(self.launch.clone());
        tokio::spawn(follow(client.status(), self.status.clone()));
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
        let client = self.client.borrow().clone();
        match client {
            Some(client) => client.perform(request).await,
            None => nobody(),
        }
    }

    /// Ends the executor.
    pub(super) async fn shutdown(&self) {
        if let Some(client) = self.client.send_replace(None) {
            client.shutdown().await;
        }
    }
}

fn nobody() -> Reply {
    Reply { outcome: Outcome::new(OutcomeState::Failed, "opmas is ending", clock::now()), commands: Vec::new(), report: None, evidence: None }
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
