//! Standard Webhooks 1.0, symmetric: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.payload`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::secret::Secret;

/// Key lengths in bytes that the specification names.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The bytes that sign.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Why a secret is no signing key. Never says what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has another form.
    #[error("the signing secret is not `whsec_` and base64; make one with: echo whsec_$(head -c 32 /dev/urandom | base64)")]
    Form,
    /// It is too short or too long.
    #[error("the signing secret is {0} bytes long, not 24 to 64; make one with: echo whsec_$(head -c 32 /dev/urandom | base64)")]
    Length(usize),
}

impl SigningKey {
    /// From `whsec_` and base64.
    ///
    /// # Errors
    /// [`KeyError`] when it has another form or length.
    pub fn parse(secret: &Secret) -> Result<SigningKey, KeyError> {
        let encoded = secret.expose().trim().strip_prefix("whsec_").ok_or(KeyError::Form)?;
        let key = STANDARD.decode(encoded).map_err(|_| KeyError::Form)?;
        if !KEY_BYTES.contains(&key.len()) {
            return Err(KeyError::Length(key.len()));
        }
        Hmac::new_from_slice(&key).map(SigningKey).map_err(|_| KeyError::Length(key.len()))
    }
}

/// The value of `webhook-signature`: `v1,<base64>`. `timestamp` is in seconds since the epoch, as in `webhook-timestamp`.
#[must_use]
pub fn signature(key: &SigningKey, id: &str, timestamp: i64, payload: &[u8]) -> String {
    let mut mac = key.0.clone();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(payload);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}
