//! Lines out of pieces of a file, each with the offset of its first byte.

use super::framing::strip_trailer;
use crate::normalise::CUT_MARK;

/// Longest line that is kept whole, in bytes.
pub(super) const MAX_LINE: usize = 1 << 20;

/// One line without its newline.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// Of its first byte.
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// Splits what is read of one file. A last line without its newline waits.
#[derive(Debug, Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    /// Of the waiting line's first byte: what comes before it has been handed over.
    start: u64,
    /// Of the next byte.
    at: u64,
    cut: bool,
    truncated: u64,
}

impl Lines {
    /// Begins at an offset.
    pub(super) fn at(offset: u64) -> Lines {
        Lines { start: offset, at: offset, ..Lines::default() }
    }

    /// Where the first line begins that was not handed over.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// How many bytes of the file it has seen.
    pub(super) fn end(&self) -> u64 {
        self.at
    }

    /// Takes the bytes that follow, and returns the lines that they complete. Empty lines say nothing and are left out.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let room = MAX_LINE - self.line.len();
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            self.cut |= text.len() > room;
            self.line.extend_from_slice(text.get(..room).unwrap_or(text));
            self.at += piece.len() as u64;
            if piece.ends_with(b"\n") {
                lines.extend(self.finish());
            }
        }
        lines
    }

    /// The waiting line as it is: no more of it will come.
    pub(super) fn finish(&mut self) -> Option<Line> {
        let mut bytes = std::mem::take(&mut self.line);
        let offset = std::mem::replace(&mut self.start, self.at);
        strip_trailer(&mut bytes);
        if std::mem::take(&mut self.cut) {
            self.truncated += 1;
            bytes.extend_from_slice(CUT_MARK.as_bytes());
        }
        if bytes.is_empty() { None } else { Some(Line { offset, bytes }) }
    }

    /// Marks the waiting line, if there is one, as cut.
    pub(super) fn cut(&mut self) {
        self.cut |= !self.line.is_empty();
    }

    /// How many lines were cut since the last call.
    pub(super) fn take_truncated(&mut self) -> u64 {
        std::mem::take(&mut self.truncated)
    }
}
