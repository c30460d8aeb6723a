//! Profiles against data: cases of our own, HL7's validator suite, and the examples that implementation guides bring.
//! Set `SLUICE_BLESS=1` to write expected results anew; then read the difference.

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
mod limits;

use std::sync::Arc;

use bytes::Bytes;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::outcome::{Issue, Severity};
use sluice_fhir::package::{self, Package};
use sluice_fhir::profile::Library;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;

use crate::expected::{bless, table};
use crate::files::{archive, path};

fn package(relative: &str) -> Package {
    Package::from_tgz(&std::fs::read(path(relative)).unwrap(), &package::Limits::default()).unwrap()
}

fn validator(packages: &[Package]) -> Validator {
    Validator::r4().with_library(Arc::new(Library::new(Definitions::r4(), packages).unwrap()))
}

/// The issues of a document.
fn issues(validator: &Validator, content: &Bytes) -> Vec<Issue> {
    let tree = Tree::parse(content.clone(), &Limits::default()).unwrap();
    validator.validate(tree.root())
}

fn is_error(issue: &Issue) -> bool {
    matches!(issue.severity, Severity::Fatal | Severity::Error)
}
