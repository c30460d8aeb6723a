//! Proofs out of tiles.
//!
//! Takes the size of a tree and how its tiles are read; gives hashes at any place. Never believes
//! a tile's hashes: a proof made from wrong ones does not verify, since it is checked against a
//! root that was signed.

use std::collections::BTreeMap;

use super::{HEIGHT, Resource, TilePath};
use crate::Hash;
use crate::tree::{Coordinate, HashSource, node_hash};

/// Why bytes are not the tile they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// Not 32 bytes for each hash.
    #[error("the tile has {expected} bytes, {got} came")]
    Length {
        /// What its width demands.
        expected: usize,
        /// What came.
        got: usize,
    },
    /// An entry bundle where hashes are asked for.
    #[error("an entry bundle holds no hashes")]
    NotHashes,
}

impl TileError {
    /// Checks that the bytes have the length of the hash tile at this path.
    pub fn check(path: &TilePath, bytes: &[u8]) -> Result<(), Self> {
        if path.resource() == Resource::Entries {
            return Err(Self::NotHashes);
        }
        let expected = usize::from(path.width()) * 32;
        if bytes.len() == expected { Ok(()) } else { Err(Self::Length { expected, got: bytes.len() }) }
    }
}

/// Why hashes could not be had from tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TilesError<E> {
    /// The reader failed.
    #[error("tiles could not be read: {0}")]
    Read(E),
    /// The reader gave another number of tiles than it was asked for.
    #[error("{expected} tiles were asked for, {got} came")]
    Count {
        /// How many were asked for.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// What was read is not the tile.
    #[error(transparent)]
    Tile(TileError),
    /// The place does not lie within the tree.
    #[error("the tree has no hash at level {level}, index {index}")]
    Beyond {
        /// The level asked for.
        level: u8,
        /// The index asked for.
        index: u64,
    },
}

/// The tree of `size` leaves, read from its tiles. `read` is called once for all that is needed,
/// each tile once, and answers in the order of the paths.
#[derive(Clone, Debug)]
pub struct Tiles<F> {
    size: u64,
    read: F,
}

impl<F> Tiles<F> {
    /// The tree of `size` leaves.
    pub fn new(size: u64, read: F) -> Self {
        Self { size, read }
    }
}

impl<E, F: Fn(&[TilePath]) -> Result<Vec<Vec<u8>>, E>> HashSource for Tiles<F> {
    type Error = TilesError<E>;

    fn hashes(&self, at: &[Coordinate]) -> Result<Vec<Hash>, TilesError<E>> {
        let mut tiles = BTreeMap::new();
        let mut paths = Vec::new();
        let mut places = Vec::with_capacity(at.len());
        for it in at {
            let beyond = TilesError::Beyond { level: it.level, index: it.index };
            let height = it.level % HEIGHT;
            let resource = Resource::Hashes { level: it.level / HEIGHT };
            let path = TilePath::within(resource, it.index >> (HEIGHT - height), self.size).ok_or(beyond)?;
            // The leaves of this subtree within the tile's own 256.
            let first = usize::from((it.index << height).to_le_bytes()[0]);
            let range = first * 32..(first + (1 << height)) * 32;
            if range.end > usize::from(path.width()) * 32 {
                return Err(TilesError::Beyond { level: it.level, index: it.index });
            }
            let tile = *tiles.entry(path).or_insert_with(|| {
                paths.push(path);
                paths.len() - 1
            });
            places.push((tile, range));
        }
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        let read = (self.read)(&paths).map_err(TilesError::Read)?;
        if read.len() != paths.len() {
            return Err(TilesError::Count { expected: paths.len(), got: read.len() });
        }
        for (path, bytes) in paths.iter().zip(&read) {
            TileError::check(path, bytes).map_err(TilesError::Tile)?;
        }
        Ok(places.into_iter().map(|(tile, range)| perfect_root(&read[tile][range])).collect())
    }
}

/// The root over 2^n hashes.
fn perfect_root(bytes: &[u8]) -> Hash {
    let (hashes, _) = bytes.as_chunks::<32>();
    let mut level = hashes.to_vec();
    while level.len() > 1 {
        level = level.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(left, right)).collect();
    }
    level.first().copied().unwrap_or_default()
}
