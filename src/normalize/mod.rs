//! Normalize: a received unit becomes canonical FHIR R4, and its digests are fixed from here on.
//!
//! Takes: [`Received`] and the mapping packs. Gives: [`Normalized`], whose existence proves that each resource is
//! well-formed JSON of a FHIR R4 type, mapped, with the evidence digest of what was mapped. Never: rewrites a document
//! or a message; changes a resource that no mapping speaks of, not even by a byte.

mod codes;
mod identifiers;
mod overlay;
mod pack;
mod reading;
mod references;
mod table;
mod units;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sluice_fhir::bundle;
use sluice_fhir::canonical::{self, Digest};
use sluice_fhir::outcome::{Issue, Severity};
use sluice_fhir::tree::{self, Kind, NameId, Node, Tree};

pub(crate) use self::identifiers::{percent_decoded, percent_encoded};
use self::overlay::Overlay;
pub use self::pack::{MappingError, Mappings};
use self::references::Company;
use crate::error::{Error, Refusal, Result};
use crate::ingest::neighbours::Neighbours;
use crate::ingest::unit::{Context, Entry, Interaction, Place, Received, Shape};

/// A unit in canonical R4. Only `normalize` makes one.
#[derive(Debug)]
pub struct Normalized {
    context: Context,
    shape: Shape,
    neighbours: Option<Arc<Neighbours>>,
    resources: Vec<Resource>,
    provenance: Option<Provenance>,
    issues: Vec<Issue>,
}

/// A resource as it will be stored, but for what storing itself assigns (id, version, references to assigned ids).
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "`resourceType` is the standard's word")]
pub struct Resource {
    tree: Tree,
    resource_type: Arc<str>,
    interaction: Interaction,
    full_url: Option<Arc<str>>,
    place: Place,
    digest: Digest,
}

/// What the mappings changed in a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Id and version of each mapping that changed something, in the order applied.
    pub mappings: Vec<(String, String)>,
    /// For each resource that was changed: its number in the unit, and the paths that were changed.
    pub changes: Vec<(usize, Vec<String>)>,
}

/// Normalizes a unit.
///
/// # Errors
/// 400 with every issue, for what is not FHIR R4 or cannot be mapped.
pub fn unit(received: Received, mappings: &Mappings) -> Result<Normalized> {
    let (context, shape, entries, neighbours) = received.into_parts();
    of_parts(context, shape, entries, neighbours, mappings)
}

/// A unit that was normalized before it was staged: no mapping is applied again, and what they changed then is known.
///
/// # Errors
/// 400 for what this version does not take for FHIR R4.
pub fn again(received: Received, provenance: Option<Provenance>) -> Result<Normalized> {
    Ok(Normalized { provenance, ..unit(received, &Mappings::default())? })
}

fn of_parts(
    context: Context,
    shape: Shape,
    mut entries: Vec<Entry>,
    neighbours: Option<Arc<Neighbours>>,
    mappings: &Mappings,
) -> Result<Normalized> {
    reading::r4(&entries)?;
    let mut issues = Vec::new();
    let provenance = if shape == Shape::Sealed || mappings.is_empty() {
        None
    } else {
        map(&mut entries, neighbours.as_deref(), mappings, &mut issues)?
    };
    if issues.iter().any(|issue| issue.severity == Severity::Error) {
        return Err(Error::refused(Refusal::Malformed, issues));
    }
    let resources = entries.into_iter().map(Resource::of).collect();
    Ok(Normalized { context, shape, neighbours, resources, provenance, issues })
}

/// A resource that Sluice itself adds to a unit: kept under an id of its own, not asked for by anyone.
///
/// # Errors
/// A defect if it is no resource.
pub fn authored(json: Vec<u8>) -> Result<Resource> {
    let broken = || Error::defect("what was authored is no resource");
    let tree = Tree::parse(Bytes::from(json), &tree::Limits::default()).map_err(|_| broken())?;
    let resource_type = tree.resource_type().ok_or_else(broken)?.into();
    let interaction = Interaction::Create { if_none_exist: None };
    Ok(Resource::of(Entry { tree, resource_type, interaction, full_url: None, place: Place::body() }))
}

