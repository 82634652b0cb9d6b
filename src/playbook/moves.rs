//! The transition table: which ledger records may follow which. Everything else is refused, live and on replay.

use std::sync::Arc;

use crate::model::{OutcomeState, RunState};

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// The ledger has nothing of it.
    Absent,
    /// It is to be attempted, or was only planned.
    Intended,
    /// It has been attempted, and nothing came back yet: after a crash its effect is unknown.
    Attempted,
    /// It has been attempted, and is attempted again: nothing was done, or the same once more is the same.
    Tried,
    /// It has been attempted, and its effect could not be found out.
    Unknown,
    /// It has ended.
    Ended,
}

/// What a record does to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepMove {
    /// `Intent`
    Intend,
    /// `Attempt`
    Attempt,
    /// `Tried`
    Tried,
    /// `Outcome` of this state.
    End(OutcomeState),
}

/// A record that cannot follow what the ledger has: the ledger or the engine is wrong, not the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalMove {
    /// It is about something else.
    #[error("a record that is not about run {run} was applied to it")]
    NotOurs {
        /// The run.
        run: Arc<str>,
    },
    /// The run begins with `Run`, once.
    #[error("run {run} has begun already")]
    BegunTwice {
        /// The run.
        run: Arc<str>,
    },
    /// A run cannot move so.
    #[error("run {run} cannot go from {from:?} to {to:?}: {why}")]
    Run {
        /// The run.
        run: Arc<str>,
        /// Where it stands.
        from: RunState,
        /// Where it was to go.
        to: RunState,
        /// Why not.
        why: &'static str,
    },
    /// It cannot ask, or be answered, so.
    #[error("run {run} cannot take a question or an answer: {why}")]
    Answer {
        /// The run.
        run: Arc<str>,
        /// Why not.
        why: &'static str,
    },
    /// A step cannot move so.
    #[error("step {key} of run {run} cannot take {by:?} when it is {from:?}: {why}")]
    Step {
        /// The run.
        run: Arc<str>,
        /// The step.
        key: Arc<str>,
        /// Where it stands.
        from: StepState,
        /// What was applied.
        by: StepMove,
        /// Why not.
        why: &'static str,
    },
}

use OutcomeState::{Done, Enforced, Failed, Partial, Planned, Refused, Undone, Unknown};

/// All legal moves of a step, with where they lead.
pub const STEP_MOVES: &[(StepState, StepMove, StepState)] = &[
    (StepState::Absent, StepMove::Intend, StepState::Intended),
    // Not carried out.
    (StepState::Intended, StepMove::End(Planned), StepState::Ended),
    (StepState::Intended, StepMove::End(Refused), StepState::Ended),
    // Carried out.
    (StepState::Intended, StepMove::Attempt, StepState::Attempted),
    (StepState::Attempted, StepMove::Attempt, StepState::Attempted),
    (StepState::Attempted, StepMove::End(Done), StepState::Ended),
    (StepState::Attempted, StepMove::End(Enforced), StepState::Ended),
    (StepState::Attempted, StepMove::End(Partial), StepState::Ended),
    (StepState::Attempted, StepMove::End(Undone), StepState::Ended),
    (StepState::Attempted, StepMove::End(Failed), StepState::Ended),
    // The executor guards again.
    (StepState::Attempted, StepMove::End(Refused), StepState::Ended),
    (StepState::Attempted, StepMove::End(Unknown), StepState::Unknown),
    // Out of reach, busy: tried again, until it is given up or no longer allowed.
    (StepState::Attempted, StepMove::Tried, StepState::Tried),
    (StepState::Tried, StepMove::Attempt, StepState::Attempted),
    (StepState::Tried, StepMove::End(Failed), StepState::Ended),
    (StepState::Tried, StepMove::End(Refused), StepState::Ended),
    // A person has looked, and nothing of it was there.
    (StepState::Unknown, StepMove::Tried, StepState::Tried),
    // Settled later: read back by a person or when the device can be reached again, or found absent and repeated.
    (StepState::Unknown, StepMove::Attempt, StepState::Attempted),
    (StepState::Unknown, StepMove::End(Done), StepState::Ended),
    (StepState::Unknown, StepMove::End(Enforced), StepState::Ended),
    (StepState::Unknown, StepMove::End(Partial), StepState::Ended),
    (StepState::Unknown, StepMove::End(Undone), StepState::Ended),
    (StepState::Unknown, StepMove::End(Failed), StepState::Ended),
    // Looked at again: still not to be found out, or absent and no longer allowed.
    (StepState::Unknown, StepMove::End(Unknown), StepState::Unknown),
    (StepState::Unknown, StepMove::End(Refused), StepState::Ended),
];

/// All legal moves of a run. What has ended stays ended.
pub const RUN_MOVES: &[(RunState, RunState)] = &[
    (RunState::Running, RunState::Done),
    (RunState::Running, RunState::Failed),
    (RunState::Running, RunState::Diverged),
    (RunState::Running, RunState::Waiting),
    (RunState::Waiting, RunState::Running),
    (RunState::Waiting, RunState::Failed),
    // A person's hand.
    (RunState::Running, RunState::Paused),
    (RunState::Paused, RunState::Running),
    (RunState::Running, RunState::Cancelled),
    (RunState::Waiting, RunState::Cancelled),
    (RunState::Paused, RunState::Cancelled),
];

/// Which moves of steps a run allows where it stands.
#[must_use]
pub fn allows(run: RunState, step: StepMove) -> bool {
    match (run, step) {
        (RunState::Running, _) => true,
        // A person or a read-back settles a step; a denial refuses it.
        (RunState::Waiting | RunState::Paused, StepMove::End(_) | StepMove::Tried) => true,
        (RunState::Waiting | RunState::Paused | RunState::Done | RunState::Failed | RunState::Diverged | RunState::Cancelled, _) => false,
    }
}

/// Where a step's move leads; `None` when it is not legal.
#[must_use]
pub fn step_after(from: StepState, by: StepMove) -> Option<StepState> {
    STEP_MOVES.iter().find(|(state, step_move, _)| *state == from && *step_move == by).map(|(_, _, to)| *to)
}

/// Which steps a run may still have when it moves: nothing ends while an attempt is unaccounted for, and nothing is done with a step open.
#[must_use]
pub fn may_leave(to: RunState, step: StepState) -> bool {
    match to {
        RunState::Running | RunState::Waiting | RunState::Paused => true,
        RunState::Failed | RunState::Diverged | RunState::Cancelled => step != StepState::Attempted,
        RunState::Done => step == StepState::Ended,
    }
}
