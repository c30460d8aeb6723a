//! FHIRPath against HL7's test suite, against properties that must always hold, and at its limits.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../shared/files.rs"]
mod files;
mod properties;
mod suite;

use bytes::Bytes;
use sluice_fhir::tree::{Limits, Tree};

/// The files of HL7's suite.
const SUITE: &str = "crates/fhir/tests/data/fhirpath-r4.tgz";

fn tree(content: &Bytes) -> Tree {
    Tree::parse(content.clone(), &Limits::default()).unwrap()
}
