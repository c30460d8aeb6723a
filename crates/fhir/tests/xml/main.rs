//! FHIR's XML: cases of our own, HL7's examples there and back, the XML files of HL7's suites, and what must hold for any
//! document. Set `SLUICE_BLESS=1` to write the expected results anew; then read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test fails by panicking, its helpers too; names of files in archives are as they are"
)]

mod cases;
mod examples;
mod properties;
mod suite;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::xml::{self, XmlError};

/// A path from the root of the repository.
fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

#[expect(clippy::disallowed_methods, reason = "a switch of the tests, not a setting")]
fn bless() -> bool {
    std::env::var_os("SLUICE_BLESS").is_some()
}

/// The regular files of a packed folder.
fn archive(relative: &str) -> BTreeMap<String, Vec<u8>> {
    let file = std::fs::read(path(relative)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&*file));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let name = entry.path().unwrap().to_string_lossy().trim_start_matches("./").to_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(name, content);
        }
    }
    files
}

fn read(document: &[u8]) -> Result<Tree, XmlError> {
    xml::read(document, &Limits::default(), &Definitions::r4())
}

/// A table of tab-separated lines; `#` begins a comment line.
fn table(relative: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path(relative)).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once('\t').map(|(name, reason)| (name.to_owned(), reason.to_owned())).unwrap())
        .collect()
}
