//! The beat: the newest checkpoint is put on the ledger, also when nothing happened.
//!
//! Takes: a ledger. Gives: a receipt for the newest checkpoint, durable. Never: sends a second anchor while it is not
//! known what became of the first; never hands a beat to two checkpoints.
//!
//! A beat is durable before it is sent. So after a crash, or an answer that never came, the same anchor is asked about
//! and sent again, byte for byte: the ledger knows it by its content.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::receipt::anchor;
use super::{AnchorReceipt, Anchored, Log, OpenError, rows};
use crate::error::{Error, Peer, Result};
use crate::ledger::{Anchor, Finality, Ledger, LedgerError, Operation, Outcome, Rejection};
use crate::observe::Stage;
use crate::record::uncommitted;
use crate::store::{Batch, Direction, KeyRange, Store, StoreError, Table};

/// The beat that was begun last.
const BEAT: &[u8] = b"anchor/beat";

/// The newest head of the ledger that this gateway relied on: height and root.
const LEDGER: &[u8] = b"anchor/ledger";

/// A beat that was begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Beat {
    number: u64,
    /// The checkpoint that it is for.
    size: u64,
    /// Whether it may be on its way.
    open: bool,
}

/// A row of [`Table::Receipt`].
#[derive(Serialize, Deserialize)]
struct Stored {
    size: u64,
    receipt: AnchorReceipt,
}

impl Log {
    /// Anchors the newest checkpoint and waits for its receipt, or finds out what became of the anchor before it.
    ///
    /// # Errors
    /// An outage of the ledger or the store; a refusal of the ledger, such as one that knows a longer log of this
    /// origin. What was begun is resolved by the next call.
    pub async fn anchor(&self, ledger: &dyn Ledger) -> Result<Arc<Anchored>> {
        let started = Instant::now();
        let _one_at_a_time = self.anchoring.lock().await;
        let result = self.beat(ledger).await;
        if let Ok(anchored) = &result {
            self.anchored.store(Some(Arc::clone(anchored)));
            self.progress.send_modify(|progress| progress.anchored = anchored.size);
            let metrics = self.observer.metrics();
            metrics.anchored();
            metrics.stage(Stage::Anchor, started.elapsed());
        }
        result
    }

    async fn beat(&self, ledger: &dyn Ledger) -> Result<Arc<Anchored>> {
        let row = self.store.read(Table::Meta, BEAT).await?;
        let last = row.as_deref().map(Beat::read).transpose()?.unwrap_or_default();
        let (beat, sent_before) = if last.open {
            (last, true)
        } else {
            let number = last.number.checked_add(1).ok_or_else(|| Error::defect("there are no more beats"))?;
            let beat = Beat { number, size: self.head().size, open: true };
            let batch = Batch::new().expect_read(Table::Meta, BEAT, row).put(Table::Meta, BEAT, beat.write());
            // A crash before this commit leaves nothing; after it, a beat that the ledger is asked about first.
            self.store.commit(batch).await.map_err(|error| uncommitted(&error))?;
            (beat, false)
        };
        let checkpoint = self.checkpoint_at(beat.size).await?;
        let checkpoint = checkpoint.ok_or_else(|| Error::defect("the checkpoint of a beat is gone"))?;
        let anchor = anchor(beat.number, &checkpoint).ok_or_else(|| Error::defect("a checkpoint can't be read"))?;
        if sent_before {
            self.ask(ledger, beat, &anchor).await?;
        }
        let receipt = match ledger.anchor(&anchor).await {
            Ok(receipt) => AnchorReceipt::new(beat.number, receipt),
            Err(error) => return Err(self.not_anchored(beat, error).await),
        };
        self.keep(ledger, beat, &receipt).await?;
        Ok(Arc::new(Anchored { size: beat.size, checkpoint, receipt }))
    }

    /// What became of an anchor that may have been sent: nothing to worry about, if this returns.
    async fn ask(&self, ledger: &dyn Ledger, beat: Beat, anchor: &Anchor) -> Result<()> {
        let op = Operation::Anchor(anchor.clone()).id();
        match ledger.outcome(&op).await.map_err(Error::from)? {
            // It stands, and the same anchor again gives its receipt; or the ledger never saw it.
            Outcome::Committed(_) | Outcome::Unknown => Ok(()),
            Outcome::Pending => {
                Err(Error::outage(Peer::Ledger, Duration::from_secs(1), "the anchor before is not settled"))
            }
            Outcome::Rejected(rejection) => Err(self.not_anchored(beat, LedgerError::Rejected(rejection)).await),
            Outcome::Dead => {
                self.close(beat).await?;
                Err(Error::outage(
                    Peer::Ledger,
                    Duration::from_secs(1),
                    "the anchor before can't be committed any more",
                ))
            }
        }
    }