/// Applies the packs to every resource of a unit.
fn map(
    entries: &mut [Entry],
    neighbours: Option<&Neighbours>,
    mappings: &Mappings,
    issues: &mut Vec<Issue>,
) -> Result<Option<Provenance>> {
    for entry in entries.iter_mut() {
        if let Some(one) = entry.full_url.as_deref().and_then(|it| mappings.references.full_url(it, neighbours)) {
            entry.full_url = Some(one);
        }
    }
    let full_urls: Vec<Option<Arc<str>>> = entries.iter().map(|it| it.full_url.clone()).collect();
    let company = Company::new(&full_urls, neighbours);
    let mut seen = units::Seen::default();
    let (mut packs, mut changes) = (BTreeSet::new(), Vec::new());
    for (at, entry) in entries.iter_mut().enumerate() {
        if let Interaction::Create { if_none_exist: Some(query) } = &mut entry.interaction
            && let Some((one, _)) = mappings.identifiers.query(query)
        {
            // What is searched for is kept in its one form too; the search is no part of the resource.
            *query = one;
        }
        // A Bundle within a Bundle may be a document, and signed.
        if &*entry.resource_type == "Bundle" {
            continue;
        }
        let overlay = overlaid(entry, mappings, &company, &mut seen);
        issues.extend(overlay.issues.into_iter().map(|issue| entry.place.relocate(issue)));
        if overlay.edits.is_empty() {
            continue;
        }
        let bytes = overlay.edits.apply(&entry.tree);
        // What came within the limits can outgrow them only by codings that were added.
        entry.tree = Tree::parse(bytes, &tree::Limits::default()).map_err(|_| {
            Error::refusal(Refusal::TooLarge, "normalize.limit", "a resource that stays within the limits")
        })?;
        packs.extend(overlay.packs);
        changes.push((at, overlay.paths));
    }
    if changes.is_empty() {
        return Ok(None);
    }
    let mappings = packs.into_iter().filter_map(|pack: usize| mappings.packs().get(pack).cloned()).collect();
    Ok(Some(Provenance { mappings, changes }))
}

/// What the packs change in one resource: one walk over its nodes, whatever the number of packs.
fn overlaid(entry: &Entry, mappings: &Mappings, company: &Company<'_>, seen: &mut units::Seen) -> Overlay {
    static NAMES: LazyLock<[Option<NameId>; 2]> = LazyLock::new(|| [tree::known("value"), tree::known("coding")]);
    let [value, coding] = *NAMES;
    let mut overlay = Overlay::new(&entry.tree);
    let root = entry.tree.root();
    for node in root.descendants() {
        let name = node.name_id();
        if name.is_none() {
            continue;
        }
        if name == value {
            match node.kind() {
                Kind::String if !mappings.identifiers.is_empty() => mappings.identifiers.apply(node, &mut overlay),
                Kind::Number if !mappings.units.is_empty() => mappings.units.apply(node, seen, &mut overlay),
                _ => {}
            }
        } else if name == coding && !mappings.codes.is_empty() {
            mappings.codes.apply(node, &mut overlay);
        }
    }
    if !mappings.references.is_empty() || !mappings.identifiers.is_empty() {
        let full_url = entry.full_url.as_deref();
        mappings.references.apply(root, full_url, company, &mappings.identifiers, &mut overlay);
    }
    overlay
}

impl Normalized {
    /// What came with the request.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// What kind of unit it is.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Who else came in the same stream.
    pub fn neighbours(&self) -> Option<&Neighbours> {
        self.neighbours.as_deref()
    }

    /// The resources, in the order sent.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// Who is who in the unit: what a reference in one of its resources means.
    pub fn index(&self) -> bundle::Index {
        let mut builder = bundle::Builder::new();
        for resource in &self.resources {
            let root = resource.tree.root();
            let id = root.member("id").and_then(Node::as_str);
            let full_url = resource.full_url.as_deref();
            let entry = builder.entry(full_url, Some(&resource.resource_type), id.as_deref());
            if let Interaction::Update { id, .. } = &resource.interaction {
                builder.server_identity(entry, &resource.resource_type, id);
            }
            for contained in root.find(&["contained"]) {
                if let Some(id) = contained.member("id").and_then(Node::as_str) {
                    builder.contained(entry, &id, contained.id());
                }
            }
        }
        builder.build()
    }

    /// What could not be mapped, none of it an error.
    pub fn issues(&self) -> &[Issue] {
        &self.issues
    }

    /// What was changed; none if nothing was.
    pub fn provenance(&self) -> Option<&Provenance> {
        self.provenance.as_ref()
    }
}

impl Resource {
    fn of(entry: Entry) -> Self {
        let digest = canonical::evidence_digest(entry.tree.root());
        let Entry { tree, resource_type, interaction, full_url, place } = entry;
        Self { tree, resource_type, interaction, full_url, place, digest }
    }

    /// The resource.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Its type.
    pub fn resource_type(&self) -> &Arc<str> {
        &self.resource_type
    }

    /// What was asked for.
    pub fn interaction(&self) -> &Interaction {
        &self.interaction
    }

    /// `Bundle.entry.fullUrl`.
    pub fn full_url(&self) -> Option<&Arc<str>> {
        self.full_url.as_ref()
    }

    /// Where it stood in the body.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The evidence digest: over the canonical form without `id`, `meta.versionId` and `meta.lastUpdated`, references
    /// as submitted. What a leaf commits to.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}
