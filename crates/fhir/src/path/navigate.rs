//! From an element to what it holds: members by name, children, and its value as one of FHIRPath's own types.

use std::borrow::Cow;

use super::eval::Run;
use super::item::{Collection, Element, Item};
use super::number;
use super::program::Step;
use super::quantity::{Calendar, Quantity, Unit};
use super::temporal::{self, Temporal};
use super::types::{Place, System, Type};
use crate::definitions::Definitions;
use crate::definitions::primitive::Primitive;
use crate::definitions::program::Kind;
use crate::tree::{self, Node, Tree};

const UCUM: &str = "http://unitsofmeasure.org";

/// The type of a resource's node, by its `resourceType`.
pub(super) fn resource_type(definitions: &Definitions, node: Node<'_>) -> Type {
    node.resource_type()
        .and_then(|name| definitions.resource_named(name))
        .map_or(Type::Unknown, |id| Type::Object(id, 0))
}

/// A resource as an element.
pub(crate) fn resource(definitions: &Definitions, node: Node<'_>) -> Element {
    Element::new(Some(node), None, resource_type(definitions, node))
}

/// The element that a node of a resource is: its type, found on the way down to it. What the definitions do not know has
/// no type.
pub(crate) fn locate(definitions: &Definitions, node: Node<'_>) -> Element {
    let mut up = Vec::new();
    let mut at = node;
    let mut ty = loop {
        if at.is_object() && at.resource_type().is_some() {
            break resource_type(definitions, at);
        }
        let Some(parent) = at.parent() else { return Element::new(Some(node), None, Type::Unknown) };
        if let Some(name) = at.name() {
            up.push(name);
        }
        at = parent;
    };
    for name in up.into_iter().rev() {
        let name = name.strip_prefix('_').unwrap_or(name);
        let inner = if let Type::Primitive(_) = ty { Type::Object(definitions.element(), 0) } else { ty };
        let slot = inner.shape(definitions).and_then(|shape| shape.slot(name));
        ty = slot.and_then(|slot| inner.at(slot.kind)).unwrap_or(Type::Unknown);
    }
    Element::new(Some(node), None, ty)
}

/// Gives each element that a member and its `_name` hold: one, or the items of an array with what belongs to them.
fn each<'t>(
    value: Option<Node<'t>>,
    companion: Option<Node<'t>>,
    mut give: impl FnMut(Option<Node<'t>>, Option<Node<'t>>),
) {
    let present = |node: &Node<'t>| node.kind() != tree::Kind::Null;
    let is_array = value.or(companion).is_some_and(Node::is_array);
    if !is_array {
        let (value, companion) = (value.filter(present), companion.filter(|node| node.is_object()));
        if value.is_some() || companion.is_some() {
            give(value, companion);
        }
        return;
    }
    let mut values = value.into_iter().flat_map(Node::items);
    let mut companions = companion.into_iter().flat_map(Node::items);
    loop {
        let (value, companion) = (values.next(), companions.next());
        if value.is_none() && companion.is_none() {
            return;
        }
        let (value, companion) = (value.filter(present), companion.filter(|node| node.is_object()));
        if value.is_some() || companion.is_some() {
            give(value, companion);
        }
    }
}

/// Gives the elements at a place of an object.
fn at_place<'t>(definitions: &Definitions, node: Node<'t>, ty: Type, place: Place, give: &mut dyn FnMut(Element)) {
    let mut give_slot = |value: Option<Node<'t>>, companion: Option<Node<'t>>, kind: Kind| {
        each(value, companion, |value, companion| {
            let found = ty.at(kind).or_else(|| value.map(|value| resource_type(definitions, value)));
            give(Element::new(value, companion, found.unwrap_or(Type::Unknown)));
        });
    };
    match place {
        Place::Slot { value, companion, kind } => {
            give_slot(node.member_id(value), companion.and_then(|name| node.member_id(name)), kind);
        }
        Place::Choice(field) => {
            let Some(shape) = ty.shape(definitions) else { return };
            for member in node.members() {
                if let Some(slot) = shape.slot_of(member) {
                    if slot.field == field {
                        give_slot(Some(member), companion_of(node, &slot.name, slot.kind), slot.kind);
                    }
                    continue;
                }
                // The extensions of a value that is not there.
                let Some(name) = member.name().and_then(|name| name.strip_prefix('_')) else { continue };
                let Some(slot) = shape.slot(name).filter(|slot| slot.field == field) else { continue };
                if node.member(name).is_none() {
                    give_slot(None, Some(member), slot.kind);
                }
            }
        }
    }
}

