//! References within a Bundle, resolved as FHIR R4 bundle.html#references says, in time linear in the Bundle.
//!
//! Takes a Bundle, or its entries one by one as they stream by, and gives for each reference what it names: an entry, a
//! contained resource, or something outside. Keeps no text of the Bundle but its bases: about 50 bytes an entry.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::reference::{self, Reference};
use crate::tree::{Node, NodeId};

/// What a reference names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The entry with this number, from 0.
    Entry(usize),
    /// A resource contained in the one that says the reference.
    Contained(NodeId),
    /// Relative, and not in the Bundle. It belongs to [`Index::base`] of the entry that says it, or, without one, to the
    /// server that gets the Bundle.
    Local {
        /// A resource type of R4.
        resource_type: &'a str,
        /// The logical id.
        id: &'a str,
    },
    /// An absolute URL that is not in the Bundle.
    Absolute(&'a str),
    /// A search that the server that gets the Bundle must do.
    Conditional {
        /// A resource type of R4.
        resource_type: &'a str,
        /// What stands behind the question mark.
        query: &'a str,
    },
    /// No reference, but an identifier or a text to display.
    Logical,
    /// Nothing can be named by it.
    Unresolvable(Reason),
}

/// Why a reference names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// It is no reference that R4 knows.
    Malformed,
    /// Several entries have what it names as their identity.
    Ambiguous,
    /// A URN names nothing outside its Bundle, and no entry has it.
    UnknownUrn,
    /// The resource contains nothing with this id.
    NotContained,
}

/// Who is who in a Bundle.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// By identity, and by identity and version: the entry that has it, or [`SEVERAL`].
    entries: HashMap<Key, u32>,
    contained: HashMap<Key, Option<NodeId>>,
    bases: Vec<Box<str>>,
    bases_by_text: HashMap<Key, u32>,
    /// Of each entry the base of its fullUrl, or [`NO_BASE`].
    base_of: Vec<u32>,
}

const SEVERAL: u32 = u32::MAX;
const NO_BASE: u32 = u32::MAX;

/// Builds an [`Index`] entry by entry.
#[derive(Debug, Default)]
pub struct Builder {
    index: Index,
}

impl Builder {
    /// An index of no entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next entry and gives its number. Its identity is its `fullUrl`; without one it is `resource_type/id` on
    /// the server that gets the Bundle.
    pub fn entry(&mut self, full_url: Option<&str>, resource_type: Option<&str>, id: Option<&str>) -> usize {
        let number = self.index.base_of.len();
        let base = match full_url.map(reference::parse) {
            Some(Reference::Absolute { base, .. }) => self.base(base),
            _ => NO_BASE,
        };
        self.index.base_of.push(base);
        match (full_url, resource_type, id) {
            (Some(full_url), ..) => self.identity(number, &[full_url]),
            (None, Some(resource_type), Some(id)) => self.identity(number, &[resource_type, "/", id]),
            (None, ..) => {}
        }
        number
    }

    /// Says what version the resource of an entry is (`meta.versionId`), so that references to a version find it.
    pub fn version(&mut self, entry: usize, full_url: &str, version: &str) {
        self.identity(entry, &[full_url, HISTORY, version]);
    }

    /// Says that the server will know an entry as `resource_type/id` (`request.url` of a PUT), whatever its `fullUrl`.
    pub fn server_identity(&mut self, entry: usize, resource_type: &str, id: &str) {
        self.identity(entry, &[resource_type, "/", id]);
    }

    /// Adds a resource that the resource of an entry contains.
    pub fn contained(&mut self, entry: usize, id: &str, node: NodeId) {
        let key = Key::of(&[&entry.to_string(), "#", id]);
        self.index.contained.entry(key).and_modify(|known| *known = None).or_insert(Some(node));
    }

    /// The index of what has been added.
    pub fn build(self) -> Index {
        self.index
    }

    fn identity(&mut self, entry: usize, parts: &[&str]) {
        let entry = u32::try_from(entry).unwrap_or(SEVERAL);
        self.index
            .entries
            .entry(Key::of(parts))
            .and_modify(|known| {
                if *known != entry {
                    *known = SEVERAL;
                }
            })
            .or_insert(entry);
    }

    fn base(&mut self, base: &str) -> u32 {
        let next = u32::try_from(self.index.bases.len()).unwrap_or(NO_BASE);
        let known = *self.index.bases_by_text.entry(Key::of(&[base])).or_insert(next);
        if known == next {
            self.index.bases.push(base.into());
        }
        known
    }
}

