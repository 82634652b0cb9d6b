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
use crate::executor::{Reply, Request};
use crate::model::{OutcomeState, Posture};

/// Devices that are looked at once.
const MAX_AT_ONCE: usize = 8;
/// How often a device that is well is looked at.
const WELL: Duration = Duration::from_secs(300);
/// How often a device that is not well is looked at.
const UNWELL: Duration = Duration::from_secs(30);
/// How often it is looked for devices whose time has come.
const LOOK: Duration = Duration::from_secs(5);

/// Looks at devices until `stop`, while something may be carried out on them.
pub(super) async fn run(effects: Arc<Effects>, hands: Arc<Hands>, mut content: watch::Receiver<Arc<Content>>, status: Status, stop: CancellationToken) {
    let mut due: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
    let mut unwell: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut looking = JoinSet::new();
    let mut inventory = content.borrow().inventory.clone();
    loop {
        let idle = effects.posture() == Posture::Observe;
        let names: Vec<Arc<str>> = inventory.devices.iter().filter(|_| !idle).map(|device| device.name.clone()).collect();
        for gone in due.keys().filter(|name| !names.contains(name)) {
            status.clear(&part(gone));
        }
        due.retain(|name, _| names.contains(name));
        unwell.retain(|name| names.contains(name));
        let now = Instant::now();
        for name in names {
            if looking.len() < MAX_AT_ONCE && due.get(&name).is_none_or(|at| *at <= now) {
                // Until its answer it is not looked at again.
                due.insert(name.clone(), now + WELL);
                looking.spawn(look(hands.clone(), name));
            }
        }
        tokio::select! {
            Some(Ok((name, reply))) = looking.join_next() => {
                let well = tell(&status, &name, &reply);
                if !well {
                    unwell.insert(name.clone());
                } else if unwell.remove(&name) {
                    // It may have come back without what held there.
                    lock(&effects.leases).look_at(&name, clock::now());
                    effects.lease_news.notify_one();
                }
                due.insert(name, Instant::now() + if well { WELL } else { UNWELL });
            }
            changed = content.changed() => {
                if changed.is_err() {
                    return;
                }
                let new = content.borrow_and_update().inventory.clone();
                if std::mem::replace(&mut inventory, new) != inventory {
                    due.clear();
                }
            }
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn look(hands: Arc<Hands>, name: Arc<str>) -> (Arc<str>, Reply) {
    let reply = hands.perform(Request::Check { device: name.clone() }).await;
    (name, reply)
}

fn part(name: &str) -> String {
    format!("reaching {name}")
}

/// Says how it is with a device; whether it is well.
fn tell(status: &Status, name: &str, reply: &Reply) -> bool {
    if reply.outcome.state == OutcomeState::Enforced {
        status.clear(&part(name));
        return true;
    }
    tracing::warn!(device = name, detail = reply.outcome.detail, "actions cannot run on a device now");
    status.set(&part(name), Gravity::Degraded, format!("{}; `opmas device check {name}` looks again at once", reply.outcome.detail));
    false
}
