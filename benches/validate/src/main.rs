//! What checking costs, side by side in one run: our validator, HAPI's `FhirInstanceValidator` and Medplum's
//! `validateResource`, each a process of its own, in alternate rounds over Synthea's Bundles of 30 patients. CPU time of
//! whole processes, so that a busy machine does not matter much. `--check` fails where a bar is not held; `--rounds N`
//! changes how many there are. What the two that check everything find must be the same, but for `differences.tsv`.

mod findings;
mod mutants;
mod peer;
mod worker;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use peer::Peer;

/// HAPI is warm after five.
const ROUNDS: usize = 7;
/// The last rounds, of which the median counts.
const COUNTED: usize = 3;

/// Passes over the corpus in a round: about as long as the system's clock needs to tell them, for the quick ones.
const PASSES_OURS: u32 = 10;
const PASSES_MEDPLUM: u32 = 1;
const PASSES_HAPI: u32 = 1;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, folder] = &args[..]
        && command == "worker"
    {
        worker::run(Path::new(folder));
        return ExitCode::SUCCESS;
    }
    let rounds = args.iter().position(|arg| arg == "--rounds").and_then(|at| args.get(at + 1)?.parse().ok());
    let rounds: usize = rounds.unwrap_or(ROUNDS).max(COUNTED);
    let mut bars = Bars { is_checked: args.iter().any(|arg| arg == "--check"), missed: Vec::new() };

    let Corpus { bundles, mutants, resources } = Corpus::new();
    let mut ours = Side::new("ours", PASSES_OURS, &|| peer::ours(&bundles), 5);
    let mut medplum = Side::new("@medplum/core 5.2.13", PASSES_MEDPLUM, &|| peer::medplum(&bundles), 3);
    let mut hapi = Side::new("HAPI 8.2.0", PASSES_HAPI, &|| peer::hapi(&bundles), 1);
    println!("{resources} resources in 30 Bundles; resources per CPU second, round by round");
    for round in 1..=rounds {
        for side in [&mut ours, &mut hapi, &mut medplum] {
            side.round(resources);
        }
        let rate = |side: &Side| side.rates.last().copied().unwrap_or_default();
        println!("round {round}: ours {:.0}, HAPI {:.0}, Medplum {:.0}", rate(&ours), rate(&hapi), rate(&medplum));
    }

    println!("\n| | resources per CPU second | CPU to the first Bundle | peak memory |\n|---|---|---|---|");
    for side in [&ours, &hapi, &medplum] {
        let (rate, start, memory) = (side.rate(), side.start, side.peer.memory_peak_mb());
        println!("| {} | {rate:.0} | {start:.3} s | {memory:.0} MB |", side.name);
    }
    println!();
    let memory = hapi.peer.memory_peak_mb() / ours.peer.memory_peak_mb();
    let differences = findings::compare(ours.peer.findings(&bundles), hapi.peer.findings(&bundles));
    let found = [&mut ours, &mut hapi, &mut medplum].map(|side| (side.name, side.peer.findings(&mutants)));
    let overlooked = mutants::compare(found);
    bars.at_least("HAPI's resources per CPU second", ours.rate() / hapi.rate(), 50.0);
    bars.at_least("Medplum's resources per CPU second", ours.rate() / medplum.rate(), 10.0);
    bars.at_least("HAPI's CPU to the first validated Bundle, the other way round", hapi.start / ours.start, 40.0);
    bars.at_least("HAPI's peak memory, the other way round", memory, 8.0);
    bars.missed.extend(differences.into_iter().chain(overlooked));
    if bars.is_checked && !bars.missed.is_empty() {
        println!("{} not held", bars.missed.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// One of those that are compared.
struct Side {
    name: &'static str,
    peer: Peer,
    passes: u32,
    /// CPU seconds to the first Bundle: the median of some starts.
    start: f64,
    rates: Vec<f64>,
}

impl Side {
    fn new(name: &'static str, passes: u32, command: &dyn Fn() -> Command, starts: usize) -> Self {
        let mut peers: Vec<Peer> = (0..starts).map(|_| Peer::start(command())).collect();
        peers.sort_by(|a, b| a.start.total_cmp(&b.start));
        let peer = peers.swap_remove(starts / 2);
        Self { name, start: peer.start, peer, passes, rates: Vec::new() }
    }

    fn round(&mut self, resources: usize) {
        let seconds = self.peer.passes(self.passes) / f64::from(self.passes);
        self.rates.push(resources as f64 / seconds);
    }

    /// The median of the last rounds.
    fn rate(&self) -> f64 {
        let mut last = self.rates[self.rates.len() - COUNTED..].to_vec();
        last.sort_by(f64::total_cmp);
        last[COUNTED / 2]
    }
}

struct Bars {
    is_checked: bool,
    missed: Vec<String>,
}

impl Bars {
    fn at_least(&mut self, what: &str, times: f64, bar: f64) {
        println!("{times:.1} times {what} (bar {bar})");
        if times < bar {
            self.missed.push(what.to_owned());
        }
    }
}

/// What is validated.
struct Corpus {
    /// The folder with the Bundles of the 30 patients, smallest first.
    bundles: PathBuf,
    /// The folder with the smallest, and its mutants.
    mutants: PathBuf,
    /// How many the Bundles hold.
    resources: usize,
}

impl Corpus {
    fn new() -> Self {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/synthea/r4-30-patients.tar.gz");
        let file = std::fs::File::open(&archive).expect("the corpus");
        let mut patients = Vec::new();
        for entry in tar::Archive::new(flate2::read::GzDecoder::new(file)).entries().expect("an archive") {
            let mut entry = entry.expect("a file of it");
            let name = entry.path().expect("its name").to_string_lossy().into_owned();
            let mut text = String::new();
            // Hospitals and practitioners have Bundles of their own.
            if name.ends_with(".json") && !name.contains("Information") {
                std::io::Read::read_to_string(&mut entry, &mut text).expect("text");
                patients.push(text);
            }
        }
        assert_eq!(patients.len(), 30);
        patients.sort_by_key(String::len);
        let resources = patients.iter().map(|text| text.matches("\"fullUrl\"").count()).sum();
        let bundles = peer::built("bundles", std::slice::from_ref(&archive), |folder| {
            for (number, text) in patients.iter().enumerate() {
                std::fs::write(folder.join(format!("{number:02}.json")), text).expect("a file of the cache");
            }
            Command::new("true")
        });
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mutants.rs");
        let mutants = peer::built("mutants", &[archive, source], |folder| {
            mutants::write(&patients[0], folder);
            Command::new("true")
        });
        Self { bundles, mutants, resources }
    }
}
