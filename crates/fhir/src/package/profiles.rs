//! Reduces profiles and extensions to what checking needs: of a StructureDefinition its identity and its differential, of an
//! element what it demands. Texts for readers, mappings and examples go.

use crate::tree::Node;

use super::items;

const DEFINITION: [&str; 7] = ["resourceType", "url", "version", "type", "baseDefinition", "derivation", "context"];
const ELEMENT: [&str; 10] =
    ["id", "path", "sliceName", "slicing", "min", "max", "type", "contentReference", "maxLength", "isModifier"];
const VALUES: [&str; 4] = ["fixed", "pattern", "minValue", "maxValue"];
const CONSTRAINT: [&str; 4] = ["key", "severity", "human", "expression"];
const BINDING: [&str; 3] = ["strength", "valueSet", "extension"];

/// A profile's or an extension's definition, reduced; None of any other.
pub(super) fn reduced(definition: Node<'_>) -> Option<Vec<u8>> {
    definition.member("derivation").filter(|derivation| derivation.is_str("constraint"))?;
    let differential = definition.member("differential")?;
    let mut out = Object::new();
    for name in DEFINITION {
        out.raw(name, definition);
    }
    let elements: Vec<Vec<u8>> = items(differential, "element").map(element).collect();
    out.member("differential", &[b"{\"element\":", &*list(&elements), b"}"].concat());
    Some(out.finish())
}

fn element(node: Node<'_>) -> Vec<u8> {
    let mut out = Object::new();
    for member in node.members() {
        let Some(name) = member.name() else { continue };
        let is_value = |prefix: &&str| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
        };
        if ELEMENT.contains(&name) || VALUES.iter().any(is_value) {
            out.member(name, member.raw());
        }
    }
    if let Some(binding) = node.member("binding") {
        out.member("binding", &part(binding, &BINDING));
    }
    let constraints: Vec<_> = items(node, "constraint").map(|constraint| part(constraint, &CONSTRAINT)).collect();
    if !constraints.is_empty() {
        out.member("constraint", &list(&constraints));
    }
    out.finish()
}

fn part(node: Node<'_>, names: &[&str]) -> Vec<u8> {
    let mut out = Object::new();
    for name in names {
        out.raw(name, node);
    }
    out.finish()
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [b"[", &*items.join(&b','), b"]"].concat()
}

/// JSON of an object, member by member.
struct Object(Vec<u8>);

impl Object {
    fn new() -> Self {
        Self(vec![b'{'])
    }

    /// `name` is one of FHIR's and needs no escape.
    fn member(&mut self, name: &str, value: &[u8]) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.extend_from_slice(&[b"\"", name.as_bytes(), b"\":", value].concat());
    }

    fn raw(&mut self, name: &str, from: Node<'_>) {
        if let Some(member) = from.member(name) {
            self.member(name, member.raw());
        }
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}
