//! FHIR's XML: cases of our own, HL7's examples there and back, the XML files of HL7's suites, and what must hold for any
//! document. Set `SLUICE_BLESS=1` to write the expected results anew; then read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test fails by panicking, its helpers too; names of files in archives are as they are"
)]

mod cases;
mod examples;
#[path = "../shared/expected.rs"]
mod expected;
#[path = "../shared/files.rs"]
mod files;
mod properties;
mod suite;

use std::collections::BTreeMap;

use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::xml::{self, XmlError};

use crate::expected::{bless, table};
use crate::files::{archive, path};

fn read(document: &[u8]) -> Result<Tree, XmlError> {
    xml::read(document, &Limits::default(), &Definitions::r4())
}

/// What is known to differ, with its reason.
fn known(relative: &str) -> BTreeMap<String, String> {
    let pair = |line: Vec<String>| -> [String; 2] { line.try_into().unwrap() };
    table(relative).into_iter().map(pair).map(Into::into).collect()
}
