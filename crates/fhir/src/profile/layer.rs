//! A definition on its way to a profile, and what is read from any of its elements.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::package::items;
use crate::tree::{Node, Tree};

/// A definition, and the versions that it means where its package names a canonical without one.
pub(super) struct Layer {
    pub(super) tree: Arc<Tree>,
    /// By canonical; none for those that are there in one version only.
    pub(super) versions: BTreeMap<String, String>,
}

impl Layer {
    /// A canonical with the version that this definition means.
    pub(super) fn meant(&self, canonical: &str) -> Box<str> {
        self.versions.get(canonical).map_or(canonical, String::as_str).into()
    }
}

/// The extensions within one, by url.
pub(super) fn extension_parts<'t>(node: Node<'t>, url: &str) -> impl Iterator<Item = Node<'t>> {
    items(node, "extension").filter(move |part| part.member("url").is_some_and(|own| own.is_str(url)))
}
