//! kill -9 at random moments: everything acknowledged is there, nothing is there by half.
//!
//! The child is this test binary again, told by an environment variable which directory to write to. It commits
//! numbered batches, several at a time, and prints each number once it is acknowledged.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice::store::{Batch, Direction, KeyRange, Table};

use super::child;

const ROWS: u64 = 5;
const ROUNDS: u32 = 25;

/// Row `row` of batch `n`. Values of different lengths, some long enough to lie apart from their keys.
fn value(n: u64, row: u64) -> Vec<u8> {
    let length = [3, 200, 900, 2000, 6000][usize::try_from((n + row) % 5).unwrap()];
    n.to_be_bytes().into_iter().cycle().take(length).collect()
}

fn key(n: u64, row: u64) -> Vec<u8> {
    [n.to_be_bytes(), row.to_be_bytes()].concat()
}

#[test]
fn child() {
    let Some(dir) = child::directory() else { return };
    super::runtime().block_on(async {
        let store = super::embedded(Path::new(&dir));
        let last = store.scan(Table::Leaf, KeyRange::all(), 1, Direction::Down).await.unwrap();
        let first = last.first().map_or(0, |row| u64::from_be_bytes(row.key[..8].try_into().unwrap()) + 1);
        let next = Arc::new(AtomicU64::new(first));
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                let (store, next) = (Arc::clone(&store), Arc::clone(&next));
                tokio::spawn(async move {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let batch = (0..ROWS).fold(Batch::new().expect_absent(Table::Leaf, key(n, 0)), |batch, row| {
                            batch.put(Table::Leaf, key(n, row), value(n, row))
                        });
                        // A counter that is overwritten, and rows that come and go, as queues do.
                        let batch = batch
                            .put(Table::Work, n.to_be_bytes().to_vec(), "work")
                            .delete(Table::Work, n.saturating_sub(20).to_be_bytes().to_vec());
                        store.commit(batch).await.unwrap();
                        writeln!(std::io::stdout(), "acknowledged {n}").unwrap();
                    }
                })
            })
            .collect();
        // They go on until the parent kills them.
        futures_util::future::join_all(tasks).await;
    });
}

#[test]
fn what_was_acknowledged_survives() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut round = 0;
    // On a slow machine many a child dies before it has done anything.
    while round < ROUNDS || round < ROUNDS * 50 && acknowledged.len() <= 100 {
        round += 1;
        let mut child = child::start("store::kill::child", dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Some rounds are killed while they recover, most of them while they write.
        let wait = Duration::from_micros(RandomState::new().hash_one(round) % (120_000 + 2_000 * u64::from(round)));
        let killer = std::thread::spawn(move || {
            std::thread::park_timeout(wait);
            child.kill().unwrap();
            child.wait().unwrap();
        });
        while let Some(Ok(line)) = lines.next() {
            // A line that the kill cut short has no end, and its number may be cut as well; `lines` gives it all the
            // same. A shorter number is one that was acknowledged long before, so it does no harm.
            acknowledged.extend(line.strip_prefix("acknowledged ").and_then(|n| n.parse::<u64>().ok()));
        }
        killer.join().unwrap();
        super::runtime().block_on(check(dir.path(), &acknowledged));
    }
    assert!(acknowledged.len() > 100, "only {} batches in {ROUNDS} rounds", acknowledged.len());
}

async fn check(dir: &Path, acknowledged: &BTreeSet<u64>) {
    let store = super::embedded(dir);
    let mut found = BTreeSet::new();
    let mut range = KeyRange::all();
    loop {
        let rows = store.scan(Table::Leaf, range.clone(), 5000, Direction::Up).await.unwrap();
        let Some(last) = rows.last() else { break };
        range = range.after(last.key.clone());
        for row in &rows {
            let n = u64::from_be_bytes(row.key[..8].try_into().unwrap());
            let number = u64::from_be_bytes(row.key[8..].try_into().unwrap());
            assert_eq!(row.value, value(n, number));
            found.insert((n, number));
        }
    }
    let numbers: BTreeSet<_> = found.iter().map(|(n, _)| *n).collect();
    assert_eq!(found.len() as u64, numbers.len() as u64 * ROWS, "a batch is there by half");
    let lost: Vec<_> = acknowledged.difference(&numbers).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}
