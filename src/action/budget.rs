//! How much a playbook may do: devices in one run, steps in one hour.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Decided, Span, Step, Time, Verdict};

/// Most steps that are counted for a playbook in an hour; a budget cannot be greater.
pub const MAX_PER_HOUR: u32 = 10_000;
/// Most runs whose devices are remembered; the oldest is forgotten first, and can only be one that never ended.
const MAX_RUNS: usize = 10_000;
const HOUR: Span = Span::secs(3600);

/// `budget = { devices = 20, per_hour = 100 }` of a playbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Most devices that one run may act on.
    pub devices: u32,
    /// Most steps that the playbook may have carried out within any hour; at most [`MAX_PER_HOUR`].
    pub per_hour: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { devices: 20, per_hour: 100 }
    }
}

/// Why a step is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OverBudget {
    /// The run has acted on as many devices as it may.
    #[error("{playbook} has acted on {devices} devices in this run, which is its budget (`devices` of `budget` in its header)")]
    Devices {
        /// The playbook.
        playbook: Arc<str>,
        /// The budget.
        devices: u32,
    },
    /// The playbook has had as many steps as it may.
    #[error("{playbook} has had {per_hour} steps within the hour, which is its budget (`per_hour` of `budget` in its header)")]
    PerHour {
        /// The playbook.
        playbook: Arc<str>,
        /// The budget.
        per_hour: u32,
    },
}

/// When a step was decided, its run and its key.
type Counted = (Time, Arc<str>, Arc<str>);

/// Counts what the ledger says was to be carried out. Deterministic: the same records give the same counts.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    /// For each playbook, its steps within the hour.
    steps: BTreeMap<Arc<str>, VecDeque<Counted>>,
    /// For each run, the devices that it acts on.
    devices: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Runs in the order in which they began to act.
    runs: VecDeque<Arc<str>>,
}

/// What opmas does itself uses nothing up, requests to other programs set aside.
fn counts(device: &str, action: &str) -> bool {
    is_on_a_device(device) || action == "http_request"
}

/// No name in `devices.toml` has a space.
fn is_on_a_device(device: &str) -> bool {
    !device.contains(' ')
}

impl Budgets {
    /// Takes a ledger record into account.
    pub fn apply(&mut self, decided: &Decided) {
        match decided {
            Decided::Intent { step, at } if step.decision == Verdict::Auto && counts(&step.device, &step.action) => {
                self.count(&step.playbook, (&step.run, &step.key), &step.device, *at)
            }
            // What waits for a person counts once it is approved: whoever can make steps wait must not use the budget up.
            Decided::Answered { run, playbook, approved: true, plan, at, .. } => {
                plan.iter().filter(|step| counts(&step.device, &step.action)).for_each(|step| self.count(playbook, (run, &step.key), &step.device, *at));
            }
            Decided::RunMoved { run, state, .. } if state.is_end() => {
                self.devices.remove(run);
                self.runs.retain(|r| r != run);
            }
            _ => {}
        }
    }

    fn count(&mut self, playbook: &Arc<str>, (run, key): (&Arc<str>, &Arc<str>), device: &Arc<str>, at: Time) {
        let steps = self.steps.entry(playbook.clone()).or_default();
        while steps.front().is_some_and(|(then, ..)| at.since(*then) >= HOUR) || steps.len() >= MAX_PER_HOUR as usize {
            steps.pop_front();
        }
        // A step whose intent is written again after a crash is the same step.
        if !steps.iter().any(|(_, other, step)| other == run && step == key) {
            steps.push_back((at, run.clone(), key.clone()));
        }
        if !is_on_a_device(device) {
            return;
        }
        if !self.devices.contains_key(run) {
            self.runs.push_back(run.clone());
        }
        self.devices.entry(run.clone()).or_default().insert(device.clone());
        if self.runs.len() > MAX_RUNS
            && let Some(oldest) = self.runs.pop_front()
        {
            self.devices.remove(&oldest);
        }
    }

    /// Whether the budget has room for this step now.
    ///
    /// # Errors
    /// It has not, and which part of it.
    pub fn check(&self, step: &Step, budget: Budget, now: Time) -> Result<(), OverBudget> {
        let acted = self.devices.get(&step.run);
        let new = is_on_a_device(&step.device) && acted.is_none_or(|devices| !devices.contains(&step.device));
        if new && acted.map_or(0, BTreeSet::len) >= budget.devices as usize {
            return Err(OverBudget::Devices { playbook: step.playbook.clone(), devices: budget.devices });
        }
        let per_hour = budget.per_hour.min(MAX_PER_HOUR);
        let other = |(at, run, key): &&Counted| now.since(*at) < HOUR && !(*run == step.run && *key == step.key);
        let within = self.steps.get(&step.playbook).map_or(0, |steps| steps.iter().filter(other).count());
        if within >= per_hour as usize {
            return Err(OverBudget::PerHour { playbook: step.playbook.clone(), per_hour });
        }
        Ok(())
    }
}
