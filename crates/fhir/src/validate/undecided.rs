//! Codes that the packages cannot tell: what was asked, and what it becomes once somebody else has answered. Collected by
//! the walk, decided by the caller, who may ask a terminology server; the walk itself never waits.

use std::collections::HashSet;

use super::rules::Rule;
use crate::definitions::Strength;
use crate::outcome::Issue;
use crate::tree::{Node, NodeId};

/// Codes that are collected by one check; beyond, they are reported as not checked.
const UNDECIDED_MAX: usize = 10_000;

/// A coded element of which the packages cannot tell whether it is in its value set. Holds values of the record: never to be
/// logged.
pub struct Undecided {
    /// The canonical of the value set, with its version if the binding names one.
    pub value_set: String,
    /// How strong the binding is: required or extensible.
    pub strength: Strength,
    /// The element's codes, of which one in the value set is enough; never empty.
    pub codings: Vec<Coding>,
    /// What it is if none is in the value set.
    pub broken: Issue,
    /// What it is if nobody can tell.
    pub not_checked: Issue,
}

/// A code as it is written.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Coding {
    /// Its system; None for an element that is a code alone, whose system the value set implies.
    pub system: Option<String>,
    /// The version of the system.
    pub version: Option<String>,
    /// The code.
    pub code: String,
}

/// What a walk has collected.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) found: Vec<Undecided>,
    known: HashSet<(NodeId, String, Strength)>,
}

impl Collected {
    /// Collects an element; false if it is to be reported as not checked.
    pub(super) fn add(
        &mut self,
        node: Node<'_>,
        value_set: &str,
        strength: Strength,
        (broken, not_checked): (&'static Rule, &'static Rule),
    ) -> bool {
        let key = (node.id(), value_set.to_owned(), strength);
        // Profiles of the core and of packages often bind an element to the same set.
        if self.known.contains(&key) {
            return true;
        }
        let codings = codings(node);
        if codings.is_empty() || self.found.len() >= UNDECIDED_MAX {
            return false;
        }
        let url = crate::package::unversioned(value_set).to_owned();
        let issue = |rule: &'static Rule, text: String| Issue {
            severity: rule.severity,
            code: rule.code,
            rule: rule.id.into(),
            expression: Some(node.path().replace("._", ".")),
            position: Some(node.position()),
            text,
            about: Some(url.clone()),
        };
        self.known.insert(key);
        self.found.push(Undecided {
            value_set: value_set.to_owned(),
            strength,
            codings,
            broken: issue(broken, format!("Expected a code of the value set {url}")),
            not_checked: issue(not_checked, format!("Not checked: nobody could tell what the value set {url} holds")),
        });
        true
    }
}

/// The codes of a code, a Coding, a Quantity or a CodeableConcept.
fn codings(node: Node<'_>) -> Vec<Coding> {
    let text = |node: Node<'_>, name: &str| Some(node.member(name)?.as_str()?.into_owned());
    let of = |node: Node<'_>| {
        Some(Coding { system: text(node, "system"), version: text(node, "version"), code: text(node, "code")? })
    };
    if let Some(code) = node.as_str() {
        return vec![Coding { system: None, version: None, code: code.into_owned() }];
    }
    match node.member("coding") {
        Some(list) => list.items().filter_map(of).collect(),
        None => of(node).into_iter().collect(),
    }
}
