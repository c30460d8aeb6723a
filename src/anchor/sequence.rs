//! Sequence: leaves that wait get their indexes.
//!
//! Takes: all that waits, up to a bound. Gives: leaves, tiles and a signed checkpoint in one commit. Never: keeps the
//! order in which leaves came: a batch is shuffled and filled up with dummies, so that neighbours tell nothing.

use std::ops::Bound;
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use bytes::Bytes;
use sluice_merkle::tile::Edge;
use sluice_merkle::tree;

use super::{HEAD, Head, Log, State, load, rows, sign};
use crate::error::{Error, Peer, Result};
use crate::observe::Stage;
use crate::record::leaf::{LEAF_BYTES, SCHEME, leaf_bytes, random};
use crate::record::uncommitted;
use crate::store::{Batch, CommitError, Direction, KeyRange, Row, Table};

/// A batch takes no further row once it holds this many leaves, dummies apart: less than that means that none waits.
pub const LEAVES_MAX: usize = 4096;

/// A leaf as it enters the log.
type Leaf = [u8; LEAF_BYTES];

impl Log {
    /// Gives one batch of waiting leaves their indexes and signs a checkpoint over them; 0 if none waited. Returns how
    /// many leaves waited, dummies not counted.
    ///
    /// # Errors
    /// An outage of the store; a defect if a waiting row is no leaf. Either way the leaves wait on.
    pub async fn sequence(&self) -> Result<usize> {
        let started = Instant::now();
        let mut edge = self.edge.lock().await;
        let from =
            KeyRange { from: Bound::Included(self.waiting.from().to_be_bytes().to_vec().into()), ..KeyRange::all() };
        let waiting = self.store.scan(Table::LeafPending, from, LEAVES_MAX, Direction::Up);
        let mut waiting = waiting.await?;
        let mut leaves = 0;
        let within = waiting.iter().take_while(|row| {
            let takes = leaves < LEAVES_MAX;
            leaves += if takes { row.value.len() / LEAF_BYTES } else { 0 };
            takes
        });
        let within = within.count();
        waiting.truncate(within);
        if waiting.is_empty() {
            return Ok(0);
        }
        let (batch, next) = self.batch(&edge, &waiting)?;
        // A crash right here leaves the leaves waiting and a checkpoint that nobody saw: the next process draws other
        // dummies and signs another tree of that size, and only one of the two is ever durable, hence shown. A crash
        // after the commit leaves a head that the next process finds and goes on from.
        match self.store.commit(batch).await {
            Ok(()) => {}
            Err(CommitError::Conflict { .. }) => {
                // Another sequencer, or a call of ours that was dropped while its commit was under way: what is
                // stored decides, and it is held against its signature as at the start.
                let state = load(&*self.store, &self.key).await.ok().flatten();
                let State { edge: stored, head } =
                    state.ok_or_else(|| Error::defect("the log that took this one's place can't be read"))?;
                *edge = stored;
                self.show(head);
                return Err(Error::outage(Peer::Store, Duration::from_secs(1), "the log's head moved"));
            }
            Err(error) => return Err(uncommitted(&error)),
        }
        *edge = next.edge;
        // Durable, so it may be shown.
        self.show(next.head);
        self.observer.metrics().stage(Stage::Sequence, started.elapsed());
        if let Some(last) = waiting.last().and_then(|row| rows::read_number(&row.key)) {
            self.waiting.done_below(last);
        }
        Ok(leaves)
    }

    /// The commit that sequences these rows, and the state after it.
    fn batch(&self, edge: &Edge, waiting: &[Row]) -> Result<(Batch, State)> {
        let broken = || Error::defect("the log can't grow");
        let head = self.head();
        let mut batch =
            Batch::new().expect_value(Table::Meta, HEAD, Bytes::copy_from_slice(head.checkpoint.as_bytes()));
        let mut leaves = Vec::with_capacity(waiting.len().next_multiple_of(self.batch_multiple));
        for row in waiting {
            let (found, rest) = row.value.as_chunks::<LEAF_BYTES>();
            if found.is_empty() || !rest.is_empty() {
                return Err(Error::defect("a waiting row holds no leaves"));
            }
            if found.iter().any(|leaf| leaf[0] != SCHEME) {
                return Err(Error::defect("a waiting leaf is of an unknown scheme"));
            }
            leaves.extend(found.iter().map(|leaf| (*leaf, true)));
            batch = batch.delete(Table::LeafPending, row.key.clone());
        }
        while leaves.len() % self.batch_multiple != 0 {
            // Nobody knows what it would be a commitment to.
            leaves.push((leaf_bytes(&random()?), false));
        }
        shuffle(&mut leaves)?;
        let mut edge = edge.clone();
        for (leaf, is_ours) in &leaves {
            let index = rows::leaf(edge.size());
            edge.append(tree::leaf_hash(leaf)).map_err(|_| broken())?;
            if *is_ours {
                batch = batch.put(Table::LeafIndex, Bytes::copy_from_slice(&leaf[1..]), index.clone());
            }
            batch = batch.put(Table::Leaf, index, leaf.to_vec());
        }
        for tile in edge.take() {
            let key = rows::key_of(&tile.path).ok_or_else(broken)?;
            batch = batch.put(Table::Tile, key, tile.bytes);
        }
        let head: Head = sign(&self.keys, &self.key, edge.size(), edge.root()).map_err(|_| broken())?;
        let batch = batch.append_head(&head);
        Ok((batch, State { edge, head }))
    }
}

/// Puts leaves in an order that nobody can foresee: that of random numbers drawn for each. With 128 bits no two of a
/// batch are alike, so every order is as likely as any other.
fn shuffle(leaves: &mut Vec<(Leaf, bool)>) -> Result<()> {
    let mut numbers = vec![0; leaves.len() * 16];
    rand::fill(&mut numbers).map_err(|_| Error::defect("the platform gives no random bytes"))?;
    let mut drawn: Vec<_> = numbers.as_chunks::<16>().0.iter().zip(leaves.drain(..)).collect();
    drawn.sort_unstable_by_key(|(number, _)| **number);
    let shuffled: Vec<_> = drawn.into_iter().map(|(_, leaf)| leaf).collect();
    *leaves = shuffled;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_the_leaves_and_loses_their_order() {
        let before: Vec<(Leaf, bool)> = (0..=255u8).map(|n| ([n; 33], n % 2 == 0)).collect();
        let mut after = before.clone();
        shuffle(&mut after).unwrap();
        assert_ne!(after, before, "one in 256! is left where it was");
        after.sort_unstable();
        assert_eq!(after, before);
    }
}
