//! A Merkle prefix tree over 32-byte keys, which proves what stands in it and what does not.
//!
//! Takes records by key, in batches; gives the root after each batch and proofs against it. Never
//! forgets a key, and never looks inside a value: a value counts by its hash.
//!
//! The root is a function of the set of records alone:
//!
//! - the tree of no record is [`EMPTY`];
//! - the tree of one record is its leaf, SHA-256(0x02 || key || value hash);
//! - any other tree is SHA-256(0x03 || left || right), where the records whose next key bit is 0
//!   are on the left. Bits are taken from the most significant of the first byte on.
//!
//! The tags 0x02, 0x03 and 0x04 keep these apart from the log's own hashes (RFC 6962 §2.1), so
//! that no proof of one kind can be read as one of the other.
//!
//! Keys are meant to be hashes or HMACs. Chosen keys that share long prefixes cost memory and
//! depth (at most 256 hashes an update), never correctness.

mod directory;
mod proof;

use sha2::{Digest, Sha256};

use directory::Directory;
pub use proof::{MapProof, MapProofError, verify};

use crate::Hash;

/// The root of the map without records: SHA-256(0x04).
pub const EMPTY: Hash = [
    0xe5, 0x2d, 0x9c, 0x50, 0x8c, 0x50, 0x23, 0x47, 0x34, 0x4d, 0x8c, 0x07, 0xad, 0x91, 0xcb, 0xd6, 0x06, 0x8a, 0xfc,
    0x75, 0xff, 0x62, 0x92, 0xf0, 0x62, 0xa0, 0x9c, 0xa3, 0x81, 0xc8, 0x9e, 0x71,
];

/// What a map keeps under a key.
pub trait Value {
    /// The hash by which the value counts in the tree. It is asked for again whenever a record
    /// nearby changes, so it must always be the same.
    fn value_hash(&self) -> Hash;
}

/// A hash stands for itself, for those who keep the values elsewhere.
impl Value for Hash {
    fn value_hash(&self) -> Hash {
        *self
    }
}

/// Records by 32-byte key, with the Merkle tree over them.
///
/// The tree's lower part is not kept but computed again: about ten neighbours share a bucket, and
/// only the hashes above the buckets are stored. So a record costs its key, its value and some 15
/// bytes, and a look-up two cache misses.
#[derive(Clone, Debug)]
pub struct Map<V> {
    directory: Directory<V>,
    len: usize,
}

impl<V: Value> Map<V> {
    /// The map without records.
    pub fn new() -> Self {
        Self { directory: Directory::new(0), len: 0 }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value under a key.
    pub fn get(&self, key: &Hash) -> Option<&V> {
        self.directory.get(key)
    }

    /// Puts one value under a key and gives the value that stood there. Several at once are
    /// cheaper by [`Map::update`].
    pub fn insert(&mut self, key: Hash, value: V) -> Option<V> {
        let before = self.put(key, value);
        self.directory.settle();
        before
    }

    /// Puts a batch of values under their keys, the last one winning where a key comes twice, and
    /// gives the root after it. The hashes that the records share are computed once.
    pub fn update(&mut self, records: impl IntoIterator<Item = (Hash, V)>) -> Hash {
        for (key, value) in records {
            self.put(key, value);
        }
        self.directory.settle();
        self.root()
    }

    /// The root over all records.
    pub fn root(&self) -> Hash {
        self.directory.root()
    }

    /// The proof that the key has the value it has, or that it has none. [`verify`] checks it
    /// against the root.
    pub fn prove(&self, key: &Hash) -> MapProof {
        self.directory.prove(key)
    }

    /// All records in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&Hash, &V)> {
        self.directory.iter()
    }

    fn put(&mut self, key: Hash, value: V) -> Option<V> {
        let before = self.directory.put(key, value);
        self.len += usize::from(before.is_none());
        before
    }
}

impl<V: Value> Default for Map<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Value> FromIterator<(Hash, V)> for Map<V> {
    fn from_iter<I: IntoIterator<Item = (Hash, V)>>(records: I) -> Self {
        let mut map = Self::new();
        map.update(records);
        map
    }
}

impl<V: Value> Extend<(Hash, V)> for Map<V> {
    fn extend<I: IntoIterator<Item = (Hash, V)>>(&mut self, records: I) {
        self.update(records);
    }
}

/// The hash of the tree of one record.
pub fn leaf_hash(key: &Hash, value_hash: &Hash) -> Hash {
    tagged(0x02, key, value_hash)
}

/// The hash of the tree of several records, from those of its halves.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    tagged(0x03, left, right)
}

fn tagged(tag: u8, first: &Hash, second: &Hash) -> Hash {
    let mut message = [tag; 65];
    message[1..33].copy_from_slice(first);
    message[33..].copy_from_slice(second);
    Sha256::digest(message).into()
}

/// One bit of a key, the most significant of the first byte being bit 0.
fn bit(key: &Hash, at: usize) -> bool {
    key.get(at / 8).is_some_and(|byte| (byte >> (7 - at % 8)) & 1 == 1)
}

#[cfg(test)]
mod tests;
