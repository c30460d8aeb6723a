//! The one writer of an embedded store.
//!
//! Takes batches from a bounded queue; gives each its answer. Whatever waits when the writer comes round is one
//! group: conditions are checked in order against the store and the batches before, what holds is written as one
//! atomic batch of the engine with one fdatasync, then all are answered. Two threads in a row: while the second waits
//! for the disk with one group, the first checks the next, against the rows of that group too. Answers come in the order
//! of the groups, and only from what is durable. Never goes on after a failed write: what the device holds is then
//! unknown, and a second fdatasync would not tell.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{OwnedWriteBatch, PersistMode};
use tokio::sync::oneshot;

use super::acknowledged::{Acknowledged, GROUP_KEY};
use super::{Options, Rows};
use crate::store::fault::{Fault, Faults};
use crate::store::{Batch, CommitError, Expect, Health, KEY_BYTES_MAX, Table, stored_into};

/// The most that one group takes, in bytes: bounds what is held twice while it is written.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// A group under way for longer is a device that is stuck.
const STALL: Duration = Duration::from_secs(10);

type Answer = oneshot::Sender<Result<(), CommitError>>;

/// The handle to the writer's threads. Dropping it closes the queue and waits until what was queued is written.
pub(super) struct Writer {
    shared: Arc<Shared>,
    queue_bytes_max: usize,
    threads: Vec<JoinHandle<()>>,
}

/// What callers and the writer's threads share.
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    state: AtomicU8,
    /// The group that is being checked or waits to be written, and the one that is being written.
    checking: Busy,
    writing: Busy,
    opened: Instant,
}

/// When a group under way began, in milliseconds since the writer was opened, plus 1; 0 when there is none.
#[derive(Default)]
struct Busy(AtomicU64);

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
            checking: Busy::default(),
            writing: Busy::default(),
            opened: Instant::now(),
        });
        // No room between the two: a group that is handed over finds the one before it written and answered.
        let (sender, receiver) = sync_channel(0);
        let mut check = Check {
            rows,
            shared: Arc::clone(&shared),
            dir: options.dir.clone(),
            disk_reserve_bytes: options.disk_reserve_bytes,
            group: acknowledged.group,
            before: Overlay::default(),
            sender,
        };
        let write = Write { shared: Arc::clone(&shared), faults: options.faults.clone(), persists: 0, acknowledged };
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        // The first thread ends when the queue is closed and empty, and the second when the first has; also when the
        // first can't be started.
        let threads = vec![
            thread("store-writer").spawn(move || write.run(&receiver))?,
            thread("store-checker").spawn(move || check.run())?,
        ];
        Ok(Self { shared, queue_bytes_max: options.queue_bytes_max, threads })
    }

    /// Queues a batch. The order of calls is the order of application.
    pub(super) fn queue(&self, batch: Batch) -> Result<oneshot::Receiver<Result<(), CommitError>>, CommitError> {
        let bytes = batch.bytes();
        if bytes > self.queue_bytes_max || batch.key_bytes_max() > KEY_BYTES_MAX {
            return Err(CommitError::TooLarge);
        }
        let (answer, answered) = oneshot::channel();
        let mut queue = self.shared.lock();
        if self.shared.is_poisoned() {
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
            _ if self.shared.is_stalled() => Health::Stalled,
            FULL => Health::Full,
            _ => Health::Ready,
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        for thread in self.threads.drain(..) {
            // A panic of a thread has answered its batches by dropping them; there is nobody left to tell.
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

    fn is_stalled(&self) -> bool {
        let busy_for = |busy: &Busy| match busy.0.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => Duration::from_millis((self.now_ms() + 1).saturating_sub(since)),
        };
        busy_for(&self.checking).max(busy_for(&self.writing)) > STALL
    }

    /// Nothing is written any more.
    fn poison(&self) {
        // Under the lock, so that no batch is queued after the flag and left for the next round.
        let _queue = self.lock();
        self.state.store(POISONED, Ordering::Release);
    }

    fn is_poisoned(&self) -> bool {
        self.state.load(Ordering::Acquire) == POISONED
    }
}

/// What a group writes, by table and key: `None` is a deletion.
///
/// Also what makes one atomic batch of several: the engine numbers a batch once, so a key may stand in it only once.
type Overlay = HashMap<(Table, Bytes), Option<Bytes>>;

/// A group whose conditions are checked.
struct Group {
    /// Its number and what it writes; none if it writes nothing.
    rows: Option<(u64, OwnedWriteBatch)>,
    held: Vec<Answer>,
    refused: Vec<(Answer, CommitError)>,
}

/// The state of the first thread: checks conditions.
struct Check {
    rows: Rows,
    shared: Arc<Shared>,
    dir: PathBuf,
    disk_reserve_bytes: u64,
    /// The number of the last group that was handed over.
    group: u64,
    /// What that group writes. It may be in the store by now or not.
    before: Overlay,
    sender: SyncSender<Group>,
}

/// Held by each thread: one that panics leaves nobody waiting for it.
struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison();
            let waiting = std::mem::take(&mut self.0.lock().waiting);
            answer_all(waiting.into_iter().map(|pending| pending.answer), Err(CommitError::Poisoned));
        }
    }
}

