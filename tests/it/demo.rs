//! The demo: what it shows, what it keeps, and that what it keeps goes on.

use std::path::Path;

use serde_json::Value;

use crate::house::{first_issue, lines, serve, sluice};
use crate::rabbit::{self, USER};

/// Runs the demo; gives its summary and its tale.
fn demo(args: &[&str]) -> (Value, String) {
    let output = sluice(&[&["demo", "--format", "json"], args].concat(), b"");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{told}");
    let mut lines = lines(&output);
    assert_eq!(lines.len(), 1, "the summary alone stands on stdout");
    (lines.remove(0), told)
}

/// The demo leaves a house in which `serve` and `ingest` go on.
#[test]
fn the_demo_shows_the_flow_and_what_it_keeps_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let path = |name: &str| kept.join(name).display().to_string();
    let (summary, told) = demo(&["--keep", &kept.display().to_string()]);
    let number = |name: &str| summary[name].as_u64().unwrap_or_else(|| panic!("{name}: {summary}"));
    assert_eq!(number("bundles"), 14, "{told}");
    assert_eq!(number("resources"), number("accepted") + number("refused"));
    assert!(number("accepted") > 500 && number("refused") == 2, "{summary}");
    assert!(number("permitted") > 0 && number("denied") > 0, "{summary}");
    assert!(number("leaves") > number("accepted") && number("proofs_verified") >= number("accepted"), "{summary}");
    for link in ["body", "commitment", "inclusion", "checkpoint", "receipt", "delivery"] {
        assert!(told.contains(&format!("broken link: {link}\n")), "{link} in {told}");
    }
    for line in [
        "patient 1 200 permitted, patient 2 404 denied, patient 3 200 permitted",
        "patient 1 200 permitted, patient 2 404 denied, patient 3 404 denied",
        "can't be joined",
        "which became http://hl7.org/fhir/sid/us-ssn",
        "0 events went out",
        "type.json at ",
        "verified, assurance self",
        "anchored on the embedded ledger",
        "assurance self: all this rests on the operator's own signature",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    // What was published is there, each as it was, and holds offline.
    let events = events(&kept);
    assert_eq!(events.len() as u64, number("events"), "{told}");
    let of = |name: &str| events.iter().filter(|it| it.contains(name)).count();
    assert!(of("/insurer-") > 2 && of("/monitor-") == 2, "{events:?}");
    let verified = verified(&kept, &events);
    assert!(verified.iter().all(|it| it["assurance"] == "self"), "{verified:?}");
    assert!(number("proofs_verified") > number("events"));
    assert!(kept.join("receipts").read_dir().unwrap().next().is_some());
    // The log, by the operator.
    let check = sluice(&["log", "check", "--format", "json", "--config", &path("sluice.toml")], b"");
    let log = lines(&check).remove(0);
    assert_eq!((check.status.code(), &log["ok"]), (Some(0), &Value::from(true)), "{log}");
    let leaves = |kind: &str| log["leaves"][kind].as_u64().unwrap();
    assert!(leaves("resource") > 500 && leaves("decision") > 10 && leaves("audit") > 0 && leaves("dummy") > 0, "{log}");
    assert_eq!(
        ["resource", "decision", "audit", "dummy"].map(leaves).iter().sum::<u64>(),
        log["size"].as_u64().unwrap()
    );
    // A second demo would write over it.
    assert_eq!(sluice(&["demo", "--keep", &kept.display().to_string()], b"").status.code(), Some(2));

    let served = serve(&kept.join("sluice.toml"));
    let settings = path("sluice.toml");
    // The log, by anyone: over HTTP, by the key that the trust file names, and as the events have seen it.
    let url = served.ready["log"].as_str().unwrap();
    let trust = path("trust.json");
    let seen: Vec<_> = events.iter().map(String::as_str).collect();
    let seen = [&["log", "audit", "--format", "json", url, "--trust", &trust, "--seen"][..], &seen].concat();
    let audit = sluice(&seen, b"");
    let found = lines(&audit);
    assert_eq!((audit.status.code(), found.len(), &found[0]["findings"]), (Some(0), 1, &Value::from(0)), "{found:?}");
    // While it runs nobody else opens its store.
    assert_eq!(sluice(&["log", "check", "--config", &settings], b"").status.code(), Some(2));
    // The same events, by cursor, from the gateway's feed.
    let tail = |more: &[&str]| {
        let (ca, cert, key) = (path("tls/ca.pem"), path("tls/insurer.pem"), path("tls/insurer.key"));
        let fhir = served.ready["fhir"].as_str().unwrap();
        let args = ["events", "tail", "--format", "json", "--to", fhir, "--ca", &ca, "--cert", &cert, "--key", &key];
        sluice(&[&args[..], more].concat(), b"")
    };
    let out = folder.path().join("tail").display().to_string();
    let tailed = tail(&["--trust", &trust, "--out", &out]);
    let shown = lines(&tailed);
    assert_eq!((tailed.status.code(), shown.len()), (Some(0), of("/insurer-")));
    assert!(shown.iter().enumerate().all(|(at, it)| it["cursor"] == at as u64 + 1), "{shown:?}");
    // Patient 3 has taken it back since: what was kept of that is not shown again.
    assert!(shown.iter().all(|it| it["event"].is_null() != (it["verified"] == true)), "{shown:?}");
    assert!(shown.iter().any(|it| it["event"].is_null()) && shown.iter().any(|it| it["verified"] == true));
    let again = tail(&["--after", "1"]);
    assert_eq!(lines(&again).len(), shown.len() - 1);
    assert_eq!(tail(&["--subscriber", "monitor"]).status.code(), Some(2), "another's feed");
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

/// The files of the events that a demo has kept, in the order of their names.
fn events(kept: &Path) -> Vec<String> {
    let folder = kept.join("events").read_dir().unwrap();
    let mut events: Vec<_> = folder.map(|it| it.unwrap().path().display().to_string()).collect();
    events.sort();
    events
}

/// What `sluice verify` says of events; all hold.
fn verified(kept: &Path, events: &[String]) -> Vec<Value> {
    let trust = kept.join("trust.json").display().to_string();
    let args = [
        &["verify", "--format", "json", "--trust", &trust][..],
        &events.iter().map(String::as_str).collect::<Vec<_>>(),
    ];
    let output = sluice(&args.concat(), b"");
    assert_eq!(output.status.code(), Some(0));
    let verified = lines(&output);
    assert!(verified.iter().all(|it| it["verified"] == true && it["broken_link"].is_null()), "{verified:?}");
    verified
}

/// The same through a broker: what it confirmed is what comes back out of its queues.
#[test]
fn the_demo_goes_through_a_rabbitmq() {
    let rabbit = rabbit::shared();
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let (summary, told) = demo(&["--amqp", &rabbit.url(USER), "--keep", &kept.display().to_string()]);
    let events = events(&kept);
    assert_eq!(summary["events"].as_u64().unwrap(), events.len() as u64, "{told}");
    assert!(events.iter().any(|it| it.contains("/insurer-")) && events.iter().any(|it| it.contains("/monitor-")));
    assert_eq!(verified(&kept, &events).len(), events.len());
    // The password is in a file that the settings name.
    let settings = std::fs::read_to_string(kept.join("sluice.toml")).unwrap();
    assert!(settings.contains("kind = \"amqp\"") && !settings.contains("amqp://"));
}

/// Bundles of one's own: any goes through, and nobody is told of whom nobody has asked.
#[test]
fn the_demo_takes_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    let entry =
        |resource: &str, url: &str| format!(r#"{{"resource":{resource},"request":{{"method":"PUT","url":"{url}"}}}}"#);
    let observation = r#"{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},"subject":{"reference":"Patient/unheard-of"}}"#;
    let bundle = format!(
        r#"{{"resourceType":"Bundle","type":"transaction","entry":[{}]}}"#,
        entry(observation, "Observation/o")
    );
    std::fs::write(mine.join("a.json"), bundle).unwrap();
    std::fs::write(mine.join("b.ndjson"), "{\"resourceType\":\"Basic\",\"code\":{\"text\":\"x\"}}\n").unwrap();
    let (summary, told) = demo(&[&mine.display().to_string()]);
    let counts = ["bundles", "resources", "accepted", "refused", "events"].map(|name| summary[name].as_u64().unwrap());
    assert_eq!(counts, [2, 2, 2, 0, 0], "{told}");
    assert!(told.contains("no event to tamper with"), "{told}");
}
