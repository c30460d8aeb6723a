//! The tree as XML: members in the order of their definition, ids and urls of extensions as attributes.

use super::error::WriteError;
use super::error::WriteErrorKind::{
    self, Array, Character, Companion, Narrative, TooDeep, UnknownMember, UnknownResource, ValueKind,
};
use super::{DEPTH_MAX, FHIR, lexical, narrative};
use crate::definitions::primitive::Primitive;
use crate::definitions::program::{Kind, Program, Shape, Slot};
use crate::definitions::{Definitions, Role};
use crate::tree::{self, Node};
use crate::validate::lexical::{Written, written};

/// Writes a resource as a document.
pub(super) fn document(resource: Node<'_>, definitions: &Definitions) -> Result<Vec<u8>, WriteError> {
    let mut writer = Writer { definitions, out: Vec::with_capacity(resource.raw().len()) };
    writer.out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    writer.resource(resource, true, 0)?;
    Ok(writer.out)
}

struct Writer<'d> {
    definitions: &'d Definitions,
    out: Vec<u8>,
}

/// What an object's members are held against.
#[derive(Clone, Copy)]
struct Rules<'d> {
    program: &'d Program,
    shape: &'d Shape,
    role: Role,
}

/// A member with its underscore member; one of the two is there.
struct Member<'t, 'd> {
    slot: &'d Slot,
    value: Option<Node<'t>>,
    companion: Option<Node<'t>>,
}

fn refused<T>(kind: WriteErrorKind, node: Node<'_>) -> Result<T, WriteError> {
    Err(WriteError { kind, path: node.path() })
}

impl<'d> Writer<'d> {
    fn resource(&mut self, node: Node<'_>, is_root: bool, depth: usize) -> Result<(), WriteError> {
        let id = node.resource_type().and_then(|name| self.definitions.resource_named(name));
        let Some((name, id)) = node.resource_type().zip(id) else { return refused(UnknownResource, node) };
        let program = self.definitions.program(id);
        let Some(shape) = program.shape(0) else { return refused(UnknownResource, node) };
        self.open(name);
        if is_root {
            self.put(" xmlns=\"");
            self.put(FHIR);
            self.put("\"");
        }
        self.object(name, node, Rules { program, shape, role: Role::Plain }, depth)
    }

    /// The attributes and content of an object whose start tag is open, and its end tag.
    fn object(&mut self, name: &str, node: Node<'_>, rules: Rules<'d>, depth: usize) -> Result<(), WriteError> {
        if depth >= DEPTH_MAX {
            return refused(TooDeep, node);
        }
        let members = members(node, rules.shape)?;
        let is_attribute = |member: &Member<'_, '_>| match &*member.slot.name {
            "id" => !rules.shape.is_resource,
            "url" => rules.role == Role::Extension,
            _ => false,
        };
        for member in members.iter().filter(|member| is_attribute(member)) {
            match (member.value, member.companion) {
                (Some(value), None) => self.attribute(&member.slot.name, value)?,
                (_, Some(companion)) => return refused(Companion, companion),
                (None, None) => {}
            }
        }
        let mut is_empty = true;
        for member in members.iter().filter(|member| !is_attribute(member)) {
            if std::mem::take(&mut is_empty) {
                self.put(">");
            }
            self.member(member, rules, depth)?;
        }
        self.close(name, is_empty);
        Ok(())
    }

    fn member(&mut self, member: &Member<'_, 'd>, rules: Rules<'d>, depth: usize) -> Result<(), WriteError> {
        let repeats = rules.shape.field(member.slot).repeats;
        for node in [member.value, member.companion].into_iter().flatten() {
            if node.is_array() != repeats || repeats && node.is_empty() {
                return refused(Array, node);
            }
        }
        if !repeats {
            return self.item(member.slot, member.value, member.companion, rules, depth);
        }
        let mut values = member.value.into_iter().flat_map(Node::items);
        let mut companions = member.companion.into_iter().flat_map(Node::items);
        loop {
            let (value, companion) = (values.next(), companions.next());
            if value.is_none() && companion.is_none() {
                return Ok(());
            }
            self.item(member.slot, value, companion, rules, depth)?;
        }
    }

