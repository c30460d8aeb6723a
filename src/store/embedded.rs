//! The embedded store: one directory, one process, the fjall engine.
//!
//! Takes a directory of its own; gives a [`Store`]. All tables share one ordered keyspace, told apart by the table's
//! tag, so one memtable bounds the memory. Reads go to a snapshot of the engine; writes to one writer
//! (`writer`). Never shares its directory: the engine's lock file holds a lock for as long as the store is open.

use std::ops::Bound;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, Readable, Snapshot};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;

use self::acknowledged::Acknowledged;
use self::writer::Writer;
use super::fault::Faults;
use super::{
    Batch, CommitError, Direction, Health, KEY_BYTES_MAX, KeyRange, OpenError, Row, SCAN_BYTES_MAX, Store, StoreError,
    Table, stored_key,
};

mod acknowledged;
mod writer;

/// Reads that may wait on the disk at one time; more wait in line.
const READS_MAX: usize = 8;

/// The name of the one keyspace.
const ROWS: &str = "rows";

/// How an embedded store is opened.
#[derive(Clone)]
pub struct Options {
    /// Its directory; created if missing.
    pub dir: PathBuf,
    /// The cache of blocks read, in bytes.
    pub cache_bytes: u64,
    /// The rows that are held in memory before they are sorted to disk, in bytes; up to five times that is held under
    /// pressure.
    pub memtable_bytes: u64,
    /// The largest batch, and the most that may wait to be written, in bytes.
    pub queue_bytes_max: usize,
    /// Below this much free space, commits answer [`CommitError::Full`]. It is what the engine needs to go on with
    /// what it has taken: a journal and a compaction.
    pub disk_reserve_bytes: u64,
    /// What a persist meets, for tests of failure.
    pub faults: Option<Faults>,
}

impl Options {
    /// The defaults: small, since a gateway is to stay under 150 MB in all.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            cache_bytes: 16 << 20,
            memtable_bytes: 8 << 20,
            queue_bytes_max: 32 << 20,
            disk_reserve_bytes: 256 << 20,
            faults: None,
        }
    }
}

/// An open embedded store. Dropping it writes what is queued and closes it.
pub struct Embedded {
    // Before `rows`, so that the last writes are done when the engine closes.
    writer: Writer,
    rows: Rows,
    reads: Semaphore,
}

/// The engine's handles; cheap to clone.
#[derive(Clone)]
struct Rows {
    database: Database,
    keyspace: Keyspace,
}

impl Embedded {
    /// Opens the store of a directory, and recovers what was acknowledged before a crash.
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let dir = &options.dir;
        std::fs::create_dir_all(dir).map_err(|source| OpenError::Io { dir: dir.display().to_string(), source })?;
        let rows = Rows::open(options).map_err(|error| open_error(dir, error))?;
        let acknowledged = Acknowledged::check(dir, &rows)?;
        let writer = Writer::start(rows.clone(), acknowledged, options)
            .map_err(|source| OpenError::Io { dir: dir.display().to_string(), source })?;
        Ok(Self { writer, rows, reads: Semaphore::new(READS_MAX) })
    }

    /// Runs a read on a thread that may block, on one snapshot.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Keyspace, &Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _permit = self.reads.acquire().await.map_err(|_| StoreError::Closed)?;
        let rows = self.rows.clone();
        // A task that was cancelled by the runtime's shutdown, or that panicked in the engine.
        let joined = tokio::task::spawn_blocking(move || read(&rows.keyspace, &rows.database.snapshot())).await;
        joined.map_err(|_| StoreError::Closed)?
    }
}

/// Reads of at most this many keys run where they are asked for. Each costs a microsecond or two from the memtable, the
/// filters or the cache, and seldom a page from the disk; a thread that may block costs ten times that each time.
const IN_PLACE_MAX: usize = 64;

