//! The CapabilityStatement: what `/fhir/metadata` says (FHIR R4 http.html#capabilities).
//!
//! Takes: whose gateway it is. Gives: the JSON, made once at the start. Never: names an interaction that `fhir` does not
//! serve.

use bytes::Bytes;
use sluice_fhir::definitions::{Definitions, TypeKind};
use sluice_typed::{Capability, Operation, capability_statement};
use time::OffsetDateTime;

use crate::config::Tenant;
use crate::error::{Error, Result};
use crate::record::instant;

/// What the face does with a resource of any type.
const INTERACTIONS: [&str; 5] = ["create", "update", "read", "vread", "history-instance"];
/// What it does on the base.
const SYSTEM_INTERACTIONS: [&str; 2] = ["transaction", "batch"];
/// On the base, on a type and on a resource.
const VALIDATE: Operation<'_> = Operation {
    name: "validate",
    definition: "http://hl7.org/fhir/OperationDefinition/Resource-validate",
    documentation: "Takes a resource, or Parameters with `resource`, `mode` and `profile`, which may stand in the URL too. \
        200 with every issue, whatever is found. Nothing is kept, and nothing that is kept is looked at.",
};
const DOCUMENTATION: &str = "FHIR R4 in JSON, taken with `Content-Encoding: gzip` too. Besides transactions and batches, \
    collection, document and message Bundles are taken at the base: a collection entry by entry, documents and messages \
    as they are. Conditional creates and references are by `identifier=[system]|[value]`. `Idempotency-Key` or \
    `X-Request-Id` gives the first answer again; `Prefer: return=minimal`, `representation` and `OperationOutcome` are \
    honoured. What the mappings changed is told in a Provenance that is stored along.";
const SECURITY: &str = "TLS. A caller is an institution that is known by its client certificate or by a bearer token. \
    Whether it may collect, and who may see, is decided by each patient's consent as it stands on the ledger.";

/// The CapabilityStatement of a tenant's gateway.
///
/// # Errors
/// A defect if it cannot be authored.
pub fn metadata(tenant: &Tenant) -> Result<Bytes> {
    let definitions = Definitions::r4();
    // Parameters is the one type that is never kept: it has no place of its own (FHIR R4 parameters.html).
    let resource_types: Vec<&str> = definitions
        .type_list()
        .filter(|(name, kind)| {
            *kind == TypeKind::Resource && definitions.resource_named(name).is_some() && *name != "Parameters"
        })
        .map(|(name, _)| name)
        .collect();
    let date = instant(OffsetDateTime::now_utc());
    let statement = capability_statement(&Capability {
        base: &tenant.base_url,
        institution: &tenant.id,
        software: "Sluice",
        version: env!("CARGO_PKG_VERSION"),
        date: &date,
        formats: &["application/fhir+json", "application/fhir+xml"],
        resource_types: &resource_types,
        interactions: &INTERACTIONS,
        system_interactions: &SYSTEM_INTERACTIONS,
        resource_operations: &[VALIDATE],
        operations: &[
            Operation {
                name: "ingest",
                definition: "https://sluice.dev/fhir/OperationDefinition/ingest",
                documentation: "Takes resources as NDJSON (`application/fhir+ndjson`), one a line, in any order; each is \
                    accepted or refused by itself.",
            },
            VALIDATE,
        ],
        documentation: DOCUMENTATION,
        security: SECURITY,
    });
    statement.map(Bytes::from).map_err(|error| Error::defect(format!("the CapabilityStatement {error}")))
}
