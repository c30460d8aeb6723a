//! Which prefix means which namespace, element by element (Namespaces in XML 1.0).

use super::error::XmlErrorKind::{self, InvalidAttribute, UnknownPrefix};
use super::lexical::{Attribute, split};
use super::{FHIR, XHTML};

const SCHEMA_INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// A namespace, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Fhir,
    Xhtml,
    /// That of `xsi:schemaLocation`.
    SchemaInstance,
    /// Another, or none.
    Other,
}

/// The declarations that are in force.
#[derive(Debug, Default)]
pub(super) struct Scope<'x> {
    /// Prefix (empty: the default), and the depth of the element that declares it.
    declared: Vec<(&'x str, Space, usize)>,
}

impl<'x> Scope<'x> {
    /// Takes up what an element at this depth declares.
    pub(super) fn enter(&mut self, depth: usize, attributes: &[Attribute<'x>]) -> Result<(), (XmlErrorKind, usize)> {
        for attribute in attributes {
            let prefix = match split(attribute.name) {
                (None, "xmlns") => "",
                (Some("xmlns"), prefix) => prefix,
                _ => continue,
            };
            // The two reserved prefixes, and no prefix for "no namespace".
            if matches!(prefix, "xml" | "xmlns") || !prefix.is_empty() && attribute.value.is_empty() {
                return Err((InvalidAttribute, attribute.at));
            }
            let space = match attribute.value {
                FHIR => Space::Fhir,
                XHTML => Space::Xhtml,
                SCHEMA_INSTANCE => Space::SchemaInstance,
                _ => Space::Other,
            };
            self.declared.push((prefix, space, depth));
        }
        Ok(())
    }

    /// Forgets what elements at this depth and deeper declared.
    pub(super) fn leave(&mut self, depth: usize) {
        while self.declared.last().is_some_and(|(.., at)| *at >= depth) {
            self.declared.pop();
        }
    }

    /// The namespace of a prefix; of elements without one, if there is none.
    pub(super) fn space(&self, prefix: Option<&str>) -> Result<Space, XmlErrorKind> {
        let prefix = match prefix {
            Some("xml") => return Ok(Space::Other),
            Some(prefix) => prefix,
            None => "",
        };
        let found = self.declared.iter().rev().find(|(declared, ..)| *declared == prefix);
        match found {
            Some((_, space, _)) => Ok(*space),
            None if prefix.is_empty() => Ok(Space::Other),
            None => Err(UnknownPrefix),
        }
    }
}

/// Whether an attribute declares a namespace.
pub(super) fn is_declaration(attribute: &Attribute<'_>) -> bool {
    matches!(split(attribute.name), (None, "xmlns") | (Some("xmlns"), _))
}