impl Store for Embedded {
    fn read(&self, table: Table, key: &[u8]) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        let stored = checked_key(table, key);
        async move { value_of(&self.rows.keyspace, &self.rows.database.snapshot(), &stored?) }.boxed()
    }

    fn read_many(&self, keys: Vec<(Table, Bytes)>) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, StoreError>> {
        async move {
            let stored = keys.iter().map(|(table, key)| checked_key(*table, key)).collect::<Result<Vec<_>, _>>()?;
            if stored.len() <= IN_PLACE_MAX {
                let snapshot = self.rows.database.snapshot();
                return stored.iter().map(|key| value_of(&self.rows.keyspace, &snapshot, key)).collect();
            }
            self.blocking(move |keyspace, snapshot| {
                stored.iter().map(|key| value_of(keyspace, snapshot, key)).collect()
            })
            .await
        }
        .boxed()
    }

    fn scan(
        &self,
        table: Table,
        range: KeyRange,
        limit: usize,
        direction: Direction,
    ) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        async move {
            if limit == 0 || range.is_empty() {
                return Ok(Vec::new());
            }
            self.blocking(move |keyspace, snapshot| scan(keyspace, snapshot, table, &range, limit, direction)).await
        }
        .boxed()
    }

    fn keys(&self, table: Table, range: KeyRange, limit: usize) -> BoxFuture<'_, Result<Vec<Bytes>, StoreError>> {
        async move {
            if range.is_empty() {
                return Ok(Vec::new());
            }
            self.blocking(move |keyspace, snapshot| {
                let keys = snapshot.range(keyspace, stored_range(table, &range)).take(limit);
                keys.map(|guard| Ok(Bytes::copy_from_slice(&guard.key().map_err(|error| unreadable(&error))?[1..])))
                    .collect()
            })
            .await
        }
        .boxed()
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), CommitError>> {
        let answer = self.writer.queue(batch);
        async move {
            // The writer answers everything that it takes; a dropped answer means that it died with the batch in hand.
            answer?.await.unwrap_or(Err(CommitError::Ambiguous))
        }
        .boxed()
    }

    fn health(&self) -> Health {
        self.writer.health()
    }
}

impl Rows {
    fn open(options: &Options) -> fjall::Result<Self> {
        let database = Database::builder(&options.dir)
            .cache_size(options.cache_bytes)
            // Of two, the one that is kept for flushes hands compactions back to the queue in a loop without a pause for as
            // long as the other is busy with one: a core that does nothing. One does both in turn.
            .worker_threads(1)
            .max_cached_files(Some(128))
            // The least that the engine allows. It bounds the disk, and the time to recover.
            .max_journaling_size(64 << 20)
            .manual_journal_persist(true)
            .open()?;
        let keyspace = database.keyspace(ROWS, || {
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(options.memtable_bytes)
                // Sealed bodies do not compress; apart from their keys they are not copied at each compaction.
                .with_kv_separation(Some(KvSeparationOptions::default().separation_threshold(4096)))
        })?;
        Ok(Self { database, keyspace })
    }
}

fn checked_key(table: Table, key: &[u8]) -> Result<Bytes, StoreError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(StoreError::KeyTooLong);
    }
    Ok(stored_key(table, key))
}

fn value_of(keyspace: &Keyspace, snapshot: &Snapshot, stored: &[u8]) -> Result<Option<Bytes>, StoreError> {
    let value = snapshot.get(keyspace, stored).map_err(|error| unreadable(&error))?;
    Ok(value.map(|value| Bytes::copy_from_slice(&value)))
}

/// A table's range as one of the keyspace that all tables share.
fn stored_range(table: Table, range: &KeyRange) -> (Bound<Bytes>, Bound<Bytes>) {
    let from = match &range.from {
        Bound::Included(key) => Bound::Included(stored_key(table, key)),
        Bound::Excluded(key) => Bound::Excluded(stored_key(table, key)),
        Bound::Unbounded => Bound::Included(stored_key(table, b"")),
    };
    let to = match &range.to {
        Bound::Included(key) => Bound::Included(stored_key(table, key)),
        Bound::Excluded(key) => Bound::Excluded(stored_key(table, key)),
        Bound::Unbounded => super::successor(&[table.tag()]),
    };
    (from, to)
}

fn scan(
    keyspace: &Keyspace,
    snapshot: &Snapshot,
    table: Table,
    range: &KeyRange,
    limit: usize,
    direction: Direction,
) -> Result<Vec<Row>, StoreError> {
    let mut found = snapshot.range(keyspace, stored_range(table, range));
    let mut rows = Vec::new();
    let mut bytes = 0;
    while rows.len() < limit && bytes <= SCAN_BYTES_MAX {
        let next = match direction {
            Direction::Up => found.next(),
            Direction::Down => found.next_back(),
        };
        let Some(guard) = next else { break };
        let (key, value) = guard.into_inner().map_err(|error| unreadable(&error))?;
        bytes += key.len() + value.len();
        rows.push(Row { table, key: Bytes::copy_from_slice(&key[1..]), value: Bytes::copy_from_slice(&value) });
    }
    Ok(rows)
}

/// The engine's errors name files and tags, never rows.
fn unreadable(error: &fjall::Error) -> StoreError {
    StoreError::Unreadable(error.to_string())
}

fn open_error(dir: &Path, error: fjall::Error) -> OpenError {
    let dir = dir.display().to_string();
    match error {
        fjall::Error::Locked => OpenError::Locked(dir),
        fjall::Error::Io(source) => OpenError::Io { dir, source },
        other => OpenError::Unreadable { dir, text: other.to_string() },
    }
}
