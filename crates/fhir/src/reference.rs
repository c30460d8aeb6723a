//! References as text: which kind, and what they name (FHIR R4 references.html, http.html).
//!
//! Takes the text of `Reference.reference`, gives its parts. Never looks anything up; `bundle` does.

use crate::resource_type::is_type;
use crate::tree::{KNOWN, Kind, NameId, Node};

/// What the text of a reference says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reference<'a> {
    /// `Patient/123`, perhaps with `/_history/4`: relative to the base of whoever says it.
    Relative {
        /// A resource type of R4.
        resource_type: &'a str,
        /// The logical id.
        id: &'a str,
        /// The version id.
        version: Option<&'a str>,
    },
    /// A RESTful URL: `https://hospital.example/fhir/Patient/123`.
    Absolute {
        /// The service base, without the slash at its end.
        base: &'a str,
        /// A resource type of R4.
        resource_type: &'a str,
        /// The logical id.
        id: &'a str,
        /// The version id.
        version: Option<&'a str>,
    },
    /// `urn:uuid:…` or `urn:oid:…`, whole.
    Urn(&'a str),
    /// `#id`: contained in the resource that says it; empty means that resource itself.
    Fragment(&'a str),
    /// `Patient?identifier=…`: a search that must find one.
    Conditional {
        /// A resource type of R4.
        resource_type: &'a str,
        /// What stands behind the question mark.
        query: &'a str,
    },
    /// Anything else: another URL, or no reference at all.
    Other(&'a str),
}

impl<'a> Reference<'a> {
    /// The type of what it names, if the text says so.
    pub fn resource_type(&self) -> Option<&'a str> {
        match *self {
            Self::Relative { resource_type, .. }
            | Self::Absolute { resource_type, .. }
            | Self::Conditional { resource_type, .. } => Some(resource_type),
            Self::Urn(_) | Self::Fragment(_) | Self::Other(_) => None,
        }
    }
}

/// Reads the text of a reference.
pub fn parse(text: &str) -> Reference<'_> {
    if let Some(id) = text.strip_prefix('#') {
        return Reference::Fragment(id);
    }
    if text.starts_with("urn:uuid:") || text.starts_with("urn:oid:") {
        return Reference::Urn(text);
    }
    if let Some((resource_type, query)) = text.split_once('?') {
        return if is_type(resource_type) && !query.is_empty() {
            Reference::Conditional { resource_type, query }
        } else {
            Reference::Other(text)
        };
    }
    restful(text).unwrap_or(Reference::Other(text))
}

/// A relative or absolute RESTful URL, as the expression in references.html#literal allows it.
fn restful(text: &str) -> Option<Reference<'_>> {
    let (current, version) = match text.split_once("/_history/") {
        Some((current, version)) => (current, Some(version)),
        None => (text, None),
    };
    let (before, id) = current.rsplit_once('/')?;
    if !is_id(id) || version.is_some_and(|version| !is_id(version)) {
        return None;
    }
    match before.rsplit_once('/') {
        None => is_type(before).then_some(Reference::Relative { resource_type: before, id, version }),
        Some((base, resource_type)) => {
            let host = base.strip_prefix("https://").or_else(|| base.strip_prefix("http://"))?;
            (is_type(resource_type) && !host.is_empty() && !base.contains('#')).then_some(Reference::Absolute {
                base,
                resource_type,
                id,
                version,
            })
        }
    }
}

/// Whether a text is a logical id: `[A-Za-z0-9\-\.]{1,64}`.
pub fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

/// Every `Reference.reference` in a resource, contained resources included, in document order. Elements of other types
/// that are named `reference` too (DetectedIssue, Immunization.education, Expression) are not among them.
pub fn all(resource: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    resource.descendants().filter(|node| {
        node.name_id() == Some(NameId(KNOWN.reference))
            && node.kind() == Kind::String
            && node.parent().is_some_and(is_reference_object)
    })
}

/// Whether an object that has a string member `reference` is a Reference: it has no members but those of Reference, and
/// is not the one backbone element of R4 that may look the same.
fn is_reference_object(object: Node<'_>) -> bool {
    const MEMBERS: [&str; 8] = ["id", "extension", "reference", "_reference", "type", "_type", "identifier", "display"];
    let members_fit = object
        .members()
        .all(|member| member.name().is_some_and(|name| MEMBERS.contains(&name) || name == "_display" || name == "_id"));
    let is_education = || {
        let holder = object.parent().filter(|holder| holder.is_array());
        holder.is_some_and(|holder| {
            holder.name() == Some("education") && holder.parent().and_then(Node::resource_type) == Some("Immunization")
        })
    };
    members_fit && !is_education()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tree::{Limits, Tree};

    #[test]
    fn every_kind_is_told_apart() {
        let relative = |id, version| Reference::Relative { resource_type: "Patient", id, version };
        let absolute = |base, version| Reference::Absolute { base, resource_type: "Patient", id: "1", version };
        for (text, expected) in [
            ("Patient/1", relative("1", None)),
            ("Patient/a-b.C/_history/2", relative("a-b.C", Some("2"))),
            ("https://a.example/fhir/Patient/1", absolute("https://a.example/fhir", None)),
            ("http://a.example:8080/Patient/1/_history/x", absolute("http://a.example:8080", Some("x"))),
            ("urn:uuid:0", Reference::Urn("urn:uuid:0")),
            ("urn:oid:1.2", Reference::Urn("urn:oid:1.2")),
            ("#p", Reference::Fragment("p")),
            ("#", Reference::Fragment("")),
            ("Patient?identifier=a|1", Reference::Conditional { resource_type: "Patient", query: "identifier=a|1" }),
        ] {
            assert_eq!(parse(text), expected);
        }
        let long = format!("Patient/{}", "1".repeat(65));
        for text in [
            "",
            "/",
            "Patient",
            "Patient/",
            "Patient/1/",
            "patient/1",
            "Pat/1",
            "Patient/1_2",
            "/Patient/1",
            "x/Patient/1",
            "https://Patient/1",
            "https:///Patient/1",
            "ftp://a/Patient/1",
            "Patient/1/_history/",
            "Patient?",
            "x?y",
            "https://a.example/fhir/Foo/1",
            "http://a.example/x#Patient/1/2",
            &long,
        ] {
            assert_eq!(parse(text), Reference::Other(text), "{text}");
        }
    }

    #[test]
    fn only_references_are_found() {
        let text = r##"{"resourceType":"Immunization","patient":{"reference":"Patient/1","display":"x"},
            "education":[{"reference":"http://a"}],"reference":"http://b",
            "contained":[{"resourceType":"Task","for":{"reference":"#a"}}],
            "extension":[{"url":"u","valueExpression":{"language":"text/fhirpath","reference":"http://c"}},
                {"url":"v","valueReference":{"_reference":{"id":"1"},"reference":"Device/1"}}],
            "protocolApplied":[{"authority":{"reference":7}}]}"##;
        let tree = Tree::parse(Bytes::from_static(text.as_bytes()), &Limits::default()).unwrap();
        let found: Vec<_> = all(tree.root()).filter_map(Node::as_str).collect();
        assert_eq!(found, ["Patient/1", "#a", "Device/1"]);
    }
}
