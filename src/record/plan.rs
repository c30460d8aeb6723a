//! Where each resource of a unit will stand.
//!
//! Takes: what was asked for, and the current rows. Gives: id, version and the conditions under which both hold.
//! Never: writes.
//!
//! FHIR R4 http.html: create, update as create, conditional create (`If-None-Exist`), version-aware update
//! (`If-Match`). PUT always acts on the current version.

use std::borrow::Cow;
use std::collections::HashSet;

use bytes::Bytes;
use sluice_fhir::outcome::{Issue, IssueType, Severity};
use sluice_fhir::reference::is_id;
use sluice_fhir::tree::Node;

use super::Recorder;
use super::location::Head;
use super::search::{Criteria, Found};
use super::version::ResourceKey;
use crate::error::{Error, Refusal, Result};
use crate::forward::Located;
use crate::ingest::neighbours::Neighbours;
use crate::ingest::unit::{Interaction, Shape};
use crate::normalize::{Normalized, Resource};
use crate::store::Table;

/// Where one resource will stand.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    /// Its id.
    pub id: String,
    /// The key of its rows.
    pub key: ResourceKey,
    /// The head row as it was read.
    pub head: Option<Bytes>,
    /// Whether its id was drawn at random for this very attempt: then nothing stands there, and no row need say so.
    pub fresh: bool,
    /// The version that it will be; the one that stands, if nothing is written.
    pub version: u64,
    /// Whether a version is written; not so for a conditional create that found its resource.
    pub write: bool,
    /// The row of the search index that a conditional create relied on, as it was read.
    pub relied_on: Option<(Bytes, Option<Bytes>)>,
}

impl Planned {
    /// 201 if it did not stand before, 200 otherwise.
    pub(super) fn status(&self) -> u16 {
        if self.write && self.version == 1 { 201 } else { 200 }
    }
}

/// Plans a unit.
///
/// # Errors
/// 412 where a condition does not hold, 400 where two entries mean one resource.
pub(super) async fn unit(unit: &Normalized, upstream: Option<&[Located]>, recorder: &Recorder) -> Result<Vec<Planned>> {
    let mut planned = Vec::with_capacity(unit.resources().len());
    for (at, resource) in unit.resources().iter().enumerate() {
        let located = upstream.and_then(|it| it.get(at));
        planned.push(identify(resource, located, unit.neighbours(), recorder).await?);
    }
    let keys = planned.iter().filter(|it| !it.fresh).map(|it| (Table::Resource, it.key.head())).collect();
    let mut heads = recorder.store.read_many(keys).await?.into_iter();
    let mut seen = HashSet::with_capacity(planned.len());
    for (plan, resource) in planned.iter_mut().zip(unit.resources()) {
        let head = if plan.fresh { None } else { heads.next().flatten() };
        if plan.write && !seen.insert(plan.key) && unit.shape() == Shape::Transaction {
            // FHIR R4 http.html#trules: the identities of the resources SHALL NOT overlap.
            return Err(no(resource, Refusal::Malformed, "transaction.overlap", "one entry for each resource"));
        }
        let current = head.as_deref().map(Head::decode).transpose()?.map(|it| it.version);
        if let Interaction::Update { if_match: Some(wanted), .. } = resource.interaction()
            && upstream.is_none()
            && current != Some(*wanted)
        {
            return Err(no(resource, Refusal::Precondition, "http.if-match", "the current version in If-Match"));
        }
        plan.version = current.unwrap_or(0) + u64::from(plan.write);
        plan.head = head;
    }
    Ok(planned)
}

/// The id that a resource gets, and whether it is written at all.
async fn identify(
    resource: &Resource,
    located: Option<&Located>,
    neighbours: Option<&Neighbours>,
    recorder: &Recorder,
) -> Result<Planned> {
    let resource_type = resource.resource_type();
    let plan = |id: String, write, relied_on| {
        let key = ResourceKey::of(&recorder.keys, resource_type, &id);
        Planned { id, key, head: None, fresh: false, version: 0, write, relied_on }
    };
    let new = |relied_on| {
        let (id, fresh) = new_id(resource, neighbours);
        Planned { fresh, ..plan(id, true, relied_on) }
    };
    if let Some(located) = located {
        return Ok(plan(located.id.clone(), located.wrote(resource.interaction()), None));
    }
    match resource.interaction() {
        Interaction::Update { id, .. } => Ok(plan(id.clone(), true, None)),
        Interaction::Create { if_none_exist: None } => Ok(new(None)),
        Interaction::Create { if_none_exist: Some(query) } => {
            let Some(criteria) = Criteria::parse(query) else {
                let text = "a search by identifier=[system]|[value]";
                return Err(no(resource, Refusal::Precondition, "http.if-none-exist", text));
            };
            match recorder.search(resource_type, &criteria).await? {
                Found { ids, key, row } if ids.is_empty() => Ok(new(Some((key, row)))),
                Found { mut ids, .. } if ids.len() == 1 => Ok(plan(ids.remove(0), false, None)),
                Found { .. } => {
                    let text = "a search that at most one resource matches";
                    Err(no(resource, Refusal::Ambiguous, "http.if-none-exist", text))
                }
            }
        }
        Interaction::Keep => {
            let carried = resource.tree().root().member("id").and_then(Node::as_str);
            let carried = carried.filter(|id| is_id(id)).map(Cow::into_owned);
            Ok(carried.map_or_else(|| new(None), |id| plan(id, true, None)))
        }
    }
}

/// A new id: the one that the first pass over a stream has promised, so that others can refer to it; else a random one,
/// which is fresh.
fn new_id(resource: &Resource, neighbours: Option<&Neighbours>) -> (String, bool) {
    let promised = resource.full_url().and_then(|url| neighbours?.find(url)).map(|neighbour| neighbour.id);
    (promised.unwrap_or_else(uuid::Uuid::new_v4).to_string(), promised.is_none())
}

/// A refusal that names the resource's place.
pub(super) fn no(resource: &Resource, refusal: Refusal, rule: &'static str, text: &'static str) -> Error {
    let issue = Issue {
        severity: Severity::Error,
        code: match refusal {
            Refusal::Ambiguous => IssueType::MultipleMatches,
            Refusal::Precondition => IssueType::Conflict,
            _ => IssueType::Processing,
        },
        rule: Cow::Borrowed(rule),
        expression: Some(resource.resource_type().to_string()),
        position: Some(sluice_fhir::tree::Position { line: 1, column: 1 }),
        text: text.to_owned(),
        about: None,
    };
    Error::refused(refusal, vec![resource.place().relocate(issue)])
}
