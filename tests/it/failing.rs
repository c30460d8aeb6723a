//! A store that fails one commit, and every one after it, as the embedded one does until its process has started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sluice::store::fault::Fault;
use sluice::store::{Batch, CommitError, Direction, Health, KeyRange, Row, Store, StoreError, Table};

pub(crate) struct Failing {
    store: Arc<dyn Store>,
    nth: usize,
    fault: Fault,
    commits: AtomicUsize,
}

impl Failing {
    /// Fails at the `nth` commit, from 1.
    pub(crate) fn at(store: Arc<dyn Store>, nth: usize, fault: Fault) -> Self {
        Self { store, nth, fault, commits: AtomicUsize::new(0) }
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
        if number < self.nth {
            return self.store.commit(batch);
        }
        if number > self.nth {
            return async { Err(CommitError::Poisoned) }.boxed();
        }
        let done = (self.fault == Fault::Done).then(|| self.store.commit(batch));
        async {
            if let Some(done) = done {
                done.await?;
            }
            Err(CommitError::Ambiguous)
        }
        .boxed()
    }

    fn health(&self) -> Health {
        self.store.health()
    }
}
