//! The store: durable, ordered rows with conditions, and what seals them.
//!
//! Takes [`Batch`]es, each of which happens whole or not at all and only if its conditions hold; gives rows
//! back by key or in key order. An `Ok` from [`Store::commit`] means that the rows survive a crash of the
//! machine. Knows nothing of what a row means, and never sees plaintext of a health record: callers seal
//! values with the [`vault`] first. Every kind of store passes the suite in `tests/it/store.rs`.

use std::fmt;
use std::ops::Bound;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;

use crate::error::{Error, Peer};

pub mod embedded;
pub mod fault;
pub mod keystore;
pub mod spool;
pub mod vault;

mod open;

pub use open::{Opened, open};

/// The longest key, in bytes. Keys are ids, counters and keyed hashes.
pub const KEY_BYTES_MAX: usize = 1024;

/// A scan ends early once the rows that it holds exceed this many bytes; see [`Store::scan`].
pub const SCAN_BYTES_MAX: usize = 4 << 20;

/// Which table a row belongs to. The number is part of the stored key: it is never reused for another meaning.
///
/// Keys are big-endian, so that key order is the order of the numbers in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Current version of a resource. Key: keyed hash of (type, id). Value: its number u64, and where in `Body` it
    /// lies: operation id, row u32, place u32. Owner: `record`.
    Resource = 1,
    /// Each version of a resource that is not the current one. Key: keyed hash of (type, id), version u64. Value: where
    /// in `Body` it lies. Owner: `record`.
    Version = 2,
    /// Per subject: the audit counter, the consent version last seen. Key: subject tag. Owner: `record`.
    Subject = 3,
    /// Which Consents a subject has here. Key: subject tag, keyed hash of (type, id). Value: empty. Owner: `record`.
    SubjectResource = 4,
    /// What an operation recorded: what its receipt is made of. Key: operation id. Value: sealed. Owner: `record`.
    Operation = 5,
    /// The first answer to a request. Key: keyed hash of (tenant, caller, key). Value: sealed answer; and empty rows by
    /// the time of each. Owner: `record`.
    Idempotency = 6,
    /// What settle still has to do, many resources of a commit in one row. Key: stage tag u8, sequence u64. Owner:
    /// `record`, `route`.
    Work = 7,
    /// A sequenced leaf of the log. Key: leaf index u64. Value: scheme and commitment. Owner: `anchor`.
    Leaf = 8,
    /// Leaves without an index yet, those of a commit in one row. Key: sequence u64. Value: for each, scheme and
    /// commitment. Owner: `record`, `route`.
    LeafPending = 9,
    /// A tile of the log. Key: level u8, index u64. Value: the hashes that it has so far, so that a partial tile is the
    /// beginning of its value. Owner: `anchor`.
    Tile = 10,
    /// A signed checkpoint. Key: tree size u64. Value: the signed note. Owner: `anchor`.
    Checkpoint = 11,
    /// A receipt of the ledger. Key: beat u64. Value: tree size and receipt as JSON. Owner: `anchor`.
    Receipt = 12,
    /// An event that is to be sent. Key: its lane, sequence u64. Value: sealed event. Owner: `route`, `publish`.
    Outbox = 13,
    /// State of a lane. Key: subscriber tag, the beginning of the pairwise pseudonym. Value: the last sequence number given, u64. Owner: `publish`.
    Lane = 14,
    /// An event that could not be sent. Key: that of the event in the outbox, where it stays. Value: the cause. Owner: `publish`.
    Parked = 16,
    /// The feed. Key: subscriber, cursor u64. Value: sealed event. Owner: `broker::feed`.
    Feed = 17,
    /// Counters and format versions. Key: a name. Owner: each room its own names, led by the room's.
    Meta = 18,
    /// Names by which patients are known. Key: keyed hash of a name. Value: the pseudonyms of who has borne it. Owner: `record`.
    LocalId = 19,
    /// What opens a leaf: r and the record. Key: commitment. Value: sealed opening. Owner: `record`, `route`.
    Opening = 20,
    /// Keyed search index. Key: keyed hash of (parameter, value), keyed hash of (type, id). Owner: `record`.
    Index = 21,
    /// A subscriber's decision for a resource. Key: subscriber, resource hash, version. Owner: `route`.
    Decision = 22,
    /// Where a leaf stands in the log; dummies have no row. Key: commitment. Value: leaf index u64. Owner: `anchor`.
    LeafIndex = 23,
    /// Versions of one commit about the same patients. Key: an operation's id, row u32. Value: sealed. Owner: `record`.
    Body = 24,
    /// What a stream recorded: what its receipt is made of. Key: the stream's name, row u32. Value: sealed. Owner: `record`.
    Stream = 25,
    /// The body of an event that is to be sent, where it is long. Key: that of the event in the outbox. Value: sealed.
    /// Owner: `route`, `publish`.
    Event = 26,
    /// The openings of a consent root. Key: subject tag, root. Value: sealed openings. Owner: `consent`.
    PolicySet = 31,
    /// A unit between stage and record. Key: kind u8, then operation id (state, sealed body, key that is to be destroyed)
    /// or the keyed hash that the same unit is known by. Owner: `stage`.
    Staged = 30,
}

