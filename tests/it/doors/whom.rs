//! Whom a record is about: no name that one sender uses turns another's record, and no name that is left out or added
//! later leaves a Consent behind.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::*;

const SSN: &str = "http://hl7.org/fhir/sid/us-ssn";
const MRN: &str = "urn:oid:1.2.3.4";

async fn rig() -> Rig {
    let mappings = format!("{}/mappings/identifiers/us.json", env!("CARGO_MANIFEST_DIR"));
    Rig::with(&format!("[normalize]\nmappings = [\"{mappings}\"]\n")).await
}

/// A Patient with these numbers, by their systems.
fn person(id: Option<&str>, numbers: &[(&str, &str)]) -> Value {
    let mut patient = json!({"resourceType": "Patient"});
    if let Some(id) = id {
        patient["id"] = json!(id);
    }
    if !numbers.is_empty() {
        patient["identifier"] =
            numbers.iter().map(|(system, value)| json!({"system": system, "value": value})).collect();
    }
    patient
}

fn created(resource: &Value, full_url: &str) -> String {
    let url = &resource["resourceType"];
    json!({"fullUrl": full_url, "resource": resource, "request": {"method": "POST", "url": url}}).to_string()
}

fn about(reference: &str) -> Value {
    json!({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": reference}})
}

fn urn(number: u8) -> String {
    format!("urn:uuid:00000000-0000-4000-8000-0000000000{number:02}")
}

/// The subjects of what stands there.
async fn subjects(rig: &Rig, resource_type: &str, id: &str) -> Vec<Pseudonym> {
    rig.gateway.recorder.read_current(resource_type, id).await.unwrap().unwrap().about.subjects
}

/// The subjects of an Observation that refers to its patient so.
async fn observed(rig: &Rig, institution: &str, reference: &str) -> Vec<Pseudonym> {
    // Another one each time, or the first answer would come again.
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let mut observation = about(reference);
    observation["code"]["text"] = json!(NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    let body = transaction(&[created(&observation, &urn(99))]);
    let answer = rig.admit_from(institution, &body).await.unwrap_or_else(|error| panic!("{reference}: {error:?}"));
    subjects(rig, "Observation", &answer.entries[0].id).await
}

fn both(one: &[Pseudonym], other: &[Pseudonym]) -> Vec<Pseudonym> {
    let mut both = [one, other].concat();
    both.sort_unstable();
    both.dedup();
    both
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_whom_nothing_is_known_are_two() {
    let rig = rig().await;
    let mut seen = Vec::new();
    for patient in [person(None, &[]), person(Some("1"), &[]), person(Some("1"), &[]), person(None, &[("", "7")])] {
        let mut patient = patient;
        if let Some(identifier) = patient.get_mut("identifier").and_then(Value::as_array_mut) {
            identifier[0].as_object_mut().unwrap().remove("system");
        }
        for institution in ["hospital-a", "hospital-b"] {
            let body = transaction(&[created(&patient, &urn(1)), created(&about(&urn(1)), &urn(2))]);
            // Another one, whatever the digest says.
            let body = body.replace("\"x\"", &format!("\"{}\"", seen.len()));
            let answer = rig.admit_from(institution, &body).await.unwrap();
            let whom = subjects(&rig, "Patient", &answer.entries[0].id).await;
            assert_eq!(subjects(&rig, "Observation", &answer.entries[1].id).await, whom);
            assert_eq!(observed(&rig, institution, &format!("Patient/{}", answer.entries[0].id)).await, whom);
            assert!(whom.len() == 1 && !seen.contains(&whom), "{patient}");
            seen.push(whom);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_was_not_kept_means_its_sender_s_patient_and_nobody_else_s() {
    let rig = rig().await;
    post(&rig, &[entry(&person(Some("1"), &[(SSN, "999000001")]))]).await.unwrap();
    let stands = subjects(&rig, "Patient", "1").await;
    let body = transaction(&[created(&person(Some("1"), &[(SSN, "999000002")]), "https://b.example/Patient/1")]);
    let answer = rig.admit_from("hospital-b", &body).await.unwrap();
    let theirs = subjects(&rig, "Patient", &answer.entries[0].id).await;
    assert_ne!(stands, theirs);
    assert_eq!(observed(&rig, "hospital-a", "Patient/1").await, stands);
    assert_eq!(observed(&rig, "hospital-a", "https://a.example/fhir/Patient/1").await, stands);
    assert_eq!(observed(&rig, "hospital-b", "https://b.example/Patient/1").await, theirs);
    assert_eq!(observed(&rig, "hospital-b", "Patient/1").await, both(&stands, &theirs), "whichever of the two it is");
    let foreign = transaction(&[created(&about("https://b.example/Patient/1"), &urn(9))]);
    assert_eq!(status(&rig.admit(&foreign).await.unwrap_err()), 503, "nobody has told this sender who that is");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_that_stands_keeps_its_subjects() {
    let rig = rig().await;
    let put = async |id, numbers: &[(&str, &str)]| {
        post(&rig, &[entry(&person(Some(id), numbers))]).await.unwrap();
        let whom = subjects(&rig, "Patient", id).await;
        assert_eq!(observed(&rig, "hospital-a", &format!("Patient/{id}")).await, whom, "{id}");
        whom
    };
    let shared = put("q", &[(MRN, "8"), (SSN, "999000008")]).await;
    assert_eq!(put("q", &[(MRN, "8")]).await, shared, "a number that is left out");
    assert_eq!(put("q", &[]).await, shared);
    // Somebody else by all that is known: the record is about both from then on.
    let stranger = put("q", &[(MRN, "9")]).await;
    assert_eq!((stranger.len(), both(&stranger, &shared)), (2, stranger.clone()));
    assert_eq!(put("q", &[(MRN, "8"), (SSN, "999000008")]).await, stranger);

    // A Consent that was given before the shared number was known holds afterwards.
    let local = put("p", &[(MRN, "7")]).await;
    give(&rig, "c", "p", "deny").await;
    let known = put("p", &[(MRN, "7"), (SSN, "999000007")]).await;
    assert_eq!((known.len(), both(&known, &local)), (2, known.clone()));
    settled(&rig).await;
    assert_eq!(status(&read(&rig, "HPAYMT", "Patient", "p").await.unwrap_err()), 404);
    give(&rig, "c", "p", "permit").await;
    settled(&rig).await;
    read(&rig, "HPAYMT", "Patient", "p").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_is_the_same_by_whatever_number_it_is_meant() {
    let rig = rig().await;
    post(&rig, &[entry(&person(Some("p"), &[(MRN, "7"), (SSN, "999000007")]))]).await.unwrap();
    let whom = subjects(&rig, "Patient", "p").await;
    for reference in [format!("Patient?identifier={MRN}|7"), format!("Patient?identifier={SSN}|999000007")] {
        assert_eq!(observed(&rig, "hospital-a", &reference).await, whom, "{reference}");
    }
    let nobody = transaction(&[created(&about(&format!("Patient?identifier={MRN}|8")), &urn(1))]);
    assert_eq!(status(&rig.admit(&nobody).await.unwrap_err()), 412);
    // A conditional create that finds her is she, whatever the copy says.
    let mut create: Value = serde_json::from_str(&created(&person(None, &[(MRN, "7")]), &urn(1))).unwrap();
    create["request"]["ifNoneExist"] = json!(format!("identifier={MRN}|7"));
    let body = transaction(&[create.to_string(), created(&about(&urn(1)), &urn(2))]);
    let answer = rig.admit(&body).await.unwrap();
    assert_eq!(
        (&*answer.entries[0].id, subjects(&rig, "Observation", &answer.entries[1].id).await),
        ("p", whom.clone())
    );
    // So is she by a logical reference; nothing is disclosed by that.
    let mut logical = about("");
    logical["subject"] = json!({"identifier": {"system": SSN, "value": "999000007"}});
    let answer = rig.admit(&transaction(&[created(&logical, &urn(1))])).await.unwrap();
    assert_eq!(subjects(&rig, "Observation", &answer.entries[0].id).await, whom);
    give(&rig, "c", "p", "permit").await;
    settled(&rig).await;
    assert_eq!(status(&read(&rig, "HPAYMT", "Observation", &answer.entries[0].id).await.unwrap_err()), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_performer_of_the_same_bundle_does_not_hide_the_patient() {
    let rig = rig().await;
    let mut observation = about(&urn(1));
    observation["performer"] = json!([{"reference": urn(2)}]);
    let practitioner = json!({"resourceType": "Practitioner"});
    let body = transaction(&[
        created(&person(None, &[(MRN, "7")]), &urn(1)),
        created(&practitioner, &urn(2)),
        created(&observation, &urn(3)),
    ]);
    let answer = rig.admit(&body).await.unwrap();
    let whom = subjects(&rig, "Patient", &answer.entries[0].id).await;
    assert_eq!(subjects(&rig, "Observation", &answer.entries[2].id).await, whom);
    // One that is about nobody else is about nobody who is known.
    observation.as_object_mut().unwrap().remove("subject");
    let body = transaction(&[created(&practitioner, &urn(2)), created(&observation, &urn(3))]);
    let answer = rig.admit(&body).await.unwrap();
    let about = rig.gateway.recorder.read_current("Observation", &answer.entries[1].id).await.unwrap().unwrap().about;
    assert!(about.unattributed && about.subjects.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_contained_may_be_about_another_patient() {
    let rig = rig().await;
    post(&rig, &[patient("p"), patient("q")]).await.unwrap();
    let mut observation = about("Patient/p");
    observation["id"] = json!("o");
    observation["device"] = json!({"reference": "#d"});
    observation["contained"] = json!([{"resourceType": "Device", "id": "d", "patient": {"reference": "Patient/q"}}]);
    post(&rig, &[entry(&observation)]).await.unwrap();
    let whom = both(&subjects(&rig, "Patient", "p").await, &subjects(&rig, "Patient", "q").await);
    assert_eq!(subjects(&rig, "Observation", "o").await, whom);
    give(&rig, "c-p", "p", "permit").await;
    settled(&rig).await;
    assert_eq!(status(&read(&rig, "HPAYMT", "Observation", "o").await.unwrap_err()), 404);
    give(&rig, "c-q", "q", "permit").await;
    settled(&rig).await;
    read(&rig, "HPAYMT", "Observation", "o").await.unwrap();
}

/// A document, or a Bundle kept as one, is asked about and sealed for everybody in it.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_in_a_document_is_asked() {
    // A document that names a patient who is not in it is no good document, and may be let through all the same.
    let lenient = "[check.severity]\n\"bundle.reference\" = \"warning\"\n\"bundle.document-unreached\" = \"warning\"\n";
    let mappings = format!("{}/mappings/identifiers/us.json", env!("CARGO_MANIFEST_DIR"));
    let rig = Rig::with(&format!("[normalize]\nmappings = [\"{mappings}\"]\n{lenient}")).await;
    post(&rig, &[entry(&person(Some("p"), &[(SSN, "999000007")])), patient("q")]).await.unwrap();
    let composition = json!({
        "resourceType": "Composition", "status": "final", "type": {"text": "x"}, "date": "2026-01-01",
        "author": [{"display": "a"}], "title": "t", "subject": {"reference": "Patient/q"},
    });
    let inner = |number: u8, resource: &Value| json!({"fullUrl": urn(number), "resource": resource});
    let document = json!({
        "resourceType": "Bundle", "type": "document", "timestamp": "2026-01-01T00:00:00Z",
        "identifier": {"system": "urn:x", "value": "1"},
        "entry": [
            inner(1, &composition), inner(2, &person(None, &[(SSN, "999000007")])), inner(3, &about(&urn(2))),
        ],
    });
    let answer = rig.admit(&document.to_string()).await.unwrap();
    let whom = both(&subjects(&rig, "Patient", "p").await, &subjects(&rig, "Patient", "q").await);
    assert_eq!(subjects(&rig, "Bundle", &answer.entries[0].id).await, whom);
    let deny = json!({"type": "deny"});
    post(&rig, &[entry(&consent("c", "p", "active", &deny))]).await.unwrap();
    settled(&rig).await;
    let again = document.to_string().replace("\"1\"}", "\"2\"}");
    assert_eq!(status(&rig.admit(&again).await.unwrap_err()), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_of_nobody_who_is_known_is_refused() {
    let rig = rig().await;
    post(&rig, &[entry(&person(Some("p"), &[(SSN, "999000007")]))]).await.unwrap();
    let consent = |patient: Value| {
        let mut consent = consent("c", "p", "active", &to_insurer("permit"));
        consent["patient"] = patient;
        entry(&consent)
    };
    let logical = json!({"identifier": {"system": SSN, "value": "999000007"}});
    for patient in [json!({"identifier": {"system": MRN, "value": "7"}}), logical, json!({"display": "she"})] {
        let refused = post(&rig, &[consent(patient.clone())]).await.unwrap_err();
        assert_eq!((status(&refused), &*refused.issues()[0].rule), (422, "consent.patient"), "{patient}");
    }
    post(&rig, &[consent(json!({"reference": format!("Patient?identifier={SSN}|999000007")}))]).await.unwrap();
    settled(&rig).await;
    read(&rig, "HPAYMT", "Patient", "p").await.unwrap();
}
