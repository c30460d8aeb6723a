//! Bindings and codes. A code is a member of its value set, is not, or cannot be told; the last is reported once per value set and check.

use super::rules;
use super::walk::Walk;
use crate::definitions::Strength;
use crate::definitions::program::{Binding, Field};
use crate::definitions::valueset::Membership;
use crate::tree::Node;

impl<'t> Walk<'_, 't> {
    /// A code, uri or string with a binding: the system is implied.
    pub(super) fn bound_text(&mut self, node: Node<'t>, code: &str, field: &Field) {
        for binding in &field.bindings {
            let set = binding.value_set.and_then(|place| self.definitions.value_set_at(place));
            let member = set.map_or(Membership::Unknown, |set| set.contains_code(self.definitions, code));
            self.bound(node, binding, member);
        }
    }

    /// A Coding: its code exists, and is in the value set it is bound to.
    pub(super) fn coding(&mut self, node: Node<'t>, field: &Field) {
        let (system, code) = (node.member("system").and_then(Node::as_str), node.member("code"));
        if let (Some(system), Some(node), Some(code)) = (&system, code, code.and_then(Node::as_str))
            && self.definitions.code_system(system).is_some_and(|known| !known.contains(self.definitions, &code))
        {
            self.issue(&rules::CODE_UNKNOWN, node, "Expected a code of the code system that is named beside it");
        }
        for binding in &field.bindings {
            if let Some(member) = self.coding_member(node, binding) {
                self.bound(node, binding, member);
            } else if binding.strength == Strength::Required && node.member("extension").is_none() {
                // A display or a system alone says no concept.
                self.bound(node, binding, Membership::Out);
            }
        }
    }

    /// A CodeableConcept: any of its codings satisfies the binding.
    pub(super) fn concept(&mut self, node: Node<'t>, field: &Field) {
        for binding in &field.bindings {
            let mut answer = None;
            for coding in node.member("coding").into_iter().flat_map(Node::items) {
                match (self.coding_member(coding, binding), answer) {
                    (Some(Membership::In), _) => {
                        answer = Some(Membership::In);
                        break;
                    }
                    (Some(Membership::Unknown), _) => answer = Some(Membership::Unknown),
                    (Some(Membership::Out), None) => answer = Some(Membership::Out),
                    _ => {}
                }
            }
            match answer {
                Some(answer) => self.bound(node, binding, answer),
                // Text alone does for an extensible binding; an extension may say why there is no code.
                None if binding.strength == Strength::Required && node.member("extension").is_none() => {
                    self.bound(node, binding, Membership::Out);
                }
                None => {}
            }
        }
    }

    /// A Quantity: its unit's code, if it has one.
    pub(super) fn quantity(&mut self, node: Node<'t>, field: &Field) {
        for binding in &field.bindings {
            if let Some(member) = self.coding_member(node, binding) {
                self.bound(node, binding, member);
            }
        }
    }

    /// Whether the object's system and code are in the value set; None without a code.
    fn coding_member(&self, node: Node<'_>, binding: &Binding) -> Option<Membership> {
        let code = node.member("code")?.as_str()?;
        let system = node.member("system").and_then(Node::as_str).unwrap_or_default();
        let set = binding.value_set.and_then(|place| self.definitions.value_set_at(place));
        Some(set.map_or(Membership::Unknown, |set| set.contains(self.definitions, &system, &code)))
    }

    fn bound(&mut self, node: Node<'t>, binding: &Binding, member: Membership) {
        let (broken, not_checked) = match binding.strength {
            Strength::Required => (&rules::REQUIRED, &rules::REQUIRED_NOT_CHECKED),
            Strength::Extensible => (&rules::EXTENSIBLE, &rules::EXTENSIBLE_NOT_CHECKED),
            Strength::Preferred | Strength::Example => return,
        };
        let canonical = || self.definitions.strings().at(binding.canonical).to_owned();
        match member {
            Membership::In => {}
            Membership::Out => {
                let set = canonical();
                self.issue_about(broken, node, format!("Expected a code of the value set {set}"), Some(set));
            }
            Membership::Unknown => {
                if !self.unchecked.contains(&binding.canonical) {
                    self.unchecked.push(binding.canonical);
                    let set = canonical();
                    let text = format!("Not checked, here and further on: the value set {set} cannot be expanded");
                    self.issue_about(not_checked, node, text, Some(set));
                }
            }
        }
    }
}
