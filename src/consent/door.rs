//! Permit: the intake door.
//!
//! Takes: [`Checked`] and what the ledger's mirror says of its subjects. Gives: [`Permitted`], whose existence proves
//! that for each subject this institution may collect, by which version of its record and at which head. Never: takes
//! what cannot be decided for a permit.

use std::sync::Arc;

use super::identify::Pseudonyms;
use super::pseudonym::Pseudonym;
use super::subjects::{PatientSource, Resolver, Subjects};
use crate::check::Checked;
use crate::config;
use crate::error::{Error, Refusal, Result};
use crate::keys::Keys;
use crate::store::Store;

/// What the doors decide by.
pub struct Door {
    /// The settings.
    pub settings: config::Consent,
    /// What was recorded before.
    pub store: Arc<dyn Store>,
    /// For the keys of the index.
    pub keys: Arc<Keys>,
    /// How patients are named.
    pub pseudonyms: Pseudonyms,
    /// The hospital's FHIR server, if there is one.
    pub upstream: Option<Arc<dyn PatientSource>>,
}

/// A unit that may be collected. Only `consent` makes one.
#[derive(Debug)]
pub struct Permitted {
    checked: Checked,
    subjects: Vec<Subjects>,
    basis: Vec<Basis>,
    announced: bool,
}

/// Why one subject's data may be collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    /// The subject.
    pub subject: Pseudonym,
    /// The version of its record that was read; none where it has none and the door's implicit policy spoke.
    pub version: Option<u64>,
    /// The height of the ledger's head that it was read at.
    pub head: u64,
    /// The rule that decided, by its id; never a value of the Consent.
    pub rule: String,
}

/// Asks for each subject of a unit whether this institution may collect.
///
/// # Errors
/// 403 where a policy says no; an outage where it cannot be decided.
pub async fn permit(checked: Checked, door: &Door) -> Result<Permitted> {
    let resolver = Resolver {
        store: &*door.store,
        keys: &door.keys,
        pseudonyms: &door.pseudonyms,
        upstream: door.upstream.as_deref(),
        unknown: door.settings.unknown_subject,
    };
    let subjects = resolver.unit(checked.normalized()).await?;
    let mut everyone: Vec<_> = subjects.iter().flat_map(Subjects::pseudonyms).copied().collect();
    everyone.sort_unstable();
    everyone.dedup();
    let mut basis = Vec::with_capacity(everyone.len());
    for subject in everyone {
        basis.push(door.collect(subject)?);
    }
    Ok(Permitted { checked, subjects, basis, announced: true })
}

impl Door {
    fn collect(&self, subject: Pseudonym) -> Result<Basis> {
        match self.settings.implicit.collect {
            config::ImplicitPolicy::Permit => {
                Ok(Basis { subject, version: None, head: 0, rule: "implicit".to_owned() })
            }
            config::ImplicitPolicy::Deny => {
                Err(Error::refusal(Refusal::Forbidden, "consent.collect", "a Consent of the subject that permits"))
            }
        }
    }
}

impl Permitted {
    /// The unit.
    pub fn checked(&self) -> &Checked {
        &self.checked
    }

    /// Whom each resource is about, in the order of the unit.
    pub fn subjects(&self) -> &[Subjects] {
        &self.subjects
    }

    /// Each subject once, with why.
    pub fn basis(&self) -> &[Basis] {
        &self.basis
    }

    /// Whether subscribers may hear of it; not so where a denial at intake was forwarded unannounced.
    pub fn announced(&self) -> bool {
        self.announced
    }
}
