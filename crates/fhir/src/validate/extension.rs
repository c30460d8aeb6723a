//! Extensions against their definitions: the definition of the extension's url holds, and allows it to stand where it does.

use super::profile::At;
use super::reference::Scope;
use super::rules;
use super::walk::Walk;
use crate::definitions::program::Kind;
use crate::path::{Type, locate};
use crate::profile::element::{Context, Place, Profile, Slice, Test};
use crate::profile::library::Named;
use crate::profile::releases;
use crate::tree::Node;

impl<'t> Walk<'_, 't> {
    /// An extension (`extension` or `modifierExtension`) with a url of its own.
    pub(super) fn defined_extension(&mut self, node: Node<'t>, member: &str, scope: Scope<'t>) {
        let Some(library) = self.profiles.as_ref().map(|profiles| profiles.library) else { return };
        // A relative url is a part of the extension around it, whose definition speaks of it.
        let Some(url) = node.member("url").and_then(Node::as_str).filter(|url| url.contains(':')) else { return };
        let modifies = member == "modifierExtension";
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
                if !self.may_stand(node, &profile) {
                    let places: Vec<&str> = profile.contexts.iter().map(|context| &*context.expression).collect();
                    let text = format!("Expected this extension in {} only", places.join(", "));
                    self.differs(&rules::EXTENSION_CONTEXT, node, text, &profile);
                }
                let item = locate(self.definitions, node);
                self.element(At { item, profile: &profile, scope }, 0);
                self.parts(node, &profile, 0);
            }
            _ if releases::is_one(&url) => {
                let text = "Expected the name of an element of the release that the url names";
                self.issue(&rules::EXTENSION_ELEMENT, node, text);
            }
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
    fn parts(&mut self, node: Node<'t>, profile: &Profile, place: Place) {
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

    /// Whether one of the definition's contexts is where the extension stands. Contexts by FHIRPath are not told.
    fn may_stand(&self, node: Node<'t>, profile: &Profile) -> bool {
        let list = if node.name().is_none() { node.parent() } else { Some(node) };
        let Some(holder) = list.and_then(Node::parent) else { return true };
        profile.contexts.is_empty() || profile.contexts.iter().any(|context| self.is_context(holder, context))
    }

    fn is_context(&self, holder: Node<'t>, context: &Context) -> bool {
        match &*context.kind {
            "element" => self.is_element(holder, &context.expression),
            "extension" => {
                let url = holder.member("url").and_then(Node::as_str);
                url.is_some_and(|url| *context.expression == *url)
            }
            _ => true,
        }
    }

    /// Whether a node is the nested element that `Questionnaire.item.answerOption` names, however deep it nests.
    fn is_nested(&self, node: Node<'t>, expression: &str) -> bool {
        let list = if node.name().is_none() { node.parent() } else { Some(node) };
        let Some((prefix, last)) = expression.rsplit_once('.') else { return false };
        let Some(parent) = list.and_then(Node::parent) else { return false };
        let mut names = prefix.split('.');
        let Some(id) = names.next().and_then(|name| self.definitions.type_named(name)) else { return false };
        let mut ty = Type::Object(id, 0);
        for name in names {
            let slot = ty.shape(self.definitions).and_then(|shape| shape.slot(name));
            match slot.map(|slot| slot.kind) {
                Some(Kind::Nested(place)) => ty = Type::Object(id, place),
                _ => return false,
            }
        }
        let name = list.and_then(Node::name).unwrap_or_default();
        locate(self.definitions, parent).ty == ty && name.strip_prefix('_').unwrap_or(name) == last
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

/// `value[x]` is `valueString`.
fn is_choice_of(expected: &str, path: &str) -> bool {
    let plain = expected.replace("[x]", "");
    expected != plain
        && path.strip_prefix(&*plain).is_some_and(|suffix| suffix.starts_with(|c: char| c.is_ascii_uppercase()))
        || path == plain
}
