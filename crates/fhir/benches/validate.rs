//! What checking costs: Synthea's Bundles of 30 patients, in CPU time of one thread. `cargo bench -p sluice-fhir --bench validate`
//! prints resources and megabytes per CPU second, with parsing and without, and the growth from small Bundles to large.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench fails by panicking and prints its result"
)]

use std::io::Read as _;
use std::time::Instant;

use bytes::Bytes;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;

const ROUNDS: u32 = 7;

fn main() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/synthea/r4-30-patients.tar.gz");
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()));
    let mut bundles = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut content = Vec::new();
        entry.unwrap().read_to_end(&mut content).unwrap();
        if content.starts_with(b"{") {
            bundles.push(Bytes::from(content));
        }
    }
    let start = cpu();
    let validator = Validator::r4();
    let first = Tree::parse(bundles[0].clone(), &Limits::default()).unwrap();
    validator.validate(first.root());
    println!("first Bundle, definitions read and compiled on the way: {:.1} ms", (cpu() - start) * 1e3);

    let trees: Vec<_> = bundles.iter().map(|b| Tree::parse(b.clone(), &Limits::default()).unwrap()).collect();
    let resources: usize = trees.iter().map(|t| t.root().member("entry").map_or(0, sluice_fhir::tree::Node::len)).sum();
    let bytes: usize = bundles.iter().map(Bytes::len).sum();
    let (mut with_parse, mut alone) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let start = cpu();
        for bundle in &bundles {
            let tree = Tree::parse(bundle.clone(), &Limits::default()).unwrap();
            std::hint::black_box(validator.validate(tree.root()).len());
        }
        with_parse = with_parse.min(cpu() - start);
        let start = cpu();
        for tree in &trees {
            std::hint::black_box(validator.validate(tree.root()).len());
        }
        alone = alone.min(cpu() - start);
    }
    let report = |what: &str, seconds: f64| {
        println!(
            "{what}: {:.0} resources/CPU-s, {:.0} MB/CPU-s",
            resources as f64 / seconds,
            bytes as f64 / 1e6 / seconds
        );
    };
    println!("{} Bundles, {resources} resources, {:.1} MB", bundles.len(), bytes as f64 / 1e6);
    report("parse and validate", with_parse);
    report("validate", alone);

    // Growth: one Bundle's entries, repeated. fullUrls repeat as well, which changes nothing in the cost.
    let text = std::str::from_utf8(&bundles[0]).unwrap();
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let entries = value["entry"].as_array().unwrap();
    for count in [1_000, 10_000, 100_000] {
        let entries: Vec<_> = entries.iter().cycle().take(count).collect();
        let bundle = serde_json::json!({"resourceType": "Bundle", "type": "transaction", "entry": entries}).to_string();
        let limits = Limits { bytes_max: 1 << 30, nodes_max: 16 << 20, ..Limits::default() };
        let tree = Tree::parse(bundle.into(), &limits).unwrap();
        let start = cpu();
        std::hint::black_box(validator.validate(tree.root()).len());
        println!("{count} entries: {:.2} us per entry", (cpu() - start) * 1e6 / count as f64);
    }
}

/// CPU seconds of this process; wall time where the system does not tell. The program has one thread.
fn cpu() -> f64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let wall = START.elapsed().as_secs_f64();
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").ok();
    let nanos = schedstat.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanos.map_or(wall, |nanos| nanos / 1e9)
}
