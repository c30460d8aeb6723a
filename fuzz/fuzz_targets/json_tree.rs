//! Any bytes: taken or refused as serde_json does, every span in place, the document given back by edits that do nothing.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sluice_fhir::edit::Edits;
use sluice_fhir::tree::{Limits, SyntaxErrorKind, Tree};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let theirs = serde_json::from_slice::<serde_json::Value>(bytes);
    // serde_json cannot hold numbers beyond the range of f64; we keep their text.
    let out_of_range = theirs.as_ref().err().is_some_and(|error| error.to_string().contains("number out of range"));
    match Tree::parse(Bytes::copy_from_slice(bytes), &limits) {
        Ok(tree) => {
            assert!(theirs.is_ok() || out_of_range);
            for node in tree.root().descendants() {
                let (inner, outer) = (node.member_span(), node.parent().expect("only the root has none").span());
                assert!(outer.start < inner.start && inner.end < outer.end);
                let _ = (node.path(), node.as_str(), node.number(), node.position());
            }
            assert_eq!(Edits::new(&tree).apply(&tree), bytes);
            // What is taken out leaves a document that is well formed.
            let mut edits = Edits::new(&tree);
            tree.root().descendants().step_by(3).for_each(|node| edits.remove(node));
            Tree::parse(edits.apply(&tree), &limits).expect("well formed");
        }
        Err(error) => {
            assert!(error.offset <= bytes.len());
            let ours_alone = matches!(error.kind, SyntaxErrorKind::DuplicateMember | SyntaxErrorKind::TooDeep);
            assert!(ours_alone || theirs.is_err(), "{error}");
        }
    }
});
