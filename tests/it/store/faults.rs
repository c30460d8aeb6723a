//! What the embedded store does when a write fails, in pairs: failed and not done, failed but done.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use sluice::store::embedded::{Embedded, Options};
use sluice::store::fault::{Fault, Faults};
use sluice::store::{Batch, CommitError, Health, OpenError, Store, Table};

fn open(dir: &Path, fault: Fault) -> Arc<dyn Store> {
    let faults = Faults::new(move |group| (group == 3).then_some(fault));
    Arc::new(Embedded::open(&Options { faults: Some(faults), ..super::small(dir) }).unwrap())
}

fn put(n: &'static str) -> Batch {
    Batch::new().expect_absent(Table::Meta, n).put(Table::Meta, n, n).put(Table::Work, n, n)
}

async fn both(store: &Arc<dyn Store>, n: &'static str) -> (bool, bool) {
    let read = async |table| store.read(table, n.as_bytes()).await.unwrap().is_some();
    (read(Table::Meta).await, read(Table::Work).await)
}

#[test]
fn a_failed_persist_poisons_until_a_restart() {
    for (fault, after_restart) in [(Fault::Undone, false), (Fault::Done, true)] {
        let dir = tempfile::tempdir().unwrap();
        super::runtime().block_on(async {
            let store = open(dir.path(), fault);
            store.commit(put("1")).await.unwrap();
            store.commit(put("2")).await.unwrap();
            assert_eq!(store.commit(put("3")).await, Err(CommitError::Ambiguous));
            assert_eq!(store.health(), Health::Poisoned);
            for _ in 0..3 {
                assert_eq!(store.commit(put("4")).await, Err(CommitError::Poisoned));
            }
            assert_eq!(both(&store, "2").await, (true, true), "reads go on");
            drop(store);

            let store = super::embedded(dir.path());
            assert_eq!(both(&store, "1").await, (true, true));
            assert_eq!(both(&store, "2").await, (true, true));
            assert_eq!(both(&store, "3").await, (after_restart, after_restart), "{fault:?}");
            assert_eq!(both(&store, "4").await, (false, false));
            // The same batch again: its condition tells whether it had happened.
            let again = store.commit(put("3")).await;
            assert_eq!(again, if after_restart { Err(CommitError::Conflict { expect: 0 }) } else { Ok(()) });
            store.commit(put("4")).await.unwrap();
        });
    }
}

/// A whole group fails: all that would have been written is ambiguous, what conflicted with it is not done for sure.
#[test]
fn all_of_a_failed_group_are_told() {
    let dir = tempfile::tempdir().unwrap();
    super::runtime().block_on(async {
        // The first group holds the writer up until all the others wait.
        let go = Arc::new(AtomicBool::new(false));
        let held = Arc::clone(&go);
        let faults = Faults::new(move |group| {
            while group == 1 && !held.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            (group == 2).then_some(Fault::Undone)
        });
        let options = Options { faults: Some(faults), ..super::small(dir.path()) };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&options).unwrap());
        let first = store.commit(put("1"));
        // Only once the writer is at the first can the next be a group of their own.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let rest = join_all([store.commit(put("2")), store.commit(put("3")), store.commit(put("2"))]);
        go.store(true, Ordering::Release);
        first.await.unwrap();
        let failed = [CommitError::Ambiguous, CommitError::Ambiguous, CommitError::Poisoned].map(Err);
        assert_eq!(rest.await, failed);
    });
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    super::runtime().block_on(async {
        let store = super::embedded(dir.path());
        store.commit(put("1")).await.unwrap();
        drop(store);
        let options = Options { disk_reserve_bytes: u64::MAX, ..super::small(dir.path()) };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&options).unwrap());
        assert_eq!(store.commit(put("2")).await, Err(CommitError::Full));
        assert_eq!(store.health(), Health::Full);
        assert_eq!(both(&store, "1").await, (true, true), "reads go on");
        assert_eq!(both(&store, "2").await, (false, false));
        drop(store);
        super::embedded(dir.path()).commit(put("2")).await.unwrap();
    });
}

#[test]
fn a_full_queue_refuses_at_once() {
    let dir = tempfile::tempdir().unwrap();
    super::runtime().block_on(async {
        let go = Arc::new(AtomicBool::new(false));
        let held = Arc::clone(&go);
        let faults = Faults::new(move |_| {
            while !held.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            None
        });
        let options = Options { faults: Some(faults), queue_bytes_max: 1 << 20, ..super::small(dir.path()) };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&options).unwrap());
        let large = |n: u8| Batch::new().put(Table::Meta, vec![n], vec![0; 300 << 10]);
        let taken: Vec<_> = (0..20).map(|n| store.commit(large(n))).collect();
        go.store(true, Ordering::Release);
        let answers = join_all(taken).await;
        let refused = answers.iter().filter(|answer| **answer == Err(CommitError::Unavailable)).count();
        // Three fit the queue; the writer may have taken up to three before.
        assert!((14..=17).contains(&refused), "{refused} refused");
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 20 - refused);
        store.commit(large(21)).await.unwrap();
    });
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = super::embedded(dir.path());
    assert!(matches!(Embedded::open(&super::small(dir.path())), Err(OpenError::Locked(_))));
    drop(store);
    super::embedded(dir.path());
}

#[test]
fn closing_writes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    super::runtime().block_on(async {
        let store = super::embedded(dir.path());
        for n in 0..100_u8 {
            drop(store.commit(Batch::new().put(Table::Meta, vec![n], "v")));
        }
        drop(store);
        let store = super::embedded(dir.path());
        assert!(store.read(Table::Meta, &[99]).await.unwrap().is_some());
    });
}

/// The engine cuts its journal where it cannot read on. Where that would lose what was acknowledged, nothing opens.
#[test]
fn a_journal_that_lost_rows_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    super::runtime().block_on(async {
        let store = super::embedded(dir.path());
        for n in ["first", "second", "third"] {
            store.commit(put(n)).await.unwrap();
        }
    });
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let journal = files.filter(|path| path.extension().is_some_and(|kind| kind == "jnl")).last().unwrap();
    let good = std::fs::read(&journal).unwrap();
    let end = good.windows(5).rposition(|window| window == b"third").unwrap();
    // A crash in the middle of a fourth group that nobody was told of: cut, and the store opens.
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    std::fs::write(&journal, [&good[..used], &good[..40]].concat()).unwrap();
    drop(super::embedded(dir.path()));
    // The third group cut in two; then a tag in it that means nothing.
    std::fs::write(&journal, &good[..end - 8]).unwrap();
    let refused = Embedded::open(&super::small(dir.path())).err();
    assert!(matches!(refused, Some(OpenError::Lost { groups: 1, .. })), "{refused:?}");
    std::fs::remove_file(dir.path().join("acknowledged")).unwrap();
    super::runtime().block_on(async {
        let store = super::embedded(dir.path());
        assert_eq!(both(&store, "second").await, (true, true));
        assert_eq!(both(&store, "third").await, (false, false));
    });
}
