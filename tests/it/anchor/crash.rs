//! What a failed commit, a second sequencer and a changed store leave.

use std::collections::BTreeSet;

use sluice::anchor::OpenError;
use sluice::store::fault::{Fault, Faults};
use sluice::store::{Batch, Table};

use super::{House, commitment, rows, verify, wait};

/// Failed and not done, failed but done: either way every leaf gets one index, and one tree of each size is shown.
#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_gets_its_index_once_whatever_became_of_the_commit() {
    for fault in [Fault::Undone, Fault::Done] {
        let house = House::new();
        // Groups: the head of the empty log, waiting leaves, a batch, waiting leaves, the batch that fails.
        let store = house.store(Some(Faults::new(move |group| (group == 5).then_some(fault))));
        let log = house.open(&store).await.unwrap();
        wait(&store, 0..5).await;
        log.sequence().await.unwrap();
        let shown = log.head();
        wait(&store, 5..300).await;
        assert_eq!(log.sequence().await.unwrap_err().kind().face().status, 503);
        assert_eq!(log.head(), shown, "what may not be durable is not shown");
        assert!(log.proof(&commitment(7)).await.unwrap().is_none());
        // Nothing waits any more if the commit was done; else the store takes nothing until a restart.
        assert!(!matches!(log.sequence().await, Ok(1..)));
        assert_eq!(log.head(), shown);
        drop((log, store));

        let store = house.store(None);
        let log = house.open(&store).await.unwrap();
        let expected = if fault == Fault::Done { 0 } else { 295 };
        assert_eq!(log.sequence().await.unwrap(), expected, "{fault:?}");
        assert_eq!(log.sequence().await.unwrap(), 0);
        let mut indexes = BTreeSet::new();
        for n in 0..300 {
            let proof = log.proof(&commitment(n)).await.unwrap().unwrap();
            verify(&log, &commitment(n), &proof);
            assert!(indexes.insert(proof.index));
        }
        assert_eq!(rows(&store, Table::Leaf).await.len() as u64, log.head().size);
        assert!(log.consistency(shown.size, log.head().size).await.unwrap().is_some());
        assert_eq!(log.checkpoint_at(shown.size).await.unwrap().unwrap(), shown.checkpoint);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sequencer_loses_the_race_and_goes_on_from_what_is_stored() {
    let house = House::new();
    let store = house.store(None);
    let one = house.open(&store).await.unwrap();
    let other = house.open(&store).await.unwrap();
    wait(&store, 0..3).await;
    one.sequence().await.unwrap();
    wait(&store, 3..6).await;
    assert_eq!(other.sequence().await.unwrap_err().kind().face().status, 503);
    assert_eq!(other.head(), one.head());
    assert_eq!(other.sequence().await.unwrap(), 3);
    for n in 0..6 {
        verify(&other, &commitment(n), &other.proof(&commitment(n)).await.unwrap().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_not_what_was_signed_is_refused() {
    // What the start looks at: the right edge, and the leaves of the last tile. `check` looks at everything.
    let tile = |level: u8, index: u64| [&[level][..], &index.to_be_bytes()].concat();
    let cases: Vec<(&str, Table, Vec<u8>, bool)> = vec![
        ("a changed partial tile", Table::Tile, tile(0, 1), true),
        ("a changed tile above", Table::Tile, tile(1, 0), true),
        ("a lost tile", Table::Tile, tile(1, 0), false),
        ("a changed leaf", Table::Leaf, 300u64.to_be_bytes().to_vec(), true),
        ("a lost leaf", Table::Leaf, 300u64.to_be_bytes().to_vec(), false),
        ("a leaf too many", Table::Leaf, 304u64.to_be_bytes().to_vec(), true),
    ];
    for (what, table, key, changed) in cases {
        let house = House::new();
        let store = house.store(None);
        let log = house.open(&store).await.unwrap();
        wait(&store, 0..300).await;
        log.sequence().await.unwrap();
        drop(log);
        let batch = if changed {
            let mut value = store.read(table, &key).await.unwrap().unwrap_or_else(|| vec![1; 33].into()).to_vec();
            value[5] ^= 1;
            Batch::new().put(table, key, value)
        } else {
            Batch::new().delete(table, key)
        };
        store.commit(batch).await.unwrap();
        let refused = house.open(&store).await.map(drop).unwrap_err();
        assert!(matches!(refused, OpenError::Mismatch { size: 304 }), "{what}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_without_a_head_and_a_head_of_another_key_are_refused() {
    let house = House::new();
    let store = house.store(None);
    let log = house.open(&store).await.unwrap();
    wait(&store, 0..3).await;
    log.sequence().await.unwrap();
    drop(log);
    let stranger = House::new();
    let refused = stranger.open(&store).await.map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::Stranger), "{refused}");
    store.commit(Batch::new().delete(Table::Meta, &b"anchor/head"[..])).await.unwrap();
    let refused = house.open(&store).await.map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::Headless), "{refused}");
}