impl Table {
    /// The byte that leads every stored key of this table.
    pub fn tag(self) -> u8 {
        self as u8
    }
}

/// One row.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    /// The table.
    pub table: Table,
    /// The key within the table, at most [`KEY_BYTES_MAX`] bytes.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// A condition on the state that a batch is applied to.
#[derive(Clone, PartialEq, Eq)]
pub enum Expect {
    /// There is no row of this key.
    Absent(Table, Bytes),
    /// The row of this key has exactly this value.
    Value(Table, Bytes, Bytes),
}

/// What happens together, or not at all.
///
/// Conditions are checked against the state before the batch. Of several writes to one key the last counts, and
/// deletions come before puts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub(crate) expect: Vec<Expect>,
    pub(crate) put: Vec<Row>,
    pub(crate) delete: Vec<(Table, Bytes)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands that there is no row of this key.
    #[must_use]
    pub fn expect_absent(mut self, table: Table, key: impl Into<Bytes>) -> Self {
        self.expect.push(Expect::Absent(table, key.into()));
        self
    }

    /// Demands that the row of this key has exactly this value.
    #[must_use]
    pub fn expect_value(mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.expect.push(Expect::Value(table, key.into(), value.into()));
        self
    }

    /// Demands what was read before: the value, or its absence.
    #[must_use]
    pub fn expect_read(self, table: Table, key: impl Into<Bytes>, read: Option<Bytes>) -> Self {
        match read {
            Some(value) => self.expect_value(table, key, value),
            None => self.expect_absent(table, key),
        }
    }

    /// Writes a row, in place of any of the same key.
    #[must_use]
    pub fn put(mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.put.push(Row { table, key: key.into(), value: value.into() });
        self
    }

    /// Deletes a row; nothing happens if there is none.
    #[must_use]
    pub fn delete(mut self, table: Table, key: impl Into<Bytes>) -> Self {
        self.delete.push((table, key.into()));
        self
    }

    /// Demands what was read before, as [`Batch::expect_read`] does, where the batch is built piece by piece.
    pub fn add_expect_read(&mut self, table: Table, key: impl Into<Bytes>, read: Option<Bytes>) {
        let key = key.into();
        self.expect.push(match read {
            Some(value) => Expect::Value(table, key, value),
            None => Expect::Absent(table, key),
        });
    }

    /// Writes a row, as [`Batch::put`] does, where the batch is built piece by piece.
    pub fn add_put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.put.push(Row { table, key: key.into(), value: value.into() });
    }

    /// Adds all of another batch after this one's.
    pub fn append(&mut self, other: Batch) {
        self.expect.extend(other.expect);
        self.put.extend(other.put);
        self.delete.extend(other.delete);
    }

    /// Every row that the batch names, in a condition or to change it.
    pub fn named(&self) -> impl Iterator<Item = (Table, Bytes)> {
        let expect = self.expect.iter().map(|expect| match expect {
            Expect::Absent(table, key) | Expect::Value(table, key, _) => (*table, key.clone()),
        });
        expect.chain(self.written())
    }

    /// Every row that the batch changes.
    pub fn written(&self) -> impl Iterator<Item = (Table, Bytes)> {
        let put = self.put.iter().map(|row| (row.table, row.key.clone()));
        put.chain(self.delete.iter().cloned())
    }

    /// Whether the batch neither demands nor writes anything.
    pub fn is_empty(&self) -> bool {
        self.expect.is_empty() && self.put.is_empty() && self.delete.is_empty()
    }

    /// The memory that the batch holds, in bytes, about.
    pub fn bytes(&self) -> usize {
        const ROW: usize = size_of::<Row>();
        let expect = self.expect.iter().map(|expect| match expect {
            Expect::Absent(_, key) => ROW + key.len(),
            Expect::Value(_, key, value) => ROW + key.len() + value.len(),
        });
        let put = self.put.iter().map(|row| ROW + row.key.len() + row.value.len());
        let delete = self.delete.iter().map(|(_, key)| ROW + key.len());
        expect.chain(put).chain(delete).sum()
    }

    /// The longest key named anywhere in the batch, in bytes.
    fn key_bytes_max(&self) -> usize {
        let expect = self.expect.iter().map(|expect| match expect {
            Expect::Absent(_, key) | Expect::Value(_, key, _) => key.len(),
        });
        let put = self.put.iter().map(|row| row.key.len());
        let delete = self.delete.iter().map(|(_, key)| key.len());
        expect.chain(put).chain(delete).max().unwrap_or(0)
    }
}