    /// One element.
    fn item(
        &mut self,
        slot: &'d Slot,
        value: Option<Node<'_>>,
        companion: Option<Node<'_>>,
        rules: Rules<'d>,
        depth: usize,
    ) -> Result<(), WriteError> {
        let definitions = self.definitions;
        let (program, place, role) = match slot.kind {
            Kind::Primitive(primitive) => return self.primitive(slot, primitive, value, companion, depth),
            Kind::Nested(place) => (rules.program, place, Role::Plain),
            Kind::Complex(id) => (definitions.program(id), 0, definitions.role(id)),
            Kind::Resource | Kind::Contained => {
                let Some(node) = value.filter(|_| companion.is_none()) else { return companion_refused(companion) };
                self.open(&slot.name);
                self.put(">");
                self.resource(node, false, depth + 1)?;
                self.close(&slot.name, false);
                return Ok(());
            }
        };
        let Some(node) = value.filter(|_| companion.is_none()) else { return companion_refused(companion) };
        let Some(shape) = program.shape(place).filter(|_| node.is_object()) else { return refused(ValueKind, node) };
        self.open(&slot.name);
        self.object(&slot.name, node, Rules { program, shape, role }, depth + 1)
    }

    fn primitive(
        &mut self,
        slot: &Slot,
        primitive: Primitive,
        value: Option<Node<'_>>,
        companion: Option<Node<'_>>,
        depth: usize,
    ) -> Result<(), WriteError> {
        // A null in an array is the place of an extension, or of an empty element.
        let value = value.filter(|value| value.kind() != tree::Kind::Null);
        let companion = companion.filter(|companion| companion.kind() != tree::Kind::Null);
        if primitive == Primitive::Xhtml {
            if let Some(companion) = companion {
                return refused(Companion, companion);
            }
            let Some(value) = value else { return Ok(()) };
            let Some(text) = value.as_str() else { return refused(ValueKind, value) };
            let Some(div) = narrative::written(&text) else { return refused(Narrative, value) };
            self.put(&div);
            return Ok(());
        }
        self.open(&slot.name);
        if let Some(value) = value {
            let expected = match written(primitive) {
                Written::Boolean => tree::Kind::Bool,
                Written::Number => tree::Kind::Number,
                Written::Text => tree::Kind::String,
            };
            if value.kind() != expected {
                return refused(ValueKind, value);
            }
            self.attribute("value", value)?;
        }
        let Some(companion) = companion else {
            self.close(&slot.name, true);
            return Ok(());
        };
        let program = self.definitions.program(self.definitions.element());
        let Some(shape) = program.shape(0).filter(|_| companion.is_object() && !companion.is_empty()) else {
            return refused(Companion, companion);
        };
        self.object(&slot.name, companion, Rules { program, shape, role: Role::Plain }, depth + 1)
    }

    fn attribute(&mut self, name: &str, value: Node<'_>) -> Result<(), WriteError> {
        let text = match value.kind() {
            tree::Kind::String => value.as_str().unwrap_or_default(),
            tree::Kind::Number | tree::Kind::Bool => String::from_utf8_lossy(value.raw()),
            tree::Kind::Null | tree::Kind::Array | tree::Kind::Object => return refused(ValueKind, value),
        };
        if matches!(name, "id" | "url") && value.kind() != tree::Kind::String {
            return refused(ValueKind, value);
        }
        self.put(" ");
        self.put(name);
        self.put("=\"");
        if lexical::write_attribute(&text, &mut self.out).is_none() {
            return refused(Character, value);
        }
        self.put("\"");
        Ok(())
    }

    fn open(&mut self, name: &str) {
        self.put("<");
        self.put(name);
    }

    fn close(&mut self, name: &str, is_empty: bool) {
        if is_empty {
            return self.put("/>");
        }
        self.put("</");
        self.put(name);
        self.put(">");
    }

    fn put(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }
}

/// The members by the order of their definition; of one choice, in the order in which they stand.
fn members<'t, 'd>(node: Node<'t>, shape: &'d Shape) -> Result<Vec<Member<'t, 'd>>, WriteError> {
    let mut members: Vec<Member<'t, 'd>> = Vec::new();
    for member in node.members() {
        let name = member.name().unwrap_or_default();
        if name == "resourceType" && shape.is_resource {
            continue;
        }
        let is_companion = name.starts_with('_');
        let slot = shape.slot(name.strip_prefix('_').unwrap_or(name));
        let Some(slot) = slot.filter(|slot| !is_companion || matches!(slot.kind, Kind::Primitive(_))) else {
            return refused(UnknownMember, member);
        };
        let place = members.iter().position(|other| std::ptr::eq(other.slot, slot)).unwrap_or_else(|| {
            members.push(Member { slot, value: None, companion: None });
            members.len() - 1
        });
        if let Some(found) = members.get_mut(place) {
            *(if is_companion { &mut found.companion } else { &mut found.value }) = Some(member);
        }
    }
    members.sort_by_key(|member| member.slot.field);
    Ok(members)
}

/// Where there is no value, or something stands beside it.
fn companion_refused(companion: Option<Node<'_>>) -> Result<(), WriteError> {
    companion.map_or(Ok(()), |companion| refused(Companion, companion))
}
