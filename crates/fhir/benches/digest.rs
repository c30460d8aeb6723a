//! Parse + canonical form + SHA-256 of every resource of Synthea's Bundles, ours beside serde_json + serde_jcs + sha2, in
//! one run, rounds alternating, by the CPU time of this thread. A Bundle is parsed whole, as it comes in.
//!
//!     cargo bench --profile release -p sluice-fhir --bench digest [-- --check]
//!
//! `--check` fails below four times the speed, on either form of the text.

#![expect(clippy::print_stdout, clippy::expect_used, reason = "a program for people, on data of ours")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::hint::black_box;
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use sluice_fhir::canonical;
use sluice_fhir::tree::{Limits, Node, Tree};

const ROUNDS: usize = 9;
const BAR: f64 = 4.0;

/// What is measured, by its name; gives how many it did.
type Work = (&'static str, fn(&[Bytes]) -> usize);

fn main() {
    let check = std::env::args().any(|argument| argument == "--check");
    let pretty = bundles();
    let compact: Vec<Bytes> = pretty
        .iter()
        .map(|bundle| {
            let value: Box<serde_json::value::RawValue> = serde_json::from_slice(bundle).expect("JSON");
            let tree = Tree::parse(Bytes::from(value.get().to_owned()), &Limits::default()).expect("JSON");
            Bytes::from(compacted(&tree))
        })
        .collect();
    println!("medians of {ROUNDS} alternating rounds, CPU time of the thread");
    println!("{:<10}{:>26}{:>10}{:>12}{:>14}", "text", "work", "ms", "MB/CPU-s", "resources/CPU-s");
    for (name, bundles) in [("as sent", &pretty), ("compact", &compact)] {
        let works: [Work; 4] = [
            ("serde_json+serde_jcs+sha2", baseline),
            ("sluice", ours),
            ("sluice parse alone", ours_parse),
            ("serde_json parse alone", baseline_parse),
        ];
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            for (index, (_, work)) in works.iter().enumerate() {
                let start = cpu_ns();
                black_box(work(bundles));
                times[index].push(cpu_ns() - start);
            }
        }
        let bytes: usize = bundles.iter().map(Bytes::len).sum();
        let resources = ours(bundles);
        let mut medians = Vec::new();
        for ((work, _), times) in works.iter().zip(&mut times) {
            times.sort_unstable();
            let median = times[ROUNDS / 2] as f64;
            medians.push(median);
            println!(
                "{name:<10}{work:>26}{:>10.1}{:>12.0}{:>14.0}",
                median / 1e6,
                bytes as f64 * 1e3 / median,
                resources as f64 * 1e9 / median
            );
        }
        let ratio = medians[0] / medians[1];
        println!("{name:<10}{:>26}{ratio:>9.1}x", "ratio");
        assert!(!check || ratio >= BAR, "{name}: {ratio:.2} times as fast; the bar is {BAR}");
    }
}

fn ours(bundles: &[Bytes]) -> usize {
    let mut resources = 0;
    for bundle in bundles {
        let tree = Tree::parse(bundle.clone(), &Limits::default()).expect("JSON");
        for resource in tree.root().find(&["entry", "resource"]) {
            black_box(canonical::digest(resource));
            resources += 1;
        }
    }
    resources
}

fn ours_parse(bundles: &[Bytes]) -> usize {
    bundles.iter().map(|bundle| black_box(Tree::parse(bundle.clone(), &Limits::default()).expect("JSON")).len()).sum()
}

fn baseline(bundles: &[Bytes]) -> usize {
    let mut resources = 0;
    for bundle in bundles {
        let value: serde_json::Value = serde_json::from_slice(bundle).expect("JSON");
        for entry in value["entry"].as_array().into_iter().flatten() {
            let form = serde_jcs::to_vec(&entry["resource"]).expect("JSON");
            black_box(Sha256::digest(&form));
            resources += 1;
        }
    }
    resources
}

fn baseline_parse(bundles: &[Bytes]) -> usize {
    bundles.iter().filter(|bundle| black_box(serde_json::from_slice::<serde_json::Value>(bundle)).is_ok()).count()
}

/// The document without white space, its members in their order.
fn compacted(tree: &Tree) -> Vec<u8> {
    fn write(node: Node<'_>, out: &mut Vec<u8>) {
        if !node.is_object() && !node.is_array() {
            out.extend_from_slice(node.raw());
            return;
        }
        let (open, close) = if node.is_object() { (b'{', b'}') } else { (b'[', b']') };
        out.push(open);
        for (index, child) in node.children().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            if let Some(name) = child.name() {
                out.extend_from_slice(format!("{name:?}:").as_bytes());
            }
            write(child, out);
        }
        out.push(close);
    }
    let mut out = Vec::new();
    write(tree.root(), &mut out);
    out
}

fn bundles() -> Vec<Bytes> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/synthea/r4-30-patients.tar.gz");
    let mut archive = tar::Archive::new(GzDecoder::new(std::fs::File::open(path).expect("the corpus")));
    let mut bundles = Vec::new();
    for entry in archive.entries().expect("the corpus") {
        let mut entry = entry.expect("the corpus");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("the corpus");
        if content.starts_with(b"{") {
            bundles.push(Bytes::from(content));
        }
    }
    bundles
}

/// Nanoseconds that this thread has been on a CPU.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|first| first.parse().ok()).expect("Linux")
}
