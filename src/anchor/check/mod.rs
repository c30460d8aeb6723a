//! Check: a log is computed again from its leaves and held against what it shows and signed.
//!
//! Takes: a log's files from anywhere, or the store itself. Gives: size, root and every place that does not fit. Never:
//! believes a tile, an index or a key that came with the log.
//!
//! The right edge of a tree gives, as it grows over the leaves, the very tiles that a log has to serve and the root at
//! each size. So one pass compares all tiles of all levels, and each checkpoint that was ever signed with the root at its
//! size, which is what consistency between them means.

mod files;
mod operator;
mod remote;

use std::collections::BTreeMap;

use sluice_merkle::Hash;
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::note::VerifierKey;
use sluice_merkle::tile::{Edge, Tile, TilePath};
use sluice_merkle::tree::FrontierError;

pub use self::files::{Folder, Source, SourceError, files};
pub use self::operator::{Leaves, operator};
pub use self::remote::Remote;

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Leaves under the newest checkpoint.
    pub size: u64,
    /// The root that it names.
    pub root: Hash,
    /// Whether its signature was checked: only by a key that the caller trusts.
    pub signed: bool,
    /// What does not fit, in the order of the log; the log is fine if there is nothing.
    pub findings: Vec<Finding>,
    /// The operator's view: how many leaves of each kind.
    pub leaves: Option<Leaves>,
}

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// A checkpoint is not signed by the log's key, or is another log's.
    #[error("the checkpoint of size {size} is not signed by the log's key")]
    Signature {
        /// Leaves under it.
        size: u64,
    },
    /// The leaves lead to another root than a checkpoint names: a fork, or a tile that was changed.
    #[error("the leaves lead to another root than the checkpoint of size {size}")]
    Root {
        /// Leaves under it.
        size: u64,
    },
    /// A checkpoint that was signed covers more than the log has.
    #[error("a checkpoint of size {size} was signed, and the log ends before it")]
    Rollback {
        /// Leaves under it.
        size: u64,
    },
    /// A tile is missing: nothing can be said of what it should hold.
    #[error("{path} is missing")]
    Missing {
        /// Which.
        path: TilePath,
    },
    /// A tile is not what the leaves make it.
    #[error("{path} is not what the leaves make it")]
    Tile {
        /// Which.
        path: TilePath,
    },
    /// An entry is missing, or does not have the hash that stands in the tile.
    #[error("leaf {index} is missing, or not the one in the tile")]
    Leaf {
        /// Which, from 0.
        index: u64,
    },
    /// What the operator has to a leaf does not fit it: another index, or an opening of something else.
    #[error("what opens leaf {index} opens another one")]
    Opening {
        /// Which, from 0.
        index: u64,
    },
}

impl Report {
    /// Whether everything fits.
    pub fn is_ok(&self) -> bool {
        self.findings.is_empty()
    }
}

/// A log that is computed again.
struct Recomputed<'a> {
    edge: Edge,
    /// Checkpoints whose size is not reached yet, by size.
    ahead: BTreeMap<u64, Vec<&'a SignedCheckpoint>>,
    findings: Vec<Finding>,
}

impl<'a> Recomputed<'a> {
    /// Begins; each checkpoint is compared when its size is reached.
    fn new(checkpoints: impl IntoIterator<Item = &'a SignedCheckpoint>, key: Option<&VerifierKey>) -> Self {
        let mut new = Self { edge: Edge::new(), ahead: BTreeMap::new(), findings: Vec::new() };
        for signed in checkpoints {
            let size = signed.checkpoint().size();
            if key.is_some_and(|key| !is_by(signed, key)) {
                new.findings.push(Finding::Signature { size });
            }
            new.ahead.entry(size).or_default().push(signed);
        }
        new.compare();
        new
    }

    /// The next leaf, by its hash; gives the tiles that became full.
    fn append(&mut self, hash: Hash) -> Result<(), FrontierError> {
        self.edge.append(hash)?;
        self.compare();
        Ok(())
    }

    /// The tiles that are new since the last call; partial ones too.
    fn tiles(&mut self) -> Vec<Tile> {
        self.edge.take()
    }

    fn compare(&mut self) {
        let size = self.edge.size();
        for signed in self.ahead.remove(&size).unwrap_or_default() {
            if *signed.checkpoint().root() != self.edge.root() {
                self.findings.push(Finding::Root { size });
            }
        }
    }

    /// Ends: what is still ahead was cut off.
    fn finish(mut self) -> Vec<Finding> {
        self.findings.extend(self.ahead.into_keys().map(|size| Finding::Rollback { size }));
        self.findings
    }
}

/// Whether a checkpoint is one of the log with this key.
fn is_by(signed: &SignedCheckpoint, key: &VerifierKey) -> bool {
    signed.checkpoint().origin() == key.name().as_str()
        && signed.note().verify([key], &super::ed25519).is_ok_and(|by| !by.is_empty())
}
