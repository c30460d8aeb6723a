//! A document by itself: what the rules find in it, without a unit that could be recorded.
//!
//! Takes a resource or a Bundle as it was written. Gives every issue. Never: reads what is recorded; what a reference points to
//! is known by the document alone.

use std::collections::HashMap;

use sluice_fhir::tree::Node;
use sluice_fhir::validate::Report;

use super::rules::{Asking, Rules};

impl Rules {
    /// What is found in a document. A Bundle is checked with all that is in it, whatever its type. A profile that is named and
    /// not known here is an error: who asks for it would take silence for conformance.
    pub fn document(&self, root: Node<'_>, asking: Asking<'_>) -> Report {
        let types = types(root);
        let resolve = |reference: &str| types.get(reference).map(String::as_str);
        self.report(root, Asking { resolve: Some(&resolve), ..asking })
    }
}

/// Of a Bundle: what each `fullUrl` is, so that the type of what a reference points to can be checked.
fn types(root: Node<'_>) -> HashMap<String, String> {
    let entries = root.member("entry").filter(|_| root.resource_type() == Some("Bundle"));
    let entries = entries.into_iter().flat_map(Node::items);
    let known = entries.filter_map(|entry| {
        let full_url = entry.member("fullUrl")?.as_str()?.into_owned();
        Some((full_url, entry.member("resource")?.resource_type()?.to_owned()))
    });
    known.collect()
}
