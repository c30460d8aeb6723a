//! The embedded ledger: group commit against the disk's own speed, memory per subject, time of a look-up.
//!
//! `cargo bench --profile release --bench ledger [-- --check] [SUBJECTS]`.
//!
//! Every operation is signed, and checking 256 signatures takes longer than a good disk takes over an fdatasync. So there
//! are two raw loops: one that writes and syncs, and one that checks the same signatures first, on as many threads. What
//! the second takes a submission that is alone must take as well. Where four are under way at any time, the signatures of
//! one are checked while another is synced: their rate is told against both loops. `--check` fails where a submission alone
//! has less than half the rate of the second loop, or where a subject takes more than 100 bytes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures for people")]

use std::fs::{self, File};
use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use futures_util::{StreamExt as _, stream};
use sluice::ledger::subjects::Subjects;
use sluice::ledger::{
    Embedded, FiledBy, Institution, Ledger, Name, Operation, Options, Origin, Outcome, Pseudonym, PublicKey, Role,
    SignFailed, SignedOp, Signer, Standing, SubjectRecord, SubjectState,
};

const BATCH: usize = 256;
const BATCHES: usize = 208;
const UNDER_WAY: usize = 4;
const BAR: f64 = 0.5;
const BYTES_BAR: f64 = 100.0;

struct Key(Ed25519KeyPair);

impl Signer for Key {
    fn public_key(&self) -> PublicKey {
        PublicKey::Ed25519(self.0.public_key().as_ref().try_into().unwrap())
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], SignFailed> {
        self.0.sign(message).as_ref().try_into().map_err(|_| SignFailed)
    }
}

fn key(seed: u8) -> Arc<Key> {
    Arc::new(Key(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()))
}

fn house() -> Name {
    Name::parse("hospital.example").unwrap()
}

/// Uniform, as an HMAC is.
fn pseudonym(n: u64) -> Pseudonym {
    Pseudonym(sluice_merkle::tree::leaf_hash(&n.to_be_bytes()))
}

fn record(n: u64) -> SubjectRecord {
    SubjectRecord {
        pseudonym: pseudonym(n),
        version: 1,
        state: SubjectState::Active,
        consent_root: pseudonym(n ^ u64::MAX).0,
        keys: Vec::new(),
        filed_by: FiledBy::Attested(house()),
    }
}

fn main() {
    let subjects = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let bytes = memory(subjects);
    let folder = tempfile::tempdir_in(".").unwrap();
    let rate = commit(folder.path());
    if std::env::args().any(|argument| argument == "--check") {
        assert!(rate >= BAR, "a submission alone has {rate:.2} of the rate of the loop that checks; the bar is {BAR}");
        assert!(bytes <= BYTES_BAR, "a subject takes {bytes:.1} bytes; the bar is {BYTES_BAR}");
    }
}

