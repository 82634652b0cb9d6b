//! Leases: effects are read back while they should hold, asserted again when they are gone, and undone when they end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, lock};
use super::hand::{NotDone, said};
use super::hands::Hands;
use super::status::{Gravity, Status};
use crate::action::{Guard, Lease, LeaseId, LeaseOp, LeaseWork};
use crate::clock;
use crate::config::Content;
use crate::executor::{Request, Task};
use crate::model::{LeaseChange, Outcome, OutcomeState, Posture, Span, Verdict};

/// Longest sleep between two looks at the leases.
const LOOK: Duration = Duration::from_secs(60);

/// Effects on one device that are looked after at once: half of what its queue holds, so that steps have room; the others wait in their order.
const AT_A_DEVICE: usize = 32;

/// How long a person waits for what the device says.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it has said so.
const GLANCE: Duration = Duration::from_millis(50);

/// What must not be touched, as the configuration and the inventory have it now.
pub(super) struct Protected {
    pub(super) content: watch::Receiver<Arc<Content>>,
}

impl Protected {
    /// Ends what acts on an address that is protected by now.
    async fn look(&mut self, effects: &Effects) {
        let content = self.content.borrow_and_update().clone();
        let guard = Guard::new(&content.guard, &content.inventory, []);
        let over = lock(&effects.leases).protected(&guard, clock::now());
        if !over.is_empty() {
            tracing::warn!(effects = over.len(), "effects act on addresses that are protected by now, and are ended");
            effects.record(over).await;
        }
    }
}

/// Looks after leases until `stop`; then waits for what is under way.
pub(super) async fn run(effects: Arc<Effects>, hands: Arc<Hands>, mut protected: Protected, status: Status, stop: CancellationToken) {
    let (mut under_way, mut places) = (JoinSet::new(), BTreeMap::new());
    let mut told = BTreeSet::new();
    protected.look(&effects).await;
    while !stop.is_cancelled() {
        for work in lock(&effects.leases).due(clock::now()) {
            let place: &Arc<Semaphore> = places.entry(work.id.device.clone()).or_insert_with(|| Arc::new(Semaphore::new(AT_A_DEVICE)));
            under_way.spawn(carry_out(effects.clone(), hands.clone(), place.clone(), work));
        }
        told = tell(&effects, &status, &told);
        let now = clock::now();
        let wake = lock(&effects.leases).wakes(now);
        let sleep = wake.map_or(LOOK, |at| at.since(now).to_std().min(LOOK));
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = effects.lease_news.notified() => {}
            Some(_) = under_way.join_next() => {}
            Ok(()) = protected.content.changed() => protected.look(&effects).await,
            () = stop.cancelled() => {}
        }
    }
    while under_way.join_next().await.is_some() {}
}

async fn carry_out(effects: Arc<Effects>, hands: Arc<Hands>, place: Arc<Semaphore>, work: LeaseWork) {
    // It is never closed.
    let _place = place.acquire().await;
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
        LeaseOp::Reassert => (effects.posture() != Posture::Observe && clock::now() < work.until).then_some(Request::Apply(task)),
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
    Outcome::new(OutcomeState::Refused, "the posture is observe: it is not put back", clock::now())
}

/// What a person wants of leases, and of which: those that are given must both fit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseOrder {
    /// A lease's name, or the unique beginning of it.
    pub lease: Option<String>,
    /// All of this device.
    pub device: Option<String>,
    /// They hold so much longer; without it they end now.
    pub longer: Option<Span>,
    /// Why; may be empty.
    pub because: String,
}

/// What has become of a lease that a person changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseTold {
    /// One sentence.
    pub text: String,
    /// Whether the device has read it back; else it is tried again, and `opmas lease list` says how it goes.
    pub done: bool,
}

/// Does it, waits a while for the devices, and says for each lease what has become of it.
///
/// # Errors
/// There is none, several begin so, or one would hold longer than its action allows.
pub(super) async fn by_hand(effects: &Effects, order: &LeaseOrder, by: &str) -> Result<Vec<LeaseTold>, NotDone> {
    let (records, ids) = changes(effects, order, by)?;
    if !effects.record(records).await {
        return Err(NotDone::NotNow("it cannot be recorded".to_owned()));
    }
    let waits = |id: &LeaseId| lock(&effects.leases).get(id).is_some_and(|lease| !lease.is_settled(clock::now()) && lease.trouble.is_none());
    let all_said = async {
        while ids.iter().any(waits) {
            tokio::time::sleep(GLANCE).await;
        }
    };
    // What has not been said by then is told as it is.
    let _ = tokio::time::timeout(PATIENCE, all_said).await;
    Ok(ids.iter().map(|id| as_it_is(lock(&effects.leases).get(id), id)).collect())
}

fn changes(effects: &Effects, order: &LeaseOrder, by: &str) -> Result<(Vec<crate::model::Decided>, Vec<LeaseId>), NotDone> {
    let (now, leases) = (clock::now(), lock(&effects.leases));
    let named = |lease: &&Lease| order.lease.as_ref().is_none_or(|name| lease.name().starts_with(&**name));
    let there = |lease: &&Lease| order.device.as_ref().is_none_or(|device| *lease.id.device == **device);
    let found: Vec<&Lease> = leases.active().filter(named).filter(there).collect();
    match found.len() {
        0 => return Err(NotDone::Unknown("there is no such effect; see `opmas lease list`".to_owned())),
        1 => {}
        _ if order.lease.is_some() => return Err(NotDone::Unknown("several effects have a name that begins so; give more of it".to_owned())),
        _ => {}
    }
    let change = |lease: &&Lease| match order.longer {
        None => Ok(lease.changed(LeaseChange::Revoked, now, now, &said("ended", by, &order.because))),
        Some(_) if lease.until <= now => {
            Err(NotDone::NotNow(format!("{} {} on {} has ended, and is being undone", lease.id.action, lease.id.effect, lease.id.device)))
        }
        Some(longer) => {
            let until = lease.until.plus(longer);
            match leases.longest(&lease.id.action) {
                Some(longest) if until.since(now) > longest => Err(NotDone::NotNow(format!("{} holds {longest} at most", lease.id.action))),
                _ => Ok(lease.changed(LeaseChange::Extended, until, now, &said("extended", by, &order.because))),
            }
        }
    };
    let records = found.iter().map(change).collect::<Result<_, _>>()?;
    Ok((records, found.iter().map(|lease| lease.id.clone()).collect()))
}

fn as_it_is(lease: Option<&Lease>, id: &LeaseId) -> LeaseTold {
    let (came, done) = match lease {
        None => ("ended, and read back that it is gone".to_owned(), true),
        Some(lease) => match (&lease.trouble, clock::now() < lease.until) {
            (None, true) => (format!("holds until {}; {}", lease.until, lease.detail), true),
            (Some(why), true) => (format!("is to hold until {}, but {why}", lease.until), false),
            (trouble, false) => (format!("is being ended; {}", trouble.as_deref().unwrap_or("the device has not answered yet")), false),
        },
    };
    LeaseTold { text: format!("{} {} on {}: {came}", id.action, id.effect, id.device), done }
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
