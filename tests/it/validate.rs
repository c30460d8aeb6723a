//! `$validate`: what is found is told with 200, whatever it is, to who may send; nothing is kept, and nothing kept is read.

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use sluice_fhir::definitions::Definitions;
use sluice_fhir::tree::{Limits, Tree};
use sluice_fhir::xml;

use crate::house::{House, Served, Wire, first_issue, lines, sluice};

const PATIENT: &str = r#"{"resourceType":"Patient","active":true}"#;
const US_CORE: &str = "hl7.fhir.us.core-3.1.1.tgz";
const US_PATIENT: &str = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient";

async fn ask(client: &Wire, served: &Served, path: &str, body: impl Into<Bytes>) -> Value {
    let (status, outcome) = client.post(served, path, &[], body).await;
    assert_eq!((status, &outcome["resourceType"]), (StatusCode::OK, &json!("OperationOutcome")), "{path}: {outcome}");
    outcome
}

/// Severity, rule, expression and line of each issue that has a rule.
fn found(outcome: &Value) -> Vec<(String, String, String, u64)> {
    let issues = outcome["issue"].as_array().unwrap().iter();
    let told = issues.filter(|it| it["details"].is_object()).map(|it| {
        let (rule, expression, line, _) = first_issue(&json!({ "issue": [it] }));
        (it["severity"].as_str().unwrap().to_owned(), rule, expression, line)
    });
    told.collect()
}

fn rules(outcome: &Value) -> Vec<String> {
    found(outcome).into_iter().map(|(_, rule, ..)| rule).collect()
}

