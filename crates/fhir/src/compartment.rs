//! Which patients a resource is about: the Patient compartment of FHIR R4.
//!
//! Takes a resource, gives the references by which it is in a patient's compartment, by the table in
//! [`crate::resource_type`]. Never resolves a reference: the caller does, and drops what is no Patient.

use crate::reference::{self, Reference};
use crate::resource_type::{is_type, row};
use crate::tree::{Node, NodeId};

/// How a resource stands to patients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Resources of this type are about no patient, or this one points at none and need not.
    NeverAboutPatient,
    /// The References by which it is in the compartments of patients; of a Patient also the Patient itself. A Reference
    /// whose text does not tell a type (`urn:uuid:…`) may name something else: if none of all turns out to be a Patient,
    /// the resource is [`Membership::ShouldButDoesNot`].
    Patients(Vec<NodeId>),
    /// A resource of this type is about a patient, and this one names none, names one by identifier or text alone, or is
    /// of a type that is not known or holds anything (Bundle, Binary, Parameters). Never to be released.
    ShouldButDoesNot,
}

/// The patients that a resource is about.
pub fn patient(resource: Node<'_>) -> Membership {
    let Some(row) = resource.resource_type().and_then(row) else { return Membership::ShouldButDoesNot };
    let mut patients = Vec::new();
    if row.name == "Patient" {
        patients.push(resource.id());
    }
    for path in row.paths {
        for found in resource.find(path.members) {
            match points_at(resource, found) {
                PointsAt::PerhapsPatient => patients.push(found.id()),
                // One more patient than can be asked about.
                PointsAt::Unnamed if path.subject => return Membership::ShouldButDoesNot,
                PointsAt::Unnamed | PointsAt::Other => {}
            }
        }
    }
    // Document order, whatever the table's.
    patients.sort_unstable();
    match (patients.is_empty(), row.should) {
        (false, _) => Membership::Patients(patients),
        (true, true) => Membership::ShouldButDoesNot,
        (true, false) => Membership::NeverAboutPatient,
    }
}

/// Whether a resource of this type must be about a patient to be released: all but those that are about nobody.
pub fn is_needed(resource: Node<'_>) -> bool {
    resource.resource_type().and_then(row).is_none_or(|row| row.should)
}

/// Everything in a resource that may name one of its patients, by reference, by identifier or by text alone. More than
/// [`patient`] gives, and no leave to release: for whom must be asked before it is kept.
pub fn candidates(resource: Node<'_>) -> Vec<NodeId> {
    let Some(row) = resource.resource_type().and_then(row) else { return Vec::new() };
    let named = row.paths.iter().flat_map(|path| resource.find(path.members));
    let mut found: Vec<NodeId> =
        named.filter(|found| !matches!(points_at(resource, *found), PointsAt::Other)).map(Node::id).collect();
    found.sort_unstable();
    found
}

enum PointsAt {
    PerhapsPatient,
    Other,
    /// Somebody, without a reference, and perhaps a patient.
    Unnamed,
}

fn points_at(resource: Node<'_>, found: Node<'_>) -> PointsAt {
    let said = found.member("type").and_then(Node::as_str);
    let Some(text) = found.member("reference").and_then(Node::as_str) else {
        let other = said.is_some_and(|said| said != "Patient" && is_type(&said));
        return if other { PointsAt::Other } else { PointsAt::Unnamed };
    };
    // What the reference itself names counts before what is said about it (references.html, Reference.type).
    let named = match reference::parse(&text) {
        Reference::Fragment("") => resource.resource_type(),
        Reference::Fragment(id) => {
            let mut contained = resource.member("contained").into_iter().flat_map(Node::items);
            contained
                .find(|contained| contained.member("id").is_some_and(|own| own.is_str(id)))
                .and_then(Node::resource_type)
        }
        reference => reference.resource_type(),
    };
    let is_patient = match named {
        Some(named) => named == "Patient",
        None => said.is_none_or(|said| said == "Patient" || !is_type(&said)),
    };
    if is_patient { PointsAt::PerhapsPatient } else { PointsAt::Other }
}

#[cfg(test)]
mod tests;
