//! What is kept of a unit between stage and record.
//!
//! Takes: a permitted unit. Gives: bytes from which the way in can be gone again after a crash, and what was received,
//! back from them. Never: loses a byte of a resource; keeps it in the clear: the caller seals it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_fhir::reference;
use sluice_fhir::tree::{self, Node, Position, Tree};
use time::OffsetDateTime;

use crate::error::{Error, Result};
use crate::ingest::neighbours::Neighbours;
use crate::ingest::unit::{Caller, Context, Entry, Interaction, Place, Prefer, Received, Shape};
use crate::normalize::{Normalized, Provenance};

#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    institution: String,
    device: Option<String>,
    roles: Vec<String>,
    purpose: Option<String>,
    received_at_micros: i64,
    idempotency_key: Option<String>,
    prefer: u8,
    traceparent: Option<String>,
    #[serde(default)]
    tracestate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    labels: Option<String>,
    shape: u8,
    entries: Vec<KeptEntry>,
    /// `fullUrl`, type and promised id of those of the same stream that the unit refers to, or is.
    neighbours: Vec<(String, String, u128)>,
    /// What the entries of that stream say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stream: Option<[u8; 32]>,
    /// The ids that are ours to choose; none where the upstream chooses.
    pub(super) ids: Vec<Option<String>>,
    /// What the mappings changed.
    pub(super) provenance: Option<Provenance>,
}

#[derive(Serialize, Deserialize)]
struct KeptEntry {
    resource: Box<RawValue>,
    resource_type: String,
    interaction: KeptInteraction,
    full_url: Option<String>,
    place: (u32, u32, Option<usize>, String),
}

#[derive(Serialize, Deserialize)]
enum KeptInteraction {
    Create(Option<String>),
    Update(String, Option<u64>),
    Keep,
}

