//! JSONTestSuite, whole, with serde_json as second oracle; the naughty strings.

use sluice_fhir::canonical;
use sluice_fhir::tree::SyntaxErrorKind;

use crate::{own, parse, unpacked};

/// Every document on which we and serde_json differ, and why.
const DIFFERENCES: [(&str, &str); 7] = [
    ("i_number_huge_exp.json", NUMBER),
    ("i_number_neg_int_huge_exp.json", NUMBER),
    ("i_number_pos_double_huge_exp.json", NUMBER),
    ("i_number_real_neg_overflow.json", NUMBER),
    ("i_number_real_pos_overflow.json", NUMBER),
    ("y_object_duplicated_key.json", DUPLICATE),
    ("y_object_duplicated_key_and_value.json", DUPLICATE),
];
const NUMBER: &str = "beyond f64; we keep numbers by their text, whatever their size";
const DUPLICATE: &str = "a duplicate member is another record for another reader (I-JSON, RFC 7493 §2.3)";

#[test]
fn the_suite_is_obeyed() {
    let mut counts = [0; 3];
    let mut differences = Vec::new();
    for (path, content) in unpacked(&own("JSONTestSuite.tgz")) {
        let Some(name) = path.split("test_parsing/").nth(1) else { continue };
        let ours = parse(&content);
        if ours.is_ok() != serde_json::from_slice::<serde_json::Value>(&content).is_ok() {
            differences.push(name.to_owned());
        }
        match name.as_bytes().first() {
            Some(b'y') => {
                counts[0] += 1;
                let duplicate = ours.as_ref().err().map(|error| error.kind) == Some(SyntaxErrorKind::DuplicateMember);
                assert!(ours.is_ok() || (duplicate && name.contains("duplicated_key")), "{name}: {:?}", ours.err());
            }
            Some(b'n') => {
                counts[1] += 1;
                assert!(ours.is_err(), "{name}");
            }
            _ => counts[2] += 1,
        }
    }
    assert_eq!(counts, [95, 188, 35]);
    differences.sort_unstable();
    assert_eq!(differences, DIFFERENCES.map(|(name, _)| name));
}

#[test]
fn what_may_be_transformed_is_kept_by_its_text() {
    for (path, content) in unpacked(&own("JSONTestSuite.tgz")) {
        let Some(name) = path.split("test_transform/").nth(1) else { continue };
        let Ok(tree) = parse(&content) else {
            assert!(
                name.contains("same_key") || name.contains("escaped_invalid") || name.contains("invalid"),
                "{name}"
            );
            continue;
        };
        for node in tree.root().descendants().filter(|node| node.number().is_some()) {
            assert_eq!(canonical::to_vec(node), node.raw(), "{name}");
        }
    }
}

#[test]
fn naughty_strings_come_back() {
    let content = std::fs::read(own("blns.json")).unwrap();
    let tree = parse(&content).unwrap();
    let theirs: Vec<String> = serde_json::from_slice(&content).unwrap();
    assert!(theirs.len() > 400);
    for (ours, theirs) in tree.root().items().zip(&theirs) {
        assert_eq!(ours.as_str().as_deref(), Some(theirs.as_str()));
        let again = parse(&canonical::to_vec(ours)).unwrap();
        assert_eq!(again.root().as_str().as_deref(), Some(theirs.as_str()));
        assert_eq!(canonical::to_vec(again.root()), canonical::to_vec(ours));
    }
    let written: Vec<String> = serde_json::from_slice(&canonical::to_vec(tree.root())).unwrap();
    assert_eq!(written, theirs);
}
