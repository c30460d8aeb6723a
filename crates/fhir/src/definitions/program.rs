//! Compiles the elements of one type into shapes: for each object that can occur in it, which members it may have and
//! what stands there. Choice types are spread out (`valueQuantity` is a member of its own), content references become
//! references to a shape, nested data types references to a type: nothing is inlined, so recursion costs nothing.

use super::names::Names;
use super::pack::{PackError, Reader};
use super::primitive::Primitive;
use super::schema::{Strength, TypeKind};
use super::{Definitions, TypeId};
use crate::tree::{self, Node};

/// Fields that one shape may have; [`Seen`] has a bit for each. The widest of R4 has 40.
const FIELDS_MAX: usize = 256;

/// The shapes of one type; shape 0 is the type itself, the others its nested elements.
#[derive(Debug, Default)]
pub(crate) struct Program {
    shapes: Vec<Shape>,
}

impl Program {
    pub(crate) const NONE: Self = Self { shapes: Vec::new() };

    pub(crate) fn shape(&self, place: u16) -> Option<&Shape> {
        self.shapes.get(usize::from(place))
    }
}

/// The members that an object may have.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) fields: Box<[Field]>,
    slots: Box<[Slot]>,
    /// Members by the id of their name.
    ids: Ids,
    /// Members by name: for names that the tree does not know by a fixed id.
    names: Names,
    /// Bits of the fields that must be present.
    pub(crate) required: Seen,
    /// The object is a resource: it may have a `resourceType`.
    pub(crate) is_resource: bool,
    pub(crate) constraints: Box<[Constraint]>,
}

/// One element: what a cardinality is about. A choice is one field with several slots.
#[derive(Debug)]
pub(crate) struct Field {
    /// Without `[x]`.
    pub(crate) name: Box<str>,
    pub(crate) min: u32,
    pub(crate) max: Option<u32>,
    pub(crate) repeats: bool,
    pub(crate) is_choice: bool,
    pub(crate) bindings: Box<[Binding]>,
    /// Of this element; those of its type stand with the type.
    pub(crate) constraints: Box<[Constraint]>,
}

/// One member name and what stands there.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: Box<str>,
    pub(crate) field: u16,
    pub(crate) kind: Kind,
    /// Types that a reference here may point to; empty: any.
    pub(crate) targets: Box<[TypeId]>,
}

/// What stands at a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Primitive(Primitive),
    /// A data type.
    Complex(TypeId),
    /// A nested element of the same type.
    Nested(u16),
    /// Any resource with a life of its own (Bundle.entry.resource).
    Resource,
    /// A resource that lives only inside of its container.
    Contained,
}

/// A binding, with its value set looked up once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding {
    pub(crate) strength: Strength,
    /// None: the package does not hold it.
    pub(crate) value_set: Option<u32>,
    /// The canonical, in the strings.
    pub(crate) canonical: u32,
}

/// An invariant, by places in the strings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Constraint {
    /// Its number within its type.
    pub(crate) number: u16,
    pub(crate) is_error: bool,
    pub(crate) key: u32,
    /// FHIRPath.
    pub(crate) expression: u32,
    /// What it demands, in words.
    pub(crate) human: u32,
}

/// A set of fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen([u64; FIELDS_MAX / 64]);

impl Seen {
    /// Adds a field; false if it was there.
    #[inline]
    pub(crate) fn insert(&mut self, field: u16) -> bool {
        let (word, bit) = (usize::from(field) / 64 % self.0.len(), 1_u64 << (field % 64));
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    /// Whether a field is among them.
    #[inline]
    pub(crate) fn contains(&self, field: u16) -> bool {
        self.0[usize::from(field) / 64 % self.0.len()] & (1 << (field % 64)) != 0
    }

    /// The fields of `self` that `other` lacks.
    pub(crate) fn without(&self, other: &Self) -> impl Iterator<Item = usize> {
        let left: [u64; FIELDS_MAX / 64] = std::array::from_fn(|word| self.0[word] & !other.0[word]);
        (0..FIELDS_MAX).filter(move |field| left[field / 64] & (1 << (field % 64)) != 0)
    }

    #[inline]
    pub(crate) fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a & !b == 0)
    }
}

