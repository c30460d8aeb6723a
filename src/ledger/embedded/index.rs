//! Where things stand in the segment file: leaves by index, operations by id, and the hashes that proofs need.
//!
//! Takes: each leaf once, in order. Gives: offsets, positions, hashes of perfect subtrees. Never: holds a leaf; what
//! is below a subtree of 256 leaves is read from the file and hashed again, so a leaf costs about 15 bytes here.

use std::fs::File;

use sluice_merkle::Hash;
use sluice_merkle::tree::{Coordinate, HashSource, node_hash};

use super::segment::{Kind, POINT_BYTES, Scanner};
use crate::ledger::error::{Breach, LedgerError};
use crate::ledger::ids::OpId;

/// Leaves between two offsets that are kept.
const STRIDE: u64 = 16;
/// Height of the lowest subtrees whose hashes are kept: 256 leaves.
const LEVEL_MIN: u8 = 8;

/// Offsets, hashes and operation ids of all durable leaves.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Leaves known.
    size: u64,
    /// Where the frame of leaf `16 i` begins.
    offsets: Vec<u64>,
    /// By level from [`LEVEL_MIN`] up: hashes of the perfect subtrees.
    levels: Vec<Vec<Hash>>,
    ops: OpTable,
}

impl Index {
    /// Takes note of the next leaf, whose frame begins at `offset`.
    pub(crate) fn leaf(&mut self, offset: u64, op: Option<OpId>) {
        if self.size.is_multiple_of(STRIDE) {
            self.offsets.push(offset);
        }
        if let Some(op) = op {
            self.ops.insert(op, self.size);
        }
        self.size += 1;
    }

    /// Takes note of a perfect subtree that became complete; they come in order on each level.
    pub(crate) fn subtree(&mut self, at: Coordinate, hash: Hash) {
        let Some(level) = at.level.checked_sub(LEVEL_MIN).map(usize::from) else { return };
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        self.levels[level].push(hash);
    }

    /// A scanner whose next entry is leaf `index`, if that leaf is known.
    pub(crate) fn scan<'f>(&self, file: &'f File, end: u64, index: u64) -> Result<Option<Scanner<'f>>, LedgerError> {
        if index >= self.size {
            return Ok(None);
        }
        let start = usize::try_from(index / STRIDE).ok().and_then(|at| self.offsets.get(at)).copied();
        let Some(offset) = start else { return Ok(None) };
        let mut scanner = Scanner::new(file, offset, end, POINT_BYTES);
        let mut skip = index % STRIDE;
        while skip > 0 {
            if next_frame(&mut scanner)?.0 == Kind::Entry {
                skip -= 1;
            }
        }
        Ok(Some(scanner))
    }

    /// The leaves at which operation `op` may stand; the caller compares the ids there. Almost always none or one.
    pub(crate) fn candidates(&self, op: &OpId) -> Vec<u64> {
        self.ops.candidates(op)
    }

    /// Bytes of memory held.
    pub(crate) fn bytes(&self) -> usize {
        self.offsets.capacity() * 8
            + self.levels.iter().map(|level| level.capacity() * 32).sum::<usize>()
            + self.ops.slots.len() * 8
    }
}

/// The next frame's kind, payload and hash; anything but a frame is rot, since only what was synced is ever read here.
pub(crate) fn next_frame<'s>(scanner: &'s mut Scanner<'_>) -> Result<(Kind, &'s [u8], Hash), LedgerError> {
    let offset = scanner.offset();
    match scanner.next()? {
        Some(frame) => Ok((frame.kind, frame.payload, frame.hash)),
        None => Err(Breach::Rot { offset }.into()),
    }
}

/// The next leaf's payload and hash, past any checkpoints.
pub(crate) fn next_entry<'s>(scanner: &'s mut Scanner<'_>) -> Result<(&'s [u8], Hash), LedgerError> {
    // Two loops, since a borrow can't leave the first: find where the entry begins, then take it.
    loop {
        let offset = scanner.offset();
        let kind = scanner.peek()?.ok_or(Breach::Rot { offset })?;
        if kind == Kind::Entry {
            break;
        }
        next_frame(scanner)?;
    }
    next_frame(scanner).map(|(_, payload, hash)| (payload, hash))
}

/// The log's hashes, from memory above 256 leaves and from the file below.
pub(crate) struct Hashes<'i> {
    pub(crate) index: &'i Index,
    pub(crate) file: &'i File,
    /// Where the durable part of the file ends.
    pub(crate) end: u64,
}

impl HashSource for Hashes<'_> {
    type Error = LedgerError;

    fn hashes(&self, at: &[Coordinate]) -> Result<Vec<Hash>, LedgerError> {
        at.iter().map(|coordinate| self.hash(*coordinate)).collect()
    }
}

impl Hashes<'_> {
    fn hash(&self, at: Coordinate) -> Result<Hash, LedgerError> {
        let missing = || LedgerError::from(Breach::BadProof("a subtree that is not complete"));
        if let Some(level) = at.level.checked_sub(LEVEL_MIN) {
            let row = self.index.levels.get(usize::from(level)).ok_or_else(missing)?;
            return usize::try_from(at.index).ok().and_then(|index| row.get(index)).copied().ok_or_else(missing);
        }
        let first = at.index << at.level;
        let mut scanner = self.index.scan(self.file, self.end, first)?.ok_or_else(missing)?;
        let mut row = (0..1_u64 << at.level)
            .map(|_| next_entry(&mut scanner).map(|(_, hash)| hash))
            .collect::<Result<Vec<_>, _>>()?;
        while row.len() > 1 {
            row = row.chunks_exact(2).map(|pair| node_hash(&pair[0], &pair[1])).collect();
        }
        row.first().copied().ok_or_else(missing)
    }
}

/// Operation ids to leaves, without the ids: a slot is 32 bits of the id and the leaf's index plus one. 8 bytes a
/// slot, at most three quarters full.
#[derive(Debug, Default)]
struct OpTable {
    slots: Vec<u64>,
    used: usize,
}

impl OpTable {
    fn insert(&mut self, op: OpId, leaf: u64) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            let old = std::mem::take(&mut self.slots);
            self.slots = vec![0; (old.len() * 2).max(64)];
            for slot in old.into_iter().filter(|slot| *slot != 0) {
                self.place(slot);
            }
        }
        // The writer refuses leaves beyond 32 bits.
        self.place(u64::from(tag(&op)) << 32 | ((leaf + 1) & u64::from(u32::MAX)));
        self.used += 1;
    }

    fn place(&mut self, slot: u64) {
        let mask = self.slots.len() - 1;
        let mut at = home(slot, mask);
        while self.slots[at] != 0 {
            at = (at + 1) & mask;
        }
        self.slots[at] = slot;
    }

    fn candidates(&self, op: &OpId) -> Vec<u64> {
        let mut found = Vec::new();
        if self.slots.is_empty() {
            return found;
        }
        let mask = self.slots.len() - 1;
        let tag = u64::from(tag(op));
        let mut at = home(tag << 32, mask);
        while self.slots[at] != 0 {
            if self.slots[at] >> 32 == tag {
                found.push((self.slots[at] & u64::from(u32::MAX)) - 1);
            }
            at = (at + 1) & mask;
        }
        found
    }
}

/// Ids are hashes, so their first bits are as good as any.
fn tag(op: &OpId) -> u32 {
    let [a, b, c, d, ..] = op.0;
    u32::from_be_bytes([a, b, c, d])
}

/// Where a slot wants to stand: its tag's top bits, spread over the table.
fn home(slot: u64, mask: usize) -> usize {
    ((slot >> 32) as usize) & mask
}
