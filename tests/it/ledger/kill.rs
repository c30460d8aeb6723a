//! kill -9 at random moments: everything acknowledged is there, and the log goes on.
//!
//! The child is this test binary again, told by an environment variable which folder to write to. It submits numbered
//! operations, several at a time, and prints each number once it is acknowledged.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice::ledger::{Embedded, Finality, Known, Ledger, Operation};

use super::{Folder, World, accept, attested, pseudonym, runtime};

const DIR: &str = "SLUICE_TEST_LEDGER_KILL_DIR";
const FIRST: &str = "SLUICE_TEST_LEDGER_KILL_FIRST";
const ROUNDS: u32 = 20;

#[test]
#[expect(clippy::disallowed_methods, reason = "the variables are how the parent speaks to its child")]
fn child() {
    let (Some(dir), Ok(first)) = (std::env::var_os(DIR), std::env::var(FIRST)) else { return };
    runtime().block_on(async {
        let world = Arc::new(World::new());
        let ledger = Arc::new(Embedded::open(&world.options(Path::new(&dir))).unwrap());
        let next = Arc::new(AtomicU64::new(first.parse().unwrap()));
        let tasks: Vec<_> = (0..6)
            .map(|_| {
                let (world, ledger, next) = (Arc::clone(&world), Arc::clone(&ledger), Arc::clone(&next));
                tokio::spawn(async move {
                    loop {
                        let n = next.fetch_add(3, Ordering::Relaxed);
                        let op = |n| {
                            let record = attested(pseudonym(n), 1, &world.hospital);
                            world.sign(Operation::Subject(record), &[&world.hospital.gateway])
                        };
                        accept(ledger.as_ref(), &[op(n), op(n + 1), op(n + 2)]).await;
                        writeln!(std::io::stdout(), "acknowledged {n}").unwrap();
                    }
                })
            })
            .collect();
        futures_util::future::join_all(tasks).await;
    });
}

#[test]
fn nothing_acknowledged_is_lost() {
    let (folder, world) = (Folder::new(), World::new());
    {
        let ledger = world.create(&folder.path());
        runtime().block_on(accept(&ledger, &world.members()));
    }
    let mut acknowledged = BTreeSet::new();
    let mut known: Option<Known> = None;
    for round in 0..ROUNDS {
        let first = acknowledged.last().map_or(0, |last| last + 1000);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::kill::child", "--nocapture", "--test-threads=1"])
            .env(DIR, folder.path())
            .env(FIRST, u64::to_string(&first))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wait = 1 + RandomState::new().hash_one(round) % 60;
        let mut seen = 0;
        for line in lines.by_ref() {
            let line = line.unwrap();
            if let Some((_, n)) = line.split_once("acknowledged ") {
                acknowledged.insert(n.parse::<u64>().unwrap());
                seen += 1;
            }
            if seen == wait {
                break;
            }
        }
        child.kill().unwrap();
        for line in lines.map_while(Result::ok) {
            if let Some(n) = line.split_once("acknowledged ").and_then(|(_, n)| n.parse().ok()) {
                acknowledged.insert(n);
            }
        }
        child.wait().unwrap();

        // The checkpoint that was final before the kill is final still, on the same history.
        let mut options = world.options(&folder.path());
        options.known = known;
        let ledger = Embedded::open(&options).unwrap();
        runtime().block_on(async {
            let subjects: Vec<_> = acknowledged.iter().flat_map(|n| [*n, n + 1, n + 2]).map(pseudonym).collect();
            let snapshot = ledger.lookup(&subjects, Duration::ZERO).await.unwrap();
            assert!(snapshot.records.iter().all(Option::is_some), "round {round}");
            let head = ledger.head(Finality::Final).await.unwrap();
            known = Some(Known { size: head.height, root: head.root });
        });
    }
    assert!(acknowledged.len() > 20);
}
