//! Concurrent writers against a model: whatever they do, the outcome is that of some order of their batches, in which
//! each batch that was acknowledged met its conditions and each that was refused did not.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use proptest::prelude::*;
use sluice::store::{Batch, CommitError, Direction, KeyRange, Store, Table};

type Model = BTreeMap<u8, u8>;

/// One write, on one of a few keys so that they meet.
#[derive(Clone, Debug)]
struct Step {
    expect: Vec<(u8, Option<u8>)>,
    put: Vec<(u8, u8)>,
    delete: Vec<u8>,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..6_u8;
    let value = 0..3_u8;
    (
        proptest::collection::vec((key.clone(), proptest::option::of(value.clone())), 0..3),
        proptest::collection::vec((key.clone(), value), 0..4),
        proptest::collection::vec(key, 0..3),
    )
        .prop_map(|(expect, put, delete)| Step { expect, put, delete })
}

impl Step {
    fn batch(&self) -> Batch {
        let mut batch = Batch::new();
        for (key, value) in &self.expect {
            batch = batch.expect_read(Table::Meta, vec![*key], value.map(|value| Bytes::from(vec![value])));
        }
        for key in &self.delete {
            batch = batch.delete(Table::Meta, vec![*key]);
        }
        for (key, value) in &self.put {
            batch = batch.put(Table::Meta, vec![*key], vec![*value]);
        }
        batch
    }

    /// What the step does to the model: its answer.
    fn run(&self, model: &mut Model) -> Result<(), CommitError> {
        if let Some(expect) = self.expect.iter().position(|(key, value)| model.get(key) != value.as_ref()) {
            return Err(CommitError::Conflict { expect });
        }
        for key in &self.delete {
            model.remove(key);
        }
        model.extend(self.put.iter().copied());
        Ok(())
    }
}

async fn contents(store: &Arc<dyn Store>) -> Model {
    let rows = store.scan(Table::Meta, KeyRange::all(), usize::MAX, Direction::Up).await.unwrap();
    rows.iter().map(|row| (row.key[0], row.value[0])).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Queued together, answered as if one after the other in the order of the calls, also across a reopen.
    #[test]
    fn agrees_with_the_model(rounds in proptest::collection::vec(proptest::collection::vec(step(), 1..12), 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        super::runtime().block_on(async {
            let mut model = Model::new();
            for round in &rounds {
                let store = super::embedded(dir.path());
                let commits: Vec<_> = round.iter().map(|step| store.commit(step.batch())).collect();
                let answers = join_all(commits).await;
                let expected: Vec<_> = round.iter().map(|step| step.run(&mut model)).collect();
                assert_eq!(answers, expected);
                assert_eq!(contents(&store).await, model);
            }
        });
    }
}

/// Many tasks each move one between two of ten counters by compare-and-set; the sum stays what it was, and each
/// acknowledged move is in it.
#[test]
fn concurrent_transfers_keep_the_sum() {
    const COUNTERS: u8 = 10;
    const START: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    super::runtime().block_on(async {
        let store = super::embedded(dir.path());
        let number = |bytes: &Bytes| u64::from_be_bytes(bytes[..].try_into().unwrap());
        let rows =
            (0..COUNTERS).fold(Batch::new(), |batch, n| batch.put(Table::Meta, vec![n], START.to_be_bytes().to_vec()));
        store.commit(rows).await.unwrap();
        let tasks = (0..16_u8).map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut moved = 0_u64;
                for n in 0..60_u8 {
                    let (from, to) = ((task + n) % COUNTERS, (task + n * 3 + 1) % COUNTERS);
                    if from == to {
                        continue;
                    }
                    let asked = [from, to].map(|key| (Table::Meta, Bytes::from(vec![key])));
                    let values = store.read_many(asked.to_vec()).await.unwrap();
                    let [Some(a), Some(b)] = &values[..] else { panic!("a counter is gone") };
                    let batch = Batch::new()
                        .expect_value(Table::Meta, vec![from], a.clone())
                        .expect_value(Table::Meta, vec![to], b.clone())
                        .put(Table::Meta, vec![from], (number(a) - 1).to_be_bytes().to_vec())
                        .put(Table::Meta, vec![to], (number(b) + 1).to_be_bytes().to_vec());
                    match store.commit(batch).await {
                        Ok(()) => moved += 1,
                        Err(CommitError::Conflict { .. }) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                moved
            })
        });
        let moved: u64 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
        assert!(moved > 0);
        let rows = store.scan(Table::Meta, KeyRange::all(), usize::MAX, Direction::Up).await.unwrap();
        assert_eq!(rows.iter().map(|row| number(&row.value)).sum::<u64>(), START * u64::from(COUNTERS));
    });
}
