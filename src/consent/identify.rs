//! Which pseudonym a patient has.
//!
//! Takes: a Patient, an identifier, or a reference that leads nowhere else; and which identifier systems the consortium
//! shares. Gives: a pseudonym. Never: lets a tenant's local number name a patient of another tenant, nor one pseudonym
//! to two patients of whom nothing is known.

use std::sync::Arc;

use sluice_fhir::tree::Node;

use super::pseudonym::Pseudonym;
use crate::keys::Keys;

/// Names patients for one tenant.
pub struct Pseudonyms {
    keys: Arc<Keys>,
    tenant: Arc<str>,
    /// The identifier systems that the consortium shares, the most telling first.
    shared: Vec<String>,
}

impl Pseudonyms {
    /// For this tenant, with the identifier systems that the consortium shares in their order of rank.
    pub fn new(keys: Arc<Keys>, tenant: Arc<str>, shared: Vec<String>) -> Self {
        Self { keys, tenant, shared }
    }

    /// The pseudonym of a Patient by its identifiers: by that in the shared system of the highest rank, else by its first
    /// local one, which is scoped to the tenant. None without any that has a system: a number alone is anybody's.
    /// Deterministic, whatever the order of identifiers.
    pub fn patient(&self, patient: Node<'_>) -> Option<Named> {
        let mut found = identifiers(patient);
        found.retain(|(system, _)| !system.is_empty());
        found.sort_unstable_by_key(|(system, value)| (self.rank(system), system.clone(), value.clone()));
        let (system, value) = found.first()?;
        Some(Named { pseudonym: self.named(system, value), is_shared: self.is_shared(system) })
    }

    /// A new subject of this tenant's own, for a patient of whom nothing is known that could name it.
    pub fn fresh(&self) -> Pseudonym {
        self.local(&format!("urn:uuid:{}", uuid::Uuid::new_v4()))
    }

    /// The pseudonym of a contained Patient, which has no id that could name it; none without an identifier.
    pub fn contained(&self, patient: Node<'_>) -> Option<Pseudonym> {
        let named = if patient.resource_type() == Some("Patient") { self.patient(patient) } else { None };
        named.map(|named| named.pseudonym)
    }

    /// The pseudonym behind an identifier that refers to a patient; none if its system is not shared, since a local number without its
    /// hospital names nobody.
    pub fn shared(&self, system: &str, value: &str) -> Option<Pseudonym> {
        self.is_shared(system).then(|| Pseudonym::ledger(&self.keys, system, value))
    }

    /// A subject of this tenant's own: named by a reference that no other hospital writes alike.
    pub fn local(&self, reference: &str) -> Pseudonym {
        Pseudonym::ledger(&self.keys, &format!("urn:sluice:local:{}", self.tenant), reference)
    }

    fn named(&self, system: &str, value: &str) -> Pseudonym {
        if self.is_shared(system) {
            return Pseudonym::ledger(&self.keys, system, value);
        }
        Pseudonym::ledger(&self.keys, &format!("urn:sluice:local:{}:{system}", self.tenant), value)
    }

    fn is_shared(&self, system: &str) -> bool {
        self.shared.iter().any(|it| it == system)
    }

    fn rank(&self, system: &str) -> usize {
        self.shared.iter().position(|it| it == system).unwrap_or(usize::MAX)
    }
}

/// A pseudonym by an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// The pseudonym.
    pub pseudonym: Pseudonym,
    /// Whether the identifier's system is one that the consortium shares.
    pub is_shared: bool,
}

/// System and value of each identifier of a Patient that has a value, as sent.
pub fn identifiers(patient: Node<'_>) -> Vec<(String, String)> {
    patient.find(&["identifier"]).filter_map(parts).collect()
}

/// System and value of an Identifier; a value without a system has the empty one, as FHIR allows.
pub(super) fn parts(identifier: Node<'_>) -> Option<(String, String)> {
    let system = identifier.member("system").and_then(Node::as_str).unwrap_or_default();
    let value = identifier.member("value").and_then(Node::as_str).filter(|it| !it.is_empty())?;
    Some((system.into_owned(), value.into_owned()))
}
