//! The command: help, exit codes, JSON lines, signals.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::house::{House, first_issue, lines, sluice};

const COMMANDS: &[&[&str]] = &[
    &[],
    &["serve"],
    &["demo"],
    &["ingest"],
    &["validate"],
    &["fhirpath"],
    &["canonicalize"],
    &["digest"],
    &["consent"],
    &["consent", "decide"],
    &["consent", "explain"],
    &["verify"],
    &["log"],
    &["log", "check"],
    &["log", "audit"],
    &["events"],
    &["events", "tail"],
    &["config"],
    &["config", "check"],
    &["config", "schema"],
    &["keys"],
    &["keys", "create"],
    &["keys", "tls"],
    &["package"],
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
        let output = sluice(&[*command, &["--help"]].concat(), b"");
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

/// By the name of the file, or as told: the same answers as for JSON, at the lines and columns of the XML.
#[test]
fn xml_is_read_like_json() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let document = "<Patient xmlns=\"http://hl7.org/fhir\">\n<name><given value=\"A\"/></name>\n\
        <multipleBirthInteger value=\"2\"/>\n</Patient>";
    let same = r#"{"multipleBirthInteger":2,"resourceType":"Patient","name":[{"given":["A"]}]}"#;
    let (xml, json, other) = (path("a.XML"), path("a.json"), path("a.txt"));
    std::fs::write(&xml, document).unwrap();
    std::fs::write(&json, same).unwrap();
    std::fs::write(&other, document).unwrap();

    let item = serde_json::json!({ "type": "string", "value": "A" });
    for args in [&["name.given", &xml][..], &["name.given", "--from", "xml", &other], &["name.given", &json]] {
        let output = sluice(&[&["fhirpath", "--format", "json"], args].concat(), b"");
        assert_eq!((output.status.code(), lines(&output)), (Some(0), vec![item.clone()]), "{args:?}");
    }
    assert_eq!(sluice(&["fhirpath", "name", &other], b"").status.code(), Some(2));

    let digests = lines(&sluice(&["digest", "--format", "json", &xml, &json], b""));
    assert_eq!(digests[0]["sha256"], digests[1]["sha256"]);

    assert_eq!(sluice(&["validate", &xml, &json], b"").status.code(), Some(0));
    let wrong = document.replace("value=\"2\"", "value=\"two\"");
    for (args, input) in [(&["--from", "xml"][..], &*wrong), (&["--from", "xml", "-"], &*wrong)] {
        let output = sluice(&[&["validate", "--format", "json"], args].concat(), input.as_bytes());
        let told = lines(&output);
        assert_eq!((output.status.code(), told.len()), (Some(1), 1));
        let issue = ("type.json".to_owned(), "Patient.multipleBirthInteger".to_owned(), 3, 1);
        assert_eq!(first_issue(&told[0]["outcome"]), issue);
    }
    std::fs::write(&xml, "<!DOCTYPE Patient>\n<Patient xmlns=\"http://hl7.org/fhir\"/>").unwrap();
    let output = sluice(&["validate", "--format", "json", &xml], b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(first_issue(&lines(&output)[0]["outcome"]), ("xml".to_owned(), "$this".to_owned(), 1, 1));
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
fn validate_holds_documents_against_profiles_of_packages() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("patient.json").display().to_string();
    let profile = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-patient";
    let claim = format!(
        r#"{{"resourceType":"Patient","meta":{{"profile":["{profile}"]}},"gender":"female","name":[{{"family":"A"}}]}}"#
    );
    std::fs::write(&file, claim).unwrap();
    let package = "tests/data/packages/hl7.fhir.us.core-6.1.0.tgz";
    let told = |arguments: &[&str]| {
        let output = sluice(&[&["validate", "--format", "json"], arguments, &[&file]].concat(), b"");
        (output.status.code(), lines(&output))
    };
    // Without the package nobody knows the profile, and nothing is said.
    assert_eq!(told(&[]).0, Some(0));
    let (code, lines) = told(&["--package", package]);
    assert_eq!(code, Some(1));
    let first = first_issue(&lines[0]["outcome"]);
    assert_eq!((&*first.0, &*first.1), ("cardinality.min", "Patient"));
    // A profile that the document does not claim.
    std::fs::write(&file, r#"{"resourceType":"Patient"}"#).unwrap();
    assert_eq!(told(&["--package", package]).0, Some(0));
    assert_eq!(told(&["--package", package, "--profile", profile]).0, Some(1));
    assert_eq!(told(&["--package", package, "--profile", "http://x.example/none"]).0, Some(64));
    assert_eq!(told(&["--package", "no-such-package"]).0, Some(64));
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

/// What each command ends with, and how many JSON lines it prints: one table, a row a case.
#[test]
fn exit_codes_are_those_of_the_table() {
    let house = House::new("");
    let write = |name: &str, text: &str| {
        std::fs::write(house.path(name), text).unwrap();
        house.path(name)
    };
    let good = write("good.json", r#"{"resourceType":"Patient"}"#);
    let bad = write("bad.json", r#"{"resourceType":"Patient","birthDate":"x"}"#);
    let text = write("text.json", "no JSON");
    let (settings, absent) = (house.path("sluice.toml"), house.path("absent"));
    let wrong = write("wrong.toml", "nonsense = 1\n");
    // Good settings whose store can't be opened: a file stands where its folder should.
    write("a-file", "");
    let blocked = std::fs::read_to_string(&settings).unwrap() + "[store]\ndir = \"a-file\"\n";
    let blocked = write("blocked.toml", &blocked);
    // Settings that name a key which is not there.
    let keyless = std::fs::read_to_string(&settings).unwrap() + "[keys]\ndir = \"no-keys\"\n";
    let keyless = write("keyless.toml", &keyless);
    let vectors = format!("{}/tests/cases/verify/log", env!("CARGO_MANIFEST_DIR"));
    let (event, trust) = (format!("{vectors}/event.json"), format!("{vectors}/trust.json"));
    let nobody = write("nobody.json", r#"{"logs":[],"events":[]}"#);
    let closed = "https://127.0.0.1:1/fhir";
    let ca = house.path("tls/ca.pem");
    let question = "{\"id\":1}\n\nnothing\n";

    // Arguments, standard input, exit code, lines on stdout.
    let table: &[(&[&str], &str, i32, usize)] = &[
        (&["serve", "--config", &absent], "", 64, 0),
        (&["serve", "--config", &wrong], "", 64, 0),
        (&["serve", "--config", &keyless], "", 64, 0),
        (&["serve", "--config", &blocked], "", 2, 0),
        (&["demo", &absent], "", 2, 0),
        (&["demo", "--amqp", "amqp://127.0.0.1:1/%2f"], "", 2, 0),
        (&["demo", "--keep"], "", 64, 0),
        (&["ingest", "--config", &settings, &absent], "", 2, 0),
        (&["ingest", &good], "", 64, 0),
        (&["ingest", "--to", closed, &good], "", 64, 0),
        (&["ingest", "--to", "http://gateway.example/fhir", &good], "", 64, 0),
        (&["validate", &good], "", 0, 1),
        (&["validate", &good, &bad], "", 1, 2),
        (&["validate", &text], "", 1, 1),
        (&["validate", &absent], "", 2, 0),
        (&["validate", "--nonsense"], "", 64, 0),
        (&["canonicalize", &good], "", 0, 1),
        (&["canonicalize", &text], "", 1, 0),
        (&["canonicalize", &absent], "", 2, 0),
        (&["canonicalize"], "", 64, 0),
        (&["digest", &good, &bad], "", 0, 2),
        (&["digest", &absent], "", 2, 0),
        (&["consent", "decide"], question, 0, 2),
        (&["consent", "decide", "file"], "", 64, 0),
        (&["consent", "explain", "-"], question, 0, 2),
        (&["consent", "explain", &good], "", 0, 1),
        (&["consent", "explain", &text], "", 2, 0),
        (&["consent", "explain", "--consent", &absent, "--", &good], "", 2, 0),
        (&["consent", "explain"], "", 64, 0),
        (&["verify", "--trust", &trust, &event], "", 0, 1),
        (&["verify", "--trust", &trust, &event, &good], "", 1, 2),
        (&["verify", "--trust", &nobody, &event], "", 2, 0),
        (&["verify", "--trust", &absent, &event], "", 2, 0),
        (&["verify", &event], "", 64, 0),
        (&["log", "check", &absent], "", 2, 0),
        (&["log", "check", "https://127.0.0.1:1/log", "--ca", &ca], "", 2, 0),
        (&["log", "check", "https://127.0.0.1:1/log"], "", 64, 0),
        (&["log", "check", "--config", &settings], "", 2, 0),
        (&["log", "check", "--config", &wrong], "", 64, 0),
        (&["log", "check", "--config", &settings, "--trust", &trust], "", 64, 0),
        (&["log", "check"], "", 64, 0),
        (&["log", "audit", &absent], "", 2, 0),
        (&["log", "audit"], "", 64, 0),
        (&["events", "tail", "--to", closed, "--ca", &ca], "", 2, 0),
        (&["events", "tail", "--to", closed, "--ca", &ca, "--subscriber", "a&b"], "", 64, 0),
        (&["events", "tail"], "", 64, 0),
        (&["config", "check", &settings], "", 0, 1),
        (&["config", "check", &wrong], "", 64, 3),
        (&["config", "schema"], "", 0, usize::MAX),
        (&["keys", "create", &house.path("new-keys")], "", 0, 1),
        (&["keys", "create", &house.path("keys")], "", 2, 0),
        (&["keys", "tls", &house.path("tls")], "", 2, 0),
        (&["package", "build", &absent, &house.path("out.pack")], "", 2, 0),
        (&["package", "build"], "", 64, 0),
    ];
    let mut wrong = String::new();
    for (args, input, code, count) in table {
        let output = sluice(&[&["--format", "json"], *args].concat(), input.as_bytes());
        let stdout = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = stdout.lines().collect();
        let json = lines.iter().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object()));
        let told = String::from_utf8_lossy(&output.stderr);
        if output.status.code() != Some(*code) {
            writeln!(wrong, "{args:?}: {:?}, not {code}: {told}", output.status.code()).unwrap();
        } else if *count != usize::MAX && (lines.len() != *count || !json) {
            writeln!(wrong, "{args:?}: {} lines, not {count}: {stdout}", lines.len()).unwrap();
        } else if *code >= 2 && told.is_empty() && stdout.is_empty() {
            writeln!(wrong, "{args:?}: says nothing").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn an_explanation_says_which_consent_and_which_provision() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| {
        let file = folder.path().join(name);
        std::fs::write(&file, value.to_string()).unwrap();
        file.display().to_string()
    };
    let coding = |system: &str, code: &str| serde_json::json!({ "system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code });
    let consent = |id: &str, status: &str, patient: &str, provision: Value| {
        serde_json::json!({
            "resourceType": "Consent", "id": id, "status": status, "patient": { "reference": format!("Patient/{patient}") },
            "scope": { "coding": [coding("consentscope", "patient-privacy")] },
            "category": [{ "coding": [{ "system": "http://loinc.org", "code": "59284-0" }] }],
            "policy": [{ "uri": "https://a.example" }], "provision": provision,
        })
    };
    let payment = serde_json::json!([coding("v3-ActReason", "HPAYMT")]);
    let permit = serde_json::json!({ "type": "permit", "purpose": payment });
    let bundle = serde_json::json!({ "resourceType": "Bundle", "type": "collection", "entry": [
        { "resource": consent("permits", "active", "p", permit.clone()) },
        { "resource": consent("denies-conditions", "active", "p", serde_json::json!({ "type": "deny",
            "class": [{ "system": "http://hl7.org/fhir/resource-types", "code": "Condition" }] })) },
        { "resource": consent("old", "inactive", "p", permit.clone()) },
        { "resource": consent("of-another", "active", "q", permit) },
        { "resource": { "resourceType": "Patient", "id": "p" } },
    ] });
    let consents = write("consents.json", &bundle);
    let subject = serde_json::json!({ "reference": "Patient/p" });
    let records = serde_json::json!({ "resourceType": "Bundle", "type": "collection", "entry": [
        { "resource": { "resourceType": "Observation", "id": "o", "status": "final", "subject": subject, "code": {} } },
        { "resource": { "resourceType": "Condition", "id": "c", "subject": subject } },
    ] });
    let records = write("records.json", &records);
    let ask = |format: &str, purpose: &str| {
        sluice(
            &[
                "--format",
                format,
                "consent",
                "explain",
                "--purpose",
                purpose,
                "--action",
                "disclose",
                "--consent",
                &consents,
                "--",
                &records,
            ],
            b"",
        )
    };
    let told = lines(&ask("json", "HPAYMT")).remove(0);
    assert_eq!(told["decision"], "deny");
    assert_eq!(
        told["reason"],
        serde_json::json!({ "rule": "consent.deny", "consent": 1, "provision": "Consent.provision" })
    );
    let says = |record: usize| -> Vec<String> {
        let consents = told["records"][record]["patients"][0]["consents"].as_array().unwrap();
        consents.iter().map(|it| format!("{} {}", it["id"].as_str().unwrap(), it["says"].as_str().unwrap())).collect()
    };
    let rest = ["old not-in-force", "of-another another-patient"];
    assert_eq!(says(0), [&["permits permit", "denies-conditions nothing-matches"][..], &rest].concat());
    assert_eq!(says(1), [&["permits permit", "denies-conditions deny"][..], &rest].concat());
    let decided: Vec<_> =
        told["records"].as_array().unwrap().iter().map(|it| (&it["resource"], &it["decision"])).collect();
    assert_eq!(
        decided,
        [
            (&"resource.entry[0].resource".into(), &"permit".into()),
            (&"resource.entry[1].resource".into(), &"deny".into())
        ]
    );
    let human = String::from_utf8(ask("human", "TREAT").stdout).unwrap();
    for line in [
        "deny, by Consent.provision (consent.deny) of Consent 1",
        "Patient/p: deny, by implicit.deny",
        "Consent 0 (permits) says nothing: no provision of it matches",
        "Consent 2 (old) says nothing: it is not active",
    ] {
        assert!(human.contains(line), "{line} in\n{human}");
    }
}
