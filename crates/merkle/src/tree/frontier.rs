//! The right edge of a growing tree.
//!
//! Takes leaf hashes one by one; gives the root after each. Never holds more than one hash for
//! each bit of the size.

use super::{Coordinate, EMPTY_ROOT, HashSource, SIZE_MAX, node_hash};
use crate::Hash;

/// The roots of the perfect subtrees that a tree of this size falls into, largest first.
///
/// That is all that is needed to append and to compute the root (RFC 6962 §2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// One hash for each bit set in `size`, highest bit first.
    hashes: Vec<Hash>,
}

/// Why a frontier could not be built or extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrontierError {
    /// The number of hashes is not the number of perfect subtrees in a tree of that size.
    #[error("a frontier of this size has {expected} hashes, {got} were given")]
    HashCount {
        /// How many perfect subtrees the tree has.
        expected: usize,
        /// How many hashes came.
        got: usize,
    },
    /// The size is beyond [`SIZE_MAX`].
    #[error("a tree has at most 2^63-1 leaves")]
    SizeTooLarge,
}

impl Frontier {
    /// The frontier of the tree without leaves.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frontier from what [`Frontier::hashes`] gave at that size.
    pub fn from_parts(size: u64, hashes: Vec<Hash>) -> Result<Self, FrontierError> {
        if size > SIZE_MAX {
            return Err(FrontierError::SizeTooLarge);
        }
        let expected = size.count_ones() as usize;
        if hashes.len() != expected {
            return Err(FrontierError::HashCount { expected, got: hashes.len() });
        }
        Ok(Self { size, hashes })
    }

    /// Where the hashes of a frontier stand in the tree, in the order of [`Frontier::hashes`].
    pub fn coordinates(size: u64) -> Vec<Coordinate> {
        Coordinate::cover(0, size)
    }

    /// Reads the frontier of the first `size` leaves out of a tree that is stored already.
    pub fn restore<S: HashSource>(size: u64, source: &S) -> Result<Self, RestoreError<S::Error>> {
        let hashes = source.hashes(&Self::coordinates(size)).map_err(RestoreError::Source)?;
        Self::from_parts(size, hashes).map_err(RestoreError::Frontier)
    }

    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The roots of the perfect subtrees, largest first: what has to be kept to go on later.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// Appends a leaf by its hash.
    pub fn append(&mut self, leaf_hash: Hash) -> Result<(), FrontierError> {
        self.append_with(leaf_hash, |_, _| {})
    }

    /// Appends a leaf by its hash and tells `complete` of each perfect subtree that it completes,
    /// the leaf itself first: the nodes that never change again and may be stored.
    pub fn append_with(
        &mut self,
        leaf_hash: Hash,
        mut complete: impl FnMut(Coordinate, &Hash),
    ) -> Result<(), FrontierError> {
        if self.size >= SIZE_MAX {
            return Err(FrontierError::SizeTooLarge);
        }
        let mut hash = leaf_hash;
        let mut at = Coordinate { level: 0, index: self.size };
        complete(at, &hash);
        // Each trailing one bit of the old size is a left sibling that waits for this subtree.
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.hashes.pop() else { break };
            hash = node_hash(&left, &hash);
            at = Coordinate { level: at.level + 1, index: at.index >> 1 };
            complete(at, &hash);
        }
        self.hashes.push(hash);
        self.size += 1;
        Ok(())
    }

    /// The root of the tree (RFC 6962 §2.1).
    pub fn root(&self) -> Hash {
        let mut smallest_first = self.hashes.iter().rev();
        let Some(&last) = smallest_first.next() else { return EMPTY_ROOT };
        smallest_first.fold(last, |right, left| node_hash(left, &right))
    }
}

/// Why a frontier could not be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError<E> {
    /// The source failed.
    #[error("the source of hashes failed: {0}")]
    Source(E),
    /// The source answered, but not with a frontier.
    #[error(transparent)]
    Frontier(FrontierError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::leaf_hash;

    #[test]
    fn parts_must_match_the_size() {
        assert_eq!(Frontier::from_parts(0, vec![]), Ok(Frontier::new()));
        assert_eq!(Frontier::from_parts(6, vec![[0; 32]]), Err(FrontierError::HashCount { expected: 2, got: 1 }));
        assert_eq!(Frontier::from_parts(SIZE_MAX + 1, vec![[0; 32]]), Err(FrontierError::SizeTooLarge));
    }

    #[test]
    fn a_full_tree_takes_no_more() {
        let mut frontier = Frontier::from_parts(SIZE_MAX, vec![[0; 32]; 63]).unwrap();
        assert_eq!(frontier.append(leaf_hash(b"")), Err(FrontierError::SizeTooLarge));
        assert_eq!(frontier.size(), SIZE_MAX);
    }

    #[test]
    fn each_completed_subtree_is_told_once() {
        let mut frontier = Frontier::new();
        let mut seen = Vec::new();
        for i in 0..8u8 {
            frontier.append_with(leaf_hash(&[i]), |at, _| seen.push((at.level, at.index))).unwrap();
        }
        assert_eq!(
            seen,
            [
                (0, 0),
                (0, 1),
                (1, 0),
                (0, 2),
                (0, 3),
                (1, 1),
                (2, 0),
                (0, 4),
                (0, 5),
                (1, 2),
                (0, 6),
                (0, 7),
                (1, 3),
                (2, 1),
                (3, 0),
            ]
        );
    }
}
