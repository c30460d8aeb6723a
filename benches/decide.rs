//! One consent decision, from a pseudonym to permit or deny: the look-up in the mirror and the judging of the policies.
//! Facets and policies are made before, as they are in a gateway.
//!
//! `cargo bench --profile release --bench decide [-- --check] [SUBJECTS]`. Bar: at most 1 µs of CPU a decision and 100 bytes a
//! subject; `--check` fails above it. A million subjects unless told.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]
#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use sluice::consent::decide::{Ask, Outcome, PolicySet, Request, Settings, decide_subject};
use sluice::consent::facets::{Facets, Surroundings};
use sluice::consent::mirror::{Mirror, Record, State};
use sluice::consent::policy::Policy;
use sluice::consent::pseudonym::Pseudonym;
use sluice_fhir::datetime::DateTime;
use sluice_fhir::tree::{Limits, Tree};

/// Policy sets that are kept compiled, found by their consent root: as many as fit in no cache of a core.
const SETS: u32 = 20_000;
const DECISIONS: u64 = 10_000_000;
const NS_BAR: f64 = 1_000.0;
const BYTES_BAR: f64 = 100.0;

fn trees(prefix: &str) -> Vec<Tree> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/consent/ihe-pcf");
    let mut files: Vec<_> = std::fs::read_dir(data).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)));
    files.sort();
    let read = |file| Tree::parse(Bytes::from(std::fs::read(file).unwrap()), &Limits::default()).unwrap();
    files.into_iter().map(read).collect()
}

/// Uniform, as an HMAC is.
fn pseudonym(number: u64) -> Pseudonym {
    Pseudonym(sluice_merkle::tree::leaf_hash(&number.to_be_bytes()))
}

/// Nanoseconds that this thread has had of a CPU.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn main() {
    // Cargo adds `--bench`.
    let subjects: u64 = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1_000_000);
    let consents = trees("Consent-");
    let begun = cpu_ns();
    let sets: Vec<PolicySet> = (0..SETS as usize)
        .map(|set| PolicySet::new([Policy::compile(consents[set % consents.len()].root())]))
        .collect();
    println!("compile: {:.1} µs a Consent", (cpu_ns() - begun) as f64 / f64::from(SETS) / 1e3);

    let records = trees("Observation-");
    let begun = cpu_ns();
    for turn in 0..100_000 {
        black_box(Facets::of(records[turn % records.len()].root(), &Surroundings::none()));
    }
    println!("facets: {:.2} µs a resource", (cpu_ns() - begun) as f64 / 1e8);
    let facets: Vec<Facets> = records.iter().map(|record| Facets::of(record.root(), &Surroundings::none())).collect();

    let mut mirror = Mirror::new();
    let begun = Instant::now();
    for number in 0..subjects {
        let mut root = [0; 32];
        root[..8].copy_from_slice(&(number % u64::from(SETS)).to_be_bytes());
        mirror.put(pseudonym(number), Record { version: 1, state: State::Active, root });
    }
    let bytes = mirror.bytes() as f64 / mirror.len() as f64;
    println!("mirror: {subjects} subjects in {:.1} s, {bytes:.1} bytes each", begun.elapsed().as_secs_f64());

    let request = Request::new(&Ask {
        actor: Some("Practitioner/ex-practitioner"),
        member_of: &["Organization/ex-organization"],
        role: Some("IRCP"),
        purpose: Some("TREAT"),
        action: Some("access"),
        time: Some(DateTime::parse_instant("2022-07-01T10:00:00Z").unwrap()),
    });
    // Asked for in an order that no cache foresees, and named before the clock runs.
    let asked: Vec<Pseudonym> =
        (0..1 << 16).map(|turn: u64| pseudonym(turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) % subjects)).collect();
    let mut permits = 0_u64;
    let begun = cpu_ns();
    for turn in 0..DECISIONS {
        let at = usize::try_from(turn).unwrap();
        let facets = &facets[at % facets.len()];
        let decision = mirror.decide(asked[at % asked.len()], |root| {
            let set = root.and_then(|root| root.first_chunk()).copied().map_or(0, u64::from_be_bytes);
            decide_subject(Settings::default(), &sets[usize::try_from(set).unwrap()], None, &request, facets)
        });
        permits += u64::from(black_box(decision).outcome == Outcome::Permit);
    }
    let each = (cpu_ns() - begun) as f64 / DECISIONS as f64;
    println!("decide: {each:.0} ns of CPU, {:.1} % permits", permits as f64 * 100.0 / DECISIONS as f64);
    let check = std::env::args().any(|argument| argument == "--check");
    assert!(!check || each <= NS_BAR, "a decision takes {each:.0} ns; the bar is {NS_BAR}");
    assert!(!check || bytes <= BYTES_BAR, "a subject takes {bytes:.1} bytes; the bar is {BYTES_BAR}");
}
