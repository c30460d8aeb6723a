//! References: what they point to is of a type that the element allows. The type is known from a contained resource, from the Bundle's entry, from
//! the caller, or from the form `Type/id`; where nothing tells it, nothing is claimed. Existence elsewhere is not checked.

use std::borrow::Cow;
use std::collections::HashMap;

use super::Resolve;
use super::rules::{self, Rule};
use crate::definitions::program::Slot;
use crate::definitions::{Definitions, TypeId};
use crate::reference::{Reference, parse};
use crate::tree::{self, Node, NodeId};

/// Where a reference to `#id` looks.
#[derive(Clone, Copy)]
pub(super) struct Scope<'t> {
    pub(super) container: Node<'t>,
    /// The resource itself: the container, or what is contained in it.
    pub(super) resource: Node<'t>,
    pub(super) is_contained: bool,
}

/// What references are held against.
pub(super) struct References<'w> {
    definitions: &'w Definitions,
    resolve: Option<&'w Resolve<'w>>,
    entries: Entries,
    /// The entries are those of a Parameters.
    is_parameters: bool,
    /// Contained resources of the container looked at last: id to type (None: unknown type).
    contained: Option<(NodeId, HashMap<String, Option<TypeId>>)>,
}

/// fullUrl to the type of its entry, of one Bundle.
type Entries = HashMap<String, TypeId>;

/// What is left behind when a Bundle or a Parameters is entered.
pub(super) struct Outer {
    entries: Entries,
    is_parameters: bool,
}

/// Which rule is broken, where in the Reference that is seen, and what was expected.
pub(super) type Broken<'t> = (&'static Rule, Node<'t>, Cow<'static, str>);

enum Pointed {
    At(TypeId),
    Missing,
    Unknown,
}

impl<'w> References<'w> {
    /// Whether the resource is part of something larger that is not at hand.
    pub(super) fn is_part(&self) -> bool {
        self.resolve.is_some()
    }

    pub(super) fn new(definitions: &'w Definitions, resolve: Option<&'w Resolve<'w>>) -> Self {
        Self { definitions, resolve, entries: HashMap::new(), is_parameters: false, contained: None }
    }

    /// Enters a Bundle or a Parameters; gives what [`Self::leave`] takes back.
    pub(super) fn enter(&mut self, bundle: Node<'_>) -> Outer {
        let mut types = HashMap::new();
        for resource in
            bundle.member("parameter").into_iter().flat_map(Node::items).filter_map(|p| p.member("resource"))
        {
            let id = resource.member("id").and_then(Node::as_str);
            if let (Some(name), Some(id)) = (resource.resource_type(), id)
                && let Some(ty) = self.definitions.resource_named(name)
            {
                types.insert(format!("{name}/{id}"), ty);
            }
        }
        for entry in bundle.member("entry").into_iter().flat_map(Node::items) {
            let Some(url) = entry.member("fullUrl").and_then(Node::as_str) else { continue };
            let name = entry.member("resource").and_then(|r| r.member("resourceType")).and_then(Node::as_str);
            if let Some(id) = name.and_then(|name| self.definitions.resource_named(&name)) {
                types.insert(url.into_owned(), id);
            }
        }
        let is_parameters = bundle.resource_type() == Some("Parameters");
        Outer {
            entries: std::mem::replace(&mut self.entries, types),
            is_parameters: std::mem::replace(&mut self.is_parameters, is_parameters),
        }
    }

    /// Leaves a Bundle or a Parameters.
    pub(super) fn leave(&mut self, outer: Outer) {
        self.entries = outer.entries;
        self.is_parameters = outer.is_parameters;
    }

