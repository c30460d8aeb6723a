//! What the tree and the map cost, in CPU time and memory: `cargo bench -p sluice-merkle`.
//!
//! Figures are CPU time of this process (user and system), so that a busy machine does not spoil
//! them. Takes the number of map records as an argument; a million by default. Linux only: it
//! reads /proc.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a bench prints and may stop"
)]

use std::hint::black_box;

use sluice_merkle::Hash;
use sluice_merkle::map::{self, Map};
use sluice_merkle::tile::Edge;
use sluice_merkle::tree::{Frontier, leaf_hash};

fn main() {
    let records: u64 = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let entry = [7; 200];
    let leaves = 1_000_000;

    let mut frontier = Frontier::new();
    per("frontier push, leaf hash of 200 bytes included", leaves, || {
        for _ in 0..leaves {
            frontier.append(leaf_hash(black_box(&entry))).unwrap();
        }
        black_box(frontier.root());
    });
    let mut edge = Edge::new();
    per("edge push with tiles, leaf hash included, taken every 256", leaves, || {
        for n in 0..leaves {
            edge.append(leaf_hash(black_box(&entry))).unwrap();
            if n % 256 == 255 {
                black_box(edge.take());
            }
        }
    });

    let resident = resident_bytes();
    let mut map = Map::<Hash>::new();
    per("map insert, root after every 256", records, || {
        for first in (0..records).step_by(256) {
            map.update((first..records.min(first + 256)).map(|n| (key(n), key(n + records))));
        }
    });
    println!(
        "{:>10.1} bytes a record, resident, {records} records",
        (resident_bytes() - resident) as f64 / records as f64
    );
    per("map update in place, root after each", 20_000, || {
        for n in 0..20_000 {
            map.insert(key(n * 7919 % records), key(n));
        }
    });
    let root = map.root();
    let mut proofs = Vec::new();
    per("map prove, present", 20_000, || proofs.extend((0..20_000).map(|n| map.prove(&key(n * 7919 % records)))));
    per("map verify, present", 20_000, || {
        for (n, proof) in (0..).zip(&proofs) {
            let key = key(n * 7919 % records);
            map::verify(&root, &key, map.get(&key), proof).unwrap();
        }
    });
    per("map prove and verify, absent", 20_000, || {
        for n in 0..20_000 {
            let key = key(u64::MAX - n);
            map::verify(&root, &key, None, &map.prove(&key)).unwrap();
        }
    });
    let keys: Vec<Hash> = (0..1_000_000).map(|n| key(n * 7919 % records)).collect();
    per("map look-up", 1_000_000, || {
        for key in &keys {
            black_box(map.get(key));
        }
    });
    let bytes: usize = proofs.iter().map(|proof| proof.encode().len()).sum();
    println!("{:>10.1} bytes a proof", bytes as f64 / proofs.len() as f64);
}

/// A key as uniform as an HMAC.
fn key(n: u64) -> Hash {
    leaf_hash(&n.to_be_bytes())
}

fn per(what: &str, count: u64, run: impl FnOnce()) {
    let before = cpu_us();
    run();
    println!("{:>10.3} us {what}", (cpu_us() - before) as f64 / count as f64);
}

/// CPU time of this process so far. The kernel counts it in ticks of 10 ms.
fn cpu_us() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The fields after the command's name, which may hold spaces; proc(5): utime is 14, stime 15.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>() * 10_000
}

fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
