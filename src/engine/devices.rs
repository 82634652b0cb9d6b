//! Whether devices can be reached: looked at from the start on where actions may run, so that a wrong host key or a refused login is
//! known before it is needed; the connection is warm then, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::effects::{Effects, lock};
use super::hands::Hands;
use super::status::{Gravity, Status};
use crate::clock;
use crate::config::Content;
use crate::executor::{Reach, Reply, Request};
use crate::model::{OutcomeState, Posture, Time};

/// Devices that are looked at once.
const MAX_AT_ONCE: usize = 8;
/// How often a device that is well is looked at.
const WELL: Duration = Duration::from_secs(300);
/// How often a device that is not well is looked at, at the least; one that does not answer, when the executor says.
const UNWELL: Duration = Duration::from_secs(30);
/// The least time between two looks at a device that does not answer.
const SOON: Duration = Duration::from_secs(1);
/// How often it is looked for devices whose time has come, at the least.
const LOOK: Duration = Duration::from_secs(5);

/// Looks at devices until `stop`, while something may be carried out on them.
pub(super) async fn run(effects: Arc<Effects>, hands: Arc<Hands>, mut content: watch::Receiver<Arc<Content>>, status: Status, stop: CancellationToken) {
    let mut due: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
    let mut unwell: BTreeSet<Arc<str>> = BTreeSet::new();
    let (mut looking, mut under_way) = (JoinSet::new(), BTreeSet::new());
    let mut inventory = content.borrow().inventory.clone();
    let mut away = hands.away();
    loop {
        let idle = effects.posture() == Posture::Observe;
        let names: Vec<Arc<str>> = inventory.devices.iter().filter(|_| !idle).map(|device| device.name.clone()).collect();
        for gone in due.keys().filter(|name| !names.contains(name)) {
            status.clear(&part(gone));
        }
        due.retain(|name, _| names.contains(name));
        unwell.retain(|name| names.contains(name));
        let now = Instant::now();
        for (name, shut) in away.borrow_and_update().iter().filter(|_| !idle) {
            // A step may have found it so.
            due.entry(name.clone()).and_modify(|at| *at = (*at).min(now + until(shut.again)));
        }
        for name in names {
            if under_way.len() < MAX_AT_ONCE && due.get(&name).is_none_or(|at| *at <= now) && under_way.insert(name.clone()) {
                due.insert(name.clone(), now + WELL);
                looking.spawn(look(hands.clone(), name));
            }
        }
        let next =
            due.iter().filter(|(name, _)| under_way.len() < MAX_AT_ONCE && !under_way.contains(*name)).map(|(_, at)| at.saturating_duration_since(now)).min();
        tokio::select! {
            Some(Ok((name, reply))) = looking.join_next() => {
                under_way.remove(&name);
                let well = tell(&status, &name, &reply);
                if !well {
                    unwell.insert(name.clone());
                } else if unwell.remove(&name) {
                    // It may have come back without what held there.
                    lock(&effects.leases).look_at(&name, clock::now());
                    effects.lease_news.notify_one();
                }
                let wait = match &reply.reach {
                    _ if well => WELL,
                    Reach::Shut { again, .. } => until(*again),
                    Reach::Open | Reach::Unknown => UNWELL,
                };
                due.insert(name, Instant::now() + wait);
            }
            Ok(()) = away.changed() => {}
            changed = content.changed() => {
                if changed.is_err() {
                    return;
                }
                let new = content.borrow_and_update().inventory.clone();
                if std::mem::replace(&mut inventory, new) != inventory {
                    due.clear();
                }
            }
            () = tokio::time::sleep(next.map_or(LOOK, |next| next.min(LOOK))) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Bounded, since clocks are set.
fn until(again: Time) -> Duration {
    again.since(clock::now()).to_std().clamp(SOON, UNWELL)
}

async fn look(hands: Arc<Hands>, name: Arc<str>) -> (Arc<str>, Reply) {
    let reply = hands.perform(Request::Check { device: name.clone() }).await;
    (name, reply)
}

fn part(name: &str) -> String {
    format!("reaching {name}")
}

/// Says how it is with a device after a check that a person asked for; it may be well again before it is looked at anyway.
pub(super) fn checked(effects: &Effects, status: &Status, name: &str, reply: &Reply) {
    if effects.posture() != Posture::Observe {
        tell(status, name, reply);
    }
}

/// Says how it is with a device; whether it is well: actions can run on it.
fn tell(status: &Status, name: &str, reply: &Reply) -> bool {
    let runs = |report: &crate::executor::Report| report.problems.is_empty();
    if reply.outcome.state == OutcomeState::Enforced || reply.report.as_ref().is_some_and(runs) {
        status.clear(&part(name));
        return true;
    }
    tracing::warn!(device = name, detail = reply.outcome.detail, "actions cannot run on a device now");
    let again = match &reply.reach {
        Reach::Shut { again, .. } => format!("; it is tried again from {} on", again.brief()),
        Reach::Open | Reach::Unknown => String::new(),
    };
    status.set(&part(name), Gravity::Degraded, format!("{}{again}; `opmas device check {name}` looks again at once", reply.outcome.detail));
    false
}
