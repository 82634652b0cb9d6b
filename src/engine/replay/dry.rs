//! What would follow from a finding, decided as it is live, and never carried out.

use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::Told;
use crate::action::{Budgets, Leases};
use crate::alert::{Alert, Alerts, Outbox};
use crate::config::{Content, Setup};
use crate::engine::decide::caused;
use crate::engine::effects::lock;
use crate::engine::plan::{ASSUMED, Planner};
use crate::engine::policy::{Policy, Used, endpoints, outlets};
use crate::engine::status::Status;
use crate::engine::worker::Worker;
use crate::model::{Decided, DeliveryState, Finding, LeaseChange, Posture, RunState, Span, Time};
use crate::playbook::{Begun, Playbook, Progress};

/// Budgets count the steps of an hour.
pub(super) const LOOKS_BACK: Span = Span::secs(3_600);

/// The part of the engine that is right of the ledger, without the ledger. Its clock is the findings' own time.
pub(super) struct Dry {
    content: Arc<Content>,
    policy: Policy,
    posture: Posture,
    /// Nothing waits in it: what is told is told at once.
    outbox: Outbox,
    alerts: Mutex<Alerts>,
    leases: Mutex<Leases>,
    budgets: Mutex<Budgets>,
    begun: Mutex<Begun>,
    worker: Worker,
    runtime: Runtime,
}

impl Dry {
    /// Before any finding. Scripts run in the worker's process, as they do live; it starts with the first.
    pub(super) fn new(setup: &Setup) -> std::io::Result<Dry> {
        let content = Arc::new(setup.content.clone());
        let settings = &setup.settings;
        // What is configured does not change meanwhile.
        let unchanging = watch::Sender::new(content.clone()).subscribe();
        let policy = Policy { content: unchanging, ceilings: settings.actions.clone(), outlets: outlets(settings), endpoints: endpoints(settings) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let worker = {
            let _here = runtime.enter();
            Worker::start(Status::default())
        };
        let leases = Mutex::new(Leases::new(content.catalogue.clone(), settings.lease.verify_every));
        Ok(Dry {
            alerts: Mutex::default(),
            outbox: Outbox::new(&content.channels),
            policy,
            posture: settings.posture,
            leases,
            budgets: Mutex::default(),
            begun: Mutex::default(),
            worker,
            runtime,
            content,
        })
    }

    /// What time brings before it, the steps of the playbooks that it starts, and then who is told.
    pub(super) fn follows(&self, finding: &Finding) -> Vec<Told> {
        let at = finding.time;
        let mut told = self.until(at);
        let mut begun = lock(&self.begun);
        let decided = caused(&self.content, &self.outbox, &lock(&self.alerts), (&begun, self.posture), finding.clone(), at).records;
        decided.iter().for_each(|one| begun.apply(one));
        for one in &decided {
            if let Decided::Run { run, playbook, .. } = one
                && let Some(playbook) = self.content.playbooks.get(playbook)
            {
                told.extend(self.run(run, playbook, finding, at));
            }
        }
        told.extend(self.tell(&decided));
        told
    }

    /// Alerts that are told again or are over by then.
    pub(super) fn until(&self, at: Time) -> Vec<Told> {
        let mut told = Vec::new();
        loop {
            let due = {
                let alerts = lock(&self.alerts);
                let Some(wake) = alerts.next_wake().filter(|wake| *wake <= at) else { return told };
                alerts.due(&self.outbox, &self.content.channels, wake)
            };
            if due.is_empty() {
                return told;
            }
            told.extend(self.tell(&due));
        }
    }

    /// Takes records of alerts in, with every delivery taken at once, and says what is told.
    fn tell(&self, decided: &[Decided]) -> Vec<Told> {
        let mut alerts = lock(&self.alerts);
        let mut told = Vec::new();
        for one in decided {
            alerts.apply(one);
            if let Decided::Delivery { delivery, route, channel, findings, at, of } = one {
                let (state, detail) = (DeliveryState::Sent, ASSUMED.to_owned());
                alerts.apply(&Decided::DeliveryOutcome { delivery: delivery.clone(), state, detail, at: *at, next: None, receipt: None });
                let (group, state) = of.as_ref().map(|of| (of.group.clone(), of.state)).unwrap_or_default();
                told.push(Told::Alert(Alert { route: route.clone(), channel: channel.clone(), group, state, findings: findings.clone(), at: *at }));
            }
        }
        told
    }

    /// The steps of a playbook's run, and why there are no more when it does not end well.
    pub(super) fn run(&self, run: &Arc<str>, playbook: &Playbook, finding: &Finding, at: Time) -> Vec<Told> {
        self.make_room(at);
        let used = Used { leases: &self.leases, budgets: &self.budgets, posture: self.posture, configured: self.posture, now: at };
        let planner = Planner { worker: &self.worker, policy: &self.policy, used, run, playbook, finding };
        let mut steps = Vec::new();
        let progress = self.runtime.block_on(planner.plan(Vec::new(), &mut steps));
        let mut told: Vec<Told> = steps.into_iter().map(|step| Told::Step(Box::new(step))).collect();
        match progress {
            Ok(progress) => told.extend(ended(run, playbook, &progress)),
            Err(why) => told.push(Told::Note(format!("run {run} of {}: its steps are not known: {why}", playbook.name))),
        }
        lock(&self.budgets).apply(&Decided::RunMoved { run: run.clone(), state: RunState::Done, reason: String::new(), at });
        told
    }

    /// Ends the leases whose time is over, when no further one can be looked after.
    fn make_room(&self, at: Time) {
        let mut leases = lock(&self.leases);
        if leases.has_room() {
            return;
        }
        let over: Vec<Decided> =
            leases.active().filter(|lease| lease.until <= at).map(|lease| lease.changed(LeaseChange::Ended, lease.until, at, "")).collect();
        over.iter().for_each(|lease| drop(leases.apply(lease)));
    }
}

/// How a script ended, when it did not end well.
fn ended(run: &Arc<str>, playbook: &Playbook, progress: &Progress) -> Option<Told> {
    let why = match progress {
        Progress::Done | Progress::Ready(_) => return None,
        Progress::Failed { message, place: Some(place) } => format!("{}:{}:{}: {message}", playbook.file, place.line, place.column),
        Progress::Failed { message, place: None } => message.clone(),
        Progress::Diverged { detail, .. } => detail.clone(),
    };
    Some(Told::Note(format!("run {run} of {} fails: {why}", playbook.name)))
}
