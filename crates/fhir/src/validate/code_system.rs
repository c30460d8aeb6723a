//! CodeSystems: their properties and codes hold together (FHIR R4 codesystem.html), and supplements are what they say.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::rules;
use super::walk::Walk;
use crate::package::{items, text};
use crate::tree::Node;

/// Properties that FHIR defines (codesystem-concept-properties.html): code and type.
const KNOWN: [(&str, &str); 12] = [
    ("status", "code"),
    ("inactive", "boolean"),
    ("effectiveDate", "dateTime"),
    ("deprecationDate", "dateTime"),
    ("retirementDate", "dateTime"),
    ("notSelectable", "boolean"),
    ("parent", "code"),
    ("child", "code"),
    ("partOf", "code"),
    ("synonym", "code"),
    ("comment", "string"),
    ("itemWeight", "decimal"),
];
const PROPERTIES: &str = "http://hl7.org/fhir/concept-properties#";

impl<'t> Walk<'_, 't> {
    pub(super) fn code_system(&mut self, system: Node<'t>) {
        self.content_mode(system);
        let types = self.property_definitions(system);
        let case_sensitive = system.member("caseSensitive").and_then(Node::as_bool).unwrap_or(false);
        let mut codes = HashSet::new();
        let mut count = 0_usize;
        let mut open: Vec<Node<'t>> = items(system, "concept").collect();
        open.reverse();
        while let Some(concept) = open.pop() {
            if self.is_full() {
                return;
            }
            count += 1;
            if let Some(code) = text(concept, "code") {
                let code = if case_sensitive { code } else { code.to_lowercase() };
                if !codes.insert(code) {
                    self.issue(&rules::CODE_SYSTEM, concept, "Expected a code that no other concept has");
                }
            }
            for property in items(concept, "property") {
                self.property_value(property, &types);
            }
            let from = open.len();
            open.extend(items(concept, "concept"));
            open[from..].reverse();
        }
        if let (Some(at), Some("complete")) = (system.member("count"), text(system, "content").as_deref())
            && at.number().and_then(|stated| stated.parse::<usize>().ok()).is_some_and(|stated| stated != count)
        {
            self.issue(
                &rules::CODE_SYSTEM,
                at,
                "Expected the number of concepts that there are: the content is complete",
            );
        }
        self.own_value_set(system);
    }

    fn content_mode(&mut self, system: Node<'t>) {
        let content = system.member("content");
        let mode = text(system, "content").unwrap_or_default();
        let is_supplement = system.member("supplements").is_some();
        if is_supplement != (mode == "supplement") && content.is_some() {
            let at = content.unwrap_or(system);
            let text = "Expected the content \"supplement\" together with the code system that is supplemented, and not one alone";
            self.issue(&rules::CODE_SYSTEM, at, text);
        }
        if let Some(at) = system.member("caseSensitive").filter(|_| is_supplement) {
            self.issue(
                &rules::CODE_SYSTEM,
                at,
                "Expected no such member in a supplement: the code system itself says it",
            );
        }
        if let Some(concept) = items(system, "concept").next().filter(|_| mode == "not-present") {
            self.issue(
                &rules::CODE_SYSTEM,
                concept,
                "Expected no concepts, since the content is said not to be present",
            );
        }
    }

    /// The properties' types by their codes.
    fn property_definitions(&mut self, system: Node<'t>) -> HashMap<String, String> {
        let mut types = HashMap::new();
        let mut uris = HashSet::new();
        for property in items(system, "property") {
            let mut wrong = |expected: &str| self.issue(&rules::CODE_SYSTEM, property, expected);
            let (uri, code) = (text(property, "uri"), text(property, "code"));
            let ty = text(property, "type").unwrap_or_default();
            if let Some(uri) = &uri {
                if !uri.contains(':') {
                    wrong("Expected an absolute URI");
                }
                if !uris.insert(uri.clone()) {
                    wrong("Expected a URI that no other property has");
                }
            }
            let known = uri.as_ref().and_then(|uri| uri.strip_prefix(PROPERTIES));
            if let Some((name, expected)) = known.and_then(|known| KNOWN.iter().find(|(name, _)| *name == known)) {
                let is_other = |code: &String| code != name && KNOWN.iter().any(|(other, _)| code == other);
                if code.as_ref().is_some_and(is_other) {
                    wrong("Expected the code that belongs to the property's URI, or one that FHIR has no meaning for");
                }
                if !ty.is_empty() && ty != *expected {
                    wrong(&format!("Expected the type {expected}, which this property has by its URI"));
                }
            }
            if let Some(code) = code {
                match types.entry(code) {
                    Entry::Occupied(_) => wrong("Expected a code that no other property has"),
                    Entry::Vacant(entry) => {
                        entry.insert(ty);
                    }
                }
            }
        }
        types
    }

    fn property_value(&mut self, property: Node<'t>, types: &HashMap<String, String>) {
        let Some(code) = text(property, "code") else { return };
        let value = property.members().find_map(|member| {
            let ty = member.name()?.trim_start_matches('_').strip_prefix("value")?;
            (!ty.is_empty()).then_some(ty)
        });
        let Some(value) = value else {
            return self.issue(&rules::CODE_SYSTEM, property, "Expected a value of the property");
        };
        let is_of = |ty: &String| ty.eq_ignore_ascii_case(value) || ty.is_empty();
        if types.get(&code).is_some_and(|ty| !is_of(ty)) {
            self.issue(&rules::CODE_SYSTEM, property, "Expected a value of the type that the property is defined with");
        }
    }

    /// The value set of all its codes includes this system, and nothing else.
    fn own_value_set(&mut self, system: Node<'t>) {
        let Some(canonical) = text(system, "valueSet") else { return };
        let library = self.profiles.as_ref().map(|profiles| profiles.library);
        let Some(set) = library.and_then(|library| library.written(&canonical, "ValueSet")) else { return };
        let compose = set.root().member("compose");
        let include: Vec<Node<'_>> = compose.into_iter().flat_map(|compose| items(compose, "include")).collect();
        let is_whole = matches!(&*include, [one]
            if text(*one, "system") == text(system, "url")
                && ["concept", "filter", "valueSet"].iter().all(|name| one.member(name).is_none()));
        if !is_whole {
            let text = "Expected a value set that includes all of this code system, and nothing else";
            self.issue(&rules::CODE_SYSTEM, system, text);
        }
    }
}
