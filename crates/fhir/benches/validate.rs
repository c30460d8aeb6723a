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
use sluice_fhir::definitions::Definitions;
use sluice_fhir::package::Package;
use sluice_fhir::profile::Library;
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

    profiles();

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

/// US Core's examples against the profiles that they claim, with ten more profiles loaded and with a thousand: what nobody claims costs
/// nothing.
fn profiles() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/packages/hl7.fhir.us.core-6.1.0.tgz");
    let tgz = std::fs::read(file).unwrap();
    let mut trees = Vec::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(&*tgz)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        let is_example = name.starts_with("package/example/") && name.contains('-');
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if is_example && let Ok(tree) = Tree::parse(content.into(), &Limits::default()) {
            trees.push(tree);
        }
    }
    let core = Definitions::r4();
    let package = || Package::from_tgz(&tgz, &sluice_fhir::package::Limits::default()).unwrap();
    let more = |count: u32| {
        let definitions = (0..count).map(|number| {
            let definition = serde_json::json!({
                "resourceType": "StructureDefinition", "url": format!("http://x.example/{number}"), "type": "Patient",
                "derivation": "constraint", "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
                "differential": {"element": [{"path": "Patient"}, {"path": "Patient.name", "min": 1}]},
            });
            (format!("{number}.json"), Bytes::from(definition.to_string()))
        });
        Package::of_definitions("more", definitions.collect::<Vec<_>>())
    };
    let start = cpu();
    let few = Library::new(core.clone(), &[package(), more(10)]).unwrap();
    println!("a library of US Core: {:.1} ms", (cpu() - start) * 1e3);
    let start = cpu();
    few.compile_all().unwrap();
    println!("all {} profiles compiled: {:.1} ms", few.profiles().count(), (cpu() - start) * 1e3);
    let many = Library::new(core, &[package(), more(1000)]).unwrap();
    let validators = [None, Some(few), Some(many)].map(|library| match library {
        None => Validator::r4(),
        Some(library) => Validator::r4().with_library(library.into()),
    });
    let mut best = [f64::MAX; 3];
    for _ in 0..ROUNDS * 3 {
        for (validator, best) in validators.iter().zip(&mut best) {
            let start = cpu();
            for tree in &trees {
                std::hint::black_box(validator.validate(tree.root()).len());
            }
            *best = best.min(cpu() - start);
        }
    }
    let [base, few, many] = best.map(|seconds| seconds * 1e6 / trees.len() as f64);
    println!(
        "{} examples of US Core: {base:.1} us each by R4 alone, {few:.1} us with their profiles and 10 more loaded, {many:.1} us with 1,000 \
         more: {:.2} times",
        trees.len(),
        many / few
    );
    assert!(many <= few * 1.1, "profiles that nobody claims cost something");
}

/// CPU seconds of this process; wall time where the system does not tell. The program has one thread.
fn cpu() -> f64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let wall = START.elapsed().as_secs_f64();
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").ok();
    let nanos = schedstat.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanos.map_or(wall, |nanos| nanos / 1e9)
}
