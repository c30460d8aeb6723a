//! The embedded broker: rows of the store, which subscribers fetch by cursor.
//!
//! Takes messages; gives each subscriber its own sequence of entries, numbered from 1 without gaps, in which a message
//! id stands once. A confirmed message is as durable as the store. One task writes, many messages to a commit, so cursors
//! need no lock; a second process on the same store would fail the commit's condition and change nothing.
//!
//! Never keeps a body in the clear: entries are sealed by the [`Seal`] that it was given, under the message's lane, so
//! that erasing a subject erases its entries. An erased entry keeps its cursor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use self::writer::{Command, Writer};
use super::{Broker, Message, PublishError, State};
use crate::error::{Error, Peer};
use crate::store::keystore::SubjectKey;
use crate::store::vault::place;
use crate::store::vault::{Vault, VaultError};
use crate::store::{Batch, Direction, Health, KeyRange, Store, StoreError, Table};

mod entry;
mod writer;

pub use entry::{Body, Entry};

/// The most messages of one commit, and the most entries of one read.
pub const ENTRIES_MAX: usize = 256;

/// How long entries are kept. Whichever of the two is reached first.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Entries older than this go.
    pub age: Duration,
    /// Of each subscriber's entries the newest so many stay.
    pub entries: u64,
}

/// Seals what lies in the feed. A value opens in its place alone.
pub trait Seal: Send + Sync {
    /// Seals a value for `place`; it opens for as long as the subjects of `lane` have their keys.
    fn seal(&self, lane: &[u8], place: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Opens a value at `place`.
    fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError>;
}

/// Why a value was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A key that it needs was destroyed.
    #[error("erased")]
    Erased,
    /// It is damaged, or lay elsewhere.
    #[error("damaged")]
    Damaged,
    /// The keys are not to be had for now.
    #[error("no keys")]
    Unavailable,
}

/// Why entries were not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The entries after this cursor were removed by the retention; what is left begins after `oldest`.
    #[error("the entries after the cursor are no longer kept")]
    Gone {
        /// Read after this cursor instead; whatever lay before is lost to the reader.
        oldest: u64,
    },
    /// The cursor was never given.
    #[error("the cursor lies ahead of the feed")]
    Ahead,
    /// A row is not what was written there.
    #[error("an entry of the feed is damaged")]
    Damaged,
    /// The keys are not to be had for now.
    #[error("an entry cannot be opened for now")]
    Sealed,
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// For a reader inside the gateway, whose cursors are the feed's own.
impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Sealed => {
                Self::outage(Peer::Store, Duration::from_secs(5), "an entry of the feed can't be opened for now")
            }
            ReadError::Damaged | ReadError::Gone { .. } | ReadError::Ahead => {
                Self::defect("the feed is not what was written")
            }
        }
    }
}

/// The embedded broker.
pub struct Feed {
    store: Arc<dyn Store>,
    seal: Arc<dyn Seal>,
    commands: mpsc::Sender<Command>,
    heads: Arc<Heads>,
    closing: watch::Sender<bool>,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

/// Who waits for a subscriber's feed to grow.
#[derive(Default)]
struct Heads(Mutex<HashMap<String, watch::Sender<u64>>>);

impl Feed {
    /// Opens the feed over a store. To be called within a tokio runtime.
    pub fn start(store: Arc<dyn Store>, seal: Arc<dyn Seal>, retention: Retention) -> Self {
        let (commands, queue) = mpsc::channel(ENTRIES_MAX);
        let (closing, closing_receiver) = watch::channel(false);
        let heads = Arc::new(Heads::default());
        let writer = Writer::new(store.clone(), seal.clone(), heads.clone(), retention);
        let task = tokio::spawn(writer.run(queue, closing_receiver));
        Self { store, seal, commands, heads, closing, task: tokio::sync::Mutex::new(Some(task)) }
    }

    /// A subscriber's entries after a cursor (0: from the beginning), oldest first, at most `limit` and at most
    /// [`ENTRIES_MAX`]. Empty at the end of the feed.
    pub async fn read_after(&self, subscriber: &str, cursor: u64, limit: usize) -> Result<Vec<Entry>, ReadError> {
        let Some(head) = self.store.read(Table::Feed, &entry::head_key(subscriber)).await? else {
            return if cursor == 0 { Ok(Vec::new()) } else { Err(ReadError::Ahead) };
        };
        let head = entry::Head::decode(&head).ok_or(ReadError::Damaged)?;
        if cursor > head.last {
            return Err(ReadError::Ahead);
        }
        // A reader from the beginning takes what there is; one that had a cursor is told of the loss.
        if cursor != 0 && cursor < head.removed {
            return Err(ReadError::Gone { oldest: head.removed });
        }
        let range = KeyRange::prefix(entry::entries_prefix(subscriber)).after(entry::entry_key(subscriber, cursor));
        let rows = self.store.scan(Table::Feed, range, limit.min(ENTRIES_MAX), Direction::Up).await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            entries.push(self.open(subscriber, &row.key, &row.value)?);
        }
        Ok(entries)
    }

