//! What a walk has found: issues before their locations are written out, and how many there may be. Takes a rule and a node;
//! gives issues in the order in which they were found. Never keeps more than the walk's bound of either kind.

use super::Walk;
use crate::outcome::{Issue, Severity};
use crate::tree::Node;
use crate::validate::rules::{self, Rule};

/// What was found before something else was asked.
pub(in crate::validate) struct Kept<'t> {
    found: Vec<Found<'t>>,
    errors: usize,
    minor: usize,
    minor_dropped: bool,
    issues_max: usize,
}

/// An issue before its location is written out.
pub(super) struct Found<'t> {
    pub(super) rule: &'static Rule,
    /// Severity and id, if the rule leaves them to the definitions, as that of invariants does.
    pub(super) invariant: Option<(Severity, String)>,
    pub(super) node: Node<'t>,
    /// The element that the issue is about, where the node is no element or too small a part of it.
    pub(super) element: Option<Node<'t>>,
    pub(super) text: String,
    pub(super) about: Option<String>,
}

impl<'t> Walk<'_, 't> {
    pub(in crate::validate) fn issue(&mut self, rule: &'static Rule, node: Node<'t>, text: impl Into<String>) {
        self.issue_about(rule, node, text, None);
    }

    pub(in crate::validate) fn issue_about(
        &mut self,
        rule: &'static Rule,
        node: Node<'t>,
        text: impl Into<String>,
        about: Option<String>,
    ) {
        self.add(rule.severity, Found { rule, invariant: None, node, element: None, text: text.into(), about });
    }

    /// An issue of an element that is seen at a node within it.
    pub(in crate::validate) fn issue_of(
        &mut self,
        rule: &'static Rule,
        element: Node<'t>,
        node: Node<'t>,
        text: impl Into<String>,
    ) {
        let text = text.into();
        self.add(rule.severity, Found { rule, invariant: None, node, element: Some(element), text, about: None });
    }

    /// An issue with the severity that a definition says.
    pub(in crate::validate) fn issue_as(
        &mut self,
        severity: Severity,
        rule: &'static Rule,
        node: Node<'t>,
        text: String,
        about: Option<String>,
    ) {
        let said = Some((severity, rule.id.to_owned()));
        self.add(severity, Found { rule, invariant: said, node, element: None, text, about });
    }

    /// Puts aside what was found, and looks for one error only.
    pub(in crate::validate) fn set_aside(&mut self) -> Kept<'t> {
        let kept = Kept {
            found: std::mem::take(&mut self.found),
            errors: self.errors,
            minor: self.minor,
            minor_dropped: self.minor_dropped,
            issues_max: self.issues_max,
        };
        (self.errors, self.minor, self.issues_max) = (0, 0, 1);
        kept
    }

    /// Takes back what was put aside; whether an error was found meanwhile.
    pub(in crate::validate) fn take_back(&mut self, kept: Kept<'t>) -> bool {
        let found_error = self.errors > 0;
        self.found = kept.found;
        (self.errors, self.minor) = (kept.errors, kept.minor);
        (self.minor_dropped, self.issues_max) = (kept.minor_dropped, kept.issues_max);
        found_error
    }

    /// Whether an issue was found already.
    pub(in crate::validate) fn has(&self, rule: &'static Rule, node: Node<'t>, text: &str) -> bool {
        let same =
            |found: &Found<'t>| std::ptr::eq(found.rule, rule) && found.node.id() == node.id() && found.text == text;
        self.found.iter().any(same)
    }

    /// An invariant of a profile that is broken.
    pub(in crate::validate) fn invariant_broken(
        &mut self,
        severity: Severity,
        id: String,
        node: Node<'t>,
        text: String,
        about: Option<String>,
    ) {
        if !self.has(&rules::INVARIANT, node, &text) {
            self.add(
                severity,
                Found { rule: &rules::INVARIANT, invariant: Some((severity, id)), node, element: None, text, about },
            );
        }
    }

    pub(super) fn add(&mut self, severity: Severity, found: Found<'t>) {
        let count = match severity {
            Severity::Fatal | Severity::Error => &mut self.errors,
            Severity::Warning | Severity::Information => &mut self.minor,
        };
        if *count < self.issues_max {
            *count += 1;
            self.found.push(found);
        } else if matches!(severity, Severity::Warning | Severity::Information) {
            self.minor_dropped = true;
        }
    }
}

impl<'t> Found<'t> {
    /// What a rule says of itself, told of a whole resource.
    pub(super) fn of(rule: &'static Rule, node: Node<'t>) -> Self {
        Self { rule, invariant: None, node, element: None, text: rule.about.to_owned(), about: None }
    }

    pub(super) fn into_issue(self) -> Issue {
        Issue {
            severity: self.invariant.as_ref().map_or(self.rule.severity, |(severity, _)| *severity),
            code: self.rule.code,
            rule: self.invariant.map_or(self.rule.id.into(), |(_, id)| id.into()),
            // In FHIRPath the extensions of a primitive are below the element itself: `birthDate.extension`.
            expression: Some(self.element.unwrap_or(self.node).path().replace("._", ".")),
            position: Some(self.node.position()),
            text: self.text,
            about: self.about,
        }
    }
}
