//! What is to change in one resource.
//!
//! Takes: nodes with what they become, by which pack. Gives: the changes, their paths, the packs that made them, and
//! issues. Never: writes a value into an issue.

use std::borrow::Cow;
use std::collections::BTreeSet;

use sluice_fhir::edit::Edits;
use sluice_fhir::outcome::{Issue, IssueType};
use sluice_fhir::tree::{Node, Tree};

use super::table::Unmapped;

/// Issues of one resource; a pack that does not fit a site would else write one for every value.
const ISSUES_MAX: usize = 100;

/// The changes to one resource, and what was found on the way.
#[derive(Debug)]
pub(super) struct Overlay {
    pub edits: Edits,
    /// The paths of what was changed, in the order of the packs' kinds.
    pub paths: Vec<String>,
    /// The packs that changed something, by their number.
    pub packs: BTreeSet<usize>,
    pub issues: Vec<Issue>,
}

impl Overlay {
    pub(super) fn new(tree: &Tree) -> Self {
        Self { edits: Edits::new(tree), paths: Vec::new(), packs: BTreeSet::new(), issues: Vec::new() }
    }

    /// Puts a text in place of a string.
    pub(super) fn set(&mut self, node: Node<'_>, text: &str, pack: usize) {
        self.edits.set_str(node, text);
        self.changed(node, pack);
    }

    /// Notes that a pack has changed a value, or added to it.
    pub(super) fn changed(&mut self, node: Node<'_>, pack: usize) {
        self.packs.insert(pack);
        let path = node.path();
        if self.paths.last() != Some(&path) {
            self.paths.push(path);
        }
    }

    /// Notes what could not be mapped.
    pub(super) fn unmapped(&mut self, node: Node<'_>, unmapped: Unmapped, rule: &'static str, text: &str) {
        let Some(severity) = unmapped.severity() else { return };
        if self.issues.len() == ISSUES_MAX {
            return;
        }
        self.issues.push(Issue {
            severity,
            code: IssueType::Value,
            rule: Cow::Borrowed(rule),
            expression: Some(node.path()),
            position: Some(node.position()),
            text: text.to_owned(),
            about: None,
        });
    }
}
