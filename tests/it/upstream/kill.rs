//! SIGKILL at moments that nobody has chosen, with units under way: what was acknowledged stands, once and with its first
//! answer; what was refused stands nowhere.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::Request;
use serde_json::Value;

use super::fake::Fake;
use super::settings;
use crate::house::{House, Served, Wire};
use crate::rig::transaction;

/// Units under way at each kill.
const UNITS: usize = 10;

fn is_refused(n: usize) -> bool {
    n % 5 == 4
}

/// Its number, status and where it stands.
async fn post(wire: &Wire, served: &Served, n: usize) -> (usize, Option<(u16, String)>) {
    let family = if is_refused(n) { "REFUSE" } else { "a" };
    let body = transaction(&[format!(
        r#"{{"resource":{{"resourceType":"Patient","name":[{{"family":"{family}"}}],"identifier":[{{"system":"urn:a","value":"{n}"}}]}},"request":{{"method":"POST","url":"Patient"}}}}"#
    )]);
    let request = Request::post("https://localhost/fhir")
        .header("content-type", "application/fhir+json")
        .header("idempotency-key", format!("key-{n}"))
        .body(Bytes::from(body))
        .unwrap();
    let answer = wire.try_send(served, request).await;
    let location = |body: &Value| body["entry"][0]["response"]["location"].as_str().unwrap_or_default().to_owned();
    (n, answer.map(|(status, body)| (status.as_u16(), location(&body))))
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment() {
    let fake = Fake::start().await;
    let house = House::new(&settings(&fake, "client-ids"));
    let wire = house.client(Some("tls/hospital"));
    let mut acknowledged: BTreeMap<usize, String> = BTreeMap::new();
    let mut units = 0;
    // By time, or by the number of answers: what a slow machine reaches too.
    for (millis, answers_max) in [(30, UNITS), (60_000, 1), (100, UNITS), (60_000, 3), (300, UNITS), (60_000, 6)] {
        let served = house.serve();
        let mut posts: FuturesUnordered<_> = (units..units + UNITS).map(|n| post(&wire, &served, n)).collect();
        units += UNITS;
        let mut time = std::pin::pin!(tokio::time::sleep(Duration::from_millis(millis)));
        for _ in 0..answers_max {
            tokio::select! {
                () = &mut time => break,
                Some((n, answer)) = posts.next() => match answer {
                    Some((200, location)) => assert!(acknowledged.insert(n, location).is_none()),
                    Some((status, _)) => assert!(status == 422 && is_refused(n), "{n}: {status}"),
                    None => {}
                },
            }
        }
        drop(posts);
        // SIGKILL.
        drop(served);
    }
    let served = house.serve();
    let begun = Instant::now();
    for n in 0..units {
        loop {
            match post(&wire, &served, n).await.1.expect("an answer") {
                (422, _) => {
                    assert!(is_refused(n) && !acknowledged.contains_key(&n), "{n}");
                    break;
                }
                (200, location) => {
                    assert!(!is_refused(n), "{n}");
                    assert_eq!(acknowledged.get(&n).unwrap_or(&location), &location, "{n}: the first answer");
                    break;
                }
                (status, _) => {
                    assert!(matches!(status, 503 | 504), "{n}: {status}");
                    assert!(begun.elapsed() < Duration::from_mins(2), "{n}: it stays open");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
    let held = fake.held.lock().unwrap();
    for n in 0..units {
        let of_n = held.stands.values().filter(|(_, it)| it["identifier"][0]["value"] == *n.to_string()).count();
        assert_eq!(of_n, usize::from(!is_refused(n)), "{n}");
    }
    assert!(acknowledged.len() >= 4, "{} acknowledged", acknowledged.len());
}
