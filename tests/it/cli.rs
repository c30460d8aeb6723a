//! The command: help, exit codes, JSON lines, signals, and the demo with what it leaves.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::house::{House, first_issue, lines, serve, sluice};

const COMMANDS: [&[&str]; 21] = [
    &[],
    &["serve"],
    &["demo"],
    &["ingest"],
    &["validate"],
    &["fhirpath"],
    &["canonicalize"],
    &["digest"],
    &["consent", "decide"],
    &["config", "check"],
    &["config", "schema"],
    &["keys"],
    &["keys", "create"],
    &["keys", "tls"],
    &["package", "build"],
    &["parked"],
    &["parked", "list"],
    &["parked", "look"],
    &["parked", "send"],
    &["parked", "drop"],
    &["parked", "found"],
];

#[test]
fn every_command_helps_with_an_example() {
    for command in COMMANDS {
        let output = sluice(&[command, &["--help"]].concat(), b"");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{command:?}");
        assert!(text.contains("Example") && text.contains("\n  sluice "), "{command:?}: {text}");
        assert!(text.contains("--format"), "{command:?}");
    }
}

#[test]
fn bad_usage_is_64() {
    for args in
        [&[][..], &["nonsense"], &["serve", "--nonsense"], &["digest"], &["validate", "-", "a.json"], &["serve"]]
    {
        let output = sluice(args, b"");
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn canonical_bytes_are_exact_and_the_digest_is_theirs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json").display().to_string();
    std::fs::write(&file, "{\"b\" : 1.00, \"a\" : [null, \"\\u00e9\\u0001\"]}\n").unwrap();
    let output = sluice(&["canonicalize", &file], b"");
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), "{\"a\":[null,\"é\\u0001\"],\"b\":1.00}".as_bytes()));
    let sha256 = data_encoding::HEXLOWER.encode(&Sha256::digest(&output.stdout));
    let told = sluice(&["digest", "--format", "json", &file], b"");
    assert_eq!(lines(&told), [serde_json::json!({ "file": file, "sha256": sha256 })]);

    for refused in ["{\"a\":1,\"a\":2}", "{\"a\":\"\\ud800\"}", "[1]", "{", ""] {
        let output = sluice(&["canonicalize", "-"], refused.as_bytes());
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{refused}");
    }
    assert_eq!(sluice(&["canonicalize", "no-such-file"], b"").status.code(), Some(2));
}

#[test]
fn fhirpath_gives_items_one_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("patient.json").display().to_string();
    let patient = "{\"resourceType\":\"Patient\",\"birthDate\":\"1974-12\",\"name\":[{\"given\":[\"A\",\"B\"],\n \"use\":\"old\"}],\
        \"extension\":[{\"url\":\"http://a\",\"valueDecimal\":1.50}]}";
    std::fs::write(&file, patient).unwrap();
    let item = |ty: &str, value: Value| serde_json::json!({ "type": ty, "value": value });
    for (expression, items) in [
        ("name.given", vec![item("string", "A".into()), item("string", "B".into())]),
        ("birthDate", vec![item("date", "1974-12".into())]),
        ("@2020-01-01 + 1 month", vec![item("date", "2020-02-01".into())]),
        ("name.count()", vec![item("integer", 1.into())]),
        ("active.exists()", vec![item("boolean", false.into())]),
        ("extension('http://a').value", vec![item("decimal", "1.50".into())]),
        ("4.0 'g' / 2.0 'm'", vec![item("Quantity", serde_json::json!({ "value": "2", "code": "g/m" }))]),
        ("name", vec![item("HumanName", serde_json::json!({ "given": ["A", "B"], "use": "old" }))]),
        ("name.suffix", vec![]),
        ("today() > birthDate", vec![item("boolean", true.into())]),
    ] {
        let output = sluice(&["fhirpath", "--format", "json", expression, &file], b"");
        assert_eq!((output.status.code(), lines(&output)), (Some(0), items), "{expression}");
    }
    for wrong in ["name.given1", "name.", "Observation.value", "name.single() + 1", "frobnicate()"] {
        let output = sluice(&["fhirpath", "--format", "json", wrong, &file], b"");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{wrong}");
        assert!(!output.stderr.is_empty(), "{wrong}");
    }
    assert_eq!(sluice(&["fhirpath", "name", "-"], patient.as_bytes()).status.code(), Some(0));
    assert_eq!(sluice(&["fhirpath", "name", "no-such-file"], b"").status.code(), Some(2));
}

#[test]
fn validate_finds_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("good.json"), r#"{"resourceType":"Patient"}"#).unwrap();
    std::fs::write(path("bad.json"), "{\"resourceType\":\"Patient\",\n  \"birthDate\":\"x\"}").unwrap();
    std::fs::write(path("text.json"), "nothing of the kind").unwrap();
    let files = [path("good.json"), path("bad.json"), path("text.json")];
    let output = sluice(&["validate", "--format", "json", &files[0], &files[1], &files[2]], b"");
    assert_eq!(output.status.code(), Some(1));
    let told = lines(&output);
    let said: Vec<(&str, bool)> =
        told.iter().map(|it| (it["file"].as_str().unwrap(), it["valid"].as_bool().unwrap())).collect();
    assert_eq!(said, [(&*files[0], true), (&*files[1], false), (&*files[2], false)]);
    assert_eq!(first_issue(&told[1]["outcome"]), ("value.date".to_owned(), "Patient.birthDate".to_owned(), 2, 15));
    assert_eq!(first_issue(&told[2]["outcome"]).0, "json");

    assert_eq!(sluice(&["validate", &files[0]], b"").status.code(), Some(0));
    let output = sluice(&["validate", "--format", "json", &path("absent.json"), &files[0]], b"");
    assert_eq!((output.status.code(), lines(&output).len()), (Some(2), 1));
    let human = sluice(&["validate", "--format", "human", &files[1]], b"");
    assert!(String::from_utf8(human.stdout).unwrap().contains(":2:15: error value.date at Patient.birthDate"));
}

