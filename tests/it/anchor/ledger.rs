//! Anchors: one for each beat, whatever the ledger says and whenever the gateway stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sluice::anchor::{Anchored, Log, known};
use sluice::keys::SigningKey;
use sluice::ledger::embedded::Options;
use sluice::ledger::keyring::Keyring;
use sluice::ledger::proof::verify_anchor;
use sluice::ledger::{
    Anchor, Caps, Change, Cursor, Embedded, Finality, Head, Institution, Ledger, LedgerError, Name, OpId, Operation,
    Origin, Outcome, Proof, Pseudonym, Receipt, Role, SignedOp, Signer, Snapshot, Standing, Ticket,
};
use sluice::store::fault::{Fault, Faults};
use sluice::store::{Store, Table};

use super::{House, commitment, rows, verify, wait};

impl House {
    /// A ledger of its own, in which the institution of the log is admitted.
    async fn ledger(&self) -> Arc<Embedded> {
        let key: Arc<dyn Signer> = Arc::new(Keyring::new(Arc::clone(&self.keys), SigningKey::Institution));
        let name = Origin::parse("hospital-a/ledger").unwrap();
        let options = Options {
            gateway: Some(Arc::clone(&key)),
            ..Options::new(self.folder.path().join("ledger"), name.clone(), Arc::clone(&key))
        };
        Embedded::create(&options, key.public_key()).unwrap();
        let ledger = Embedded::open(&options).unwrap();
        let tenant = Institution {
            id: Name::parse("hospital-a").unwrap(),
            version: 1,
            standing: Standing::Admitted,
            roles: vec![Role::Hospital],
            attests: true,
            master: key.public_key(),
        };
        let op = Operation::Institution(tenant).sign(&name, &[key.as_ref()]).unwrap();
        ledger.submit(&[op]).await.unwrap().pop().unwrap().committed().unwrap();
        Arc::new(ledger)
    }
}

/// How a ledger fails to answer to an anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// Nothing was submitted.
    Before,
    /// It was committed, and nobody was told.
    After,
}

/// A ledger whose first anchors are not answered; it tells how often it was asked what.
struct Ambiguous {
    ledger: Arc<Embedded>,
    silence: Silence,
    unanswered: AtomicUsize,
    anchors: AtomicUsize,
    outcomes: AtomicUsize,
}

impl Ambiguous {
    fn new(ledger: &Arc<Embedded>, silence: Silence, unanswered: usize) -> Self {
        let (anchors, outcomes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { ledger: Arc::clone(ledger), silence, unanswered: AtomicUsize::new(unanswered), anchors, outcomes }
    }
}

impl Ledger for Ambiguous {
    fn caps(&self) -> &Caps {
        self.ledger.caps()
    }

    fn head(&self, at_least: Finality) -> BoxFuture<'_, Result<Head, LedgerError>> {
        self.ledger.head(at_least)
    }

    fn lookup<'a>(
        &'a self,
        subjects: &'a [Pseudonym],
        age_max: Duration,
    ) -> BoxFuture<'a, Result<Snapshot, LedgerError>> {
        self.ledger.lookup(subjects, age_max)
    }

    fn prove<'a>(&'a self, subject: &'a Pseudonym, at: &'a Head) -> BoxFuture<'a, Result<Proof, LedgerError>> {
        self.ledger.prove(subject, at)
    }

    fn submit<'a>(&'a self, ops: &'a [SignedOp]) -> BoxFuture<'a, Result<Vec<Ticket>, LedgerError>> {
        self.ledger.submit(ops)
    }

    fn outcome<'a>(&'a self, op: &'a OpId) -> BoxFuture<'a, Result<Outcome, LedgerError>> {
        self.outcomes.fetch_add(1, Ordering::Relaxed);
        self.ledger.outcome(op)
    }

    fn watch(&self, from: Cursor) -> BoxStream<'static, Result<Change, LedgerError>> {
        self.ledger.watch(from)
    }

    fn anchor<'a>(&'a self, anchor: &'a Anchor) -> BoxFuture<'a, Result<Receipt, LedgerError>> {
        async move {
            self.anchors.fetch_add(1, Ordering::Relaxed);
            let left = self.unanswered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
            if left.is_err() {
                return self.ledger.anchor(anchor).await;
            }
            if self.silence == Silence::After {
                self.ledger.anchor(anchor).await?;
            }
            Err(LedgerError::Ambiguous { op: Operation::Anchor(anchor.clone()).id() })
        }
        .boxed()
    }
}

/// What a verifier does with a receipt: offline, by the ledger's key.
fn check(ledger: &Embedded, anchored: &Anchored) {
    let anchor = anchored.receipt.anchor(&anchored.checkpoint).unwrap();
    let shown = verify_anchor(&anchored.receipt.text, &anchor, ledger.trust()).unwrap();
    assert_eq!(shown.position.height, anchored.receipt.position);
    assert_eq!(shown.position.time.0, anchored.receipt.time_ms);
    assert_eq!(anchored.receipt.assurance, "self");
    let other = anchored.checkpoint.replacen("hospital-a/log", "hospital-a/lag", 1);
    let other = anchored.receipt.anchor(&other).unwrap();
    assert!(verify_anchor(&anchored.receipt.text, &other, ledger.trust()).is_err());
}

