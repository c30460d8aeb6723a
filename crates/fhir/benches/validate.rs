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

    growth(&validator, &bundles[0]);
}

/// What an entry costs in a Bundle of 100,000, and in one of 1,000: parsing and validating, in alternate rounds.
fn growth(validator: &Validator, bundle: &Bytes) {
    let limits = Limits { bytes_max: 1 << 30, nodes_max: 64 << 20, ..Limits::default() };
    let [small, middle, large] = [1_000, 10_000, 100_000].map(|count| (count, repeated(bundle, count)));
    let cost = |(count, bundle): &(usize, Bytes), times: usize| {
        let start = cpu();
        for _ in 0..times {
            let tree = Tree::parse(bundle.clone(), &limits).unwrap();
            std::hint::black_box(validator.validate(tree.root()).len());
        }
        (cpu() - start) * 1e6 / (count * times) as f64
    };
    let mut rounds: Vec<_> = (0..3).map(|_| (cost(&small, 100), cost(&middle, 10), cost(&large, 1))).collect();
    for (small, middle, large) in &rounds {
        println!("us per entry of 1,000, 10,000, 100,000: {small:.2}, {middle:.2}, {large:.2}; {:.2}", large / small);
    }
    rounds.sort_by(|a, b| (a.2 / a.0).total_cmp(&(b.2 / b.0)));
    held("growth", rounds[1].2 / rounds[1].0, 1.3);
}

/// The entries of a Bundle over and over, each time under ids of their own.
fn repeated(bundle: &Bytes, count: usize) -> Bytes {
    let tree = Tree::parse(bundle.clone(), &Limits::default()).unwrap();
    let entries: Vec<_> = tree.root().member("entry").unwrap().items().map(sluice_fhir::tree::Node::raw).collect();
    let mut text = br#"{"resourceType":"Bundle","type":"transaction","entry":["#.to_vec();
    for (number, entry) in entries.iter().cycle().take(count).enumerate() {
        let copy = format!("{:08x}", number / entries.len());
        let mut rest = *entry;
        while let Some(at) = memchr::memmem::find(rest, b"urn:uuid:") {
            text.extend_from_slice(&rest[..at + 9]);
            text.extend_from_slice(copy.as_bytes());
            rest = &rest[at + 17..];
        }
        text.extend_from_slice(rest);
        text.push(b',');
    }
    text.pop();
    text.extend_from_slice(b"]}");
    text.into()
}

/// With `--check`, a bar that is not held ends the bench.
fn held(what: &str, ratio: f64, bar: f64) {
    println!("{what}: {ratio:.2} times (bar {bar})");
    assert!(ratio <= bar || std::env::args().all(|arg| arg != "--check"), "{what} is above its bar");
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
    let mut rounds: Vec<[f64; 3]> = (0..ROUNDS)
        .map(|_| {
            validators.each_ref().map(|validator| {
                let start = cpu();
                for tree in (0..20).flat_map(|_| &trees) {
                    std::hint::black_box(validator.validate(tree.root()).len());
                }
                (cpu() - start) * 1e6 / (20 * trees.len()) as f64
            })
        })
        .collect();
    rounds.sort_by(|a, b| (a[2] / a[1]).total_cmp(&(b[2] / b[1])));
    let [base, few, many] = rounds[rounds.len() / 2];
    println!(
        "{} examples of US Core: {base:.1} us each by R4 alone, {few:.1} us with their profiles and 10 more loaded, {many:.1} us with 1,000 \
         more: {:.2} times",
        trees.len(),
        many / few
    );
    held("1,000 profiles more", many / few, 1.1);
}

/// CPU seconds of this process; wall time where the system does not tell. The program has one thread.
fn cpu() -> f64 {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let wall = START.elapsed().as_secs_f64();
    let schedstat = std::fs::read_to_string("/proc/self/schedstat").ok();
    let nanos = schedstat.and_then(|text| text.split(' ').next()?.parse::<f64>().ok());
    nanos.map_or(wall, |nanos| nanos / 1e9)
}