#[test]
fn keys_are_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("keys").display().to_string();
    let made = sluice(&["keys", "create", "--format", "json", &dir], b"");
    assert_eq!(made.status.code(), Some(0));
    assert!(lines(&made)[0]["log"].is_string());
    assert_eq!(sluice(&["keys", "create", &dir], b"").status.code(), Some(2));
    let tls = folder.path().join("tls").display().to_string();
    assert_eq!(lines(&sluice(&["keys", "tls", "--format", "json", &tls, "--client", "a"], b"")).len(), 5);
    assert_eq!(sluice(&["keys", "tls", &tls], b"").status.code(), Some(2));
    assert_eq!(sluice(&["keys", "tls", &dir, "--client", "../a"], b"").status.code(), Some(64));
}

#[test]
fn nobody_reading_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["config", "schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}

#[test]
fn bad_settings_end_it_before_a_port_is_bound() {
    let house = House::new("nonsense = 1");
    // Held by the test: had it tried to bind, it would have said so, with 2.
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = std::fs::read_to_string(house.path("sluice.toml")).unwrap();
    let taken = format!("fhir = \"{}\"", held.local_addr().unwrap());
    let settings = settings.replace("fhir = \"127.0.0.1:0\"", &taken);
    std::fs::write(house.path("sluice.toml"), &settings).unwrap();
    let output = sluice(&["serve", "--config", &house.path("sluice.toml")], b"");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("sluice.toml:1:1: nonsense"), "{told}");
    assert_eq!(sluice(&["config", "check", &house.path("sluice.toml")], b"").status.code(), Some(64));

    std::fs::write(house.path("sluice.toml"), settings.replace("nonsense = 1", "")).unwrap();
    assert_eq!(sluice(&["config", "check", &house.path("sluice.toml")], b"").status.code(), Some(0));
    let output = sluice(&["serve", "--config", &house.path("sluice.toml")], b"");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
}

#[test]
fn it_is_ready_when_it_says_so_and_drains_on_sigterm() {
    let house = House::new("");
    let served = house.serve();
    assert_eq!(served.ready["ready"], true);
    let mut probe = TcpStream::connect(served.address("admin")).unwrap();
    probe.write_all(b"GET /readyz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(served.stop(), Some(0));
}

/// The demo leaves a house in which `serve` and `ingest` go on.
#[test]
fn the_demo_shows_the_flow_and_what_it_keeps_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let path = |name: &str| kept.join(name).display().to_string();
    let output = sluice(&["demo", "--format", "json", "--keep", &kept.display().to_string()], b"");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let summary = lines(&output).pop().unwrap();
    let number = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {summary}"));
    assert_eq!(number("bundles"), 14, "{told}");
    assert_eq!(number("resources"), number("accepted") + number("refused"));
    assert!(number("accepted") > 500 && number("refused") == 2, "{summary}");
    assert!(number("permitted") > 0 && number("denied") > 0, "{summary}");
    assert!(number("leaves") > number("accepted") && number("proofs_verified") >= number("accepted"), "{summary}");
    assert!(told.contains("broken link"), "{told}");
    assert!(kept.join("trust.json").is_file() && kept.join("receipts").read_dir().unwrap().next().is_some());
    // A second demo would write over it.
    assert_eq!(sluice(&["demo", "--keep", &kept.display().to_string()], b"").status.code(), Some(2));

    let served = serve(&kept.join("sluice.toml"));
    let settings = path("sluice.toml");
    let patient = r#"{"resourceType":"Patient","id":"new","active":true}"#;
    std::fs::write(folder.path().join("a.json"), patient).unwrap();
    std::fs::write(folder.path().join("b.ndjson"), format!("{patient}\n\n{{\"resourceType\":\"Basic\"}}\n")).unwrap();
    std::fs::write(folder.path().join("c.json"), "{\"resourceType\":\"Bundle\",\"type\":\"transaction\",}").unwrap();
    let files = ["a.json", "b.ndjson", "c.json"].map(|name| folder.path().join(name).display().to_string());
    let ingest = |files: &[String]| {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let output = sluice(&[&["ingest", "--format", "json", "--config", &settings], &files[..]].concat(), b"");
        (output.status.code(), lines(&output))
    };
    let (code, told) = ingest(&files);
    assert_eq!(code, Some(1));
    let said: Vec<[&Value; 4]> =
        told.iter().map(|it| [&it["status"], &it["accepted"], &it["refused"], &it["file"]]).collect();
    assert_eq!(said[0][..3], [&Value::from(201), &1.into(), &0.into()], "{told:?}");
    assert_eq!(said[1][..3], [&Value::from(200), &1.into(), &1.into()], "{told:?}");
    assert_eq!(said[2][..3], [&Value::from(400), &0.into(), &1.into()], "{told:?}");
    assert_eq!(told[2]["receipt"], Value::Null);
    assert_eq!(first_issue(&told[2]["outcome"]).0, "json");
    // The same files again: the same receipts.
    let (_, again) = ingest(&files[..2]);
    for (first, second) in told.iter().zip(&again) {
        assert!(first["receipt"].is_string(), "{first}");
        assert_eq!(first["receipt"], second["receipt"]);
    }
    assert_eq!(served.stop(), Some(0));
    // Nobody answers any more.
    let (code, told) = ingest(&files[..1]);
    assert_eq!((code, &told[0]["status"], &told[0]["receipt"]), (Some(2), &Value::Null, &Value::Null));
}
