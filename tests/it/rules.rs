//! Rules and packages while the gateway serves: what is whole is taken up, what is broken is refused by name; and rules of
//! some senders alone.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use crate::house::{House, Served, Wire, first_issue, sluice};

const PATIENT: &str = r#"{"resourceType":"Patient","active":true}"#;
const US_CORE: &str = "hl7.fhir.us.core-3.1.1.tgz";
const US_PATIENT: &str = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient";

/// Asks until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_mins(2);
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

fn house(more: &str) -> House {
    let house = House::new(&format!("{more}\n[log]\nbeat = \"20ms\"\n"));
    std::fs::create_dir(house.path("rules")).unwrap();
    std::fs::create_dir(house.path("packages")).unwrap();
    house
}

fn write(house: &House, name: &str, text: &str) {
    std::fs::write(house.path(name), text).unwrap();
}

fn demands(id: &str, member: &str) -> String {
    let rule = json!({
        "id": id, "description": format!("Expected {member}."), "resourceType": "Patient", "severity": "error",
        "expression": format!("{member}.exists()"),
    });
    rule.to_string()
}

async fn ready(served: &Served) -> String {
    let (status, _, text) = served.admin("/readyz", "text/plain").await.unwrap();
    assert_eq!(status, StatusCode::OK, "{text}");
    text
}