impl Kept {
    pub(super) fn of(unit: &Normalized, ids: Vec<Option<String>>) -> Result<Self> {
        let context = unit.context();
        let mut entries = Vec::with_capacity(unit.resources().len());
        for resource in unit.resources() {
            let text = String::from_utf8(resource.tree().root().raw().to_vec());
            let text = text.map_err(|_| Error::defect("a resource is not UTF-8"))?;
            let place = resource.place();
            entries.push(KeptEntry {
                resource: RawValue::from_string(text).map_err(|_| Error::defect("a resource is not JSON"))?,
                resource_type: resource.resource_type().to_string(),
                interaction: match resource.interaction() {
                    Interaction::Create { if_none_exist } => KeptInteraction::Create(if_none_exist.clone()),
                    Interaction::Update { id, if_match } => KeptInteraction::Update(id.clone(), *if_match),
                    Interaction::Keep => KeptInteraction::Keep,
                },
                full_url: resource.full_url().map(ToString::to_string),
                place: (place.start.line, place.start.column, place.index, place.prefix.clone()),
            });
        }
        Ok(Self {
            institution: context.caller.institution.to_string(),
            device: context.caller.device.as_deref().map(str::to_owned),
            roles: context.caller.roles.to_vec(),
            purpose: context.caller.purpose.as_deref().map(str::to_owned),
            received_at_micros: i64::try_from(context.received_at.unix_timestamp_nanos() / 1000).unwrap_or(0),
            idempotency_key: context.idempotency_key.as_deref().map(str::to_owned),
            prefer: match context.prefer {
                Prefer::Minimal => 0,
                Prefer::Representation => 1,
                Prefer::Outcome => 2,
            },
            traceparent: context.traceparent.as_deref().map(str::to_owned),
            tracestate: context.tracestate.as_deref().map(str::to_owned),
            labels: context.labels.as_deref().map(str::to_owned),
            shape: match unit.shape() {
                Shape::Transaction => 0,
                Shape::Sealed => 1,
                Shape::Single => 2,
            },
            entries,
            neighbours: meant(unit),
            stream: unit.neighbours().and_then(|it| it.digest().copied()),
            ids,
            provenance: unit.provenance().cloned(),
        })
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|_| Error::defect("a staged unit can't be written"))
    }

    pub(super) fn decode(plain: &[u8]) -> Result<Self> {
        serde_json::from_slice(plain).map_err(|_| broken())
    }

    /// The institution that sent it.
    pub(super) fn sender(&self) -> &str {
        &self.institution
    }

    /// How many resources of each type it holds.
    pub(super) fn types(&self) -> BTreeMap<String, usize> {
        let mut types = BTreeMap::new();
        for entry in &self.entries {
            *types.entry(entry.resource_type.clone()).or_default() += 1;
        }
        types
    }

    /// The unit as it was received, but for the mappings, which have been applied.
    pub(super) fn received(self) -> Result<Received> {
        let text = |it: Option<String>| it.map(Arc::<str>::from);
        let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.received_at_micros) * 1000);
        let context = Context {
            caller: Caller {
                institution: self.institution.into(),
                device: text(self.device),
                // What it may do was asked when it was received.
                may: Arc::new([]),
                roles: self.roles.into(),
                purpose: text(self.purpose),
            },
            received_at: at.map_err(|_| broken())?,
            idempotency_key: text(self.idempotency_key),
            prefer: match self.prefer {
                0 => Prefer::Minimal,
                1 => Prefer::Representation,
                2 => Prefer::Outcome,
                _ => return Err(broken()),
            },
            traceparent: text(self.traceparent),
            tracestate: text(self.tracestate),
            labels: text(self.labels),
        };
        let shape = match self.shape {
            0 => Shape::Transaction,
            1 => Shape::Sealed,
            2 => Shape::Single,
            _ => return Err(broken()),
        };
        let mut entries = Vec::with_capacity(self.entries.len());
        for kept in self.entries {
            let bytes = Bytes::copy_from_slice(kept.resource.get().as_bytes());
            let (line, column, index, prefix) = kept.place;
            entries.push(Entry {
                tree: Tree::parse(bytes, &tree::Limits::default()).map_err(|_| broken())?,
                resource_type: kept.resource_type.into(),
                interaction: match kept.interaction {
                    KeptInteraction::Create(if_none_exist) => Interaction::Create { if_none_exist },
                    KeptInteraction::Update(id, if_match) => Interaction::Update { id, if_match },
                    KeptInteraction::Keep => Interaction::Keep,
                },
                full_url: kept.full_url.map(Into::into),
                place: Place { start: Position { line, column }, index, prefix },
            });
        }
        let mut neighbours = Neighbours::default();
        for (full_url, resource_type, id) in &self.neighbours {
            neighbours.insert(full_url, resource_type, uuid::Uuid::from_u128(*id));
        }
        neighbours.set_digest(self.stream);
        let neighbours = if self.neighbours.is_empty() { None } else { Some(Arc::new(neighbours)) };
        Ok(Received::again(context, shape, entries, neighbours))
    }
}

/// The neighbours that a unit refers to, and its own names among them.
fn meant(unit: &Normalized) -> Vec<(String, String, u128)> {
    let Some(neighbours) = unit.neighbours() else { return Vec::new() };
    let index = unit.index();
    let mut names = Vec::new();
    for (at, resource) in unit.resources().iter().enumerate() {
        names.extend(resource.full_url().map(ToString::to_string));
        for text in reference::all(resource.tree().root()).filter_map(Node::as_str) {
            if neighbours.meant(&text, index.resolve(&text, at)).is_some() {
                names.push(text.into_owned());
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    let found = names.into_iter().filter_map(|name| {
        let found = neighbours.find(&name)?;
        let (resource_type, id) = (found.resource_type.to_owned(), found.id.as_u128());
        Some((name, resource_type, id))
    });
    found.collect()
}

fn broken() -> Error {
    Error::defect("a staged unit is not what was written")
}
