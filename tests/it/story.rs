//! A hospital, its patients, and two institutions that may be told of them: what tests of events post, and whom they trust.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use sluice::config::Config;
use sluice::keys::{Files, Keys, SigningKey};
use sluice::publish::verify::Trust;
use sluice_merkle::note::{KeyKind, KeyName, VerifierKey};

use crate::house::{House, Served, Wire};

/// Settings of a house that tells an insurer and a registry of Observations; `consent` is the table `[consent.implicit]`'s
/// word for disclosure, `wait` what the events wait for.
pub(crate) fn told(disclose: &str, more: &str) -> House {
    House::new(&format!(
        "{more}\n\
         [consent.implicit]\ndisclose = \"{disclose}\"\n\
         [ledger]\nbeat = \"200ms\"\n\
         [log]\nbeat = \"20ms\"\n\
         [[caller]]\ninstitution = \"insurer\"\ncert_subject_cn = \"insurer\"\nroles = [\"IRCP\"]\npurpose = \"HPAYMT\"\n\
         [[caller]]\ninstitution = \"registry\"\ncert_subject_cn = \"registry\"\n\
         [[subscriber]]\nid = \"insurer\"\ninstitution = \"insurer\"\npurpose = \"HPAYMT\"\ndomain = \"care\"\n\
         resource_types = [\"Observation\"]\n\
         [[subscriber]]\nid = \"registry\"\ninstitution = \"registry\"\npurpose = \"PUBHLTH\"\ndomain = \"care\"\n\
         resource_types = [\"Condition\"]\n"
    ))
}

/// Whom a reader of this house's events trusts: the public halves of its keys.
pub(crate) fn trust(house: &House) -> Trust {
    let config = Config::load(&house.folder.path().join("sluice.toml")).unwrap();
    let keys = Keys::open(&Files::from(&config.keys)).unwrap();
    let name = KeyName::new(config.log.origin.as_str()).unwrap();
    let log = VerifierKey::new(name, KeyKind::Ed25519, keys.public_key(SigningKey::Log));
    let file = json!({
        "logs": [{"origin": log.name().as_str(), "key": log.to_string()}],
        "events": [{"source": config.tenant.base_url, "key": STANDARD.encode(keys.public_key(SigningKey::Event))}],
    });
    Trust::parse(file.to_string().as_bytes()).unwrap()
}

pub(crate) fn patient(id: &str) -> Value {
    json!({"resourceType": "Patient", "id": id})
}

/// An Observation about the first of these, performed by the others: about all of them.
pub(crate) fn observation(id: &str, about: &[&str]) -> Value {
    let reference = |id: &&str| json!({"reference": format!("Patient/{id}")});
    let mut resource = json!({
        "resourceType": "Observation", "id": id, "status": "final", "code": {"text": "x"},
        "subject": reference(&about[0]),
    });
    if about.len() > 1 {
        resource["performer"] = about[1..].iter().map(reference).collect();
    }
    resource
}

/// What the patient says about the insurer, for payment: `permit` or `deny`.
pub(crate) fn consent(patient: &str, kind: &str) -> Value {
    let coding = |system: &str, code: &str| json!({"system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code});
    json!({
        "resourceType": "Consent", "id": format!("c-{patient}"), "status": "active",
        "scope": {"coding": [coding("consentscope", "patient-privacy")]},
        "category": [{"coding": [{"system": "http://loinc.org", "code": "59284-0"}]}],
        "patient": {"reference": format!("Patient/{patient}")},
        "policyRule": {"coding": [coding("v3-ActCode", "OPTIN")]},
        "provision": {
            "type": kind,
            "actor": [{
                "role": {"coding": [coding("v3-ParticipationType", "IRCP")]},
                "reference": {"reference": "Organization/insurer"},
            }],
            "purpose": [coding("v3-ActReason", "HPAYMT")],
        },
    })
}

/// Waits until the doors have heard what a patient decided: until the patient is shown to this reader, or is not.
pub(crate) async fn heard(reader: &Wire, served: &Served, patient: &str, expected: StatusCode) {
    for _ in 0..2400 {
        let request = Request::get(format!("https://localhost/fhir/Patient/{patient}")).body(Bytes::new()).unwrap();
        if reader.try_send(served, request).await.is_some_and(|(status, _)| status == expected) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the doors did not hear of it");
}

/// Puts a resource under its id, and again for as long as the gateway cannot take it yet.
pub(crate) async fn put(client: &Wire, served: &Served, resource: &Value, headers: &[(&str, &str)]) {
    let url = format!(
        "https://localhost/fhir/{}/{}",
        resource["resourceType"].as_str().unwrap(),
        resource["id"].as_str().unwrap()
    );
    for _ in 0..2400 {
        let mut request = Request::put(&url).header("content-type", "application/fhir+json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = client.try_send(served, request.body(Bytes::from(resource.to_string())).unwrap()).await;
        match answer {
            Some((StatusCode::OK | StatusCode::CREATED, _)) => return,
            // Not ready, or killed: the test starts it again.
            None | Some((StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, _)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Some((status, body)) => panic!("{status} {body}"),
        }
    }
    panic!("it was not taken");
}
