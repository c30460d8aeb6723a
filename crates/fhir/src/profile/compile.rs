//! Compiles a profile. Takes the StructureDefinitions from the profile down to the type that it constrains, and lays their
//! differentials over each other, the base's first: what comes of it is the profile's snapshot without all that the type
//! itself says. A snapshot that the package brings is not read, so it can neither lack nor be stale; it serves only where a
//! definition has no differential.

use std::collections::HashMap;
use std::sync::Arc;

use super::bindings;
use super::element::{
    Aggregation, By, Context, Discriminator, Element, More, Openness, Place, Profile, Rule, Sample, Slice, Slicing,
    TypeRule, steps,
};
use super::layer::{Layer, extension_parts};
use crate::definitions::program::Shape;
use crate::definitions::{Definitions, TypeId, TypeKind};
use crate::outcome::Severity;
use crate::package::{extension, items, text};
use crate::path::Type;
use crate::tree::Node;

/// Elements and slices of one profile.
const ELEMENTS_MAX: usize = 20_000;
const FHIR_TYPE: &str = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type";
const IMPOSE: &str = "http://hl7.org/fhir/StructureDefinition/structuredefinition-imposeProfile";
const LANGUAGES: &str = "http://hl7.org/fhir/StructureDefinition/narrative-language-control";
const SOURCE: &str = "http://hl7.org/fhir/StructureDefinition/narrative-source-control";
const HAS_VALUE: &str = "http://hl7.org/fhir/5.0/StructureDefinition/extension-ElementDefinition.mustHaveValue";
const ALTERNATIVES: &str = "http://hl7.org/fhir/5.0/StructureDefinition/extension-ElementDefinition.valueAlternatives";
const PROFILE_ELEMENT: &str = "http://hl7.org/fhir/StructureDefinition/elementdefinition-profile-element";
const OBLIGATION: &str = "http://hl7.org/fhir/StructureDefinition/obligation";
/// Types of FHIRPath's own, for ids, urls and values of primitives.
const SYSTEM_TYPE: &str = "http://hl7.org/fhirpath/System.";

/// Compiles a profile of the type `of`; `chain` is its definitions, the one next to the type first.
pub(super) fn compile(definitions: &Definitions, chain: &[Layer], of: TypeId) -> Result<Profile, String> {
    let mut draft = Draft {
        definitions,
        of,
        elements: Vec::new(),
        shapes: Vec::new(),
        choices: Vec::new(),
        above: Vec::new(),
        general: Vec::new(),
    };
    let kind = definitions.type_kind(of);
    let root = if kind == TypeKind::Primitive { Type::Unknown } else { Type::Object(of, 0) };
    draft.add(definitions.type_name(of), definitions.type_name(of), Some(root))?;
    for layer in chain {
        draft.apply(layer)?;
    }
    draft.finish();
    let last = chain.last().map(|layer| layer.tree.root());
    let contexts = last.into_iter().flat_map(|node| items(node, "context")).filter_map(|context| {
        Some(Context { kind: text(context, "type")?.into(), expression: text(context, "expression")?.into() })
    });
    let invariants = last.into_iter().flat_map(|node| items(node, "contextInvariant"));
    let invariants = invariants.filter_map(|text| Some((*text.as_str()?).into()));
    let is_modifier = |node: Node<'_>| {
        let root = elements_of(node).next();
        root.and_then(|root| root.member("isModifier")).and_then(Node::as_bool).unwrap_or(false)
    };
    Ok(Profile {
        url: last.and_then(|node| text(node, "url")).unwrap_or_default().into(),
        of,
        contexts: contexts.collect(),
        context_invariants: invariants.collect(),
        is_modifier: last.is_some_and(is_modifier),
        imposed: last.map(|node| extensions(node, IMPOSE, "valueCanonical")).unwrap_or_default(),
        elements: draft.elements,
    })
}

/// The elements of a definition: its differential's, or, without one, its snapshot's.
fn elements_of<'t>(definition: Node<'t>) -> impl Iterator<Item = Node<'t>> {
    let of = |name: &str| definition.member(name).and_then(|part: Node<'t>| part.member("element"));
    of("differential").or_else(|| of("snapshot")).into_iter().flat_map(Node::items)
}

/// Calls back with each canonical that an element of a definition names: profiles, targets, value sets.
pub(super) fn canonicals(definition: Node<'_>, mut each: impl FnMut(&str)) {
    for element in elements_of(definition) {
        for ty in items(element, "type") {
            for canonical in items(ty, "profile").chain(items(ty, "targetProfile")) {
                canonical.as_str().into_iter().for_each(|canonical| each(&canonical));
            }
        }
        if let Some(binding) = element.member("binding") {
            binding.member("valueSet").and_then(Node::as_str).into_iter().for_each(|canonical| each(&canonical));
        }
    }
}

