//! A group of operations on its way to one sync.
//!
//! Takes: operations, in order. Gives: an outcome for each, and the frames of those that are new. Never: writes.

use std::collections::HashMap;

use sluice_merkle::Hash;

use super::segment::{Kind, write_frame};
use super::shared::Shared;
use crate::ledger::entry::op_bytes;
use crate::ledger::error::{LedgerError, Rejection};
use crate::ledger::ids::{OpId, Timestamp};
use crate::ledger::records::SignedOp;
use crate::ledger::rules::authorize;
use crate::ledger::state::{Ahead, Changes, State};
use crate::ledger::types::{Outcome, Position};

/// The index counts leaves in 32 bits.
const LEAVES_MAX: u64 = u32::MAX as u64 - 2;
/// A frame with one signature; only a guess for the buffer.
const TYPICAL_BYTES: usize = 256;

/// An operation, encoded and checked by its submitter.
pub(super) struct Prepared {
    pub(super) id: OpId,
    pub(super) op: SignedOp,
    pub(super) bytes: Vec<u8>,
    /// Whether bounds and signatures hold.
    pub(super) checked: Result<(), Rejection>,
}

/// A leaf that is about to be written.
pub(super) struct Staged {
    /// Where its frame will begin in the file.
    pub(super) offset: u64,
    pub(super) hash: Hash,
    /// None for the map's root.
    pub(super) op: Option<OpId>,
}

pub(super) struct Group<'s> {
    shared: &'s Shared,
    ahead: Ahead<'s>,
    /// Leaves before the group.
    size: u64,
    /// Where the group will begin in the file.
    start: u64,
    time: Timestamp,
    bytes: Vec<u8>,
    staged: Vec<Staged>,
    places: HashMap<OpId, Position>,
}

impl<'s> Group<'s> {
    pub(super) fn new(shared: &'s Shared, state: &'s State, size: u64, time: Timestamp, count: usize) -> Self {
        Self {
            shared,
            ahead: Ahead::new(state),
            size,
            start: shared.end(),
            time,
            bytes: Vec::with_capacity(count * TYPICAL_BYTES),
            staged: Vec::with_capacity(count),
            places: HashMap::with_capacity(count),
        }
    }

    /// What becomes of the operation, and whether that hangs on the group's own sync.
    pub(super) fn judge(&mut self, prepared: Prepared) -> Result<(Outcome, bool), LedgerError> {
        let Prepared { id, op, bytes, checked } = prepared;
        if let Err(rejection) = checked {
            return Ok((Outcome::Rejected(rejection), false));
        }
        // A replay has the outcome that it had: nothing is judged again, and nothing is written.
        if let Some(position) = self.places.get(&id) {
            return Ok((Outcome::Committed(*position), true));
        }
        if let Some((position, _)) = self.shared.find(&id)? {
            return Ok((Outcome::Committed(position), false));
        }
        let height = self.size + self.staged.len() as u64;
        if height >= LEAVES_MAX {
            return Ok((Outcome::Rejected(Rejection::Unsupported("the log is full")), false));
        }
        if let Err(rejection) = authorize(&self.ahead, &op, self.time) {
            return Ok((Outcome::Rejected(rejection), false));
        }
        let position = Position { height, index: 0, time: self.time };
        let offset = self.start + self.bytes.len() as u64;
        let hash = write_frame(Kind::Entry, &op_bytes(self.time, &bytes), &mut self.bytes);
        self.ahead.apply(op.operation);
        self.staged.push(Staged { offset, hash, op: Some(id) });
        self.places.insert(id, position);
        Ok((Outcome::Committed(position), true))
    }

    /// The frames, the leaves in them, and what they change.
    pub(super) fn finish(self) -> (Vec<u8>, Vec<Staged>, Changes) {
        (self.bytes, self.staged, self.ahead.into_changes())
    }
}