async fn metric(served: &Served, series: &str) -> Option<f64> {
    let (_, _, text) = served.admin("/metrics", "text/plain").await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The status, and the set of rules that the receipt names. What is sent twice is answered as it was the first time, so each
/// is sent with something of its own.
async fn post(client: &Wire, served: &Served, body: &str) -> (u16, Option<String>) {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    let own = format!(r#"{{"telecom":[{{"system":"other","value":"{}"}}],"#, SENT.fetch_add(1, Ordering::Relaxed));
    let body = body.replacen('{', &own, 1);
    let request = Request::post("https://localhost/fhir/Patient").header("content-type", "application/fhir+json");
    let answer = client.answer(served, request.body(Bytes::from(body)).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    let Some(receipt) = answer.headers().get("x-sluice-receipt") else { return (status, None) };
    let path = format!("/receipts/{}", receipt.to_str().unwrap());
    let receipt = client.fetch_from(&served.address("fhir"), &path).await.unwrap();
    (status, Some(receipt["rules"].as_str().expect("a set of rules").to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_taken_up_and_broken_ones_refused_while_it_serves() {
    let house = house("[check]\nrules_dir = \"rules\"\npoll = \"50ms\"");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let (status, first) = post(&client, &served, PATIENT).await;
    assert_eq!((status, first.as_ref().map(String::len)), (201, Some(32)));
    assert_eq!(ready(&served).await, "ok\n");

    write(&house, "rules/a.json", &demands("a", "gender"));
    until("the rule is in force", async || post(&client, &served, PATIENT).await.0 == 422).await;
    let good = r#"{"resourceType":"Patient","gender":"other"}"#;
    let (status, second) = post(&client, &served, good).await;
    assert!(status == 201 && second != first, "{second:?}");

    write(&house, "rules/b.json", &demands("b", "gendre"));
    until("the broken file is named", async || ready(&served).await.contains("b.json:1:")).await;
    let told = ready(&served).await;
    assert!(told.starts_with("ok\nrules: refused") && told.contains(&second.clone().unwrap()), "{told}");
    assert_eq!(metric(&served, "sluice_rules_refused").await, Some(1.0));
    assert_eq!(post(&client, &served, PATIENT).await.0, 422, "the set before stays");
    // The command says the same before anything is dropped in.
    let output = sluice(&["validate", "--config", &house.path("sluice.toml")], b"");
    let told_by_command = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(64) && told_by_command.contains("b.json:1:"), "{told_by_command}");
    assert_eq!(post(&client, &served, good).await, (201, second.clone()));

    write(&house, "rules/b.json", &demands("b", "birthDate"));
    until("the mended file is taken", async || ready(&served).await == "ok\n").await;
    assert_eq!(metric(&served, "sluice_rules_refused").await, Some(0.0));
    assert_eq!(post(&client, &served, good).await.0, 422);
    std::fs::remove_file(house.path("rules/b.json")).unwrap();
    until("the set before is back", async || post(&client, &served, good).await == (201, second.clone())).await;
    assert!(metric(&served, "sluice_rules_reloads_total{result=\"taken\"}").await >= Some(3.0));
    served.terminate();
    let (code, _) = served.ended();
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_dropped_in_is_held_and_a_broken_one_named() {
    let house = house("[check]\npackages_dir = \"packages\"\npoll = \"50ms\"");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let rules = async || {
        let path = format!("/Patient/$validate?profile={US_PATIENT}");
        let (status, outcome) = client.post(&served, &path, &[], PATIENT).await;
        assert_eq!(status, StatusCode::OK);
        let issues = outcome["issue"].as_array().unwrap().clone();
        issues.iter().map(|it| first_issue(&json!({ "issue": [it] })).0).collect::<Vec<_>>()
    };
    assert_eq!(rules().await, ["validate.profile-unknown"]);
    // As it comes over a slow line: what is there of it is no archive.
    let package = std::fs::read(format!("tests/data/packages/{US_CORE}")).unwrap();
    std::fs::write(house.path("packages/.part"), &package[..1000]).unwrap();
    std::fs::copy(house.path("packages/.part"), house.path(&format!("packages/{US_CORE}"))).unwrap();
    until("half an archive is named", async || ready(&served).await.contains(US_CORE)).await;
    assert_eq!(rules().await, ["validate.profile-unknown"]);
    std::fs::write(house.path(&format!("packages/{US_CORE}")), &package).unwrap();
    until("the package is held", async || rules().await.contains(&"cardinality.min".to_owned())).await;

    std::fs::write(house.path("packages/broken.tgz"), "nothing").unwrap();
    until("the broken package is named", async || ready(&served).await.contains("broken.tgz")).await;
    assert!(rules().await.contains(&"cardinality.min".to_owned()), "those before stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_them_again_and_nothing_else_does_where_the_settings_say_so() {
    let house = house("[check]\nrules_dir = \"rules\"\npoll = \"0s\"\n[observe]\nlevel = \"info\"");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    write(&house, "rules/a.json", &demands("a", "gender"));
    assert_eq!(post(&client, &served, PATIENT).await.0, 201);
    let hang_up =
        || assert!(Command::new("kill").args(["-HUP", &served.pid().to_string()]).status().unwrap().success());
    hang_up();
    until("the rule is in force", async || post(&client, &served, PATIENT).await.0 == 422).await;
    write(&house, "rules/a.json", "{\n\"id\":");
    hang_up();
    until("it is refused", async || metric(&served, "sluice_rules_refused").await == Some(1.0)).await;
    assert_eq!(post(&client, &served, PATIENT).await.0, 422);
    served.terminate();
    let (_, log) = served.ended();
    let refused = log.lines().find(|line| line.contains("rules refused")).expect("a line in the log");
    let line: Value = serde_json::from_str(refused).unwrap();
    assert!(line["error"].as_str().unwrap().contains("a.json:2:"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_is_for_its_senders_and_its_tenants() {
    let more = "[check]\nrules_dir = \"rules\"\n\
        [[caller]]\ninstitution = \"insurer.example\"\ncert_subject_cn = \"insurer\"\nmay = [\"write\"]";
    let house = house(more);
    let rule = |id: &str, more: &Value| {
        let mut rule = json!({
            "id": id, "description": "Expected a name, which everybody who sends has.", "resourceType": "Patient",
            "severity": "error", "expression": "name.exists()",
        });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let pack = json!({
        "id": "insurers", "description": "What insurers send", "senders": ["insurer.example"],
        "rules": [rule("named", &json!({})), rule("elsewhere", &json!({ "tenants": ["hospital-b"] }))],
        "severity": { "code.unknown": "error", "value.date": "off" },
    });
    write(&house, "rules/insurers.json", &pack.to_string());
    let served = house.serve();
    let (hospital, insurer) = (house.client(Some("tls/hospital")), house.client(Some("tls/insurer")));
    assert_eq!(hospital.post(&served, "/Patient", &[], PATIENT).await.0, StatusCode::CREATED);
    let (status, outcome) = insurer.post(&served, "/Patient", &[], PATIENT).await;
    assert_eq!((status.as_u16(), &*first_issue(&outcome).0), (422, "site.named"), "{outcome}");
    assert_eq!(outcome["issue"].as_array().unwrap().len(), 1, "{outcome}");
    assert!(outcome.to_string().contains("which everybody who sends has"), "{outcome}");
    let named = r#"{"resourceType":"Patient","name":[{"text":"x"}],"birthDate":"someday"}"#;
    assert_eq!(insurer.post(&served, "/Patient", &[], named).await.0, StatusCode::CREATED);
    let (status, outcome) = hospital.post(&served, "/Patient", &[], named).await;
    assert_eq!((status.as_u16(), &*first_issue(&outcome).0), (422, "value.date"), "{outcome}");
    // What is asked is answered by the same rules, by the command too.
    let (file, config) = (house.path("patient.json"), house.path("sluice.toml"));
    std::fs::write(&file, PATIENT).unwrap();
    for (sender, code) in [("insurer.example", 1), ("hospital-a", 0)] {
        let output = sluice(&["validate", "--config", &config, "--sender", sender, &file], b"");
        assert_eq!(output.status.code(), Some(code), "{sender}");
    }
    let (_, outcome) = insurer.post(&served, "/Patient/$validate", &[], PATIENT).await;
    assert_eq!(first_issue(&outcome).0, "site.named");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_is_too_much_work_is_refused_and_told_why() {
    let house = house("[check]\nrules_dir = \"rules\"\nsteps_max = 20000");
    write(&house, "rules/a.json", &demands("a", "active"));
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    assert_eq!(post(&client, &served, PATIENT).await.0, 201);
    let names = vec![json!({"family": "x", "given": ["y", "z"]}); 5000];
    let large = json!({"resourceType": "Patient", "active": true, "name": names}).to_string();
    let (status, outcome) = client.post(&served, "/Patient", &[], large).await;
    let (rule, expression, ..) = first_issue(&outcome);
    assert_eq!((status.as_u16(), &*rule, &*expression), (422, "limit.budget", "Patient"), "{outcome}");
    assert!(outcome.to_string().contains("Partly checked"), "{outcome}");
}
