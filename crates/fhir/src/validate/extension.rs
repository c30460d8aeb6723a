//! Extensions against their definitions: the definition of the extension's url holds, and allows it to stand where it does.

use super::profile::At;
use super::reference::Scope;
use super::rules;
use super::walk::Walk;
use crate::path::{Budget, Environment, Invariant, Offline, Type, Verdict, locate};
use crate::profile::element::{Context, Place, Profile, Slice, Test};
use crate::profile::library::Named;
use crate::profile::releases;
use crate::tree::Node;

/// What the context of an extension may cost to find.
const BUDGET: Budget = Budget { steps_max: 1_000_000, text_bytes_max: 1 << 20 };

/// Extensions that R4 core uses where its own definitions of them do not allow it, and where they may stand all the same.
const MISPLACED: [(&str, &str); 5] = [
    ("http://hl7.org/fhir/StructureDefinition/capabilitystatement-expectation", "Element"),
    ("http://hl7.org/fhir/StructureDefinition/capabilitystatement-prohibited", "Element"),
    ("http://hl7.org/fhir/StructureDefinition/regex", "ElementDefinition.type"),
    ("http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type", "ElementDefinition.type"),
    ("http://hl7.org/fhir/StructureDefinition/structuredefinition-normative-version", "Element"),
];