pub(super) struct Draft<'d> {
    pub(super) definitions: &'d Definitions,
    of: TypeId,
    pub(super) elements: Vec<Element>,
    /// Of each element the type, where it is one.
    pub(super) shapes: Vec<Option<Type>>,
    /// Whether it is a choice of types.
    pub(super) choices: Vec<bool>,
    /// The element that it is a child or a slice of.
    pub(super) above: Vec<Option<Place>>,
    /// The element of the same path that speaks of more items; told at the end.
    pub(super) general: Vec<Option<Place>>,
}

impl Draft<'_> {
    fn add(&mut self, name: &str, id: &str, ty: Option<Type>) -> Result<Place, String> {
        if self.elements.len() >= ELEMENTS_MAX {
            return Err("it has too many elements".to_owned());
        }
        self.elements.push(Element { name: name.into(), id: id.into(), ..Element::default() });
        self.shapes.push(ty);
        self.choices.push(false);
        self.above.push(None);
        Ok(self.elements.len() - 1)
    }

    /// Lays one definition over what is there.
    fn apply(&mut self, layer: &Layer) -> Result<(), String> {
        let tree = &layer.tree;
        // Where a path was last: children follow their parent, those of a slice the slice.
        let mut last: HashMap<String, Place> = HashMap::new();
        for node in elements_of(tree.root()) {
            let path = text(node, "path").ok_or("an element has no path")?;
            let slice = text(node, "sliceName");
            let Some((parent_path, name)) = path.rsplit_once('.') else {
                last.clear();
                last.insert(path, 0);
                self.merge(0, layer, node);
                continue;
            };
            // With ids the parent is certain; without, it is the last one of that path.
            let by_id = text(node, "id").and_then(|id| self.parent_by_id(&id, &path));
            let parent = match by_id {
                Some(parent) => parent,
                None => self.parent_by_path(parent_path, &last)?,
            };
            let Some(place) = self.child(parent, name, slice.as_deref())? else {
                return Err(format!("`{path}` is no element of {}", self.definitions.type_name(self.of)));
            };
            self.merge(place, layer, node);
            last.retain(|known, _| !(known.starts_with(&path) && known[path.len()..].starts_with('.')));
            last.insert(path, place);
        }
        Ok(())
    }

    /// The parent that an id names; None if there is none, or if the id does not go with the path.
    fn parent_by_id(&mut self, id: &str, path: &str) -> Option<Place> {
        let mut segments = id.split('.').zip(path.split('.')).peekable();
        if id.split('.').count() != path.split('.').count() {
            return None;
        }
        segments.next()?;
        let mut place = 0;
        while let Some((segment, name)) = segments.next() {
            if segments.peek().is_none() {
                return Some(place);
            }
            let slice = segment.split_once(':').map(|(_, slice)| slice);
            place = self.child(place, name, slice).ok()??;
        }
        None
    }

    /// The last element of that path; elements that the definition leaves out are made.
    fn parent_by_path(&mut self, path: &str, last: &HashMap<String, Place>) -> Result<Place, String> {
        if let Some(&place) = last.get(path) {
            return Ok(place);
        }
        let Some((above, name)) = path.rsplit_once('.') else { return Ok(0) };
        let parent = self.parent_by_path(above, last)?;
        self.child(parent, name, None)?.ok_or_else(|| format!("`{path}` is no element of its type"))
    }

    /// The shape of what an element holds; of a primitive, that of its id and extensions.
    fn shape(&self, place: Place) -> Option<(Type, &Shape)> {
        let ty = match *self.shapes.get(place)? {
            Some(Type::Primitive(_)) => Type::Object(self.definitions.element(), 0),
            other => other?,
        };
        Some((ty, ty.shape(self.definitions)?))
    }

    /// The child of that name, or the slice of it, made if it is not there. None if the type has no such child.
    fn child(&mut self, parent: Place, name: &str, slice: Option<&str>) -> Result<Option<Place>, String> {
        let plain = name.strip_suffix("[x]").unwrap_or(name);
        let mut is_choice = false;
        let (field, implied, ty) = match self.shape(parent) {
            // A resource whose type is not told: its members are taken by their names.
            None => (plain.to_owned(), None, None),
            Some((of, shape)) => match shape.slot(plain) {
                // `valueQuantity` is the slice of `value[x]` that is a Quantity.
                Some(slot) if shape.field(slot).is_choice => {
                    is_choice = true;
                    (shape.field(slot).name.to_string(), Some((plain.to_owned(), of.at(slot.kind))), None)
                }
                Some(slot) => (plain.to_owned(), None, of.at(slot.kind)),
                None => match shape.choice(plain) {
                    Some(field) => {
                        is_choice = true;
                        let mut slots = shape.slots_of(field);
                        let only = slots.next().filter(|_| slots.next().is_none());
                        (plain.to_owned(), None, only.and_then(|slot| of.at(slot.kind)))
                    }
                    None => return Ok(None),
                },
            },
        };
        let known = self.elements[parent].children.iter().copied().find(|&child| *self.elements[child].name == *field);
        let place = if let Some(place) = known {
            place
        } else {
            let id = format!("{}.{field}", self.elements[parent].id);
            let place = self.add(&field, &id, ty)?;
            self.choices[place] = is_choice;
            self.above[place] = Some(parent);
            self.elements[parent].children.push(place);
            place
        };
        match (slice, implied) {
            (None, None) => Ok(Some(place)),
            (Some(slice), implied) => self.slice(place, slice, implied.and_then(|(_, ty)| ty)).map(Some),
            (None, Some((slice, ty))) => self.slice(place, &slice, ty).map(Some),
        }
    }

    /// The slice of that name; `a/b` is a slice of the slice `a`.
    fn slice(&mut self, element: Place, name: &str, ty: Option<Type>) -> Result<Place, String> {
        let mut place = element;
        let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
        for end in ends {
            let part = &name[..end];
            let known =
                self.elements[place].slices.iter().find(|slice| *slice.name == *part).map(|slice| slice.element);
            place = if let Some(place) = known {
                place
            } else {
                let field = self.elements[place].name.clone();
                let id = format!("{}:{part}", self.elements[element].id);
                let new = self.add(&field, &id, ty.or(self.shapes[place]))?;
                self.above[new] = Some(place);
                self.elements[place].slices.push(Slice { name: part.into(), element: new, conditions: Vec::new() });
                new
            };
        }
        Ok(place)
    }

    /// Adds what a definition says of an element. Profiles only narrow: of two cardinalities both hold.
    fn merge(&mut self, place: Place, layer: &Layer, node: Node<'_>) {
        let tree = &layer.tree;
        let number = |name: &str| node.member(name).and_then(|n| n.number()?.parse::<u32>().ok());
        let types = self.types(layer, node);
        if let [only] = &*types
            && self.shapes[place].is_none()
        {
            self.shapes[place] = self.definitions.type_named(&only.code).map(|id| Type::of(self.definitions, id));
        }
        let element = &mut self.elements[place];
        element.min = element.min.max(number("min").unwrap_or(0));
        if let Some(max) = text(node, "max").and_then(|max| max.parse::<u32>().ok()) {
            element.max = Some(element.max.map_or(max, |known| known.min(max)));
        }
        if !types.is_empty() {
            element.types = types;
        }
        for member in node.members() {
            let Some(name) = member.name() else { continue };
            let is_value = |prefix: &str| {
                name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
            };
            if is_value("fixed") {
                element.fixed = Some(Sample::new(tree, member));
            } else if is_value("pattern") {
                element.patterns.push(Sample::new(tree, member));
            } else if is_value("minValue") {
                element.value_min = Some(Sample::new(tree, member));
            } else if is_value("maxValue") {
                element.value_max = Some(Sample::new(tree, member));
            }
        }
        element.length_max = number("maxLength").or(element.length_max);
        if let Some(binding) = node.member("binding") {
            element.bindings = bindings::read(layer, binding);
        }
        merge_more(&mut element.more, node);
        for constraint in items(node, "constraint") {
            let Some(rule) = rule(constraint) else { continue };
            if element.constraints.iter().all(|known| known.key != rule.key) {
                element.constraints.push(Arc::new(rule));
            }
        }
        if let Some(slicing) = node.member("slicing") {
            let mut slicing = read_slicing(slicing);
            if let Some(known) = element.slicing.take()
                && slicing.discriminators.is_empty()
            {
                slicing.discriminators = known.discriminators;
            }
            element.slicing = Some(slicing);
        }
    }

    fn types(&self, layer: &Layer, node: Node<'_>) -> Vec<TypeRule> {
        let rule = |node: Node<'_>| {
            let code = extension(node, FHIR_TYPE, "valueUrl")
                .and_then(Node::as_str)
                .or_else(|| node.member("code")?.as_str())?;
            let list = |name| items(node, name).filter_map(|item| Some(layer.meant(&item.as_str()?))).collect();
            let profiles = items(node, "profile").enumerate();
            Some(TypeRule {
                code: (*code).into(),
                profiles: profiles.filter_map(|(index, item)| named_profile(layer, node, index, item)).collect(),
                targets: list("targetProfile"),
                aggregation: aggregation(node),
            })
        };
        items(node, "type")
            .filter_map(rule)
            .filter(|rule| !rule.code.starts_with(SYSTEM_TYPE) && self.definitions.type_named(&rule.code).is_some())
            .collect()
    }
}

