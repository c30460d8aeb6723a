//! Every Bundle of an older release is named as such, and none of R4 is taken for another.

use sluice_fhir::release::{Release, guess};
use sluice_fhir::tree::{Limits, Tree};

use super::archive;

#[test]
fn older_bundles_are_named_and_r4_is_r4() {
    let of = |content: &bytes::Bytes| guess(Tree::parse(content.clone(), &Limits::default()).unwrap().root());
    let mut wrong = Vec::new();
    for (name, content) in archive("tests/data/synthea/stu3-and-dstu2.tar.gz") {
        // The genomic ones have Observation.category as DSTU2 had it, and nothing that STU3 alone has.
        let expected =
            if name.starts_with("dstu2") || name.starts_with("genomics") { Release::Dstu2 } else { Release::Stu3 };
        if name.ends_with(".json") && of(&content) != Some(expected) {
            wrong.push((name, of(&content)));
        }
    }
    for corpus in ["tests/data/synthea/r4-30-patients.tar.gz", "tests/data/hl7-examples/r4-4.0.1.tar.gz"] {
        for (name, content) in archive(corpus) {
            if name.ends_with(".json") && of(&content) != Some(Release::R4) {
                wrong.push((name, of(&content)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn a_release_is_told_by_what_a_resource_says_of_itself() {
    let of = |text: &str| guess(Tree::parse(text.to_owned().into(), &Limits::default()).unwrap().root());
    assert_eq!(of(r#"{"resourceType":"CapabilityStatement","fhirVersion":"5.0.0"}"#), Some(Release::R5));
    assert_eq!(
        of(r#"{"resourceType":"Patient","meta":{"profile":["http://hl7.org/fhir/3.0/StructureDefinition/Patient"]}}"#),
        Some(Release::Stu3)
    );
    assert_eq!(of(r#"{"resourceType":"Citation","status":"draft"}"#), Some(Release::R4b));
    assert_eq!(of(r#"{"resourceType":"Conformance"}"#), Some(Release::Dstu2));
    assert_eq!(of(r#"{"resourceType":"Patient","id":"a"}"#), Some(Release::R4));
    assert_eq!(of(r#"{"resourceType":"Nothing"}"#), None);
    assert_eq!(of("[]"), None);
}
