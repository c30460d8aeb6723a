//! Every example of HL7 and every Bundle of Synthea: nothing lost, nothing changed, everything found.

use std::collections::BTreeMap;

use sluice_fhir::bundle::{Index, Target};
use sluice_fhir::compartment::{self, Membership};
use sluice_fhir::edit::Edits;
use sluice_fhir::tree::{Node, SyntaxErrorKind, Tree};
use sluice_fhir::{canonical, reference};

use crate::{parse, shared, unpacked};

/// The document again, from the spans of its nodes and what stands between them.
fn again(tree: &Tree) -> Vec<u8> {
    let document = tree.bytes();
    let mut out = Vec::with_capacity(document.len());
    let mut at = 0;
    let mut leaves = vec![tree.root()];
    leaves.extend(tree.root().descendants());
    for node in leaves.into_iter().filter(|node| node.is_empty()) {
        let span = node.span();
        out.extend_from_slice(&document[at..span.start]);
        out.extend_from_slice(node.raw());
        at = span.end;
    }
    out.extend_from_slice(&document[at..]);
    out
}

/// The same document as serde_json reads it, numbers apart: those are compared by their text.
fn agrees(node: Node<'_>, value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Object(members) => {
            node.is_object()
                && node.len() == members.len()
                && node.members().all(|member| {
                    member.name().and_then(|name| members.get(name)).is_some_and(|value| agrees(member, value))
                })
        }
        serde_json::Value::Array(items) => {
            node.is_array()
                && node.len() == items.len()
                && node.items().zip(items).all(|(node, item)| agrees(node, item))
        }
        serde_json::Value::String(text) => node.is_str(text) && node.as_str().as_deref() == Some(text),
        serde_json::Value::Number(number) => node.number().and_then(|text| text.parse::<f64>().ok()) == number.as_f64(),
        serde_json::Value::Bool(value) => node.as_bool() == Some(*value),
        serde_json::Value::Null => node.kind() == sluice_fhir::tree::Kind::Null,
    }
}

/// Corpora, and how many documents of each are read.
const CORPORA: [(&str, usize); 14] = [
    ("bulk/smart-10-patients.tar.gz", 7_160),
    ("hl7-examples/r4-4.0.1.tar.gz", 703),
    ("hl7-examples/r4b-4.3.0.tar.gz", 380),
    ("hl7-examples/r5-5.0.0.tar.gz", 450),
    ("hl7-examples/r5-adverse-event-clinical-research.tar.gz", 75),
    ("hl7-examples/stu3-3.0.1.tar.gz", 316),
    ("packages/hl7.fhir.us.core-3.1.1.tgz", 150),
    ("packages/hl7.fhir.us.core-6.1.0.tgz", 390),
    ("packages/hl7.fhir.us.davinci-pas-2.0.1.tgz", 130),
    ("packages/hl7.fhir.uv.genomics-reporting-3.0.0.tgz", 260),
    ("packages/hl7.fhir.uv.ips-1.1.0.tgz", 120),
    ("synthea/r4-30-patients.tar.gz", 32),
    ("synthea/stu3-and-dstu2.tar.gz", 40),
    ("validator/r4-cases.tar.gz", 280),
];

#[test]
fn nothing_is_lost_or_changed() {
    for (corpus, least) in CORPORA {
        let mut documents = 0;
        for (name, content) in unpacked(&shared(corpus)) {
            if name.ends_with(".json") {
                documents += usize::from(round_trip(&name, &content));
            } else if name.ends_with(".ndjson") {
                let lines = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                documents += lines.filter(|line| round_trip(&name, line)).count();
            }
        }
        assert!(documents >= least, "{corpus}: {documents}");
    }
    let mut documents = 0;
    for folder in ["claims-pas", "consent/hl7-r4", "consent/ihe-pcf"] {
        for file in std::fs::read_dir(shared(folder)).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|end| end == "json") {
                assert!(round_trip(&file.display().to_string(), &std::fs::read(&file).unwrap()), "{}", file.display());
                documents += 1;
            }
        }
    }
    assert!(documents >= 50, "{documents}");
}

/// Whether it is a document; what is none is none for `serde_json` either, or has a member twice.
fn round_trip(name: &str, content: &[u8]) -> bool {
    let tree = match parse(content) {
        Ok(tree) => tree,
        Err(error) => {
            let theirs = serde_json::from_slice::<serde_json::Value>(content);
            assert!(error.kind == SyntaxErrorKind::DuplicateMember || theirs.is_err(), "{name}: {error}");
            return false;
        }
    };
    assert_eq!(tree.bytes(), content, "{name}");
    assert!(again(&tree) == *content, "{name}");
    assert_eq!(Edits::new(&tree).apply(&tree), content, "{name}");
    let value: serde_json::Value = serde_json::from_slice(content).unwrap();
    assert!(agrees(tree.root(), &value), "{name}");
    let form = canonical::to_vec(tree.root());
    let formed = parse(&form).unwrap();
    assert!(agrees(formed.root(), &value), "{name}");
    assert!(canonical::to_vec(formed.root()) == form, "{name}");
    assert_eq!(canonical::digest(formed.root()), canonical::digest(tree.root()), "{name}");
    true
}

#[test]
fn every_reference_of_synthea_is_resolved_and_every_resource_has_its_patient() {
    for (name, content) in unpacked(&shared("synthea/r4-30-patients.tar.gz")) {
        if !name.ends_with(".json") {
            continue;
        }
        let tree = parse(&content).unwrap();
        let index = Index::new(tree.root());
        let entries: Vec<Node<'_>> = tree.root().find(&["entry"]).collect();
        let patient = entries
            .iter()
            .position(|entry| entry.find(&["resource"]).next().and_then(Node::resource_type) == Some("Patient"));
        let mut outside = BTreeMap::new();
        for (number, entry) in entries.iter().enumerate() {
            let resource = entry.member("resource").unwrap();
            for text in reference::all(resource).filter_map(Node::as_str) {
                match index.resolve(&text, number) {
                    Target::Entry(_) | Target::Contained(_) => {}
                    other => *outside.entry(format!("{other:?}")).or_insert(0) += 1,
                }
            }
            match compartment::patient(resource) {
                Membership::Patients(found) => {
                    let named = found.iter().any(|&id| {
                        let node = tree.node(id);
                        Some(number) == patient
                            || node.member("reference").and_then(Node::as_str).is_some_and(|text| {
                                matches!(index.resolve(&text, number), Target::Entry(entry) if Some(entry) == patient)
                            })
                    });
                    assert!(named, "{name}: {}", resource.path());
                }
                Membership::NeverAboutPatient => {}
                Membership::ShouldButDoesNot => panic!("{name}: {} names no patient", resource.path()),
            }
        }
        // Conditional or URN references to the hospitals' own Bundles are all that leads outside.
        if patient.is_some() {
            for target in outside.keys() {
                assert!(target.contains("UnknownUrn") || target.contains("Conditional"), "{name}: {target}");
            }
        }
    }
}
