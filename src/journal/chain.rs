//! One ledger record and the chain over them. Integers are little-endian. Stable.
//!
//! ```text
//!  0  8  seq
//!  8  8  when it was written, nanoseconds since the epoch
//! 16  2  kind of the payload, see `kind`
//! 18  2  zero
//! 20 32  chain hash of the record before, zeros for the first
//! 52 32  SHA-256 of the payload
//! 84  1  0: the payload follows; 1: it was erased, and why follows as text
//! 85  n  the payload: JSON of `Decided`
//! ```
//!
//! A record's chain hash is the SHA-256 of its first 84 bytes: the payload's hash, not the payload, so that an erased
//! payload leaves the chain whole.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::model::{Decided, Time, hex};

/// Bytes that the chain hash covers.
const HEADER: usize = 84;
const KEPT: u8 = 0;
const ERASED: u8 = 1;

/// A chain hash: 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LedgerHash(pub [u8; 32]);

impl fmt::Display for LedgerHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for LedgerHash {
    type Err = String;

    fn from_str(text: &str) -> Result<LedgerHash, String> {
        let bad = || format!("`{text}` is not a ledger head: 64 hexadecimal digits, as `opmas audit verify` prints them");
        let mut hash = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        for (at, byte) in hash.iter_mut().enumerate() {
            let digits = text.get(at * 2..at * 2 + 2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = digits.and_then(|d| u8::from_str_radix(d, 16).ok()).ok_or_else(bad)?;
        }
        Ok(LedgerHash(hash))
    }
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// What was decided.
    Decided(Box<Decided>),
    /// A tombstone: the payload was erased; the chain over its hash still holds.
    Erased {
        /// Why.
        reason: String,
    },
}

/// One ledger record.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerEntry {
    /// Its place: 1 for the first, then without gaps.
    pub seq: u64,
    /// When it was written.
    pub time: Time,
    /// The chain hash up to and with it.
    pub hash: LedgerHash,
    /// What it holds.
    pub content: Content,
}

/// The tag of a payload's kind (stable).
fn kind(decided: &Decided) -> u16 {
    match decided {
        Decided::Finding { .. } => 1,
        Decided::Triaged { .. } => 2,
        Decided::Run { .. } => 3,
        Decided::Intent { .. } => 4,
        Decided::Attempt { .. } => 5,
        Decided::Outcome { .. } => 6,
        Decided::RunMoved { .. } => 7,
        Decided::Lease { .. } => 8,
        Decided::Delivery { .. } => 9,
        Decided::DeliveryAttempt { .. } => 10,
        Decided::DeliveryOutcome { .. } => 11,
        Decided::Checkpoint { .. } => 12,
        Decided::Note { .. } => 13,
        Decided::Anchor { .. } => 14,
        Decided::Alert { .. } => 15,
        Decided::Asked { .. } => 16,
        Decided::Answered { .. } => 17,
        Decided::Posture { .. } => 18,
        Decided::Message { .. } => 19,
        Decided::Tried { .. } => 20,
    }
}

/// A record's bytes and its chain hash.
pub(super) fn encode(seq: u64, time: Time, previous: LedgerHash, decided: &Decided) -> Result<(Vec<u8>, LedgerHash), serde_json::Error> {
    let payload = serde_json::to_vec(decided)?;
    let mut record = Vec::with_capacity(HEADER + 1 + payload.len());
    record.extend_from_slice(&seq.to_le_bytes());
    record.extend_from_slice(&time.0.to_le_bytes());
    record.extend_from_slice(&kind(decided).to_le_bytes());
    record.extend_from_slice(&[0, 0]);
    record.extend_from_slice(&previous.0);
    record.extend_from_slice(&Sha256::digest(&payload));
    let hash = LedgerHash(Sha256::digest(&record).into());
    record.push(KEPT);
    record.extend_from_slice(&payload);
    Ok((record, hash))
}

/// Checks record after record against the chain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Chain {
    /// The hash up to here, `None` after damage: then the next record's word for it is taken.
    pub(super) head: Option<LedgerHash>,
}

