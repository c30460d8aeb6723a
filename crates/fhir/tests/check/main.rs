//! The validator and the package builder against data: cases of our own, HL7's validator suite, HL7's examples, and Synthea bundles.
//! Set `SLUICE_BLESS=1` to write the expected results anew; then read the difference.

#![allow(
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    reason = "a test fails by panicking, its helpers too; names of files in archives are as they are"
)]

mod around;
mod cases;
mod examples;
#[path = "../shared/expected.rs"]
mod expected;
#[path = "../shared/files.rs"]
mod files;
mod hl7;
mod limits;
mod package;
mod policy;
mod release;
mod synthea;

use bytes::Bytes;
use sluice_fhir::outcome::{Issue, Severity};
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;

use crate::expected::{bless, table};
use crate::files::{archive, path};

/// The issues of a document; a syntax error counts as one.
fn issues(content: &Bytes) -> Result<Vec<Issue>, String> {
    let tree = Tree::parse(content.clone(), &Limits::default()).map_err(|error| error.to_string())?;
    Ok(Validator::r4().validate(tree.root()))
}

fn is_error(issue: &Issue) -> bool {
    matches!(issue.severity, Severity::Fatal | Severity::Error)
}
