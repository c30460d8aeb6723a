//! Proofs of presence and absence, their check and their bytes.
//!
//! Takes a proof, a key and what is claimed of it; gives nothing, or the exact reason why the
//! claim does not hold. For one root and one key at most one claim can be proven.

use super::{EMPTY, bit, leaf_hash, node_hash};
use crate::Hash;

/// The longest path: one sibling for each bit of a key.
const DEPTH_MAX: usize = 256;

/// The way from a key's place up to the root.
///
/// The place holds the key's own record, nothing, or another record which is alone in its subtree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapProof {
    /// From the place's sibling up to the root's child.
    siblings: Vec<Hash>,
    /// Key and value hash of the other record.
    other: Option<(Hash, Hash)>,
}

/// Why a map proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapProofError {
    /// The path is longer than a key has bits.
    #[error("a path has at most {DEPTH_MAX} siblings")]
    TooDeep,
    /// A proof of presence names another record.
    #[error("a proof of presence names no other record")]
    OtherInPresence,
    /// A proof of absence names the key's own record.
    #[error("a proof of absence does not name the key itself")]
    OtherIsKey,
    /// The other record does not lie on the key's path.
    #[error("the other record does not share the path of the key")]
    OtherOffPath,
    /// The place's sibling is empty: the tree would have been shallower.
    #[error("the deepest sibling is not empty")]
    Uncollapsed,
    /// The path leads to another root.
    #[error("the path leads to another root")]
    RootMismatch,
    /// The encoding ends too early.
    #[error("the proof's bytes end too early")]
    Truncated,
    /// Bytes follow the encoding.
    #[error("bytes follow the proof")]
    TrailingBytes,
    /// The first byte is neither 0 nor 1.
    #[error("the proof's first byte is 0 or 1")]
    Form,
    /// A sibling is spelled out although it is empty, or a bit beyond the last is set.
    #[error("the proof is not in its only encoding")]
    NotCanonical,
}

/// Checks that under this root the key has a value of this hash, or, if `value_hash` is `None`,
/// that it has none.
pub fn verify(root: &Hash, key: &Hash, value_hash: Option<&Hash>, proof: &MapProof) -> Result<(), MapProofError> {
    let depth = proof.siblings.len();
    if depth > DEPTH_MAX {
        return Err(MapProofError::TooDeep);
    }
    let place = match (value_hash, &proof.other) {
        (Some(_), Some(_)) => return Err(MapProofError::OtherInPresence),
        (Some(value_hash), None) => leaf_hash(key, value_hash),
        (None, None) => EMPTY,
        (None, Some((other, value_hash))) => {
            if other == key {
                return Err(MapProofError::OtherIsKey);
            }
            if (0..depth).any(|at| bit(other, at) != bit(key, at)) {
                return Err(MapProofError::OtherOffPath);
            }
            leaf_hash(other, value_hash)
        }
    };
    if proof.siblings.first() == Some(&EMPTY) {
        return Err(MapProofError::Uncollapsed);
    }
    let reached = (0..depth).rev().zip(&proof.siblings).fold(place, |hash, (at, sibling)| {
        if bit(key, at) { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) }
    });
    if reached == *root { Ok(()) } else { Err(MapProofError::RootMismatch) }
}

impl MapProof {
    /// The longest encoding, in bytes.
    pub const BYTES_MAX: usize = 3 + DEPTH_MAX / 8 + DEPTH_MAX * 32 + 64;

    /// A proof from its parts. [`verify`] is what judges them.
    pub fn new(siblings: Vec<Hash>, other: Option<(Hash, Hash)>) -> Self {
        Self { siblings, other }
    }

    /// The siblings on the way, from the place's own up to the root's child.
    pub fn siblings(&self) -> &[Hash] {
        &self.siblings
    }

    /// Key and value hash of the other record in the key's place, if one is there.
    pub fn other(&self) -> Option<&(Hash, Hash)> {
        self.other.as_ref()
    }

    /// The proof's bytes: 1 if another record stands in the place, otherwise 0; the number of
    /// siblings in two bytes; one bit for each sibling, 0 where it is [`EMPTY`], padded with zeros
    /// to a byte; the siblings that are not empty; key and value hash of the other record.
    pub fn encode(&self) -> Vec<u8> {
        let depth = self.siblings.len().min(usize::from(u16::MAX));
        let mut bytes = vec![u8::from(self.other.is_some())];
        #[expect(clippy::cast_possible_truncation, reason = "bounded in the line above")]
        bytes.extend((depth as u16).to_be_bytes());
        let given = self.siblings.iter().take(depth).map(|sibling| *sibling != EMPTY).collect::<Vec<_>>();
        bytes.extend(
            given
                .chunks(8)
                .map(|eight| eight.iter().enumerate().fold(0, |byte, (at, given)| byte | u8::from(*given) << (7 - at))),
        );
        for sibling in self.siblings.iter().take(depth).filter(|sibling| **sibling != EMPTY) {
            bytes.extend(sibling);
        }
        if let Some((key, value_hash)) = &self.other {
            bytes.extend(key);
            bytes.extend(value_hash);
        }
        bytes
    }

    /// Reads what [`MapProof::encode`] writes, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MapProofError> {
        let (&[form, high, low], mut rest) = bytes.split_first_chunk::<3>().ok_or(MapProofError::Truncated)?;
        if form > 1 {
            return Err(MapProofError::Form);
        }
        let depth = usize::from(u16::from_be_bytes([high, low]));
        if depth > DEPTH_MAX {
            return Err(MapProofError::TooDeep);
        }
        let (given, after) = rest.split_at_checked(depth.div_ceil(8)).ok_or(MapProofError::Truncated)?;
        rest = after;
        let is_given = |at: usize| given.get(at / 8).is_some_and(|byte| (byte >> (7 - at % 8)) & 1 == 1);
        if (depth..given.len() * 8).any(is_given) {
            return Err(MapProofError::NotCanonical);
        }
        let mut take = || {
            let (hash, after) = rest.split_first_chunk::<32>().ok_or(MapProofError::Truncated)?;
            rest = after;
            Ok(*hash)
        };
        let mut siblings = Vec::with_capacity(depth);
        for at in 0..depth {
            let sibling = if is_given(at) { take()? } else { EMPTY };
            if is_given(at) && sibling == EMPTY {
                return Err(MapProofError::NotCanonical);
            }
            siblings.push(sibling);
        }
        let other = if form == 1 { Some((take()?, take()?)) } else { None };
        if !rest.is_empty() {
            return Err(MapProofError::TrailingBytes);
        }
        Ok(Self { siblings, other })
    }
}
