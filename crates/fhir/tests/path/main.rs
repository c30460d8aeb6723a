//! FHIRPath against HL7's test suite, against properties that must always hold, and at its limits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod properties;
mod suite;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use sluice_fhir::tree::{Limits, Tree};

/// The files of HL7's suite.
fn archive() -> BTreeMap<String, Bytes> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/fhirpath-r4.tgz");
    let file = std::fs::read(path).unwrap();
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(&*file)).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let name = entry.path().unwrap().to_string_lossy().trim_start_matches("./").to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, Bytes::from(content));
        }
    }
    files
}

fn tree(content: &Bytes) -> Tree {
    Tree::parse(content.clone(), &Limits::default()).unwrap()
}
