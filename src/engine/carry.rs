//! Steps on devices are carried out: each attempt is on disk before the executor hears of it, and accounted for after it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::effects::lock;
use super::hand::{Order, Wish};
use super::place::{Abreast, Place};
use super::posture::PostureState;
use super::runs::{FIRST_PAUSE, Runner, ended, fits, its_time, outcome, remedy, tried};
use super::status::Gravity;
use crate::clock;
use crate::executor::{Reach, Reply, Request, Task};
use crate::model::{Decided, Finding, Outcome, OutcomeState, Span, Time, Verdict};
use crate::playbook::{OPMAS, Own, Run, RunStep, StepState};

/// How much earlier than the step's own end a device may say that its effect ends: it counts in whole seconds.
const ROUNDED: Span = Span::secs(2);
/// Longest pause before something out of reach is tried again; the first is [`FIRST_PAUSE`], doubled each time.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Tries of a step that comes to nothing, about a quarter of an hour.
const MAX_TRIES: u32 = 20;
/// How long a device may be out of reach before steps no longer wait for it.
const PATIENCE: Span = Span::secs(900);

/// A run of which several steps are under way; never locked while something is waited for.
type Shared<'a> = Mutex<&'a mut Run>;

impl Runner {
    /// The same while several steps of the run are under way.
    async fn record_shared(&self, run: &Shared<'_>, records: Vec<Decided>) -> bool {
        if !fits(&mut lock(run), &records) {
            return false;
        }
        self.effects.record(records).await;
        true
    }

    /// All steps that the script asked for at once are carried out side by side; each records for itself. `begun` has those whose attempt is
    /// recorded, and which no device has heard of.
    pub(super) async fn carry_out_all(
        &self,
        run: &mut Run,
        finding: &Finding,
        begun: BTreeSet<Arc<str>>,
        (place, wanted): (&Place, &watch::Receiver<Option<Order>>),
    ) -> bool {
        let steps: Vec<(Arc<str>, bool)> = run.carried_out().map(|(key, unaccounted)| (key.clone(), unaccounted)).collect();
        let (shared, abreast) = (Mutex::new(run), Abreast::new(place, &self.stop, wanted, steps.len()));
        let each = steps.iter().map(async |(key, unaccounted)| {
            let task = self.task(&lock(&shared), key);
            let records = match &task {
                Some(task) => self.carry_out(&shared, finding, (key, task), (!unaccounted, begun.contains(key)), &abreast).await,
                None => Vec::new(),
            };
            abreast.ended();
            task.iter().for_each(|task| self.status.clear(&waiting_for(task)));
            self.record_shared(&shared, records).await
        });
        futures_util::future::join_all(each).await.into_iter().all(|taken| taken)
    }