impl<'t> Walk<'_, 't> {
    /// An extension (`extension` or `modifierExtension`) with a url of its own.
    pub(super) fn defined_extension(&mut self, node: Node<'t>, member: &str, scope: Scope<'t>) {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return };
        // A relative url is a part of the extension around it, whose definition speaks of it.
        let Some(url) = node.member("url").and_then(Node::as_str).filter(|url| url.contains(':')) else { return };
        let modifies = member == "modifierExtension";
        if url.contains('|') {
            self.issue(&rules::EXTENSION_URL, node, "Expected the url of a definition without a version");
        }
        match library.named(&url) {
            Named::Profile(profile) => {
                if profile.is_modifier != modifies {
                    let text = if modifies {
                        "Expected an extension that its definition calls a modifier"
                    } else {
                        "Expected this extension as a modifierExtension"
                    };
                    self.differs(&rules::EXTENSION_MODIFIER, node, text.to_owned(), &profile);
                }
                self.context(node, &profile, scope);
                let item = locate(self.definitions, node);
                self.element(At { item, profile: &profile, scope }, 0);
                self.named_parts(node, &profile, 0);
            }
            _ if releases::is_one(&url) => {
                let text = "Expected the name of an element of the release that the url names";
                self.issue(&rules::EXTENSION_ELEMENT, node, text);
            }
            Named::Broken(_) | Named::Unknown | Named::Type(_) if is_of_another_release(&url) => {
                let text = "Not checked: this extension stands for an element of another release of FHIR";
                self.issue(&rules::EXTENSION_RELEASE, node, text);
            }
            Named::Broken(_) | Named::Unknown | Named::Type(_) if !modifies && self.passes_for_known(&url) => {}
            Named::Broken(_) | Named::Unknown | Named::Type(_) if modifies => {
                let text = "Expected a modifier extension whose definition is known";
                self.issue(&rules::EXTENSION_MODIFIER, node, text);
            }
            Named::Broken(_) | Named::Unknown | Named::Type(_) => {
                self.issue(&rules::EXTENSION_UNKNOWN, node, "Expected an extension whose definition is known");
            }
        }
    }

    /// The extensions within one that have relative urls are those that its definition names.
    fn named_parts(&mut self, node: Node<'t>, profile: &Profile, place: Place) {
        let extensions = profile.elements.get(place).and_then(|element| {
            let children = element.children.iter().filter_map(|&child| profile.elements.get(child));
            children.into_iter().find(|child| &*child.name == "extension")
        });
        // Where there must be none, that is said of all of them.
        if extensions.is_some_and(|extensions| extensions.max == Some(0)) {
            return;
        }
        for part in node.member("extension").into_iter().flat_map(Node::items) {
            let Some(url) = part.member("url").and_then(Node::as_str).filter(|url| !url.contains(':')) else {
                continue;
            };
            let is_named = |slice: &Slice| {
                slice.conditions.iter().all(|condition| match &condition.test {
                    Test::Urls(urls) => urls.iter().any(|one| **one == *url),
                    _ => true,
                })
            };
            if !extensions.is_some_and(|extensions| extensions.slices.iter().any(is_named)) {
                let text = format!("Expected an extension that the definition of {} names", profile.url);
                self.differs(&rules::EXTENSION_PART, part, text, profile);
            }
        }
    }

    /// An extension stands where its definition has it, and what the definition demands of that place holds.
    fn context(&mut self, node: Node<'t>, profile: &Profile, scope: Scope<'t>) {
        let list = if node.name().is_none() { node.parent() } else { Some(node) };
        let Some(holder) = list.and_then(Node::parent) else { return };
        let may_stand = profile.contexts.is_empty()
            || is_sample(holder)
            || profile.contexts.iter().any(|context| self.is_context(holder, context, &profile.url, scope));
        if !may_stand {
            let places: Vec<&str> = profile.contexts.iter().map(|context| &*context.expression).collect();
            let text = format!("Expected this extension in {} only", places.join(", "));
            if !self.has(&rules::EXTENSION_CONTEXT, node, &text) {
                self.issue_of(&rules::EXTENSION_CONTEXT, holder, node, text);
            }
            return;
        }
        for expression in &profile.context_invariants {
            let item = locate(self.definitions, holder);
            let Ok(invariant) = Invariant::compile(expression, self.definitions, item.ty) else { continue };
            let host = Offline::new(self.definitions);
            let environment = Environment { budget: BUDGET, ..Environment::new(&host) };
            let around = (scope.resource, scope.container);
            let verdict = invariant.ask_item(self.definitions, self.document, &environment, item, around);
            let text = format!("Expected this to hold where the extension stands: {expression}");
            if verdict == Verdict::Broken && !self.has(&rules::EXTENSION_CONTEXT, node, &text) {
                self.issue_of(&rules::EXTENSION_CONTEXT, holder, node, text);
            }
        }
    }

    fn is_context(&self, holder: Node<'t>, context: &Context, url: &str, scope: Scope<'t>) -> bool {
        match &*context.kind {
            // Where R4's own definitions contradict what R4 does itself.
            "element" if MISPLACED.contains(&(url, "Element")) => true,
            "element" => {
                self.is_element(holder, &context.expression)
                    || MISPLACED.iter().any(|(known, place)| *known == url && self.is_element(holder, place))
            }
            "extension" => {
                // The value of an extension belongs to it.
                let value = holder.name().is_some_and(|name| name.trim_start_matches('_').starts_with("value"));
                let extension = if value { holder.parent() } else { Some(holder) };
                let url = extension.and_then(|extension| extension.member("url")).and_then(Node::as_str);
                url.is_some_and(|url| *context.expression == *url)
            }
            "fhirpath" => {
                let ty = locate(self.definitions, scope.resource).ty;
                // Few extensions have such a context; it is compiled when one of them comes.
                let Ok(path) = Invariant::compile(&context.expression, self.definitions, ty) else { return true };
                let host = Offline::new(self.definitions);
                let environment = Environment { budget: BUDGET, ..Environment::new(&host) };
                let around = (scope.resource, scope.container);
                path.gives(self.definitions, self.document, &environment, around, holder).unwrap_or(true)
            }
            _ => true,
        }
    }

    /// Whether an extension that no package defines is taken nevertheless: those of tools, and of examples where they may stand.
    fn passes_for_known(&self, url: &str) -> bool {
        const TOOLS: &str = "http://hl7.org/fhir/tools/StructureDefinition/";
        url.starts_with(TOOLS)
            || url.contains("nema.org")
            || self.policy.example_urls && (url.contains("example.org") || url.contains("acme.com"))
    }

    /// Whether a node is the nested element that `Questionnaire.item.answerOption` names, however deep it nests.
    fn is_nested(&self, node: Node<'t>, expression: &str) -> bool {
        let mut names = expression.split('.');
        let Some(id) = names.next().and_then(|name| self.definitions.type_named(name)) else { return false };
        let mut ty = Type::Object(id, 0);
        for name in names {
            let slot = ty.shape(self.definitions).and_then(|shape| shape.slot(name));
            let Some(next) = slot.and_then(|slot| ty.at(slot.kind)) else { return false };
            ty = next;
        }
        // An element that is defined by reference to another is of its type.
        if matches!(ty, Type::Object(_, place) if place > 0) {
            return locate(self.definitions, node).ty == ty;
        }
        let list = if node.name().is_none() { node.parent() } else { Some(node) };
        let (Some((prefix, last)), Some(parent)) = (expression.rsplit_once('.'), list.and_then(Node::parent)) else {
            return false;
        };
        let name = list.and_then(Node::name).unwrap_or_default();
        prefix.contains('.') && name.strip_prefix('_').unwrap_or(name) == last && self.is_nested(parent, prefix)
    }

    /// Whether a node is an element by that name: of its type, or by its place in the type around it.
    fn is_element(&self, node: Node<'t>, expression: &str) -> bool {
        let expression = expression.split_once('#').map_or(expression, |(_, id)| id);
        let expression = expression.split_once('|').map_or(expression, |(name, _)| name);
        // Any element at all, resources too.
        if expression == "Element" {
            return true;
        }
        let names = |ty: Type, node: Node<'t>| -> Vec<String> {
            let mut names = vec![ty.name(self.definitions).to_owned()];
            if node.resource_type().is_some() {
                names.push("Resource".to_owned());
                names.push("DomainResource".to_owned());
            }
            names
        };
        let own = locate(self.definitions, node);
        if names(own.ty, node).iter().any(|name| name == expression) {
            return true;
        }
        if self.is_nested(node, expression) {
            return true;
        }
        // Each element around it, with the path from there: `HumanName.family`, `Patient.name.family`.
        let mut path = String::new();
        let mut at = node;
        while let Some(parent) = at.parent() {
            if let Some(name) = at.name() {
                let name = name.strip_prefix('_').unwrap_or(name);
                path = if path.is_empty() { name.to_owned() } else { format!("{name}.{path}") };
                let around = locate(self.definitions, parent);
                let is = |name: &String| {
                    expression
                        .strip_prefix(&**name)
                        .and_then(|rest| rest.strip_prefix('.'))
                        .is_some_and(|rest| rest == path || is_choice_of(rest, &path))
                };
                if !parent.is_array() && names(around.ty, parent).iter().any(is) {
                    return true;
                }
            }
            if parent.is_object() && parent.resource_type().is_some() {
                break;
            }
            at = parent;
        }
        false
    }
}

