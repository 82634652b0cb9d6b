//! Deliveries: what is due is sent, each channel by itself, and what the other side says is recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, lock};
use crate::alert::{Channels, Due, Notice, SendError};
use crate::clock;
use crate::config::Content;
use crate::model::Decided;

/// Longest sleep between two looks at the outbox.
const LOOK: Duration = Duration::from_secs(60);

/// Sends what is due until `stop`; then waits for what is being sent.
pub(super) async fn run(effects: Arc<Effects>, content: watch::Receiver<Arc<Content>>, stop: CancellationToken) {
    let settled = lock(&effects.outbox).settle(clock::now());
    effects.record(settled).await;
    let mut sending = JoinSet::new();
    while !stop.is_cancelled() {
        for due in claim(&effects) {
            sending.spawn(deliver(effects.clone(), content.borrow().channels.clone(), due));
        }
        let wake = lock(&effects.outbox).next_wake(clock::now());
        let sleep = wake.map_or(LOOK, |at| at.since(clock::now()).to_std().min(LOOK));
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = effects.delivery_news.notified() => {}
            Some(_) = sending.join_next() => {}
            () = stop.cancelled() => {}
        }
    }
    while sending.join_next().await.is_some() {}
}

/// Takes what is due now, so that it is not due again before its outcome.
fn claim(effects: &Effects) -> Vec<Due> {
    let mut outbox = lock(&effects.outbox);
    let due = outbox.due(clock::now());
    for one in &due {
        outbox.claim(&one.delivery);
    }
    due
}

/// One try of one delivery. The attempt is recorded as late as possible: once the other side is ready to take the message.
async fn deliver(effects: Arc<Effects>, channels: Arc<Channels>, due: Due) {
    let notice = notice(&effects, &due);
    let prepared = match channels.get(&due.channel) {
        Some(channel) => channel.prepare(&notice, &due.delivery, clock::now()).await,
        None => Err(SendError::permanent(format!("channel {} is no longer configured", due.channel))),
    };
    let answer = match prepared {
        Ok(ready) => {
            let attempt = lock(&effects.outbox).attempt(&due.delivery, clock::now());
            effects.record(attempt.into_iter().collect()).await;
            ready.send().await
        }
        Err(error) => Err(error),
    };
    let outcome = lock(&effects.outbox).outcome(&due.delivery, &answer, clock::now());
    if let Some(Decided::DeliveryOutcome { state, detail, .. }) = &outcome {
        tracing::info!(delivery = %due.delivery, channel = %due.channel, ?state, detail, "delivery");
        metrics::counter!("opmas_deliveries_total", "channel" => due.channel.to_string(), "state" => format!("{state:?}").to_lowercase()).increment(1);
    }
    effects.record(outcome.into_iter().collect()).await;
    lock(&effects.outbox).release(&due.delivery);
    effects.delivery_news.notify_one();
}

fn notice(effects: &Effects, due: &Due) -> Notice {
    let open = lock(&effects.open);
    let findings: Vec<_> = due.findings.iter().filter_map(|id| open.get(id)).collect();
    let done = due.findings.iter().flat_map(|id| open.done(id)).collect();
    Notice::of_findings(findings, &due.route, &due.channel, due.at, done)
}
