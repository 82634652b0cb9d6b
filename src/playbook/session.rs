//! The run's history against what the script asks for, call by call.
//!
//! A step's key is its place (the count of calls before it, within `parallel` behind the place of that and the element's index) and a fingerprint of device, action and parameters *as the script gave
//! them*. The ledger keeps parameters in canonical form, so that they could not be compared with what a script asks for on replay;
//! the fingerprint can.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::evaluate::{ActionSignature, Call, Evaluate, Limits};
use crate::model::{OutcomeState, Recorded, hex};

/// Lines of a run's log.
const MAX_LOG_LINES: usize = 100;
/// Characters of one line.
const MAX_LOG_LINE: usize = 500;
/// Bytes of one call's parameters as JSON.
const MAX_PARAMS: usize = 4096;

/// Shared by the engine's callbacks and the host functions of one evaluation.
pub(super) type Shared = Rc<RefCell<Session>>;

/// Why a script goes no further, whatever it catches.
pub(super) enum End {
    /// These calls are not recorded yet.
    Suspended(Vec<Call>),
    /// A recorded step is not what the script asks for.
    Diverged { key: Arc<str>, detail: String },
    /// A bound was reached.
    Failed(String),
}

/// What a host call answers the script.
pub(super) struct Answer {
    pub(super) state: OutcomeState,
    pub(super) detail: String,
}

/// The script must stop: [`Session`] knows why.
pub(super) struct Stop;

pub(super) struct Session {
    /// By place; what is left at the end was not asked for.
    history: BTreeMap<Vec<usize>, Recorded>,
    limits: Limits,
    plan: bool,
    /// The place of the newest call.
    at: Vec<usize>,
    calls: usize,
    /// Calls that are not recorded yet.
    ready: Vec<Call>,
    /// The script, or this branch of it, goes no further: it waits for one of them.
    suspended: bool,
    operations: u64,
    planned: Vec<Call>,
    log: Vec<String>,
    end: Option<End>,
}

impl Session {
    pub(super) fn new(request: &Evaluate) -> Shared {
        let mut session = Session {
            history: BTreeMap::new(),
            limits: request.limits,
            plan: request.plan,
            at: vec![0],
            calls: 0,
            ready: Vec::new(),
            suspended: false,
            operations: 0,
            planned: Vec::new(),
            log: Vec::new(),
            end: None,
        };
        for recorded in &request.history {
            let Some(place) = place(&recorded.key) else {
                session.end =
                    Some(End::Diverged { key: recorded.key.clone(), detail: format!("the recorded step {} has a key of another form", recorded.key) });
                continue;
            };
            session.history.insert(place, recorded.clone());
        }
        Rc::new(RefCell::new(session))
    }

    /// Counts an operation of the script, closures included (the engine's own count starts anew in each). Whether it may go on.
    pub(super) fn operation(&mut self) -> bool {
        self.operations += 1;
        if self.operations > self.limits.operations && self.end.is_none() {
            self.end = Some(End::Failed(too_many_operations(&self.limits)));
        }
        self.end.is_none() && !self.suspended
    }

    /// A line that the script prints.
    pub(super) fn log(&mut self, text: &str) {
        if self.log.len() < MAX_LOG_LINES {
            self.log.push(text.chars().take(MAX_LOG_LINE).map(|c| if c.is_control() { ' ' } else { c }).collect());
        } else if self.log.len() == MAX_LOG_LINES {
            self.log.push("the rest of the log is left out".to_owned());
        }
    }

    /// A host call that acts: answered from the history, or the script is suspended.
    pub(super) fn step(&mut self, device: &Arc<str>, action: &ActionSignature, params: Map<String, Value>) -> Result<Answer, Stop> {
        self.next_place()?;
        let call = Call { key: key(&self.at, device, &action.name, &params), device: device.clone(), action: action.name.clone(), params };
        if let Err(message) = self.within_bounds(&call) {
            return Err(self.stop(End::Failed(message)));
        }
        match self.history.remove(&self.at) {
            Some(recorded) => self.recorded(&call, recorded, action),
            None if self.plan => {
                self.planned.push(call);
                Ok(Answer { state: action.assumed, detail: "assumed".to_owned() })
            }
            None => {
                self.ready.push(call);
                self.suspend();
                Err(Stop)
            }
        }
    }