/// A profile that a type names: the whole of it, or, behind a `#`, one element by its id (elementdefinition-profile-element).
fn named_profile(layer: &Layer, ty: Node<'_>, index: usize, profile: Node<'_>) -> Option<Box<str>> {
    let canonical = profile.as_str()?;
    let companion = ty.member("_profile").into_iter().flat_map(Node::items).nth(index);
    let element = companion.and_then(|companion| extension(companion, PROFILE_ELEMENT, "valueString")?.as_str());
    let (canonical, fragment) = canonical.split_once('#').map_or((&*canonical, None), |(url, id)| (url, Some(id)));
    Some(match fragment.or(element.as_deref()) {
        Some(element) => format!("{}#{element}", layer.meant(canonical)).into(),
        None => layer.meant(canonical),
    })
}

/// Values of all extensions with that url.
fn extensions(node: Node<'_>, url: &str, value: &str) -> Box<[Box<str>]> {
    extension_parts(node, url).filter_map(|extension| Some(text(extension, value)?.into())).collect()
}

fn aggregation(node: Node<'_>) -> Option<Aggregation> {
    let has = |mode: &str| items(node, "aggregation").any(|item| item.is_str(mode));
    let found = Aggregation { contained: has("contained"), referenced: has("referenced"), bundled: has("bundled") };
    (found.contained || found.referenced || found.bundled).then_some(found)
}