    /// Carries a step out, or finds out first what became of the last attempt. Each attempt is on disk before the executor hears of
    /// it (O7). Empty when opmas ends meanwhile: then it is settled at the next start.
    /// With `begun` the first attempt is recorded, and nothing has come of it.
    async fn carry_out(
        &self,
        run: &Shared<'_>,
        finding: &Finding,
        (key, task): (&Arc<str>, &Task),
        (settled, mut begun): (bool, bool),
        abreast: &Abreast<'_>,
    ) -> Vec<Decided> {
        let mut settled = settled || begun;
        let (over, its_time) = {
            let run = lock(run);
            self.pinned(&run).map(|playbook| (run.counts_from().plus(playbook.timeout), its_time(&playbook))).unzip()
        };
        // What was tried before opmas was started anew counts.
        let (mut tries, mut said) = lock(run).step(key).filter(|_| settled).map(|step| step.tried.clone()).unwrap_or_default();
        let mut waited = false;
        while tries < MAX_TRIES {
            if self.stop.is_cancelled() {
                return Vec::new();
            }
            if waited && over.is_some_and(|over| over <= clock::now()) {
                break;
            }
            let attempted_before = lock(run).step(key).is_some_and(|step| step.attempts > 0);
            match abreast.wanted.borrow().as_ref().filter(|_| waited || begun) {
                Some(order) if order.wish == Wish::Pause || !attempted_before => return Vec::new(),
                Some(order) if settled => {
                    let last = if said.is_empty() { String::new() } else { format!(", the last try: {said}") };
                    return vec![ended(&lock(run), key, OutcomeState::Failed, &format!("{}; nothing was changed{last}", order.said("given up")))];
                }
                Some(_) => break,
                None => {}
            }
            let posture = self.effects.posture.subscribe();
            if settled {
                let still = self.still(&lock(run), finding, key);
                if let Err(why) = still {
                    return vec![ended(&lock(run), key, OutcomeState::Refused, &why)];
                }
                if self.end(&lock(run), task).is_some_and(|end| end <= clock::now()) {
                    return vec![ended(
                        &lock(run),
                        key,
                        OutcomeState::Refused,
                        "its effect would have ended before it could be carried out: its time counts from the beginning of the run",
                    )];
                }
            }
            waited = true;
            let shut = self.hands.away().borrow().get(&task.device).cloned();
            if let Some(shut) = shut {
                said = shut.to_string();
                // It has gone away since; while it is waited for, no attempt is unaccounted for.
                let tried = if std::mem::take(&mut begun) { tried(&lock(run), key, &said) } else { None };
                if !self.record_shared(run, tried.into_iter().collect()).await {
                    return Vec::new();
                }
                let patient = shut.since.plus(PATIENCE);
                if patient <= clock::now() {
                    break;
                }
                tracing::warn!(device = %task.device, tries, detail = said, "a step waits");
                let until = over.map_or(patient, |over| over.min(patient));
                if let Err(why) = abreast.wait(self.comes_back(task, until, posture, abreast.wanted)).await {
                    said = why;
                    break;
                }
                continue;
            }
            tries += 1;
            let reply = if settled {
                let attempt = if std::mem::take(&mut begun) { None } else { Some(attempted(&lock(run), key)) };
                if !self.record_shared(run, attempt.into_iter().collect()).await {
                    return Vec::new();
                }
                self.perform(Request::Apply(task.clone())).await
            } else {
                self.perform(Request::Verify(task.clone())).await
            };
            let own = &*task.device == OPMAS;
            said.clone_from(&reply.outcome.detail);
            let pause = match (settled, reply.outcome.state) {
                // There is nothing to read back.
                (_, OutcomeState::Unknown) if own => return vec![ended(&lock(run), key, OutcomeState::Unknown, &said)],
                // A command was sent and its end was not seen.
                (true, OutcomeState::Unknown) => {
                    settled = false;
                    false
                }
                // Nothing was sent: the device, or the executor, is out of reach.
                (true, OutcomeState::Failed) if reply.commands.is_empty() => {
                    let tried = tried(&lock(run), key, &said);
                    if !self.record_shared(run, tried.into_iter().collect()).await {
                        return Vec::new();
                    }
                    true
                }
                // Nothing of it is there, or only what an earlier step left and ends too soon: it may be carried out again.
                (false, OutcomeState::Undone) => {
                    settled = true;
                    false
                }
                (false, OutcomeState::Enforced | OutcomeState::Partial) if is_older(&reply.outcome, self.end(&lock(run), task)) => {
                    settled = true;
                    false
                }
                (true, _) | (false, OutcomeState::Enforced | OutcomeState::Partial) => return self.outcome(run, key, task, reply, !settled).await,
                (false, _) => true,
            };
            // A device that is out of reach says itself when it is to be tried again.
            if pause
                && !matches!(reply.reach, Reach::Shut { .. })
                && let Err(why) = abreast.wait(self.pause(tries, task, &reply, abreast.wanted)).await
            {
                said = why;
                break;
            }
        }
        let out_of_time = its_time.filter(|_| over.is_some_and(|over| over <= clock::now()));
        let why = out_of_time.map_or_else(String::new, |its_time| format!("the run waits no longer, {its_time}; "));
        if settled && &*task.device == OPMAS {
            return failed(&lock(run), key, &format!("{why}tried {tries} times: {said}"));
        }
        if settled {
            return failed(&lock(run), key, &format!("{why}nothing was changed, the device stayed out of reach: {said}"));
        }
        vec![ended(&lock(run), key, OutcomeState::Unknown, &format!("{why}the device could not be asked what became of it: {said}"))]
    }

    /// The outcome with its evidence, the lease when the effect has a lifetime, and the end of the one whose effect it took away.
    async fn outcome(&self, run: &Shared<'_>, key: &Arc<str>, task: &Task, reply: Reply, read_back: bool) -> Vec<Decided> {
        let mut end = reply.outcome;
        if read_back {
            // What was found there was made by an attempt before; its time has run since.
            end.until = self.end(&lock(run), task);
        }
        if let Some(read) = reply.evidence {
            self.keep(read, &mut end).await;
        }
        let (run, mut leases) = (lock(run), lock(&self.effects.leases));
        let step = run.step(key).map(|step| &step.step);
        let lease = step.and_then(|step| leases.granted(step, &end).or_else(|| leases.ended_by(step, &end)));
        if lease.is_none() && end.evidence.is_none() {
            // What was done there may have taken effects away.
            leases.look_at(&task.device, clock::now());
        }
        [outcome(&run, key, end)].into_iter().chain(lease).collect()
    }

    /// Keeps what was read beside the ledger, which has its hash.
    async fn keep(&self, read: String, end: &mut Outcome) {
        let evidence = self.evidence.clone();
        match tokio::task::spawn_blocking(move || evidence.keep(read.as_bytes())).await {
            Ok(Ok(hash)) => end.evidence = Some(hash.into()),
            Ok(Err(error)) => end.detail = format!("{}; what was read could not be kept: {error}", end.detail),
            Err(error) => end.detail = format!("{}; what was read could not be kept: {error}", end.detail),
        }
    }