impl Check {
    fn run(&mut self) {
        let _watch = Watch(Arc::clone(&self.shared));
        while let Some(group) = self.next_group() {
            self.shared.checking.0.store(self.shared.now_ms() + 1, Ordering::Release);
            if let Some(group) = self.check_all(group)
                && self.sender.send(group).is_err()
            {
                // The second thread is gone, with a group in hand. The answers of this one are dropped unanswered.
                self.shared.poison();
            }
            self.shared.checking.0.store(0, Ordering::Release);
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

    /// `None` if all is answered already: nothing is written.
    fn check_all(&mut self, group: Vec<Pending>) -> Option<Group> {
        let refusal = if self.shared.is_poisoned() {
            Some(CommitError::Poisoned)
        } else {
            (!self.has_space()).then_some(CommitError::Full)
        };
        if let Some(refusal) = refusal {
            answer_all(group.into_iter().map(|pending| pending.answer), Err(refusal));
            return None;
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
        let rows = (!overlay.is_empty()).then(|| {
            self.group += 1;
            (self.group, self.batch(&overlay))
        });
        // The group before is written by the time that this one is handed over.
        self.before = overlay;
        Some(Group { rows, held, refused })
    }

    fn batch(&self, overlay: &Overlay) -> OwnedWriteBatch {
        let keyspace = &self.rows.keyspace;
        let mut batch = OwnedWriteBatch::with_capacity(self.rows.database.clone(), overlay.len() + 1)
            .durability(Some(PersistMode::SyncData));
        let mut stored = Vec::new();
        for ((table, key), value) in overlay {
            stored_into(&mut stored, *table, key);
            match value {
                Some(value) => batch.insert(keyspace, &stored[..], &value[..]),
                None => batch.remove(keyspace, &stored[..]),
            }
        }
        batch.insert(keyspace, GROUP_KEY, self.group.to_be_bytes());
        batch
    }

    fn check(&self, expect: &[Expect], overlay: &Overlay) -> Result<(), CommitError> {
        let keyspace = &self.rows.keyspace;
        let mut stored = Vec::new();
        for (place, condition) in expect.iter().enumerate() {
            let (Expect::Absent(table, key) | Expect::Value(table, key, _)) = condition;
            let known = (*table, key.clone());
            let known = overlay.get(&known).or_else(|| self.before.get(&known));
            stored_into(&mut stored, *table, key);
            let holds = match (condition, known) {
                (Expect::Absent(..), Some(value)) => Ok(value.is_none()),
                (Expect::Absent(..), None) => keyspace.contains_key(&stored).map(|there| !there),
                (Expect::Value(_, _, expected), Some(value)) => Ok(value.as_ref() == Some(expected)),
                (Expect::Value(_, _, expected), None) => {
                    keyspace.get(&stored).map(|value| value.as_deref() == Some(&expected[..]))
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
        let (was, is) = if short { (OPEN, FULL) } else { (FULL, OPEN) };
        // Never over what the other thread says: poisoned stays so.
        let _ = self.shared.state.compare_exchange(was, is, Ordering::AcqRel, Ordering::Acquire);
        !short
    }
}

/// The state of the second thread: writes.
struct Write {
    shared: Arc<Shared>,
    faults: Option<Faults>,
    persists: u64,
    acknowledged: Acknowledged,
}

impl Write {
    fn run(mut self, groups: &Receiver<Group>) {
        let _watch = Watch(Arc::clone(&self.shared));
        for group in groups {
            self.shared.writing.0.store(self.shared.now_ms() + 1, Ordering::Release);
            self.write(group);
            self.shared.writing.0.store(0, Ordering::Release);
        }
    }

    fn write(&mut self, group: Group) {
        let written = match group.rows {
            // The group was checked against one that failed.
            _ if self.shared.is_poisoned() => Err(CommitError::Poisoned),
            Some((number, batch)) => self.persist(number, batch),
            None => Ok(()),
        };
        if written.is_err() {
            self.shared.poison();
        }
        answer_all(group.held.into_iter(), written);
        for (answer, error) in group.refused {
            // A conflict with a batch whose write failed is no conflict that the caller should believe.
            let _ = answer.send(Err(if written.is_ok() { error } else { CommitError::Poisoned }));
        }
    }

    /// One atomic write, one fdatasync.
    fn persist(&mut self, group: u64, batch: OwnedWriteBatch) -> Result<(), CommitError> {
        self.persists += 1;
        let fault = self.faults.as_ref().and_then(|faults| faults.at(self.persists));
        if fault == Some(Fault::Undone) {
            return Err(CommitError::Ambiguous);
        }
        // A crash before the fdatasync ends leaves all of the group or nothing: the engine drops a batch whose end
        // mark or checksum is missing from its journal. Nobody has been told. A crash after it leaves all of it; the
        // callers that were not told find out by their conditions when they try again.
        match batch.commit() {
            Ok(()) if fault.is_none() => {
                self.acknowledged.note(group);
                Ok(())
            }
            // An earlier failure in the engine's own threads: it refused before it wrote.
            Err(fjall::Error::Poisoned) => Err(CommitError::Poisoned),
            Ok(()) | Err(_) => Err(CommitError::Ambiguous),
        }
    }
}

fn apply(batch: Batch, overlay: &mut Overlay) {
    for (table, key) in batch.delete {
        overlay.insert((table, key), None);
    }
    for row in batch.put {
        overlay.insert((row.table, row.key), Some(row.value));
    }
}

fn answer_all(answers: impl Iterator<Item = Answer>, result: Result<(), CommitError>) {
    for answer in answers {
        // The caller may have gone away; the batch stands all the same.
        let _ = answer.send(result);
    }
}
