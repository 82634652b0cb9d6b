//! A run that begins anew from one of its steps: those before it are not taken again.

use super::session::place;
use crate::model::{Outcome, Recorded, Step};

/// The steps before the one named, with their outcomes; `from` is its key or its place, the part of the key before `-`.
///
/// # Errors
/// There is no such step, or one before it has no outcome: one sentence.
pub fn before<'a>(steps: impl Iterator<Item = (&'a Step, Option<&'a Outcome>)>, from: &str) -> Result<Vec<Recorded>, String> {
    // A place alone is a key without a fingerprint.
    let wanted = place(from).or_else(|| place(&format!("{from}-")));
    let (mut found, mut recorded) = (false, Vec::new());
    for (step, outcome) in steps {
        let at = place(&step.key);
        found |= at == wanted && (&*step.key == from || !from.contains('-'));
        if at < wanted {
            let Some(outcome) = outcome.cloned() else { return Err(format!("step {} comes before it and has not ended", step.key)) };
            recorded.push(Recorded { key: step.key.clone(), device: step.device.clone(), action: step.action.clone(), outcome });
        }
    }
    if found { Ok(recorded) } else { Err(format!("it has no step `{}`", from.escape_debug())) }
}
