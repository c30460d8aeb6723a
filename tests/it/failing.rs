//! A store that does not take every commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sluice::store::fault::Fault;
use sluice::store::{Batch, CommitError, Direction, Health, KeyRange, Row, Store, StoreError, Table};

/// What becomes of a commit.
pub(crate) enum Fate {
    /// What the store below makes of it.
    Taken,
    /// It is not told to the store below.
    Refused(CommitError),
    /// The store below has it, and nobody is told.
    Untold,
}

type Fates = dyn Fn(usize, &Batch) -> Fate + Send + Sync;

pub(crate) struct Failing {
    store: Arc<dyn Store>,
    /// By the commit's number, from 1, and what it holds.
    fate: Box<Fates>,
    commits: AtomicUsize,
}

impl Failing {
    /// One whose commits meet what this says.
    pub(crate) fn by(store: Arc<dyn Store>, fate: impl Fn(usize, &Batch) -> Fate + Send + Sync + 'static) -> Self {
        Self { store, fate: Box::new(fate), commits: AtomicUsize::new(0) }
    }

    /// One that fails at the `nth` commit, from 1, and at every one after it, as the embedded one does until its process
    /// has started again.
    pub(crate) fn at(store: Arc<dyn Store>, nth: usize, fault: Fault) -> Self {
        Self::by(store, move |number, _| match (number.cmp(&nth), fault) {
            (std::cmp::Ordering::Less, _) => Fate::Taken,
            (std::cmp::Ordering::Equal, Fault::Done) => Fate::Untold,
            (std::cmp::Ordering::Equal, Fault::Undone) => Fate::Refused(CommitError::Ambiguous),
            (std::cmp::Ordering::Greater, _) => Fate::Refused(CommitError::Poisoned),
        })
    }
}

impl Store for Failing {
    fn read(&self, table: Table, key: &[u8]) -> BoxFuture<'_, Result<Option<Bytes>, StoreError>> {
        self.store.read(table, key)
    }

    fn read_many(&self, keys: Vec<(Table, Bytes)>) -> BoxFuture<'_, Result<Vec<Option<Bytes>>, StoreError>> {
        self.store.read_many(keys)
    }

    fn scan(
        &self,
        table: Table,
        range: KeyRange,
        limit: usize,
        direction: Direction,
    ) -> BoxFuture<'_, Result<Vec<Row>, StoreError>> {
        self.store.scan(table, range, limit, direction)
    }

    fn commit(&self, batch: Batch) -> BoxFuture<'_, Result<(), CommitError>> {
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        match (self.fate)(number, &batch) {
            Fate::Taken => self.store.commit(batch),
            Fate::Refused(error) => async move { Err(error) }.boxed(),
            Fate::Untold => {
                let done = self.store.commit(batch);
                async move { done.await.and(Err(CommitError::Ambiguous)) }.boxed()
            }
        }
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}
