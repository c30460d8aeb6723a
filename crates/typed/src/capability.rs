//! CapabilityStatement: what a gateway serves.

use fhir_sdk::r4b::codes::{
    CapabilityStatementKind, FHIRVersion, PublicationStatus, ResourceType, ResourceVersionPolicy, RestfulCapabilityMode,
};
use fhir_sdk::r4b::resources::{
    CapabilityStatement, CapabilityStatementImplementation, CapabilityStatementRest,
    CapabilityStatementRestInteraction, CapabilityStatementRestResource, CapabilityStatementRestResourceInteraction,
    CapabilityStatementRestResourceOperation, CapabilityStatementRestSecurity, CapabilityStatementSoftware, Resource,
};

use crate::{AuthorError, json, missing};

/// What a CapabilityStatement says.
#[derive(Debug, Clone, Copy)]
pub struct Capability<'a> {
    /// `[base]`, absolute, without a slash at its end.
    pub base: &'a str,
    /// The institution whose gateway it is.
    pub institution: &'a str,
    /// The software's name.
    pub software: &'a str,
    /// The software's version.
    pub version: &'a str,
    /// When the statement was made: RFC 3339.
    pub date: &'a str,
    /// Media types that are taken and given, without `+json`'s short forms.
    pub formats: &'a [&'a str],
    /// The resource types of R4 that are served.
    pub resource_types: &'a [&'a str],
    /// Interactions on each of them (FHIR R4 type-restful-interaction).
    pub interactions: &'a [&'a str],
    /// Interactions on the base: `transaction`, `batch`.
    pub system_interactions: &'a [&'a str],
    /// Operations on each of the resource types.
    pub resource_operations: &'a [Operation<'a>],
    /// Operations on the base.
    pub operations: &'a [Operation<'a>],
    /// How the face behaves beyond what codes say, in Markdown.
    pub documentation: &'a str,
    /// How callers are known and what they may see, in Markdown.
    pub security: &'a str,
}

/// An operation.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// Its name, without `$`.
    pub name: &'a str,
    /// The canonical URL of its definition.
    pub definition: &'a str,
    /// What it does, in Markdown.
    pub documentation: &'a str,
}

/// The JSON of a CapabilityStatement for R4 4.0.1.
///
/// # Errors
/// If `date` is no date or instant.
pub fn capability_statement(about: &Capability<'_>) -> Result<Vec<u8>, AuthorError> {
    let interactions = about.interactions.iter().map(|code| {
        let builder = CapabilityStatementRestResourceInteraction::builder().code((*code).to_owned());
        builder.build().map(Some).map_err(missing)
    });
    let system_interactions = about.system_interactions.iter().map(|code| {
        let builder = CapabilityStatementRestInteraction::builder().code((*code).to_owned());
        builder.build().map(Some).map_err(missing)
    });
    let operations = |operations: &[Operation<'_>]| {
        let built = operations.iter().map(|operation| {
            let builder = CapabilityStatementRestResourceOperation::builder()
                .name(operation.name.to_owned())
                .definition(operation.definition.to_owned())
                .documentation(operation.documentation.to_owned());
            builder.build().map(Some).map_err(missing)
        });
        built.collect::<Result<Vec<_>, _>>()
    };
    // One for all: R4B has no code for the types that R4 alone has, so the type is set in the text below.
    let resource = CapabilityStatementRestResource::builder()
        .r#type(ResourceType::Patient)
        .interaction(interactions.collect::<Result<Vec<_>, _>>()?)
        .operation(operations(about.resource_operations)?)
        .versioning(ResourceVersionPolicy::Versioned)
        .update_create(true)
        .conditional_create(true)
        .build()
        .map_err(missing)?;
    let rest = CapabilityStatementRest::builder()
        .mode(RestfulCapabilityMode::Server)
        .documentation(about.documentation.to_owned())
        .security(
            CapabilityStatementRestSecurity::builder()
                .description(about.security.to_owned())
                .build()
                .map_err(missing)?,
        )
        .resource(vec![Some(resource)])
        .interaction(system_interactions.collect::<Result<Vec<_>, _>>()?)
        .operation(operations(about.operations)?)
        .build()
        .map_err(missing)?;
    let software = CapabilityStatementSoftware::builder()
        .name(about.software.to_owned())
        .version(about.version.to_owned())
        .build()
        .map_err(missing)?;
    let implementation = CapabilityStatementImplementation::builder()
        .description(format!("The gateway of {}", about.institution))
        .url(about.base.to_owned())
        .build()
        .map_err(missing)?;
    let statement = CapabilityStatement::builder()
        .status(PublicationStatus::Active)
        .date(about.date.parse().map_err(|_| AuthorError("`date` is no date"))?)
        .kind(CapabilityStatementKind::Instance)
        .software(software)
        .implementation(implementation)
        .fhir_version(FHIRVersion::N430)
        .format(about.formats.iter().map(|it| Some((*it).to_owned())).collect::<Vec<_>>())
        .rest(vec![Some(rest)])
        .build()
        .map_err(missing)?;
    let written = json(&Resource::CapabilityStatement(statement))?;
    as_r4(&written, about.resource_types)
}

/// Sets what R4B's types can't say: the release, and the resource types.
fn as_r4(written: &[u8], resource_types: &[&str]) -> Result<Vec<u8>, AuthorError> {
    let broken = || AuthorError("the CapabilityStatement is not what was built");
    let mut value: serde_json::Value = serde_json::from_slice(written).map_err(|_| broken())?;
    value["fhirVersion"] = "4.0.1".into();
    let resources =
        value.pointer_mut("/rest/0/resource").and_then(serde_json::Value::as_array_mut).ok_or_else(broken)?;
    let one = resources.pop().ok_or_else(broken)?;
    resources.extend(resource_types.iter().map(|name| {
        let mut resource = one.clone();
        resource["type"] = (*name).into();
        resource
    }));
    serde_json::to_vec(&value).map_err(|_| broken())
}