    fn next_place(&mut self) -> Result<(), Stop> {
        if self.end.is_some() || self.suspended {
            return Err(Stop);
        }
        self.calls += 1;
        self.at.last_mut().into_iter().for_each(|place| *place += 1);
        Ok(())
    }

    /// `parallel` has a place of its own, in which its branches count from the beginning.
    pub(super) fn fork(&mut self) -> Result<(), Stop> {
        self.next_place()
    }

    /// A branch begins.
    pub(super) fn enter(&mut self, index: usize) {
        self.at.extend([index, 0]);
    }

    /// A branch has ended: whether it waits for a step, and whether the whole script has ended.
    pub(super) fn leave(&mut self) -> (bool, bool) {
        self.at.truncate(self.at.len().saturating_sub(2));
        (std::mem::take(&mut self.suspended), self.end.is_some())
    }

    /// The script, or the branch, goes no further.
    pub(super) fn suspend(&mut self) {
        self.suspended = true;
    }

    fn within_bounds(&self, call: &Call) -> Result<(), String> {
        if self.calls > self.limits.steps {
            return Err(format!("the script takes more than {} steps, the most that a run may have", self.limits.steps));
        }
        let bytes = serde_json::to_vec(&call.params).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_PARAMS {
            return Err(format!("the arguments of `{}` are {bytes} bytes long, more than the {MAX_PARAMS} that are allowed", call.action));
        }
        Ok(())
    }

    fn recorded(&mut self, call: &Call, recorded: Recorded, action: &ActionSignature) -> Result<Answer, Stop> {
        if recorded.key != call.key || recorded.device != call.device || recorded.action != call.action {
            let asked = Value::Object(call.params.clone());
            let detail = format!(
                "step {} is recorded as {} on {}, and the script now asks for {} on {} with {asked} there ({})",
                recorded.key, recorded.action, recorded.device, call.action, call.device, call.key
            );
            return Err(self.stop(End::Diverged { key: recorded.key, detail }));
        }
        // A plan goes on as if what was only shown had been done; a run must not say that it was.
        let planned = self.plan && recorded.outcome.state == OutcomeState::Planned;
        let state = if planned { action.assumed } else { recorded.outcome.state };
        Ok(Answer { state, detail: recorded.outcome.detail })
    }

    fn stop(&mut self, end: End) -> Stop {
        self.end.get_or_insert(end);
        Stop
    }

    /// How it ended, the planned calls and the log.
    pub(super) fn finish(shared: &Shared) -> (Option<End>, Vec<Call>, Vec<String>) {
        let mut session = shared.borrow_mut();
        let ready = std::mem::take(&mut session.ready);
        let end = session.end.take().or((!ready.is_empty()).then_some(End::Suspended(ready)));
        let end = match (end, session.history.pop_first()) {
            // Bounds come first: a script that was stopped did not get to what was recorded.
            (end @ Some(End::Failed(_) | End::Diverged { .. }), _) | (end, None) => end,
            (_, Some((_, left))) => {
                let detail = format!("step {} is recorded as {} on {}, and the script does not ask for it any more", left.key, left.action, left.device);
                Some(End::Diverged { key: left.key, detail })
            }
        };
        (end, std::mem::take(&mut session.planned), std::mem::take(&mut session.log))
    }
}

pub(super) fn too_many_operations(limits: &Limits) -> String {
    format!("the script takes more than {} operations; does a loop not end?", limits.operations)
}

/// `<place>-<the first 8 hexadecimal digits of the SHA-256 of [device, action, parameters] as JSON, by name>`. Stable: the ledger has it.
fn key(place: &[usize], device: &str, action: &str, params: &Map<String, Value>) -> Arc<str> {
    let params: BTreeMap<_, _> = params.iter().collect();
    let asked = serde_json::json!([device, action, params]).to_string();
    let digest = hex(&Sha256::digest(asked.as_bytes()));
    let place: Vec<String> = place.iter().map(usize::to_string).collect();
    format!("{}-{}", place.join("."), digest.get(..8).unwrap_or(&digest)).into()
}

pub(super) fn place(key: &str) -> Option<Vec<usize>> {
    key.split_once('-')?.0.split('.').map(|part| part.parse().ok()).collect()
}
