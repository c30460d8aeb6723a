//! Provenance: which mappings changed which resources.

use fhir_sdk::r4b::resources::{Provenance as Typed, ProvenanceAgent, Resource};

use crate::{AuthorError, INSTITUTION_SYSTEM, concept, json, literal, logical, missing};

/// What a Provenance says.
#[derive(Debug, Clone, Copy)]
pub struct Provenance<'a> {
    /// References to the resources that were changed, `[type]/[id]` or with `/_history/[version]`; at least one.
    pub targets: &'a [String],
    /// When it was recorded: RFC 3339.
    pub recorded: &'a str,
    /// Who changed them: the institution whose gateway it is.
    pub institution: &'a str,
    /// The mappings that were applied: `[canonical]|[version]`, in order.
    pub policies: &'a [String],
}

/// The JSON of a Provenance without `id`, which whoever stores it assigns.
///
/// # Errors
/// If there is no target, or `recorded` is no instant.
pub fn provenance(about: &Provenance<'_>) -> Result<Vec<u8>, AuthorError> {
    if about.targets.is_empty() {
        return Err(AuthorError("a Provenance without a target"));
    }
    let targets = about.targets.iter().map(|it| literal(it).map(Some)).collect::<Result<Vec<_>, _>>()?;
    let agent = ProvenanceAgent::builder()
        .r#type(concept("http://terminology.hl7.org/CodeSystem/provenance-participant-type", "assembler", "Assembler")?)
        .who(logical("Organization", INSTITUTION_SYSTEM, about.institution)?)
        .build()
        .map_err(missing)?;
    let typed = Typed::builder()
        .target(targets)
        .recorded(about.recorded.parse().map_err(|_| AuthorError("`recorded` is no instant"))?)
        .policy(about.policies.iter().cloned().map(Some).collect::<Vec<_>>())
        .activity(concept("http://terminology.hl7.org/CodeSystem/v3-DataOperation", "UPDATE", "revise")?)
        .agent(vec![Some(agent)])
        .build()
        .map_err(missing)?;
    json(&Resource::Provenance(typed))
}