fn parameters(parameters: &[Value]) -> String {
    json!({ "resourceType": "Parameters", "parameter": parameters }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_found_is_told_at_its_place_and_nothing_is_kept() {
    let house = House::new("");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    for path in ["/$validate", "/Patient/$validate", "/Patient/a/$validate"] {
        let outcome = ask(&client, &served, path, r#"{"resourceType":"Patient","id":"a"}"#).await;
        assert!(found(&outcome).is_empty(), "{path}: {outcome}");
    }
    let bad = "{\n\"resourceType\":\"Patient\",\n\"gender\":\"x\",\n\"nonsense\":1}";
    let expected = |line: u64| {
        let error = |rule: &str, expression: &str, line| ("error".into(), rule.into(), expression.into(), line);
        vec![error("binding.required", "Patient.gender", line), error("structure.unknown-member", "Patient", line + 1)]
    };
    let sorted = |outcome: &Value| {
        let mut found = found(outcome);
        found.sort();
        found
    };
    let outcome = ask(&client, &served, "/Patient/$validate", bad).await;
    assert_eq!(sorted(&outcome), expected(3));
    let about = outcome["issue"].as_array().unwrap().iter().flat_map(|it| it["extension"].as_array().unwrap());
    assert!(
        about.clone().any(|it| it["valueUri"] == "http://hl7.org/fhir/ValueSet/administrative-gender"),
        "{outcome}"
    );
    // In Parameters, lines are those of the body, and paths those of the resource.
    let input =
        format!("{{\"resourceType\":\"Parameters\",\"parameter\":[\n{{\"name\":\"resource\",\"resource\":{bad}}}]}}");
    assert_eq!(sorted(&ask(&client, &served, "/$validate", input).await), expected(4));

    // The same as the command says of a whole Bundle, whose type could not be sent.
    let bundle = json!({"resourceType": "Bundle", "type": "searchset", "entry": [
        {"fullUrl": "urn:uuid:0f7a5b52-0c5b-4e0a-9c6e-5b1f3f1d9a01", "resource": {"resourceType": "Organization", "name": "A"}},
        {"resource": {"resourceType": "Observation", "status": "final", "code": {"text": "x"},
            "subject": {"reference": "urn:uuid:0f7a5b52-0c5b-4e0a-9c6e-5b1f3f1d9a01"}, "nonsense": 1}}]})
    .to_string();
    let file = house.path("bundle.json");
    std::fs::write(&file, &bundle).unwrap();
    let told = lines(&sluice(&["validate", "--format", "json", &file], b"")).remove(0);
    let outcome = ask(&client, &served, "/Bundle/$validate", bundle).await;
    assert!(rules(&outcome).contains(&"reference.target-type".to_owned()), "{outcome}");
    assert_eq!(outcome, told["outcome"]);

    for (path, is_there) in [("/Patient/a", false), ("/Patient/$validate", false)] {
        let read = Request::get(format!("https://localhost/fhir{path}")).body(Bytes::new()).unwrap();
        let (status, _) = client.try_send(&served, read).await.unwrap();
        assert_eq!(status.is_success(), is_there, "{path}");
    }
    assert!(served.admin("/metrics", "text/plain").await.unwrap().2.contains("\nsluice_resources_total 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_and_what_cannot_be_read() {
    let house = House::new("");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let resource = json!({"name": "resource", "resource": {"resourceType": "Patient", "id": "a"}});
    let nameless = json!({"name": "resource", "resource": {"resourceType": "Patient"}});
    let mode = |code: &str| json!({"name": "mode", "valueCode": code});
    for (path, body, expected) in [
        ("/Patient/$validate?mode=create", PATIENT.to_owned(), &[][..]),
        ("/Patient/$validate?mode=update", PATIENT.to_owned(), &["http.id"]),
        ("/Patient/a/$validate?mode=update", PATIENT.to_owned(), &["http.id"]),
        ("/Patient/b/$validate", parameters(&[resource.clone(), mode("update")]), &["http.id"]),
        ("/Patient/a/$validate", parameters(&[resource.clone(), mode("update")]), &[]),
        ("/Patient/a/$validate", parameters(&[nameless.clone(), mode("create")]), &["http.id"]),
        ("/Patient/$validate", parameters(&[mode("delete")]), &["validate.delete"]),
        ("/Patient/$validate?mode=delete", PATIENT.to_owned(), &["validate.delete"]),
        ("/Observation/$validate", parameters(std::slice::from_ref(&nameless)), &["http.type"]),
        ("/$validate", "{".to_owned(), &["json"]),
        ("/$validate", "[]".to_owned(), &["structure.resource-type"]),
        ("/$validate", r#"{"resourceType":"Patient","id":"a","id":"b"}"#.to_owned(), &["json"]),
        ("/$validate", r#"{"resourceType":"Patience"}"#.to_owned(), &["structure.resource-type-unknown"]),
        // Parameters that are none of the operation's are a resource like any other.
        ("/$validate", parameters(&[json!({"name": "x", "valueString": "y"})]), &[]),
        (
            "/Parameters/$validate",
            parameters(&[json!({"name": "x"}), json!({"valueString": "y"})]),
            &["cardinality.min"],
        ),
    ] {
        let outcome = ask(&client, &served, path, body).await;
        let found: Vec<String> = rules(&outcome).into_iter().filter(|rule| !rule.starts_with("invariant.")).collect();
        assert_eq!(found, expected, "{path}: {outcome}");
    }
    // What the operation does not have, is refused: then nothing was validated.
    for (path, body, rule) in [
        ("/Patient/$validate?mode=patch", PATIENT.to_owned(), "validate.mode"),
        ("/Patient/$validate", parameters(&[resource.clone(), mode("x")]), "validate.mode"),
        ("/Patient/$validate?mode=profile", PATIENT.to_owned(), "validate.profile"),
        ("/Patient/$validate?subject=a", PATIENT.to_owned(), "validate.parameter"),
        ("/Patient/$validate?mode=create", parameters(&[resource.clone(), mode("create")]), "validate.parameter"),
        ("/Patient/$validate", parameters(&[resource.clone(), nameless]), "validate.parameter"),
        ("/Patient/$validate", parameters(&[resource, json!({"name": "usageContext"})]), "validate.parameter"),
        ("/Patient/$validate", parameters(&[mode("create")]), "validate.resource"),
    ] {
        let (status, outcome) = client.post(&served, path, &[], body).await;
        assert_eq!((status.as_u16(), &*first_issue(&outcome).0), (400, rule), "{path}: {outcome}");
    }
    let (status, _) = client.post(&served, "/Nonsense/$validate", &[], PATIENT).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let question = Request::get("https://localhost/fhir/Patient/$validate").body(Bytes::new()).unwrap();
    assert_eq!(client.try_send(&served, question).await.unwrap().0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_send_may_not_ask_and_bounds_are_held() {
    let more = "limits = { body_bytes_max = \"1MiB\", resource_bytes_max = \"64KiB\", transaction_memory_max = \"64KiB\" }\n\
        [[caller]]\ninstitution = \"registry\"\ncert_subject_cn = \"registry\"\n\
        [[caller]]\ninstitution = \"insurer\"\ncert_subject_cn = \"insurer\"\nmay = [\"write\"]\n";
    let house = House::new(more);
    let served = house.serve();
    let consent = r#"{"resourceType":"Consent","status":"draft","scope":{"text":"x"},"category":[{"text":"x"}],
        "policyRule":{"text":"x"}}"#;
    for (shown, path, body, status, rule) in [
        (None, "/Patient/$validate", PATIENT, 401, Some("http.caller")),
        (Some("tls/registry"), "/Patient/$validate", PATIENT, 403, Some("caller.write")),
        (Some("tls/insurer"), "/Patient/$validate?mode=create", PATIENT, 200, None),
        (Some("tls/insurer"), "/Consent/$validate", consent, 200, None),
        (Some("tls/insurer"), "/Consent/$validate?mode=create", consent, 200, Some("caller.consent")),
        (Some("tls/hospital"), "/Consent/$validate?mode=create", consent, 200, None),
    ] {
        let (found, outcome) = house.client(shown).post(&served, path, &[], body).await;
        let told = rules(&outcome).into_iter().find(|rule| !rule.starts_with("invariant."));
        assert_eq!((found.as_u16(), told.as_deref()), (status, rule), "{shown:?} {path}: {outcome}");
    }
    let client = house.client(Some("tls/hospital"));
    let long = format!(r#"{{"resourceType":"Patient","id":"{}"}}"#, "a".repeat(70 << 10));
    assert_eq!(client.post(&served, "/$validate", &[], long).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, _) = client.post(&served, "/$validate", &[("content-type", "text/plain")], PATIENT).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let deep =
        format!(r#"{{"resourceType":"Patient","extension":{}{}}}"#, r#"[{"extension":"#.repeat(200), "}]".repeat(200));
    assert_eq!(rules(&ask(&client, &served, "/$validate", deep).await), ["json"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_held_whether_it_is_claimed_or_not() {
    let house = House::new("[check]\npackages_dir = \"packages\"\n");
    std::fs::create_dir(house.path("packages")).unwrap();
    std::fs::copy(format!("tests/data/packages/{US_CORE}"), house.path(&format!("packages/{US_CORE}"))).unwrap();
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    assert!(found(&ask(&client, &served, "/Patient/$validate", PATIENT).await).is_empty());
    let in_url = format!("/Patient/$validate?profile={}", US_PATIENT.replace(':', "%3A"));
    let body = parameters(&[
        json!({"name": "profile", "valueUri": US_PATIENT}),
        json!({"name": "mode", "valueCode": "profile"}),
        json!({"name": "resource", "resource": {"resourceType": "Patient", "active": true}}),
    ]);
    for (path, body) in [(&*in_url, PATIENT.to_owned()), ("/$validate", body)] {
        let outcome = ask(&client, &served, path, body).await;
        let missing: Vec<_> = rules(&outcome).into_iter().filter(|rule| rule == "cardinality.min").collect();
        assert_eq!(missing.len(), 3, "identifier, name and gender: {outcome}");
        let about = |it: &Value| it["extension"].as_array().unwrap().iter().any(|it| it["valueUri"] == US_PATIENT);
        assert!(outcome["issue"].as_array().unwrap().iter().any(about), "{outcome}");
    }
    for unknown in ["http://x.example/none", "http://hl7.org/fhir/StructureDefinition/none"] {
        let outcome = ask(&client, &served, &format!("/Patient/$validate?profile={unknown}"), PATIENT).await;
        assert_eq!(rules(&outcome), ["validate.profile-unknown"], "{outcome}");
    }

    // The core's own are known without packages too.
    let house = House::new("");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let vital = "http://hl7.org/fhir/StructureDefinition/vitalsigns";
    let observation = r#"{"resourceType":"Observation","status":"final","code":{"text":"x"}}"#;
    let outcome = ask(&client, &served, &format!("/Observation/$validate?profile={vital}"), observation).await;
    assert!(rules(&outcome).contains(&"cardinality.min".to_owned()), "{outcome}");
    assert!(!rules(&ask(&client, &served, "/$validate", observation).await).contains(&"cardinality.min".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn xml_is_asked_and_answered_as_json_is() {
    let house = House::new("");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let patient =
        "<Patient xmlns=\"http://hl7.org/fhir\">\n<active value=\"true\"/>\n<birthDate value=\"x\"/>\n</Patient>";
    let wrapped = format!(
        "<Parameters xmlns=\"http://hl7.org/fhir\">\n<parameter><name value=\"resource\"/><resource>\n{patient}</resource></parameter></Parameters>"
    );
    for (body, line) in [(patient.to_owned(), 3), (wrapped, 5), ("<Patient".to_owned(), 1)] {
        let is_whole = body.contains("birthDate");
        let request = Request::post("https://localhost/fhir/$validate")
            .header("content-type", "application/fhir+xml")
            .header("accept", "application/fhir+xml")
            .body(Bytes::from(body))
            .unwrap();
        let answer = client.answer(&served, request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let tree: Tree = xml::read(answer.body(), &Limits::default(), &Definitions::r4()).unwrap();
        let outcome: Value = serde_json::from_slice(tree.bytes()).unwrap();
        let (rule, expression, found, _) = first_issue(&outcome);
        let expected = if is_whole { ("value.date", "Patient.birthDate") } else { ("xml", "$this") };
        assert_eq!((&*rule, &*expression, found), (expected.0, expected.1, line), "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_capability_statement_lists_it() {
    let house = House::new("");
    let served = house.serve();
    let metadata = Request::get("https://localhost/fhir/metadata").body(Bytes::new()).unwrap();
    let (_, statement) = house.client(None).try_send(&served, metadata).await.unwrap();
    let rest = &statement["rest"][0];
    let has = |operations: &Value| {
        let definition = "http://hl7.org/fhir/OperationDefinition/Resource-validate";
        operations.as_array().unwrap().iter().any(|it| it["name"] == "validate" && it["definition"] == definition)
    };
    assert!(has(&rest["operation"]) && rest["resource"].as_array().unwrap().iter().all(|it| has(&it["operation"])));
}
