//! Whose record it is: every patient in whose compartment it stands (CompartmentDefinition/patient).
//!
//! A type that can't be about a patient needs no consent, unless it refers to one all the same. A record that should
//! name a patient and does not, names it without a reference, or names what can't be resolved, is never permitted.
//!
//! What a record contains is a part of it, and is asked about as if it stood alone, but that it need not name whom its
//! container names. A whole Patient in it has no identity that a Consent could name: the record is never permitted.

use sluice_fhir::tree::Node;

use super::{Kind, Reader, Type, identity};
use crate::consent::codes::{Key, unversioned};

/// Whose a record is.
#[derive(Clone, Debug)]
pub enum Subjects {
    /// It can't be about a patient: no consent is needed.
    NotNeeded,
    /// It is about these, at least one; it needs the consent of all.
    Patients(Vec<Subject>),
    /// It should name a patient and does not, or names one without a reference.
    Unnamed,
    /// It names what can't be resolved: a conditional reference, or one into a document that lacks it.
    Unresolvable,
    /// R4 knows no such type.
    UnknownType,
}

/// One patient.
#[derive(Clone, PartialEq, Eq)]
pub struct Subject {
    reference: Box<str>,
    names: Vec<Key>,
}

impl Subject {
    /// The reference as the record has it, without a version.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Keys of all references that mean this patient.
    pub fn names(&self) -> &[Key] {
        &self.names
    }

    fn new(reference: &str, other: Option<String>) -> Self {
        let mut names = vec![Key::reference(reference)];
        names.extend(other.map(|other| Key::reference(&other)));
        Self { reference: unversioned(reference).into(), names }
    }
}

pub(super) fn of(
    resource: Node<'_>,
    full_url: Option<&str>,
    shape: Option<&Type>,
    reader: &Reader<'_, '_>,
) -> Subjects {
    let Some(shape) = shape else { return Subjects::UnknownType };
    let mut found = Found::default();
    if shape.name == "Patient" {
        let urn = full_url.filter(|url| url.starts_with("urn:"));
        match (identity(resource), urn) {
            (Some(identity), urn) => found.patients.push(Subject::new(&identity, urn.map(Into::into))),
            (None, Some(urn)) => found.patients.push(Subject::new(urn, None)),
            (None, None) => found.unresolvable = true,
        }
    }
    found.compartment(resource, shape, reader);
    resource.find(&["contained"]).for_each(|contained| found.contained(contained, reader));
    if shape.kind != Kind::Compartment {
        found.anywhere(resource, reader);
    }
    found.judge(shape.kind)
}

#[derive(Default)]
struct Found {
    patients: Vec<Subject>,
    unnamed: bool,
    unresolvable: bool,
    /// Within what is contained, `#` alone means the container.
    is_within: bool,
}

impl Found {
    /// Patients of a resource that the record contains: named where its type names them, or, where that is none of the
    /// compartment, anywhere.
    fn contained(&mut self, contained: Node<'_>, reader: &Reader<'_, '_>) {
        // What contains more (dom-2 forbids it), is of no known type or is a Bundle may be about anybody.
        let shape = contained.resource_type().and_then(super::table::of);
        let shape = shape.filter(|shape| shape.name != "Patient" && contained.member("contained").is_none());
        let Some(shape) = shape else {
            self.unresolvable = true;
            return;
        };
        self.is_within = true;
        self.compartment(contained, shape, reader);
        if shape.kind != Kind::Compartment {
            self.anywhere(contained, reader);
        }
        self.is_within = false;
    }

    fn compartment(&mut self, resource: Node<'_>, shape: &Type, reader: &Reader<'_, '_>) {
        for element in shape.subjects.iter().flat_map(|path| resource.find(path)) {
            self.element(element, reader, true);
        }
        for element in shape.participants.iter().flat_map(|path| resource.find(path)) {
            self.element(element, reader, false);
        }
    }

    /// Types outside of the compartment are about whatever patient they refer to.
    fn anywhere(&mut self, resource: Node<'_>, reader: &Reader<'_, '_>) {
        for node in resource.descendants() {
            match node.name() {
                Some("reference") if node.as_str().is_some() => {
                    if let Some(element) = node.parent() {
                        self.element(element, reader, false);
                    }
                }
                Some("patient" | "subject" | "for") if node.is_object() && node.member("reference").is_none() => {
                    self.element(node, reader, true);
                }
                _ => {}
            }
        }
    }

