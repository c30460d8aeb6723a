//! FHIR's XML at the door: the same units, digests and answers as from JSON, and bad input told at its place in the XML.

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::xml;

use crate::house::{House, Served, Wire, first_issue};

const XML: &[(&str, &str)] = &[("content-type", "application/fhir+xml")];

fn patient(inside: &str) -> String {
    format!("<Patient xmlns=\"http://hl7.org/fhir\">\n{inside}\n</Patient>")
}

fn in_xml(value: &Value) -> Vec<u8> {
    let tree = Tree::parse(Bytes::from(value.to_string()), &Limits::default()).unwrap();
    xml::write(tree.root(), &Definitions::r4()).unwrap()
}

fn in_json(document: &[u8]) -> Value {
    let tree = xml::read(document, &Limits::default(), &Definitions::r4()).unwrap();
    serde_json::from_slice(tree.bytes()).unwrap()
}

/// Posts XML and asks for XML: the status, the content type, and what the answer means.
async fn post(client: &Wire, served: &Served, path: &str, body: Vec<u8>) -> (StatusCode, String, Value) {
    let request = Request::post(format!("https://localhost/fhir{path}"))
        .header("content-type", "application/fhir+xml; charset=UTF-8")
        .header("accept", "application/fhir+xml, application/fhir+json;q=0.5")
        .header("prefer", "return=representation")
        .body(Bytes::from(body))
        .unwrap();
    let answer = client.answer(served, request).await.expect("an answer");
    let format = answer.headers()["content-type"].to_str().unwrap().to_owned();
    (answer.status(), format, in_json(answer.body()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_comes_and_goes_as_xml() {
    let house = House::new("");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let sent = json!({
        "resourceType": "Organization", "name": "A & B", "active": true,
        "extension": [{ "url": "https://a.example/size", "valueDecimal": 1.5 }],
    });
    let (status, format, got) = post(&client, &served, "/Organization", in_xml(&sent)).await;
    assert_eq!((status, &*format), (StatusCode::CREATED, "application/fhir+xml; charset=utf-8"), "{got}");
    for member in ["resourceType", "name", "active", "extension"] {
        assert_eq!(got[member], sent[member], "{got}");
    }
    // Who asks for JSON, or for nothing, gets JSON.
    let (status, body) = client.post(&served, "/Organization", XML, in_xml(&sent)).await;
    assert_eq!((status, body), (StatusCode::CREATED, Value::Null));
    let metadata = Request::get("https://localhost/fhir/metadata").header("accept", "text/xml").body(Bytes::new());
    let answer = client.answer(&served, metadata.unwrap()).await.unwrap();
    let statement = in_json(answer.body());
    assert_eq!(statement["format"], json!(["application/fhir+json", "application/fhir+xml"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_xml_is_the_one_in_json() {
    let house = House::new("");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let entry = |id: &str, resource: Value| {
        json!({
            "fullUrl": format!("urn:uuid:{id}"), "resource": resource,
            "request": { "method": "POST", "url": resource["resourceType"] },
        })
    };
    let subject = "urn:uuid:0f7a5b52-0c5b-4e0a-9c6e-5b1f3f1d9a01";
    let entries = [
        entry(subject.trim_start_matches("urn:uuid:"), json!({ "resourceType": "Patient", "active": true })),
        entry(
            "0f7a5b52-0c5b-4e0a-9c6e-5b1f3f1d9a02",
            json!({ "resourceType": "Basic", "code": { "text": "x" }, "subject": { "reference": subject } }),
        ),
    ];
    let bundle = |kind: &str| json!({ "resourceType": "Bundle", "type": kind, "entry": entries });
    let (status, first) = client.post(&served, "", &[], bundle("transaction").to_string()).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    // The digest is that of the same in JSON: what came before is answered again.
    let (status, again) = client.post(&served, "", XML, in_xml(&bundle("transaction"))).await;
    assert_eq!(
        (status, &again["entry"][0]["response"]["location"]),
        (StatusCode::OK, &first["entry"][0]["response"]["location"])
    );

    let (status, format, answer) = post(&client, &served, "", in_xml(&bundle("transaction"))).await;
    assert_eq!((status, &*format), (StatusCode::OK, "application/fhir+xml; charset=utf-8"));
    assert_eq!(answer["type"], "transaction-response");

    let (status, answer) = client.post(&served, "", XML, in_xml(&bundle("batch"))).await;
    let statuses: Vec<_> =
        answer["entry"].as_array().unwrap().iter().map(|it| it["response"]["status"].as_str().unwrap()).collect();
    assert_eq!((status, statuses), (StatusCode::OK, vec!["201 Created", "201 Created"]), "{answer}");

    let collection = entries.each_ref().map(|it| json!({ "resource": it["resource"] }));
    let collection = json!({ "resourceType": "Bundle", "type": "collection", "entry": [collection[0]] });
    let (status, answer) = client.post(&served, "", XML, in_xml(&collection)).await;
    assert_eq!((status, answer["entry"].as_array().unwrap().len()), (StatusCode::OK, 1), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_xml_is_told_its_place() {
    let house = House::new("limits = { body_bytes_max = \"4MiB\", resource_bytes_max = \"1MiB\" }");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let bundle = |kind: &str, entry: &str| {
        format!(
            "<Bundle xmlns=\"http://hl7.org/fhir\">\n<type value=\"{kind}\"/>\n<entry>\n{entry}\n</entry>\n</Bundle>"
        )
    };
    let request = "<request>\n<method value=\"POST\"/><url value=\"Patient\"/></request>";
    let wrong = "<resource><Patient>\n<colour value=\"red\"/></Patient></resource>";
    let meta =
        |inside: &str| format!("<Bundle xmlns=\"http://hl7.org/fhir\">\n{inside}\n<type value=\"batch\"/>\n</Bundle>");
    let labels = format!("<meta>{}</meta>", "<security><code value=\"R\"/></security>".repeat(1000));
    let cases = [
        // The labels of a Bundle hold for each of its entries: they are read, or the Bundle is refused.
        ("", meta(&labels), 413, "limits.labels", 2),
        ("", meta("<meta/>\n<meta/>"), 400, "bundle.meta", 2),
        ("/Patient", "<!DOCTYPE Patient [<!ENTITY a \"aa\">]>".to_owned() + &patient(""), 400, "xml", 1),
        ("/Patient", patient("<name>\n<family value=\"&a;\"/></name>"), 400, "xml", 3),
        ("/Patient", patient("<colour value=\"red\"/>"), 422, "structure.unknown-member", 2),
        ("/Patient", "{}".to_owned(), 400, "xml", 1),
        ("/Observation", patient(""), 400, "http.type", 1),
        ("", patient(""), 400, "http.bundle", 1),
        ("", bundle("nonsense", ""), 400, "bundle.type", 1),
        ("", bundle("transaction", wrong), 400, "bundle.entry.request", 3),
        ("", bundle("transaction", &format!("{wrong}{request}")), 422, "structure.unknown-member", 5),
        ("", bundle("batch", &format!("{request}{wrong}")), 400, "xml", 5),
    ];
    for (path, body, status, rule, line) in cases {
        let (found, outcome) = client.post(&served, path, XML, body.clone()).await;
        let (found_rule, expression, found_line, column) = first_issue(&outcome);
        assert_eq!((found.as_u16(), &*found_rule, found_line), (status, rule, line), "{body}: {outcome}");
        assert!(!expression.is_empty() && column > 0, "{outcome}");
    }
    let long = patient(&format!("<!--{}-->", "x".repeat(2 << 20)));
    let (status, outcome) = client.post(&served, "/Patient", XML, long).await;
    assert_eq!((status.as_u16(), &*first_issue(&outcome).0), (415, "http.content-type"));
    let (status, _) = client.post(&served, "/$ingest", XML, patient("")).await;
    assert_eq!(status.as_u16(), 415);
}
