//! The one writer of an embedded store.
//!
//! Takes batches from a bounded queue; gives each its answer. Whatever waits when the writer comes round is one
//! group: conditions are checked in order against the store and the batches before, what holds is written as one
//! atomic batch of the engine with one fdatasync, then all are answered. Never goes on after a failed write: what
//! the device holds is then unknown, and a second fdatasync would not tell.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{OwnedWriteBatch, PersistMode};
use tokio::sync::oneshot;

use super::acknowledged::{Acknowledged, GROUP_KEY};
use super::{Options, Rows};
use crate::store::fault::{Fault, Faults};
use crate::store::{Batch, CommitError, Expect, Health, KEY_BYTES_MAX, stored_key};

/// The most that one group takes, in bytes: bounds what is held twice while it is written.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// A group under way for longer is a device that is stuck.
const STALL: Duration = Duration::from_secs(10);

type Answer = oneshot::Sender<Result<(), CommitError>>;

/// The handle to the writer thread. Dropping it closes the queue and waits until what was queued is written.
pub(super) struct Writer {
    shared: Arc<Shared>,
    queue_bytes_max: usize,
    thread: Option<JoinHandle<()>>,
}

/// What callers and the writer thread share.
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    state: AtomicU8,
    /// When the group under way began, in milliseconds since `opened`, plus 1; 0 when there is none.
    busy_since: AtomicU64,
    opened: Instant,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    bytes: usize,
    closed: bool,
}

struct Pending {
    batch: Batch,
    bytes: usize,
    answer: Answer,
}

const OPEN: u8 = 0;
const FULL: u8 = 1;
const POISONED: u8 = 2;

impl Writer {
    pub(super) fn start(rows: Rows, acknowledged: Acknowledged, options: &Options) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            state: AtomicU8::new(OPEN),
            busy_since: AtomicU64::new(0),
            opened: Instant::now(),
        });
        let mut work = Work {
            rows,
            shared: Arc::clone(&shared),
            dir: options.dir.clone(),
            disk_reserve_bytes: options.disk_reserve_bytes,
            faults: options.faults.clone(),
            persists: 0,
            group: acknowledged.group,
            acknowledged,
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || work.run())?;
        Ok(Self { shared, queue_bytes_max: options.queue_bytes_max, thread: Some(thread) })
    }

    /// Queues a batch. The order of calls is the order of application.
    pub(super) fn queue(&self, batch: Batch) -> Result<oneshot::Receiver<Result<(), CommitError>>, CommitError> {
        let bytes = batch.bytes();
        if bytes > self.queue_bytes_max || batch.key_bytes_max() > KEY_BYTES_MAX {
            return Err(CommitError::TooLarge);
        }
        let (answer, answered) = oneshot::channel();
        let mut queue = self.shared.lock();
        if self.shared.state.load(Ordering::Acquire) == POISONED {
            return Err(CommitError::Poisoned);
        }
        if queue.closed || queue.bytes + bytes > self.queue_bytes_max {
            return Err(CommitError::Unavailable);
        }
        queue.bytes += bytes;
        queue.waiting.push_back(Pending { batch, bytes, answer });
        drop(queue);
        self.shared.wake.notify_one();
        Ok(answered)
    }

    pub(super) fn health(&self) -> Health {
        match self.shared.state.load(Ordering::Acquire) {
            POISONED => Health::Poisoned,
            _ if self.shared.busy_for() > STALL => Health::Stalled,
            FULL => Health::Full,
            _ => Health::Ready,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has answered its batches by dropping them; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing can panic between two writes to the queue, so a poisoned lock guards a sound queue.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn busy_for(&self) -> Duration {
        match self.busy_since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => Duration::from_millis((self.now_ms() + 1).saturating_sub(since)),
        }
    }
}

/// The state of the writer thread.
struct Work {
    rows: Rows,
    shared: Arc<Shared>,
    dir: PathBuf,
    disk_reserve_bytes: u64,
    faults: Option<Faults>,
    persists: u64,
    group: u64,
    acknowledged: Acknowledged,
}

/// What the group has written so far, by stored key: `None` is a deletion.
///
/// Also what makes one atomic batch of several: the engine numbers a batch once, so a key may stand in it only once.
type Overlay = HashMap<Bytes, Option<Bytes>>;

impl Work {
    fn run(&mut self) {
        while let Some(group) = self.next_group() {
            self.shared.busy_since.store(self.shared.now_ms() + 1, Ordering::Release);
            self.write(group);
            self.shared.busy_since.store(0, Ordering::Release);
        }
    }

