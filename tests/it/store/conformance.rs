//! The suite: each case gets an empty store.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use sluice::store::{
    Batch, CommitError, Direction, Health, KEY_BYTES_MAX, KeyRange, SCAN_BYTES_MAX, Store, StoreError, Table,
};

use super::Open;

type Case = fn(Open) -> BoxFuture<'static, ()>;

pub(crate) const CASES: &[(&str, Case)] = &[
    ("reads what was written", |open| reads_what_was_written(open).boxed()),
    ("conditions", |open| conditions(open).boxed()),
    ("a refused batch leaves nothing", |open| refused_leaves_nothing(open).boxed()),
    ("order within a batch", |open| order_within_a_batch(open).boxed()),
    ("order of calls", |open| order_of_calls(open).boxed()),
    ("scans", |open| scans(open).boxed()),
    ("scans are bounded in bytes", |open| scans_are_bounded(open).boxed()),
    ("tables are apart", |open| tables_are_apart(open).boxed()),
    ("batches are seen whole", |open| batches_are_seen_whole(open).boxed()),
    ("one of many wins", |open| one_of_many_wins(open).boxed()),
    ("a dropped future commits", |open| dropped_future_commits(open).boxed()),
    ("reopen", |open| reopen(open).boxed()),
    ("limits", |open| limits(open).boxed()),
    ("large values", |open| large_values(open).boxed()),
];

async fn read(store: &Arc<dyn Store>, table: Table, key: &'static str) -> Option<Bytes> {
    store.read(table, key.as_bytes()).await.unwrap()
}

async fn keys(store: &Arc<dyn Store>, range: KeyRange, limit: usize, direction: Direction) -> Vec<String> {
    let rows = store.scan(Table::Meta, range, limit, direction).await.unwrap();
    rows.into_iter().map(|row| String::from_utf8(row.key.to_vec()).unwrap()).collect()
}

async fn reads_what_was_written(open: Open) {
    let store = open();
    assert_eq!(store.health(), Health::Ready);
    assert_eq!(read(&store, Table::Meta, "a").await, None);
    store.commit(Batch::new().put(Table::Meta, "a", "1").put(Table::Meta, "", "empty key")).await.unwrap();
    store.commit(Batch::new().put(Table::Meta, "b", "")).await.unwrap();
    assert_eq!(read(&store, Table::Meta, "a").await.unwrap(), "1");
    assert_eq!(read(&store, Table::Meta, "").await.unwrap(), "empty key");
    assert_eq!(read(&store, Table::Meta, "b").await.unwrap(), "", "an empty value is not an absent one");
    let many = ["b", "no", "a"].map(|key| (Table::Meta, Bytes::from_static(key.as_bytes())));
    assert_eq!(store.read_many(many.to_vec()).await.unwrap(), [Some("".into()), None, Some("1".into())]);
    store.commit(Batch::new().put(Table::Meta, "a", "2").delete(Table::Meta, "b")).await.unwrap();
    assert_eq!(read(&store, Table::Meta, "a").await.unwrap(), "2");
    assert_eq!(read(&store, Table::Meta, "b").await, None);
    store.commit(Batch::new()).await.unwrap();
}

async fn conditions(open: Open) {
    let store = open();
    let t = Table::Meta;
    store.commit(Batch::new().expect_absent(t, "a").put(t, "a", "1")).await.unwrap();
    let conflict = |expect| Err(CommitError::Conflict { expect });
    assert_eq!(store.commit(Batch::new().expect_absent(t, "a").put(t, "a", "2")).await, conflict(0));
    assert_eq!(store.commit(Batch::new().expect_absent(t, "b").expect_value(t, "a", "2")).await, conflict(1));
    assert_eq!(store.commit(Batch::new().expect_value(t, "b", "")).await, conflict(0), "absent is not empty");
    store.commit(Batch::new().expect_value(t, "a", "1").expect_absent(t, "b").put(t, "a", "2")).await.unwrap();
    assert_eq!(read(&store, t, "a").await.unwrap(), "2");
    store.commit(Batch::new().expect_value(t, "a", "2").delete(t, "a")).await.unwrap();
    store.commit(Batch::new().expect_absent(t, "a")).await.unwrap();
    store.commit(Batch::new().expect_read(t, "a", None).put(t, "a", "3")).await.unwrap();
    store.commit(Batch::new().expect_read(t, "a", Some("3".into())).put(t, "a", "4")).await.unwrap();
    // Conditions see the state before their own batch.
    assert_eq!(store.commit(Batch::new().put(t, "c", "1").expect_value(t, "c", "1")).await, conflict(0));
}

