//! The only clock and the only randomness. Pure stages never call it: they are given `now`.

use crate::model::{Time, hex};

/// The system's wall clock.
#[must_use]
pub fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// `N` random bytes from the kernel.
///
/// # Errors
/// The kernel has no randomness to give (a chroot without `getrandom`).
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0u8; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// `2 * N` random hexadecimal digits.
///
/// # Errors
/// As [`random`].
pub fn random_hex<const N: usize>() -> std::io::Result<String> {
    random::<N>().map(|bytes| hex(&bytes))
}
