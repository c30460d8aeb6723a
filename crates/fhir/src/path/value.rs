//! An item of an answer, for those who read it.

use std::borrow::Cow;
use std::fmt;

use super::convert;
use super::item::Item;
use super::types::Type;
use crate::definitions::Definitions;
use crate::tree::{Node, Tree, text::write_string};

/// One item: an element of the document, or a value that was computed.
#[derive(Clone)]
pub struct Value<'a> {
    item: Item<'a>,
    tree: &'a Tree,
    definitions: &'a Definitions,
}

/// Says what it is and nothing of what it holds.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value").field("type", &self.type_name()).finish_non_exhaustive()
    }
}

impl<'a> Value<'a> {
    pub(super) fn new(item: Item<'a>, tree: &'a Tree, definitions: &'a Definitions) -> Self {
        Self { item, tree, definitions }
    }

    /// The FHIR type: `Patient`, `code`; of a computed value the FHIR type that it is written as: `boolean`, `dateTime`,
    /// `Quantity`.
    pub fn type_name(&self) -> &'a str {
        match &self.item {
            Item::Element(element) => element.ty.name(self.definitions),
            Item::Elsewhere(id) => self.definitions.type_name(*id),
            Item::Boolean(_) => "boolean",
            Item::Integer(_) => "integer",
            Item::Decimal(_) => "decimal",
            Item::String(_) => "string",
            Item::Temporal(value) => match value.kind {
                super::temporal::Kind::Date => "date",
                super::temporal::Kind::DateTime => "dateTime",
                super::temporal::Kind::Time => "time",
            },
            Item::Quantity(_) => "Quantity",
            Item::TypeInfo { .. } => "TypeInfo",
        }
    }

    /// Where its value stands in the document; None of what was computed, and of a primitive without a value.
    pub fn node(&self) -> Option<Node<'a>> {
        match &self.item {
            Item::Element(element) => element.value(self.tree),
            _ => None,
        }
    }

    /// True or false, if it is a Boolean or a FHIR boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match &self.item {
            Item::Boolean(value) => Some(*value),
            _ => self.node().and_then(Node::as_bool),
        }
    }

    /// Its text: a string as it is, a number and a date as FHIR writes them, `4.5 'mg'`. None of objects.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match &self.item {
            Item::Element(_) => {
                let node = self.node()?;
                node.as_str()
                    .or_else(|| node.number().map(Cow::Borrowed))
                    .or_else(|| node.as_bool().map(|value| Cow::Borrowed(if value { "true" } else { "false" })))
            }
            Item::TypeInfo { namespace, name } => Some(Cow::Owned(format!("{namespace}.{name}"))),
            other => convert::to_text(other).map(Cow::Owned),
        }
    }

    /// Writes it as JSON: elements as they stand in the document, decimals by their text, a quantity as
    /// `{"value": "4.5", "code": "mg"}`, with `unit` for a unit of the calendar. `null` stands for what has no value here.
    pub fn write_json(&self, json: &mut Vec<u8>) {
        let put = |text: &str, json: &mut Vec<u8>| write_string(text, |piece| json.extend_from_slice(piece));
        match &self.item {
            Item::Element(element) => match element.value(self.tree) {
                Some(node)
                    if matches!(element.ty, Type::Primitive(crate::definitions::primitive::Primitive::Decimal)) =>
                {
                    put(node.number().unwrap_or_default(), json);
                }
                Some(node) => json.extend_from_slice(node.raw()),
                None => json.extend_from_slice(b"null"),
            },
            Item::Boolean(_) | Item::Integer(_) => {
                json.extend_from_slice(self.text().unwrap_or_default().as_bytes());
            }
            Item::Quantity(quantity) => {
                json.extend_from_slice(b"{\"value\":");
                put(&quantity.value.to_string(), json);
                let (name, unit) = quantity.unit_name();
                json.extend_from_slice(format!(",\"{name}\":").as_bytes());
                put(unit, json);
                json.push(b'}');
            }
            Item::Elsewhere(_) => json.extend_from_slice(b"null"),
            Item::Decimal(_) | Item::String(_) | Item::Temporal(_) | Item::TypeInfo { .. } => {
                put(&self.text().unwrap_or_default(), json);
            }
        }
    }
}
