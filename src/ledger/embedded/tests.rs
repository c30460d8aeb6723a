//! What a disk can do to the log, and what opening says to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;
use crate::ledger::records::{FiledBy, Role, Standing, SubjectRecord, SubjectState};
use crate::ledger::signature::SignFailed;

struct Key(Ed25519KeyPair);

impl Signer for Key {
    fn public_key(&self) -> PublicKey {
        PublicKey::Ed25519(self.0.public_key().as_ref().try_into().expect("32 bytes"))
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignFailed> {
        self.0.sign(message).as_ref().try_into().map_err(|_| SignFailed)
    }
}

fn key(seed: u8) -> Arc<Key> {
    Arc::new(Key(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed")))
}

struct Bench {
    _folder: tempfile::TempDir,
    options: Options,
}

/// A ledger on a beat that never comes, so that seals happen when a test asks.
fn bench() -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options =
        Options::new(folder.path().join("ledger"), Origin::parse("house.example/ledger").expect("an origin"), key(1));
    options.beat = Duration::from_hours(1);
    options.gateway = Some(key(3));
    Embedded::create(&options, key(2).public_key()).expect("created");
    Bench { _folder: folder, options }
}

impl Bench {
    fn open(&self) -> Result<Embedded, LedgerError> {
        Embedded::open(&self.options)
    }

    fn log(&self) -> PathBuf {
        self.options.dir.join("operations.log")
    }

    fn sign(&self, operation: Operation, signer: u8) -> SignedOp {
        operation.sign(&self.options.ledger, &[key(signer).as_ref()]).expect("signed")
    }

    fn house(&self) -> SignedOp {
        let institution = Institution {
            id: Name::parse("house.example").expect("a name"),
            version: 1,
            standing: Standing::Admitted,
            roles: vec![Role::Hospital],
            attests: true,
            master: key(3).public_key(),
        };
        self.sign(Operation::Institution(institution), 2)
    }

    fn subject(&self, n: u8) -> SignedOp {
        let record = SubjectRecord {
            pseudonym: Pseudonym([n; 32]),
            version: 1,
            state: SubjectState::Active,
            consent_root: [n; 32],
            keys: Vec::new(),
            filed_by: FiledBy::Attested(Name::parse("house.example").expect("a name")),
        };
        self.sign(Operation::Subject(record), 3)
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn commit(ledger: &Embedded, ops: &[SignedOp]) {
    for ticket in run(ledger.submit(ops)).expect("submitted") {
        assert!(matches!(ticket.outcome, Outcome::Committed(_)), "{ticket:?}");
    }
}

fn knows(ledger: &Embedded, n: u8) -> bool {
    run(ledger.lookup(&[Pseudonym([n; 32])], Duration::ZERO)).expect("looked up").records[0].is_some()
}

fn sealed(ledger: &Embedded) -> Known {
    let head = run(ledger.head(Finality::Final)).expect("a head");
    Known { size: head.height, root: head.root }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// Where the frame of the last checkpoint begins.
fn last_checkpoint(log: &[u8]) -> usize {
    log.windows(4).rposition(|marker| marker == b"SLc1").expect("a checkpoint")
}

/// What a fault does, in pairs: the effect happened and errored, or did not and errored.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    AppendLost,
    AppendTorn,
    AppendKept,
    SyncLost,
    SyncKept,
}

/// Works `after` times, then fails once; whoever asks again after that has broken the rule.
struct Faulty {
    file: File,
    fault: Fault,
    left: u32,
    /// Where the file ended at the last good sync.
    synced: u64,
    failures: Arc<AtomicU32>,
}

impl Faulty {
    fn due(&mut self, append: bool) -> bool {
        assert_eq!(self.failures.load(Ordering::SeqCst), 0, "the disk was written to after it had failed");
        let mine = append == matches!(self.fault, Fault::AppendLost | Fault::AppendTorn | Fault::AppendKept);
        if mine && self.left > 0 {
            self.left -= 1;
            return false;
        }
        if mine {
            self.failures.fetch_add(1, Ordering::SeqCst);
        }
        mine
    }
}

impl Disk for Faulty {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.due(true) {
            return self.file.append(bytes);
        }
        match self.fault {
            Fault::AppendTorn => self.file.append(&bytes[..bytes.len() / 2])?,
            Fault::AppendKept => self.file.append(bytes)?,
            _ => {}
        }
        Err(io::Error::other("append failed"))
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.due(false) {
            self.synced = self.file.metadata()?.len();
            return self.file.sync();
        }
        if self.fault == Fault::SyncLost {
            self.file.set_len(self.synced)?;
        }
        Err(io::Error::other("sync failed"))
    }
}

#[test]
fn a_fault_at_either_side_effect_is_ambiguous_and_poisons() {
    let faults = [Fault::AppendLost, Fault::AppendTorn, Fault::AppendKept, Fault::SyncLost, Fault::SyncKept];
    for fault in faults {
        let bench = bench();
        commit(&bench.open().expect("opened"), &[bench.house(), bench.subject(1)]);
        let failures = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&failures);
        let ledger = Embedded::open_on(&bench.options, |file| {
            let synced = file.metadata().expect("a length").len();
            Box::new(Faulty { file, fault, left: 1, synced, failures: counter })
        })
        .expect("opened");
        commit(&ledger, &[bench.subject(2)]);
        let doubtful = bench.subject(3);
        let answer = run(ledger.submit(std::slice::from_ref(&doubtful)));
        assert_eq!(answer, Err(LedgerError::Ambiguous { op: doubtful.id() }), "{fault:?}");
        // Poisoned: nothing more is written, and what it cannot know it does not claim. Reading goes on.
        assert!(matches!(run(ledger.submit(&[bench.subject(4)])), Err(LedgerError::Storage(_))));
        assert!(matches!(run(ledger.outcome(&doubtful.id())), Err(LedgerError::Storage(_))));
        assert!(matches!(run(ledger.outcome(&bench.subject(2).id())), Ok(Outcome::Committed(_))));
        assert!(knows(&ledger, 2) && !knows(&ledger, 3));
        drop(ledger);
        assert_eq!(failures.load(Ordering::SeqCst), 1);
        // A restart knows: the operation is there or it is not, and may be sent again either way.
        let ledger = bench.open().expect("opened again");
        let kept = matches!(fault, Fault::AppendKept | Fault::SyncKept);
        let outcome = run(ledger.outcome(&doubtful.id())).expect("an outcome");
        assert_eq!(matches!(outcome, Outcome::Committed(_)), kept, "{fault:?}");
        assert_eq!(knows(&ledger, 3), kept);
        commit(&ledger, &[doubtful, bench.subject(4)]);
        assert!([1, 2, 3, 4].into_iter().all(|n| knows(&ledger, n)));
    }
}

#[test]
fn a_fault_in_a_seal_leaves_what_was_committed() {
    let faults = [Fault::AppendLost, Fault::AppendTorn, Fault::AppendKept, Fault::SyncLost, Fault::SyncKept];
    for fault in faults {
        let bench = bench();
        commit(&bench.open().expect("opened"), &[bench.house()]);
        let ledger = Embedded::open_on(&bench.options, |file| {
            let synced = file.metadata().expect("a length").len();
            Box::new(Faulty { file, fault, left: 1, synced, failures: Arc::default() })
        })
        .expect("opened");
        commit(&ledger, &[bench.subject(1)]);
        assert!(matches!(run(ledger.seal()), Err(LedgerError::Storage(_))), "{fault:?}");
        let head = run(ledger.head(Finality::Seen)).expect("a head");
        assert!(run(ledger.prove(&Pseudonym([1; 32]), &head)).is_err(), "no checkpoint covers it");
        drop(ledger);
        let ledger = bench.open().expect("opened again");
        assert!(knows(&ledger, 1), "{fault:?}");
        let head = run(ledger.head(Finality::Seen)).expect("a head");
        let proof = run(ledger.prove(&Pseudonym([1; 32]), &head)).expect("proven");
        crate::ledger::proof::verify_subject(&proof, &Pseudonym([1; 32]), ledger.trust()).expect("verified");
    }
}

#[test]
fn a_torn_tail_is_cut_behind_the_last_checkpoint_and_nowhere_else() {
    let bench = bench();
    {
        let ledger = bench.open().expect("opened");
        commit(&ledger, &[bench.house(), bench.subject(1)]);
    }
    // Closing sealed: everything up to here is under a checkpoint.
    let covered = fs::metadata(bench.log()).expect("a log").len();
    let whole = fs::read(bench.log()).expect("a log");
    let kept = bench.options.dir.with_extension("kept");
    copy(&bench.options.dir, &kept);
    let mut torn = Vec::new();
    segment::write_frame(segment::Kind::Entry, &[1; 300], &mut torn);
    for length in [1, 15, 16, 100, torn.len() - 1] {
        let mut bytes = whole.clone();
        bytes.extend_from_slice(&torn[..length]);
        fs::write(bench.log(), &bytes).expect("written");
        let ledger = bench.open().expect("a torn tail is no error");
        assert!(knows(&ledger, 1));
        drop(ledger);
        assert_eq!(fs::metadata(bench.log()).expect("a log").len(), covered, "cut {length}");
    }
    // A log that lost bytes which a checkpoint covers is not a torn tail.
    let mark = last_checkpoint(&whole);
    for length in [mark - 1, mark - 60, mark / 2, 20] {
        fs::write(bench.log(), &whole[..length]).expect("written");
        let refused = bench.open().err();
        assert!(matches!(refused, Some(LedgerError::Integrity(_))), "{length}: {refused:?}");
    }
}

#[test]
fn bit_rot_before_a_checkpoint_is_an_integrity_error() {
    let bench = bench();
    {
        let ledger = bench.open().expect("opened");
        commit(&ledger, &[bench.house(), bench.subject(1)]);
        run(ledger.seal()).expect("sealed");
        commit(&ledger, &[bench.subject(2)]);
    }
    let whole = fs::read(bench.log()).expect("a log");
    let kept = bench.options.dir.with_extension("kept");
    copy(&bench.options.dir, &kept);
    let mark = last_checkpoint(&whole);
    for at in 0..whole.len() {
        let mut rotten = whole.clone();
        rotten[at] ^= 1 << (at % 8);
        fs::write(bench.log(), &rotten).expect("written");
        if at < mark {
            let refused = bench.open().err();
            assert!(matches!(refused, Some(LedgerError::Integrity(_))), "byte {at}: {refused:?}");
            assert_eq!(fs::read(bench.log()).expect("a log"), rotten, "nothing was cut or mended");
        } else {
            // The last checkpoint itself: every leaf under it still stands, as the file beside the log tells.
            assert!(knows(&bench.open().expect("nothing is lost"), 2), "byte {at}");
            copy(&kept, &bench.options.dir);
        }
    }
    fs::write(bench.log(), &whole).expect("mended");
    assert!(knows(&bench.open().expect("mended"), 2));
}

#[test]
fn an_older_copy_is_noticed_by_who_knows_better() {
    let bench = bench();
    let old = bench.options.dir.with_extension("old");
    {
        let ledger = bench.open().expect("opened");
        commit(&ledger, &[bench.house(), bench.subject(1)]);
    }
    copy(&bench.options.dir, &old);
    let newer = {
        let ledger = bench.open().expect("opened");
        commit(&ledger, &[bench.subject(2)]);
        run(ledger.seal()).expect("sealed");
        sealed(&ledger)
    };
    let mut options = bench.options.clone();
    options.dir = old;
    // The copy is whole in itself, so it opens for who knows nothing; then it grows another way.
    options.known = Some(newer);
    let refused = Embedded::open(&options).err();
    assert!(matches!(refused, Some(LedgerError::Integrity(Breach::Rollback { .. }))), "{refused:?}");
    options.known = None;
    commit(&Embedded::open(&options).expect("opened"), &[bench.subject(7), bench.subject(8)]);
    options.known = Some(newer);
    let refused = Embedded::open(&options).err();
    assert!(matches!(refused, Some(LedgerError::Integrity(Breach::Fork { .. }))), "{refused:?}");
}

#[test]
fn a_ledger_is_never_made_by_opening_nor_made_twice() {
    let bench = bench();
    assert!(matches!(Embedded::create(&bench.options, key(2).public_key()), Err(LedgerError::Storage(_))));
    let mut elsewhere = bench.options.clone();
    elsewhere.dir = bench.options.dir.with_extension("elsewhere");
    fs::create_dir_all(&elsewhere.dir).expect("a folder");
    assert!(matches!(Embedded::open(&elsewhere), Err(LedgerError::Storage(_))));
    // Another key or another name is another ledger.
    let mut other = bench.options.clone();
    other.key = key(9);
    assert!(matches!(Embedded::open(&other), Err(LedgerError::Integrity(Breach::WrongLedger))));
    let mut other = bench.options.clone();
    other.ledger = Origin::parse("other.example/ledger").expect("an origin");
    assert!(matches!(Embedded::open(&other), Err(LedgerError::Integrity(Breach::WrongLedger))));
    // And one process at a time.
    let _first = bench.open().expect("opened");
    assert!(matches!(bench.open(), Err(LedgerError::Storage(_))));
}

#[test]
fn what_no_checkpoint_covers_is_judged_again_at_the_next_start() {
    let bench = bench();
    {
        let ledger = bench.open().expect("opened");
        commit(&ledger, &[bench.house()]);
    }
    // A frame that is whole, and holds an operation that nobody may sign.
    let forged = bench.sign(bench.subject(1).operation, 8);
    let mut frame = Vec::new();
    let entry = crate::ledger::entry::op_bytes(Timestamp(1), &forged.to_bytes());
    segment::write_frame(segment::Kind::Entry, &entry, &mut frame);
    let mut bytes = fs::read(bench.log()).expect("a log");
    bytes.extend_from_slice(&frame);
    fs::write(bench.log(), bytes).expect("written");
    assert!(matches!(bench.open(), Err(LedgerError::Integrity(Breach::BadProof(_)))));
}

#[test]
fn time_never_goes_back() {
    let mut bench = bench();
    let now = Arc::new(AtomicU32::new(5_000));
    let clock = Arc::clone(&now);
    bench.options.clock = Arc::new(move || Timestamp(u64::from(clock.load(Ordering::SeqCst)) + Timestamp::now().0));
    let at = |ticket: Vec<Ticket>| match ticket[0].outcome {
        Outcome::Committed(position) => position.time,
        _ => panic!("committed"),
    };
    let first = {
        let ledger = bench.open().expect("opened");
        at(run(ledger.submit(&[bench.house()])).expect("submitted"))
    };
    now.store(0, Ordering::SeqCst);
    let ledger = bench.open().expect("opened");
    assert!(at(run(ledger.submit(&[bench.subject(1)])).expect("submitted")) >= first);
}
