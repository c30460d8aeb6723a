//! Bindings and codes. A code is a member of its value set, is not, or cannot be told; the last is reported once per value set and check.

use super::rules;
use super::walk::Walk;
use crate::definitions::Strength;
use crate::definitions::program::{Binding, Field};
use crate::definitions::valueset::Membership;
use crate::profile::library::InSystem;
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

    /// A code with a required binding is never just absent: nothing but a code of the value set says what it must.
    pub(super) fn code_absent(&mut self, node: Node<'t>, field: &Field) {
        const ABSENT: &str = "http://hl7.org/fhir/StructureDefinition/data-absent-reason";
        let mut extensions = node.member("extension").into_iter().flat_map(Node::items);
        if !extensions.any(|extension| extension.member("url").is_some_and(|url| url.is_str(ABSENT))) {
            return;
        }
        for binding in field.bindings.iter().filter(|binding| binding.strength == Strength::Required) {
            self.bound(node, binding, Membership::Out);
        }
    }

    /// A Coding: its code exists, and is in the value set it is bound to.
    pub(super) fn coding(&mut self, node: Node<'t>, field: &Field) {
        if let Some((at, system)) = node.member("system").and_then(|system| Some((system, system.as_str()?))) {
            let code = node.member("code").and_then(|code| Some((code, code.as_str()?)));
            self.system(at, &system, code);
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

    /// The system of a Coding is a code system, and has the code.
    fn system(&mut self, at: Node<'t>, system: &str, code: Option<(Node<'t>, std::borrow::Cow<'t, str>)>) {
        let known = if let Some(known) = self.definitions.code_system(system) {
            code.map(|(node, code)| (node, known.contains(self.definitions, &code)))
        } else {
            if !system.contains(':') && !system.starts_with('#') {
                return self.issue(&rules::SYSTEM, at, "Expected an absolute URI");
            }
            let library = self.profiles.as_ref().map(|profiles| profiles.library);
            if system.rsplit_once('/').is_some_and(|(before, _)| before.ends_with("/ValueSet"))
                && (self.definitions.value_set(system).is_some()
                    || library.is_some_and(|library| library.has_set(system)))
            {
                return self.issue(&rules::SYSTEM, at, "Expected a code system, and not a value set");
            }
            let known = library.and_then(|library| library.code_in(system, code.as_ref().map(|(_, code)| &**code)));
            match known {
                Some(InSystem::Supplement) => {
                    let text = "Expected a code system itself, and not a supplement to one";
                    return self.issue(&rules::SYSTEM, at, text);
                }
                Some(InSystem::Out) => code.map(|(node, _)| (node, false)),
                Some(InSystem::In) | None => None,
            }
        };
        if let Some((node, false)) = known {
            self.issue(&rules::CODE_UNKNOWN, node, "Expected a code of the code system that is named beside it");
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
        let definitions = self.definitions;
        let canonical = || definitions.strings().at(binding.canonical).to_owned();
        match member {
            Membership::In => {}
            Membership::Out => {
                let set = canonical();
                self.issue_about(broken, node, format!("Expected a code of the value set {set}"), Some(set));
            }
            Membership::Unknown => {
                if let Some(collected) = &mut self.collected
                    && collected.add(node, &canonical(), binding.strength, (broken, not_checked))
                {
                    return;
                }
                // Of each strength, since a site may have them mean different things.
                if !self.unchecked.contains(&(binding.canonical, binding.strength)) {
                    self.unchecked.push((binding.canonical, binding.strength));
                    let set = canonical();
                    let text = format!("Not checked, here and further on: the value set {set} cannot be expanded");
                    self.issue_about(not_checked, node, text, Some(set));
                }
            }
        }
    }
}
