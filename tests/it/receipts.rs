//! Receipts of streams: found by the name that the stream's answer gave, by its sender alone, for good.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use sluice::record::stream::StreamId;
use sluice::stage::OperationId;

use crate::house::{House, Served, Wire};
use crate::rig::Rig;

const LINES: &[(&str, &str)] = &[("content-type", "application/fhir+ndjson"), ("idempotency-key", "one")];

fn parameter(answer: &Value, name: &str) -> Value {
    let parameters = answer["parameter"].as_array().unwrap();
    parameters.iter().find(|it| it["name"] == name).cloned().unwrap_or_default()
}

async fn get(client: &Wire, served: &Served, path: &str, accept: &str) -> (StatusCode, Value) {
    let request = Request::get(format!("https://localhost/receipts/{path}")).header("accept", accept);
    client.try_send(served, request.body(Bytes::new()).unwrap()).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streams_receipt_is_found_page_by_page() {
    let house = House::new(
        "[[caller]]\ninstitution = \"registry\"\ncert_subject_cn = \"registry\"\n[ledger]\nbeat = \"100ms\"\n[log]\nbeat = \"20ms\"\n",
    );
    let served = house.serve();
    let (hospital, registry) = (house.client(Some("tls/hospital")), house.client(Some("tls/registry")));
    // Every tenth is refused.
    let line = |at: usize| match at % 10 {
        9 => json!({"resourceType": "Patient", "nonsense": at}),
        _ => json!({"resourceType": "Patient", "id": format!("p{at}")}),
    };
    let lines: Vec<String> = (0..250).map(|at| line(at).to_string()).collect();
    let (status, answer) = hospital.post(&served, "/$ingest", LINES, lines.join("\n")).await;
    assert_eq!((status, &parameter(&answer, "accepted")["valueUnsignedInt"]), (StatusCode::OK, &json!(225)));
    let receipt = parameter(&answer, "receipt")["valueString"].as_str().unwrap().to_owned();

    let mut found: Vec<Value> = Vec::new();
    let mut path = receipt.clone();
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let (status, page) = get(&hospital, &served, &path, "application/json").await;
        assert_eq!(status, StatusCode::OK, "{page}");
        assert_eq!((&page["receipt"], &page["sender"]), (&json!(receipt), &json!("hospital-a")));
        assert_eq!((&page["lines"], &page["accepted"]), (&json!(250), &json!(225)));
        let operations = page["operations"].as_array().unwrap();
        let anchored = |it: &Value| it["resources"][0]["receipt"].is_object();
        if !operations.iter().all(anchored) {
            assert!(Instant::now() < deadline, "they are not anchored: {page}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        found.extend(operations.iter().cloned());
        match page["next"].as_u64() {
            Some(next) => path = format!("{receipt}?from={next}"),
            None => break,
        }
    }
    let expected: Vec<u64> = (0..250).filter(|at| at % 10 != 9).collect();
    assert_eq!(found.iter().map(|it| it["line"].as_u64().unwrap()).collect::<Vec<_>>(), expected);
    for it in &found {
        let resource = &it["resources"][0];
        assert_eq!(resource["id"], format!("p{}", it["line"]));
        assert_eq!(resource["assurance"], "self");
        assert!(resource["checkpoint"].is_string() && resource["r"].is_string());
    }
    // Each is what its own receipt says.
    let (_, alone) = get(&hospital, &served, found[7]["operation"].as_str().unwrap(), "*/*").await;
    assert_eq!(alone["resources"][0]["record"], found[7]["resources"][0]["record"]);

    // Nobody else learns that there is one, and what is not asked for rightly is told.
    let other = get(&registry, &served, &receipt, "*/*").await;
    let unknown = get(&registry, &served, &"0".repeat(64), "*/*").await;
    assert_eq!(other.0, StatusCode::NOT_FOUND);
    assert_eq!(other, unknown);
    for (path, accept, status) in [
        (format!("{receipt}?from=x"), "*/*", 400),
        (format!("{receipt}?to=1"), "*/*", 400),
        (format!("{receipt}/0"), "*/*", 404),
        (receipt.to_uppercase(), "*/*", 404),
        (receipt.clone(), "text/plain", 406),
    ] {
        assert_eq!(get(&hospital, &served, &path, accept).await.0, status, "{path}");
    }
    let (_, beyond) = get(&hospital, &served, &format!("{receipt}?from=9999"), "*/*").await;
    assert_eq!((&beyond["operations"], &beyond["next"]), (&json!([]), &Value::Null));

    // The same stream again, after a restart: the same receipt, of the same operations.
    assert_eq!(served.stop(), Some(0));
    let served = house.serve();
    let (_, again) = hospital.post(&served, "/$ingest", LINES, lines.join("\n")).await;
    assert_eq!(parameter(&again, "receipt")["valueString"], receipt);
    let (status, page) = get(&hospital, &served, &receipt, "*/*").await;
    assert_eq!((status, &page["operations"][0]["operation"]), (StatusCode::OK, &found[0]["operation"]));
    // Another stream is another, and one of which nothing was accepted has none.
    let other = [("content-type", "application/fhir+ndjson"), ("idempotency-key", "two")];
    let (_, answer) = hospital.post(&served, "/$ingest", &other, lines[..3].join("\n")).await;
    assert_ne!(parameter(&answer, "receipt")["valueString"], receipt);
    let (_, answer) = hospital.post(&served, "/$ingest", &other, lines[9].clone()).await;
    assert_eq!(parameter(&answer, "receipt"), Value::Null);
}

/// Longer than one row, and than one commit.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_stream_is_kept_whole() {
    let rig = Rig::new().await;
    let recorder = &rig.gateway.recorder;
    let lines: Vec<_> = (0..70_001).map(|at| (at % 7 != 0).then(OperationId::random)).collect();
    let id = recorder.keep_stream("hospital-a", &lines).await.unwrap();
    assert_eq!(recorder.keep_stream("hospital-a", &lines).await.unwrap(), id);
    assert_eq!(StreamId::of(&lines), id);
    let rig = rig.restart().await;
    let recorder = &rig.gateway.recorder;
    let stream = recorder.stream(id).await.unwrap().unwrap();
    assert_eq!((stream.lines, stream.accepted), (70_001, 60_000));
    for from in [0, 1, 4095, 4096, 65_535, 65_536, 69_999, 70_000, 70_001, 100_000] {
        let expected: Vec<_> = (from..70_001).filter_map(|at| Some((at as u64, lines[at]?))).take(10).collect();
        assert_eq!(recorder.stream_lines(id, &stream, from as u64, 10).await.unwrap(), expected, "from {from}");
    }
    let other = StreamId::of(&lines[1..]);
    assert_eq!(recorder.stream(other).await.unwrap(), None);
}
