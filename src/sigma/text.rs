//! The text of a value: wildcards, escapes, and the encodings that rewrite it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ast::{DASHES, Piece};

/// Most writings of one value (`windash` before an encoding multiplies by five at each dash).
pub const MAX_WRITINGS: usize = 1_000;

/// Splits a value at its wildcards. `\*`, `\?` and `\\` are the plain characters; any other backslash stands for itself.
pub(super) fn pieces(text: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut literal = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => literal.push(chars.next_if(|next| matches!(next, '\\' | '*' | '?')).unwrap_or('\\')),
            '*' | '?' => {
                flush(&mut literal, &mut found);
                found.push(if c == '*' { Piece::Any } else { Piece::One });
            }
            other => literal.push(other),
        }
    }
    flush(&mut literal, &mut found);
    // There are tens of thousands, and most are one literal.
    found.shrink_to_fit();
    found
}

fn flush(literal: &mut String, found: &mut Vec<Piece>) {
    if !literal.is_empty() {
        found.push(Piece::Literal(literal.as_str().to_owned()));
        literal.clear();
    }
}

/// `windash`: every dash or slash of the literals stands for all of [`DASHES`].
pub(super) fn windash(pieces: Vec<Piece>) -> Vec<Piece> {
    let mut found = Vec::new();
    for piece in pieces {
        let Piece::Literal(text) = piece else {
            found.push(piece);
            continue;
        };
        let mut literal = String::new();
        for c in text.chars() {
            if DASHES.contains(&c) {
                flush(&mut literal, &mut found);
                found.push(Piece::Dash);
            } else {
                literal.push(c);
            }
        }
        flush(&mut literal, &mut found);
    }
    found
}

/// A rewriting of a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Base64,
    Base64Offset,
    Utf16Le,
    Utf16Be,
    /// With the byte order mark, little endian.
    Utf16,
}

/// Why a value cannot be encoded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EncodeError {
    #[error("a value with wildcards cannot be encoded in base64")]
    Wildcards,
    #[error("encoded like this the value is no text")]
    NotText,
    #[error("the value has more than {MAX_WRITINGS} writings")]
    TooMany,
    #[error("the value is too short to be recognised inside base64")]
    TooShort,
}

impl EncodeError {
    /// The remedy.
    pub fn help(&self) -> &'static str {
        match self {
            EncodeError::Wildcards => "escape them as `\\*` and `\\?`, or split the value",
            EncodeError::NotText => "encode it in base64 after this",
            EncodeError::TooMany => "use fewer dashes, or leave `windash` away",
            EncodeError::TooShort => "use three characters or more",
        }
    }
}

/// All writings of a value after the encodings, applied in their order.
pub(super) fn encode(pieces: Vec<Piece>, encodings: &[Encoding]) -> Result<Vec<Vec<Piece>>, EncodeError> {
    if encodings.is_empty() {
        return Ok(vec![pieces]);
    }
    let base64 = encodings.iter().any(|e| matches!(e, Encoding::Base64 | Encoding::Base64Offset));
    if base64 {
        let mut found = Vec::new();
        for literal in literals(&pieces)? {
            let written = literal_encoded(&literal, encodings)?;
            found.extend(written.into_iter().map(|text| vec![Piece::Literal(text)]));
        }
        return Ok(found);
    }
    let each = |piece| match piece {
        Piece::Literal(text) => Ok(Piece::Literal(literal_encoded(&text, encodings)?.into_iter().collect())),
        other => Ok(other),
    };
    Ok(vec![pieces.into_iter().map(each).collect::<Result<_, _>>()?])
}

/// The literals that pieces without wildcards stand for.
fn literals(pieces: &[Piece]) -> Result<Vec<String>, EncodeError> {
    let mut found = vec![String::new()];
    for piece in pieces {
        match piece {
            Piece::Literal(text) => found.iter_mut().for_each(|f| f.push_str(text)),
            Piece::Dash if found.len() * DASHES.len() > MAX_WRITINGS => return Err(EncodeError::TooMany),
            Piece::Dash => found = found.iter().flat_map(|f| DASHES.iter().map(move |dash| format!("{f}{dash}"))).collect(),
            Piece::Any | Piece::One => return Err(EncodeError::Wildcards),
        }
    }
    Ok(found)
}

fn literal_encoded(text: &str, encodings: &[Encoding]) -> Result<Vec<String>, EncodeError> {
    let mut written = vec![text.as_bytes().to_vec()];
    for encoding in encodings {
        let mut next = Vec::new();
        for bytes in &written {
            match encoding {
                Encoding::Base64 => next.push(STANDARD.encode(bytes).into_bytes()),
                Encoding::Base64Offset => next.extend(base64_offsets(bytes)?),
                Encoding::Utf16Le => next.push(utf16(bytes, u16::to_le_bytes)?),
                Encoding::Utf16Be => next.push(utf16(bytes, u16::to_be_bytes)?),
                Encoding::Utf16 => next.push([&[0xff, 0xfe][..], &utf16(bytes, u16::to_le_bytes)?].concat()),
            }
        }
        written = next;
    }
    written.into_iter().map(|bytes| String::from_utf8(bytes).map_err(|_| EncodeError::NotText)).collect()
}

fn utf16(bytes: &[u8], units: fn(u16) -> [u8; 2]) -> Result<Vec<u8>, EncodeError> {
    let text = std::str::from_utf8(bytes).map_err(|_| EncodeError::NotText)?;
    Ok(text.encode_utf16().flat_map(units).collect())
}

/// The three writings of bytes somewhere inside base64, cut down to the characters that the neighbours do not change.
fn base64_offsets(bytes: &[u8]) -> Result<Vec<Vec<u8>>, EncodeError> {
    // Behind 0, 1 or 2 unknown bytes, so many leading characters hold bits of those.
    const LEADING: [usize; 3] = [0, 2, 3];
    let mut found = Vec::new();
    for (before, leading) in LEADING.into_iter().enumerate() {
        let padded = [[0u8; 2].split_at(before).0, bytes].concat();
        // Whole characters of known bits only.
        let known = padded.len() * 8 / 6;
        let written = STANDARD.encode(&padded).into_bytes();
        let part = written.get(leading..known).filter(|part| !part.is_empty()).ok_or(EncodeError::TooShort)?;
        found.push(part.to_vec());
    }
    Ok(found)
}
