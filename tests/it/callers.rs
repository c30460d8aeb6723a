//! What a caller may do: read, write, send Consents. Nothing that the settings do not say.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::house::{House, Served, Wire, first_issue};
use crate::story;

async fn send(client: &Wire, served: &Served, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(format!("https://localhost{path}"));
    let request = request.header("content-type", "application/fhir+json");
    client.try_send(served, request.body(Bytes::from(body.to_string())).unwrap()).await.expect("an answer")
}

async fn get(client: &Wire, served: &Served, path: &str) -> (StatusCode, Value) {
    let request = Request::get(format!("https://localhost{path}")).body(Bytes::new()).unwrap();
    client.try_send(served, request).await.expect("an answer")
}

/// A house in which everyone may be shown everything, a registry only sends, a stranger only sends Consents, and an
/// insurer is named without a word of what it may.
fn house() -> House {
    House::new(
        "[consent.implicit]\ndisclose = \"permit\"\n\
         [[caller]]\ninstitution = \"registry\"\ncert_subject_cn = \"registry\"\nmay = [\"write\"]\n\
         [[caller]]\ninstitution = \"stranger\"\ncert_subject_cn = \"stranger\"\nmay = [\"consent\"]\n\
         [[caller]]\ninstitution = \"insurer\"\ncert_subject_cn = \"insurer\"\n\
         [[subscriber]]\nid = \"registry\"\ninstitution = \"registry\"\npurpose = \"PUBHLTH\"\n",
    )
}

