//! `$validate` (FHIR R4 resource-operation-validate.html): what the rules find in a resource that is not sent to be kept.
//!
//! Takes: what was asked. Gives: every issue. Never: reads or writes the store, so that nothing can be learnt by it of what is
//! recorded; makes a unit of what was sent.

use std::borrow::Cow;

use http::Uri;
use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::validate::Report;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::check::{Asking, Rules};
use crate::error::{Error, Refusal, Result};
use crate::ingest::asked::{self, Asked, Limits, Mode, Target};
use crate::ingest::unit::Caller;
use crate::ingest::units::Format;
use crate::normalize::percent_decoded;
use crate::store::spool::Spool;

/// What a URL asks for: `[base]/[type]/[id]/$validate?mode=…&profile=…`, type and id where they are there.
///
/// # Errors
/// 400 for parameters that the operation does not have, or that are not well formed.
pub(super) fn target(resource_type: Option<String>, id: Option<String>, uri: &Uri) -> Result<Target> {
    let mut target = Target { resource_type, id, ..Target::default() };
    let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // FHIR R4 http.html#mime-type: for clients that cannot set headers; what is accepted stands in those.
        if matches!(name, "_format" | "_pretty") {
            continue;
        }
        let slot = match name {
            "mode" => &mut target.mode,
            "profile" => &mut target.profile,
            _ => return Err(no("`mode` and `profile` as the only parameters of the URL")),
        };
        let value = percent_decoded(&value.replace('+', " ")).filter(|it| !it.is_empty());
        let value = value.ok_or_else(|| no("values in UTF-8, percent-encoded"))?;
        if slot.replace(value).is_some() {
            return Err(no("each parameter once, in the URL or in the body"));
        }
    }
    Ok(target)
}

fn no(text: &'static str) -> Error {
    Error::refusal(Refusal::Malformed, "validate.parameter", text)
}

/// What the rules find in what was asked about, and what is wrong beside. Works for as long as the resource takes, so it is
/// called where that holds up nobody.
///
/// # Errors
/// Those of [`asked::read`].
pub(super) fn found(
    spool: Spool,
    format: Format,
    target: Target,
    limits: &Limits,
    caller: &Caller,
    rules: &Rules,
    decides: bool,
) -> Result<(Vec<Issue>, Report)> {
    let mut asked = asked::read(spool, format, target, limits)?;
    asked.of_caller(caller);
    let Asked { resource, place, mut issues, mode, profile } = asked;
    if mode == Some(Mode::Delete) {
        issues.push(not_deleted());
    }
    let Some(tree) = resource else { return Ok((issues, Report::default())) };
    let now = OffsetDateTime::now_utc().format(&Rfc3339).ok();
    let asking = Asking {
        sender: Some(&caller.institution),
        now: now.as_deref(),
        resolve: None,
        profile: profile.as_deref(),
        decides,
    };
    let mut report = rules.document(tree.root(), asking);
    report.issues = report.issues.into_iter().map(|issue| place.relocate(issue)).collect();
    for one in &mut report.undecided {
        one.broken = place.relocate(one.broken.clone());
        one.not_checked = place.relocate(one.not_checked.clone());
    }
    Ok((issues, report))
}

/// What is recorded is evidence: nothing is deleted by a request.
fn not_deleted() -> Issue {
    Issue {
        severity: Severity::Error,
        code: IssueType::NotSupported,
        rule: Cow::Borrowed("validate.delete"),
        expression: None,
        position: None,
        text: "Expected another mode: this gateway has no interaction that deletes".to_owned(),
        about: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_mode_and_profile_once() {
        let read = |query: &str| target(None, None, &format!("/fhir/$validate{query}").parse().unwrap());
        let found = read("?profile=http%3A%2F%2Fx.example%2Fp%7C1&mode=update&_format=json").unwrap();
        assert_eq!(found.profile.as_deref(), Some("http://x.example/p|1"));
        assert_eq!(found.mode.as_deref(), Some("update"));
        assert!(read("").unwrap().profile.is_none());
        for bad in ["?mode=create&mode=create", "?mode=", "?mode", "?profile=%F", "?subject=Patient/1"] {
            assert_eq!(read(bad).unwrap_err().rule(), "validate.parameter", "{bad}");
        }
    }
}
