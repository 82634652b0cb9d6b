//! How long to wait before the next try.

use sha2::{Digest, Sha256};

use crate::model::Span;

/// The first wait.
const BASE: Span = Span::secs(2);
/// The longest wait of our own choice (a `Retry-After` may ask for more).
pub(super) const CAP: Span = Span::secs(600);

/// The wait after so many tries that did not work: doubling from 2 s to 10 min, of which between half and all is waited.
/// The part is a hash of delivery and try, so that deliveries do not come back in step and a replay says the same.
#[must_use]
pub fn backoff(delivery: &str, tries: u32) -> Span {
    let doublings = tries.saturating_sub(1).min(16);
    let full = BASE.0.saturating_mul(1 << doublings).min(CAP.0);
    let digest = Sha256::digest(format!("{delivery}:{tries}"));
    let share = digest.iter().take(2).fold(0i64, |sum, byte| sum * 256 + i64::from(*byte));
    Span(full / 2 + full / 2 / 65_535 * share)
}
