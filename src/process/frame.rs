//! Frames: a big-endian `u32` length and that many bytes of JSON.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest body of a frame in bytes: far above a finding with its evidence and a run with all its steps.
pub const MAX_FRAME: usize = 4 << 20;

/// Bytes of the length before each body.
const HEAD: usize = 4;

/// Why a frame could not be sent or received. After any of these the other side is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed, or the other side is gone in the middle of a frame.
    #[error("the connection to the other process failed: {0}")]
    Io(#[from] io::Error),
    /// The length is beyond [`MAX_FRAME`].
    #[error("a message of {0} bytes is longer than the {MAX_FRAME} that are allowed")]
    TooLong(usize),
    /// The body is not the JSON that was expected.
    #[error("a message from the other process is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

/// The bytes of one frame.
///
/// # Errors
/// The value does not serialise, or is longer than [`MAX_FRAME`].
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, value)?;
    let length = bytes.len() - HEAD;
    let head = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME).ok_or(FrameError::TooLong(length))?;
    bytes.splice(..HEAD, head.to_be_bytes());
    Ok(bytes)
}

/// The length that a frame's first bytes announce.
fn length(head: [u8; HEAD]) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// Takes the first whole frame out of what has been received so far; `None` when more is needed.
///
/// # Errors
/// The announced length is too long, or the body is not a `T`.
pub(super) fn take<T: DeserializeOwned>(received: &mut Vec<u8>) -> Result<Option<T>, FrameError> {
    let Some(head) = received.first_chunk::<HEAD>() else { return Ok(None) };
    let end = HEAD + length(*head)?;
    let Some(body) = received.get(HEAD..end) else { return Ok(None) };
    let value = serde_json::from_slice(body)?;
    received.drain(..end);
    Ok(Some(value))
}

/// Reads one frame, blocking; `None` when the other side has closed between frames.
///
/// # Errors
/// See [`FrameError`].
pub(super) fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut head = Vec::with_capacity(HEAD);
    from.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(None);
    }
    let head = head.first_chunk::<HEAD>().ok_or(io::ErrorKind::UnexpectedEof).map_err(io::Error::from)?;
    let mut body = vec![0; length(*head)?];
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Writes one frame, blocking.
///
/// # Errors
/// See [`FrameError`].
pub(super) fn write<T: Serialize>(to: &mut impl Write, value: &T) -> Result<(), FrameError> {
    Ok(to.write_all(&encode(value)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_anything_is_allocated() {
        let mut received = u32::MAX.to_be_bytes().to_vec();
        assert!(matches!(take::<String>(&mut received), Err(FrameError::TooLong(_))));
        assert!(matches!(read::<String>(&mut u32::MAX.to_be_bytes().as_slice()), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_value_beyond_the_bound_is_not_sent() {
        assert!(matches!(encode(&"x".repeat(MAX_FRAME)), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn an_end_within_a_frame_is_an_error_and_between_frames_is_not() {
        let whole = encode(&"hello").unwrap();
        for end in 1..whole.len() {
            assert!(matches!(read::<String>(&mut &whole[..end]), Err(FrameError::Io(_))), "{end}");
        }
        assert!(matches!(read::<String>(&mut [].as_slice()), Ok(None)));
    }

    #[test]
    fn frames_are_taken_one_by_one_however_they_arrive() {
        let mut received = Vec::new();
        let mut got = Vec::new();
        for byte in [encode(&"a").unwrap(), encode(&"b").unwrap()].concat() {
            received.push(byte);
            got.extend(take::<String>(&mut received).unwrap());
        }
        assert_eq!(got, ["a", "b"]);
        assert!(received.is_empty());
    }
}