async fn refused_leaves_nothing(open: Open) {
    let store = open();
    let t = Table::Meta;
    store.commit(Batch::new().put(t, "a", "1")).await.unwrap();
    let batch = Batch::new().put(t, "b", "1").delete(t, "a").expect_absent(t, "a").put(Table::Work, "c", "1");
    assert!(matches!(store.commit(batch).await, Err(CommitError::Conflict { expect: 0 })));
    assert_eq!(read(&store, t, "a").await.unwrap(), "1");
    assert_eq!(read(&store, t, "b").await, None);
    assert_eq!(read(&store, Table::Work, "c").await, None);
}

async fn order_within_a_batch(open: Open) {
    let store = open();
    let t = Table::Meta;
    store.commit(Batch::new().put(t, "a", "1").put(t, "a", "2")).await.unwrap();
    assert_eq!(read(&store, t, "a").await.unwrap(), "2", "the last put counts");
    store.commit(Batch::new().put(t, "a", "3").delete(t, "a")).await.unwrap();
    assert_eq!(read(&store, t, "a").await.unwrap(), "3", "deletions come before puts");
    let mut batch = Batch::new().put(t, "a", "4").put(t, "b", "4");
    batch.append(Batch::new().put(t, "a", "5"));
    store.commit(batch).await.unwrap();
    assert_eq!(read(&store, t, "a").await.unwrap(), "5");
    assert_eq!(read(&store, t, "b").await.unwrap(), "4");
}

/// Each batch stands on the one queued before it, none of which is awaited: one group holds many of them.
async fn order_of_calls(open: Open) {
    let store = open();
    let t = Table::Meta;
    store.commit(Batch::new().put(t, "n", "0")).await.unwrap();
    let commits = (0..200).map(|n: u32| {
        let (now, next) = (n.to_string(), (n + 1).to_string());
        store.commit(Batch::new().expect_value(t, "n", now.clone()).put(t, "n", next).put(t, format!("at {now}"), now))
    });
    // Collected first: all are queued before any is awaited.
    let commits: Vec<_> = commits.collect();
    for commit in join_all(commits).await {
        commit.unwrap();
    }
    assert_eq!(read(&store, t, "n").await.unwrap(), "200");
    assert_eq!(keys(&store, KeyRange::prefix("at "), usize::MAX, Direction::Up).await.len(), 200);
    // Delete, then put again, then delete, in one group.
    let batches = [
        Batch::new().expect_value(t, "n", "200").delete(t, "n"),
        Batch::new().expect_absent(t, "n").put(t, "n", "again"),
        Batch::new().expect_absent(t, "n").put(t, "n", "never"),
        Batch::new().expect_value(t, "n", "again").delete(t, "n"),
    ];
    let answers = join_all(batches.map(|batch| store.commit(batch))).await;
    assert_eq!(answers, [Ok(()), Ok(()), Err(CommitError::Conflict { expect: 0 }), Ok(())]);
    assert_eq!(read(&store, t, "n").await, None);
}