/// An open-addressing table from the ids of names to slots.
#[derive(Debug)]
struct Ids {
    cells: Box<[(usize, u16)]>,
}

impl Ids {
    const FREE: usize = usize::MAX;

    fn new(ids: impl Iterator<Item = (tree::NameId, u16)>) -> Self {
        let ids: Vec<_> = ids.collect();
        let mut cells = vec![(Self::FREE, 0); (ids.len() * 2).next_power_of_two().max(2)].into_boxed_slice();
        for (id, slot) in ids {
            let mut at = Self::start(id.index(), cells.len());
            while cells[at].0 != Self::FREE {
                at = (at + 1) & (cells.len() - 1);
            }
            cells[at] = (id.index(), slot);
        }
        Self { cells }
    }

    #[inline]
    fn start(id: usize, size: usize) -> usize {
        (id.wrapping_mul(0x9e37_79b1) >> 16) & (size - 1)
    }

    #[inline]
    fn find(&self, id: tree::NameId) -> Option<usize> {
        let mut at = Self::start(id.index(), self.cells.len());
        loop {
            let (cell, slot) = self.cells[at];
            if cell == id.index() {
                return Some(usize::from(slot));
            }
            if cell == Self::FREE {
                return None;
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
    }
}

impl Shape {
    /// The slot of a member.
    #[inline]
    pub(crate) fn slot_of(&self, member: Node<'_>) -> Option<&Slot> {
        let id = member.name_id()?;
        match self.ids.find(id) {
            Some(slot) => self.slots.get(slot),
            None if id.index() < tree::known_len() => None,
            None => self.slot(member.name()?),
        }
    }

    /// The slot of a member name.
    pub(crate) fn slot(&self, name: &str) -> Option<&Slot> {
        self.names.find(name, |place| &self.slots[place].name).map(|place| &self.slots[place])
    }

    pub(crate) fn field(&self, slot: &Slot) -> &Field {
        &self.fields[usize::from(slot.field)]
    }

    /// The number of the choice of that name, written without `[x]`.
    pub(crate) fn choice(&self, name: &str) -> Option<u16> {
        self.fields.iter().position(|field| field.is_choice && *field.name == *name).map(small)
    }

    /// What may stand at a field.
    pub(crate) fn slots_of(&self, field: u16) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| slot.field == field)
    }

    /// The choice whose name starts this unknown member's name, with what follows it.
    pub(crate) fn choice_of<'n>(&self, name: &'n str) -> Option<&'n str> {
        self.fields.iter().filter(|field| field.is_choice).find_map(|field| {
            name.strip_prefix(&*field.name).filter(|suffix| suffix.starts_with(|c: char| c.is_ascii_uppercase()))
        })
    }
}

/// An element as the pack has it.
pub(crate) struct Element {
    parent: usize,
    name: u32,
    min: u32,
    max: Option<u32>,
    flags: u32,
    content: Option<usize>,
    types: Vec<(u32, Vec<u32>)>,
    bindings: Vec<(Strength, u32)>,
}

/// Reads the element table of one type and checks its cross references.
pub(crate) fn decode(definitions: &Definitions, mut reader: Reader<'_>) -> Result<Vec<Element>, PackError> {
    let text = |reader: &mut Reader<'_>| {
        let place = reader.number()?;
        if (place as usize) < definitions.strings().len() { Ok(place) } else { Err(reader.damaged()) }
    };
    let mut elements = Vec::new();
    let count = reader.count()?;
    for place in 0..count {
        let parent = reader.number()? as usize;
        let name = text(&mut reader)?;
        let (min, max, flags) = (reader.number()?, reader.number()?.checked_sub(1), reader.number()?);
        let content = reader.number()?.checked_sub(1).map(|c| c as usize);
        if parent > place || (parent == place && place != 0) || content.is_some_and(|c| c >= count) {
            return Err(reader.damaged());
        }
        let mut types = Vec::new();
        for _ in 0..reader.count()? {
            let code = text(&mut reader)?;
            let mut targets = Vec::new();
            for _ in 0..reader.count()? {
                targets.push(text(&mut reader)?);
            }
            types.push((code, targets));
        }
        let mut bindings = Vec::new();
        for _ in 0..reader.count()? {
            let strength = Strength::from_byte(reader.number()?).ok_or_else(|| reader.damaged())?;
            bindings.push((strength, text(&mut reader)?));
        }
        elements.push(Element { parent, name, min, max, flags, content, types, bindings });
    }
    if count > usize::from(u16::MAX) { Err(reader.damaged()) } else { Ok(elements) }
}

