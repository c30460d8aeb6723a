//! How many leaves there are about each subject.
//!
//! Takes: the subjects of a batch. Gives: the next number for each, and the conditions and rows that make the numbers
//! durable with the leaves that carry them. Never: gives a number twice, nor leaves a gap: a batch that fails takes
//! the numbers of those behind it with it, and all of them number again.
//!
//! Batches are applied in the order of the calls to `commit`, so numbers can be given before the batch ahead is
//! durable: whoever numbers holds the lock until it has called `commit`.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};

use crate::consent::pseudonym::Pseudonym;
use crate::error::Result;
use crate::store::{Batch, Store, Table};

/// Subjects whose count is kept in memory at most; beyond, all are read again.
const KNOWN_MAX: usize = 65_536;

/// The counts that the batches already called for will have made.
#[derive(Default)]
pub struct Counters(Mutex<HashMap<Pseudonym, Option<u64>>>);

/// The lock, and the numbers given under it.
pub struct Numbering<'a> {
    counts: MutexGuard<'a, HashMap<Pseudonym, Option<u64>>>,
    before: HashMap<Pseudonym, Option<u64>>,
    sealed: bool,
}

impl Counters {
    /// Takes the lock and reads the counts of these subjects that are not known yet.
    ///
    /// # Errors
    /// An outage of the store.
    pub async fn number(&self, subjects: &[Pseudonym], store: &dyn Store) -> Result<Numbering<'_>> {
        let mut counts = self.0.lock().await;
        if counts.len() > KNOWN_MAX {
            counts.clear();
        }
        let missing: Vec<Pseudonym> = subjects.iter().filter(|it| !counts.contains_key(it)).copied().collect();
        if !missing.is_empty() {
            let keys = missing.iter().map(|it| (Table::Subject, key(it))).collect();
            let rows = store.read_many(keys).await?;
            for (subject, row) in missing.into_iter().zip(rows) {
                let count = row.and_then(|row| <[u8; 8]>::try_from(&row[..]).ok()).map(u64::from_be_bytes);
                counts.insert(subject, count);
            }
        }
        Ok(Numbering { counts, before: HashMap::new(), sealed: false })
    }

    /// Forgets everything: a batch failed, so the counts behind it never came to be.
    pub async fn forget(&self) {
        self.0.lock().await.clear();
    }
}

impl Numbering<'_> {
    /// The next number of a subject, from 1.
    pub fn next(&mut self, subject: &Pseudonym) -> u64 {
        let count = self.counts.entry(*subject).or_default();
        self.before.entry(*subject).or_insert(*count);
        let next = count.unwrap_or(0) + 1;
        *count = Some(next);
        next
    }

    /// Adds what makes the numbers durable. Keep the lock until the batch has been handed to `commit`.
    #[must_use]
    pub fn seal(&mut self, mut batch: Batch) -> Batch {
        self.sealed = true;
        for (subject, before) in &self.before {
            let count = self.counts.get(subject).copied().flatten().unwrap_or(0);
            let read = before.map(|it| Bytes::copy_from_slice(&it.to_be_bytes()));
            batch = batch.expect_read(Table::Subject, key(subject), read).put(
                Table::Subject,
                key(subject),
                count.to_be_bytes().to_vec(),
            );
        }
        batch
    }
}

impl Drop for Numbering<'_> {
    /// Numbers that were given and never sealed into a batch must not be counted on.
    fn drop(&mut self) {
        if !self.sealed && !self.before.is_empty() {
            self.counts.clear();
        }
    }
}

fn key(subject: &Pseudonym) -> Bytes {
    Bytes::copy_from_slice(&subject.0)
}