async fn scans(open: Open) {
    let store = open();
    let names = ["a", "a1", "a2", "b", "b\u{7f}", "c"];
    let rows = names.iter().fold(Batch::new(), |batch, name| batch.put(Table::Meta, *name, *name));
    store.commit(rows).await.unwrap();
    let all = |range| keys(&store, range, usize::MAX, Direction::Up);
    assert_eq!(all(KeyRange::all()).await, names);
    assert_eq!(all(KeyRange::prefix("a")).await, ["a", "a1", "a2"]);
    assert_eq!(all(KeyRange::prefix("b")).await, ["b", "b\u{7f}"]);
    assert_eq!(all(KeyRange::prefix("")).await, names);
    assert_eq!(all(KeyRange::prefix("z")).await.len(), 0);
    assert_eq!(all(KeyRange::prefix("a").after("a1")).await, ["a2"]);
    assert_eq!(all(KeyRange::all().after("a").before("b")).await, ["a1", "a2"]);
    assert_eq!(all(KeyRange::all().after("b").before("a")).await.len(), 0, "an upside-down range is an empty one");
    assert_eq!(keys(&store, KeyRange::all(), 2, Direction::Up).await, ["a", "a1"]);
    assert_eq!(keys(&store, KeyRange::all(), 2, Direction::Down).await, ["c", "b\u{7f}"]);
    assert_eq!(keys(&store, KeyRange::prefix("a"), 2, Direction::Down).await, ["a2", "a1"]);
    assert_eq!(keys(&store, KeyRange::all(), 0, Direction::Up).await.len(), 0);
    // Deleted rows are gone, and replaced ones stand once.
    store.commit(Batch::new().delete(Table::Meta, "a1").put(Table::Meta, "a2", "new")).await.unwrap();
    let rows = store.scan(Table::Meta, KeyRange::prefix("a"), 10, Direction::Up).await.unwrap();
    let rows: Vec<_> = rows.iter().map(|row| (&row.key[..], &row.value[..])).collect();
    assert_eq!(rows, [(&b"a"[..], &b"a"[..]), (b"a2", b"new")]);
}

async fn scans_are_bounded(open: Open) {
    let store = open();
    let value = Bytes::from(vec![7; SCAN_BYTES_MAX / 3]);
    for n in 0..5_u8 {
        store.commit(Batch::new().put(Table::Meta, vec![n], value.clone())).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut range = KeyRange::all();
    loop {
        let rows = store.scan(Table::Meta, range.clone(), usize::MAX, Direction::Up).await.unwrap();
        let Some(last) = rows.last() else { break };
        assert!(rows.len() < 5);
        range = range.after(last.key.clone());
        seen.extend(rows.into_iter().map(|row| row.key[0]));
    }
    assert_eq!(seen, [0, 1, 2, 3, 4]);
}

async fn tables_are_apart(open: Open) {
    let store = open();
    let batch = [Table::Resource, Table::Version, Table::Subject].iter().fold(Batch::new(), |batch, table| {
        batch.put(*table, "k", format!("{table:?}")).put(*table, vec![0xff; 4], "high")
    });
    store.commit(batch).await.unwrap();
    assert_eq!(read(&store, Table::Version, "k").await.unwrap(), "Version");
    for direction in [Direction::Up, Direction::Down] {
        let rows = store.scan(Table::Version, KeyRange::all(), usize::MAX, direction).await.unwrap();
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(|row| row.table == Table::Version));
    }
    store.commit(Batch::new().delete(Table::Version, "k")).await.unwrap();
    assert_eq!(read(&store, Table::Resource, "k").await.unwrap(), "Resource");
}

