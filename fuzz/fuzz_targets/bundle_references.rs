//! Any document as a Bundle: its references resolve to entries and nodes that are there, or to nothing.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sluice_fhir::bundle::{Index, Target};
use sluice_fhir::tree::{Limits, Node, Tree};
use sluice_fhir::{compartment, reference};

fuzz_target!(|bytes: &[u8]| {
    let Ok(tree) = Tree::parse(Bytes::copy_from_slice(bytes), &Limits::default()) else { return };
    let index = Index::new(tree.root());
    for (number, entry) in tree.root().member("entry").into_iter().flat_map(Node::items).enumerate() {
        for text in reference::all(entry).filter_map(Node::as_str) {
            match index.resolve(&text, number) {
                Target::Entry(entry) => assert!(entry < index.len()),
                Target::Contained(id) => assert!(tree.node(id).path().contains("contained")),
                _ => {}
            }
        }
        if let Some(resource) = entry.member("resource") {
            let _ = compartment::patient(resource);
        }
    }
    let _ = compartment::patient(tree.root());
});