    /// What is wrong with one Reference.
    pub(super) fn check<'t>(
        &mut self,
        node: Node<'t>,
        slot: &Slot,
        scope: Scope<'t>,
        may_be_elsewhere: bool,
    ) -> Vec<Broken<'t>> {
        let mut broken: Vec<Broken<'t>> = Vec::new();
        let named = node.member("type").and_then(|name| {
            let name = name.as_str()?;
            self.definitions
                .resource_named(name.strip_prefix("http://hl7.org/fhir/StructureDefinition/").unwrap_or(&name))
        });
        let literal = node.member("reference").and_then(|r| Some((r, r.as_str()?)));
        let mut pointed = None;
        if let Some((reference, text)) = literal {
            if !may_be_elsewhere
                && self.is_parameters
                && matches!(parse(&text), Reference::Relative { .. })
                && !self.entries.contains_key(&*text)
            {
                let text = "Expected a reference to what is in this Parameters";
                broken.push((&rules::REFERENCE_ELSEWHERE, node, text.into()));
            }
            match self.pointed(&text, scope) {
                Pointed::At(id) => pointed = Some((reference, id)),
                Pointed::Missing => {
                    let text = "Expected the id of a contained resource of the same container";
                    broken.push((&rules::CONTAINED_MISSING, reference, text.into()));
                }
                Pointed::Unknown => {}
            }
        }
        if let (Some((reference, id)), Some(named)) = (pointed, named)
            && id != named
        {
            let text = "Expected a reference to what Reference.type names";
            broken.push((&rules::REFERENCE_TYPE, reference, text.into()));
        }
        let known = pointed.or(named.map(|id| (node, id)));
        if let Some((at, id)) = known
            && !slot.targets.is_empty()
            && !slot.targets.contains(&id)
        {
            let names: Vec<_> = slot.targets.iter().map(|&target| self.definitions.type_name(target)).collect();
            let text = format!("Expected a reference to {}", names.join(" or "));
            broken.push((&rules::REFERENCE_TARGET, at, text.into()));
        }
        broken
    }

    /// The type of what a reference points to, as far as it is known.
    pub(super) fn type_of(&mut self, reference: &str, scope: Scope<'_>) -> Option<TypeId> {
        match self.pointed(reference, scope) {
            Pointed::At(id) => Some(id),
            Pointed::Missing | Pointed::Unknown => None,
        }
    }

    fn pointed(&mut self, reference: &str, scope: Scope<'_>) -> Pointed {
        if let Some(id) = reference.strip_prefix('#') {
            return if id.is_empty() { self.container(scope) } else { self.contained(id, scope) };
        }
        if let Some(&id) = self.entries.get(reference) {
            return Pointed::At(id);
        }
        let resolved =
            self.resolve.and_then(|resolve| resolve(reference)).and_then(|name| self.definitions.resource_named(name));
        resolved.or_else(|| by_form(self.definitions, reference)).map_or(Pointed::Unknown, Pointed::At)
    }

    /// `#` alone is the container (references.html#contained).
    fn container(&self, scope: Scope<'_>) -> Pointed {
        let name = scope.container.member("resourceType").and_then(Node::as_str);
        name.and_then(|name| self.definitions.resource_named(&name)).map_or(Pointed::Unknown, Pointed::At)
    }

    fn contained(&mut self, id: &str, scope: Scope<'_>) -> Pointed {
        let container = scope.container.id();
        if self.contained.as_ref().is_none_or(|(last, _)| *last != container) {
            // Built once per container: a search for each reference would be quadratic.
            let mut types = HashMap::new();
            for resource in scope.container.member("contained").into_iter().flat_map(Node::items) {
                let Some(id) = resource.member("id").and_then(Node::as_str) else { continue };
                let name = resource.member("resourceType").and_then(Node::as_str);
                types.insert(id.into_owned(), name.and_then(|name| self.definitions.resource_named(&name)));
            }
            self.contained = Some((container, types));
        }
        match self.contained.as_ref().and_then(|(_, types)| types.get(id)) {
            Some(Some(id)) => Pointed::At(*id),
            Some(None) => Pointed::Unknown,
            None if scope.container.kind() == tree::Kind::Object => Pointed::Missing,
            None => Pointed::Unknown,
        }
    }
}

/// The type in `Type/id`, `Type/id/_history/version`, `Type?query`, or a URL that ends so.
fn by_form(definitions: &Definitions, reference: &str) -> Option<TypeId> {
    let is_url = reference.starts_with("http://") || reference.starts_with("https://");
    if reference.contains(':') && !is_url && !reference.contains('?') {
        return None;
    }
    let reference = reference.split('#').next()?;
    if let Some((path, _)) = reference.split_once('?') {
        return definitions.resource_named(path.rsplit('/').next()?);
    }
    let path = reference.split("/_history/").next()?;
    let mut segments = path.rsplit('/');
    let (id, name) = (segments.next()?, segments.next()?);
    if id.is_empty() || (!is_url && segments.next().is_some()) {
        return None;
    }
    definitions.resource_named(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_only_from_forms_that_have_one() {
        let r4 = Definitions::r4();
        let by = |text| by_form(&r4, text).map(|id| r4.type_name(id).to_owned());
        let patient = Some("Patient".to_owned());
        for text in [
            "Patient/1",
            "Patient/1/_history/2",
            "http://a.b/fhir/Patient/1",
            "https://a/Patient/1/_history/1",
            "Patient?identifier=a|b",
            "Patient/1#x",
        ] {
            assert_eq!(by(text), patient, "{text}");
        }
        for text in [
            "urn:uuid:c757873d-ec9a-4326-a141-556f43239520",
            "Nothing/1",
            "1",
            "a/Patient/1",
            "mailto:Patient/1",
            "http://a.b/ValueSets/x",
            "Patient/",
        ] {
            assert_eq!(by(text), None, "{text}");
        }
    }
}
