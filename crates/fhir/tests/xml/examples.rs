//! The examples that HL7 published with R4: JSON to XML to JSON unchanged, but for what is listed with a reason.

use std::collections::BTreeSet;

use bytes::Bytes;
use sluice_fhir::canonical;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::xml;

use super::{archive, known, read};

const KNOWN: &str = "tests/cases/xml/hl7-examples.tsv";

/// What comes back of a JSON document, if it is not the same.
fn difference(content: &[u8]) -> Option<String> {
    let tree = Tree::parse(Bytes::copy_from_slice(content), &Limits::default()).unwrap();
    let written = match xml::write(tree.root(), &Definitions::r4()) {
        Ok(written) => written,
        Err(error) => return Some(error.to_string()),
    };
    let again = match read(&written) {
        Ok(again) => again,
        Err(error) => return Some(error.to_string()),
    };
    (canonical::to_vec(again.root()) != canonical::to_vec(tree.root())).then(|| "not the same".to_owned())
}

fn all_but_listed(archived: &str, count: usize) {
    let known = known(KNOWN);
    let mut different = BTreeSet::new();
    let mut surprises = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, content) in archive(archived).iter().filter(|(name, _)| name.ends_with(".json")) {
        seen.insert(name.clone());
        if let Some(difference) = difference(content) {
            if !known.contains_key(name) {
                surprises.push(format!("{name}: {difference}"));
            }
            different.insert(name.clone());
        }
    }
    assert_eq!(seen.len(), count);
    assert!(surprises.is_empty(), "{} differ:\n{}", surprises.len(), surprises.join("\n"));
    let gone: Vec<_> = known.keys().filter(|name| seen.contains(*name) && !different.contains(*name)).collect();
    assert!(gone.is_empty(), "listed, but the same by now: {gone:?}");
    assert!(known.values().all(|reason| reason.len() > 5), "every difference has a reason");
}

#[test]
fn the_examples_of_hl7_come_back_unchanged() {
    all_but_listed("tests/data/hl7-examples/r4-4.0.1.tar.gz", 703);
}

#[test]
fn synthea_comes_back_unchanged() {
    all_but_listed("tests/data/synthea/r4-30-patients.tar.gz", 32);
}