/// Reads the constraints of a type of so many elements, each with the place of its element. Nothing if there are none.
pub(crate) fn decode_constraints(
    definitions: &Definitions,
    mut reader: Reader<'_>,
    elements: usize,
) -> Result<Vec<(usize, Constraint)>, PackError> {
    let mut constraints = Vec::new();
    if reader.is_empty() {
        return Ok(constraints);
    }
    for number in 0..reader.count()? {
        let place = reader.number()? as usize;
        let is_error = reader.number()? != 0;
        let (key, expression, human) = (reader.number()?, reader.number()?, reader.number()?);
        let longest = key.max(expression).max(human) as usize;
        if place >= elements || longest >= definitions.strings().len() || number > usize::from(u16::MAX) {
            return Err(reader.damaged());
        }
        constraints.push((place, Constraint { number: small(number), is_error, key, expression, human }));
    }
    Ok(constraints)
}

impl Program {
    /// Compiles a type's elements.
    pub(crate) fn compile(
        definitions: &Definitions,
        kind: TypeKind,
        elements: &[Element],
        constraints: &[(usize, Constraint)],
    ) -> Self {
        let mut has_children = vec![false; elements.len()];
        for element in elements.iter().skip(1) {
            has_children[element.parent] = true;
        }
        // Shapes are numbered in the order of their elements.
        let mut shape_of = vec![None; elements.len()];
        let mut count = 0_u16;
        for (place, _) in has_children.iter().enumerate().filter(|(_, has)| **has) {
            shape_of[place] = Some(count);
            count = count.saturating_add(1);
        }
        let shapes = (0..elements.len())
            .filter(|&place| has_children[place])
            .map(|place| {
                let is_resource = kind == TypeKind::Resource && place == 0;
                compile_shape(definitions, elements, (&shape_of, constraints), place, is_resource)
            })
            .collect();
        Self { shapes }
    }
}

fn compile_shape(
    definitions: &Definitions,
    elements: &[Element],
    (shape_of, constraints): (&[Option<u16>], &[(usize, Constraint)]),
    parent: usize,
    is_resource: bool,
) -> Shape {
    let constraints_of = |place: usize| -> Box<[Constraint]> {
        constraints.iter().filter(|(of, _)| *of == place).map(|(_, constraint)| *constraint).collect()
    };
    let mut fields = Vec::new();
    let mut slots: Vec<Slot> = Vec::new();
    let mut required = Seen::default();
    let children = elements.iter().enumerate().skip(1).filter(|(_, element)| element.parent == parent);
    for (place, element) in children.take(FIELDS_MAX) {
        let field = small(fields.len());
        let full_name = definitions.strings().at(element.name);
        let name = full_name.strip_suffix("[x]").unwrap_or(full_name);
        let is_choice = name.len() != full_name.len();
        let nested = element.content.map_or(shape_of[place], |target| shape_of[target]);
        let mut add = |name: String, kind: Kind, targets: &[u32]| {
            // Two entries of one type (a Quantity, and a SimpleQuantity) are one slot.
            if slots.iter().all(|slot| *slot.name != *name) {
                let targets = target_types(definitions, targets);
                slots.push(Slot { name: name.into(), field, kind, targets });
            }
        };
        if let Some(shape) = nested {
            add(name.to_owned(), Kind::Nested(shape), &[]);
        } else {
            for (code, targets) in &element.types {
                let code = definitions.strings().at(*code);
                if let Some(kind) = kind_of(definitions, code, name, is_resource) {
                    let member = if is_choice { format!("{name}{}", capitalized(code)) } else { name.to_owned() };
                    add(member, kind, targets);
                }
            }
        }
        if element.min > 0 {
            required.insert(field);
        }
        let bindings = element.bindings.iter().map(|&(strength, canonical)| {
            let value_set = definitions.value_set_place(definitions.strings().at(canonical));
            Binding { strength, value_set, canonical }
        });
        fields.push(Field {
            name: name.into(),
            min: element.min,
            max: element.max,
            repeats: element.flags & 1 != 0,
            is_choice,
            // Weaker bindings are advice to those who design; they are not checked.
            bindings: bindings.filter(|binding| binding.strength >= Strength::Extensible).collect(),
            // Those of an element with members of its own stand with its shape.
            constraints: if shape_of[place].is_some() { Box::default() } else { constraints_of(place) },
        });
    }
    let names = Names::new(slots.iter().map(|slot| &*slot.name));
    let ids =
        Ids::new(slots.iter().enumerate().filter_map(|(place, slot)| Some((tree::known(&slot.name)?, small(place)))));
    let constraints = constraints_of(parent);
    Shape { fields: fields.into(), slots: slots.into(), ids, names, required, is_resource, constraints }
}

