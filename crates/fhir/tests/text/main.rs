//! The tree, the canonical form and the edits, on other people's documents: JSONTestSuite, the list of naughty strings, HL7's
//! examples and Synthea; and what must hold for any document.

#![expect(
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test fails by panicking; file names in archives are as they are"
)]

use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use flate2::read::GzDecoder;
use sluice_fhir::tree::{Limits, SyntaxError, Tree};

#[path = "../../examples/generate_tables/tables.rs"]
mod definitions;
mod properties;
mod round_trip;
mod suite;
mod tables;

fn parse(bytes: &[u8]) -> Result<Tree, SyntaxError> {
    Tree::parse(Bytes::copy_from_slice(bytes), &Limits::default())
}

/// A file of the crate's own test data.
fn own(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A file of the repository's test data.
fn shared(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name)
}

/// The files of a packed folder: name and content.
fn unpacked(archive: &PathBuf) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(GzDecoder::new(std::fs::File::open(archive).unwrap()));
    let mut files = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.push((name, content));
        }
    }
    files
}