impl Chain {
    /// Reads the next record. What is wrong is said; the chain then goes on from this record.
    pub(super) fn next(&mut self, seq: u64, record: &[u8]) -> Result<LedgerEntry, String> {
        let before = self.head.take();
        let (Some(header), Some((body, payload))) = (record.get(..HEADER), record.get(HEADER..).and_then(<[u8]>::split_first)) else {
            return Err("it is shorter than a record".to_owned());
        };
        let hash = LedgerHash(Sha256::digest(header).into());
        self.head = Some(hash);
        let field = |at: usize| header.get(at..).and_then(|rest| rest.first_chunk::<8>()).copied().unwrap_or_default();
        if u64::from_le_bytes(field(0)) != seq {
            return Err("it says another place than its frame does".to_owned());
        }
        if before.is_some_and(|before| header.get(20..52) != Some(&before.0)) {
            return Err("the chain is broken: it does not follow from the record before it".to_owned());
        }
        let content = content(*body, payload, header)?;
        Ok(LedgerEntry { seq, time: Time(i64::from_le_bytes(field(8))), hash, content })
    }
}

fn content(body: u8, payload: &[u8], header: &[u8]) -> Result<Content, String> {
    match body {
        ERASED => return Ok(Content::Erased { reason: String::from_utf8_lossy(payload).into_owned() }),
        KEPT => {}
        other => return Err(format!("it is neither kept nor erased ({other})")),
    }
    if header.get(52..) != Some(&Sha256::digest(payload)[..]) {
        return Err("its payload is not the one that its hash is of".to_owned());
    }
    let decided: Decided = serde_json::from_slice(payload).map_err(|error| format!("its payload does not decode: {error}"))?;
    if header.get(16..18) != Some(&kind(&decided).to_le_bytes()) {
        return Err("its payload is of another kind than it says".to_owned());
    }
    Ok(Content::Decided(Box::new(decided)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(text: &str) -> Decided {
        Decided::Note { text: text.to_owned(), at: Time(0) }
    }

    #[test]
    fn a_record_has_stable_bytes() {
        let (record, hash) = encode(2, Time(3), LedgerHash([7; 32]), &note("x")).unwrap();
        let payload = br#"{"record":"note","text":"x","at":"1970-01-01T00:00:00Z"}"#;
        let mut want = vec![2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 13, 0, 0, 0];
        want.extend([7; 32]);
        want.extend(Sha256::digest(payload));
        assert_eq!(hash.0, <[u8; 32]>::from(Sha256::digest(&want)));
        want.push(0);
        want.extend(payload);
        assert_eq!(record, want);
    }

    #[test]
    fn a_tombstone_leaves_the_chain_whole() {
        let (first, hash) = encode(1, Time(3), LedgerHash::default(), &note("personal")).unwrap();
        let (second, head) = encode(2, Time(4), hash, &note("y")).unwrap();
        let mut erased = first[..HEADER].to_vec();
        erased.push(ERASED);
        erased.extend(b"asked for on 2026-11-21");
        let mut chain = Chain { head: Some(LedgerHash::default()) };
        let entry = chain.next(1, &erased).unwrap();
        assert_eq!(entry.content, Content::Erased { reason: "asked for on 2026-11-21".to_owned() });
        assert_eq!(chain.next(2, &second).unwrap().hash, head);
    }

    #[test]
    fn a_rewritten_payload_is_found() {
        let (mut record, _) = encode(1, Time(3), LedgerHash::default(), &note("blocked")).unwrap();
        let at = record.len() - 40;
        record[at] ^= 1;
        let error = Chain { head: Some(LedgerHash::default()) }.next(1, &record).unwrap_err();
        assert!(error.contains("hash"), "{error}");
    }

    #[test]
    fn a_rewritten_record_breaks_the_chain_behind_it() {
        let (_, hash) = encode(1, Time(3), LedgerHash::default(), &note("true")).unwrap();
        let (second, _) = encode(2, Time(4), hash, &note("y")).unwrap();
        let (forged, _) = encode(1, Time(3), LedgerHash::default(), &note("forged")).unwrap();
        let mut chain = Chain { head: Some(LedgerHash::default()) };
        chain.next(1, &forged).unwrap();
        assert!(chain.next(2, &second).unwrap_err().contains("chain is broken"));
    }

    #[test]
    fn a_head_is_read_as_it_is_printed() {
        let hash = LedgerHash([0xA5; 32]);
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for bad in ["", "a5", &"+5".repeat(32), &"é".repeat(32)] {
            assert!(bad.parse::<LedgerHash>().is_err());
        }
    }
}
