//! Which engine keeps the rows: group commit at batch 256 against a raw fdatasync append loop of the same bytes.
//!
//! `cargo bench --profile release --bench store_engines [-- --check] [DIR]`. Everything runs on one file system in one
//! process, in rounds that alternate, so that what else the machine does hits all alike. `--check` fails where the
//! embedded store falls below half of the raw loop's rate. The figures are in benches/README.md.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a bench prints, and fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{DirEntry, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{KeyspaceCreateOptions, PersistMode};
use sluice::store::embedded::{Embedded, Options};
use sluice::store::fault::Faults;
use sluice::store::{Batch, Store, Table};
use tokio::runtime::Runtime;

const ROWS: usize = 256;
const ROUNDS: usize = 8;
const GROUPS: usize = 40;
const BAR: f64 = 0.5;
const MEASURED: &str = "embedded store, 4 callers";

/// One way to make 256 rows durable.
trait Candidate {
    fn name(&self) -> &'static str;
    /// Writes [`GROUPS`] groups, each durable before the next; how long each took.
    fn round(&mut self, rows: &mut Rows) -> Vec<Duration>;
}

/// Rows that no candidate has seen: keys as keyed hashes are, values as ciphertext is.
struct Rows {
    state: u64,
    value_bytes: usize,
}

impl Rows {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn bytes(&mut self, length: usize) -> Bytes {
        (0..length / 8).flat_map(|_| self.next().to_le_bytes()).collect()
    }

    /// 32 bytes of key; the value makes up the rest.
    fn group(&mut self) -> Vec<(Bytes, Bytes)> {
        (0..ROWS).map(|_| (self.bytes(32), self.bytes(self.value_bytes - 32))).collect()
    }
}

fn timed(rows: &mut Rows, mut write: impl FnMut(Vec<(Bytes, Bytes)>)) -> Vec<Duration> {
    let one = |_| {
        let group = rows.group();
        let begun = Instant::now();
        write(group);
        begun.elapsed()
    };
    (0..GROUPS).map(one).collect()
}

/// The bar's measure: the bytes alone, one write and one fdatasync.
struct Raw(File);

impl Candidate for Raw {
    fn name(&self) -> &'static str {
        "raw append loop"
    }

    fn round(&mut self, rows: &mut Rows) -> Vec<Duration> {
        timed(rows, |group| {
            let mut bytes = Vec::with_capacity(group.len() * 2048);
            for (key, value) in &group {
                bytes.extend_from_slice(key);
                bytes.extend_from_slice(value);
            }
            self.0.write_all(&bytes).unwrap();
            self.0.sync_data().unwrap();
        })
    }
}

/// What a store of our own would be at the least: framed records with a CRC, and an index of all keys in memory.
struct Segment {
    file: File,
    index: BTreeMap<Bytes, (u64, u32)>,
    end: u64,
}

impl Candidate for Segment {
    fn name(&self) -> &'static str {
        "segment file, keys in memory"
    }

    fn round(&mut self, rows: &mut Rows) -> Vec<Duration> {
        timed(rows, |group| {
            let mut bytes = Vec::with_capacity(group.len() * 2048);
            for (key, value) in group {
                let length = u32::try_from(key.len() + value.len()).unwrap();
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(&key);
                bytes.extend_from_slice(&value);
                self.index.insert(key, (self.end + bytes.len() as u64, length));
            }
            let mut crc = flate2::Crc::new();
            crc.update(&bytes);
            bytes.extend_from_slice(&crc.sum().to_be_bytes());
            self.end += bytes.len() as u64;
            self.file.write_all(&bytes).unwrap();
            self.file.sync_data().unwrap();
        })
    }
}

struct Redb(redb::Database);

const REDB_ROWS: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("rows");

impl Candidate for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn round(&mut self, rows: &mut Rows) -> Vec<Duration> {
        timed(rows, |group| {
            let transaction = self.0.begin_write().unwrap();
            {
                let mut table = transaction.open_table(REDB_ROWS).unwrap();
                for (key, value) in &group {
                    table.insert(&key[..], &value[..]).unwrap();
                }
            }
            transaction.commit().unwrap();
        })
    }
}

struct Fjall {
    database: fjall::Database,
    keyspace: fjall::Keyspace,
}

impl Candidate for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn round(&mut self, rows: &mut Rows) -> Vec<Duration> {
        timed(rows, |group| {
            let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
            for (key, value) in &group {
                batch.insert(&self.keyspace, &key[..], &value[..]);
            }
            batch.commit().unwrap();
        })
    }
}

/// The embedded store as the stages use it: one batch of 256 rows, each with its condition.
struct OneCaller {
    store: Embedded,
    runtime: Arc<Runtime>,
}

impl Candidate for OneCaller {
    fn name(&self) -> &'static str {
        "embedded store, one caller"
    }

    fn round(&mut self, rows: &mut Rows) -> Vec<Duration> {
        timed(rows, |group| {
            self.runtime.block_on(self.store.commit(absent(&group))).unwrap();
        })
    }
}

/// The same from several callers, each of whom waits for its own batch: how full the groups get shows by itself.
struct Many {
    store: Arc<Embedded>,
    runtime: Arc<Runtime>,
    callers: usize,
    rows_each: usize,
    name: &'static str,
}

