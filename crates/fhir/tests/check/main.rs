//! The validator and the package builder against data: cases of our own, HL7's validator suite, HL7's examples, and Synthea bundles.
//! Set `SLUICE_BLESS=1` to write the expected results anew; then read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test fails by panicking, its helpers too; names of files in archives are as they are"
)]

mod cases;
mod examples;
mod hl7;
mod limits;
mod package;
mod release;
mod synthea;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use bytes::Bytes;
use sluice_fhir::outcome::{Issue, Severity};
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;

/// A path from the root of the repository.
fn path(relative: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(relative)
}

#[expect(clippy::disallowed_methods, reason = "a switch of the tests, not a setting")]
fn bless() -> bool {
    std::env::var_os("SLUICE_BLESS").is_some()
}

/// The regular files of a `.tar.gz`.
fn archive(relative: &str) -> BTreeMap<String, Bytes> {
    let file = std::fs::read(path(relative)).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&*file));
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
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

/// The issues of a document; a syntax error counts as one.
fn issues(content: &Bytes) -> Result<Vec<Issue>, String> {
    let tree = Tree::parse(content.clone(), &Limits::default()).map_err(|error| error.to_string())?;
    Ok(Validator::r4().validate(tree.root()))
}

fn is_error(issue: &Issue) -> bool {
    matches!(issue.severity, Severity::Fatal | Severity::Error)
}

/// A table of tab-separated lines; `#` begins a comment line.
fn table(relative: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path(relative)).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect()
}