    /// Ends a beat that the ledger will never take, so that the next one is another. Anything else stays open: it may
    /// have been committed. A ledger that knows a later beat, or more leaves, than this log ever sent has anchored
    /// another log of this name: an older copy was put back, or there are two. Then the beat stays open as well and is
    /// rejected for ever, however far this log grows, until an operator has found out which log is the true one.
    async fn not_anchored(&self, beat: Beat, error: LedgerError) -> Error {
        match &error {
            LedgerError::Rejected(Rejection::AnchorRegression { .. }) => error.into(),
            LedgerError::Rejected(_) => self.close(beat).await.err().unwrap_or_else(|| error.into()),
            _ => error.into(),
        }
    }

    async fn close(&self, beat: Beat) -> Result<()> {
        let closed = Beat { open: false, ..beat };
        let batch = Batch::new().expect_value(Table::Meta, BEAT, beat.write()).put(Table::Meta, BEAT, closed.write());
        self.store.commit(batch).await.map_err(|error| uncommitted(&error))
    }

    /// Makes a receipt durable and ends its beat.
    async fn keep(&self, ledger: &dyn Ledger, beat: Beat, receipt: &AnchorReceipt) -> Result<()> {
        let head = ledger.head(Finality::Final).await.map_err(Error::from)?;
        let value = serde_json::to_vec(&Stored { size: beat.size, receipt: receipt.clone() });
        let value = value.map_err(|_| Error::defect("a receipt can't be written"))?;
        let mut known = BytesMut::with_capacity(40);
        known.put_u64(head.height);
        known.put_slice(&head.root);
        let closed = Beat { open: false, ..beat };
        let mut batch = Batch::new()
            .expect_value(Table::Meta, BEAT, beat.write())
            .put(Table::Meta, BEAT, closed.write())
            .put(Table::Meta, LEDGER, known.freeze())
            .put(Table::Receipt, rows::number(beat.number), value);
        if let Some(before) = self.anchored().filter(|before| before.size == beat.size) {
            // Nothing came in between: of the receipts of one size the newest is kept.
            batch = batch.delete(Table::Receipt, rows::number(before.receipt.beat));
        }
        // A crash before this commit leaves an open beat: the ledger says that it stands and gives the receipt again.
        self.store.commit(batch).await.map_err(|error| uncommitted(&error))
    }
}

/// The newest head of the ledger that a receipt was kept from: height and root. A ledger that no longer leads there is
/// another one, or an older copy.
///
/// # Errors
/// If the store does not answer; a row that can't be read counts as none.
pub async fn known(store: &dyn Store) -> Result<Option<(u64, [u8; 32])>, StoreError> {
    let row = store.read(Table::Meta, LEDGER).await?;
    Ok(row.and_then(|row| {
        let (height, root) = row.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*height), root.try_into().ok()?))
    }))
}

/// The newest receipt.
pub(super) async fn newest(store: &dyn Store) -> Result<Option<Anchored>, OpenError> {
    let rows = store.scan(Table::Receipt, KeyRange::all(), 1, Direction::Down).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let Stored { size, receipt } = serde_json::from_slice(&row.value).map_err(|_| OpenError::Row)?;
    let note = store.read(Table::Checkpoint, &rows::number(size)).await?.ok_or(OpenError::Row)?;
    let checkpoint = std::str::from_utf8(&note).map_err(|_| OpenError::Row)?.into();
    Ok(Some(Anchored { size, checkpoint, receipt }))
}

impl Beat {
    fn write(&self) -> Bytes {
        let mut row = BytesMut::with_capacity(17);
        row.put_u64(self.number);
        row.put_u64(self.size);
        row.put_u8(u8::from(self.open));
        row.freeze()
    }

    fn read(row: &[u8]) -> Result<Self> {
        let broken = || Error::defect("the row of a beat is not what was written");
        let (number, rest) = row.split_first_chunk::<8>().ok_or_else(broken)?;
        let (size, open) = rest.split_first_chunk::<8>().ok_or_else(broken)?;
        let open = match open {
            [0] => false,
            [1] => true,
            _ => return Err(broken()),
        };
        Ok(Self { number: u64::from_be_bytes(*number), size: u64::from_be_bytes(*size), open })
    }
}
