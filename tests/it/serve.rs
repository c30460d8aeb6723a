//! The gateway over TLS: who gets in, what is taken, and what bad input is told.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::house::{House, first_issue, lines, sluice};

const PATIENT: &str = r#"{"resourceType":"Patient","active":true}"#;

/// Small bounds, so that a test needs little to go beyond them.
const SMALL: &str = "limits = { body_bytes_max = \"1MiB\", resource_bytes_max = \"1MiB\", idle_timeout = \"500ms\", \
    header_timeout = \"2s\" }";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_a_certificate_of_the_ca_gets_in_by_every_protocol() {
    let house = House::new("");
    let served = house.serve();
    for (tls12, h2) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut client = house.client(Some("tls/hospital"));
        if tls12 {
            client = client.tls12();
        }
        if h2 {
            client = client.h2();
        }
        let (status, _) = client.post(&served, "/Patient", &[], PATIENT).await;
        assert_eq!(status, StatusCode::CREATED, "TLS 1.2: {tls12}, HTTP/2: {h2}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_gets_401_and_whose_ca_is_not_known_gets_nothing() {
    let house = House::new("");
    let served = house.serve();
    for shown in [None, Some("tls/stranger")] {
        let (status, body) = house.client(shown).post(&served, "/Patient", &[], PATIENT).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert_eq!(body["resourceType"], "OperationOutcome");
        assert_eq!(first_issue(&body).0, "http.caller");
    }
    let metadata = Request::get("https://localhost/fhir/metadata").body(Bytes::new()).unwrap();
    let (status, body) = house.client(None).try_send(&served, metadata).await.unwrap();
    assert_eq!((status, &body["resourceType"]), (StatusCode::OK, &json!("CapabilityStatement")));
    assert_eq!(body["fhirVersion"], "4.0.1");
    // The same name, signed by another CA.
    for client in [house.client(Some("other/hospital")), house.client(Some("other/hospital")).tls12()] {
        let request = Request::post("https://localhost/fhir/Patient").body(Bytes::from(PATIENT)).unwrap();
        assert!(client.try_send(&served, request).await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_its_place() {
    let house = House::new(SMALL);
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let bundle = |entry: &str| {
        format!("{{\n \"resourceType\": \"Bundle\",\n \"type\": \"transaction\",\n \"entry\": [\n  {entry}\n ]\n}}")
    };
    let deep = format!(
        "{{\"resourceType\":\"Patient\",\"extension\":{}{}}}",
        "[{\"extension\":".repeat(400),
        "}]".repeat(400)
    );
    let cases = [
        ("", bundle("{\"resource\": {\"resourceType\": \"Patient\",}}"), 400, "json", 5),
        ("", bundle("{\"resource\": {\"resourceType\": \"Patient\", \"id\": \"a\", \"id\": \"b\"}}"), 400, "json", 5),
        ("/Patient", deep, 400, "json", 1),
        (
            "/Patient",
            "{\n\"resourceType\":\"Patient\",\n\"nonsense\":1}".to_owned(),
            422,
            "structure.unknown-member",
            3,
        ),
        ("/Patient", r#"{"resourceType":"Observation"}"#.to_owned(), 400, "http.type", 1),
    ];
    for (path, body, status, rule, line) in cases {
        let (found, outcome) = client.post(&served, path, &[], body).await;
        let (found_rule, expression, found_line, column) = first_issue(&outcome);
        assert_eq!((found.as_u16(), &*found_rule, found_line), (status, rule, line), "{outcome}");
        assert!(!expression.is_empty() && column > 0, "{outcome}");
    }
    for (headers, body, status) in [
        (vec![("content-type", "text/plain")], Bytes::from(PATIENT), 415),
        (vec![("content-type", "application/fhir+json; charset=latin1")], Bytes::from(PATIENT), 415),
        (vec![("content-encoding", "br")], Bytes::from(PATIENT), 415),
        (vec![("content-encoding", "gzip")], Bytes::from(PATIENT), 400),
        (vec![("accept", "text/html")], Bytes::from(PATIENT), 406),
        (vec![], Bytes::from(vec![b' '; 2 << 20]), 413),
        // A bomb: 64 KiB that become 64 MiB.
        (vec![("content-encoding", "gzip")], Bytes::from(gzip(&vec![b' '; 64 << 20])), 413),
        (vec![("content-encoding", "gzip")], Bytes::from(gzip(PATIENT.as_bytes())), 201),
        // Members one after the other are one body (RFC 1952 §2.2); what is none after them is no gzip.
        (
            vec![("content-encoding", "gzip")],
            [gzip(&PATIENT.as_bytes()[..9]), gzip(&PATIENT.as_bytes()[9..])].concat().into(),
            201,
        ),
        (vec![("content-encoding", "gzip")], [gzip(PATIENT.as_bytes()), gzip(b" 1")].concat().into(), 400),
        (vec![("content-encoding", "gzip")], [gzip(PATIENT.as_bytes()), b"garbage".to_vec()].concat().into(), 400),
        (vec![("content-encoding", "gzip")], gzip(PATIENT.as_bytes())[..30].to_vec().into(), 400),
        (
            vec![("content-encoding", "gzip")],
            [gzip(&vec![b' '; 600 << 10]), gzip(&vec![b' '; 600 << 10])].concat().into(),
            413,
        ),
    ] {
        let (found, outcome) = client.post(&served, "/Patient", &headers, body).await;
        assert_eq!(found.as_u16(), status, "{headers:?}: {outcome}");
    }
    for path in ["/Nonsense", "/nonsense/of/many/parts"] {
        let (status, outcome) = client.post(&served, path, &[], PATIENT).await;
        assert_eq!((status.as_u16(), &outcome["resourceType"]), (404, &json!("OperationOutcome")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_slowly_gets_408() {
    let house = House::new(SMALL);
    let served = house.serve();
    let mut stream = house.client(Some("tls/hospital")).connect(&served).await.unwrap();
    let head = "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/fhir+json\r\ncontent-length: 40\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The server closes the connection after it, without waiting for the rest.
    let read = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok());
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let outcome: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&outcome["resourceType"], &*first_issue(&outcome).0), (&json!("OperationOutcome"), "http.slow"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_keeps_what_is_good_and_a_transaction_nothing() {
    let house = House::new("");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let entry = |resource: Value| json!({ "resource": resource, "request": { "method": "POST", "url": resource["resourceType"] } });
    let entries = [
        entry(json!({ "resourceType": "Patient", "active": true })),
        entry(json!({ "resourceType": "Patient", "nonsense": 1 })),
        entry(json!({ "resourceType": "Organization", "name": "A" })),
    ];
    let bundle = |kind: &str| json!({ "resourceType": "Bundle", "type": kind, "entry": entries }).to_string();
    let (status, body) = client.post(&served, "", &[], bundle("batch")).await;
    assert_eq!((status, &body["type"]), (StatusCode::OK, &json!("batch-response")));
    let statuses: Vec<&str> =
        body["entry"].as_array().unwrap().iter().map(|it| it["response"]["status"].as_str().unwrap()).collect();
    assert!(statuses[0].starts_with("201") && statuses[1].starts_with("422") && statuses[2].starts_with("201"));
    assert_eq!(body["entry"][1]["response"]["outcome"]["issue"][0]["expression"][0], "Bundle.entry[1].resource");

    let (status, body) = client.post(&served, "", &[], bundle("transaction")).await;
    assert_eq!((status.as_u16(), &body["resourceType"]), (422, &json!("OperationOutcome")));

    let resources: Vec<Value> = [0, 2].iter().map(|at| json!({ "resource": entries[*at]["resource"] })).collect();
    let collection = json!({ "resourceType": "Bundle", "type": "collection", "entry": resources }).to_string();
    let (status, body) = client.post(&served, "", &[], collection).await;
    assert_eq!((status, body["entry"].as_array().unwrap().len()), (StatusCode::OK, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn ndjson_may_tell_of_a_patient_before_it_comes() {
    let house = House::new("");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let lines = [
        r#"{"resourceType":"Condition","id":"c","subject":{"reference":"Patient/p"}}"#,
        r#"{"resourceType":"Patient","id":"p"}"#,
        r#"{"resourceType":"Patient","id":"q","nonsense":1}"#,
    ];
    let (status, body) =
        client.post(&served, "/$ingest", &[("content-type", "application/fhir+ndjson")], lines.join("\n")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let named =
        |name: &str| body["parameter"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned().unwrap();
    assert_eq!((&named("accepted")["valueUnsignedInt"], &named("refused")["valueUnsignedInt"]), (&json!(2), &json!(1)));
    let (rule, _, line, _) = first_issue(&named("outcome")["resource"]);
    assert_eq!((&*rule, line), ("structure.unknown-member", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_the_site_are_held() {
    let house = House::new("[check]\nrules_dir = \"rules\"\n");
    std::fs::create_dir(house.path("rules")).unwrap();
    let rule = |id: &str, severity: &str, member: &str| {
        let rule = json!({
            "id": id, "description": format!("a Patient with {member}"), "resourceType": "Patient",
            "severity": severity, "schema": {"required": [member]},
        });
        std::fs::write(house.path(&format!("rules/{id}.json")), rule.to_string()).unwrap();
    };
    rule("patient-gender", "error", "gender");
    rule("patient-birth", "warning", "birthDate");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let (status, outcome) = client.post(&served, "/Patient", &[], PATIENT).await;
    let (rule, expression, line, _) = first_issue(&outcome);
    assert_eq!((status.as_u16(), &*expression, line), (422, "Patient", 1), "{outcome}");
    assert!(outcome.to_string().contains("a Patient with gender"), "{outcome}");
    let rules: Vec<&str> = outcome["issue"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["details"]["coding"][0]["code"].as_str().unwrap())
        .collect();
    assert!(rules.contains(&"site.patient-gender") && rules.contains(&"site.patient-birth"), "{rule}: {rules:?}");
    let good = r#"{"resourceType":"Patient","gender":"other"}"#;
    assert_eq!(
        client.post(&served, "/Patient", &[], good).await.0,
        StatusCode::CREATED,
        "a warning holds nothing back"
    );
    let entry = |resource: &str| format!(r#"{{"resource":{resource},"request":{{"method":"POST","url":"Patient"}}}}"#);
    let bundle = |kind: &str| {
        format!(r#"{{"resourceType":"Bundle","type":"{kind}","entry":[{},{}]}}"#, entry(good), entry(PATIENT))
    };
    let (status, outcome) = client.post(&served, "", &[], bundle("transaction")).await;
    assert_eq!((status.as_u16(), &*first_issue(&outcome).1), (422, "Bundle.entry[0].resource"), "{outcome}");
    let (_, answer) = client.post(&served, "", &[], bundle("batch")).await;
    let statuses = [0, 1].map(|at| answer["entry"][at]["response"]["status"].as_str().unwrap()[..3].to_owned());
    assert_eq!(statuses, ["201", "422"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_representation_the_leaf_commits_to_what_a_read_gives() {
    let house = House::new("[consent.implicit]\ndisclose = \"permit\"\n[log]\nbeat = \"20ms\"\n");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    for (prefer, is_told, sent) in [
        ("return=representation", true, r#"{ "resourceType": "Patient", "multipleBirthInteger": 2 }"#),
        ("return=minimal", false, r#"{ "resourceType": "Patient", "multipleBirthInteger": 3 }"#),
    ] {
        let request = Request::post("https://localhost/fhir/Patient")
            .header("content-type", "application/fhir+json")
            .header("prefer", prefer)
            .body(Bytes::from_static(sent.as_bytes()))
            .unwrap();
        let answer = client.answer(&served, request).await.unwrap();
        assert_eq!((answer.status(), !answer.body().is_empty()), (StatusCode::CREATED, is_told));
        let location = answer.headers()["location"].to_str().unwrap().to_owned();
        let read = Request::get(location.rsplit_once("/_history").unwrap().0).body(Bytes::new()).unwrap();
        let read = client.answer(&served, read).await.unwrap();
        assert_eq!(read.status(), StatusCode::OK);
        if is_told {
            assert_eq!(read.body(), answer.body());
        }
        let file = house.path("read.json");
        std::fs::write(&file, read.body()).unwrap();
        let digest = lines(&sluice(&["digest", "--format", "json", &file], b"")).remove(0);
        let path = format!("/receipts/{}", answer.headers()["x-sluice-receipt"].to_str().unwrap());
        let mut record = Value::Null;
        for _ in 0..2400 {
            let receipt = client.fetch_from(&served.address("fhir"), &path).await.unwrap();
            record = receipt["resources"][0]["record"].clone();
            if record.is_object() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(record["digest"].is_string(), "{record}");
        assert_ne!(record["digest"], digest["sha256"], "the evidence is what was sent, without id and meta");
        assert_eq!(record.get("stored"), is_told.then_some(&digest["sha256"]), "{record}");
    }
}
