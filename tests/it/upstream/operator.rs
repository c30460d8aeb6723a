//! What an operator can say of a parked unit, in this process and by the command.

use sluice::forward::Found;
use sluice::gateway::{Fate, Ruling};
use sluice::stage::OperationId;

use super::fake::{Fake, Mode};
use super::{admission, recorded, settings, staged_rows};
use crate::house::{House, OPERATOR, lines, sluice};
use crate::rig::Rig;

async fn parked(mode: Mode) -> (Fake, Rig, OperationId) {
    let fake = Fake::start().await;
    let rig = Rig::with(&settings(&fake, "park")).await;
    fake.turn(mode);
    assert!(rig.admit(&admission()).await.is_err());
    fake.turn(Mode::Works);
    rig.gateway.recover().await.unwrap();
    let (parked, more) = rig.gateway.parked(1).await.unwrap();
    assert!(!more);
    assert_eq!(parked[0].sender.as_deref(), Some("hospital-a"));
    assert_eq!(
        parked[0].resources.iter().map(|(name, n)| (&**name, *n)).collect::<Vec<_>>(),
        [("Observation", 1), ("Patient", 1)]
    );
    (fake, rig, parked[0].operation)
}

fn places(fake: &Fake) -> Vec<Found> {
    let held = fake.held.lock().unwrap();
    let place = |resource_type: &str| {
        let at = held.stands.keys().find(|at| at.starts_with(resource_type)).unwrap();
        let id = at.split('/').nth(1).unwrap().to_owned();
        Found { resource_type: resource_type.to_owned(), id, version: Some("1".to_owned()) }
    };
    vec![place("Patient"), place("Observation")]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_found_is_recorded() {
    let (fake, rig, operation) = parked(Mode::BreaksAfter).await;
    let places = places(&fake);
    let backwards: Vec<Found> = places.iter().rev().cloned().collect();
    for wrong in [&places[..1], &backwards, &[]] {
        let refused = rig.gateway.decide(operation, Ruling::Found(wrong.to_vec())).await.unwrap_err();
        assert_eq!(refused.kind().face().status, 422);
    }
    assert_eq!(recorded(&rig).await, (0, 0));
    assert_eq!(rig.gateway.decide(operation, Ruling::Found(places.clone())).await.unwrap(), Fate::Recorded);
    assert_eq!(recorded(&rig).await, (2, 2));
    assert_eq!(staged_rows(&rig).await, [0_u8; 0]);
    let answer = rig.admit(&admission()).await.unwrap();
    assert_eq!((&answer.entries[0].id, fake.writes()), (&places[0].id, 1));
    let over = rig.gateway.decide(operation, Ruling::Drop).await.unwrap_err();
    assert_eq!(over.kind().face().status, 404, "it is parked no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_can_come_again() {
    let (fake, rig, operation) = parked(Mode::BreaksBefore).await;
    assert_eq!(rig.admit(&admission()).await.unwrap_err().kind().face().status, 504, "parked is under way");
    assert_eq!(rig.gateway.decide(operation, Ruling::Look).await.unwrap(), Fate::Open, "the settings ask an operator");
    assert_eq!(rig.gateway.decide(operation, Ruling::Drop).await.unwrap(), Fate::Refused);
    assert_eq!(staged_rows(&rig).await, [0_u8; 0]);
    rig.admit(&admission()).await.unwrap();
    assert_eq!((fake.writes(), fake.count("Patient")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_is_sent_once() {
    let (fake, rig, operation) = parked(Mode::BreaksBefore).await;
    fake.turn(Mode::FailsAfter);
    assert_eq!(rig.gateway.decide(operation, Ruling::Send).await.unwrap(), Fate::Open);
    fake.turn(Mode::Works);
    rig.gateway.recover().await.unwrap();
    assert_eq!(rig.gateway.parked(9).await.unwrap().0.len(), 1, "parked again");
    assert_eq!((fake.writes(), fake.count("Patient")), (2, 1));
    assert_eq!(rig.gateway.decide(operation, Ruling::Found(places(&fake))).await.unwrap(), Fate::Recorded);

    let (fake, rig, operation) = parked(Mode::BreaksBefore).await;
    assert_eq!(rig.gateway.decide(operation, Ruling::Send).await.unwrap(), Fate::Recorded);
    assert_eq!((fake.writes(), recorded(&rig).await), (2, (2, 2)));
    // What would not be accepted today is not sent on anybody's word.
    let (fake, rig, operation) = parked(Mode::BreaksBefore).await;
    let rig = rig.restart_with("[consent.implicit]\ncollect = \"deny\"\n").await;
    assert_eq!(rig.gateway.decide(operation, Ruling::Send).await.unwrap_err().kind().face().status, 403);
    assert_eq!((fake.writes(), rig.gateway.parked(9).await.unwrap().0.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_decides() {
    let fake = Fake::start().await;
    let house = House::new(&settings(&fake, "park"));
    let served = house.serve();
    fake.turn(Mode::BreaksAfter);
    let wire = house.client(Some("tls/hospital"));
    let (status, _) = wire.post(&served, "", &[("idempotency-key", "a")], admission()).await;
    assert_eq!(status, 504);
    let admin = format!("http://{}", served.address("admin"));
    let token = house.path("operator.token");
    let run_with = |token: &str, args: &[&str]| {
        let gateway = ["--format", "json", "--admin", &admin, "--token-file", token];
        sluice(&[&["parked"], args, &gateway].concat(), b"")
    };
    let run = |args: &[&str]| {
        let output = run_with(&token, args);
        (output.status.code(), lines(&output))
    };
    let begun = std::time::Instant::now();
    let operation = loop {
        // The next pass of recovery parks it.
        let (code, told) = run(&["list"]);
        if let Some(unit) = told.first() {
            assert_eq!((code, &unit["resources"]), (Some(1), &serde_json::json!({"Observation": 1, "Patient": 1})));
            break unit["operation"].as_str().unwrap().to_owned();
        }
        assert_eq!(code, Some(0));
        assert!(begun.elapsed() < std::time::Duration::from_mins(1), "it is never parked");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let places: Vec<String> = places(&fake).iter().map(|it| format!("{}/{}", it.resource_type, it.id)).collect();
    assert_eq!(run(&["found", &operation, &places[1], &places[0]]).0, Some(2));
    let (code, told) = run(&["found", &operation, &places[0], &places[1]]);
    assert_eq!((code, &told[0]["outcome"]), (Some(0), &"recorded".into()));
    assert_eq!(run(&["drop", &operation]).0, Some(2), "it is parked no more");
    assert_eq!(run(&["list"]), (Some(0), vec![]));
    let (status, answer) = wire.post(&served, "", &[("idempotency-key", "a")], admission()).await;
    assert_eq!((status.as_u16(), fake.writes()), (200, 1));
    assert!(answer["entry"][0]["response"]["location"].as_str().unwrap().starts_with(&places[0]));
    // A web page of somebody else can't decide, and nobody can without the token.
    let path = format!("/parked/{operation}/drop");
    let forged = plain(&served.address("admin"), "POST", &path, OPERATOR);
    assert!(forged.starts_with("HTTP/1.1 415"), "{forged}");
    let wrong = house.path("wrong.token");
    std::fs::write(&wrong, "another token").unwrap();
    let refused = run_with(&wrong, &["list"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("401"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_or_decides_what_is_parked_without_the_token() {
    let house = House::new("");
    let served = house.serve();
    let address = served.address("admin");
    let operation = "2f0c9a4e-6a53-4a4e-9a3e-5d8c2f6b1f10";
    let mut asked = vec![("GET", "/parked".to_owned()), ("GET", "/events/parked".to_owned())];
    asked
        .extend(["look", "send", "drop", "found?at=Patient/1"].map(|it| ("POST", format!("/parked/{operation}/{it}"))));
    asked.extend(["retry", "00/retry", "00/discard"].map(|it| ("POST", format!("/events/parked/{it}"))));
    for (method, path) in &asked {
        for token in ["", "another token"] {
            let answer = plain(&address, method, path, token);
            assert!(answer.starts_with("HTTP/1.1 401"), "{method} {path}: {answer}");
            assert!(answer.to_lowercase().contains("www-authenticate: bearer"), "{answer}");
        }
        let answer = plain(&address, method, path, OPERATOR);
        assert!(!answer.starts_with("HTTP/1.1 401"), "{method} {path}: {answer}");
    }
    drop(served);
    // Where the settings name no token there is no operator, and the old token opens nothing.
    let settings = house.path("sluice.toml");
    let without = std::fs::read_to_string(&settings).unwrap().replace("operator_token_sha256_file", "# ");
    std::fs::write(&settings, without).unwrap();
    let served = house.serve();
    for (method, path) in &asked {
        let answer = plain(&served.address("admin"), method, path, OPERATOR);
        assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("http.operator"), "{method} {path}: {answer}");
    }
}

/// A request as a web page can send it by itself, but for the token; without one if it is empty.
fn plain(address: &str, method: &str, path: &str, token: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_mins(1))).unwrap();
    let token = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n{token}content-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