fn kind_of(definitions: &Definitions, code: &str, name: &str, is_resource: bool) -> Option<Kind> {
    if name == "id" && !is_resource {
        // Element.id: any string without white space (FHIR R4 element.html#id).
        return Some(Kind::Primitive(Primitive::ElementId));
    }
    let id = definitions.type_named(code)?;
    match definitions.type_kind(id) {
        TypeKind::Primitive => Primitive::named(code).map(Kind::Primitive),
        TypeKind::Complex => Some(Kind::Complex(id)),
        TypeKind::Resource if name == "contained" => Some(Kind::Contained),
        TypeKind::Resource => Some(Kind::Resource),
    }
}

/// The types that targets name. `Resource` among them, or one that is not a type here (another package's profile), means any.
fn target_types(definitions: &Definitions, targets: &[u32]) -> Box<[TypeId]> {
    let ids: Option<Box<[TypeId]>> =
        targets.iter().map(|&target| definitions.resource_named(definitions.strings().at(target))).collect();
    ids.unwrap_or_default()
}

/// A place among fields or slots, of which `decode` lets through fewer than 65,536.
fn small(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

fn capitalized(code: &str) -> String {
    let mut chars = code.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape_of<'d>(definitions: &'d Definitions, name: &str) -> &'d Shape {
        definitions.program(definitions.type_named(name).unwrap()).shape(0).unwrap()
    }

    #[test]
    fn choices_are_spread_out_and_share_one_field() {
        let r4 = Definitions::r4();
        let observation = shape_of(&r4, "Observation");
        let quantity = observation.slot("valueQuantity").unwrap();
        let string = observation.slot("valueString").unwrap();
        assert_eq!(quantity.field, string.field);
        assert_eq!(quantity.kind, Kind::Complex(r4.type_named("Quantity").unwrap()));
        assert_eq!(string.kind, Kind::Primitive(Primitive::String));
        assert!(observation.slot("value").is_none() && observation.slot("valueAddress").is_none());
        assert_eq!(observation.choice_of("valueAddress"), Some("Address"));
        assert_eq!(observation.choice_of("valued"), None);
    }

    #[test]
    fn a_content_reference_is_a_shape_and_not_a_copy() {
        let r4 = Definitions::r4();
        let program = r4.program(r4.type_named("Questionnaire").unwrap());
        let Kind::Nested(item) = program.shape(0).unwrap().slot("item").unwrap().kind else { panic!() };
        let nested = program.shape(item).unwrap().slot("item").unwrap();
        assert_eq!(nested.kind, Kind::Nested(item));
    }

    #[test]
    fn cardinality_targets_and_bindings_are_there() {
        let r4 = Definitions::r4();
        let observation = shape_of(&r4, "Observation");
        let status = observation.slot("status").unwrap();
        let field = observation.field(status);
        assert_eq!((field.min, field.max, field.repeats), (1, Some(1), false));
        assert_eq!(field.bindings[0].strength, Strength::Required);
        assert!(field.bindings[0].value_set.is_some());
        let subject = observation.slot("subject").unwrap();
        let targets: Vec<_> = subject.targets.iter().map(|&t| r4.type_name(t)).collect();
        assert_eq!(targets, ["Patient", "Group", "Device", "Location"]);
        let mut seen = Seen::default();
        assert!(!observation.required.is_subset(&seen));
        assert!(seen.insert(status.field) && !seen.insert(status.field));
        let missing: Vec<_> = observation.required.without(&seen).map(|f| &*observation.fields[f].name).collect();
        assert_eq!(missing, ["code"]);
    }
}