    /// Looks at one Reference. `is_subject`: it says whose the record is, so that a name without a reference counts.
    fn element(&mut self, element: Node<'_>, reader: &Reader<'_, '_>, is_subject: bool) {
        let declared = element.member("type").and_then(Node::as_str);
        match element.member("reference").and_then(Node::as_str) {
            None => self.unnamed |= declared.map_or(is_subject, |declared| declared == "Patient"),
            Some(reference) => match target(&reference) {
                Target::Typed("Patient") => self.add(Subject::new(&reference, None)),
                Target::Typed(_) => {}
                Target::Fragment if self.is_within && reference == "#" => {}
                Target::Fragment => {
                    // A contained patient has no identity that a Consent could name.
                    let mut is_patient = None;
                    reader.target(element, |target| is_patient = Some(target.resource_type() == Some("Patient")));
                    self.unresolvable |= is_patient.unwrap_or(is_subject);
                }
                Target::Opaque => match reader.surroundings.entry(&reference) {
                    Some(entry) if entry.resource_type() == Some("Patient") => {
                        self.add(Subject::new(&reference, identity(entry)));
                    }
                    Some(_) => {}
                    None => self.unresolvable |= declared.is_none_or(|declared| declared == "Patient"),
                },
                Target::Conditional(kind) => self.unresolvable |= kind == "Patient" || !is_type(kind),
            },
        }
    }

    fn add(&mut self, subject: Subject) {
        if !self.patients.contains(&subject) {
            self.patients.push(subject);
        }
    }

    fn judge(self, kind: Kind) -> Subjects {
        if self.unresolvable {
            Subjects::Unresolvable
        } else if self.unnamed {
            Subjects::Unnamed
        } else if !self.patients.is_empty() {
            Subjects::Patients(self.patients)
        } else if kind == Kind::Apart {
            Subjects::NotNeeded
        } else {
            Subjects::Unnamed
        }
    }
}

enum Target<'r> {
    /// `[base/]Type/id[/_history/version]`
    Typed(&'r str),
    /// `#id`
    Fragment,
    /// `Type?query`
    Conditional(&'r str),
    /// `urn:uuid:…`, or an address that does not tell its type.
    Opaque,
}

fn target(reference: &str) -> Target<'_> {
    if reference.starts_with('#') {
        return Target::Fragment;
    }
    if let Some((before, _)) = reference.split_once('?') {
        return Target::Conditional(before.rsplit('/').next().unwrap_or_default());
    }
    let mut segments = unversioned(reference).rsplit('/');
    match (segments.next(), segments.next()) {
        (Some(id), Some(kind)) if !id.is_empty() && is_type(kind) => Target::Typed(kind),
        _ => Target::Opaque,
    }
}

fn is_type(name: &str) -> bool {
    name == "Bundle" || super::table::of(name).is_some()
}

/// The text of a subject is a patient's name in the record: it is not printed.
impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Subject(…)")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_fhir::compartment::{Membership, patient};
    use sluice_fhir::tree::{Limits, Tree};

    use super::super::table::TYPES;
    use super::Kind;

    /// A resource with a patient at the end of a path.
    fn with(name: &str, path: &[&str]) -> Tree {
        let mut inner = String::from(r#"{"reference":"Patient/x"}"#);
        for (depth, member) in path.iter().enumerate().rev() {
            inner = format!("{}\"{member}\":{inner}}}", if depth == 0 { "" } else { "{" });
        }
        let json = if path.is_empty() { String::from("}") } else { format!(",{inner}") };
        Tree::parse(Bytes::from(format!(r#"{{"resourceType":"{name}"{json}"#)), &Limits::default()).unwrap()
    }

    /// The one here asks for a patient wherever the other does, and finds no patient where the other finds none.
    #[test]
    fn the_compartment_is_that_of_the_definitions() {
        for entry in TYPES.iter().filter(|entry| entry.name != "Patient") {
            let bare = with(entry.name, &[]);
            let needs_patient = matches!(patient(bare.root()), Membership::ShouldButDoesNot);
            assert!(!needs_patient || entry.kind != Kind::Apart, "{}", entry.name);
            for path in entry.subjects.iter().chain(entry.participants) {
                let resource = with(entry.name, path);
                assert!(matches!(patient(resource.root()), Membership::Patients(_)), "{} {path:?}", entry.name);
            }
        }
    }
}
