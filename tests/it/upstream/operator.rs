//! What an operator can say of a parked unit, in this process and by the command.

use sluice::forward::Found;
use sluice::gateway::{Fate, Ruling};
use sluice::stage::OperationId;

use super::fake::{Fake, Mode};
use super::{admission, recorded, settings, staged_rows};
use crate::house::{House, lines, sluice};
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
    let run = |args: &[&str]| {
        let output = sluice(&[&["parked"], args, &["--format", "json", "--admin", &admin]].concat(), b"");
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
    // A web page of somebody else can't decide.
    let forged = plain_post(&served.address("admin"), &format!("/parked/{operation}/drop"));
    assert!(forged.starts_with("HTTP/1.1 415"), "{forged}");
}

fn plain_post(address: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