/// A writer changes two rows together, thousands of times; a reader never sees them differ.
async fn batches_are_seen_whole(open: Open) {
    let store = open();
    let put = |n: u32| {
        (0..8).fold(Batch::new(), |batch, row: u8| batch.put(Table::Lane, vec![row], n.to_be_bytes().to_vec()))
    };
    store.commit(put(0)).await.unwrap();
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for n in 1..400 {
                store.commit(put(n)).await.unwrap();
            }
        }
    });
    let mut reads = 0;
    while !writer.is_finished() {
        let rows = store.scan(Table::Lane, KeyRange::all(), usize::MAX, Direction::Up).await.unwrap();
        assert_eq!(rows.len(), 8);
        assert!(rows.iter().all(|row| row.value == rows[0].value), "half a batch in a scan");
        let asked = (0..8).map(|row: u8| (Table::Lane, Bytes::from(vec![row]))).collect();
        let values = store.read_many(asked).await.unwrap();
        assert!(values.iter().all(|value| *value == values[0]), "half a batch in a read of many");
        reads += 1;
    }
    writer.await.unwrap();
    assert!(reads > 0);
}

async fn one_of_many_wins(open: Open) {
    let store = open();
    let tasks = (0..64).map(|n: u32| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let batch = Batch::new().expect_absent(Table::Meta, "lock").put(Table::Meta, "lock", n.to_string());
            store.commit(batch).await.map(|()| n)
        })
    });
    let answers = join_all(tasks).await;
    let won: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().unwrap().ok()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(read(&store, Table::Meta, "lock").await.unwrap(), won[0].to_string());
}

async fn dropped_future_commits(open: Open) {
    let store = open();
    drop(store.commit(Batch::new().put(Table::Meta, "a", "1")));
    store.commit(Batch::new().expect_value(Table::Meta, "a", "1")).await.unwrap();
}

async fn reopen(open: Open) {
    for n in 0..5_u32 {
        let store = open();
        if n > 0 {
            let rows = store.scan(Table::Version, KeyRange::all(), usize::MAX, Direction::Up).await.unwrap();
            assert_eq!(rows.len(), 500 * n as usize);
            assert_eq!(read(&store, Table::Meta, "n").await.unwrap(), (n - 1).to_string());
            assert_eq!(read(&store, Table::Meta, "gone").await, None);
        }
        let mut batch = Batch::new().put(Table::Meta, "n", n.to_string()).delete(Table::Meta, "gone");
        for row in 0..500_u32 {
            let key = [n.to_be_bytes(), row.to_be_bytes()].concat();
            batch = batch.put(Table::Version, key, vec![b'v'; 700]);
        }
        store.commit(Batch::new().put(Table::Meta, "gone", "soon")).await.unwrap();
        store.commit(batch).await.unwrap();
    }
}

async fn limits(open: Open) {
    let store = open();
    let longest = vec![b'k'; KEY_BYTES_MAX];
    let longer = vec![b'k'; KEY_BYTES_MAX + 1];
    store.commit(Batch::new().put(Table::Meta, longest.clone(), "v")).await.unwrap();
    assert_eq!(store.read(Table::Meta, &longest).await.unwrap().unwrap(), "v");
    assert_eq!(store.read(Table::Meta, &longer).await, Err(StoreError::KeyTooLong));
    for batch in [
        Batch::new().put(Table::Meta, longer.clone(), "v"),
        Batch::new().delete(Table::Meta, longer.clone()),
        Batch::new().expect_absent(Table::Meta, longer.clone()),
        Batch::new().put(Table::Meta, "k", vec![0; 128 << 20]),
    ] {
        assert_eq!(store.commit(batch).await, Err(CommitError::TooLarge));
    }
    assert_eq!(store.health(), Health::Ready);
}

async fn large_values(open: Open) {
    let store = open();
    for size in [4095, 4096, 4097, 1 << 20, 5 << 20] {
        let value = Bytes::from((0..size).map(|n: u32| n.to_le_bytes()[0]).collect::<Vec<_>>());
        store.commit(Batch::new().put(Table::Version, size.to_be_bytes().to_vec(), value.clone())).await.unwrap();
        assert_eq!(store.read(Table::Version, &size.to_be_bytes()).await.unwrap().unwrap(), value);
    }
    drop(store);
    let store = open();
    assert_eq!(store.read(Table::Version, &(5_u32 << 20).to_be_bytes()).await.unwrap().unwrap().len(), 5 << 20);
}
