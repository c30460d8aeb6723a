//! Making proofs.
//!
//! Takes sizes, an index and a source of stored hashes; gives the proofs of RFC 6962 §2.1.1 and
//! §2.1.2. Asks the source once per proof, so that a source on a disk or a network can gather.

use std::ops::Range;

use super::node_hash;
use crate::Hash;

/// A perfect subtree: the 2^level leaves from index * 2^level on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Coordinate {
    /// The subtree's height; 0 is a leaf.
    pub level: u8,
    /// Its place among the subtrees of this height, from the left.
    pub index: u64,
}

impl Coordinate {
    /// The perfect subtrees that the leaves `start..end` fall into, left to right, which is
    /// largest first. `start` must be a multiple of a power of two not below `end - start`, as
    /// RFC 6962's splits always are.
    pub(super) fn cover(start: u64, end: u64) -> Vec<Self> {
        let mut cover = Vec::new();
        let mut at = start;
        while at < end {
            let level = (end - at).ilog2();
            #[expect(clippy::cast_possible_truncation, reason = "ilog2 of a u64 is below 64")]
            cover.push(Self { level: level as u8, index: at >> level });
            at += 1 << level;
        }
        cover
    }
}

/// Where the hashes of perfect subtrees are kept.
pub trait HashSource {
    /// What can go wrong at the source.
    type Error;

    /// The hashes at these coordinates, in this order. Only subtrees that lie wholly within the
    /// tree are asked for.
    fn hashes(&self, at: &[Coordinate]) -> Result<Vec<Hash>, Self::Error>;
}

/// Why a proof could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProveError<E> {
    /// The leaf is not in a tree of that size.
    #[error("the tree of {size} leaves has no leaf {index}")]
    IndexBeyondSize {
        /// The leaf asked for.
        index: u64,
        /// The tree's size.
        size: u64,
    },
    /// The older tree is larger than the newer.
    #[error("the older tree ({old} leaves) is larger than the newer ({new})")]
    SizesReversed {
        /// The size called older.
        old: u64,
        /// The size called newer.
        new: u64,
    },
    /// The source gave another number of hashes than it was asked for.
    #[error("the source was asked for {expected} hashes and gave {got}")]
    SourceCount {
        /// How many were asked for.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// The source failed.
    #[error("the source of hashes failed: {0}")]
    Source(E),
}

/// The audit path of leaf `index` in the tree of `size` leaves, the leaf's sibling first
/// (RFC 6962 §2.1.1, PATH).
pub fn inclusion_proof<S: HashSource>(index: u64, size: u64, source: &S) -> Result<Vec<Hash>, ProveError<S::Error>> {
    if index >= size {
        return Err(ProveError::IndexBeyondSize { index, size });
    }
    let mut siblings = Vec::new();
    let mut subtree = 0..size;
    while subtree.end - subtree.start > 1 {
        let middle = split(&subtree);
        if index < middle {
            siblings.push(middle..subtree.end);
            subtree.end = middle;
        } else {
            siblings.push(subtree.start..middle);
            subtree.start = middle;
        }
    }
    siblings.reverse();
    roots(&siblings, source)
}

/// The consistency proof between the trees of the first `old` and of the first `new` leaves
/// (RFC 6962 §2.1.2, PROOF). Empty if `old` is 0, as c2sp.org/tlog-witness has it, or equal to
/// `new`.
pub fn consistency_proof<S: HashSource>(old: u64, new: u64, source: &S) -> Result<Vec<Hash>, ProveError<S::Error>> {
    if old > new {
        return Err(ProveError::SizesReversed { old, new });
    }
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let mut needed = Vec::new();
    let mut subtree = 0..new;
    // SUBPROOF's flag: whether the subtree is still the older tree itself, whose root the verifier has.
    let mut whole = true;
    while old != subtree.end {
        let middle = split(&subtree);
        if old <= middle {
            needed.push(middle..subtree.end);
            subtree.end = middle;
        } else {
            needed.push(subtree.start..middle);
            subtree.start = middle;
            whole = false;
        }
    }
    if !whole {
        needed.push(subtree);
    }
    needed.reverse();
    roots(&needed, source)
}

/// RFC 6962 §2.1: a subtree is split at the largest power of two smaller than its size.
fn split(subtree: &Range<u64>) -> u64 {
    subtree.start + (1 << (subtree.end - subtree.start - 1).ilog2())
}

/// The roots of these subtrees, each put together from its perfect subtrees.
fn roots<S: HashSource>(subtrees: &[Range<u64>], source: &S) -> Result<Vec<Hash>, ProveError<S::Error>> {
    let covers: Vec<_> = subtrees.iter().map(|it| Coordinate::cover(it.start, it.end)).collect();
    let asked = covers.concat();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let hashes = source.hashes(&asked).map_err(ProveError::Source)?;
    if hashes.len() != asked.len() {
        return Err(ProveError::SourceCount { expected: asked.len(), got: hashes.len() });
    }
    let mut rest = hashes.as_slice();
    let mut proof = Vec::with_capacity(covers.len());
    for cover in &covers {
        let (own, after) = rest.split_at(cover.len());
        rest = after;
        let mut smallest_first = own.iter().rev();
        if let Some(&last) = smallest_first.next() {
            proof.push(smallest_first.fold(last, |right, left| node_hash(left, &right)));
        }
    }
    Ok(proof)
}
