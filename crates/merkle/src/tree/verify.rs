//! Checking proofs.
//!
//! Takes a proof and what it claims; gives nothing, or the exact reason why it does not hold.
//! The length of a proof follows from the sizes and is compared first, so that no proof is
//! accepted that carries a hash nobody looks at.

use super::{EMPTY_ROOT, node_hash};
use crate::Hash;

/// Why an inclusion proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InclusionError {
    /// The leaf cannot be in a tree of that size.
    #[error("the tree of {size} leaves has no leaf {index}")]
    IndexBeyondSize {
        /// The leaf's index.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// A proof for this leaf in a tree of this size has another length.
    #[error("an inclusion proof for this place has {expected} hashes, this one has {got}")]
    ProofLength {
        /// What the index and the size demand.
        expected: usize,
        /// What the proof has.
        got: usize,
    },
    /// The proof leads to another root.
    #[error("the inclusion proof leads to another root")]
    RootMismatch,
}

/// Why a consistency proof does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsistencyError {
    /// The older tree is larger than the newer.
    #[error("the older tree ({old} leaves) is larger than the newer ({new})")]
    SizesReversed {
        /// The size called older.
        old: u64,
        /// The size called newer.
        new: u64,
    },
    /// A proof between trees of these sizes has another length.
    #[error("a consistency proof between these sizes has {expected} hashes, this one has {got}")]
    ProofLength {
        /// What the sizes demand.
        expected: usize,
        /// What the proof has.
        got: usize,
    },
    /// The proof does not lead to the older root.
    #[error("the consistency proof leads to another older root")]
    OldRootMismatch,
    /// The proof does not lead to the newer root.
    #[error("the consistency proof leads to another newer root")]
    NewRootMismatch,
}

/// Checks that the leaf with this hash stands at `index` in the tree with this size and root
/// (RFC 6962 §2.1.1; the check is that of RFC 9162 §2.1.3.2).
pub fn verify_inclusion(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
    root: &Hash,
) -> Result<(), InclusionError> {
    if inclusion_root(leaf_hash, index, size, proof)? == *root { Ok(()) } else { Err(InclusionError::RootMismatch) }
}

/// The root that a proof leads to if the leaf stands at `index` in a tree of `size` leaves.
pub fn inclusion_root(leaf_hash: &Hash, index: u64, size: u64, proof: &[Hash]) -> Result<Hash, InclusionError> {
    if index >= size {
        return Err(InclusionError::IndexBeyondSize { index, size });
    }
    let (inner, border) = path_lengths(index, size);
    let expected = inner + border;
    if proof.len() != expected {
        return Err(InclusionError::ProofLength { expected, got: proof.len() });
    }
    let (inner, border) = proof.split_at(inner);
    Ok(climb_border(climb_inner(*leaf_hash, inner, index), border))
}

/// Checks that the tree of `new_size` leaves begins with the tree of `old_size` leaves
/// (RFC 6962 §2.1.2; the check is that of RFC 9162 §2.1.4.2).
///
/// Before every tree stands the empty one: from size 0 the proof is empty and the older root
/// must be [`EMPTY_ROOT`].
pub fn verify_consistency(
    old_size: u64,
    new_size: u64,
    old_root: &Hash,
    new_root: &Hash,
    proof: &[Hash],
) -> Result<(), ConsistencyError> {
    if old_size > new_size {
        return Err(ConsistencyError::SizesReversed { old: old_size, new: new_size });
    }
    if new_size == 0 && *new_root != EMPTY_ROOT {
        return Err(ConsistencyError::NewRootMismatch);
    }
    if old_size == 0 && *old_root != EMPTY_ROOT {
        return Err(ConsistencyError::OldRootMismatch);
    }
    if old_size == 0 || old_size == new_size {
        if !proof.is_empty() {
            return Err(ConsistencyError::ProofLength { expected: 0, got: proof.len() });
        }
        return if old_size == 0 || old_root == new_root { Ok(()) } else { Err(ConsistencyError::NewRootMismatch) };
    }

    // The proof is the path of the older tree's last perfect subtree, up to both roots. Where
    // that subtree is the whole older tree, its hash is the older root and is left out.
    let shift = old_size.trailing_zeros() as usize;
    let seed_omitted = old_size.is_power_of_two();
    let (inner, border) = path_lengths(old_size - 1, new_size);
    let inner = inner - shift;
    let expected = inner + border + usize::from(!seed_omitted);
    if proof.len() != expected {
        return Err(ConsistencyError::ProofLength { expected, got: proof.len() });
    }
    let (seed, path) = match proof.split_first() {
        Some((first, rest)) if !seed_omitted => (*first, rest),
        _ => (*old_root, proof),
    };
    let (inner, border) = path.split_at(inner);
    let mask = (old_size - 1) >> shift;

    // Only left siblings belong to the older tree.
    let old = inner
        .iter()
        .enumerate()
        .filter(|(height, _)| (mask >> height) & 1 == 1)
        .fold(seed, |hash, (_, left)| node_hash(left, &hash));
    if climb_border(old, border) != *old_root {
        return Err(ConsistencyError::OldRootMismatch);
    }
    if climb_border(climb_inner(seed, inner, mask), border) != *new_root {
        return Err(ConsistencyError::NewRootMismatch);
    }
    Ok(())
}

/// How many siblings stand beside the path of `index` up to where it joins the path of the last
/// leaf, where siblings are on both sides, and how many beyond, where all are on the left.
fn path_lengths(index: u64, size: u64) -> (usize, usize) {
    let inner = u64::BITS - (index ^ (size - 1)).leading_zeros();
    let border = index.checked_shr(inner).unwrap_or(0).count_ones();
    (inner as usize, border as usize)
}

fn climb_inner(hash: Hash, siblings: &[Hash], index: u64) -> Hash {
    siblings.iter().enumerate().fold(hash, |hash, (height, sibling)| {
        if (index >> height) & 1 == 0 { node_hash(&hash, sibling) } else { node_hash(sibling, &hash) }
    })
}

fn climb_border(hash: Hash, siblings: &[Hash]) -> Hash {
    siblings.iter().fold(hash, |hash, left| node_hash(left, &hash))
}
