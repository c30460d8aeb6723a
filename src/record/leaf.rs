//! Leaves: what the gateway's log commits to.
//!
//! Takes: what happened. Gives: a canonical record, its commitment, and the opening that proves it later. Never: puts
//! a record, or a bare hash of one, where the log can be read: a leaf is HMAC-SHA-256 under a random 32-byte `r`.
//!
//! A leaf is `{scheme, commitment}`: one byte 1 and 32 bytes. The record is `sluice-canonical-1` JSON. In every record
//! each subject stands only as a commitment of its own, HMAC-SHA-256(s, canonical {"n", "subject"}) with a random `s`
//! that stays in the vault: `n` counts the leaves about that subject, so a patient can see that none is missing, and
//! whoever is shown a record with its `r` learns neither the pseudonym nor the count.

use std::fmt::Write as _;

use aws_lc_rs::{hmac, rand};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sluice_fhir::canonical;

use crate::consent::pseudonym::Pseudonym;
use crate::error::{Error, Result};

/// The scheme of a flat record.
pub const SCHEME: u8 = 1;

/// Length of a leaf: its scheme and its commitment.
pub const LEAF_BYTES: usize = 33;

/// Leaves that wait in one row at most.
pub const LEAVES_MAX: usize = 1024;

/// What opens a leaf. Sealed under the subjects' keys wherever it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// The random key of the commitment, lower-case hex.
    pub r: String,
    /// The canonical record.
    pub record: String,
    /// What opens each subject's commitment in the record, in its order.
    pub subjects: Vec<SubjectOpening>,
}

/// What opens one subject's commitment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectOpening {
    /// The random key, lower-case hex.
    pub s: String,
    /// The pseudonym, lower-case hex.
    pub subject: String,
    /// The number of this leaf among those about the subject, from 1.
    pub n: u64,
}

/// A leaf that has no index yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// HMAC-SHA-256(r, record).
    pub commitment: [u8; 32],
    /// What opens it.
    pub opening: Opening,
}

/// A record under construction: JSON members, in the order of their names.
#[derive(Debug, Default)]
pub struct Record(std::collections::BTreeMap<&'static str, String>);

impl Record {
    /// A record of this kind: `resource`, `decision` or `audit`.
    pub fn new(kind: &'static str, tenant: &str, time: &str) -> Self {
        Self::default().text("kind", kind).text("tenant", tenant).text("time", time)
    }

    /// Adds a string.
    #[must_use]
    pub fn text(mut self, name: &'static str, value: &str) -> Self {
        self.0.insert(name, canonical::string(value));
        self
    }

    /// Adds an integer.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: u64) -> Self {
        self.0.insert(name, value.to_string());
        self
    }

    /// Adds 32 bytes in lower-case hex.
    #[must_use]
    pub fn hex(self, name: &'static str, value: &[u8; 32]) -> Self {
        self.text(name, &HEXLOWER.encode(value))
    }

    /// Closes the record over its subjects, each with its number, and commits to it.
    ///
    /// # Errors
    /// A defect if the platform gives no random bytes.
    pub fn commit(mut self, subjects: &[(Pseudonym, u64)]) -> Result<Leaf> {
        let mut openings = Vec::with_capacity(subjects.len());
        let mut commitments = String::from("[");
        for (subject, n) in subjects {
            let s = random()?;
            let subject = HEXLOWER.encode(&subject.0);
            let commitment = mac(&s, format!("{{\"n\":{n},\"subject\":\"{subject}\"}}").as_bytes());
            let comma = if openings.is_empty() { "" } else { "," };
            // Writing to a String does not fail.
            let _ = write!(commitments, "{comma}\"{}\"", HEXLOWER.encode(&commitment));
            openings.push(SubjectOpening { s: HEXLOWER.encode(&s), subject, n: *n });
        }
        commitments.push(']');
        self.0.insert("subjects", commitments);
        let mut record = String::from("{");
        for (name, value) in &self.0 {
            let comma = if record.len() == 1 { "" } else { "," };
            let _ = write!(record, "{comma}\"{name}\":{value}");
        }
        record.push('}');
        let r = random()?;
        let commitment = mac(&r, record.as_bytes());
        Ok(Leaf { commitment, opening: Opening { r: HEXLOWER.encode(&r), record, subjects: openings } })
    }
}

/// The bytes that enter the log for a commitment.
pub fn leaf_bytes(commitment: &[u8; 32]) -> [u8; LEAF_BYTES] {
    let mut leaf = [SCHEME; LEAF_BYTES];
    leaf[1..].copy_from_slice(commitment);
    leaf
}

/// HMAC-SHA-256.
pub fn mac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut out = [0; 32];
    out.copy_from_slice(hmac::sign(&key, message).as_ref());
    out
}

/// 32 bytes from their 64 lower-case hexadecimal digits.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// 32 bytes from the platform's random source.
///
/// # Errors
/// A defect if it gives none.
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).map_err(|_| Error::defect("the platform gives no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_canonical_and_its_commitment_opens() {
        let subject = Pseudonym([7; 32]);
        let leaf = Record::new("decision", "hospital-a", "2026-01-01T00:00:00Z")
            .text("rule", "a\"b\u{1}\u{e9}")
            .number("version", 3)
            .commit(&[(subject, 9)])
            .unwrap();
        let bytes = bytes::Bytes::from(leaf.opening.record.clone());
        let tree = sluice_fhir::tree::Tree::parse(bytes.clone(), &sluice_fhir::tree::Limits::default()).unwrap();
        assert_eq!(canonical::to_vec(tree.root()), bytes, "the record is its own canonical form");
        let r: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&leaf.opening.r[2 * i..2 * i + 2], 16).unwrap()).collect();
        assert_eq!(mac(&r.try_into().unwrap(), &bytes), leaf.commitment);
        assert!(!leaf.opening.record.contains(&HEXLOWER.encode(&[7; 32])), "the record does not show the pseudonym");
        assert_eq!(leaf_bytes(&leaf.commitment)[0], SCHEME);
    }
}