/// Batches of signed operations, one submission after another and then some at a time, beside the same bytes written and
/// synced by hand. Gives the rate of the first against the loop that checks signatures as well.
fn commit(folder: &Path) -> f64 {
    let mut options = Options::new(folder.join("ledger"), Origin::parse("consortium.example/ledger").unwrap(), key(1));
    options.beat = Duration::from_secs(1);
    Embedded::create(&options, key(2).public_key()).unwrap();
    let ledger = Embedded::open(&options).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let master = key(3);
    let institution = Institution {
        id: house(),
        version: 1,
        standing: Standing::Admitted,
        roles: vec![Role::Hospital],
        attests: true,
        master: master.public_key(),
    };
    let admission = Operation::Institution(institution).sign(&options.ledger, &[key(2).as_ref()]).unwrap();
    runtime.block_on(ledger.submit(&[admission])).unwrap();
    let op = |n| Operation::Subject(record(n as u64)).sign(&options.ledger, &[master.as_ref()]).unwrap();
    let ops: Vec<SignedOp> = (0..BATCHES * BATCH).map(op).collect();
    let batches: Vec<&[SignedOp]> = ops.chunks(BATCH).collect();
    let bytes = ops.iter().map(|op| op.to_bytes().len() + 26).sum::<usize>() / BATCHES;

    // In slices, turn about, so that both see the same disk.
    let mut raw = File::create(folder.join("raw")).unwrap();
    let chunk = vec![7_u8; bytes];
    let (mut floor, mut checked, mut one, mut many) = (vec![], vec![], vec![], vec![]);
    let (mut ratios, mut ratios_together, mut cpu) = (vec![], vec![], 0.0);
    for slice in batches.chunks(16) {
        let (serial, together) = slice.split_at(4);
        let before = floor.len();
        for _ in 0..8 {
            let start = Instant::now();
            raw.write_all(&chunk).unwrap();
            raw.sync_data().unwrap();
            floor.push(start.elapsed());
        }
        for batch in serial {
            let start = Instant::now();
            let tickets = runtime.block_on(ledger.submit(batch)).unwrap();
            let ours = start.elapsed();
            assert!(tickets.iter().all(|ticket| matches!(ticket.outcome, Outcome::Committed(_))));
            let start = Instant::now();
            runtime.block_on(verify(batch, &options.ledger));
            raw.write_all(&chunk).unwrap();
            raw.sync_data().unwrap();
            let theirs = start.elapsed();
            one.push(ours);
            checked.push(theirs);
            ratios.push(ratio(theirs, ours));
        }
        let (start, spent) = (Instant::now(), cpu_seconds());
        runtime.block_on(stream::iter(together).map(|batch| ledger.submit(batch)).buffered(UNDER_WAY).for_each(
            |tickets| {
                assert!(tickets.is_ok());
                std::future::ready(())
            },
        ));
        let each = start.elapsed() / together.len() as u32;
        cpu += cpu_seconds() - spent;
        ratios_together.push(ratio(median(floor[before..].to_vec()), each));
        many.push(each);
    }
    let (rate, rate_together) = (middle(ratios), middle(ratios_together));
    let cpu = Duration::from_secs_f64(cpu / (many.len() * 12) as f64);
    let (floor, checked, one, many) = (median(floor), median(checked), median(one), median(many));
    println!("group commit, {BATCH} operations of {} bytes, medians per batch:", bytes / BATCH);
    println!("  raw write and fdatasync         {floor:>10.1?}");
    println!("  the same, signatures checked    {checked:>10.1?}");
    println!(
        "  submit                          {one:>10.1?}  {rate:.2} of the raw loop that checks, {:.2} of the other",
        ratio(floor, one)
    );
    println!(
        "  the same, four at a time        {many:>10.1?}  {:.2} and {rate_together:.2}; CPU of all threads {cpu:.1?}",
        ratio(checked, many)
    );
    drop(ledger);
    let start = Instant::now();
    let ledger = Embedded::open(&options).unwrap();
    let each = ledger.index_bytes() as f64 / ops.len() as f64;
    println!("replay of {} operations {:.1?}; the index holds {each:.1} bytes each", ops.len(), start.elapsed());
    rate
}

/// Checks signatures on as many threads as the ledger does.
async fn verify(ops: &[SignedOp], ledger: &Origin) {
    let cores = std::thread::available_parallelism().unwrap().get();
    let parts: Vec<_> = ops.chunks(ops.len().div_ceil(cores)).map(<[SignedOp]>::to_vec).collect();
    let check = |part: Vec<SignedOp>| {
        let ledger = ledger.clone();
        tokio::task::spawn_blocking(move || part.iter().for_each(|op| black_box(op.verify(&ledger)).unwrap()))
    };
    for part in parts.into_iter().map(check).collect::<Vec<_>>() {
        part.await.unwrap();
    }
}

/// Subject records in the prefix map, counted by what the process gained; gives the bytes of each.
fn memory(count: u64) -> f64 {
    let before = resident_bytes();
    let mut subjects = Subjects::new();
    let start = Instant::now();
    for from in (0..count).step_by(10_000) {
        subjects.update((from..count.min(from + 10_000)).map(record));
    }
    let put = start.elapsed() / count as u32;
    let held = resident_bytes().saturating_sub(before) as f64 / count as f64;
    println!("{count} subjects: {held:.1} bytes each all in, put in {put:.1?} each");
    let wanted: Vec<_> = (0..count).step_by(7).map(|n| pseudonym(n.wrapping_mul(7919) % count)).collect();
    let start = Instant::now();
    for subject in &wanted {
        black_box(subjects.version(subject)).unwrap();
    }
    println!("look-up of version and state  {:.1?}", start.elapsed() / wanted.len() as u32);
    let start = Instant::now();
    for subject in &wanted {
        black_box(subjects.get(subject)).unwrap();
    }
    println!("look-up of the whole record   {:.1?}", start.elapsed() / wanted.len() as u32);
    let start = Instant::now();
    for subject in wanted.iter().take(1000) {
        black_box(subjects.prove(subject));
    }
    println!("proof under the map           {:.1?}", start.elapsed() / 1000);
    held
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn middle(mut ratios: Vec<f64>) -> f64 {
    ratios.sort_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

/// Linux: CPU seconds of all threads that there are.
fn cpu_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let spent = |task: fs::DirEntry| {
        let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(|task| spent(task.ok()?)).sum::<u64>() as f64 / 1e9
}

fn ratio(floor: Duration, it: Duration) -> f64 {
    floor.as_secs_f64() / it.as_secs_f64()
}

/// Linux: the second field of statm, in pages of 4 KiB.
fn resident_bytes() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
