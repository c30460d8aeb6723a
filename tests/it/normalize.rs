//! What mappings do to a unit that is recorded, and that what Sluice authors is R4.

use sluice::normalize::Mappings;
use sluice::record::Answer;
use sluice::record::operation::Stands;
use sluice_fhir::outcome::Severity;
use sluice_fhir::tree::{Limits, Node, Tree};
use sluice_fhir::validate::Validator;

use crate::rig::{Rig, transaction};

const NORMALIZE: &str = r#"
[normalize]
mappings = ["MAPPINGS/identifiers/us.json", "MAPPINGS/units/common.json"]
"#;

async fn rig() -> Rig {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/mappings");
    Rig::with(&NORMALIZE.replace("MAPPINGS", folder)).await
}

/// No error, and no warning but of codes that R4 itself does not list (BALP's) or cannot enumerate (media types).
fn is_r4(json: &[u8]) {
    let tree = Tree::parse(json.to_vec().into(), &Limits::default()).unwrap();
    let mut issues = Validator::r4().validate(tree.root());
    issues.retain(|it| it.severity != Severity::Warning || !it.rule.starts_with("binding."));
    assert!(issues.is_empty(), "{issues:#?}\n{}", String::from_utf8_lossy(json));
}

fn patient(system: &str, value: &str) -> String {
    format!(
        r#"{{"fullUrl":"urn:uuid:p","resource":{{"resourceType":"Patient","identifier":[{{"system":"{system}","value":"{value}"}}]}},"request":{{"method":"POST","url":"Patient"}}}}"#
    )
}

async fn stands(rig: &Rig, answer: &Answer) -> Vec<Stands> {
    let id = sluice::stage::OperationId::parse(&answer.operation).unwrap();
    rig.gateway.recorder.operation(id).await.unwrap().unwrap().stands
}

#[tokio::test(flavor = "multi_thread")]
async fn what_mappings_changed_is_recorded_with_it() {
    let rig = rig().await;
    let observation = r#"{"resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"urn:uuid:p"},"valueQuantity":{"value":1.0,"unit":"mg","system":"http://unitsofmeasure.org","code":"mg"}},"request":{"method":"POST","url":"Observation"}}"#;
    let answer = rig
        .admit(&transaction(&[&patient("urn:oid:2.16.840.1.113883.4.1", "999-12-3456"), observation]))
        .await
        .unwrap();
    assert_eq!(answer.entries.len(), 2, "what Sluice adds is not what was asked for");
    let recorder = &rig.gateway.recorder;
    let stands = stands(&rig, &answer).await;
    let Some(last) = stands.last() else { panic!("three resources stand") };
    assert_eq!((&*last.resource_type, last.version, stands.len()), ("Provenance", 1, 3));
    let stored = recorder.read_current("Provenance", &last.id).await.unwrap().unwrap();
    is_r4(&stored.body);
    let tree = Tree::parse(stored.body.clone(), &Limits::default()).unwrap();
    let texts = |path: &[&str]| -> Vec<String> {
        tree.root().find(path).filter_map(Node::as_str).map(std::borrow::Cow::into_owned).collect()
    };
    assert_eq!(texts(&["id"]), std::slice::from_ref(&last.id));
    assert_eq!(texts(&["target", "reference"]), [format!("Patient/{}/_history/1", answer.entries[0].id)]);
    let rules = format!("https://sluice.dev/fhir/rules|{}", rig.gateway.rules.current().id());
    assert_eq!(texts(&["policy"]), ["https://sluice.dev/fhir/mapping/us-identifiers|1.0.0", &rules]);
    assert_eq!(texts(&["agent", "who", "identifier", "value"]), ["hospital-a"]);
    let of_patient = recorder.read_current("Patient", &answer.entries[0].id).await.unwrap().unwrap();
    assert_eq!(stored.about.subjects, of_patient.about.subjects, "it is about the patient whose record was changed");
    assert_ne!(stored.about.commitment, of_patient.about.commitment, "it has a leaf of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changed_is_nothing_told() {
    let rig = rig().await;
    let answer = rig.admit(&transaction(&[patient("http://hl7.org/fhir/sid/us-ssn", "999123456")])).await.unwrap();
    assert_eq!(stands(&rig, &answer).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_number_in_two_forms_is_one_patient() {
    let (one, other) = (rig().await, Rig::new().await);
    let forms = [("urn:oid:2.16.840.1.113883.4.1", "999-12-3456"), ("http://hl7.org/fhir/sid/us-ssn", "999123456")];
    let mut subjects = Vec::new();
    for rig in [&one, &other] {
        for (system, value) in forms {
            let answer = rig.admit(&transaction(&[patient(system, value)])).await.unwrap();
            let stored = rig.gateway.recorder.read_current("Patient", &answer.entries[0].id).await.unwrap().unwrap();
            subjects.push(stored.about.subjects);
        }
    }
    assert_eq!(subjects[0], subjects[1]);
    assert_ne!(subjects[2], subjects[3], "without mappings they are strangers");
}

#[test]
fn what_is_authored_is_r4() {
    let texts = |of: &[&str]| of.iter().map(|it| (*it).to_owned()).collect::<Vec<String>>();
    let provenance = sluice_typed::Provenance {
        targets: &texts(&["Patient/1", "Observation/2/_history/3"]),
        recorded: "2026-01-02T03:04:05.006Z",
        institution: "hospital-a",
        policies: &texts(&["https://sluice.dev/fhir/mapping/a|1"]),
    };
    is_r4(&sluice_typed::provenance(&provenance).unwrap());
    assert!(sluice_typed::provenance(&sluice_typed::Provenance { targets: &[], ..provenance }).is_err());
    assert!(sluice_typed::provenance(&sluice_typed::Provenance { recorded: "today", ..provenance }).is_err());

    let tenant = sluice::config::Tenant { id: "hospital-a".to_owned(), base_url: "https://a.example/fhir".to_owned() };
    let metadata = sluice::serve::metadata::metadata(&tenant).unwrap();
    is_r4(&metadata);
    let metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(metadata["fhirVersion"], "4.0.1");
    assert_eq!(metadata["rest"][0]["resource"].as_array().unwrap().len(), 145);
    assert_eq!(metadata["rest"][0]["operation"][0]["name"], "ingest");
}

#[test]
fn what_ships_is_read_with_its_schemas() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("mappings");
    let schema = |kind: &str| -> jsonschema::Validator {
        let text = std::fs::read(folder.join(format!("schema/{kind}.json"))).unwrap();
        let schema = serde_json::from_slice(&text).unwrap();
        jsonschema::meta::validate(&schema).unwrap();
        jsonschema::validator_for(&schema).unwrap()
    };
    let mut files = Vec::new();
    for kind in ["identifiers", "codes", "units", "."] {
        for file in std::fs::read_dir(folder.join(kind)).unwrap().map(|it| it.unwrap().path()) {
            if file.extension().is_some_and(|it| it == "json") {
                let text = std::fs::read(&file).unwrap();
                let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
                let errors: Vec<_> =
                    schema(value["kind"].as_str().unwrap()).iter_errors(&value).map(|it| it.to_string()).collect();
                assert_eq!(errors, [""; 0], "{}", file.display());
                files.push((file, text));
            }
        }
    }
    assert!(files.len() >= 5);
    let files: Vec<_> = files.iter().map(|(file, text)| (file.as_path(), text.clone())).collect();
    let all = Mappings::read(&files, "https://a.example/fhir").unwrap();
    assert_eq!(all.packs().len(), files.len(), "all that ships goes together");
}