fn bundle(kind: &str, resources: &[Value]) -> Value {
    let entries: Vec<Value> = resources
        .iter()
        .map(|it| {
            let url = format!("{}/{}", it["resourceType"].as_str().unwrap(), it["id"].as_str().unwrap());
            json!({"resource": it, "request": {"method": "PUT", "url": url}})
        })
        .collect();
    json!({"resourceType": "Bundle", "type": kind, "entry": entries})
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_cannot_permit_itself() {
    let house = story::told("deny", "");
    let served = house.serve();
    let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
    story::put(&hospital, &served, &story::patient("p"), &[]).await;
    let permit = story::consent("p", "permit");
    for denied in [false, true] {
        if denied {
            story::put(&hospital, &served, &story::consent("p", "deny"), &[]).await;
        }
        for (method, path, body) in [
            ("PUT", "/fhir/Consent/c-p", &permit),
            ("POST", "/fhir/Consent", &permit),
            ("POST", "/fhir", &bundle("transaction", std::slice::from_ref(&permit))),
            ("POST", "/fhir", &bundle("batch", std::slice::from_ref(&permit))),
        ] {
            let (status, outcome) = send(&insurer, &served, method, path, body).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {outcome}");
            let expected = if path == "/fhir" { "caller.write" } else { "caller.consent" };
            assert_eq!(first_issue(&outcome).0, expected);
        }
        let (status, _) = get(&insurer, &served, "/fhir/Patient/p").await;
        assert_eq!(status, StatusCode::NOT_FOUND, "denied: {denied}");
    }
    // The same words of the hospital's do what the insurer's did not.
    story::put(&hospital, &served, &permit, &[]).await;
    story::heard(&insurer, &served, "p", StatusCode::OK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_learns_nothing_by_writing() {
    let house = house();
    let served = house.serve();
    let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
    let patient = json!({"resourceType": "Patient", "id": "p", "identifier": [{"system": "urn:x", "value": "1"}]});
    story::put(&hospital, &served, &patient, &[]).await;
    let mut told = Vec::new();
    for wanted in ["identifier=urn:x|1", "identifier=urn:x|2"] {
        let body = json!({"resourceType": "Patient"}).to_string();
        let (status, outcome) = insurer.post(&served, "/Patient", &[("if-none-exist", wanted)], body).await;
        assert_eq!((status, &*first_issue(&outcome).0), (StatusCode::FORBIDDEN, "caller.write"));
        told.push(outcome);
    }
    assert_eq!(told[0], told[1]);
    let (status, _) = send(&insurer, &served, "PUT", "/fhir/Patient/p", &patient).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let ndjson = [("content-type", "application/fhir+ndjson")];
    assert_eq!(insurer.post(&served, "/$ingest", &ndjson, patient.to_string()).await.0, StatusCode::FORBIDDEN);
    assert_eq!(get(&insurer, &served, "/fhir/Patient/p").await.0, StatusCode::OK, "reading is what it may");
    // It is told before its body is read: this one never comes.
    let mut stream = insurer.connect(&served).await.unwrap();
    let head = "POST /fhir/Patient HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/fhir+json\r\ncontent-length: 40\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    let read = tokio::time::timeout(Duration::from_mins(1), stream.read_exact(&mut start)).await;
    assert!(read.is_ok_and(|it| it.is_ok()));
    assert_eq!(&start, b"HTTP/1.1 403");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_of_one_who_may_not_send_any_is_refused_where_it_stands() {
    let house = house();
    let served = house.serve();
    let registry = house.client(Some("tls/registry"));
    let resources = [story::patient("p"), story::consent("p", "deny"), story::patient("q")];
    let place = |outcome: &Value| {
        let (rule, path, line, _) = first_issue(outcome);
        (rule, path, line)
    };
    let refused = |path: &str, line| ("caller.consent".to_owned(), path.to_owned(), line);

    let (status, outcome) = send(&registry, &served, "POST", "/fhir", &bundle("transaction", &resources)).await;
    assert_eq!((status, place(&outcome)), (StatusCode::FORBIDDEN, refused("Bundle.entry[1].resource", 1)));
    let hospital = house.client(Some("tls/hospital"));
    assert_eq!(get(&hospital, &served, "/fhir/Patient/p").await.0, StatusCode::NOT_FOUND, "nothing of it is kept");

    let (status, answer) = send(&registry, &served, "POST", "/fhir", &bundle("batch", &resources)).await;
    assert_eq!(status, StatusCode::OK);
    let response = |at: usize| &answer["entry"][at]["response"];
    let statuses = [0, 1, 2].map(|at| response(at)["status"].as_str().unwrap()[..3].to_owned());
    assert_eq!(statuses, ["201", "403", "201"], "{answer}");
    assert_eq!(place(&response(1)["outcome"]), refused("Bundle.entry[1].resource", 1));

    for (kind, body) in [
        ("application/fhir+json", {
            let entries: Vec<Value> = resources.iter().map(|it| json!({"resource": it})).collect();
            json!({"resourceType": "Bundle", "type": "collection", "entry": entries}).to_string()
        }),
        ("application/fhir+ndjson", resources.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")),
    ] {
        let path = if kind.contains("nd") { "/$ingest" } else { "" };
        let (status, answer) = registry.post(&served, path, &[("content-type", kind)], body).await;
        assert_eq!(status, StatusCode::OK);
        if path.is_empty() {
            let status = answer["entry"][1]["response"]["status"].as_str().unwrap();
            assert!(status.starts_with("403"), "{answer}");
            continue;
        }
        let named =
            |name: &str| answer["parameter"].as_array().unwrap().iter().find(|it| it["name"] == name).cloned().unwrap();
        assert_eq!(named("accepted")["valueUnsignedInt"], 2);
        assert_eq!(place(&named("outcome")["resource"]), refused("Consent", 2));
    }
    assert_eq!(get(&hospital, &served, "/fhir/Consent/c-p").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_right_holds_another() {
    let house = house();
    let served = house.serve();
    let (registry, stranger) = (house.client(Some("tls/registry")), house.client(Some("tls/stranger")));
    story::put(&registry, &served, &story::patient("p"), &[]).await;
    for path in ["/fhir/Patient/p", "/fhir/Patient/none", "/fhir/Patient/p/_history", "/events"] {
        let (status, outcome) = get(&registry, &served, path).await;
        assert_eq!((status, &*first_issue(&outcome).0), (StatusCode::FORBIDDEN, "caller.read"), "{path}");
    }
    story::put(&stranger, &served, &story::consent("p", "deny"), &[]).await;
    story::heard(&house.client(Some("tls/insurer")), &served, "p", StatusCode::OK).await;
    for (method, path, body) in [
        ("PUT", "/fhir/Patient/p", story::patient("p")),
        ("POST", "/fhir", bundle("transaction", &[story::consent("p", "deny"), story::patient("p")])),
    ] {
        let (status, outcome) = send(&stranger, &served, method, path, &body).await;
        assert_eq!((status, &*first_issue(&outcome).0), (StatusCode::FORBIDDEN, "caller.write"), "{path}");
    }
}
