//! What Sluice authors in FHIR: Provenance, CapabilityStatement. The only crate that sees fhir-sdk.
//!
//! Takes plain texts, gives the JSON of a resource. Never: reads FHIR (fhir-sdk drops unknown members and fails on
//! unknown codes; all reading goes through the tree); puts fhir-sdk's types into a signature, since their serializers are
//! instantiated anew in every crate that calls them.
//!
//! fhir-sdk has no R4, so these are R4B types in the part that both releases share; what is written passes the gateway's
//! own check as R4 4.0.1, which a test holds.

#![forbid(unsafe_code)]

mod capability;
mod provenance;

use fhir_sdk::r4b::types::{CodeableConcept, Coding, Identifier, Reference};

pub use capability::{Capability, Operation, capability_statement};
pub use provenance::{Provenance, provenance};

/// The system of institutions' ids, as they stand on the ledger, in identifiers.
pub const INSTITUTION_SYSTEM: &str = "https://sluice.dev/fhir/institution";

/// Why a resource could not be authored: a caller gave what the standard does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorError(&'static str);

impl std::fmt::Display for AuthorError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot be authored: {}", self.0)
    }
}

impl std::error::Error for AuthorError {}

/// For what the builders report: a required member that our own code has left out.
fn missing<E>(_: E) -> AuthorError {
    AuthorError("a required member is missing")
}

/// The one place where fhir-sdk's types are serialized, so that there is one instantiation.
fn json(resource: &fhir_sdk::r4b::resources::Resource) -> Result<Vec<u8>, AuthorError> {
    serde_json::to_vec(resource).map_err(|_| AuthorError("it can't be written as JSON"))
}

fn coding(system: &str, code: &str, display: &str) -> Result<Coding, AuthorError> {
    let builder = Coding::builder().system(system.to_owned()).code(code.to_owned()).display(display.to_owned());
    builder.build().map_err(missing)
}

fn concept(system: &str, code: &str, display: &str) -> Result<CodeableConcept, AuthorError> {
    CodeableConcept::builder().coding(vec![Some(coding(system, code, display)?)]).build().map_err(missing)
}

/// A reference that names by identifier: institutions and devices stand on the ledger, not in a FHIR server.
fn logical(target: &str, system: &str, value: &str) -> Result<Reference, AuthorError> {
    let identifier =
        Identifier::builder().system(system.to_owned()).value(value.to_owned()).build().map_err(missing)?;
    Reference::builder().r#type(target.to_owned()).identifier(identifier).build().map_err(missing)
}

fn literal(reference: &str) -> Result<Reference, AuthorError> {
    Reference::builder().reference(reference.to_owned()).build().map_err(missing)
}
