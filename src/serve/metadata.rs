//! The CapabilityStatement of `/fhir/metadata`.
//!
//! Takes: settings. Gives: the resource's bytes, the same for all callers. Never: tells who the callers are.

use bytes::Bytes;
use time::format_description::well_known::Rfc3339;

use crate::config::Config;

/// The CapabilityStatement of a gateway with these settings (FHIR R4 capabilitystatement.html), kind `instance`.
pub fn metadata(config: &Config) -> Bytes {
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let statement = serde_json::json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": now.format(&Rfc3339).unwrap_or_default(),
        "kind": "instance",
        "software": { "name": "Sluice", "version": env!("CARGO_PKG_VERSION") },
        "implementation": { "description": "A Sluice gateway", "url": config.tenant.base_url },
        "fhirVersion": "4.0.1",
        "format": ["json", "application/fhir+json"],
        "rest": [{
            "mode": "server",
            "documentation": "Resources of every type of R4 are taken by create and update.",
            "security": {
                "description": "Callers show a client certificate (mutual TLS) or a bearer token.",
            },
            "interaction": [{ "code": "transaction" }, { "code": "batch" }],
            "operation": [{
                "name": "ingest",
                "definition": "https://sluice.dev/fhir/OperationDefinition/ingest",
                "documentation": "NDJSON of resources, in any order.",
            }],
        }],
    });
    statement.to_string().into()
}
