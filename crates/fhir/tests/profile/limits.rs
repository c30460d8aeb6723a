//! Definitions that would cost without end, and documents that lead profiles in circles: they end soon, and nothing is made up.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_fhir::definitions::Definitions;
use sluice_fhir::package::Package;
use sluice_fhir::profile::Library;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::validate::Validator;

use super::{archive, is_error, issues};

fn of(definitions: impl IntoIterator<Item = Value>) -> Validator {
    let files = definitions.into_iter().enumerate().map(|(n, one)| (format!("{n:03}.json"), one.to_string().into()));
    let library = Library::new(Definitions::r4(), &[Package::of_definitions("limits", files)]).unwrap();
    Validator::r4().with_library(Arc::new(library))
}

fn profile(name: &str, of: &str, elements: &Value) -> Value {
    json!({"resourceType": "StructureDefinition", "url": format!("http://x.example/{name}"), "type": of, "derivation": "constraint",
        "baseDefinition": format!("http://hl7.org/fhir/StructureDefinition/{of}"), "differential": {"element": elements}})
}

#[test]
fn value_sets_that_name_each_other_very_often_are_not_checked() {
    let sets = (0..40).map(|n| {
        let next = format!("http://x.example/set-{}", n + 1);
        json!({"resourceType": "ValueSet", "url": format!("http://x.example/set-{n}"),
            "compose": {"include": [{"valueSet": [next]}, {"valueSet": [next]}]}})
    });
    let binding = json!({"strength": "required", "valueSet": "http://x.example/set-0"});
    let bound = profile(
        "bound",
        "Observation",
        &json!([{"path": "Observation"}, {"path": "Observation.code", "binding": binding}]),
    );
    let validator = of(sets.chain([bound]));
    let document = json!({"resourceType": "Observation", "meta": {"profile": ["http://x.example/bound"]}, "status": "final",
        "code": {"coding": [{"system": "urn:a", "code": "b"}]}});
    let found = issues(&validator, &document.to_string().into());
    let rules: Vec<_> = found.iter().map(|issue| &*issue.rule).collect();
    assert_eq!(rules, ["binding.required-not-checked"]);
}

#[test]
fn references_in_a_long_row_and_in_a_circle_are_followed_only_so_far() {
    let target = json!([{"code": "Reference", "targetProfile": ["http://x.example/row"]}]);
    let row = profile(
        "row",
        "Observation",
        &json!([{"path": "Observation"}, {"path": "Observation.code.text", "min": 1},
        {"path": "Observation.hasMember", "type": target}]),
    );
    let validator = of([row]);
    let bundle = |circle: bool, last: &str| {
        let entries: Vec<_> = (0..200)
            .map(|n| {
                let next = if n == 199 && circle { 0 } else { n + 1 };
                let code = if n == 199 { json!({last: "x"}) } else { json!({"text": "x"}) };
                let mut resource = json!({"resourceType": "Observation", "id": n.to_string(), "status": "final", "code": code,
                    "meta": {"profile": ["http://x.example/row"]}});
                if next < 200 {
                    resource["hasMember"] = json!([{"reference": format!("Observation/{next}")}]);
                }
                json!({"fullUrl": format!("http://x.example/Observation/{n}"), "resource": resource})
            })
            .collect();
        Bytes::from(json!({"resourceType": "Bundle", "type": "collection", "entry": entries}).to_string())
    };
    for circle in [false, true] {
        assert!(!issues(&validator, &bundle(circle, "text")).iter().any(is_error), "{circle}");
        let wrong = issues(&validator, &bundle(circle, "id"));
        assert!(wrong.iter().any(|issue| &*issue.rule == "cardinality.min"), "{circle}");
    }
}

/// Every definition of HL7's suite, good or bad, is compiled or refused, and every document held against all of them.
#[test]
fn no_definition_and_no_document_of_the_suite_is_a_crash() {
    let files = archive("tests/data/validator/r4-cases.tar.gz");
    let trees: Vec<(String, Bytes, Tree)> = files
        .into_iter()
        .filter(|(name, _)| name.ends_with(".json"))
        .filter_map(|(name, content)| {
            let tree = Tree::parse(content.clone(), &Limits::default()).ok()?;
            tree.root().is_object().then_some((name, content, tree))
        })
        .collect();
    let definitions = trees.iter().map(|(name, content, _)| (name.clone(), content.clone()));
    let library = Library::new(Definitions::r4(), &[Package::of_definitions("suite", definitions)]).unwrap();
    let mut names: Vec<String> = library.profiles().skip(444).map(str::to_owned).collect();
    names.dedup();
    assert!(names.len() > 30, "{}", names.len());
    let _ = library.compile_all();
    let validator = Validator::r4().with_library(Arc::new(library)).with_profiles(names);
    for (_, _, tree) in &trees {
        validator.validate(tree.root());
    }
}
