//! Thirty patients of Synthea, as published, through `sluice ingest` and a gateway that serves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{Request, StatusCode};
use serde_json::Value;

use crate::house::{House, lines, sluice};

/// What lets Synthea's own errors through, as the README says it.
const SEVERITY: &str = "\"code.unknown\" = \"warning\"\n\"binding.required\" = \"warning\"\n";

fn unpack(to: &Path) -> Vec<String> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/synthea/r4-30-patients.tar.gz");
    tar::Archive::new(GzDecoder::new(std::fs::File::open(packed).unwrap())).unpack(to).unwrap();
    let mut files: Vec<_> = to.read_dir().unwrap().map(|it| it.unwrap().path().display().to_string()).collect();
    files.sort();
    assert_eq!(files.len(), 32, "30 patients, the hospitals and the practitioners");
    files
}

fn ingest(settings: &str, folder: &Path) -> (Option<i32>, Vec<Value>) {
    let output = sluice(&["ingest", "--format", "json", "--config", settings, &folder.display().to_string()], b"");
    (output.status.code(), lines(&output))
}

/// The entries of a Bundle, counted.
fn entries(file: &str) -> u64 {
    let bundle: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    bundle["entry"].as_array().unwrap().len() as u64
}

#[test]
fn thirty_patients_go_through_and_their_receipts_stay_the_same() {
    let house = House::new("");
    let folder = house.folder.path().join("synthea");
    let files = unpack(&folder);
    let settings = house.path("sluice.toml");
    let plain = std::fs::read_to_string(&settings).unwrap();
    // The port that was free is kept, so that the settings lead to the gateway.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plain = plain.replacen("fhir = \"127.0.0.1:0\"", &format!("fhir = \"{free}\""), 1);
    assert!(plain.contains("[client]"));
    std::fs::write(&settings, format!("{plain}[check.severity]\n{SEVERITY}")).unwrap();

    let served = house.serve();
    let (code, told) = ingest(&settings, &folder);
    assert_eq!(code, Some(0), "{told:?}");
    let named: Vec<_> = told.iter().map(|it| it["file"].as_str().unwrap()).collect();
    assert_eq!(named, files);
    for (line, file) in told.iter().zip(&files) {
        let members: BTreeSet<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["accepted", "file", "outcome", "receipt", "refused", "status"].into());
        assert_eq!(
            (&line["status"], &line["refused"], &line["outcome"]),
            (&200.into(), &0.into(), &Value::Null),
            "{line}"
        );
        assert_eq!(line["accepted"].as_u64(), Some(entries(file)), "{file}");
    }
    let receipts: BTreeSet<_> = told.iter().map(|it| it["receipt"].as_str().unwrap().to_owned()).collect();
    assert_eq!(receipts.len(), files.len(), "each its own");

    // Each receipt is to be had, by who sent it, and is about as many resources at least.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for line in &told {
            let operation = line["receipt"].as_str().unwrap();
            let ask = || Request::get(format!("https://localhost/receipts/{operation}")).body(Bytes::new()).unwrap();
            let (status, receipt) = house.client(Some("tls/hospital")).try_send(&served, ask()).await.unwrap();
            assert_eq!(status, StatusCode::OK, "{receipt}");
            let resources = receipt["resources"].as_array().unwrap();
            assert!(resources.len() as u64 >= line["accepted"].as_u64().unwrap());
            assert!(resources.iter().all(|it| it["record"].is_object() && it["commitment"].is_string()));
            let (status, _) = house.client(Some("tls/stranger")).try_send(&served, ask()).await.unwrap();
            assert!(status.is_client_error(), "{status}");
        }
    });
    // The same files again, also after a restart: the same answers.
    assert_eq!(ingest(&settings, &folder), (Some(0), told.clone()));
    assert_eq!(served.stop(), Some(0));
    let served = house.serve();
    let small = &files[..3];
    let again: Vec<_> = small.iter().flat_map(|file| ingest(&settings, Path::new(file)).1).collect();
    assert_eq!(again, told[..3]);

    // The log over TLS, by who trusts the gateway's certificate; without a trust file it is only of one piece.
    let (ca, url) = (house.path("tls/ca.pem"), served.ready["log"].as_str().unwrap());
    let check = sluice(&["log", "check", "--format", "json", url, "--ca", &ca], b"");
    let line = lines(&check).remove(0);
    assert_eq!((check.status.code(), &line["ok"]), (Some(0), &Value::from(true)), "{line}");
    assert!(line["size"].as_u64() > Some(10_000));
    assert_eq!(sluice(&["log", "check", url, "--ca", &house.path("other/ca.pem")], b"").status.code(), Some(2));
    assert_eq!(served.stop(), Some(0));
}

/// What the README says of Synthea's own errors: which rules find them, and that nothing else does.
#[test]
fn synthea_s_own_errors_are_those_of_the_readme() {
    let folder = tempfile::tempdir().unwrap();
    let files = unpack(folder.path());
    let args: Vec<_> = ["validate", "--format", "json"].into_iter().chain(files.iter().map(String::as_str)).collect();
    let output = sluice(&args, b"");
    assert_eq!(output.status.code(), Some(1));
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in lines(&output) {
        for issue in line["outcome"]["issue"].as_array().into_iter().flatten() {
            if matches!(issue["severity"].as_str(), Some("error" | "fatal")) {
                let rule = issue["details"]["coding"][0]["code"].as_str().unwrap().to_owned();
                found.entry(rule).or_default().insert(line["file"].as_str().unwrap().to_owned());
            }
        }
    }
    let rules: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(rules, ["binding.required", "code.unknown"], "{found:?}");
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains(SEVERITY), "the README names the settings that let them through");
    assert_eq!((found["binding.required"].len(), found["code.unknown"].len()), (1, 5), "{found:?}");
}
