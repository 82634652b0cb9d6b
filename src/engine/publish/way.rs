//! One way to one broker: sends until it is acknowledged, says what is in the way, keeps the place.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::broker::BrokerConfig;
use crate::clock;
use crate::journal::DataDir;
use crate::publish::{Cursor, Message, PublishError, Publisher};

use super::super::effects::Effects;
use super::super::status::Gravity;
use super::{Hourly, Look, note};

/// The first wait for a broker that does not take messages.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A broker that says nothing for so long is taken to be away.
const SILENCE: Duration = Duration::from_secs(60);
/// What is under way when opmas ends is waited for so long; then it is sent again at the next start.
const PATIENCE: Duration = Duration::from_secs(2);

/// One way out.
pub(super) struct Way {
    /// What `/readyz` calls it: `publish NAME`, `forward`.
    part: String,
    /// What metrics call it: `publish.NAME`, `forward`.
    to: String,
    publisher: Publisher,
    cursor: PathBuf,
    effects: Arc<Effects>,
    /// The log's newest entry.
    newest: watch::Receiver<u64>,
    /// Up to here everything is acknowledged.
    at: u64,
    stop: CancellationToken,
    hourly: Hourly,
}

impl Way {
    /// `names` are the part of `/readyz` and the label of metrics.
    pub(super) fn new(
        (part, to): (String, String),
        broker: &BrokerConfig,
        data: &DataDir,
        effects: Arc<Effects>,
        newest: watch::Receiver<u64>,
        stop: CancellationToken,
    ) -> Way {
        let publisher = Publisher::new(broker, data.node());
        Way { part, cursor: Cursor::path(data.path(), &to), to, publisher, effects, newest, at: 0, stop, hourly: Hourly::default() }
    }

    /// Where its place is kept.
    pub(super) fn cursor(&self) -> PathBuf {
        self.cursor.clone()
    }

    /// Sends all messages, however long that takes; those that the broker refuses for good are left out. `false` when opmas ends before.
    pub(super) async fn send(&mut self, mut messages: Vec<Message>, kind: &'static str) -> bool {
        let mut tries = 0;
        while !messages.is_empty() {
            let answer = tokio::select! {
                answer = tokio::time::timeout(SILENCE, self.publisher.publish(&messages)) => answer.unwrap_or_else(|_| Err(silent())),
                () = end(&self.stop) => return false,
            };
            match answer {
                Ok(()) => {
                    self.effects.status.clear(&self.part);
                    metrics::counter!("opmas_published_total", "to" => self.to.clone(), "kind" => kind).increment(messages.len() as u64);
                    return true;
                }
                Err(PublishError { text, refused: Some(at) }) if at < messages.len() => {
                    let refused = messages.remove(at);
                    self.refused(&refused, &text).await;
                }
                Err(error) => {
                    tries += 1;
                    if !self.away(&error.text, tries).await {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// The broker does not take messages: says so, and waits. `false` when opmas ends meanwhile.
    async fn away(&self, why: &str, tries: u32) -> bool {
        if tries == 1 {
            tracing::warn!(to = self.to, why, "nothing can be published; tried again");
        }
        self.lag();
        self.effects.status.set(&self.part, Gravity::Degraded, format!("what is to be published waits on disk: {why}"));
        tokio::select! {
            () = tokio::time::sleep(pause(tries, clock::random::<1>().map_or(0, |[byte]| byte))) => true,
            () = self.stop.cancelled() => false,
        }
    }

    async fn refused(&mut self, message: &Message, why: &str) {
        metrics::counter!("opmas_publish_refused_total", "to" => self.to.clone()).increment(1);
        tracing::debug!(to = self.to, id = %message.id, why, "a message was refused");
        if let Some(unsaid) = self.hourly.say("refused") {
            let more = if unsaid == 0 { String::new() } else { format!(" (and {unsaid} others in the hour before)") };
            let text = format!("the broker refuses {} for good, and it is left out{more}: {why}", message.id);
            self.effects.record(vec![note(&self.part, &text)]).await;
        }
    }

    /// Says what was gone before it could be published.
    pub(super) async fn lose(&self, look: &Look) {
        if look.lost > 0 {
            metrics::counter!("opmas_publish_lost_total", "to" => self.to.clone()).increment(look.lost);
        }
        self.effects.record(look.notes.iter().map(|text| note(&self.part, text)).collect()).await;
    }

    /// Says whether the log can be read.
    pub(super) fn readable(&self, failed: Option<&str>) {
        let part = format!("{} reading", self.part);
        match failed {
            Some(why) => self.effects.status.set(&part, Gravity::Degraded, format!("what is to be published cannot be read; tried again: {why}")),
            None => self.effects.status.clear(&part),
        }
    }

    /// Everything up to here is acknowledged.
    pub(super) fn at(&mut self, seq: u64) {
        self.at = seq.max(self.at);
        self.lag();
    }

    /// How many entries of the log are not.
    fn lag(&self) {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 entries")]
        metrics::gauge!("opmas_publish_lag_entries", "to" => self.to.clone()).set(self.newest.borrow().saturating_sub(self.at) as f64);
    }

    /// Keeps the place; one that cannot be kept costs publishing again, nothing else.
    pub(super) fn save(&self, cursor: Cursor) -> JoinHandle<()> {
        let (path, to) = (self.cursor.clone(), self.to.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = cursor.write(&path) {
                tracing::warn!(to, %error, "the place up to which everything is published cannot be kept");
            }
        })
    }
}

fn silent() -> PublishError {
    PublishError { text: format!("the broker has not acknowledged within {} s", SILENCE.as_secs()), refused: None }
}

/// A while after `stop`.
async fn end(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(PATIENCE).await;
}

/// The wait after so many tries: doubling, of which between half and all is waited, so that many do not come back in step.
fn pause(tries: u32, chance: u8) -> Duration {
    let full = FIRST_WAIT.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LONGEST_WAIT);
    full / 2 + full / 2 * u32::from(chance) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_never_vanish() {
        assert_eq!(pause(1, 255), FIRST_WAIT);
        assert_eq!(pause(2, 0), FIRST_WAIT);
        assert_eq!((pause(40, 0), pause(u32::MAX, 255)), (LONGEST_WAIT / 2, LONGEST_WAIT));
    }
}