    /// The cursor of the newest entry; 0 if there is none yet.
    pub async fn head(&self, subscriber: &str) -> Result<u64, ReadError> {
        match self.store.read(Table::Feed, &entry::head_key(subscriber)).await? {
            None => Ok(0),
            Some(head) => Ok(entry::Head::decode(&head).ok_or(ReadError::Damaged)?.last),
        }
    }

    /// Waits until the feed holds an entry after this cursor; returns at once if it does. Also returns when the feed is
    /// closed: read again to know. Cheap to drop, as a long poll does at its time-out.
    pub async fn grown(&self, subscriber: &str, cursor: u64) -> Result<(), ReadError> {
        // Subscribed before the look, so that nothing between the two is missed.
        let mut grown = self.heads.watch(subscriber);
        let mut closing = self.closing.subscribe();
        if self.head(subscriber).await? > cursor {
            return Ok(());
        }
        tokio::select! {
            () = grown.wait_for(|last| *last > cursor).map(drop) => {}
            () = closing.wait_for(|closing| *closing).map(drop) => {}
        }
        Ok(())
    }

    /// What takes an entry back, once it is committed: the entry keeps its cursor, and its message is gone. None if there
    /// is no message under this cursor, any more. The commit is the caller's, so that more can happen with it; it fails
    /// where the entry has changed meanwhile.
    pub async fn withdrawal(&self, subscriber: &str, cursor: u64) -> Result<Option<Batch>, ReadError> {
        let key = entry::entry_key(subscriber, cursor);
        let Some(sealed) = self.store.read(Table::Feed, &key).await? else { return Ok(None) };
        let Body::Message { id, time, .. } = self.open(subscriber, &key, &sealed)?.body else { return Ok(None) };
        // About nobody any more, so it outlives the subjects' keys.
        let withdrawn = self.seal.seal(&[], &place(Table::Feed, &key), &entry::encode_withdrawn(&id, time));
        let withdrawn = withdrawn.map_err(|_| ReadError::Sealed)?;
        Ok(Some(Batch::new().expect_value(Table::Feed, key.clone(), sealed).put(Table::Feed, key, withdrawn)))
    }

    fn open(&self, subscriber: &str, key: &Bytes, sealed: &[u8]) -> Result<Entry, ReadError> {
        let cursor = entry::cursor_of(subscriber, key).ok_or(ReadError::Damaged)?;
        match self.seal.open(&place(Table::Feed, key), sealed) {
            Ok(plain) => Entry::decode(cursor, &plain).ok_or(ReadError::Damaged),
            Err(SealError::Erased) => Ok(Entry { cursor, body: Body::Erased }),
            Err(SealError::Damaged) => Err(ReadError::Damaged),
            Err(SealError::Unavailable) => Err(ReadError::Sealed),
        }
    }
}

impl Broker for Feed {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<(), PublishError>> {
        async move {
            message.check()?;
            let (verdict, received) = oneshot::channel();
            if *self.closing.borrow() || self.commands.send(Command { message, verdict }).await.is_err() {
                return Err(PublishError::Unavailable);
            }
            received.await.unwrap_or(Err(PublishError::Unconfirmed))
        }
        .boxed()
    }

    fn state(&self) -> State {
        if *self.closing.borrow() {
            return State::Closed;
        }
        match self.store.health() {
            Health::Ready => State::Ready,
            Health::Stalled | Health::Full => State::Blocked,
            Health::Poisoned => State::Down(Some("the store accepts no writes".into())),
        }
    }

    fn ready(&self) -> BoxFuture<'_, State> {
        // The store tells nobody when it is well again; to ask is cheap.
        async move {
            loop {
                match self.state() {
                    state @ (State::Ready | State::Closed) => return state,
                    State::Blocked | State::Down(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.closing.send_replace(true);
            if let Some(task) = self.task.lock().await.take()
                && task.await.is_err()
            {
                tracing::error!("the feed's task panicked");
            }
        }
        .boxed()
    }
}

/// The lane is the subjects' keys, one behind the other; an empty one is sealed under the tenant's key.
impl Seal for Vault {
    fn seal(&self, lane: &[u8], place: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        let (subjects, rest) = lane.as_chunks::<{ size_of::<SubjectKey>() }>();
        // Anything else would be sealed for nobody, and never be erased.
        if !rest.is_empty() {
            return Err(SealError::Damaged);
        }
        Self::seal(self, subjects, place, plain).map_err(|error| seal_error(&error))
    }

    fn open(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        Self::open(self, place, sealed).map_err(|error| seal_error(&error))
    }
}

fn seal_error(error: &VaultError) -> SealError {
    match error {
        VaultError::Erased => SealError::Erased,
        VaultError::Corrupt | VaultError::TooManySubjects => SealError::Damaged,
        VaultError::NoKey | VaultError::Keystore(_) | VaultError::Keys(_) | VaultError::Closed => {
            SealError::Unavailable
        }
    }
}

impl Heads {
    fn watch(&self, subscriber: &str) -> watch::Receiver<u64> {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Names come from authenticated subscribers, so there are no more of them than the settings hold.
        heads.entry(subscriber.to_owned()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    fn grew(&self, subscriber: &str, last: u64) {
        let heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(head) = heads.get(subscriber) {
            head.send_replace(last);
        }
    }
}
