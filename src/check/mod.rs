//! Check: a normalized unit is held against the rules.
//!
//! Takes: [`Normalized`] and the rules in force. Gives: [`Checked`], whose existence proves that no issue of severity error was
//! found by the one set of rules that it names; it carries the issues of lesser severity. Never: stops at the first issue;
//! changes anything; changes the set of rules on the way.

mod decide;
mod document;
mod error;
mod packages;
mod rulebook;
mod rules;
mod site;

pub use error::RulesError;
pub use rulebook::{Look, Rulebook};
pub use rules::{Asking, Rules, Sources};

use std::collections::HashMap;
use std::sync::Arc;

use sluice_fhir::definitions::Strength;
use sluice_fhir::outcome::{Issue, Severity};
use sluice_fhir::validate::{Report, Undecided};
use time::format_description::well_known::Rfc3339;

use crate::config;
use crate::error::{Error, Refusal, Result};
use crate::normalize::Normalized;
use crate::terminology::Terminology;

/// The rules of codes that nobody could tell, by the strength of their bindings.
const OPEN: [(&str, Strength); 2] =
    [("binding.required-not-checked", Strength::Required), ("binding.extensible-not-checked", Strength::Extensible)];

/// A unit against which the rules have nothing, or had nothing when it was staged. Only `check` makes one.
#[derive(Debug)]
pub struct Checked {
    normalized: Normalized,
    issues: Vec<Issue>,
    rules: Option<Arc<str>>,
}

/// Checks a unit.
///
/// # Errors
/// 422 with every issue found, if one of them is an error; an outage, where the settings want codes to be told and nobody
/// can.
pub async fn unit(normalized: Normalized, rulebook: &Rulebook) -> Result<Checked> {
    let rules = rulebook.current();
    let report = found(&normalized, &rules, rulebook.terminology().is_some());
    let sender = Arc::clone(&normalized.context().caller.institution);
    let mut issues = normalized.issues().to_vec();
    // What is wrong whatever a code means is final, and is told even if nobody can tell the rest.
    let is_final = |issue: &Issue| is_error(issue) && !OPEN.iter().any(|(rule, _)| issue.rule == *rule);
    let known = report.issues.iter().any(is_final).then(|| report.issues.clone());
    match (decided(report, &rules, rulebook.terminology(), Some(&sender)).await, known) {
        (Ok(decided), _) => issues.extend(decided),
        (Err(_), Some(known)) => issues.extend(known),
        (Err(outage), None) => return Err(outage),
    }
    if issues.iter().any(is_error) {
        return Err(Error::refused(Refusal::Invalid, issues));
    }
    Ok(Checked { normalized, issues, rules: Some(Arc::clone(rules.id())) })
}

/// A unit that was checked before it was staged, and that the upstream may have by now: it goes on whatever the rules say
/// today, with their refusal beside it for who would send it once more. What a terminology server has said then is not asked
/// again.
pub fn again(normalized: Normalized, rulebook: &Rulebook) -> (Checked, Option<Error>) {
    let rules = rulebook.current();
    let mut issues = normalized.issues().to_vec();
    issues.extend(found(&normalized, &rules, rulebook.terminology().is_some()).issues);
    let refusal = issues.iter().any(is_error).then(|| Error::refused(Refusal::Invalid, issues.clone()));
    issues.retain(|issue| !is_error(issue));
    (Checked { normalized, issues, rules: None }, refusal)
}

/// Every issue of what the rules have found in a resource of that sender, with what a terminology server says of the rest.
///
/// # Errors
/// An outage, where the settings want codes to be told and nobody can.
pub async fn decided(
    report: Report,
    rules: &Rules,
    terminology: Option<&dyn Terminology>,
    sender: Option<&str>,
) -> Result<Vec<Issue>> {
    let Report { mut issues, undecided } = report;
    if let Some(terminology) = terminology {
        let mut told = decide::issues(undecided, terminology, rules.unknown()).await?;
        rules.set(&mut told, sender);
        issues.extend(told);
    }
    // What the validator itself could not ask about (a slice, an invariant's memberOf) stays a note; a binding that it
    // could not hand on is as open as one that nobody could tell.
    let unknown = rules.unknown();
    for (rule, strength) in OPEN {
        let is_wanted = decide::setting(strength, unknown) == config::Unknown::Outage;
        if is_wanted && issues.iter().any(|issue| issue.rule == rule && is_error(issue)) {
            return Err(decide::outage(strength, None));
        }
    }
    Ok(issues)
}

fn is_error(issue: &Issue) -> bool {
    matches!(issue.severity, Severity::Error | Severity::Fatal)
}

/// What the rules find in the resources of a unit, at their places in what was sent.
fn found(normalized: &Normalized, rules: &Rules, decides: bool) -> Report {
    // What a reference within the unit points to, so that its type can be held against the element's targets.
    let types: HashMap<&str, &str> = normalized
        .resources()
        .iter()
        .filter_map(|resource| Some((&**resource.full_url()?, &**resource.resource_type())))
        .collect();
    let resolve = |reference: &str| types.get(reference).copied();
    let context = normalized.context();
    let now = context.received_at.format(&Rfc3339).ok();
    let asking = Asking {
        sender: Some(&context.caller.institution),
        now: now.as_deref(),
        resolve: Some(&resolve),
        profile: None,
        decides,
    };
    let mut whole = Report::default();
    for resource in normalized.resources() {
        let report = rules.report(resource.tree().root(), asking);
        let place = resource.place();
        whole.issues.extend(report.issues.into_iter().map(|issue| place.relocate(issue)));
        whole.undecided.extend(report.undecided.into_iter().map(|one| Undecided {
            broken: place.relocate(one.broken),
            not_checked: place.relocate(one.not_checked),
            ..one
        }));
    }
    whole
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

    /// The set of rules that it was held against; none if it was taken up again after its first attempt.
    pub fn rules(&self) -> Option<&Arc<str>> {
        self.rules.as_ref()
    }

    /// Hands the unit on.
    pub fn into_normalized(self) -> Normalized {
        self.normalized
    }
}
