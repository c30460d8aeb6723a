//! Reads over HTTP: what is shown under consent, in which form, and what is not told.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::house::{House, Served};

const OPEN: &str = "[consent.implicit]\ndisclose = \"permit\"\n";

/// Asks as the hospital does, by the protocol wanted.
async fn ask(
    house: &House,
    served: &Served,
    h2: bool,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Response<Bytes> {
    let mut client = house.client(Some("tls/hospital"));
    if h2 {
        client = client.h2();
    }
    let io = TokioIo::new(client.connect(served).await.unwrap());
    let mut request = Request::builder().method(method).uri(format!("https://localhost/fhir{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::<Bytes>::default()).unwrap();
    let response = if h2 {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

/// The headers that say something of the answer.
fn told(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut told: Vec<_> = headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    told.sort();
    told
}

async fn put(house: &House, served: &Served, resource: &Value) -> StatusCode {
    let place = format!("{}/{}", resource["resourceType"].as_str().unwrap(), resource["id"].as_str().unwrap());
    let bundle = json!({
        "resourceType": "Bundle", "type": "transaction",
        "entry": [{ "resource": resource, "request": { "method": "PUT", "url": place } }],
    });
    house.client(Some("tls/hospital")).post(served, "", &[], bundle.to_string()).await.0
}

fn patient(family: &str) -> Value {
    json!({ "resourceType": "Patient", "id": "p", "name": [{ "family": family }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_is_read_by_every_protocol_with_its_version() {
    let house = House::new(OPEN);
    let served = house.serve();
    for family in ["A", "B", "C"] {
        assert_eq!(put(&house, &served, &patient(family)).await, StatusCode::OK);
    }
    for h2 in [false, true] {
        let get = |path: &'static str, headers: &'static [(&str, &str)]| ask(&house, &served, h2, "GET", path, headers);
        let read = get("/Patient/p", &[]).await;
        assert_eq!(read.status(), StatusCode::OK);
        assert_eq!(read.headers()["etag"], "W/\"3\"");
        assert_eq!(read.headers()["content-type"], "application/fhir+json; charset=utf-8");
        assert!(read.headers()["last-modified"].to_str().unwrap().ends_with(" GMT"));
        let body: Value = serde_json::from_slice(read.body()).unwrap();
        assert_eq!((&body["name"][0]["family"], &body["meta"]["versionId"]), (&json!("C"), &json!("3")));

        let head = ask(&house, &served, h2, "HEAD", "/Patient/p", &[]).await;
        assert_eq!((head.status(), head.body().len()), (StatusCode::OK, 0));
        assert_eq!(told(head.headers()), told(read.headers()), "as GET, without the body");

        for held in ["W/\"3\"", "\"3\"", "W/\"1\", W/\"3\"", "*"] {
            let unchanged = ask(&house, &served, h2, "GET", "/Patient/p", &[("if-none-match", held)]).await;
            assert_eq!((unchanged.status(), unchanged.body().len()), (StatusCode::NOT_MODIFIED, 0), "{held}");
            assert_eq!(unchanged.headers()["etag"], "W/\"3\"");
        }
        assert_eq!(get("/Patient/p", &[("if-none-match", "W/\"2\"")]).await.status(), StatusCode::OK);

        for (version, family) in [(1, "A"), (2, "B"), (3, "C")] {
            let read = ask(&house, &served, h2, "GET", &format!("/Patient/p/_history/{version}"), &[]).await;
            let body: Value = serde_json::from_slice(read.body()).unwrap();
            assert_eq!(body["name"][0]["family"], family);
            assert_eq!(read.headers()["etag"], *format!("W/\"{version}\""));
        }
        for nowhere in
            ["/Patient/p/_history/4", "/Patient/p/_history/0", "/Patient/p/_history/x", "/Patient/q/_history"]
        {
            let missing = ask(&house, &served, h2, "GET", nowhere, &[]).await;
            assert_eq!(missing.status(), StatusCode::NOT_FOUND, "{nowhere}");
        }

        let history: Value = serde_json::from_slice(get("/Patient/p/_history", &[]).await.body()).unwrap();
        assert_eq!((&history["resourceType"], &history["type"]), (&json!("Bundle"), &json!("history")));
        let families = |bundle: &Value| -> Vec<String> {
            let entries = bundle["entry"].as_array().unwrap().iter();
            entries.map(|it| it["resource"]["name"][0]["family"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(families(&history), ["C", "B", "A"]);
        assert!(history.get("total").is_none() && history.get("link").is_none());
        let page: Value = serde_json::from_slice(get("/Patient/p/_history?_count=2", &[]).await.body()).unwrap();
        assert_eq!(families(&page), ["C", "B"]);
        let next = page["link"][0]["url"].as_str().unwrap().strip_prefix("https://localhost/fhir").unwrap();
        let page: Value = serde_json::from_slice(ask(&house, &served, h2, "GET", next, &[]).await.body()).unwrap();
        assert_eq!(families(&page), ["A"]);
        assert!(page.get("link").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_looks_as_if_it_were_not_there() {
    let house = House::new(OPEN);
    let served = house.serve();
    put(&house, &served, &patient("A")).await;
    put(&house, &served, &patient("B")).await;
    let observation = json!({
        "resourceType": "Observation", "id": "o", "status": "final", "code": { "text": "x" },
        "subject": { "reference": "Patient/p" },
    });
    put(&house, &served, &observation).await;
    let get = |method: &'static str, path: &'static str| ask(&house, &served, false, method, path, &[]);
    assert_eq!(get("GET", "/Observation/o").await.status(), StatusCode::OK);
    let coding = |system: &str, code: &str| json!({ "system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code });
    let consent = json!({
        "resourceType": "Consent", "id": "c", "status": "active",
        "scope": { "coding": [coding("consentscope", "patient-privacy")] },
        "category": [{ "coding": [{ "system": "http://loinc.org", "code": "59284-0" }] }],
        "patient": { "reference": "Patient/p" },
        "policyRule": { "coding": [coding("v3-ActCode", "OPTIN")] },
        "provision": { "type": "deny", "action": [{ "coding": [coding("consentaction", "access")] }] },
    });
    assert_eq!(put(&house, &served, &consent).await, StatusCode::OK);
    // Until it stands on the ledger nobody knows, and what is not known is not there either.
    for (method, denied, missing) in [
        ("GET", "/Observation/o", "/Observation/n"),
        ("HEAD", "/Observation/o", "/Observation/n"),
        ("GET", "/Patient/p", "/Patient/n"),
        ("GET", "/Patient/p/_history/1", "/Patient/n/_history/1"),
        ("GET", "/Patient/p/_history/1", "/Patient/p/_history/9"),
        ("GET", "/Patient/p/_history", "/Patient/n/_history"),
    ] {
        let (denied, missing) = (get(method, denied).await, get(method, missing).await);
        assert_eq!((denied.status(), missing.status()), (StatusCode::NOT_FOUND, StatusCode::NOT_FOUND));
        assert_eq!(told(denied.headers()), told(missing.headers()));
        assert_eq!(denied.body(), missing.body());
        if method == "GET" {
            let outcome: Value = serde_json::from_slice(denied.body()).unwrap();
            assert_eq!(outcome["resourceType"], "OperationOutcome");
        }
    }
}
