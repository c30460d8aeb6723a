//! Watching: the log from a cursor on, and then as it grows.
//!
//! Takes: a cursor. Gives: every change after it, once, in order. Never: skips a leaf; a cursor from beyond the end
//! means that the log went back, and is an integrity error.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use sluice_merkle::checkpoint::SignedCheckpoint;
use tokio::sync::watch;

use super::index::next_frame;
use super::segment::Kind;
use super::shared::{Durable, Shared};
use crate::ledger::entry::{Entry, MapHead};
use crate::ledger::error::{Breach, LedgerError};
use crate::ledger::types::{Change, Cursor, Finality, Head, Position};

/// Changes read at once.
const BATCH_MAX: usize = 512;

struct Tail {
    shared: Arc<Shared>,
    durable: watch::Receiver<Durable>,
    /// The next leaf to read.
    height: u64,
    ready: VecDeque<Change>,
    /// An error was given; nothing follows.
    over: bool,
}

/// Everything after `from`. Ends when the ledger closes, or after an error.
pub(super) fn watch(shared: &Arc<Shared>, from: &Cursor) -> BoxStream<'static, Result<Change, LedgerError>> {
    let height = match from.height() {
        Ok(height) => height,
        Err(cause) => return stream::once(async move { Err(cause.into()) }).boxed(),
    };
    let durable = shared.durable.subscribe();
    let shared = Arc::clone(shared);
    let tail = Tail { shared, durable, height, ready: VecDeque::new(), over: false };
    stream::unfold(tail, |mut tail| async {
        let change = tail.next().await?;
        Some((change, tail))
    })
    .boxed()
}

impl Tail {
    async fn next(&mut self) -> Option<Result<Change, LedgerError>> {
        loop {
            if self.over {
                return None;
            }
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            let (have, closed) = {
                let durable = self.durable.borrow_and_update();
                (durable.seen.height, durable.closed)
            };
            if self.height < have {
                if let Err(error) = self.read().await {
                    self.over = true;
                    return Some(Err(error));
                }
            } else if self.height > have {
                self.over = true;
                return Some(Err(Breach::Rollback { have, known: self.height }.into()));
            } else if closed || self.durable.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Reads on, off the runtime's threads: it is file work.
    async fn read(&mut self) -> Result<(), LedgerError> {
        let (shared, height) = (Arc::clone(&self.shared), self.height);
        let batch = tokio::task::spawn_blocking(move || read_batch(&shared, height)).await;
        let (changes, next) = batch.map_err(|error| LedgerError::Storage(error.to_string()))??;
        self.ready = changes;
        self.height = next;
        Ok(())
    }
}

/// The changes from leaf `height` on, and the leaf after them.
fn read_batch(shared: &Shared, mut height: u64) -> Result<(VecDeque<Change>, u64), LedgerError> {
    let mut changes = VecDeque::new();
    let Some(mut scanner) = shared.scan(height)? else { return Ok((changes, height)) };
    let mut map_head: Option<MapHead> = None;
    while !scanner.at_end() && changes.len() < BATCH_MAX {
        let offset = scanner.offset();
        let (kind, payload, _) = next_frame(&mut scanner)?;
        if kind == Kind::Checkpoint {
            // The checkpoint belongs to the map's root just before it, whose cursor it carries.
            let (Some(head), Ok(signed)) = (map_head.take(), SignedCheckpoint::parse(payload)) else { continue };
            let checkpoint = signed.checkpoint();
            let head = Head {
                ledger: shared.ledger.clone(),
                height: checkpoint.size(),
                root: *checkpoint.root(),
                time: head.time,
                finality: Finality::Final,
            };
            changes.push_back(Change::Finalized { cursor: Cursor::at(height), head });
            continue;
        }
        let entry = Entry::from_bytes(payload).map_err(|_| Breach::Rot { offset })?;
        let leaf = height;
        height += 1;
        match entry {
            Entry::Genesis(_) => {}
            Entry::MapHead(head) => map_head = Some(head),
            Entry::Op { time, op } => {
                map_head = None;
                let position = Position { height: leaf, index: 0, time };
                changes.push_back(Change::Applied { cursor: Cursor::at(height), position, op });
            }
        }
    }
    // A batch that ends between a map's root and its checkpoint begins the next one at the root again.
    if map_head.is_some() && !scanner.at_end() {
        height -= 1;
    }
    Ok((changes, height))
}
