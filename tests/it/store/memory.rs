//! The embedded store stays small, however much goes through it.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use sluice::store::embedded::{Embedded, Options};
use sluice::store::{Batch, CommitError, Direction, KeyRange, Store, Table};

use super::child;

const BYTES: usize = 160 << 20;
const BATCH_ROWS: u32 = 64;
const VALUE_BYTES: usize = 2048;
const TASKS: u32 = 8;

/// Of a process that has a gateway's 150 MB in all.
const PEAK_MB_MAX: u64 = 110;

/// Writes as fast as the store takes it, reads a part again, and tells its greatest resident memory.
#[test]
fn child() {
    let Some(dir) = child::directory() else { return };
    super::runtime().block_on(async {
        let store = Arc::new(Embedded::open(&Options::new(Path::new(&dir))).unwrap());
        let batches = u32::try_from(BYTES / VALUE_BYTES).unwrap() / BATCH_ROWS / TASKS;
        let tasks = (0..TASKS).map(|task| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..batches {
                    let mut batch = Batch::new();
                    for row in 0..BATCH_ROWS {
                        // Spread over the table, as keyed hashes are.
                        let place = (n * BATCH_ROWS + row).wrapping_mul(0x9e37_79b9).to_be_bytes();
                        let value: Vec<u8> = place.into_iter().cycle().take(VALUE_BYTES).collect();
                        batch = batch.put(Table::Version, [&place[..], &task.to_be_bytes()].concat(), value);
                    }
                    loop {
                        match store.commit(batch.clone()).await {
                            Ok(()) => break,
                            Err(CommitError::Unavailable) => tokio::task::yield_now().await,
                            Err(error) => panic!("{error}"),
                        }
                    }
                }
            })
        });
        futures_util::future::join_all(tasks).await.into_iter().for_each(Result::unwrap);
        let mut range = KeyRange::all();
        for _ in 0..10 {
            let rows = store.scan(Table::Version, range.clone(), usize::MAX, Direction::Up).await.unwrap();
            let Some(last) = rows.last() else { break };
            range = range.after(last.key.clone());
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        println!("peak{}", peak.replace(" kB", ""));
    });
}

#[test]
fn the_store_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = child::start("store::memory::child", dir.path());
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(child.wait().unwrap().success());
    let peak = output.split("peak").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let peak_mb = peak.parse::<u64>().unwrap() / 1024;
    eprintln!("peak of the embedded store's process: {peak_mb} MB");
    assert!(peak_mb <= PEAK_MB_MAX, "{peak_mb} MB");
}
