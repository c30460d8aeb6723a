//! Proofs out of the stored tiles.
//!
//! Takes: a commitment, or two sizes. Gives: what RFC 6962 §2.1.1 and §2.1.2 prove by, with the signed checkpoint that it
//! is under. Never: proves under a checkpoint that is not durable.

use std::sync::Arc;

use bytes::Bytes;
use sluice_merkle::Hash;
use sluice_merkle::tile::{Resource, TilePath, Tiles, encode_entries};
use sluice_merkle::tree;

use super::{Head, Log, rows};
use crate::error::{Error, Result};
use crate::store::{Direction, KeyRange, Table};

/// That a leaf stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafProof {
    /// Its index, from 0.
    pub index: u64,
    /// The audit path, the leaf's sibling first (RFC 6962 §2.1.1).
    pub inclusion: Vec<Hash>,
    /// Leaves under the checkpoint.
    pub size: u64,
    /// The signed checkpoint: a C2SP note.
    pub checkpoint: Arc<str>,
}

impl Log {
    /// That the leaf of this commitment stands under the newest checkpoint; none while it has no index.
    ///
    /// # Errors
    /// An outage of the store; a defect if what is stored is not the tree.
    pub async fn proof(&self, commitment: &[u8; 32]) -> Result<Option<LeafProof>> {
        self.prove(commitment, &self.head()).await
    }

    /// The same under the checkpoint of this size, such as one that is anchored; none if there was no checkpoint of
    /// that size, or the leaf stands behind it.
    ///
    /// # Errors
    /// As [`Log::proof`].
    pub async fn proof_at(&self, commitment: &[u8; 32], size: u64) -> Result<Option<LeafProof>> {
        match self.checkpoint_at(size).await? {
            Some(checkpoint) => self.prove(commitment, &Head { size, root: Hash::default(), checkpoint }).await,
            None => Ok(None),
        }
    }

    /// The signed checkpoint of this size; none if none was signed.
    ///
    /// # Errors
    /// As [`Log::proof`].
    pub async fn checkpoint_at(&self, size: u64) -> Result<Option<Arc<str>>> {
        let head = self.head();
        if size >= head.size {
            return Ok((size == head.size).then(|| Arc::clone(&head.checkpoint)));
        }
        let row = self.store.read(Table::Checkpoint, &rows::number(size)).await?;
        let text = row.map(|row| String::from_utf8(row.to_vec())).transpose();
        Ok(text.map_err(|_| broken())?.map(Arc::from))
    }

    /// The index of a leaf under the newest checkpoint.
    ///
    /// # Errors
    /// As [`Log::proof`].
    pub async fn index(&self, commitment: &[u8; 32]) -> Result<Option<u64>> {
        let size = self.head().size;
        let row = self.store.read(Table::LeafIndex, commitment).await?;
        let index = row.map(|row| rows::read_number(&row).ok_or_else(broken)).transpose()?;
        Ok(index.filter(|index| *index < size))
    }

    /// That the tree of `new` leaves goes on from that of `old` (RFC 6962 §2.1.2); none beyond the newest checkpoint.
    ///
    /// # Errors
    /// As [`Log::proof`].
    pub async fn consistency(&self, old: u64, new: u64) -> Result<Option<Vec<Hash>>> {
        if old > new || new > self.head().size {
            return Ok(None);
        }
        let proof = |read: rows::Read<'_>| tree::consistency_proof(old, new, &Tiles::new(new, read));
        let proof = rows::with_tiles(&*self.store, proof).await?;
        proof.map(Some).map_err(|_| broken())
    }

    /// A tile as c2sp.org/tlog-tiles has it: hashes, or for the operator the entries; none beyond the newest
    /// checkpoint. A partial tile is the beginning of what it grew to, so it can be had for ever.
    ///
    /// # Errors
    /// As [`Log::proof`].
    pub async fn tile(&self, path: &TilePath) -> Result<Option<Bytes>> {
        let stands = TilePath::within(path.resource(), path.index(), self.head().size);
        if stands.is_none_or(|stands| stands.width() < path.width()) {
            return Ok(None);
        }
        if let Resource::Hashes { .. } = path.resource() {
            let tile = rows::read_tile(&*self.store, path).await?;
            return tile.map(Some).ok_or_else(broken);
        }
        let width = usize::from(path.width());
        let range = KeyRange {
            from: std::ops::Bound::Included(rows::leaf(path.index() * u64::from(rows::WIDTH))),
            ..KeyRange::all()
        };
        let leaves = self.store.scan(Table::Leaf, range, width, Direction::Up).await?;
        if leaves.len() != width {
            return Err(broken());
        }
        let bundle = encode_entries(leaves.iter().map(|row| &row.value)).map_err(|_| broken())?;
        Ok(Some(bundle.into()))
    }

    async fn prove(&self, commitment: &[u8; 32], head: &Head) -> Result<Option<LeafProof>> {
        let size = head.size;
        let Some(index) = self.index(commitment).await?.filter(|index| *index < size) else { return Ok(None) };
        let proof = |read: rows::Read<'_>| tree::inclusion_proof(index, size, &Tiles::new(size, read));
        let proof = rows::with_tiles(&*self.store, proof).await?;
        let inclusion = proof.map_err(|_| broken())?;
        Ok(Some(LeafProof { index, inclusion, size, checkpoint: Arc::clone(&head.checkpoint) }))
    }
}

fn broken() -> Error {
    Error::defect("what is stored of the log is not its tree")
}
