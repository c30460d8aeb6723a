//! Whom a resource is about.
//!
//! Takes: the resources of a unit, what came in the same stream, and what this tenant has recorded before. Gives: for
//! each resource its subjects as pseudonyms. Never: guesses. A reference that leads to no known patient makes an
//! outage, or, where the settings say so, an unattributed resource: collected, and never disclosed; so is a resource of
//! a type that should name a patient and names none.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sluice_fhir::bundle::{self, Target};
use sluice_fhir::compartment::{self, Membership};
use sluice_fhir::tree::{Node, Tree};

use super::identify::Pseudonyms;
use super::pseudonym::Pseudonym;
use crate::config::UnknownSubject;
use crate::error::{Error, Peer, Result};
use crate::ingest::neighbours::Neighbours;
use crate::keys::{HmacKey, Keys};
use crate::normalize::{Normalized, Resource};
use crate::store::{Store, Table};

/// Whom one resource is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subjects {
    /// Nobody: its type is not about a patient (Organization, Practitioner), or it need not be and is not.
    Nobody,
    /// These patients; sorted, at least one, none twice.
    Of(Vec<Pseudonym>),
    /// It should name a patient and names none that is known. Recorded, and never disclosed.
    Unattributed,
}

impl Subjects {
    /// The patients.
    pub fn pseudonyms(&self) -> &[Pseudonym] {
        match self {
            Self::Of(pseudonyms) => pseudonyms,
            Self::Nobody | Self::Unattributed => &[],
        }
    }
}

/// Where a patient can be looked up whom this tenant has never recorded: the hospital's own FHIR server.
pub trait PatientSource: Send + Sync {
    /// Reads `Patient/[id]`; none if there is none.
    fn patient<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Tree>>>;
}

/// Resolves subjects.
pub struct Resolver<'a> {
    /// What was recorded before.
    pub store: &'a dyn Store,
    /// For the keys of the index.
    pub keys: &'a Keys,
    /// How identifiers become pseudonyms.
    pub pseudonyms: &'a Pseudonyms,
    /// The hospital's FHIR server, if there is one.
    pub upstream: Option<&'a dyn PatientSource>,
    /// What to do with the unknown.
    pub unknown: UnknownSubject,
}

/// What was found out about the patients of a unit.
struct Known {
    /// By the number of their entry.
    patients: Vec<Option<Pseudonym>>,
    /// By the reference that leads out of the unit; none for those whom nobody knows.
    references: HashMap<String, Option<Pseudonym>>,
}

/// The key of [`Table::LocalId`] for a reference as this tenant's callers write it (`Patient/123`).
pub fn local_id_key(keys: &Keys, reference: &str) -> Bytes {
    Bytes::copy_from_slice(&keys.hmac(HmacKey::Index, &[b"local-id", reference.as_bytes()]))
}

