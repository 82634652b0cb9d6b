//! Who may act: the least of posture, the playbook's mode, the operator's ceiling for the action, and the evidence's trust.

use serde::{Deserialize, Serialize};

use crate::model::{Posture, Trust, Verdict};

/// How far a playbook, or an action by its ceiling, may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Plans only.
    #[default]
    Observe,
    /// A person approves.
    Approve,
    /// Without asking.
    Auto,
}

/// What the decision is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The playbook's name.
    pub playbook: &'a str,
    /// The action's name.
    pub action: &'a str,
    /// The posture in effect.
    pub posture: Posture,
    /// `posture` of the configuration.
    pub configured: Posture,
    /// `mode` of the playbook.
    pub mode: Mode,
    /// The operator's ceiling for the action, `[actions]`.
    pub ceiling: Mode,
    /// The least trust of the finding's evidence.
    pub trust: Trust,
}

/// Whether a step may be carried out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Never [`Verdict::Refused`]: only guard, budget and catalogue refuse.
    pub verdict: Verdict,
    /// One sentence: what limits it and the line that would change that.
    pub reason: String,
}

/// One row of the policy: how far this factor lets the step go, what it is, and the line that would lift it.
struct Limit {
    most: Mode,
    is: String,
    lift: String,
}

/// Decides whether a step is carried out, waits for a person, or is only shown.
#[must_use]
pub fn authorise(request: &Request<'_>) -> Decision {
    let limits = policy(request);
    let most = limits.iter().map(|limit| limit.most).min().unwrap_or_default();
    let reason = match most {
        Mode::Auto => format!("carried out: posture, {}'s mode and the ceiling of {} allow it, and the evidence is verified", request.playbook, request.action),
        Mode::Approve => format!("waits for approval: {}", because(&limits, most)),
        Mode::Observe => format!("only shown: {}", because(&limits, most)),
    };
    let verdict = match most {
        Mode::Auto => Verdict::Auto,
        Mode::Approve => Verdict::Approve,
        Mode::Observe => Verdict::Observe,
    };
    Decision { verdict, reason }
}

/// The policy table.
fn policy(request: &Request<'_>) -> [Limit; 4] {
    let Request { playbook, action, posture, configured, mode, ceiling, trust } = *request;
    let posture_most = match posture {
        Posture::Observe => Mode::Observe,
        Posture::Guarded => Mode::Approve,
        Posture::Armed => Mode::Auto,
    };
    let trust_most = match trust {
        Trust::Open => Mode::Approve,
        Trust::Verified => Mode::Auto,
    };
    let posture_lift = match configured.word() {
        word if configured > posture => format!("opmas posture reset, back to {word} of opmas.toml,"),
        _ => "posture = \"armed\" in opmas.toml, or opmas posture armed --for 30m --because TEXT,".to_owned(),
    };
    [
        limit(posture_most, format!("posture is {}", posture.word()), posture_lift),
        limit(mode, format!("the mode of {playbook} is {}", mode.word()), format!("mode = \"auto\" in {playbook}.rhai")),
        limit(ceiling, format!("the ceiling of {action} is {}", ceiling.word()), format!("{action} = \"auto\" under [actions] in opmas.toml")),
        limit(
            trust_most,
            "some of the evidence is from a source that anybody can write to".to_owned(),
            "trusted = true at that [source.NAME] in opmas.toml".to_owned(),
        ),
    ]
}

fn limit(most: Mode, is: String, lift: String) -> Limit {
    Limit { most, is, lift }
}

/// All limits that hold the step at `most`: lifting one of two would change nothing.
fn because(limits: &[Limit], most: Mode) -> String {
    let holding = limits.iter().filter(|limit| limit.most == most);
    holding.map(|limit| format!("{} ({} lifts this)", limit.is, limit.lift)).collect::<Vec<_>>().join(", and ")
}

impl Mode {
    /// As files write it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Mode::Observe => "observe",
            Mode::Approve => "approve",
            Mode::Auto => "auto",
        }
    }
}
