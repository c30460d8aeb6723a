//! The way in, without sockets: what `admit` accepts, refuses, keeps and gives again.

use crate::rig::{Rig, transaction};

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_recorded_and_the_same_one_gets_the_first_answer() {
    let rig = Rig::new().await;
    let bundle = transaction(&[
        r#"{"fullUrl":"urn:uuid:1","resource":{"resourceType":"Patient","identifier":[{"system":"urn:a","value":"7"}]},"request":{"method":"POST","url":"Patient"}}"#,
        r#"{"fullUrl":"urn:uuid:2","resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"urn:uuid:1"}},"request":{"method":"POST","url":"Observation"}}"#,
    ]);
    let first = rig.admit(&bundle).await.unwrap();
    assert_eq!(first.entries.iter().map(|it| it.status).collect::<Vec<_>>(), [201, 201]);
    let patient = &first.entries[0];
    let stored = rig.gateway.recorder.read_current("Observation", &first.entries[1].id).await.unwrap().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&stored.body).unwrap();
    assert_eq!(body["subject"]["reference"], format!("Patient/{}", patient.id));
    assert_eq!(body["id"], first.entries[1].id);
    assert_eq!(body["meta"]["versionId"], "1");
    assert_eq!(stored.about.subjects.len(), 1);
    let again = rig.admit(&bundle).await.unwrap();
    assert_eq!(again.operation, first.operation, "POST alone is told from a repetition by its digest");
}

#[tokio::test(flavor = "multi_thread")]
async fn put_acts_on_the_current_version_and_if_match_holds() {
    let rig = Rig::new().await;
    let put = |family: &str, if_match: &str| {
        transaction(&[&format!(
            r#"{{"resource":{{"resourceType":"Patient","id":"p","name":[{{"family":"{family}"}}]}},"request":{{"method":"PUT","url":"Patient/p"{if_match}}}}}"#
        )])
    };
    for (family, version) in [("A", "1"), ("B", "2"), ("A", "3")] {
        let answer = rig.admit(&put(family, "")).await.unwrap();
        assert_eq!(answer.entries[0].version, version);
        assert_eq!(answer.entries[0].status, if version == "1" { 201 } else { 200 });
    }
    let refused = rig.admit(&put("C", r#","ifMatch":"W/\"2\"""#)).await.unwrap_err();
    assert_eq!(refused.kind().face().status, 412);
    assert_eq!(rig.admit(&put("C", r#","ifMatch":"W/\"3\"""#)).await.unwrap().entries[0].version, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conditional_create_finds_what_stands_there() {
    let rig = Rig::new().await;
    let create = transaction(&[
        r#"{"resource":{"resourceType":"Organization","identifier":[{"system":"urn:o","value":"1"}],"name":"O"},"request":{"method":"POST","url":"Organization","ifNoneExist":"identifier=urn:o|1"}}"#,
    ]);
    let first = rig.admit(&create).await.unwrap();
    let second = rig.admit(&create).await.unwrap();
    assert_eq!((first.entries[0].status, second.entries[0].status), (201, 200));
    assert_eq!(first.entries[0].id, second.entries[0].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_refused_transaction_is_kept() {
    let rig = Rig::new().await;
    let bundle = transaction(&[
        r#"{"resource":{"resourceType":"Patient","id":"q"},"request":{"method":"PUT","url":"Patient/q"}}"#,
        r#"{"resource":{"resourceType":"Patient","id":"r"},"request":{"method":"PUT","url":"Patient/r","ifMatch":"W/\"9\""}}"#,
    ]);
    assert_eq!(rig.admit(&bundle).await.unwrap_err().kind().face().status, 412);
    assert!(rig.gateway.recorder.read_current("Patient", "q").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_of_whom_nothing_is_known_is_an_outage() {
    let rig = Rig::new().await;
    let of_unknown = transaction(&[
        r#"{"resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/gone"}},"request":{"method":"POST","url":"Observation"}}"#,
    ]);
    assert_eq!(rig.admit(&of_unknown).await.unwrap_err().kind().face().status, 503);
    let patient = transaction(&[
        r#"{"resource":{"resourceType":"Patient","id":"gone"},"request":{"method":"PUT","url":"Patient/gone"}}"#,
    ]);
    rig.admit(&patient).await.unwrap();
    rig.admit(&of_unknown).await.unwrap();
}
