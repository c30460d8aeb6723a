//! The examples of official packages against the profiles that they claim, with the packages that these rest on. What differs stands
//! one by one, with its reason, in `tests/conformance/<package>.tsv`; what the packages at hand cannot tell is counted there. A
//! list may only shrink.

use std::collections::BTreeMap;

use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::Severity;
use sluice_fhir::package::Package;
use sluice_fhir::profile::Library;

use super::{archive, bless, issues, package, table, validator};

const US_CORE: &str = "hl7.fhir.us.core-3.1.1";
/// Each package, how many examples it has, and what it rests on beside HL7's terminology and extensions.
const PACKAGES: [(&str, usize, &[&str]); 5] = [
    (US_CORE, 84, &[]),
    ("hl7.fhir.us.core-6.1.0", 183, &[]),
    ("hl7.fhir.us.davinci-pas-2.0.1", 39, &[US_CORE]),
    ("hl7.fhir.uv.genomics-reporting-3.0.0", 204, &[]),
    ("hl7.fhir.uv.ips-1.1.0", 40, &[]),
];
const SHARED: [&str; 2] = ["hl7.terminology.r4-7.0.1", "hl7.fhir.uv.extensions.r4-5.3.0-ballot-tc1"];

fn file(name: &str) -> String {
    format!("tests/data/packages/{name}.tgz")
}

/// A package with all that it rests on, as far as that is at hand.
fn with_dependencies(name: &str, dependencies: &[&str]) -> Vec<Package> {
    [name].iter().chain(dependencies).chain(&SHARED).map(|name| package(&file(name))).collect()
}

#[test]
fn every_difference_in_the_examples_has_a_reason() {
    for (name, expected, dependencies) in PACKAGES {
        let validator = validator(&with_dependencies(name, dependencies));
        // One line for each error and each warning, and one for each rule that could not be checked: how often.
        let mut found: BTreeMap<(String, String, String), usize> = BTreeMap::new();
        let mut count = 0_usize;
        for (path, content) in archive(&file(name)) {
            let Some(example) = path.strip_prefix("package/example/").filter(|path| path.ends_with(".json")) else {
                continue;
            };
            if example.starts_with('.') || example == "ig-r4.json" || example == "package.json" {
                continue;
            }
            count += 1;
            for issue in issues(&validator, &content) {
                let place = issue.expression.clone().unwrap_or_default();
                let rule = issue.rule.into_owned();
                let is_open = rule.ends_with("not-checked") || rule == "slice.undecidable";
                if is_open {
                    *found.entry(("*".to_owned(), rule, String::new())).or_default() += 1;
                } else if issue.severity != Severity::Information {
                    *found.entry((example.to_owned(), rule, place)).or_default() += 1;
                }
            }
        }
        assert!(count == expected, "{name}: {count}");
        let found: Vec<[String; 3]> = found
            .into_iter()
            .map(|((file, rule, place), count)| {
                [file.clone(), rule, if file == "*" { count.to_string() } else { place }]
            })
            .collect();
        let list = format!("tests/conformance/{name}.tsv");
        let known = table(&list);
        if bless() {
            for row in found.iter().filter(|row| !known.iter().any(|known| known[..3] == row[..])) {
                eprintln!("{list}: {}", row.join("\t"));
            }
        }
        let unlisted: Vec<_> = found.iter().filter(|row| !known.iter().any(|known| known[..3] == row[..])).collect();
        let gone: Vec<_> = known.iter().filter(|known| !found.iter().any(|row| known[..3] == row[..])).collect();
        assert!(unlisted.is_empty(), "{name}: not listed, or as often: {unlisted:#?}");
        assert!(gone.is_empty(), "{name}: listed, but not so any more: {gone:?}");
        assert!(known.iter().all(|row| row.len() == 4 && row[3].len() > 5), "{name}: every difference has a reason");
    }
}

#[test]
fn every_profile_of_the_guides_and_of_the_core_compiles() {
    for (name, _, dependencies) in PACKAGES {
        let library = Library::new(Definitions::r4(), &with_dependencies(name, dependencies)).unwrap();
        library.compile_all().unwrap();
        assert!(library.profiles().count() > 1_000, "{}", library.profiles().count());
    }
}
