//! The examples of implementation guides against their own profiles. Every error stands in a list with its reason.

use std::collections::{BTreeMap, BTreeSet};

use sluice_fhir::definitions::Definitions;
use sluice_fhir::profile::Library;

use super::{archive, bless, is_error, issues, package, table, validator};

const KNOWN: &str = "tests/cases/profile/examples.tsv";
const PACKAGES: [(&str, usize); 3] =
    [("hl7.fhir.us.core-3.1.1", 84), ("hl7.fhir.us.core-6.1.0", 183), ("hl7.fhir.uv.ips-1.1.0", 40)];

#[test]
fn every_error_in_the_examples_has_a_reason() {
    let known: BTreeMap<(String, String), String> =
        table(KNOWN).into_iter().map(|row| ((row[0].clone(), row[1].clone()), row[2].clone())).collect();
    let mut found = BTreeSet::new();
    for (name, expected) in PACKAGES {
        let file = format!("tests/data/packages/{name}.tgz");
        let validator = validator(&[package(&file)]);
        let mut count = 0_usize;
        for (path, content) in archive(&file) {
            let Some(example) = path.strip_prefix("package/example/").filter(|path| path.ends_with(".json")) else {
                continue;
            };
            if example.starts_with('.') || example == "ig-r4.json" || example == "package.json" {
                continue;
            }
            count += 1;
            for issue in issues(&validator, &content) {
                if bless() {
                    eprintln!(
                        "{name}/{example}\t{}\t{} {} {} {}",
                        issue.rule,
                        issue.severity.code(),
                        issue.expression.clone().unwrap_or_default(),
                        issue.text,
                        issue.about.clone().unwrap_or_default()
                    );
                }
                if is_error(&issue) {
                    found.insert((format!("{name}/{example}"), issue.rule.into_owned()));
                }
            }
        }
        assert!(count.abs_diff(expected) < 3, "{name}: {count}");
    }
    let unlisted: Vec<_> = found.iter().filter(|key| !known.contains_key(*key)).collect();
    let gone: Vec<_> = known.keys().filter(|key| !found.contains(*key)).collect();
    assert!(unlisted.is_empty(), "not listed: {unlisted:#?}");
    assert!(gone.is_empty(), "listed, but no error any more: {gone:?}");
}

#[test]
fn every_profile_of_the_guides_and_of_the_core_compiles() {
    for (name, _) in PACKAGES {
        let package = package(&format!("tests/data/packages/{name}.tgz"));
        let library = Library::new(Definitions::r4(), &[package]).unwrap();
        library.compile_all().unwrap();
        assert!(library.profiles().count() > 470, "{}", library.profiles().count());
    }
}
