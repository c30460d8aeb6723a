//! The gateway's own log: what is sequenced is proven, whatever fails in between, and what was signed is never unsigned.

mod check;
mod crash;
mod faces;
mod ledger;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sluice::anchor::{LeafProof, Log, OpenError};
use sluice::config;
use sluice::keys::{Files, Keys};
use sluice::ledger::PublicKey;
use sluice::observe::Observer;
use sluice::record::leaf::leaf_bytes;
use sluice::store::embedded::{Embedded, Options};
use sluice::store::fault::Faults;
use sluice::store::{Batch, Direction, KeyRange, Row, Store, Table};
use sluice_merkle::checkpoint::SignedCheckpoint;
use sluice_merkle::policy::Policy;
use sluice_merkle::proof::TlogProof;
use sluice_merkle::receipt;
use sluice_merkle::tree::leaf_hash;

const MULTIPLE: u64 = 8;

/// A folder with keys, in which stores are opened one after the other.
struct House {
    folder: tempfile::TempDir,
    keys: Arc<Keys>,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files: Files = Keys::create(&folder.path().join("keys")).unwrap();
        Self { folder, keys: Arc::new(Keys::open(&files).unwrap()) }
    }

    fn store(&self, faults: Option<Faults>) -> Arc<dyn Store> {
        open(&self.folder.path().join("store"), faults)
    }

    async fn open(&self, store: &Arc<dyn Store>) -> Result<Log, OpenError> {
        let settings = config::Log {
            origin: "hospital-a/log".to_owned(),
            batch_multiple: NonZeroU32::new(u32::try_from(MULTIPLE).unwrap()).unwrap(),
            beat: Duration::from_millis(100),
        };
        Log::open(Arc::clone(store), Arc::clone(&self.keys), &settings, Observer::new()).await
    }
}

fn open(dir: &Path, faults: Option<Faults>) -> Arc<dyn Store> {
    Arc::new(Embedded::open(&Options { faults, ..Options::new(dir) }).unwrap())
}

/// The commitment of the nth leaf.
fn commitment(n: u64) -> [u8; 32] {
    leaf_hash(&n.to_be_bytes())
}

/// Lets leaves wait, in one commit.
async fn wait(store: &Arc<dyn Store>, leaves: std::ops::Range<u64>) {
    let batch = leaves.fold(Batch::new(), |batch, n| {
        batch.put(Table::LeafPending, n.to_be_bytes().to_vec(), leaf_bytes(&commitment(n)).to_vec())
    });
    store.commit(batch).await.unwrap();
}

async fn rows(store: &Arc<dyn Store>, table: Table) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut range = KeyRange::all();
    loop {
        let more = store.scan(table, range.clone(), 10_000, Direction::Up).await.unwrap();
        let Some(last) = more.last() else { return rows };
        range = range.after(last.key.clone());
        rows.extend(more);
    }
}

fn verifier(public_key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    PublicKey::Ed25519(*public_key).verify(message, signature)
}

fn policy(log: &Log) -> Policy {
    Policy::new(vec![log.verifier_key().clone()], Vec::new(), 0).unwrap()
}

/// Checks a proof by what a verifier has: the log's key, and nothing else.
fn verify(log: &Log, commitment: &[u8; 32], proof: &LeafProof) {
    let signed = SignedCheckpoint::parse(proof.checkpoint.as_bytes()).unwrap();
    assert_eq!(signed.checkpoint().size(), proof.size);
    let proof = TlogProof::new(proof.index, proof.inclusion.clone(), signed).unwrap();
    receipt::verify_proof(&policy(log), &leaf_hash(&leaf_bytes(commitment)), &proof, &verifier).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_leaf_is_proven_under_the_newest_checkpoint_and_under_those_before() {
    let house = House::new();
    let store = house.store(None);
    let log = house.open(&store).await.unwrap();
    assert_eq!(log.sequence().await.unwrap(), 0, "nothing waits, and nothing is signed");
    assert_eq!(log.head().size, 0);
    assert_eq!(log.proof(&commitment(0)).await.unwrap(), None);

    let mut progress = log.progress();
    let mut heads = vec![log.head()];
    for leaves in [0..1, 1..9, 9..250, 250..300, 300..900] {
        let count = leaves.end - leaves.start;
        wait(&store, leaves).await;
        assert_eq!(log.sequence().await.unwrap() as u64, count);
        assert!(progress.has_changed().unwrap());
        assert_eq!(progress.borrow_and_update().size, log.head().size);
        heads.push(log.head());
    }
    assert!(rows(&store, Table::LeafPending).await.is_empty());
    let leaves = rows(&store, Table::Leaf).await;
    assert_eq!(leaves.len() as u64, log.head().size);
    assert_eq!(log.head().size, 8 + 8 + 248 + 56 + 600, "each batch is filled up to a multiple");
    let mut indexes = Vec::new();
    for n in 0..900 {
        let proof = log.proof(&commitment(n)).await.unwrap().unwrap();
        verify(&log, &commitment(n), &proof);
        assert_eq!(leaves[usize::try_from(proof.index).unwrap()].value, leaf_bytes(&commitment(n))[..]);
        for head in &heads {
            let older = log.proof_at(&commitment(n), head.size).await.unwrap();
            assert_eq!(older.is_some(), proof.index < head.size);
            if let Some(older) = older {
                verify(&log, &commitment(n), &older);
            }
        }
        indexes.push(proof.index);
    }
    assert!(log.proof_at(&commitment(0), 17).await.unwrap().is_none(), "no checkpoint of that size was signed");
    assert!(log.proof(&commitment(900)).await.unwrap().is_none());
    assert!(!indexes.is_sorted(), "a batch is shuffled");
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), 900);
    let known: std::collections::BTreeSet<_> = indexes.into_iter().collect();
    let dummies: Vec<_> = (0..log.head().size).filter(|index| !known.contains(index)).collect();
    assert_eq!(dummies.len() as u64, log.head().size - 900);
    assert!(dummies.iter().any(|index| index % MULTIPLE != MULTIPLE - 1), "dummies stand anywhere in a batch");
    assert!(dummies.iter().all(|index| leaves[usize::try_from(*index).unwrap()].value.len() == 33));

    let signed = |text: &str| SignedCheckpoint::parse(text.as_bytes()).unwrap();
    for (at, old) in heads.iter().enumerate() {
        for new in &heads[at..] {
            let proof = log.consistency(old.size, new.size).await.unwrap().unwrap();
            let (old, new) = (signed(&old.checkpoint), signed(&new.checkpoint));
            receipt::verify_growth(&policy(&log), &old, &new, &proof, &verifier).unwrap();
        }
    }
    assert_eq!(log.consistency(0, log.head().size + 1).await.unwrap(), None);

    // And again after a restart.
    let head = log.head();
    drop((log, progress));
    let log = house.open(&store).await.unwrap();
    assert_eq!(log.head(), head);
    wait(&store, 900..901).await;
    assert_eq!(log.sequence().await.unwrap(), 1);
    let proof = log.consistency(head.size, log.head().size).await.unwrap().unwrap();
    let (old, new) = (signed(&head.checkpoint), signed(&log.head().checkpoint));
    receipt::verify_growth(&policy(&log), &old, &new, &proof, &verifier).unwrap();
}
