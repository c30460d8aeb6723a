//! The stored form of a resource.
//!
//! Takes: a resource and where everything of its unit will stand. Gives: its bytes with `id`, `meta.versionId`,
//! `meta.lastUpdated` and references to what was assigned ids. Never: touches anything else, not even white space; a
//! document or a message is stored as it came.
//!
//! FHIR R4 http.html#transaction: references to a `fullUrl` of the Bundle are replaced by what the entry became.

use bytes::Bytes;
use sluice_fhir::bundle::Target;
use sluice_fhir::canonical;
use sluice_fhir::edit::Edits;
use sluice_fhir::reference;
use sluice_fhir::tree::{Kind, Node, Tree};

use super::Recorder;
use super::plan::{Planned, no};
use super::search::Criteria;
use crate::error::{Kind as ErrorKind, Refusal, Result};
use crate::ingest::unit::Shape;
use crate::normalize::{Normalized, Resource};

/// The stored form of every resource of a unit that is written; the others stay empty.
///
/// # Errors
/// 412 for a conditional reference that does not lead to exactly one resource.
pub(super) async fn unit(
    unit: &Normalized,
    planned: &[Planned],
    recorded_at: &str,
    forwarded: bool,
    recorder: &Recorder,
) -> Result<Vec<Bytes>> {
    let index = unit.index();
    let mut stored = Vec::with_capacity(planned.len());
    for (at, (resource, plan)) in unit.resources().iter().zip(planned).enumerate() {
        if !plan.write {
            stored.push(Bytes::new());
            continue;
        }
        if unit.shape() == Shape::Sealed {
            stored.push(resource.tree().bytes().clone());
            continue;
        }
        let tree = resource.tree();
        let mut edits = Edits::new(tree);
        identity(tree, plan, recorded_at, &mut edits);
        for node in reference::all(tree.root()) {
            let Some(text) = node.as_str() else { continue };
            let becomes = match index.resolve(&text, at) {
                Target::Entry(entry) => became(unit, planned, entry),
                Target::Conditional { resource_type, query } => {
                    match conditional(resource, resource_type, query, recorder).await {
                        // The upstream has found it, and what it has accepted is recorded: as it was written.
                        Err(error) if forwarded && matches!(error.kind(), ErrorKind::Refusal(_)) => None,
                        found => Some(found?),
                    }
                }
                outside => unit
                    .neighbours()
                    .and_then(|it| it.meant(&text, outside))
                    .map(|neighbour| format!("{}/{}", neighbour.resource_type, neighbour.id)),
            };
            if let Some(becomes) = becomes.filter(|becomes| *becomes != *text) {
                edits.set_str(node, &becomes);
            }
        }
        stored.push(edits.apply(tree));
    }
    Ok(stored)
}

/// The stored form of a resource that refers to nothing of its unit but by final references.
pub(super) fn identified(resource: &Resource, plan: &Planned, recorded_at: &str) -> Bytes {
    let tree = resource.tree();
    let mut edits = Edits::new(tree);
    identity(tree, plan, recorded_at, &mut edits);
    edits.apply(tree)
}

fn became(unit: &Normalized, planned: &[Planned], entry: usize) -> Option<String> {
    let (resource, plan) = unit.resources().get(entry).zip(planned.get(entry))?;
    Some(format!("{}/{}", resource.resource_type(), plan.id))
}

async fn conditional(resource: &Resource, resource_type: &str, query: &str, recorder: &Recorder) -> Result<String> {
    let criteria = Criteria::parse(query).ok_or_else(|| {
        let text = "a conditional reference by identifier=[system]|[value]";
        no(resource, Refusal::Precondition, "reference.conditional", text)
    })?;
    let mut found = recorder.search(resource_type, &criteria).await?;
    if found.ids.len() != 1 {
        let text = "a conditional reference that exactly one resource matches";
        return Err(no(resource, Refusal::Precondition, "reference.conditional", text));
    }
    Ok(format!("{resource_type}/{}", found.ids.remove(0)))
}

/// Sets what a server sets: `id`, `meta.versionId`, `meta.lastUpdated`.
fn identity(tree: &Tree, plan: &Planned, recorded_at: &str, edits: &mut Edits) {
    let root = tree.root();
    match root.member("id") {
        Some(node) if node.as_str().as_deref() == Some(&plan.id) => {}
        Some(node) => edits.set_str(node, &plan.id),
        None => edits.insert_member(root, "id", canonical::string(&plan.id)),
    }
    let version = canonical::string(&plan.version.to_string());
    match root.member("meta").filter(|meta| meta.kind() == Kind::Object) {
        None => {
            let mut meta = b"{\"versionId\":".to_vec();
            meta.extend_from_slice(version.as_bytes());
            meta.extend_from_slice(b",\"lastUpdated\":");
            meta.extend_from_slice(canonical::string(recorded_at).as_bytes());
            meta.push(b'}');
            edits.insert_member(root, "meta", meta);
        }
        Some(meta) => {
            member(meta, "versionId", version, edits);
            member(meta, "lastUpdated", canonical::string(recorded_at), edits);
        }
    }
}

fn member(object: Node<'_>, name: &str, value: String, edits: &mut Edits) {
    match object.member(name) {
        Some(node) => edits.set(node, value),
        None => edits.insert_member(object, name, value),
    }
}