/// What few elements say: R5's members, and the extensions that stand for them in R4.
fn merge_more(more: &mut Option<Box<More>>, node: Node<'_>) {
    let is_true = |node: Option<Node<'_>>| node.and_then(Node::as_bool).unwrap_or(false);
    let must_support = is_true(node.member("mustSupport"));
    if !must_support && node.member("extension").is_none() && node.member("mustHaveValue").is_none() {
        return;
    }
    let more = more.get_or_insert_default();
    more.must_support |= must_support;
    more.has_value |= is_true(node.member("mustHaveValue")) || is_true(extension(node, HAS_VALUE, "valueBoolean"));
    let merge = |known: &mut Box<[Box<str>]>, new: Box<[Box<str>]>| {
        if !new.is_empty() {
            *known = new;
        }
    };
    merge(&mut more.alternatives, extensions(node, ALTERNATIVES, "valueCanonical"));
    merge(&mut more.languages, extensions(node, LANGUAGES, "valueCode"));
    let codes = extension_parts(node, OBLIGATION).flat_map(|one| extensions(one, "code", "valueCode").into_vec());
    merge(&mut more.obligations, codes.collect());
    if let Some(level) = extension(node, SOURCE, "valueCode").and_then(Node::as_str) {
        more.source = match &*level {
            "error" => Some(Severity::Error),
            "warning" => Some(Severity::Warning),
            _ => Some(Severity::Information),
        };
    }
}

/// An invariant; not those that the base types have, which hold anyway.
fn rule(node: Node<'_>) -> Option<Rule> {
    let key = text(node, "key")?;
    let inherited = text(node, "source").is_some_and(|source| {
        source.rsplit_once('/').is_some_and(|(base, name)| {
            base == "http://hl7.org/fhir/StructureDefinition"
                && matches!(name, "Element" | "DomainResource" | "Extension" | "Resource")
        })
    });
    if inherited || matches!(&*key, "ele-1" | "ext-1") || key.starts_with("dom-") {
        return None;
    }
    Some(Rule {
        key: key.into(),
        expression: text(node, "expression")?.into(),
        human: text(node, "human").unwrap_or_default().into(),
        is_error: text(node, "severity")? == "error",
        invariant: std::sync::OnceLock::new(),
    })
}

fn read_slicing(node: Node<'_>) -> Slicing {
    let discriminators = items(node, "discriminator").map(|discriminator| {
        let path = text(discriminator, "path").unwrap_or_default();
        let by = match text(discriminator, "type").as_deref() {
            Some("value" | "pattern") => By::Value,
            Some("exists") => By::Exists,
            Some("type") => By::Type,
            Some("profile") => By::Profile,
            _ => By::Unknown,
        };
        let steps = steps(&path);
        let by = if steps.is_some() { by } else { By::Unknown };
        Discriminator { by, path: steps.unwrap_or_default(), text: path.into() }
    });
    let openness = match text(node, "rules").as_deref() {
        Some("closed") => Openness::Closed,
        Some("openAtEnd") => Openness::AtEnd,
        _ => Openness::Open,
    };
    Slicing {
        discriminators: discriminators.collect(),
        openness,
        is_ordered: node.member("ordered").and_then(Node::as_bool).unwrap_or(false),
    }
}