async fn leaf(store: &Arc<dyn Store>, log: &Log, n: u64) {
    wait(store, n..n + 1).await;
    log.sequence().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_checkpoint_is_anchored_on_each_beat_also_when_idle() {
    let house = House::new();
    let ledger = house.ledger().await;
    let store = house.store(None);
    let log = house.open(&store).await.unwrap();
    assert!(log.anchored().is_none());
    assert_eq!(known(&*store).await.unwrap(), None);
    let first = log.anchor(&*ledger).await.unwrap();
    assert_eq!((first.size, first.receipt.beat), (0, 1));
    check(&ledger, &first);
    leaf(&store, &log, 0).await;
    let second = log.anchor(&*ledger).await.unwrap();
    let idle = log.anchor(&*ledger).await.unwrap();
    assert_eq!((second.size, second.receipt.beat), (8, 2));
    assert_eq!((idle.size, idle.receipt.beat), (8, 3));
    check(&ledger, &second);
    check(&ledger, &idle);
    assert_eq!(log.anchored().unwrap(), idle);
    assert_eq!(log.progress().borrow().anchored, 8);
    let kept: Vec<_> = rows(&store, Table::Receipt).await.iter().map(|row| row.key[7]).collect();
    assert_eq!(kept, [1, 3], "of the receipts of one size the newest");
    verify(&log, &commitment(0), &log.proof_at(&commitment(0), idle.size).await.unwrap().unwrap());
    let head = ledger.head(Finality::Final).await.unwrap();
    assert_eq!(known(&*store).await.unwrap(), Some((head.height, head.root)));
    drop(log);
    let log = house.open(&store).await.unwrap();
    assert_eq!(log.anchored().unwrap(), idle, "after a restart too");
    assert_eq!(log.anchor(&*ledger).await.unwrap().receipt.beat, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_anchor_that_was_not_answered_is_asked_about_and_never_doubled() {
    for silence in [Silence::Before, Silence::After] {
        let house = House::new();
        let ledger = house.ledger().await;
        let before = ledger.head(Finality::Seen).await.unwrap().height;
        let silent = Ambiguous::new(&ledger, silence, 2);
        let store = house.store(None);
        let log = house.open(&store).await.unwrap();
        leaf(&store, &log, 0).await;
        assert_eq!(log.anchor(&silent).await.unwrap_err().kind().face().status, 503);
        assert!(log.anchored().is_none());
        // The log goes on, and the beat stays with the checkpoint that it was begun for.
        leaf(&store, &log, 1).await;
        assert!(log.anchor(&silent).await.is_err());
        drop(log);
        let log = house.open(&store).await.unwrap();
        let anchored = log.anchor(&silent).await.unwrap();
        assert_eq!((anchored.size, anchored.receipt.beat), (8, 1), "{silence:?}");
        check(&ledger, &anchored);
        assert_eq!(silent.outcomes.load(Ordering::Relaxed), 2, "asked before each repetition, not before the first");
        assert_eq!(silent.anchors.load(Ordering::Relaxed), 3);
        let next = log.anchor(&silent).await.unwrap();
        assert_eq!((next.size, next.receipt.beat), (16, 2));
        assert!(next.receipt.position > anchored.receipt.position);
        assert!(anchored.receipt.position >= before);
    }
}

/// The commit that keeps the receipt fails: the ledger is asked, and gives the same receipt's place again.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_was_not_kept_is_had_again() {
    for fault in [Fault::Undone, Fault::Done] {
        let house = House::new();
        let ledger = house.ledger().await;
        // Groups: the head of the empty log, a beat, its receipt.
        let store = house.store(Some(Faults::new(move |group| (group == 3).then_some(fault))));
        let log = house.open(&store).await.unwrap();
        assert_eq!(log.anchor(&*ledger).await.unwrap_err().kind().face().status, 503);
        assert!(log.anchored().is_none(), "what may not be durable is not shown");
        drop((log, store));
        let store = house.store(None);
        let log = house.open(&store).await.unwrap();
        assert_eq!(log.anchored().is_some(), fault == Fault::Done);
        let asked = Ambiguous::new(&ledger, Silence::Before, 0);
        let anchored = log.anchor(&asked).await.unwrap();
        let (beat, outcomes) = if fault == Fault::Done { (2, 0) } else { (1, 1) };
        assert_eq!(anchored.receipt.beat, beat, "{fault:?}");
        assert_eq!(asked.outcomes.load(Ordering::Relaxed), outcomes);
        check(&ledger, &anchored);
    }
}

/// A log that begins again under a name that the ledger knows: it is told so, on every beat.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_back_is_refused_by_the_ledger() {
    let house = House::new();
    let ledger = house.ledger().await;
    let store = house.store(None);
    let log = house.open(&store).await.unwrap();
    leaf(&store, &log, 0).await;
    for _ in 0..3 {
        log.anchor(&*ledger).await.unwrap();
    }
    let again = super::open(&house.folder.path().join("another"), None);
    let forked = house.open(&again).await.unwrap();
    for n in 0..3 {
        assert_eq!(forked.anchor(&*ledger).await.unwrap_err().kind().face().status, 409);
        leaf(&again, &forked, n).await;
    }
    assert!(forked.anchored().is_none());
    assert_eq!(log.anchor(&*ledger).await.unwrap().receipt.beat, 4, "the true one goes on");
}
