//! Records that could not be used: kept with their reason, and told of for a while.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::status::{Gravity, Status};
use crate::clock;
use crate::journal::DeadLetters;
use crate::model::{DeadLetter, Span};

/// How long `/readyz` tells of the newest dead letter.
const RECENT: Span = Span::secs(3_600);
/// How often it is looked whether there is still something to tell.
const LOOK: Duration = Duration::from_secs(30);
/// How long an append that the disk refused waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How long a disk that refuses is waited for once more when opmas ends.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where dead letters go.
#[derive(Clone)]
pub(super) struct Dead {
    log: DeadLetters,
    status: Status,
    /// opmas ends: a disk that refuses is no longer waited for.
    ending: CancellationToken,
    /// Letters were given up: none that comes later may be kept without them.
    given_up: bool,
}

impl Dead {
    pub(super) fn new(log: DeadLetters, status: Status, ending: CancellationToken) -> Dead {
        Dead { log, status, ending, given_up: false }
    }

    /// Keeps letters. A disk that refuses is waited for; false only when opmas ended meanwhile: then they are made again at the next start,
    /// as long as no checkpoint says that their records are done with.
    pub(super) async fn keep(&mut self, letters: Vec<DeadLetter>) -> bool {
        if letters.is_empty() {
            return !self.given_up;
        }
        while !self.given_up {
            let error = match self.log.append(letters.clone()).await {
                Ok(kept) => {
                    if kept > 0 {
                        tracing::warn!(letters = kept, "records could not be used; `opmas store dead` lists them with the reasons");
                    }
                    self.tell();
                    return true;
                }
                Err(error) => error,
            };
            if !error.is_temporary() {
                tracing::error!(%error, "dead letters cannot be kept");
                metrics::counter!("opmas_records_refused_total").increment(letters.len() as u64);
                return true;
            }
            self.status.set(
                "dead letters",
                Gravity::Degraded,
                format!("records that could not be used cannot be kept, and findings wait behind them: {error}"),
            );
            if self.ending.is_cancelled() {
                tracing::error!(%error, "opmas ends with dead letters that cannot be kept; they are made again at the next start");
                self.given_up = true;
            } else {
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = self.ending.cancelled() => tokio::time::sleep(PATIENCE).await,
                }
            }
        }
        false
    }

    /// Says in `/readyz` that there is a recent letter, or no longer.
    fn tell(&self) {
        let recent = self.log.newest().filter(|newest| clock::now().since(newest.time) < RECENT);
        match recent {
            Some(newest) => {
                let text = format!("records could not be used, the newest at {}: `opmas store dead` lists them with the reasons", newest.time.brief());
                self.status.set("dead letters", Gravity::Notice, text);
            }
            None => self.status.clear("dead letters"),
        }
    }

    /// Until `stop`: a notice goes when there is no letter for a while. What could not be written is told until it is.
    pub(super) async fn watch(self, stop: CancellationToken) {
        loop {
            let failing = self.status.reasons().iter().any(|reason| reason.part == "dead letters" && reason.gravity > Gravity::Notice);
            if !failing {
                self.tell();
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}
