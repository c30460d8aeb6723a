//! What every kind of store must do, run on each kind there is.

use std::path::Path;
use std::sync::Arc;

use sluice::store::Store;
use sluice::store::embedded::{Embedded, Options};

mod child;
mod conformance;
mod faults;
mod keystore;
mod kill;
mod memory;
mod model;

/// Opens the store that a case works on; each call after the first opens it again, once the first is dropped.
type Open = Box<dyn Fn() -> Arc<dyn Store> + Send + Sync>;

fn embedded(dir: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(&small(dir)).unwrap())
}

/// Options that make the engine flush and compact already in a test.
fn small(dir: &Path) -> Options {
    Options { memtable_bytes: 256 << 10, cache_bytes: 1 << 20, disk_reserve_bytes: 0, ..Options::new(dir) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn embedded_conforms() {
    for (name, case) in conformance::CASES {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        eprintln!("store conformance: {name}");
        runtime().block_on(case(Box::new(move || embedded(&path))));
    }
}
