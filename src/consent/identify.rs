//! Which pseudonym a patient has.
//!
//! Takes: a Patient, an identifier, or a reference that leads nowhere else; and which identifier systems the consortium
//! shares. Gives: a pseudonym. Never: lets a hospital's local number name a patient of another hospital: what is not
//! shared is scoped to the tenant.

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

    /// The pseudonym of a Patient: by its identifier in the shared system of the highest rank, else by its first local
    /// identifier, else by its id; the last two scoped to the tenant. Deterministic, whatever the order of identifiers.
    pub fn patient(&self, patient: Node<'_>) -> Pseudonym {
        self.by_identifiers(patient).unwrap_or_else(|| {
            let id = patient.member("id").and_then(Node::as_str).unwrap_or_default();
            self.local(&format!("Patient/{id}"))
        })
    }

    /// The pseudonym of a contained Patient, which has no id that could name it; none without an identifier.
    pub fn contained(&self, patient: Node<'_>) -> Option<Pseudonym> {
        if patient.resource_type() == Some("Patient") { self.by_identifiers(patient) } else { None }
    }

    /// The pseudonym behind `Reference.identifier`; none if its system is not shared, since a local number without its
    /// hospital names nobody.
    pub fn identifier(&self, identifier: Node<'_>) -> Option<Pseudonym> {
        let (system, value) = parts(identifier)?;
        self.is_shared(&system).then(|| Pseudonym::ledger(&self.keys, &system, &value))
    }

    /// The pseudonym behind `identifier=[system]|[value]`; none for any other search.
    pub fn query(&self, query: &str) -> Option<Pseudonym> {
        let (system, value) = query.strip_prefix("identifier=")?.split_once('|')?;
        if value.is_empty() || query.contains(['&', ',', '%', '+']) {
            return None;
        }
        Some(self.named(system, value))
    }

    /// A subject of this tenant's own: named by a reference that no other hospital writes alike.
    pub fn local(&self, reference: &str) -> Pseudonym {
        Pseudonym::ledger(&self.keys, &format!("urn:sluice:local:{}", self.tenant), reference)
    }

    fn by_identifiers(&self, patient: Node<'_>) -> Option<Pseudonym> {
        let mut found: Vec<(String, String)> = patient.find(&["identifier"]).filter_map(parts).collect();
        found.sort_unstable_by_key(|(system, value)| (self.rank(system), system.clone(), value.clone()));
        found.first().map(|(system, value)| self.named(system, value))
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

/// System and value of an Identifier; a value without a system has the empty one, as FHIR allows.
fn parts(identifier: Node<'_>) -> Option<(String, String)> {
    let system = identifier.member("system").and_then(Node::as_str).unwrap_or_default();
    let value = identifier.member("value").and_then(Node::as_str).filter(|it| !it.is_empty())?;
    Some((system.into_owned(), value.into_owned()))
}
