//! The XML files of HL7's validator suite: each is read, or refused as the list says.

use std::collections::BTreeMap;

use sluice_fhir::canonical;
use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;
use sluice_fhir::xml;

use super::{archive, known, read};

const KNOWN: &str = "tests/cases/xml/hl7-suite.tsv";

#[test]
fn every_xml_file_of_the_validator_suite_is_read_or_refused_as_listed() {
    let known = known(KNOWN);
    let mut refused = BTreeMap::new();
    let mut count = 0;
    for (name, content) in
        archive("tests/data/validator/r4-cases.tar.gz").iter().filter(|(name, _)| name.ends_with(".xml"))
    {
        count += 1;
        match read(content) {
            Ok(tree) => {
                Validator::r4().validate(tree.root());
                if let Ok(written) = xml::write(tree.root(), &Definitions::r4()) {
                    let again = read(&written).unwrap();
                    assert_eq!(canonical::to_vec(again.root()), canonical::to_vec(tree.root()), "{name}");
                }
            }
            Err(error) => {
                refused.insert(name.clone(), error.to_string());
            }
        }
    }
    assert_eq!(count, 142);
    let surprises: Vec<_> = refused.iter().filter(|(name, _)| !known.contains_key(*name)).collect();
    let gone: Vec<_> = known.keys().filter(|name| !refused.contains_key(*name)).collect();
    assert!(surprises.is_empty() && gone.is_empty(), "not listed: {surprises:#?}; listed, but read by now: {gone:?}");
}

/// The inputs of the FHIRPath suite are the same in XML as published, and as somebody else wrote them in JSON.
#[test]
fn the_inputs_of_the_fhirpath_suite_mean_the_same_in_xml_and_in_json() {
    let json = archive("crates/fhir/tests/data/fhirpath-r4.tgz");
    let documents = archive("crates/fhir/tests/data/fhirpath-r4-xml.tgz");
    assert_eq!(documents.len(), 7);
    for (name, content) in documents {
        let tree = read(&content).unwrap_or_else(|error| panic!("{name}: {error}"));
        let same = json[&format!("input/{}", name.replace(".xml", ".json"))].clone();
        let same = Tree::parse(same, &Limits::default()).unwrap();
        let apart = |tree: &Tree| {
            let mut value = serde_json::from_slice(tree.bytes()).unwrap();
            without_narratives(&mut value);
            value
        };
        assert_eq!(apart(&tree), apart(&same), "{name}");
    }
}

/// Who wrote the JSON resolved the references to characters in the narratives; we keep them as they are spelled.
fn without_narratives(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(members) => {
            members.remove("div");
            members.values_mut().for_each(without_narratives);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_narratives),
        _ => {}
    }
}