/// Which keys of a table a scan covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// Where it begins.
    pub from: Bound<Bytes>,
    /// Where it ends.
    pub to: Bound<Bytes>,
}

impl KeyRange {
    /// The whole table.
    pub fn all() -> Self {
        Self { from: Bound::Unbounded, to: Bound::Unbounded }
    }

    /// Every key that begins with these bytes.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        let to = successor(&prefix);
        Self { from: Bound::Included(prefix), to }
    }

    /// The same, but only keys above this one: where the scan before ended.
    #[must_use]
    pub fn after(mut self, key: impl Into<Bytes>) -> Self {
        self.from = Bound::Excluded(key.into());
        self
    }

    /// The same, but only keys below this one.
    #[must_use]
    pub fn before(mut self, key: impl Into<Bytes>) -> Self {
        self.to = Bound::Excluded(key.into());
        self
    }

    /// Whether no key can be in it.
    fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to))
            | (Bound::Excluded(from), Bound::Included(to)) => from >= to,
            _ => false,
        }
    }
}

/// The order of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest key up.
    Up,
    /// From the highest key down.
    Down,
}

/// Durable, ordered rows with conditions.
///
/// A reader sees a batch whole or not at all, and sees it before its `commit` answers `Ok`.
pub trait Store: Send + Sync {
    /// The value of one key.
    fn read(&self, table: Table, key: &[u8]) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>>;

    /// The values of many keys, in the order asked, all at one moment.
    fn read_many(&self, keys: Vec<(Table, Bytes)>) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, StoreError>>;

    /// The rows of a range in key order, all at one moment: at most `limit`, and no more once they exceed
    /// [`SCAN_BYTES_MAX`] (a range with rows gives at least one). A caller that wants all goes on after the last key until
    /// nothing comes.
    fn scan(
        &self,
        table: Table,
        range: KeyRange,
        limit: usize,
        direction: Direction,
    ) -> BoxFuture<'_, Result<Vec<Row>, StoreError>>;

    /// The lowest keys of a range in order, at most `limit`; none only where there are none. A store that can do without
    /// reading the values says how: it is what rows are counted by.
    fn keys(&self, table: Table, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        let scanning = self.scan(table, range, limit, Direction::Up);
        Box::pin(async move { Ok(scanning.await?.into_iter().map(|row| row.key).collect()) })
    }

    /// Applies a batch; `Ok` once it is durable.
    ///
    /// The batch is queued by the call itself, so batches are applied in the order of the calls; dropping the future
    /// does not take it back.
    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), CommitError>>;

    /// How the store is, at once and without I/O.
    fn health(&self) -> Health;
}

/// How a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It reads and commits.
    Ready,
    /// A commit has been under way for so long that the device must be stuck.
    Stalled,
    /// Too little space is left; commits are refused until there is more.
    Full,
    /// A write failed; commits are refused until a restart.
    Poisoned,
}

/// Why a read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The device or the engine refused; the text names no row.
    #[error("the store could not be read: {0}")]
    Unreadable(String),
    /// A key is longer than [`KEY_BYTES_MAX`].
    #[error("a key is longer than {KEY_BYTES_MAX} bytes")]
    KeyTooLong,
    /// The store is closing.
    #[error("the store is closed")]
    Closed,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::outage(Peer::Store, Duration::from_secs(1), format!("read: {error}"))
    }
}