/// Gives the elements of that name within one; of a choice without its type: `value`.
pub(crate) fn elements_at(
    definitions: &Definitions,
    tree: &Tree,
    element: Element,
    name: &str,
    give: &mut dyn FnMut(Element),
) {
    let (node, ty) = match element.ty {
        Type::Primitive(_) => (element.companion(tree), Type::Object(definitions.element(), 0)),
        ty => (element.value(tree), ty),
    };
    let Some(node) = node.filter(|node| node.is_object()) else { return };
    let Some(shape) = ty.shape(definitions) else { return };
    match shape.slot(name) {
        Some(slot) if !shape.field(slot).is_choice => {
            each(node.member(name), companion_of(node, name, slot.kind), |value, companion| {
                let found = ty.at(slot.kind).or_else(|| value.map(|value| resource_type(definitions, value)));
                give(Element::new(value, companion, found.unwrap_or(Type::Unknown)));
            });
        }
        _ => {
            if let Some(field) = shape.choice(name) {
                at_place(definitions, node, ty, Place::Choice(field), give);
            }
        }
    }
}

fn companion_of<'t>(node: Node<'t>, name: &str, kind: Kind) -> Option<Node<'t>> {
    if let Kind::Primitive(_) = kind { node.member(&format!("_{name}")) } else { None }
}

/// Gives the elements that an element holds, with their JSON names, in the order of the document.
pub(super) fn children<'t>(
    definitions: &Definitions,
    tree: &'t Tree,
    element: Element,
    give: &mut dyn FnMut(&'t str, Element),
) {
    let (node, ty) = match element.ty {
        Type::Primitive(_) => (element.companion(tree), Type::Object(definitions.element(), 0)),
        ty => (element.value(tree), ty),
    };
    let Some(node) = node.filter(|node| node.is_object()) else { return };
    let shape = ty.shape(definitions);
    for member in node.members() {
        let Some(name) = member.name() else { continue };
        if name == "resourceType" {
            continue;
        }
        if let Some(slot) = shape.and_then(|shape| shape.slot_of(member)) {
            let companion = companion_of(node, &slot.name, slot.kind);
            each(Some(member), companion, |value, companion| {
                let found = ty.at(slot.kind).or_else(|| value.map(|value| resource_type(definitions, value)));
                give(name, Element::new(value, companion, found.unwrap_or(Type::Unknown)));
            });
        } else if let Some(primitive) = name.strip_prefix('_') {
            let slot = shape.and_then(|shape| shape.slot(primitive));
            if let Some(slot) = slot.filter(|_| node.member(primitive).is_none()) {
                each(None, Some(member), |value, companion| {
                    give(primitive, Element::new(value, companion, ty.at(slot.kind).unwrap_or(Type::Unknown)));
                });
            }
        } else {
            each(Some(member), None, |value, _| give(name, Element::new(value, None, Type::Unknown)));
        }
    }
}

impl<'a> Run<'a> {
    /// Adds the members of that name.
    pub(super) fn members(&self, item: &Item<'a>, step: &Step, found: &mut Collection<'a>) {
        match item {
            Item::Element(element) => self.members_of(*element, step, found),
            Item::Quantity(quantity) => match (&*step.name, &quantity.unit) {
                ("value", _) => found.push(Item::Decimal(quantity.value)),
                ("code", Unit::Ucum(code)) => found.push(Item::String(Cow::Owned(code.to_string()))),
                ("unit", _) => found.push(Item::String(Cow::Owned(quantity.unit_name().1.to_owned()))),
                _ => {}
            },
            Item::TypeInfo { namespace, name } => match &*step.name {
                "namespace" => found.push(Item::String(Cow::Borrowed(namespace))),
                "name" => found.push(Item::String(Cow::Borrowed(name))),
                _ => {}
            },
            // Its members are somewhere else.
            Item::Elsewhere(_) => self.unknown.set(true),
            Item::Boolean(_) | Item::Integer(_) | Item::Decimal(_) | Item::String(_) | Item::Temporal(_) => {}
        }
    }

    fn members_of(&self, element: Element, step: &Step, found: &mut Collection<'a>) {
        let tree = self.tree();
        let (node, ty) = match element.ty {
            Type::Primitive(_) => (element.companion(tree), Type::Object(self.definitions.element(), 0)),
            ty => (element.value(tree), ty),
        };
        let Some(node) = node else { return };
        let place = match ty {
            Type::Object(id, shape) => {
                let known = step.known.iter().find(|(known, _)| *known == (id, shape));
                known.map(|&(_, place)| place).or_else(|| ty.place(self.definitions, &step.name))
            }
            Type::Unknown => {
                let value = step.id.map_or_else(|| node.member(&step.name), |id| node.member_id(id));
                return each(value, None, |value, _| {
                    // A resource says what it is.
                    let ty = value.map_or(Type::Unknown, |value| resource_type(self.definitions, value));
                    found.push(Item::Element(Element::new(value, None, ty)));
                });
            }
            _ => None,
        };
        if let Some(place) = place {
            at_place(self.definitions, node, ty, place, &mut |element| found.push(Item::Element(element)));
        }
    }

