//! Places for runs that are under way: a run that only waits for what is out of reach gives its own up, so that it holds up no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, futures::Notified, watch};
use tokio_util::sync::CancellationToken;

use super::effects::lock;
use super::hand::Order;
use crate::config::Content;
use crate::playbook::{About, Run};

/// Runs that are under way at once; further ones wait in their order.
const MAX_RUNNING: usize = 64;
/// Runs that wait for what is out of reach; a step of a further one fails.
const MAX_AWAY: usize = 1_000;

/// All places.
pub(super) struct Places {
    content: watch::Receiver<Arc<Content>>,
    taken: Mutex<Taken>,
    news: Notify,
}

/// Playbook and entity of each run, by its id.
#[derive(Default)]
struct Taken {
    under_way: BTreeMap<Arc<str>, About>,
    away: BTreeMap<Arc<str>, About>,
}

impl Taken {
    fn tell(&self) {
        metrics::gauge!("opmas_runs_out_of_reach").set(u32::try_from(self.away.len()).unwrap_or(u32::MAX));
    }
}

impl Places {
    pub(super) fn new(content: watch::Receiver<Arc<Content>>) -> Places {
        Places { content, taken: Mutex::default(), news: Notify::new() }
    }

    /// Resolves when a place has become free since this was called.
    pub(super) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }

    /// Whether none is free.
    pub(super) fn are_full(&self) -> bool {
        lock(&self.taken).under_way.len() >= MAX_RUNNING
    }

    /// A place for a run beside the others, as their number and its playbook allow.
    pub(super) fn take(self: &Arc<Self>, run: &Run) -> Option<Place> {
        let entered = self.enter(run.id(), &(run.playbook().clone(), run.about().cloned()));
        entered.then(|| Place { places: self.clone(), run: run.id().clone() })
    }

    fn enter(&self, run: &Arc<str>, about: &About) -> bool {
        let (content, mut taken) = (self.content.borrow().clone(), lock(&self.taken));
        let room = content.playbooks.get(&about.0).is_none_or(|playbook| playbook.has_room(about.1.as_ref(), taken.under_way.values()));
        if !room || taken.under_way.len() >= MAX_RUNNING {
            return false;
        }
        taken.away.remove(run);
        taken.under_way.insert(run.clone(), about.clone());
        taken.tell();
        true
    }
}

/// One run's place, until it is dropped.
pub(super) struct Place {
    places: Arc<Places>,
    run: Arc<str>,
}

impl Place {
    /// The run waits for what is out of reach; `false` when too many do.
    fn step_out(&self) -> bool {
        let mut taken = lock(&self.places.taken);
        if taken.away.len() >= MAX_AWAY {
            return false;
        }
        if let Some(about) = taken.under_way.remove(&self.run) {
            taken.away.insert(self.run.clone(), about);
        }
        taken.tell();
        drop(taken);
        self.places.news.notify_waiters();
        true
    }

    /// Waits until the run has a place again, or opmas ends.
    async fn step_in(&self, stop: &CancellationToken) {
        loop {
            let news = self.places.news();
            let Some(about) = lock(&self.places.taken).away.get(&self.run).cloned() else { return };
            if self.places.enter(&self.run, &about) {
                return;
            }
            tokio::select! {
                () = news => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        taken.under_way.remove(&self.run);
        taken.away.remove(&self.run);
        taken.tell();
        drop(taken);
        self.places.news.notify_waiters();
    }
}

/// The steps that a run has asked for at once, of which some wait: it gives its place up while all that have not ended do.
pub(super) struct Abreast<'a> {
    place: &'a Place,
    stop: &'a CancellationToken,
    /// What a person wants of the run.
    pub(super) wanted: &'a watch::Receiver<Option<Order>>,
    /// Those that have not ended, and those of them that wait.
    steps: Mutex<(usize, usize)>,
}

impl<'a> Abreast<'a> {
    pub(super) fn new(place: &'a Place, stop: &'a CancellationToken, wanted: &'a watch::Receiver<Option<Order>>, steps: usize) -> Abreast<'a> {
        Abreast { place, stop, wanted, steps: Mutex::new((steps, 0)) }
    }

    /// A step waits; why it must not, when it must not.
    pub(super) async fn wait(&self, waited: impl Future<Output = ()>) -> Result<(), String> {
        let all = self.count(|steps| steps.1 += 1);
        if all && !self.place.step_out() {
            self.count(|steps| steps.1 -= 1);
            return Err(format!("{MAX_AWAY} runs wait for what is out of reach already"));
        }
        waited.await;
        self.count(|steps| steps.1 -= 1);
        self.place.step_in(self.stop).await;
        Ok(())
    }

    /// A step has ended.
    pub(super) fn ended(&self) {
        if self.count(|steps| steps.0 -= 1) {
            // A run too many that waits is no worse than one too many that is under way.
            self.place.step_out();
        }
    }

    /// Whether all that have not ended wait now.
    fn count(&self, change: impl FnOnce(&mut (usize, usize))) -> bool {
        let mut steps = lock(&self.steps);
        change(&mut steps);
        steps.0 > 0 && steps.0 == steps.1
    }
}