impl Resolver<'_> {
    /// The subjects of each resource of a unit, in its order.
    ///
    /// # Errors
    /// An outage of the custodian if a patient is not known; of the store or of the upstream if they do not answer.
    pub async fn unit(&self, unit: &Normalized) -> Result<Vec<Subjects>> {
        let resources = unit.resources();
        let index = unit.index();
        let mut known = Known { patients: vec![None; resources.len()], references: HashMap::new() };
        let mut subjects = Vec::with_capacity(resources.len());
        for (at, resource) in resources.iter().enumerate() {
            subjects.push(self.resource(at, resource, resources, &index, unit.neighbours(), &mut known).await?);
        }
        Ok(subjects)
    }

    /// The pseudonym of the Patient of this entry; most resources of a unit refer to the same one.
    fn patient(&self, entry: usize, tree: &Tree, known: &mut Known) -> Pseudonym {
        let name = || self.pseudonyms.patient(tree.root());
        match known.patients.get_mut(entry) {
            Some(known) => *known.get_or_insert_with(name),
            None => name(),
        }
    }

    async fn resource(
        &self,
        at: usize,
        resource: &Resource,
        resources: &[Resource],
        index: &bundle::Index,
        neighbours: Option<&Neighbours>,
        known: &mut Known,
    ) -> Result<Subjects> {
        let tree = resource.tree();
        if &**resource.resource_type() == "Patient" {
            return Ok(Subjects::Of(vec![self.patient(at, tree, known)]));
        }
        let references = match compartment::patient(tree.root()) {
            Membership::NeverAboutPatient => return Ok(Subjects::Nobody),
            Membership::ShouldButDoesNot => return Ok(Subjects::Unattributed),
            Membership::Patients(references) => references,
        };
        let mut found = Vec::with_capacity(references.len());
        for reference in references {
            let reference = tree.node(reference);
            let Some(pseudonym) = self.reference(at, reference, resources, index, neighbours, known).await? else {
                return Ok(Subjects::Unattributed);
            };
            found.push(pseudonym);
        }
        found.sort_unstable();
        found.dedup();
        Ok(if found.is_empty() { Subjects::Nobody } else { Subjects::Of(found) })
    }

    /// The patient that one Reference means; none if it names nobody that could be known.
    async fn reference(
        &self,
        at: usize,
        reference: Node<'_>,
        resources: &[Resource],
        index: &bundle::Index,
        neighbours: Option<&Neighbours>,
        known: &mut Known,
    ) -> Result<Option<Pseudonym>> {
        let text = reference.member("reference").and_then(Node::as_str);
        let Some(text) = text else {
            // A logical reference: an identifier of the patient, if it is one that names patients across references.
            return Ok(reference.member("identifier").and_then(|it| self.pseudonyms.identifier(it)));
        };
        let target = index.resolve(&text, at);
        if let Some(neighbour) = neighbours.and_then(|it| it.meant(&text, target)) {
            if neighbour.resource_type != "Patient" {
                return Ok(None);
            }
            // Patients of a stream come first: it is recorded by now, or was refused.
            return self.recorded(&format!("Patient/{}", neighbour.id), None, known).await;
        }
        match target {
            Target::Entry(entry) => {
                let target = resources.get(entry).filter(|it| &**it.resource_type() == "Patient");
                Ok(target.map(|it| self.patient(entry, it.tree(), known)))
            }
            Target::Contained(node) => {
                let contained = resources.get(at).map(|it| it.tree().node(node));
                Ok(contained.and_then(|it| self.pseudonyms.contained(it)))
            }
            Target::Local { resource_type: "Patient", id } => {
                self.recorded(&format!("Patient/{id}"), Some(id), known).await
            }
            Target::Absolute(url) => self.recorded(url, None, known).await,
            Target::Conditional { resource_type: "Patient", query } => Ok(self.pseudonyms.query(query)),
            Target::Logical | Target::Local { .. } | Target::Conditional { .. } | Target::Unresolvable(_) => Ok(None),
        }
    }

    /// A patient that was recorded before, or that the upstream knows; none if nobody does and that is collected.
    async fn recorded(
        &self,
        reference: &str,
        upstream_id: Option<&str>,
        known: &mut Known,
    ) -> Result<Option<Pseudonym>> {
        if let Some(pseudonym) = known.references.get(reference) {
            return Ok(*pseudonym);
        }
        let key = local_id_key(self.keys, reference);
        let row =
            self.store.read(Table::LocalId, &key).await.map_err(|error| {
                Error::outage(Peer::Store, Duration::from_secs(1), format!("subject look-up: {error}"))
            })?;
        let recorded = row.as_deref().and_then(|row| <[u8; 32]>::try_from(row).ok()).map(Pseudonym);
        let pseudonym = match (recorded, self.upstream, upstream_id) {
            (Some(pseudonym), ..) => Some(pseudonym),
            (None, Some(upstream), Some(id)) => {
                upstream.patient(id).await?.map(|tree| self.pseudonyms.patient(tree.root()))
            }
            (None, ..) => None,
        };
        let pseudonym = match (pseudonym, self.unknown) {
            (Some(_), _) => pseudonym,
            (None, UnknownSubject::Collect) => None,
            (None, UnknownSubject::Outage) => {
                let text = "a reference leads to a patient who has not been recorded and whom no upstream knows";
                return Err(Error::outage(Peer::Custodian, Duration::from_secs(30), text));
            }
        };
        known.references.insert(reference.to_owned(), pseudonym);
        Ok(pseudonym)
    }
}