    /// Adds all that an item holds.
    pub(super) fn children(&self, item: &Item<'a>, found: &mut Vec<Item<'a>>) {
        match item {
            Item::Element(element) => {
                children(self.definitions, self.tree(), *element, &mut |_, element| found.push(Item::Element(element)));
            }
            Item::Elsewhere(_) => self.unknown.set(true),
            _ => {}
        }
    }

    /// What an item is.
    #[expect(clippy::unused_self, reason = "asked of a run like the item's value is")]
    pub(super) fn type_of(&self, item: &Item<'a>) -> Type {
        match item {
            Item::Element(element) => element.ty,
            Item::Boolean(_) => Type::System(System::Boolean),
            Item::Integer(_) => Type::System(System::Integer),
            Item::Decimal(_) => Type::System(System::Decimal),
            Item::String(_) => Type::System(System::String),
            Item::Temporal(value) => Type::System(match value.kind {
                temporal::Kind::Date => System::Date,
                temporal::Kind::DateTime => System::DateTime,
                temporal::Kind::Time => System::Time,
            }),
            Item::Quantity(_) => Type::System(System::Quantity),
            Item::TypeInfo { .. } => Type::Info,
            Item::Elsewhere(id) => Type::Object(*id, 0),
        }
    }

    /// Whether it is a primitive that has extensions only.
    pub(super) fn is_empty_primitive(&self, item: &Item<'a>) -> bool {
        matches!(item, Item::Element(element) if matches!(element.ty, Type::Primitive(_)) && element.value(self.tree()).is_none())
    }

    /// The value of an item in FHIRPath's own types; None of objects and of primitives without a value.
    pub(super) fn system(&self, item: &Item<'a>) -> Option<Item<'a>> {
        let Item::Element(element) = item else {
            return (!matches!(item, Item::TypeInfo { .. } | Item::Elsewhere(_))).then(|| item.clone());
        };
        let node = element.value(self.tree())?;
        match element.ty {
            Type::Primitive(primitive) => primitive_value(primitive, node).or_else(|| json_value(node)),
            Type::Unknown => json_value(node),
            ty if ty.is_quantity(self.definitions) => quantity(node).map(|quantity| Item::Quantity(Box::new(quantity))),
            _ => None,
        }
    }
}

fn primitive_value(primitive: Primitive, node: Node<'_>) -> Option<Item<'_>> {
    match primitive {
        Primitive::Boolean => node.as_bool().map(Item::Boolean),
        Primitive::Integer | Primitive::PositiveInt | Primitive::UnsignedInt => {
            node.number()?.parse().ok().filter(|number| number::is_integer(*number)).map(Item::Integer)
        }
        Primitive::Decimal => number::parse(node.number()?).map(Item::Decimal),
        Primitive::Date => Temporal::date(&node.as_str()?).map(Item::Temporal),
        Primitive::DateTime | Primitive::Instant => Temporal::date_time(&node.as_str()?).map(Item::Temporal),
        Primitive::Time => Temporal::time(&node.as_str()?).map(Item::Temporal),
        _ => node.as_str().map(Item::String),
    }
}

/// A value by what it is in JSON: of a type that is not known, or where it is not what its type says.
fn json_value(node: Node<'_>) -> Option<Item<'_>> {
    match node.kind() {
        tree::Kind::Bool => node.as_bool().map(Item::Boolean),
        tree::Kind::Number => number::parse(node.number()?).map(Item::Decimal),
        tree::Kind::String => node.as_str().map(Item::String),
        tree::Kind::Null | tree::Kind::Array | tree::Kind::Object => None,
    }
}

/// How two Quantities stand to each other, by their units; None if they can't be compared.
pub(crate) fn compare_quantities(a: Node<'_>, b: Node<'_>) -> Option<std::cmp::Ordering> {
    let same = |name: &str| a.member(name).map(Node::as_str) == b.member(name).map(Node::as_str);
    if same("system") && same("code") && same("unit") && a.member("comparator").is_none() {
        let value = |node: Node<'_>| number::parse(node.member("value")?.number()?);
        return Some(value(a)?.cmp(&value(b)?));
    }
    quantity(a)?.compare(&quantity(b)?)
}

/// A FHIR Quantity with a UCUM unit. Units of time are the calendar's (FHIR R4 fhirpath.html, Quantity).
fn quantity(node: Node<'_>) -> Option<Quantity> {
    let value = number::parse(node.member("value")?.number()?)?;
    if node.member("comparator").is_some() || !node.member("system")?.is_str(UCUM) {
        return None;
    }
    let code = node.member("code")?.as_str()?;
    let calendar = match &*code {
        "a" => Some(Calendar::Year),
        "mo" => Some(Calendar::Month),
        _ => None,
    };
    Some(Quantity { value, unit: calendar.map_or_else(|| Unit::Ucum(code.into_owned().into()), Unit::Calendar) })
}
