//! Messages out of a byte stream: newline, NUL and octet-counted framing (RFC 6587), told apart frame by frame.
//!
//! `LENGTH <PRI>…` is octet-counted; everything else ends at the next newline or NUL. Empty frames are no messages.

use crate::normalise::CUT_MARK;

/// Longest message that is kept whole, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;
/// Digits of the longest octet count; more are text.
const MAX_COUNT_DIGITS: usize = 7;

/// Splits one connection's bytes. What comes out does not depend on how they were cut into pieces.
#[derive(Debug, Default)]
pub struct Framer {
    frame: Vec<u8>,
    state: State,
    cut: bool,
    truncated: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum State {
    /// At a frame's start; what was read of it, if anything, may be an octet count.
    #[default]
    Start,
    /// Behind an octet count and its blank.
    Counted(usize),
    /// So many bytes of an octet-counted frame are still to come.
    Octets(usize),
    /// Up to the next newline or NUL.
    Delimited,
}

impl Framer {
    /// Takes bytes and hands over the messages that they complete.
    pub fn push(&mut self, mut bytes: &[u8], messages: &mut Vec<Vec<u8>>) {
        while let Some(first) = bytes.first() {
            let used = match self.state {
                State::Start => self.start(*first),
                State::Counted(length) => self.counted(*first, length),
                State::Octets(left) => self.octets(bytes, left, messages),
                State::Delimited => self.delimited(bytes, messages),
            };
            bytes = bytes.get(used..).unwrap_or_default();
        }
    }

    /// The connection ended: what is left of it is a message too, marked as cut if more of it was announced, or if
    /// `unfinished` says that the sender had not come to its end.
    pub fn finish(&mut self, unfinished: bool, messages: &mut Vec<Vec<u8>>) {
        self.cut |= unfinished || matches!(self.state, State::Octets(_));
        self.emit(messages);
    }

    /// How many messages were cut since the last call.
    pub fn take_truncated(&mut self) -> u64 {
        std::mem::take(&mut self.truncated)
    }

    fn start(&mut self, byte: u8) -> usize {
        match byte {
            b'\n' | b'\r' | 0 if self.frame.is_empty() => return 1,
            b'0'..=b'9' if self.frame.len() < MAX_COUNT_DIGITS && (byte != b'0' || !self.frame.is_empty()) => {
                self.frame.push(byte);
                return 1;
            }
            b' ' if !self.frame.is_empty() => {
                let length = std::str::from_utf8(&self.frame).ok().and_then(|digits| digits.parse().ok());
                self.state = length.map_or(State::Delimited, State::Counted);
                return usize::from(length.is_some());
            }
            _ => self.state = State::Delimited,
        }
        0
    }

    /// Only a PRI behind the count makes it one; else the digits were the text's own.
    fn counted(&mut self, byte: u8, length: usize) -> usize {
        if byte == b'<' {
            self.frame.clear();
            self.state = State::Octets(length);
        } else {
            self.frame.push(b' ');
            self.state = State::Delimited;
        }
        0
    }

    fn octets(&mut self, bytes: &[u8], left: usize, messages: &mut Vec<Vec<u8>>) -> usize {
        let piece = bytes.get(..left).unwrap_or(bytes);
        self.keep(piece);
        self.state = State::Octets(left - piece.len());
        if left == piece.len() {
            self.emit(messages);
        }
        piece.len()
    }

    fn delimited(&mut self, bytes: &[u8], messages: &mut Vec<Vec<u8>>) -> usize {
        match bytes.iter().position(|b| matches!(b, b'\n' | 0)) {
            Some(end) => {
                self.keep(bytes.get(..end).unwrap_or_default());
                self.emit(messages);
                end + 1
            }
            None => {
                self.keep(bytes);
                bytes.len()
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        let room = MAX_FRAME - self.frame.len().min(MAX_FRAME);
        self.cut |= piece.len() > room;
        self.frame.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }

    fn emit(&mut self, messages: &mut Vec<Vec<u8>>) {
        let mut frame = std::mem::take(&mut self.frame);
        self.state = State::Start;
        let cut = std::mem::take(&mut self.cut);
        strip_trailer(&mut frame);
        if frame.is_empty() {
            return;
        }
        if cut {
            self.truncated += 1;
            frame.extend_from_slice(CUT_MARK.as_bytes());
        }
        messages.push(frame);
    }
}

/// Takes newlines and NULs off a message's end.
pub(super) fn strip_trailer(message: &mut Vec<u8>) {
    while matches!(message.last(), Some(b'\n' | b'\r' | 0)) {
        message.pop();
    }
}
