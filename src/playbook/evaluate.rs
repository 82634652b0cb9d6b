//! One evaluation of a script over what its run has done so far. Pure.

use std::sync::Arc;

use rhai::Scope;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::session::{End, Session};
use super::{host, own, script};
use crate::action::{Action, Assumed, Catalogue, Grammar};
use crate::diag::Place;
use crate::model::{Device, Finding, OutcomeState, Recorded};

/// One action as scripts see it: a method on devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionSignature {
    /// The method's name.
    pub name: Arc<str>,
    /// In the order of positional arguments.
    pub params: Vec<ParamSignature>,
    /// What a plan takes as its outcome.
    pub assumed: OutcomeState,
    /// A function: opmas does it itself.
    #[serde(default)]
    pub own: bool,
}

/// One parameter of an action. Its value is checked by the catalogue, when the step is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSignature {
    /// Its name in a map of arguments.
    pub name: Arc<str>,
    /// Whether a call without it is an error.
    pub required: bool,
    /// What it may be, for what can be checked before a script runs.
    #[serde(skip)]
    pub grammar: Option<Grammar>,
}

/// Everything that a header may allow, as scripts see it: the actions of the catalogue, and what opmas does itself.
#[must_use]
pub fn signatures(catalogue: &Catalogue) -> Vec<ActionSignature> {
    let signature = |action: &Action| ActionSignature {
        name: action.name.clone(),
        params: action
            .params
            .iter()
            .map(|p| ParamSignature { name: p.name.as_str().into(), required: p.default.is_none(), grammar: Some(p.grammar.clone()) })
            .collect(),
        assumed: match action.assumed {
            Assumed::Enforced => OutcomeState::Enforced,
            Assumed::Partial => OutcomeState::Partial,
            Assumed::Failed => OutcomeState::Failed,
        },
        own: false,
    };
    let own = own::granted().into_iter().filter(|own| catalogue.get(&own.name).is_none());
    catalogue.iter().map(signature).chain(own).collect()
}

/// What an evaluation starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluate {
    /// The playbook's name.
    pub playbook: Arc<str>,
    /// The whole file, header included, so that places are the file's.
    pub script: Arc<str>,
    /// The actions that the header allows.
    pub actions: Vec<ActionSignature>,
    /// What the run is about.
    pub finding: Box<Finding>,
    /// The inventory.
    pub devices: Vec<Device>,
    /// The run's steps that have ended, in any order.
    pub history: Vec<Recorded>,
    /// Answer calls that are not in the history with the action's assumed outcome instead of suspending: a plan.
    pub plan: bool,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of one evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Operations of the script, closures included.
    pub operations: u64,
    /// Steps of one run.
    pub steps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { operations: 200_000, steps: 256 }
    }
}

/// A host call that acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The call's place in the script and a fingerprint of what it asks for: `1-9f86d081` (see [`super::Playbook`] on replay).
    pub key: Arc<str>,
    /// The device's inventory name.
    pub device: Arc<str>,
    /// The action.
    pub action: Arc<str>,
    /// As the script gave them, by name; those left out are absent.
    pub params: Map<String, Value>,
}

/// How far a script has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// These steps are to be taken next; then it is evaluated again.
    Ready(Vec<Call>),
    /// It has ended.
    Done,
    /// It has failed, and would fail again.
    Failed {
        /// Why, one sentence.
        message: String,
        /// Where in the file.
        place: Option<Place>,
    },
    /// A recorded step is not what the script asks for now.
    Diverged {
        /// The recorded step.
        key: Arc<str>,
        /// What was recorded and what is asked for, one sentence.
        detail: String,
    },
}

/// What an evaluation gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How far the script has come.
    pub progress: Progress,
    /// For a plan: the calls that were answered with an assumed outcome, in order.
    pub planned: Vec<Call>,
    /// What the script printed, bounded, from its beginning on.
    pub log: Vec<String>,
}

/// Runs the script from its beginning, answering what the history has.
#[must_use]
pub fn evaluate(request: &Evaluate) -> Evaluation {
    let session = Session::new(request);
    let mut engine = script::engine(&session, &request.limits);
    host::register(&mut engine, request, &session);
    let mut scope = Scope::new();
    host::globals(&mut scope, request);
    let outcome = match engine.compile_with_scope(&scope, &*request.script) {
        Ok(ast) => engine.run_ast_with_scope(&mut scope, &ast).map_err(|error| script::failure(*error, &request.limits)),
        Err(error) => Err(script::parse_failure(&error)),
    };
    // The engine's callbacks hold the session too.
    drop(engine);
    let (end, planned, log) = Session::finish(&session);
    let progress = match (end, outcome) {
        (Some(End::Suspended(calls)), _) => Progress::Ready(calls),
        (Some(End::Diverged { key, detail }), _) => Progress::Diverged { key, detail },
        (Some(End::Failed(message)), outcome) => Progress::Failed { message, place: outcome.err().and_then(|(_, place)| place) },
        (None, Err((message, place))) => Progress::Failed { message, place },
        (None, Ok(())) => Progress::Done,
    };
    Evaluation { progress, planned, log }
}

/// The calls that the script makes when each action answers its assumed outcome, and how it ends then.
#[must_use]
pub fn plan(request: &Evaluate) -> (Vec<Call>, Progress) {
    let evaluation = evaluate(&Evaluate { plan: true, ..request.clone() });
    (evaluation.planned, evaluation.progress)
}
