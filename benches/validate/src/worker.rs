//! One side of the comparison as a process, in the same words for all: it is given a folder of Bundles, validates the first
//! and prints the CPU seconds since its start. Then it answers on standard input: to a number, with the CPU seconds of so many passes
//! over all of them, each parsed and validated; to a folder, with a line for each finding in its Bundles (file, severity, location,
//! rule; tabs between them) and an empty one. This is ours; `hapi/` and `medplum/` have the others.

use std::io::{BufRead as _, Write as _};
use std::path::Path;

use bytes::Bytes;
use sluice_fhir::outcome::Issue;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;

/// Answers until its input ends.
pub fn run(folder: &Path) {
    let bundles = read(folder);
    // Every one of the issues: no limit hides any.
    let validator = Validator::r4().with_good_practice(true).with_issues_max(usize::MAX);
    let (_, first) = bundles.first().expect("a Bundle");
    std::hint::black_box(validate(&validator, first));
    answer(&cpu().to_string());
    for command in std::io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(passes) = command.parse::<u32>() else {
            findings(&validator, &read(Path::new(&command)));
            continue;
        };
        let start = cpu();
        for (_, bundle) in (0..passes).flat_map(|_| &bundles) {
            std::hint::black_box(validate(&validator, bundle));
        }
        answer(&(cpu() - start).to_string());
    }
}

fn read(folder: &Path) -> Vec<(String, Bytes)> {
    let entries = std::fs::read_dir(folder).expect("a folder of Bundles").map(|entry| entry.expect("an entry"));
    let mut bundles: Vec<_> = entries
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).expect("a Bundle").into())
        })
        .collect();
    bundles.sort();
    bundles
}

fn validate(validator: &Validator, bundle: &Bytes) -> Vec<Issue> {
    let tree = Tree::parse(bundle.clone(), &Limits::default()).expect("JSON");
    validator.validate(tree.root())
}

fn findings(validator: &Validator, bundles: &[(String, Bytes)]) {
    let mut lines = String::new();
    for (name, bundle) in bundles {
        for issue in validate(validator, bundle) {
            let place = issue.expression.unwrap_or_default();
            lines += &format!("{name}\t{}\t{place}\t{}\n", issue.severity.code(), issue.rule);
        }
    }
    answer(&lines);
}

fn answer(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("standard output");
}

/// CPU seconds of this process, which has one thread.
fn cpu() -> f64 {
    let statistics = std::fs::read_to_string("/proc/self/schedstat").expect("/proc of Linux");
    let nanoseconds = statistics.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    nanoseconds.expect("nanoseconds on a processor") / 1e9
}
