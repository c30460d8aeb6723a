//! Narratives: XHTML as FHIR allows it, whose links within the document lead somewhere (FHIR R4 narrative.html).

use std::collections::HashSet;

use super::rules;
use super::walk::Walk;
use crate::tree::Node;
use crate::xhtml;

impl<'t> Walk<'_, 't> {
    /// The `div` of a narrative.
    pub(super) fn xhtml(&mut self, node: Node<'t>, text: &str) {
        let Some(found) = xhtml::read(text) else { return self.issue(&rules::XHTML, node, rules::XHTML.about) };
        // Of a part of something larger the rest may have what it links to.
        if found.links.is_empty() || self.references.is_part() {
            return;
        }
        let ids: HashSet<&str> = found.ids.iter().copied().collect();
        if found.links.iter().all(|link| ids.contains(link)) {
            return;
        }
        let anchors = self.anchors.take().unwrap_or_else(|| anchors(node.tree().root()));
        if !found.links.iter().all(|link| anchors.contains(*link)) {
            self.issue(
                &rules::XHTML_LINK,
                node,
                "Expected links to URLs that can be opened, or to ids that the resource, or its Bundle, has",
            );
        }
        self.anchors = Some(anchors);
    }
}

/// All ids of a document: of its resources, of its elements, and in its narratives.
fn anchors(root: Node<'_>) -> HashSet<String> {
    let mut ids = HashSet::new();
    let tree = root.tree();
    let (id, div) = (tree.name_id("id"), tree.name_id("div"));
    for node in root.descendants().filter(|node| node.name_id().is_some()) {
        if node.name_id() == id {
            ids.extend(node.as_str().map(std::borrow::Cow::into_owned));
        } else if node.name_id() == div {
            let text = node.as_str().unwrap_or_default();
            ids.extend(xhtml::read(&text).into_iter().flat_map(|found| found.ids).map(str::to_owned));
        }
    }
    ids
}