    /// When the effect would end, counted from the run's beginning without what it waited for persons; `None` for an action without a lifetime.
    fn end(&self, run: &Run, task: &Task) -> Option<Time> {
        let content = self.content.borrow().clone();
        let action = content.catalogue.get(&task.action)?;
        let params = action.params(&task.params).ok()?;
        action.lifetime(&params).map(|lifetime| run.counts_from().plus(lifetime))
    }

    /// Whether a person may say what became of a step: not of an effect that ends by itself, which must be read back to be accounted for.
    ///
    /// # Errors
    /// Why not, one sentence.
    pub(super) fn is_for_a_person(&self, run: &Run, step: &RunStep, again: bool) -> Result<(), String> {
        let key = &step.step.key;
        if self.task(run, key).is_some_and(|task| self.end(run, &task).is_some()) {
            return Err(format!("the device is asked what became of {}: {}", step.step.sentence(), remedy(run, step)));
        }
        let finding = lock(&self.effects.open).get(run.finding()).ok_or("its finding is not kept")?;
        if again { self.still(run, &finding, key) } else { Ok(()) }
    }

    fn task(&self, run: &Run, key: &Arc<str>) -> Option<Task> {
        let step = &run.step(key)?.step;
        let id = format!("{}:{key}", run.id()).into();
        Some(Task { id, device: step.device.clone(), action: step.action.clone(), params: step.params.clone(), verdict: Verdict::Auto })
    }

    /// Waits for a device that is out of reach, not beyond a time; ended early by a person, by another posture, and by the end of opmas.
    async fn comes_back(&self, task: &Task, until: Time, mut posture: watch::Receiver<PostureState>, wanted: &watch::Receiver<Option<Order>>) {
        let (mut away, mut wanted) = (self.hands.away(), wanted.clone());
        loop {
            match away.borrow_and_update().get(&task.device) {
                Some(shut) => self.status.set(&waiting_for(task), Gravity::Degraded, format!("{} waits: {shut}", task.action)),
                None => return,
            }
            tokio::select! {
                Ok(()) = away.changed() => {}
                () = tokio::time::sleep(until.since(clock::now()).to_std()) => return,
                _ = wanted.changed() => return,
                _ = posture.changed() => return,
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Before the next try; ended early by a person, by another posture, and by the end of opmas.
    async fn pause(&self, tries: u32, task: &Task, reply: &Reply, wanted: &watch::Receiver<Option<Order>>) {
        let device = (*task.device != *OPMAS).then_some(tracing::field::display(&task.device));
        tracing::warn!(device, action = %task.action, tries, detail = reply.outcome.detail, "a step waits");
        self.status.set(&waiting_for(task), Gravity::Degraded, format!("{} waits: {}", task.action, reply.outcome.detail));
        let (mut wanted, mut posture) = (wanted.clone(), self.effects.posture.subscribe());
        tokio::select! {
            () = self.sleep(FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(MAX_PAUSE)) => {}
            _ = wanted.changed() => {}
            _ = posture.changed() => {}
        }
    }
}

fn attempted(run: &Run, key: &Arc<str>) -> Decided {
    let attempt = run.step(key).map_or(0, |step| step.attempts) + 1;
    Decided::Attempt { run: run.id().clone(), key: key.clone(), attempt, at: clock::now() }
}

/// A step comes to nothing; one that was never tried, since its device was known to be out of reach, too.
fn failed(run: &Run, key: &Arc<str>, why: &str) -> Vec<Decided> {
    let new = run.step(key).is_some_and(|step| step.state == StepState::Intended);
    let attempt = new.then(|| attempted(run, key));
    attempt.into_iter().chain([ended(run, key, OutcomeState::Failed, why)]).collect()
}

/// Whether what was read back is not this step's doing: that would end at `end`, counted from the run's beginning, at the earliest.
fn is_older(found: &Outcome, end: Option<Time>) -> bool {
    found.until.zip(end).is_some_and(|(until, end)| until.plus(ROUNDED) < end)
}

/// The part of the status that names a device which a step waits for.
fn waiting_for(task: &Task) -> String {
    match Own::of(&task.device, &task.action, &task.params) {
        Some(Ok((Own::Request { to }, _))) => format!("endpoint {to}"),
        _ => format!("step on {}", task.device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_before_the_step_would_was_left_by_an_earlier_one() {
        let at = |seconds| Time(0).plus(Span::secs(seconds));
        let found = |until| Outcome { until, ..Outcome::new(OutcomeState::Partial, "", at(0)) };
        assert!(is_older(&found(Some(at(40))), Some(at(1_200))));
        assert!(!is_older(&found(Some(at(1_199))), Some(at(1_200))), "whole seconds");
        assert!(!is_older(&found(Some(at(1_230))), Some(at(1_200))), "attempted half a minute after the run began");
        assert!(!is_older(&found(None), Some(at(1_200))) && !is_older(&found(Some(at(40))), None), "without a lifetime");
    }
}
