//! Why the rules of the settings can't be used.
//!
//! Takes: a file or a setting that is wrong. Gives: a sentence that names it. Never: quotes what stands in it.

use std::path::PathBuf;

use sluice_fhir::tree::Position;

/// What is wrong with the rules of a site.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A file cannot be read.
    #[error("{}: {error}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is not a rule, or a pack of them.
    #[error("{}:{}:{}: expected {expected}", file.display(), position.line, position.column)]
    Rule {
        /// Which.
        file: PathBuf,
        /// Where in it.
        position: Position,
        /// What was expected.
        expected: String,
    },
    /// A package is none, or holds what can't be read.
    #[error("{0}")]
    Package(String),
    /// A profile is named that no package has.
    #[error("no package has the profile {0}")]
    Profile(String),
    /// The settings give a severity to a rule that does not exist.
    #[error("check.severity: there is no rule `{0}`")]
    Unknown(String),
    /// The settings give a severity to a rule whose severity is fixed.
    #[error("check.severity: the severity of `{0}` is fixed")]
    Fixed(String),
}
