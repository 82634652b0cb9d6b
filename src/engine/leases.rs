//! Leases: effects are read back while they should hold, asserted again when they are gone, and undone when they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, lock};
use super::hands::Hands;
use super::status::{Gravity, Status};
use crate::action::{LeaseOp, LeaseWork, Posture};
use crate::clock;
use crate::executor::{Request, Task};
use crate::model::{Outcome, OutcomeState, Verdict};

/// Longest sleep between two looks at the leases.
const LOOK: Duration = Duration::from_secs(60);

/// Looks after leases until `stop`; then waits for what is under way.
pub(super) async fn run(effects: Arc<Effects>, hands: Arc<Hands>, posture: Posture, status: Status, stop: CancellationToken) {
    let mut under_way = JoinSet::new();
    let mut told = BTreeSet::new();
    while !stop.is_cancelled() {
        for work in lock(&effects.leases).due(clock::now()) {
            under_way.spawn(carry_out(effects.clone(), hands.clone(), posture, work));
        }
        told = tell(&effects, &status, &told);
        let wake = lock(&effects.leases).wakes();
        let sleep = wake.map_or(LOOK, |at| at.since(clock::now()).to_std().min(LOOK));
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = effects.lease_news.notified() => {}
            Some(_) = under_way.join_next() => {}
            () = stop.cancelled() => {}
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn carry_out(effects: Arc<Effects>, hands: Arc<Hands>, posture: Posture, work: LeaseWork) {
    let task = Task {
        id: format!("lease:{}:{}", work.id.device, work.id.effect).into(),
        device: work.id.device.clone(),
        action: work.id.action.clone(),
        params: work.params.clone(),
        verdict: Verdict::Auto,
    };
    let request = match work.op {
        LeaseOp::Verify => Some(Request::Verify(task)),
        // What was armed when it was granted and is not any more is not put back; it still ends.
        LeaseOp::Reassert => (posture != Posture::Observe && clock::now() < work.until).then_some(Request::Apply(task)),
        LeaseOp::End => Some(Request::Undo(task)),
    };
    let outcome = match request {
        Some(request) => hands.perform(request).await.outcome,
        None => not_put_back(),
    };
    let now = clock::now();
    let record = lock(&effects.leases).done(&work.id, now, &outcome);
    metrics::counter!("opmas_lease_work_total", "op" => format!("{:?}", work.op).to_lowercase(), "state" => format!("{:?}", outcome.state).to_lowercase())
        .increment(1);
    tracing::debug!(device = %work.id.device, effect = work.id.effect, op = ?work.op, state = ?outcome.state, detail = outcome.detail, "lease");
    effects.record(record.into_iter().collect()).await;
    effects.lease_news.notify_one();
}

fn not_put_back() -> Outcome {
    let detail = "the posture is observe: it is not put back".to_owned();
    Outcome { state: OutcomeState::Refused, detail, at: clock::now(), took_ms: 0, until: None }
}

/// Says in the status which devices have trouble, and takes back what it said of others. Gives the parts that it speaks of now.
fn tell(effects: &Effects, status: &Status, before: &BTreeSet<String>) -> BTreeSet<String> {
    let mut trouble: BTreeMap<String, String> = BTreeMap::new();
    let mut active = 0_u32;
    for lease in lock(&effects.leases).active() {
        active += 1;
        if let Some(why) = &lease.trouble {
            trouble.insert(format!("device {}", lease.id.device), format!("{} {} until {}: {why}", lease.id.action, lease.id.effect, lease.until.brief()));
        }
    }
    metrics::gauge!("opmas_leases_active").set(active);
    before.iter().filter(|part| !trouble.contains_key(*part)).for_each(|part| status.clear(part));
    trouble.iter().for_each(|(part, why)| status.set(part, Gravity::Degraded, why.clone()));
    trouble.into_keys().collect()
}
