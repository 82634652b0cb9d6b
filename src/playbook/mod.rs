//! Finding and past outcomes to ready steps: Rhai, replayed over its own history.

pub mod worker;