impl Index {
    /// The index of a Bundle: one pass over its entries and the resources that they contain.
    pub fn new(bundle: Node<'_>) -> Self {
        let mut builder = Builder::new();
        for entry in bundle.member("entry").into_iter().flat_map(Node::items) {
            let text = |node: Option<Node<'_>>| node.and_then(Node::as_str).map(std::borrow::Cow::into_owned);
            let resource = entry.member("resource");
            let full_url = text(entry.member("fullUrl"));
            let id = text(resource.and_then(|resource| resource.member("id")));
            let number = builder.entry(full_url.as_deref(), resource.and_then(Node::resource_type), id.as_deref());
            let version = text(resource.and_then(|resource| resource.find(&["meta", "versionId"]).next()));
            if let (Some(full_url), Some(version)) = (&full_url, version) {
                builder.version(number, full_url, &version);
            }
            let request = entry.member("request");
            if request.and_then(|request| request.member("method")).is_some_and(|method| method.is_str("PUT")) {
                let url = text(request.and_then(|request| request.member("url"))).unwrap_or_default();
                if let Reference::Relative { resource_type, id, version: None } = reference::parse(&url) {
                    builder.server_identity(number, resource_type, id);
                }
            }
            let contained = resource.and_then(|resource| resource.member("contained"));
            for contained in contained.into_iter().flat_map(Node::items) {
                if let Some(id) = text(contained.member("id")) {
                    builder.contained(number, &id, contained.id());
                }
            }
        }
        builder.build()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.base_of.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.base_of.is_empty()
    }

    /// The service base of an entry's `fullUrl`, if that is a RESTful URL.
    pub fn base(&self, entry: usize) -> Option<&str> {
        self.bases.get(*self.base_of.get(entry)? as usize).map(AsRef::as_ref)
    }

    /// What a reference names that stands in the resource of an entry, or in one that it contains.
    pub fn resolve<'a>(&self, reference: &'a str, from_entry: usize) -> Target<'a> {
        match reference::parse(reference) {
            Reference::Fragment("") => Target::Entry(from_entry),
            Reference::Fragment(id) => match self.contained.get(&Key::of(&[&from_entry.to_string(), "#", id])) {
                Some(Some(node)) => Target::Contained(*node),
                Some(None) => Target::Unresolvable(Reason::Ambiguous),
                None => Target::Unresolvable(Reason::NotContained),
            },
            Reference::Relative { resource_type, id, version } => {
                let outside = Target::Local { resource_type, id };
                match (self.base(from_entry), version) {
                    (Some(base), None) => self.find(&[base, "/", resource_type, "/", id], outside),
                    (Some(base), Some(version)) => {
                        self.find(&[base, "/", resource_type, "/", id, HISTORY, version], outside)
                    }
                    (None, None) => self.find(&[resource_type, "/", id], outside),
                    (None, Some(_)) => outside,
                }
            }
            // With a version, the text of the reference is the text of the key.
            Reference::Absolute { .. } => self.find(&[reference], Target::Absolute(reference)),
            Reference::Urn(urn) => self.find(&[urn], Target::Unresolvable(Reason::UnknownUrn)),
            Reference::Conditional { resource_type, query } => Target::Conditional { resource_type, query },
            // A URL of another form may still be somebody's fullUrl.
            Reference::Other(url) => {
                let is_url = url.split_once(':').is_some_and(|(scheme, rest)| {
                    !rest.is_empty()
                        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
                });
                let outside = if is_url { Target::Absolute(url) } else { Target::Unresolvable(Reason::Malformed) };
                self.find(&[url], outside)
            }
        }
    }

    fn find<'a>(&self, parts: &[&str], outside: Target<'a>) -> Target<'a> {
        match self.entries.get(&Key::of(parts)) {
            Some(&SEVERAL) => Target::Unresolvable(Reason::Ambiguous),
            Some(&entry) => Target::Entry(entry as usize),
            None => outside,
        }
    }
}

const HISTORY: &str = "/_history/";

/// Half of the SHA-256 of an identity: as good as the text, and short whatever the text's length.
#[derive(Clone, Copy, Debug, Eq)]
struct Key([u8; 16]);

impl Key {
    fn of(parts: &[&str]) -> Self {
        #[cfg(test)]
        tests::COST.with(|cost| cost.set(cost.get() + 1));
        let mut sha = Sha256::new();
        for part in parts {
            sha.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(sha.finalize().get(..16).unwrap_or(&[0; 16]));
        Self(key)
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        #[cfg(test)]
        tests::COST.with(|cost| cost.set(cost.get() + 1));
        self.0 == other.0
    }
}

#[cfg(test)]
mod tests;
