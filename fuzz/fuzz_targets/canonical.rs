//! The canonical form of any document is a document, its own canonical form, and says the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sluice_fhir::canonical;
use sluice_fhir::tree::{Limits, Tree};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let Ok(tree) = Tree::parse(Bytes::copy_from_slice(bytes), &limits) else { return };
    let form = canonical::to_vec(tree.root());
    let formed = Tree::parse(Bytes::from(form.clone()), &limits).expect("the form is a document");
    assert_eq!(canonical::to_vec(formed.root()), form);
    assert_eq!(canonical::digest(formed.root()), canonical::digest(tree.root()));
    assert_eq!(canonical::evidence_digest(formed.root()), canonical::evidence_digest(tree.root()));
    assert_eq!(canonical::bundle_digest(formed.root()), canonical::bundle_digest(tree.root()));
    assert_eq!(formed.len(), tree.len());
    for node in tree.root().descendants() {
        if let Some(text) = node.number() {
            assert_eq!(canonical::to_vec(node), text.as_bytes());
        }
    }
});