impl Candidate for Many {
    fn name(&self) -> &'static str {
        self.name
    }

    fn round(&mut self, rows: &mut Rows) -> Vec<Duration> {
        let mut theirs: Vec<Vec<Batch>> = (0..self.callers).map(|_| Vec::new()).collect();
        let mut turn = 0;
        for _ in 0..GROUPS {
            for rows in rows.group().chunks(self.rows_each) {
                theirs[turn % self.callers].push(absent(rows));
                turn += 1;
            }
        }
        let begun = Instant::now();
        self.runtime.block_on(async {
            let call = |batches: Vec<Batch>| {
                let store = Arc::clone(&self.store);
                tokio::spawn(async move {
                    for batch in batches {
                        store.commit(batch).await.unwrap();
                    }
                })
            };
            let callers: Vec<_> = theirs.into_iter().map(call).collect();
            for caller in callers {
                caller.await.unwrap();
            }
        });
        // Only the whole is known.
        vec![begun.elapsed() / u32::try_from(GROUPS).unwrap(); GROUPS]
    }
}

/// A batch of new rows.
fn absent(rows: &[(Bytes, Bytes)]) -> Batch {
    rows.iter().cloned().fold(Batch::new(), |batch, (key, value)| {
        batch.expect_absent(Table::Version, key.clone()).put(Table::Version, key, value)
    })
}

fn candidates(dir: &Path, runtime: &Arc<Runtime>, groups: &Arc<AtomicU64>) -> Vec<Box<dyn Candidate>> {
    let append = |name: &str| File::options().append(true).create_new(true).open(dir.join(name)).unwrap();
    let database = fjall::Database::builder(dir.join("fjall")).manual_journal_persist(true).open().unwrap();
    let keyspace = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
    let counted = Arc::clone(groups);
    // No fault: a count of the groups.
    let count = Faults::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        None
    });
    let one = Embedded::open(&Options::new(dir.join("one"))).unwrap();
    let many = Embedded::open(&Options { faults: Some(count), ..Options::new(dir.join("many")) }).unwrap();
    let few = Embedded::open(&Options::new(dir.join("few"))).unwrap();
    let callers = |store: Embedded, callers, rows_each, name| Many {
        store: Arc::new(store),
        runtime: Arc::clone(runtime),
        callers,
        rows_each,
        name,
    };
    vec![
        Box::new(Raw(append("raw"))),
        Box::new(Segment { file: append("segment"), index: BTreeMap::new(), end: 0 }),
        Box::new(Fjall { database, keyspace }),
        Box::new(Redb(redb::Database::create(dir.join("redb")).unwrap())),
        Box::new(OneCaller { store: one, runtime: Arc::clone(runtime) }),
        Box::new(callers(few, 4, ROWS, MEASURED)),
        Box::new(callers(many, ROWS, 1, "embedded store, 256 callers")),
    ]
}

/// CPU time of all threads that live, in nanoseconds.
fn cpu_ns() -> u64 {
    let spent = |task: DirEntry| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok).filter_map(spent).sum()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
}

/// One table of figures; whether the embedded store reached the bar.
#[expect(clippy::cast_precision_loss, reason = "counts of a bench")]
fn run(at: &str, value_bytes: usize) -> bool {
    let dir = tempfile::tempdir_in(at).unwrap();
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap());
    let groups = Arc::new(AtomicU64::new(0));
    let mut candidates = candidates(dir.path(), &runtime, &groups);
    let mut rows = Rows { state: value_bytes as u64, value_bytes };
    let mut seconds = vec![Vec::new(); candidates.len()];
    let mut latency = vec![Vec::new(); candidates.len()];
    let mut cpu = vec![0; candidates.len()];
    for round in 0..=ROUNDS {
        for turn in 0..candidates.len() {
            let which = (turn + round) % candidates.len();
            let before = cpu_ns();
            let took = candidates[which].round(&mut rows);
            let spent = cpu_ns() - before;
            // The first round warms up.
            if round > 0 {
                seconds[which].push(took.iter().sum::<Duration>().as_secs_f64());
                latency[which].extend(took.iter().map(Duration::as_secs_f64));
                cpu[which] += spent;
            }
        }
    }
    // What making the rows costs, which is in every candidate's CPU time.
    let before = cpu_ns();
    for _ in 0..GROUPS {
        std::hint::black_box(rows.group());
    }
    let made_us = (cpu_ns() - before) as f64 / 1e3 / (GROUPS * ROWS) as f64;

    println!("rows of {value_bytes} bytes, {ROWS} in a group, {ROUNDS} rounds of {GROUPS} groups each:\n");
    println!("| candidate | rows/s | of the raw loop | group p50 | CPU per row |");
    println!("|---|---|---|---|---|");
    let mut reached = true;
    for (which, candidate) in candidates.iter().enumerate() {
        let rate = median(seconds[which].iter().map(|seconds| (GROUPS * ROWS) as f64 / seconds).collect());
        let ratio = median(seconds[which].iter().zip(&seconds[0]).map(|(own, raw)| raw / own).collect());
        let p50_ms = median(latency[which].clone()) * 1e3;
        let cpu_us = cpu[which] as f64 / 1e3 / (ROUNDS * GROUPS * ROWS) as f64 - made_us;
        println!("| {} | {rate:.0} | {ratio:.2} | {p50_ms:.2} ms | {cpu_us:.2} us |", candidate.name());
        reached &= candidate.name() != MEASURED || ratio >= BAR;
    }
    let persisted = groups.load(Ordering::Relaxed).max(1);
    let each = ((ROUNDS + 1) * GROUPS * ROWS) as f64 / persisted as f64;
    println!("\n256 callers: {each:.0} rows a group on average. Resident, all together: {:.0} MB\n", resident_mb());
    reached
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let check = arguments.iter().any(|argument| argument == "--check");
    let at = arguments.iter().find(|argument| !argument.starts_with("--")).map_or(".", String::as_str);
    let reached = [200, 2048].map(|value_bytes| run(at, value_bytes));
    assert!(!check || reached == [true, true], "the embedded store is below {BAR} of the raw loop");
}
