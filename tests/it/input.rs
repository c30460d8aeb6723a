//! Bad input over HTTP: what each kind of it is told, from `tests/cases/input/cases.json`.
//!
//! A case gives a request and what is expected: status, rule id, path, line and column of the first issue. With
//! `SLUICE_BLESS` what was found is written there; a person reads it before it is committed.

use std::io::Write as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::house::{House, first_issue};

/// Small bounds, so that a case needs little to go beyond them.
const SMALL: &str = "limits = { body_bytes_max = \"256KiB\", resource_bytes_max = \"64KiB\", \
    transaction_memory_max = \"128KiB\", entries_max = 50, idle_timeout = \"500ms\" }";

#[derive(Serialize, Deserialize)]
struct Case {
    name: String,
    #[serde(default = "post", skip_serializing_if = "is_post")]
    method: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    body: Body,
    #[serde(default)]
    expected: Expected,
}

fn post() -> String {
    "POST".to_owned()
}

fn is_post(method: &str) -> bool {
    method == "POST"
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Body {
    /// As it stands.
    Text(String),
    /// Bytes that are no text.
    Base64(String),
    /// `open`, then `times` of `each`, then `close`.
    Repeat { open: String, each: String, times: usize, close: String },
    /// The same through gzip, without the last bytes.
    Gzip { of: Box<Body>, cut: usize },
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Base64(text) => STANDARD.decode(text).unwrap(),
            Self::Repeat { open, each, times, close } => [open, &*each.repeat(*times), close].concat().into_bytes(),
            Self::Gzip { of, cut } => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
                encoder.write_all(&of.bytes()).unwrap();
                let mut bytes = encoder.finish().unwrap();
                bytes.truncate(bytes.len() - cut);
                bytes
            }
        }
    }
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Expected {
    status: u16,
    code: String,
    rule: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    expression: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    line: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    column: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Where cases are held against their expectations, or written.
fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases/input/cases.json")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_bad_input_is_told_what_and_where_and_nothing_of_it_is_kept() {
    let mut cases: Vec<Case> = serde_json::from_slice(&std::fs::read(file()).unwrap()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test's switch is no setting")]
    let bless = std::env::var_os("SLUICE_BLESS").is_some();
    let house = House::new(SMALL);
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let mut wrong = Vec::new();
    for case in &mut cases {
        let mut request = Request::builder().method(&*case.method).uri(format!("https://localhost/fhir{}", case.path));
        if !case.headers.iter().any(|(name, _)| name == "content-type") {
            request = request.header("content-type", "application/fhir+json");
        }
        for (name, value) in &case.headers {
            request = request.header(name, value);
        }
        let request = request.body(case.body.bytes().into()).unwrap();
        let (status, outcome) = client.try_send(&served, request).await.unwrap_or_else(|| panic!("{}", case.name));
        assert_eq!(outcome["resourceType"], "OperationOutcome", "{}", case.name);
        let issue = &outcome["issue"][0];
        let (rule, expression, line, column) = first_issue(&outcome);
        let found = Expected {
            status: status.as_u16(),
            code: issue["code"].as_str().unwrap().to_owned(),
            rule,
            expression,
            line,
            column,
        };
        assert!(status.is_client_error(), "{}: {status}", case.name);
        let text = issue["details"]["text"].as_str().or(issue["diagnostics"].as_str()).unwrap_or_default();
        assert!(!text.is_empty(), "{}: {outcome}", case.name);
        assert!(!outcome.to_string().contains("Mueller"), "{}: {outcome}", case.name);
        // One position, in its place: a second one in words would count from somewhere else.
        assert!(!text.contains("at line") && !text.contains("column"), "{}: {text}", case.name);
        if bless {
            case.expected = found;
        } else if found != case.expected {
            wrong.push(format!("{}: expected {:?}, found {found:?}", case.name, case.expected));
        }
    }
    if bless {
        let mut text = serde_json::to_string_pretty(&cases).unwrap();
        text.push('\n');
        std::fs::write(file(), text).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let (_, _, metrics) = served.admin("/metrics", "text/plain").await.unwrap();
    for series in ["sluice_resources_total 0", "sluice_units_total{outcome=\"accepted\"} 0", "sluice_defects_total 0"] {
        assert!(metrics.contains(series), "{series} in\n{metrics}");
    }
}

/// In a batch and in NDJSON what is well formed and against the rules is told entry by entry, with its place in the body.
#[tokio::test(flavor = "multi_thread")]
async fn an_issue_of_an_entry_has_its_place_in_the_body() {
    let house = House::new("");
    let served = house.serve();
    let client = house.client(Some("tls/hospital"));
    let good = r#"{"resourceType":"Organization","name":"A"}"#;
    let bad = "{\"resourceType\":\"Patient\",\n    \"birthDate\":\"Mueller\"}";
    let entry = |resource: &str, kind: &str| {
        format!("  {{\"resource\":{resource},\"request\":{{\"method\":\"POST\",\"url\":\"{kind}\"}}}}")
    };
    let batch = format!(
        "{{\"resourceType\":\"Bundle\",\"type\":\"batch\",\"entry\":[\n{},\n{}\n]}}",
        entry(good, "Organization"),
        entry(bad, "Patient")
    );
    let (_, answer) = client.post(&served, "", &[], batch).await;
    let outcome = &answer["entry"][1]["response"]["outcome"];
    let (rule, expression, line, column) = first_issue(outcome);
    assert_eq!((&*expression, line, column), ("Bundle.entry[1].resource.birthDate", 4, 17), "{rule}: {answer}");
    assert!(!answer.to_string().contains("Mueller"));

    let lines = format!("{good}\n\n{}\n", bad.replace('\n', ""));
    let (_, answer) = client.post(&served, "/$ingest", &[("content-type", "application/fhir+ndjson")], lines).await;
    let of = |name: &str| -> Value {
        answer["parameter"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone()
    };
    let (_, expression, line, column) = first_issue(&of("outcome")["resource"]);
    assert_eq!((&*expression, line, column), ("Patient.birthDate", 3, 43), "{answer}");
}
