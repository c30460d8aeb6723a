//! `application/fhir+xml` (FHIR R4 xml.html) to the tree that JSON gives, and back.
//!
//! Takes bytes, limits and definitions; gives a [`Tree`] over the JSON that the document means, or the exact reason and
//! place why not. The definitions say what repeats, what is a number and what is a resource, since XML does not. Every
//! node knows its line and column in the XML. The narrative stays as it is spelled, as FHIR's JSON carries it.
//!
//! Never loads, expands or includes anything: document types, entities beyond the five of XML and processing
//! instructions are refused. Never drops an element: one that the definitions do not have becomes a member that they do
//! not have, which checking then names. Never repeats a word of the document in an error.

mod error;
mod json;
mod lexical;
mod markup;
mod narrative;
mod read;
mod scope;
mod write;

use bytes::Bytes;

pub use error::{WriteError, WriteErrorKind, XmlError, XmlErrorKind};

use crate::definitions::Definitions;
use crate::tree::{Limits, Node, SyntaxErrorKind, Tree};

/// The namespace of resources.
const FHIR: &str = "http://hl7.org/fhir";
/// The namespace of a narrative.
const XHTML: &str = "http://www.w3.org/1999/xhtml";
/// Elements within each other, whatever the limits say: what keeps the stack bounded.
const DEPTH_MAX: usize = 256;
/// Attributes of one element.
const ATTRIBUTES_MAX: usize = 64;

/// Whether a document can only be XML: JSON does not start with `<`.
pub fn is_xml(document: &[u8]) -> bool {
    let document = document.strip_prefix(lexical::BYTE_ORDER_MARK).unwrap_or(document);
    document.trim_ascii_start().starts_with(b"<")
}

/// Reads a resource. The limits hold for the XML (bytes, elements and attributes that become values, elements within
/// each other) and for the JSON that it becomes. A byte order mark is taken, as XML 1.0 demands.
///
/// # Errors
/// Beyond the limits; not well-formed XML 1.0 with namespaces in UTF-8; with a document type, a processing instruction or an entity;
/// or with what FHIR's XML has no place for: text, unknown attributes, elements out of order or of another namespace.
pub fn read(document: &[u8], limits: &Limits, definitions: &Definitions) -> Result<Tree, XmlError> {
    let elements = read::elements(document, limits, definitions)?;
    let (json, places) = json::write(&elements);
    // The elements borrow from the document and may be as large as it; the tree needs none of them.
    drop(elements);
    match Tree::parse(Bytes::from(json), limits) {
        Ok(tree) => Ok(tree.placed(places)),
        Err(error) => {
            let at = places.partition_point(|(offset, _)| *offset as usize <= error.offset).saturating_sub(1);
            let (_, position) = places.get(at).copied().unwrap_or((0, error.position));
            let kind = match error.kind {
                SyntaxErrorKind::TooLong => XmlErrorKind::TooLong,
                SyntaxErrorKind::TooManyNodes => XmlErrorKind::TooManyElements,
                // What `json::write` gives is JSON without a member twice, so that only the limits are left.
                _ => XmlErrorKind::TooDeep,
            };
            Err(XmlError { kind, position, path: error.path })
        }
    }
}

/// Writes a resource as XML: read again, it is the same tree, but for the order of members, and for nulls that only fill
/// up the arrays of a repeating primitive and of its extensions.
///
/// # Errors
/// What XML cannot carry, or would give back as something else: members that the definitions do not have, values of another
/// JSON kind than theirs, arrays where they have none, characters that XML 1.0 does not allow, a narrative that is not XML.
pub fn write(resource: Node<'_>, definitions: &Definitions) -> Result<Vec<u8>, WriteError> {
    write::document(resource, definitions)
}
