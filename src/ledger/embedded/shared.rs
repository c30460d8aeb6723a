//! What the writer publishes and everyone else reads.
//!
//! Takes: groups that are durable. Gives: the state, the index and the file up to the durable end. Never: shows what
//! is not durable.

use std::fs::File;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::index::{Index, next_entry};
use super::segment::Scanner;
use crate::ledger::entry::Entry;
use crate::ledger::error::{Breach, LedgerError};
use crate::ledger::ids::{OpId, Origin};
use crate::ledger::records::SignedOp;
use crate::ledger::state::State;
use crate::ledger::types::{Head, Position};

/// How far the log is durable, and how far a checkpoint covers it.
#[derive(Debug, Clone)]
pub(super) struct Durable {
    /// All durable leaves.
    pub(super) seen: Head,
    /// Those under the newest checkpoint.
    pub(super) sealed: Head,
    /// Where the durable part of the file ends, in bytes.
    pub(super) end: u64,
    /// Nothing more will come.
    pub(super) closed: bool,
}

/// The published side of an embedded ledger. Locks are taken in the order of the fields.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) ledger: Origin,
    state: RwLock<State>,
    index: RwLock<Index>,
    /// Sent while the state is locked, so that who holds the state sees the head that belongs to it.
    pub(super) durable: watch::Sender<Durable>,
    pub(super) file: File,
}

impl Shared {
    pub(super) fn new(ledger: Origin, state: State, index: Index, durable: Durable, file: File) -> Self {
        let (durable, _) = watch::channel(durable);
        Self { ledger, state: RwLock::new(state), index: RwLock::new(index), durable, file }
    }

    // A panic under one of these locks is a defect of ours; the data below it is replaced whole or not at all.
    pub(super) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn index_mut(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the durable part of the file ends.
    pub(super) fn end(&self) -> u64 {
        self.durable.borrow().end
    }

    /// A scanner whose next entry is leaf `height`, if that is durable.
    pub(super) fn scan(&self, height: u64) -> Result<Option<Scanner<'_>>, LedgerError> {
        let end = self.end();
        self.index().scan(&self.file, end, height)
    }

    /// Reads leaf `height`.
    pub(super) fn entry(&self, height: u64) -> Result<(Vec<u8>, Entry), LedgerError> {
        let mut scanner = self.scan(height)?.ok_or(Breach::BadProof("a leaf that is not there"))?;
        let offset = scanner.offset();
        let (payload, _) = next_entry(&mut scanner)?;
        let entry = Entry::from_bytes(payload).map_err(|_| Breach::Rot { offset })?;
        Ok((payload.to_vec(), entry))
    }

    /// Where an operation stands, if it is durable.
    pub(super) fn find(&self, op: &OpId) -> Result<Option<(Position, SignedOp)>, LedgerError> {
        let candidates = self.index().candidates(op);
        for height in candidates {
            if let (_, Entry::Op { time, op: standing }) = self.entry(height)?
                && standing.id() == *op
            {
                return Ok(Some((Position { height, index: 0, time }, standing)));
            }
        }
        Ok(None)
    }
}
