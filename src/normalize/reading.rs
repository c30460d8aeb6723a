//! What is not FHIR R4, told by name.
//!
//! Takes: a unit's entries. Gives: a refusal for resource types that R4 does not have, and for other releases of FHIR.
//! Never: takes a resource for one of another release if R4 fits as well; a single strange member is for `check` to find.

use std::borrow::Cow;

use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::release::{self, Release};
use sluice_fhir::resource_type;
use sluice_fhir::tree::Node;

use crate::error::{Error, Refusal, Result};
use crate::ingest::unit::Entry;

/// Resources of a unit whose shape is looked at: a unit has one release, so a part of it tells.
const LOOKED_AT_MAX: usize = 64;

/// Refuses what is not R4.
///
/// # Errors
/// 400 with the release, and with every resource type that R4 does not have.
pub(super) fn r4(entries: &[Entry]) -> Result<()> {
    let mut issues = Vec::new();
    let step = entries.len().div_ceil(LOOKED_AT_MAX).max(1);
    let looked_at = entries.iter().step_by(step).map(|entry| entry.tree.root());
    let release = release::guess_all(looked_at);
    if let (Some(release @ (Release::Dstu2 | Release::Stu3 | Release::R5)), Some(entry)) = (release, entries.first()) {
        let text = format!("a resource of FHIR R4 (4.0.1); by its types and members this is {release}");
        issues.push(issue(entry, entry.tree.root(), "normalize.release", text));
    }
    for entry in entries.iter().filter(|it| !resource_type::is_type(&it.resource_type)) {
        let root = entry.tree.root();
        let node = root.member("resourceType").unwrap_or(root);
        issues.push(issue(entry, node, "normalize.resource-type", "a resource type of FHIR R4 (4.0.1)".to_owned()));
    }
    if issues.is_empty() { Ok(()) } else { Err(Error::refused(Refusal::Malformed, issues)) }
}

fn issue(entry: &Entry, node: Node<'_>, rule: &'static str, text: String) -> Issue {
    entry.place.relocate(Issue {
        severity: Severity::Fatal,
        code: IssueType::NotSupported,
        rule: Cow::Borrowed(rule),
        expression: Some(node.path()),
        position: Some(node.position()),
        text,
        about: None,
    })
}
