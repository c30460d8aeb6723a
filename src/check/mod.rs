//! Check: a normalized unit is held against the rules.
//!
//! Takes: [`Normalized`] and the rules. Gives: [`Checked`], whose existence proves that no issue of severity error was
//! found; it carries the issues of lesser severity. Never: stops at the first issue; changes anything.

mod error;
mod packages;
mod rules;
mod site;

pub use error::RulesError;
pub use rules::Rules;

use std::collections::HashMap;

use sluice_fhir::outcome::{Issue, Severity};

use crate::error::{Error, Refusal, Result};
use crate::normalize::Normalized;

/// A unit against which the rules have nothing, or had nothing when it was staged. Only `check` makes one.
#[derive(Debug)]
pub struct Checked {
    normalized: Normalized,
    issues: Vec<Issue>,
}

/// Checks a unit.
///
/// # Errors
/// 422 with every issue found, if one of them is an error.
pub fn unit(normalized: Normalized, rules: &Rules) -> Result<Checked> {
    match again(normalized, rules) {
        (checked, None) => Ok(checked),
        (_, Some(refusal)) => Err(refusal),
    }
}

/// A unit that was checked before it was staged, and that the upstream may have by now: it goes on whatever the rules say
/// today, with their refusal beside it for who would send it once more.
pub fn again(normalized: Normalized, rules: &Rules) -> (Checked, Option<Error>) {
    let mut issues = issues(&normalized, rules);
    let is_error = |issue: &Issue| matches!(issue.severity, Severity::Error | Severity::Fatal);
    let refusal = issues.iter().any(is_error).then(|| Error::refused(Refusal::Invalid, issues.clone()));
    issues.retain(|issue| !is_error(issue));
    (Checked { normalized, issues }, refusal)
}

fn issues(normalized: &Normalized, rules: &Rules) -> Vec<Issue> {
    // What a reference within the unit points to, so that its type can be held against the element's targets.
    let types: HashMap<&str, &str> = normalized
        .resources()
        .iter()
        .filter_map(|resource| Some((&**resource.full_url()?, &**resource.resource_type())))
        .collect();
    let resolve = |reference: &str| types.get(reference).copied();
    // What could not be mapped is told along with what the rules find.
    let mut issues = normalized.issues().to_vec();
    for resource in normalized.resources() {
        let found = rules.issues_in(resource.tree().root(), Some(&resolve));
        issues.extend(found.into_iter().map(|issue| resource.place().relocate(issue)));
    }
    issues
}

impl Checked {
    /// The unit.
    pub fn normalized(&self) -> &Normalized {
        &self.normalized
    }

    /// What was found that is not an error.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// Hands the unit on.
    pub fn into_normalized(self) -> Normalized {
        self.normalized
    }
}