    /// Waits for work and takes all of it, up to [`GROUP_BYTES_MAX`]; `None` once the queue is closed and empty.
    fn next_group(&self) -> Option<Vec<Pending>> {
        let mut queue = self.shared.lock();
        while queue.waiting.is_empty() {
            if queue.closed {
                return None;
            }
            queue = self.shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = queue.waiting.front() {
            if !group.is_empty() && bytes + next.bytes > GROUP_BYTES_MAX {
                break;
            }
            bytes += next.bytes;
            group.extend(queue.waiting.pop_front());
        }
        queue.bytes -= bytes;
        Some(group)
    }

    fn write(&mut self, group: Vec<Pending>) {
        if self.shared.state.load(Ordering::Acquire) == POISONED {
            return answer_all(group.into_iter().map(|pending| pending.answer), Err(CommitError::Poisoned));
        }
        if !self.has_space() {
            return answer_all(group.into_iter().map(|pending| pending.answer), Err(CommitError::Full));
        }

        let mut overlay = Overlay::new();
        let mut held = Vec::with_capacity(group.len());
        let mut refused = Vec::new();
        for Pending { batch, answer, .. } in group {
            match self.check(&batch.expect, &overlay) {
                Ok(()) => {
                    apply(batch, &mut overlay);
                    held.push(answer);
                }
                Err(error) => refused.push((answer, error)),
            }
        }

        let written = self.persist(overlay);
        if written.is_err() {
            // Under the lock, so that no batch is queued after the flag and left for the next round.
            let _queue = self.shared.lock();
            self.shared.state.store(POISONED, Ordering::Release);
        }
        answer_all(held.into_iter(), written);
        for (answer, error) in refused {
            // A conflict with a batch whose write failed is no conflict that the caller should believe.
            let _ = answer.send(Err(if written.is_ok() { error } else { CommitError::Poisoned }));
        }
    }

    /// One atomic write, one fdatasync.
    fn persist(&mut self, overlay: Overlay) -> Result<(), CommitError> {
        if overlay.is_empty() {
            return Ok(());
        }
        self.persists += 1;
        let fault = self.faults.as_ref().and_then(|faults| faults.at(self.persists));
        if fault == Some(Fault::Undone) {
            return Err(CommitError::Ambiguous);
        }
        let mut batch = OwnedWriteBatch::with_capacity(self.rows.database.clone(), overlay.len() + 1)
            .durability(Some(PersistMode::SyncData));
        for (key, value) in overlay {
            match value {
                Some(value) => batch.insert(&self.rows.keyspace, &key[..], &value[..]),
                None => batch.remove(&self.rows.keyspace, &key[..]),
            }
        }
        self.group += 1;
        batch.insert(&self.rows.keyspace, GROUP_KEY, self.group.to_be_bytes());
        // A crash before the fdatasync ends leaves all of the group or nothing: the engine drops a batch whose end
        // mark or checksum is missing from its journal. Nobody has been told. A crash after it leaves all of it; the
        // callers that were not told find out by their conditions when they try again.
        match batch.commit() {
            Ok(()) if fault.is_none() => {
                self.acknowledged.note(self.group);
                Ok(())
            }
            // An earlier failure in the engine's own threads: it refused before it wrote.
            Err(fjall::Error::Poisoned) => Err(CommitError::Poisoned),
            Ok(()) | Err(_) => Err(CommitError::Ambiguous),
        }
    }

    fn check(&self, expect: &[Expect], overlay: &Overlay) -> Result<(), CommitError> {
        for (place, condition) in expect.iter().enumerate() {
            let holds = match condition {
                Expect::Absent(table, key) => {
                    let stored = stored_key(*table, key);
                    match overlay.get(&stored) {
                        Some(value) => Ok(value.is_none()),
                        None => self.rows.keyspace.contains_key(&stored).map(|there| !there),
                    }
                }
                Expect::Value(table, key, expected) => {
                    let stored = stored_key(*table, key);
                    match overlay.get(&stored) {
                        Some(value) => Ok(value.as_ref() == Some(expected)),
                        None => self.rows.keyspace.get(&stored).map(|value| value.as_deref() == Some(&expected[..])),
                    }
                }
            };
            match holds {
                Ok(true) => {}
                Ok(false) => return Err(CommitError::Conflict { expect: place }),
                // The condition could not be read. Nothing was written, so the caller may try again.
                Err(_) => return Err(CommitError::Unavailable),
            }
        }
        Ok(())
    }

    /// Whether the disk has room beyond the reserve. Asked before each group, since a write that the disk refuses
    /// half-way poisons the writer, and this does not.
    fn has_space(&self) -> bool {
        let free = rustix::fs::statvfs(&self.dir).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        // A file system that does not tell is left to refuse by itself.
        let short = free.is_ok_and(|free| free < self.disk_reserve_bytes);
        self.shared.state.store(if short { FULL } else { OPEN }, Ordering::Release);
        !short
    }
}

fn apply(batch: Batch, overlay: &mut Overlay) {
    for (table, key) in batch.delete {
        overlay.insert(stored_key(table, &key), None);
    }
    for row in batch.put {
        overlay.insert(stored_key(row.table, &row.key), Some(row.value));
    }
}

fn answer_all(answers: impl Iterator<Item = Answer>, result: Result<(), CommitError>) {
    for answer in answers {
        // The caller may have gone away; the batch stands all the same.
        let _ = answer.send(result);
    }
}
