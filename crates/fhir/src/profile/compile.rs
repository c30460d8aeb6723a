//! Compiles a profile. Takes the StructureDefinitions from the profile down to the type that it constrains, and lays their
//! differentials over each other, the base's first: what comes of it is the profile's snapshot without all that the type
//! itself says. A snapshot that the package brings is not read, so it can neither lack nor be stale; it serves only where a
//! definition has no differential.

use std::collections::HashMap;
use std::sync::Arc;

use super::element::{
    Binding, By, Condition, Context, Discriminator, Element, Openness, Place, Profile, Rule, Sample, Slice, Slicing,
    Step, Test, TypeRule, steps,
};
use crate::definitions::program::Shape;
use crate::definitions::{Definitions, Strength, TypeId, TypeKind};
use crate::package::{extension, items, text};
use crate::path::Type;
use crate::tree::{Node, Tree};

/// Elements and slices of one profile.
const ELEMENTS_MAX: usize = 20_000;
const FHIR_TYPE: &str = "http://hl7.org/fhir/StructureDefinition/structuredefinition-fhir-type";
const MAX_VALUE_SET: &str = "http://hl7.org/fhir/StructureDefinition/elementdefinition-maxValueSet";
/// Types of FHIRPath's own, for ids, urls and values of primitives.
const SYSTEM_TYPE: &str = "http://hl7.org/fhirpath/System.";

/// Compiles a profile of the type `of`; `chain` is its definitions, the one next to the type first.
pub(super) fn compile(definitions: &Definitions, chain: &[Arc<Tree>], of: TypeId) -> Result<Profile, String> {
    let mut draft = Draft { definitions, of, elements: Vec::new(), shapes: Vec::new(), choices: Vec::new() };
    let kind = definitions.type_kind(of);
    let root = if kind == TypeKind::Primitive { Type::Unknown } else { Type::Object(of, 0) };
    draft.add(definitions.type_name(of), definitions.type_name(of), Some(root))?;
    for tree in chain {
        draft.apply(tree)?;
    }
    draft.finish();
    let last = chain.last().map(|tree| tree.root());
    let contexts = last.into_iter().flat_map(|node| items(node, "context")).filter_map(|context| {
        Some(Context { kind: text(context, "type")?.into(), expression: text(context, "expression")?.into() })
    });
    let is_modifier = |node: Node<'_>| {
        let root = elements_of(node).next();
        root.and_then(|root| root.member("isModifier")).and_then(Node::as_bool).unwrap_or(false)
    };
    Ok(Profile {
        url: last.and_then(|node| text(node, "url")).unwrap_or_default().into(),
        of,
        contexts: contexts.collect(),
        is_modifier: last.is_some_and(is_modifier),
        elements: draft.elements,
    })
}

/// The elements of a definition: its differential's, or, without one, its snapshot's.
fn elements_of<'t>(definition: Node<'t>) -> impl Iterator<Item = Node<'t>> {
    let of = |name: &str| definition.member(name).and_then(|part: Node<'t>| part.member("element"));
    of("differential").or_else(|| of("snapshot")).into_iter().flat_map(Node::items)
}

struct Draft<'d> {
    definitions: &'d Definitions,
    of: TypeId,
    elements: Vec<Element>,
    /// Of each element the type, where it is one.
    shapes: Vec<Option<Type>>,
    /// Whether it is a choice of types.
    choices: Vec<bool>,
}

