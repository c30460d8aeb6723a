//! StructureDefinitions: what they define goes with what they derive from, their elements are of their type, and their slices can be told
//! (FHIR R4 structuredefinition.html, profiling.html).

use super::rules;
use super::walk::Walk;
use crate::definitions::TypeKind;
use crate::package::{extension, items, text, unversioned};
use crate::path::Type;
use crate::profile::library::Named;
use crate::tree::Node;

const CORE: &str = "http://hl7.org/fhir/StructureDefinition/";
const FHIR_TYPE: &str = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type";
/// Types whose values are codes, or hold them.
const CODED: [&str; 15] = [
    "code",
    "Coding",
    "CodeableConcept",
    "CodeableReference",
    "Quantity",
    "Age",
    "Count",
    "Distance",
    "Duration",
    "string",
    "uri",
    "url",
    "canonical",
    "markdown",
    "Money",
];

impl<'t> Walk<'_, 't> {
    pub(super) fn structure(&mut self, structure: Node<'t>) {
        let Some((at, ty)) = structure.member("type").and_then(|at| Some((at, at.as_str()?))) else { return };
        let is_known = self.definitions.type_named(&ty).is_some();
        let is_specialization = structure.member("derivation").is_some_and(|at| at.is_str("specialization"));
        if !ty.contains(':') && !is_known {
            self.issue(&rules::STRUCTURE, at, "Expected a type of FHIR, or one with a namespace: an absolute URL");
        }
        self.derivation(structure, &ty, is_specialization);
        let name = ty.rsplit('/').next().unwrap_or_default();
        for list in ["differential", "snapshot"] {
            let elements = structure.member(list).into_iter().flat_map(|list| items(list, "element"));
            for element in elements {
                if self.is_full() {
                    return;
                }
                self.definition(element, name, list == "differential");
            }
        }
        self.extension_definition(structure, &ty);
    }

    /// Type and kind are those of the base, or, of a type of its own, another's.
    fn derivation(&mut self, structure: Node<'t>, ty: &str, is_specialization: bool) {
        let Some(canonical) = text(structure, "baseDefinition") else { return };
        let library = self.profiles.as_ref().map(|profiles| profiles.library);
        let written = library.and_then(|library| library.written(&canonical, "StructureDefinition"));
        let core = unversioned(&canonical).strip_prefix(CORE).and_then(|name| self.definitions.type_named(name));
        let (base, kind) = match (&written, core) {
            (Some(tree), _) => (text(tree.root(), "type"), text(tree.root(), "kind")),
            (None, Some(id)) => {
                let kind = match self.definitions.type_kind(id) {
                    TypeKind::Primitive => "primitive-type",
                    TypeKind::Complex => "complex-type",
                    TypeKind::Resource => "resource",
                };
                (Some(self.definitions.type_name(id).to_owned()), Some(kind.to_owned()))
            }
            (None, None) => return,
        };
        if base.as_deref().is_some_and(|base| (base == ty) == is_specialization) {
            let text = if is_specialization {
                "Expected another type than that of the base, which is specialized"
            } else {
                "Expected the type of the base, which is constrained"
            };
            self.issue(&rules::STRUCTURE, structure, text);
        }
        if let (false, Some(own), Some(kind)) = (is_specialization, text(structure, "kind"), kind)
            && own != kind
        {
            self.issue(&rules::STRUCTURE, structure, "Expected the kind of the base, which is constrained");
        }
    }

    /// One element of a differential or snapshot.
    fn definition(&mut self, element: Node<'t>, type_name: &str, is_differential: bool) {
        let Some(path) = text(element, "path") else { return };
        let below = path.strip_prefix(type_name);
        if !below.is_some_and(|below| below.is_empty() || below.starts_with('.')) {
            self.issue(&rules::STRUCTURE, element, "Expected a path that begins with the type");
        }
        if is_differential && !path.contains('.') && element.member("slicing").is_some() {
            self.issue(&rules::STRUCTURE, element, "Expected no slicing of the whole");
        }
        if let Some(slicing) = element.member("slicing") {
            let sliced = self.type_at(&path);
            for discriminator in items(slicing, "discriminator") {
                if let (Some(ty), Some(path)) = (sliced, text(discriminator, "path"))
                    && !self.leads_somewhere(ty, &path)
                {
                    let text = "Expected a path to an element of what is sliced";
                    self.issue(&rules::STRUCTURE, discriminator, text);
                }
            }
        }
        let mut codes = Vec::new();
        for ty in items(element, "type") {
            let of = extension(ty, FHIR_TYPE, "valueUrl").or_else(|| extension(ty, FHIR_TYPE, "valueUri"));
            let Some(code) = of.or_else(|| ty.member("code")).and_then(Node::as_str) else { continue };
            self.type_profiles(ty, &code, &path);
            if ty.member("targetProfile").is_some()
                && !matches!(&*code, "Reference" | "canonical" | "CodeableReference")
            {
                self.issue(&rules::STRUCTURE, element, "Expected targets of references only");
            }
            codes.push(code.into_owned());
        }
        let is_plain = |code: &String| self.definitions.type_named(code).is_some() && !CODED.contains(&&**code);
        if element.member("binding").is_some() && !codes.is_empty() && codes.iter().all(is_plain) {
            self.issue(&rules::STRUCTURE, element, "Expected a binding of coded types only");
        }
    }

    /// The profiles of an element's type are for that type.
    fn type_profiles(&mut self, ty: Node<'t>, code: &str, path: &str) {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return };
        for at in items(ty, "profile") {
            let Some(canonical) = at.as_str() else { continue };
            let canonical = canonical.split_once('#').map_or(&*canonical, |(url, _)| url);
            let (of, modifies) = match library.named(canonical) {
                Named::Profile(profile) => (profile.of, profile.is_modifier),
                Named::Type(id) => (id, false),
                Named::Broken(_) | Named::Unknown => continue,
            };
            let is_any = matches!(code, "Resource" | "DomainResource" | "Element" | "BackboneElement");
            if !is_any && self.definitions.type_named(code).is_some() && self.definitions.type_name(of) != code {
                self.issue(&rules::STRUCTURE, at, format!("Expected a profile for the type {code}"));
            } else if code == "Extension" && modifies != path.ends_with("modifierExtension") {
                let text = "Expected modifier extensions where they may modify, and others elsewhere";
                self.issue(&rules::STRUCTURE, at, text);
            }
        }
    }

    /// The definition of an extension fixes its url.
    fn extension_definition(&mut self, structure: Node<'t>, ty: &str) {
        let is_extension = ty == "Extension"
            && structure.member("baseDefinition").is_some_and(|base| base.is_str(&format!("{CORE}Extension")));
        let Some(url) = text(structure, "url").filter(|_| is_extension) else { return };
        let fixed = ["snapshot", "differential"].iter().find_map(|list| {
            let mut elements = structure.member(list).into_iter().flat_map(|list| items(list, "element"));
            let own =
                elements.find(|element| element.member("path").is_some_and(|path| path.is_str("Extension.url")))?;
            text(own, "fixedUri")
        });
        if fixed != Some(url) && structure.member("differential").is_some() {
            self.issue(
                &rules::STRUCTURE,
                structure,
                "Expected the extension's url to be fixed, to that of its definition",
            );
        }
    }

    /// The type of an element of the core, by its path; None where that is a choice, or more than one thing.
    fn type_at(&self, path: &str) -> Option<Type> {
        let mut names = path.split('.');
        let mut ty = Type::Object(self.definitions.type_named(names.next()?)?, 0);
        for name in names {
            let shape = ty.shape(self.definitions)?;
            ty = ty.at(shape.slot(name)?.kind)?;
        }
        Some(ty)
    }

    /// Whether a discriminator's path can lead to something; true where only the definitions of a profile tell.
    fn leads_somewhere(&self, mut ty: Type, path: &str) -> bool {
        for step in path.split('.') {
            if step == "$this" {
                continue;
            }
            let Some(shape) = ty.shape(self.definitions) else { return true };
            // Functions, and what may be any resource.
            if !step.bytes().all(|byte| byte.is_ascii_alphanumeric()) || shape.is_resource {
                return true;
            }
            match shape.slot(step) {
                Some(slot) => match ty.at(slot.kind) {
                    Some(next) => ty = next,
                    None => return true,
                },
                None => return shape.choice(step).is_some(),
            }
        }
        true
    }
}
