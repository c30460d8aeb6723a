//! The append-only Merkle tree of RFC 6962 §2.1, over SHA-256.
//!
//! Takes leaf hashes in order; gives roots and proofs, and checks both. Never keeps the leaves:
//! a [`Frontier`] holds one hash for each bit of the size, and a proof is made from whatever
//! [`HashSource`] the caller has (tiles, rows, memory).

mod frontier;
mod prove;
mod verify;

use sha2::{Digest, Sha256};

pub use frontier::{Frontier, FrontierError, RestoreError};
pub use prove::{Coordinate, HashSource, ProveError, consistency_proof, inclusion_proof};
pub use verify::{ConsistencyError, InclusionError, inclusion_root, verify_consistency, verify_inclusion};

use crate::Hash;

/// The largest tree that any decoder here accepts: what fits a signed 64-bit number, since that
/// is what other implementations of the C2SP texts hold a size in.
pub const SIZE_MAX: u64 = i64::MAX.unsigned_abs();

/// The most hashes a proof can have in a tree of up to [`SIZE_MAX`] leaves: 63 for an inclusion
/// proof, one more for a consistency proof.
pub const PROOF_HASHES_MAX: usize = 64;

/// The root of the tree without leaves: the hash of the empty string (RFC 6962 §2.1).
pub const EMPTY_ROOT: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The hash of a leaf: SHA-256(0x00 || entry), RFC 6962 §2.1.
pub fn leaf_hash(entry: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0x00]);
    hasher.update(entry);
    hasher.finalize().into()
}

/// The hash of an inner node: SHA-256(0x01 || left || right), RFC 6962 §2.1.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut message = [0x01; 65];
    message[1..33].copy_from_slice(left);
    message[33..].copy_from_slice(right);
    Sha256::digest(message).into()
}
