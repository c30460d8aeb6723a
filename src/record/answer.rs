//! What the sender is told of a unit that was recorded; also what an idempotent repetition is told again.
//!
//! Takes: what was recorded. Gives: an answer that knows no HTTP. Never: holds a resource, unless the sender asked for
//! its representation.

use serde::{Deserialize, Serialize};

/// The answer to one unit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// The operation: what the receipt is asked for by.
    pub operation: String,
    /// Whether the unit was a transaction, so that the answer is a `transaction-response`.
    pub transaction: bool,
    /// One for each resource, in the order sent.
    pub entries: Vec<EntryAnswer>,
}

/// The answer to one resource.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntryAnswer {
    /// 201 created, 200 updated or found by a conditional create.
    pub status: u16,
    /// Its type.
    pub resource_type: String,
    /// Its id.
    pub id: String,
    /// Its version, as the ETag has it.
    pub version: String,
    /// When it was recorded: RFC 3339, UTC.
    pub last_modified: String,
    /// The resource as stored, if `Prefer: return=representation` asked for it.
    pub resource: Option<Box<serde_json::value::RawValue>>,
    /// Issues that are no errors, as an OperationOutcome, if `Prefer: return=OperationOutcome` asked for it.
    pub outcome: Option<Box<serde_json::value::RawValue>>,
}

impl EntryAnswer {
    /// `[type]/[id]/_history/[version]`, relative to the base (FHIR R4 http.html#create).
    pub fn location(&self) -> String {
        format!("{}/{}/_history/{}", self.resource_type, self.id, self.version)
    }

    /// `W/"[version]"` (FHIR R4 http.html#versioning).
    pub fn etag(&self) -> String {
        format!("W/\"{}\"", self.version)
    }
}