/// Whether an element is part of a value that a definition gives as a sample: there any extension may stand.
fn is_sample(holder: Node<'_>) -> bool {
    let mut at = Some(holder);
    while let Some(node) = at {
        let name = node.name().unwrap_or_default().trim_start_matches('_');
        if ["fixed", "pattern"].iter().any(|prefix| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        }) {
            return true;
        }
        at = node.parent();
    }
    false
}

/// Whether a url is that of an extension for an element of another release: `http://hl7.org/fhir/5.0/StructureDefinition/extension-Type.element`.
fn is_of_another_release(url: &str) -> bool {
    let Some((release, rest)) = url.strip_prefix("http://hl7.org/fhir/").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    matches!(release, "1.0" | "3.0" | "4.0" | "4.3" | "5.0" | "6.0")
        && rest
            .strip_prefix("StructureDefinition/extension-")
            .is_some_and(|path| path.starts_with(|c: char| c.is_ascii_uppercase()) && path.contains('.'))
}

/// `value[x]` is `valueString`.
fn is_choice_of(expected: &str, path: &str) -> bool {
    let plain = expected.replace("[x]", "");
    expected != plain
        && path.strip_prefix(&*plain).is_some_and(|suffix| suffix.starts_with(|c: char| c.is_ascii_uppercase()))
        || path == plain
}