impl Draft<'_> {
    fn add(&mut self, name: &str, id: &str, ty: Option<Type>) -> Result<Place, String> {
        if self.elements.len() >= ELEMENTS_MAX {
            return Err("it has too many elements".to_owned());
        }
        self.elements.push(Element { name: name.into(), id: id.into(), ..Element::default() });
        self.shapes.push(ty);
        self.choices.push(false);
        Ok(self.elements.len() - 1)
    }

    /// Lays one definition over what is there.
    fn apply(&mut self, tree: &Arc<Tree>) -> Result<(), String> {
        // Where a path was last: children follow their parent, those of a slice the slice.
        let mut last: HashMap<String, Place> = HashMap::new();
        for node in elements_of(tree.root()) {
            let path = text(node, "path").ok_or("an element has no path")?;
            let slice = text(node, "sliceName");
            let Some((parent_path, name)) = path.rsplit_once('.') else {
                last.clear();
                last.insert(path, 0);
                self.merge(0, tree, node);
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
            self.merge(place, tree, node);
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
                self.elements[place].slices.push(Slice { name: part.into(), element: new, conditions: Vec::new() });
                new
            };
        }
        Ok(place)
    }

    /// Adds what a definition says of an element. Profiles only narrow: of two cardinalities both hold.
    fn merge(&mut self, place: Place, tree: &Arc<Tree>, node: Node<'_>) {
        let number = |name: &str| node.member(name).and_then(|n| n.number()?.parse::<u32>().ok());
        let types = self.types(node);
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
            element.bindings = bindings(binding);
        }
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

    fn types(&self, node: Node<'_>) -> Vec<TypeRule> {
        let rule = |node: Node<'_>| {
            let code = extension(node, FHIR_TYPE, "valueUrl")
                .and_then(Node::as_str)
                .or_else(|| node.member("code")?.as_str())?;
            let list = |name| items(node, name).filter_map(|item| Some(item.as_str()?.into())).collect();
            Some(TypeRule { code: (*code).into(), profiles: list("profile"), targets: list("targetProfile") })
        };
        items(node, "type")
            .filter_map(rule)
            .filter(|rule| !rule.code.starts_with(SYSTEM_TYPE) && self.definitions.type_named(&rule.code).is_some())
            .collect()
    }

    /// Tells of each slice what makes an item belong to it.
    fn finish(&mut self) {
        for place in 0..self.elements.len() {
            for number in 0..self.elements[place].slices.len() {
                let slice = &self.elements[place].slices[number];
                let conditions = self.conditions(place, slice);
                self.elements[place].slices[number].conditions = conditions;
            }
        }
    }

    fn conditions(&self, place: Place, slice: &Slice) -> Vec<Condition> {
        let (element, own) = (&self.elements[place], &self.elements[slice.element]);
        let of_this = |test| Condition { path: Box::default(), test, text: "$this".into() };
        if matches!(&*element.name, "extension" | "modifierExtension") {
            return vec![Condition { text: "url".into(), ..of_this(self.urls(own)) }];
        }
        let discriminators = element.slicing.as_ref().map_or(&[][..], |slicing| &slicing.discriminators);
        if discriminators.is_empty() {
            // The slices of a choice are told apart by their types.
            let types = self.type_names(slice.element);
            let is_told = self.choices[place] && !types.is_empty();
            return vec![of_this(if is_told { Test::Types(types) } else { Test::Undecidable })];
        }
        discriminators.iter().map(|discriminator| self.condition(slice.element, discriminator)).collect()
    }

    fn urls(&self, own: &Element) -> Test {
        let url = own.children.iter().map(|&child| &self.elements[child]).find(|child| &*child.name == "url");
        let url = url.and_then(|url| url.fixed.as_ref().or(url.patterns.first()));
        if let Some(url) = url.and_then(|url| url.node().as_str().map(|url| url.as_ref().into())) {
            return Test::Urls(Box::new([url]));
        }
        let urls: Box<[Box<str>]> =
            profiles(own).iter().map(|canonical| crate::package::unversioned(canonical).into()).collect();
        if urls.is_empty() { Test::Undecidable } else { Test::Urls(urls) }
    }

    fn type_names(&self, place: Place) -> Box<[Box<str>]> {
        let element = &self.elements[place];
        if element.types.is_empty() {
            return self.shapes[place].into_iter().map(|ty| ty.name(self.definitions).into()).collect();
        }
        element.types.iter().map(|rule| rule.code.clone()).collect()
    }

    fn condition(&self, slice: Place, discriminator: &Discriminator) -> Condition {
        let text = discriminator.text.clone();
        let all = &discriminator.path;
        let whole = |test| Condition { path: all.clone(), test, text: text.clone() };
        let found = self.descend(slice, all);
        match discriminator.by {
            By::Unknown => whole(Test::Undecidable),
            By::Exists => {
                let element = found.place.map(|place| &self.elements[place]);
                whole(match element {
                    Some(element) if element.max == Some(0) => Test::Exists(false),
                    Some(element) if element.min > 0 => Test::Exists(true),
                    _ => Test::Undecidable,
                })
            }
            By::Type | By::Profile => {
                let resolved = all.last() == Some(&Step::Resolve);
                let Some(place) = found.place else { return whole(Test::Undecidable) };
                let element = &self.elements[place];
                let named: Box<[Box<str>]> = if resolved {
                    element.types.iter().flat_map(|rule| rule.targets.iter().cloned()).collect()
                } else if discriminator.by == By::Type {
                    return whole(match self.type_names(place) {
                        names if names.is_empty() => Test::Undecidable,
                        names => Test::Types(names),
                    });
                } else {
                    profiles(element)
                };
                whole(if named.is_empty() { Test::Undecidable } else { Test::Profiles(named) })
            }
            By::Value => {
                if let Some(place) = found.place.filter(|&place| self.elements[place].is_telling(&self.elements)) {
                    if let Some(Step::Member(name)) = all.last()
                        && &**name == "url"
                        && all.len() == 1
                    {
                        return Condition { path: Box::default(), test: self.urls(&self.elements[slice]), text };
                    }
                    return whole(Test::Element(place));
                }
                if let Some((at, sample)) = found.sample {
                    return Condition { path: all[..at].into(), test: Test::Sample(sample), text };
                }
                if let Some((at, profiles)) = found.profiles {
                    let test = Test::Within { profiles, path: all[at..].into() };
                    return Condition { path: all[..at].into(), test, text };
                }
                whole(match found.place.map(|place| &self.elements[place]) {
                    Some(element) if element.max == Some(0) => Test::Exists(false),
                    Some(element) if element.min > 0 => Test::Exists(true),
                    _ => Test::Undecidable,
                })
            }
        }
    }

    /// Where a discriminator's path leads in a slice.
    fn descend(&self, slice: Place, path: &[Step]) -> Found {
        let mut found = Found { place: Some(slice), sample: None, profiles: None };
        let mut samples: Vec<Sample> = Vec::new();
        for (at, step) in path.iter().enumerate() {
            let before = found.place.map(|place| &self.elements[place]);
            if let Some(element) = before {
                let named = profiles(element);
                if !named.is_empty() {
                    found.profiles = Some((at, named));
                }
                samples.extend(element.fixed.iter().chain(&element.patterns).cloned());
            }
            samples = match step {
                Step::Member(name) => samples.iter().filter_map(|sample| sample.part(name)).collect(),
                Step::OfType(_) => samples,
                Step::Extension(_) | Step::Resolve => Vec::new(),
            };
            found.place = before.and_then(|element| {
                let child = |name: &str| {
                    element.children.iter().copied().find(|&child| *self.elements[child].name == *name)
                };
                match step {
                    Step::Member(name) => child(name),
                    Step::Resolve => found.place,
                    Step::OfType(name) => {
                        let of_type = |slice: &&Slice| self.type_names(slice.element).iter().any(|known| known == name);
                        element.slices.iter().find(of_type).map(|slice| slice.element).or(found.place)
                    }
                    Step::Extension(url) => {
                        let extensions = &self.elements[child("extension")?];
                        let has = |slice: &&Slice| {
                            matches!(self.urls(&self.elements[slice.element]), Test::Urls(urls) if urls.contains(url))
                        };
                        extensions.slices.iter().find(has).map(|slice| slice.element)
                    }
                }
            });
            if *step == Step::Resolve
                && let Some(element) = before
            {
                let targets: Box<[Box<str>]> =
                    element.types.iter().flat_map(|rule| rule.targets.iter().cloned()).collect();
                found.profiles = (!targets.is_empty()).then_some((at + 1, targets));
            }
            if let Step::Extension(url) = step
                && at + 1 < path.len()
            {
                found.profiles = Some((at + 1, Box::new([url.clone()])));
            }
        }
        if let Some(place) = found.place {
            let named = profiles(&self.elements[place]);
            if !named.is_empty() {
                found.profiles = Some((path.len(), named));
            }
        }
        found.sample = samples.into_iter().next().map(|sample| (path.len(), sample));
        found
    }
}

/// What was met on a discriminator's path.
struct Found {
    /// The element at its end.
    place: Option<Place>,
    /// A value that an element on the way fixes there.
    sample: Option<(usize, Sample)>,
    /// The profiles of the last element on the way that names some, and after how many steps.
    profiles: Option<(usize, Box<[Box<str>]>)>,
}

/// The profiles that an element's types name.
fn profiles(element: &Element) -> Box<[Box<str>]> {
    element.types.iter().flat_map(|rule| rule.profiles.iter().cloned()).collect()
}

fn bindings(node: Node<'_>) -> Vec<Binding> {
    let mut found = Vec::new();
    let strength = text(node, "strength").and_then(|strength| Strength::parse(&strength));
    if let (Some(strength), Some(value_set)) = (strength, text(node, "valueSet"))
        && strength >= Strength::Extensible
    {
        found.push(Binding { strength, value_set: value_set.into() });
    }
    if let Some(max) = extension(node, MAX_VALUE_SET, "valueCanonical").and_then(Node::as_str) {
        found.push(Binding { strength: Strength::Required, value_set: (*max).into() });
    }
    found
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