/// Why a batch was not acknowledged. Unless it says so, nothing of the batch happened nor will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A condition did not hold.
    #[error("condition {expect} of the batch does not hold")]
    Conflict {
        /// Which one: its place among the batch's conditions, from 0.
        expect: usize,
    },
    /// The disk has too little space left.
    #[error("the store's disk is full")]
    Full,
    /// Too much is waiting, or the store is closing; try again later.
    #[error("the store is overloaded or closing")]
    Unavailable,
    /// The write failed, and whether the batch happened will be known after a restart.
    #[error("the write failed; whether it happened is not known")]
    Ambiguous,
    /// An earlier write failed; nothing is written until a restart.
    #[error("the store accepts no writes since one failed; restart to recover")]
    Poisoned,
    /// The batch, or a key in it, exceeds a limit: a defect of the caller.
    #[error("the batch or a key in it is larger than the store takes")]
    TooLarge,
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory open.
    #[error("{0} is in use by another process")]
    Locked(String),
    /// The directory holds something that is not a store of this version, or a damaged one.
    #[error("{dir} holds no readable store: {text}")]
    Unreadable {
        /// The directory.
        dir: String,
        /// What the engine said.
        text: String,
    },
    /// Rows that were acknowledged are gone: a damaged disk, or an older copy put back by half.
    #[error(
        "{dir}: {groups} groups of rows that were acknowledged are missing; restore a backup, or move the file `acknowledged` away to go on without them"
    )]
    Lost {
        /// The directory.
        dir: String,
        /// How many groups at least.
        groups: u64,
    },
    /// The keystore is not the one that this store's rows are sealed under, or is missing.
    #[error("{}: not the keystore of the store in {store}", .keystore.display())]
    WrongKeystore {
        /// The keystore's file.
        keystore: std::path::PathBuf,
        /// The store's directory.
        store: String,
    },
    /// The keystore did not open.
    #[error(transparent)]
    Keystore(#[from] keystore::KeystoreError),
    /// The vault did not open.
    #[error(transparent)]
    Vault(#[from] vault::VaultError),
    /// The store opened, but did not answer.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// The store opened, but takes no writes.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The operating system refused.
    #[error("{dir}: {source}")]
    Io {
        /// The directory.
        dir: String,
        /// Its reason.
        source: std::io::Error,
    },
}

/// Key order within a store: the table's tag, then the key.
fn stored_key(table: Table, key: &[u8]) -> Bytes {
    let mut stored = BytesMut::with_capacity(1 + key.len());
    stored.put_u8(table.tag());
    stored.put_slice(key);
    stored.freeze()
}

/// The same in the place of what a buffer held.
fn stored_into(stored: &mut Vec<u8>, table: Table, key: &[u8]) {
    stored.clear();
    stored.push(table.tag());
    stored.extend_from_slice(key);
}

/// The end of the range of keys that begin with `prefix`.
fn successor(prefix: &[u8]) -> Bound<Bytes> {
    let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) else { return Bound::Unbounded };
    let mut end = BytesMut::from(&prefix[..=last]);
    end[last] += 1;
    Bound::Excluded(end.freeze())
}

// Rows hold keyed hashes and ciphertext; lengths are what a log may see.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({:?}, key {} bytes, value {} bytes)", self.table, self.key.len(), self.value.len())
    }
}

impl fmt::Debug for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent(table, key) => write!(f, "Absent({table:?}, key {} bytes)", key.len()),
            Self::Value(table, key, value) => {
                write!(f, "Value({table:?}, key {} bytes, value {} bytes)", key.len(), value.len())
            }
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} expected, {} put, {} deleted)", self.expect.len(), self.put.len(), self.delete.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successor_is_the_least_key_above_a_prefix() {
        assert_eq!(successor(b"a"), Bound::Excluded(Bytes::from_static(b"b")));
        assert_eq!(successor(b"a\xff"), Bound::Excluded(Bytes::from_static(b"b")));
        assert_eq!(successor(b"\xff\xff"), Bound::Unbounded);
        assert_eq!(successor(b""), Bound::Unbounded);
    }

    #[test]
    fn ranges_that_hold_nothing_are_known() {
        assert!(KeyRange::prefix("b").before("a").is_empty());
        assert!(KeyRange::all().after("a").before("a").is_empty());
        assert!(!KeyRange::prefix("a").is_empty());
    }

    #[test]
    fn debug_shows_lengths_only() {
        let batch = Batch::new().expect_absent(Table::Meta, "CANARY").put(Table::Meta, "CANARY", "CANARY");
        assert!(!format!("{batch:?} {:?} {:?}", batch.put, batch.expect).contains("CANARY"));
    }
}
