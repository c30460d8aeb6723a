//! Forwarding: what the upstream does at each step, done or not done, and what is recorded then.

pub(crate) mod fake;
mod faults;
mod hapi;
mod kill;
mod operator;
mod parts;
mod wire;

use std::time::Duration;

use sluice::record::work::{Kind, Work};
use sluice::store::{Direction, KeyRange, Table};

use self::fake::{Fake, Mode};
use crate::rig::{Rig, transaction};

fn settings(fake: &Fake, resolve: &str) -> String {
    format!(
        "[upstream]\nurl = \"http://{}/fhir\"\nresolve = \"{resolve}\"\ntimeout = \"2s\"\nretries_max = 1\nretry_wait = \"10ms\"\n",
        fake.address
    )
}

fn admission() -> String {
    transaction(&[
        r#"{"fullUrl":"urn:uuid:00000000-0000-4000-8000-000000000001","resource":{"resourceType":"Patient","identifier":[{"system":"urn:a","value":"7"}]},"request":{"method":"POST","url":"Patient"}}"#,
        r#"{"fullUrl":"urn:uuid:00000000-0000-4000-8000-000000000002","resource":{"resourceType":"Observation","status":"final","code":{"text":"x"},"subject":{"reference":"urn:uuid:00000000-0000-4000-8000-000000000001"}},"request":{"method":"POST","url":"Observation"}}"#,
    ])
}

/// Resources recorded, and versions that are to be announced.
async fn recorded(rig: &Rig) -> (usize, usize) {
    let store = rig.gateway.recorder.store();
    let work = store.scan(Table::Work, KeyRange::prefix(vec![Kind::Route as u8]), 1000, Direction::Up).await.unwrap();
    let pieces = work.iter().map(|row| Work::decode(&row.value).unwrap().pieces.len()).sum();
    let (mut heads, mut range) = (0, KeyRange::all());
    loop {
        let page = store.scan(Table::Resource, range.clone(), 1000, Direction::Up).await.unwrap();
        let Some(last) = page.last() else { return (heads, pieces) };
        range = range.after(last.key.clone());
        heads += page.len();
    }
}

/// The kinds of the rows of units that are between stage and record; those of keys that are still to be swept are none.
async fn staged_rows(rig: &Rig) -> Vec<u8> {
    let rows = rig.gateway.recorder.store().scan(Table::Staged, KeyRange::all(), 100, Direction::Up).await.unwrap();
    rows.iter().map(|row| row.key[0]).filter(|kind| *kind != 3).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_accepts_is_recorded_under_its_ids() {
    for resolve in ["client-ids", "tag-probe", "park"] {
        let fake = Fake::start().await;
        let rig = Rig::with(&settings(&fake, resolve)).await;
        let answer = rig.admit(&admission()).await.unwrap();
        assert_eq!(answer.entries.iter().map(|it| it.status).collect::<Vec<_>>(), [201, 201]);
        for entry in &answer.entries {
            let at = format!("{}/{}", entry.resource_type, entry.id);
            assert!(fake.held.lock().unwrap().stands.contains_key(&at), "{resolve}");
            let stored = rig.gateway.recorder.read_current(&entry.resource_type, &entry.id).await.unwrap().unwrap();
            assert_eq!(stored.about.upstream_version.as_deref(), Some("1"));
        }
        assert_eq!(staged_rows(&rig).await, [0_u8; 0], "nothing stays staged");
        assert_eq!(rig.admit(&admission()).await.unwrap().operation, answer.operation);
        assert_eq!(fake.writes(), 1, "a repetition is answered without the upstream");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_passed_on_and_nothing_is_recorded() {
    let fake = Fake::start().await;
    let rig = Rig::with(&settings(&fake, "park")).await;
    fake.turn(Mode::Refuses);
    let refused = rig.admit(&admission()).await.unwrap_err();
    assert_eq!(refused.kind().face().status, 422);
    assert_eq!(refused.issues()[0].text, "the ward is closed");
    assert!(!refused.to_string().contains("ward"), "its words are for the sender, not for the log");
    assert_eq!(staged_rows(&rig).await, [0_u8; 0]);
    assert_eq!(recorded(&rig).await, (0, 0));
    fake.turn(Mode::Works);
    rig.admit(&admission()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_sent_is_an_outage_and_can_be_sent_again() {
    let fake = Fake::start().await;
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = settings(&fake, "park").replace(&fake.address.to_string(), &unused.to_string());
    let rig = Rig::with(&nobody).await;
    assert_eq!(rig.admit(&admission()).await.unwrap_err().kind().face().status, 502);
    assert_eq!(staged_rows(&rig).await, [0_u8; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_answered_is_resolved_and_never_done_twice() {
    use Mode::{BreaksAfter, BreaksBefore, FailsAfter, FailsBefore, HangsAfter, Mumbles};
    for resolve in ["client-ids", "tag-probe", "park"] {
        for mode in [BreaksBefore, BreaksAfter, FailsBefore, FailsAfter, Mumbles, HangsAfter] {
            let at = format!("{resolve}, {mode:?}");
            let fake = Fake::start().await;
            let rig = Rig::with(&settings(&fake, resolve)).await;
            fake.turn(mode);
            assert_eq!(rig.admit(&admission()).await.unwrap_err().kind().face().status, 504, "{at}");
            let sent = fake.writes();
            assert_eq!(rig.admit(&admission()).await.unwrap_err().kind().face().status, 504, "{at}");
            assert_eq!((sent, fake.writes()), (1, 1), "{at}: the sender's repetition is not sent");
            fake.turn(Mode::Works);
            let done = !matches!(mode, BreaksBefore | FailsBefore);
            let recorded = match resolve {
                "client-ids" => 1,
                "tag-probe" => usize::from(done),
                _ => 0,
            };
            assert_eq!(rig.gateway.recover().await.unwrap(), recorded, "{at}");
            assert_eq!(rig.gateway.recover().await.unwrap(), 0, "{at}: once");
            let again = usize::from(resolve == "client-ids" && !done);
            assert_eq!(fake.writes(), 1 + again, "{at}");
            assert_eq!(fake.count("Patient"), usize::from(done || recorded == 1), "{at}");
            if recorded == 1 {
                let answer = rig.admit(&admission()).await.unwrap();
                assert_eq!(fake.writes(), 1 + again, "{at}: the first answer");
                let patient = rig.gateway.recorder.read_current("Patient", &answer.entries[0].id).await.unwrap();
                assert!(patient.is_some(), "{at}");
                assert_eq!(staged_rows(&rig).await, [0_u8; 0], "{at}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_stage_and_record_is_recovered() {
    for resolve in ["client-ids", "tag-probe"] {
        let fake = Fake::start().await;
        let more = settings(&fake, resolve);
        let rig = Rig::with(&more).await;
        fake.turn(Mode::HangsAfter);
        // Dropped while it waits for the answer.
        assert!(tokio::time::timeout(Duration::from_millis(500), rig.admit(&admission())).await.is_err());
        assert_eq!(fake.count("Patient"), 1);
        let rig = rig.restart().await;
        fake.turn(Mode::Works);
        assert_eq!(rig.gateway.recover().await.unwrap(), 1, "{resolve}");
        let answer = rig.admit(&admission()).await.unwrap();
        assert_eq!((fake.writes(), fake.count("Patient")), (1, 1), "{resolve}");
        assert!(rig.gateway.recorder.read_current("Patient", &answer.entries[0].id).await.unwrap().is_some());
    }
}
