//! Deliveries: what is due is sent, each channel by itself, and what the other side says is recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, lock};
use super::status::{Gravity, Status};
use crate::alert::{Channels, Due, Notice, SendError};
use crate::clock;
use crate::config::Content;
use crate::model::{Decided, DeliveryState, Span};

/// How long a message waits for the playbooks that run for its finding, so that it can say what they did.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether they have ended.
const GLANCE: Duration = Duration::from_millis(50);
/// Longest sleep between two looks at the outbox.
const LOOK: Duration = Duration::from_secs(60);

/// Sends what is due until `stop`; then waits for what is being sent.
pub(super) async fn run(effects: Arc<Effects>, content: watch::Receiver<Arc<Content>>, stop: CancellationToken) {
    look_at_channels(&effects.status, &content.borrow().channels);
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

/// A secret that is not there should be known before there is something to tell.
fn look_at_channels(status: &Status, channels: &Channels) {
    for channel in channels.iter().filter(|channel| channel.enabled) {
        if let Err(fault) = channel.check() {
            tracing::warn!(%fault, "a channel cannot send");
            status.set(&format!("channel {}", channel.name), Gravity::Degraded, fault.to_string());
        }
    }
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
    wait_for_runs(&effects, &due).await;
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
        tell(&effects.status, &due, *state, detail);
        metrics::counter!("opmas_deliveries_total", "channel" => due.channel.to_string(), "state" => format!("{state:?}").to_lowercase()).increment(1);
    }
    effects.record(outcome.into_iter().collect()).await;
    lock(&effects.outbox).release(&due.delivery);
    effects.delivery_news.notify_one();
}

/// A message that says what was done is worth a moment; what takes longer is said to be under way.
async fn wait_for_runs(effects: &Effects, due: &Due) {
    let until = due.at.plus(Span::millis(i64::try_from(PATIENCE.as_millis()).unwrap_or(0)));
    while clock::now() < until && due.findings.iter().any(|id| lock(&effects.open).is_under_way(id)) {
        tokio::time::sleep(GLANCE).await;
    }
}

/// Says in the log, and in the status while a channel does not take messages, how a delivery went.
fn tell(status: &Status, due: &Due, state: DeliveryState, detail: &str) {
    let part = format!("channel {}", due.channel);
    if state == DeliveryState::Sent {
        tracing::info!(delivery = %due.delivery, channel = %due.channel, detail, "a message was taken");
        return status.clear(&part);
    }
    tracing::warn!(delivery = %due.delivery, channel = %due.channel, ?state, detail, "a message was not taken");
    status.set(&part, Gravity::Degraded, format!("messages do not arrive: {detail}"));
}

fn notice(effects: &Effects, due: &Due) -> Notice {
    let open = lock(&effects.open);
    let findings: Vec<_> = due.findings.iter().filter_map(|id| open.get(id)).collect();
    let done = due.findings.iter().flat_map(|id| open.done(id)).collect();
    let notice = Notice::of_findings(findings, &due.route, &due.channel, due.at, done);
    match &due.of {
        Some(of) => notice.of_alert((**of).clone(), due.findings.clone()),
        None => notice,
    }
}
